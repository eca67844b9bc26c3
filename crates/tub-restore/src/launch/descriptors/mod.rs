//! Lays out the descriptor table of the process being reborn.
//!
//! In: the steps of the plan, in the process itself. Out: a table that holds what the image says,
//! and the launcher's own descriptors above. Invariant: nothing is opened that the caller could
//! not open himself, no link at the end of a path is followed, nothing is created but what the
//! plan says is scratch.

mod file;
mod inotify;
mod socket;

use super::LaunchError;
use crate::plan::{FileStep, MappedFile, RestorePlan, TaskPlan};
use file::{check_identity, open_existing, open_path, open_scratch};
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, socketpair};
use nix::sys::stat::fstat;
use nix::unistd::{Whence, lseek};
use socket::{open_socket, socket_kind};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use tub_model::{FileKind, OpenFile, Socket};
use tub_sys::Errno;

/// Moves the launcher's own descriptors to the numbers that the plan has for them.
pub(super) fn claim(
    plan: &RestorePlan,
    pages: &File,
    handshake: &OwnedFd,
) -> Result<(), LaunchError> {
    raise_limit(plan.spare.last);
    let spare = plan.spare;
    // Either may stand where the other is to go, so both are moved out of the way first.
    let aside = |fd: i32| {
        tub_sys::duplicate_above(fd, spare.last + 1)
            .map_err(|source| LaunchError::System { what: "descriptor", source })
    };
    let (handshake, pages) = (aside(handshake.as_raw_fd())?, aside(pages.as_raw_fd())?);
    place(handshake, spare.handshake, true)?;
    place(pages, spare.pages, true)
}

/// Makes all open file descriptions of `plan`, after [`claim`].
pub(super) fn open_all(plan: &RestorePlan) -> Result<(), LaunchError> {
    let spare = plan.spare;
    let system = |what| move |source| LaunchError::System { what, source };
    // From here on only the spare numbers and the standard streams are ours.
    let last = u32::try_from(spare.handshake - 1).unwrap_or(2);
    if last >= 3 {
        tub_sys::close_range(3, last).map_err(system("descriptor table"))?;
    }
    let first = u32::try_from(spare.pages + 1).unwrap_or(u32::MAX);
    tub_sys::close_range(first, u32::MAX).map_err(system("descriptor table"))?;
    for (number, file) in (spare.first_file..).zip(&plan.mapped_files) {
        let fd = match file {
            MappedFile::Existing { file, writable } => open_existing(file, *writable)?,
            MappedFile::Scratch { .. } => open_scratch(file, spare.pages)?,
        };
        place(fd, number, true)?;
    }
    plan.file_steps.iter().try_for_each(perform)
}

/// Makes the descriptor table of `task`, after [`open_all`].
pub(super) fn lay_out(plan: &RestorePlan, task: &TaskPlan) -> Result<(), LaunchError> {
    let exe = open_existing(&task.exe, false)?;
    place(exe, plan.spare.executable, true)?;
    task.file_steps.iter().try_for_each(perform)
}

/// The image may have more descriptors than our soft limit allows; what it had itself is set later.
fn raise_limit(last: i32) {
    let wanted = u64::try_from(last).unwrap_or(0) + 16;
    let limit = tub_sys::own_limits().into_iter().find(|limit| limit.0 == libc::RLIMIT_NOFILE);
    if let Some((resource, soft, hard)) = limit
        && soft < wanted
    {
        let _ = tub_sys::set_own_limit(resource, hard, hard);
    }
}

fn place(fd: OwnedFd, number: i32, close_on_exec: bool) -> Result<(), LaunchError> {
    tub_sys::move_to(fd, number, close_on_exec).map_err(|source| LaunchError::Descriptor {
        object: format!("descriptor number {number}"),
        source,
    })
}

