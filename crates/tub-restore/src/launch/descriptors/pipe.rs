//! Pipes, named or not, with what lay in them.
//!
//! In: the ends of a pipe. Out: descriptors at their numbers. Invariant: nobody is waited for: a
//! pipe that cannot take its content again is an error, and a FIFO is opened without its other end.

use super::file::{check_kind, open_path};
use crate::launch::LaunchError;
use crate::plan::{End, FileStep};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use tub_sys::Errno;

/// Makes a pipe, or opens a FIFO, and places its ends.
pub(super) fn pipe(step: &FileStep) -> Result<(), LaunchError> {
    let FileStep::Pipe { path, ends, capacity_bytes, content } = step else { return Ok(()) };
    let numbers: Vec<String> = ends.iter().map(|end| format!("{}", end.number)).collect();
    let what = path.as_ref().map_or("pipe".to_owned(), |path| format!("FIFO {path}"));
    let failed = |source| LaunchError::Descriptor {
        object: format!("{what} of descriptors {}", numbers.join(", ")),
        source,
    };
    // Whoever opens only one end of a FIFO is sent away, or kept waiting, until there is another.
    let (reads, writes) = match path {
        Some(path) => {
            let one = open_fifo(path, ends, content.is_empty())?;
            (one.try_clone().map_err(|_| failed(Errno::EMFILE))?, one)
        }
        None => nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(failed)?,
    };
    // A single packet is told from bytes by how the pipe is written to.
    let is_written_in_packets = |end: &End| {
        end.flags & libc::O_ACCMODE != libc::O_RDONLY && end.flags & libc::O_DIRECT != 0
    };
    let packets = content.len() > 1 || ends.iter().any(is_written_in_packets);
    fill(&writes, *capacity_bytes, content, packets).map_err(failed)?;
    place_ends(ends, reads, writes, path.is_some()).map_err(failed)
}

/// Opens a FIFO through which all of `ends` can be opened.
fn open_fifo(path: &str, ends: &[End], is_empty: bool) -> Result<OwnedFd, LaunchError> {
    let reads = |end: &End| end.flags & libc::O_ACCMODE == libc::O_RDONLY;
    let open = |access| open_path(path, access | OFlag::O_NONBLOCK);
    let one = if is_empty && ends.iter().all(reads) {
        // KERNEL: whoever is opened while there is a writer is told by poll(2) when that one has gone
        // (`f_version`, fs/pipe.c). Nobody has gone but us.
        open(OFlag::O_RDONLY)
    } else {
        open(OFlag::O_RDWR)
    }?;
    check_kind(&one, path, libc::S_IFIFO)?;
    Ok(one)
}

/// Fills a pipe. A FIFO that somebody else has kept open still holds what lay in it.
fn fill(
    writes: &OwnedFd,
    capacity_bytes: u32,
    content: &[Vec<u8>],
    packets: bool,
) -> Result<(), Errno> {
    let has_capacity = tub_sys::set_pipe_capacity(writes.as_raw_fd(), capacity_bytes);
    if content.is_empty() || tub_sys::readable_bytes(writes.as_fd())? > 0 {
        // A smaller pipe does no harm as long as everything fits.
        return Ok(());
    }
    // Packets are what is written in packet mode (pipe(2), O_DIRECT).
    let mode = if packets { libc::O_DIRECT } else { 0 };
    tub_sys::set_status_flags(writes.as_raw_fd(), libc::O_NONBLOCK | mode)?;
    for bytes in content {
        match nix::unistd::write(writes, bytes) {
            Ok(written) if written == bytes.len() => {}
            // What lies in it may fit into a smaller one as well.
            Ok(_) | Err(Errno::EAGAIN) => return has_capacity.and(Err(Errno::ENOSPC)),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Places the ends. The first of each kind is what was made; others are opened through it. Numbers
/// may be where something of ours is open now, so all are moved out of the way first.
fn place_ends(ends: &[End], reads: OwnedFd, writes: OwnedFd, fifo: bool) -> Result<(), Errno> {
    let highest = ends.iter().map(|end| end.number).max().unwrap_or(2);
    let mut made = Vec::with_capacity(ends.len());
    let mut left = (Some(&reads), Some(&writes));
    for end in ends {
        let access = end.flags & libc::O_ACCMODE;
        let given = match access {
            _ if fifo => None,
            libc::O_RDONLY => left.0.take(),
            libc::O_WRONLY => left.1.take(),
            _ => None,
        };
        let source = given.unwrap_or(if access == libc::O_RDONLY { &reads } else { &writes });
        let fd = if given.is_some() {
            tub_sys::duplicate_above(source.as_raw_fd(), highest + 1)?
        } else {
            let path = format!("/proc/self/fd/{}", source.as_raw_fd());
            let flags = OFlag::from_bits_retain(access) | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            let fd = open(path.as_str(), flags, Mode::empty())?;
            tub_sys::duplicate_above(fd.as_raw_fd(), highest + 1)?
        };
        made.push(fd);
    }
    drop((reads, writes));
    for (fd, end) in made.into_iter().zip(ends) {
        tub_sys::move_to(fd, end.number, end.close_on_exec)?;
        tub_sys::set_status_flags(end.number, end.flags)?;
    }
    Ok(())
}