fn perform(step: &FileStep) -> Result<(), LaunchError> {
    match step {
        FileStep::Open { number, close_on_exec, file } => {
            let failed = |source| LaunchError::Descriptor {
                object: format!("descriptor {number}: {}", describe(&file.kind)),
                source,
            };
            let fd = reopen(file, &failed)?;
            tub_sys::move_to(fd, *number, *close_on_exec).map_err(failed)?;
            finish(*number, file).map_err(failed)
        }
        FileStep::Pipe { read, write, capacity_bytes, content } => {
            let end = |end: &Option<(i32, bool, i32)>| {
                end.map_or("closed".to_owned(), |(number, ..)| number.to_string())
            };
            let failed = |source| LaunchError::Descriptor {
                object: format!("pipe with ends {} and {}", end(read), end(write)),
                source,
            };
            // Not blocking yet: content that does not fit must be an error, and not a wait for ever.
            let flags = OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            let (from, to) = nix::unistd::pipe2(flags).map_err(failed)?;
            let _ = tub_sys::set_pipe_capacity(to.as_raw_fd(), *capacity_bytes);
            if !content.is_empty() {
                let written = nix::unistd::write(&to, content).map_err(failed)?;
                if written < content.len() {
                    return Err(failed(Errno::ENOSPC));
                }
            }
            pair_up((from, *read), (to, *write)).map_err(failed)
        }
        FileStep::UnixPair { kind, a, b } => {
            let failed = |source| LaunchError::Descriptor {
                object: format!("descriptors {} and {}: pair of unix sockets", a.0, b.0),
                source,
            };
            let flags = SockFlag::SOCK_CLOEXEC;
            let kind = socket_kind(*kind).map_err(failed)?;
            let (one, other) =
                socketpair(AddressFamily::Unix, kind, None, flags).map_err(failed)?;
            pair_up((one, Some(*a)), (other, Some(*b))).map_err(failed)
        }
        FileStep::Duplicate { from, to, close_on_exec } => {
            tub_sys::duplicate_to(*from, *to, *close_on_exec).map_err(|source| {
                let object = format!("descriptor {to}: duplicate of {from}");
                LaunchError::Descriptor { object, source }
            })
        }
        FileStep::EpollAdd { epoll, target } => {
            let fd = target.fd.0;
            tub_sys::epoll_add(*epoll, fd, target.events, target.data).map_err(|source| {
                let object = format!("descriptor {epoll}: epoll set's target {fd}");
                LaunchError::Descriptor { object, source }
            })
        }
    }
}

type Placed = (OwnedFd, Option<(i32, bool, i32)>);

/// Places two ends that were made together; one without a number is closed. The number of either
/// may be where the other one happens to be open now, so both are moved out of the way first.
fn pair_up(a: Placed, b: Placed) -> Result<(), Errno> {
    let highest = [&a, &b].into_iter().filter_map(|(_, end)| Some((*end)?.0)).max().unwrap_or(2);
    let mut ends = Vec::with_capacity(2);
    for (fd, end) in [a, b] {
        if let Some(end) = end {
            ends.push((tub_sys::duplicate_above(fd.as_raw_fd(), highest + 1)?, end));
        }
    }
    for (fd, (number, close_on_exec, flags)) in ends {
        tub_sys::move_to(fd, number, close_on_exec)?;
        tub_sys::set_status_flags(number, flags)?;
    }
    Ok(())
}

/// Opens a description anew.
fn reopen(file: &OpenFile, failed: &dyn Fn(Errno) -> LaunchError) -> Result<OwnedFd, LaunchError> {
    let dropped = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_TRUNC;
    let flags = OFlag::from_bits_retain(file.flags) - dropped;
    let nonblocking = file.flags & libc::O_NONBLOCK;
    match &file.kind {
        FileKind::Regular { file: identity, .. } => {
            let fd = open_path(&identity.path, flags)?;
            // A file open for writing may have grown since: the log that everybody appends to.
            if flags & OFlag::O_ACCMODE == OFlag::O_RDONLY {
                check_identity(&fd, identity)?;
            }
            let stat = fstat(&fd).map_err(failed)?;
            if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
                let problem = "is no regular file any more".to_owned();
                return Err(LaunchError::FileChanged { path: identity.path.clone(), problem });
            }
            Ok(fd)
        }
        FileKind::Directory { path, .. } | FileKind::Device { path } => open_path(path, flags),
        FileKind::EventFd { count, semaphore } => {
            let semaphore = if *semaphore { libc::EFD_SEMAPHORE } else { 0 };
            tub_sys::eventfd(*count, semaphore | nonblocking | libc::EFD_CLOEXEC).map_err(failed)
        }
        FileKind::Epoll { .. } => {
            let flags = nix::sys::epoll::EpollCreateFlags::EPOLL_CLOEXEC;
            nix::sys::epoll::Epoll::new(flags).map(|epoll| epoll.0).map_err(failed)
        }
        FileKind::TimerFd { clock, .. } => {
            tub_sys::timerfd(*clock, nonblocking | libc::TFD_CLOEXEC).map_err(failed)
        }
        FileKind::SignalFd { mask } => {
            tub_sys::signalfd(*mask, nonblocking | libc::SFD_CLOEXEC).map_err(failed)
        }
        FileKind::Inotify { watches } => inotify::inotify(watches).map_err(failed),
        FileKind::Socket(socket) => open_socket(socket).map_err(failed),
        FileKind::Terminal { .. } | FileKind::Pipe { .. } => Err(failed(Errno::EOPNOTSUPP)),
    }
}

/// What can only be set once the description is in place.
fn finish(number: i32, file: &OpenFile) -> Result<(), Errno> {
    // SAFETY: `number` was placed by our caller and stays open; it is only borrowed here.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    match &file.kind {
        FileKind::Regular { offset_bytes, .. } => {
            let offset = i64::try_from(*offset_bytes).map_err(|_| Errno::EOVERFLOW)?;
            lseek(fd, offset, Whence::SeekSet)?;
        }
        // A position in a directory may mean nothing any more; then it is read from the start.
        FileKind::Directory { offset_bytes, .. } if *offset_bytes > 0 => {
            let offset = i64::try_from(*offset_bytes).map_err(|_| Errno::EOVERFLOW)?;
            let _ = lseek(fd, offset, Whence::SeekSet);
        }
        FileKind::TimerFd { ticks, value_ns, interval_ns, .. } => {
            tub_sys::timerfd_arm(fd, *value_ns, *interval_ns)?;
            if *ticks > 0 {
                tub_sys::timerfd_set_ticks(fd, *ticks)?;
            }
        }
        FileKind::Socket(_) | FileKind::Inotify { .. } => {
            tub_sys::set_status_flags(number, file.flags)?;
        }
        _ => {}
    }
    Ok(())
}

fn describe(kind: &FileKind) -> String {
    match kind {
        FileKind::Regular { file, .. } => format!("file {}", file.path),
        FileKind::Directory { path, .. } => format!("directory {path}"),
        FileKind::Device { path } => format!("device {path}"),
        FileKind::Terminal { path } => format!("terminal {path}"),
        FileKind::Pipe { .. } => "pipe".to_owned(),
        FileKind::EventFd { .. } => "eventfd".to_owned(),
        FileKind::Epoll { .. } => "epoll set".to_owned(),
        FileKind::TimerFd { .. } => "timerfd".to_owned(),
        FileKind::SignalFd { .. } => "signalfd".to_owned(),
        FileKind::Inotify { .. } => "inotify".to_owned(),
        FileKind::Socket(Socket::TcpListener { address, .. }) => {
            format!("listening TCP socket on {address}")
        }
        FileKind::Socket(Socket::Udp { address, .. }) => format!("UDP socket on {address}"),
        FileKind::Socket(Socket::UnixListener { address, .. }) => {
            format!("listening unix socket on {address}")
        }
        FileKind::Socket(_) => "unix socket".to_owned(),
    }
}
