//! Files that are made anew: the JVM's performance data, which tools find by the process's id.
//!
//! In: what the plan says of the file; later, the process ids that the kernel gave. Out: a descriptor;
//! the file's last name. Invariant: nothing is made in a directory that another user could write to
//! or has made, and no link is followed.
//!
//! Inside, nobody can know the id that the host gives to the process, and by which its tools look for
//! the file. So it is made under the restoring process's id and renamed once all are parked. A JVM
//! that starts meanwhile clears its directory of files whose number is nobody's; ours is taken.

use crate::launch::LaunchError;
use crate::plan::MappedFile;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat, openat2, renameat};
use nix::mount::{MsFlags, mount};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, geteuid, mkdir, unlinkat};
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use tub_sys::Errno;
use tub_units::{HostPid, NsPid};

/// Makes a scratch file with its saved content. Where it can have no name, it has none: the process
/// does without its readers, as with a read-only `/tmp`.
pub(super) fn open_scratch(file: &MappedFile, pages: i32) -> Result<OwnedFd, LaunchError> {
    let MappedFile::Scratch { path, mode, owner, size_bytes, start, content, .. } = file else {
        return Err(LaunchError::System { what: "scratch file", source: Errno::EINVAL });
    };
    let failed = |source| LaunchError::Descriptor { object: format!("file {path}"), source };
    let fd = match make(path, *mode, *owner) {
        Ok(file) => file,
        Err(_) => File::from(memfd_create(c"tub-scratch", MFdFlags::MFD_CLOEXEC).map_err(failed)?),
    };
    let io = |error: std::io::Error| failed(Errno::from_raw(error.raw_os_error().unwrap_or(5)));
    fd.set_len(*size_bytes).map_err(io)?;
    // SAFETY: the number was placed by `lay_out`; it is given back below, unclosed.
    let store = unsafe { File::from_raw_fd(pages) };
    let mut page = [0u8; 4096];
    let copied = content.iter().try_for_each(|run| {
        let mut done = 0;
        while done < run.range.len() {
            store.read_exact_at(&mut page, run.offset_bytes + done)?;
            fd.write_all_at(&page, run.range.start() - start + done)?;
            done += page.len() as u64;
        }
        Ok(())
    });
    let _ = store.into_raw_fd();
    copied.map_err(io)?;
    Ok(fd.into())
}

fn make(path: &str, mode: u32, owner: u32) -> Result<File, Errno> {
    // One that had no name in an earlier life has none in this one: the kernel's name for it looks
    // like a path, and root could create it.
    let place = path.rsplit_once('/').filter(|_| !path.starts_with("/memfd:"));
    let (directory, name) = place.ok_or(Errno::ENOENT)?;
    // EEXIST where it is there, as it is most of the time.
    let _ = mkdir(directory, Mode::from_bits_truncate(0o755));
    let directory = own_directory(directory, owner)?;
    let create = || {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&directory.fd, name, flags, Mode::from_bits_truncate(mode))
    };
    let file = create().or_else(|error| {
        if error != Errno::EEXIST {
            return Err(error);
        }
        // Whoever had our id before us left it behind.
        unlinkat(&directory.fd, name, UnlinkatFlags::NoRemoveDir)?;
        create()
    })?;
    if directory.uid != geteuid().as_raw() {
        let (uid, gid) = (Uid::from_raw(directory.uid), Gid::from_raw(directory.gid));
        fchown(&file, Some(uid), Some(gid))?;
    }
    // JVM(since 17.0.5): the lock says to JVMs in other PID namespaces that the file is in use. It is
    // kept by the mapping.
    // SAFETY: flock(2) takes numbers and touches no memory.
    let _ = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    Ok(file.into())
}

struct Directory {
    fd: OwnedFd,
    uid: u32,
    gid: u32,
}

/// A directory that nobody else can write to: ours, or, for root, the one of the process's user. It
/// lies in one where everybody can make directories.
fn own_directory(path: &str, owner: u32) -> Result<Directory, Errno> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let fd = match openat2(AT_FDCWD, path, how) {
        // Linux before 5.6, or a container profile that does not know it.
        Err(Errno::ENOSYS | Errno::EPERM) => open(path, flags | OFlag::O_NOFOLLOW, Mode::empty()),
        opened => opened,
    }?;
    let stat = fstat(&fd)?;
    let us = geteuid();
    let is_own = stat.st_uid == us.as_raw() || us.is_root() && stat.st_uid == owner;
    if !is_own || stat.st_mode & 0o022 != 0 {
        return Err(Errno::EPERM);
    }
    Ok(Directory { fd, uid: stat.st_uid, gid: stat.st_gid })
}

/// Where the process's namespace has ids of its own, tools look by that id first, in the process's view
/// of the file system (JVM(since 10): `/proc/PID/root`). What is found there may be somebody else's:
/// in the process's view it is the right one.
pub(super) fn show_inside(file: &MappedFile) {
    let MappedFile::Scratch { path, of, .. } = file else { return };
    let Some((directory, _)) = path.rsplit_once('/') else { return };
    let inside = format!("{directory}/{of}");
    // ENOENT where nothing else is found there.
    let _ =
        mount(Some(path.as_str()), inside.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>);
}

/// Gives each scratch file the name that tools look for. `host_pid` says which id a process has.
///
/// A file that has none, or is gone, stays so: that keeps nobody from running.
pub(in crate::launch) fn name_all(
    files: &[MappedFile],
    host_pid: impl Fn(NsPid) -> Option<HostPid>,
) {
    for file in files {
        let MappedFile::Scratch { path, of, owner, .. } = file else { continue };
        let (Some(pid), Some((directory, name))) = (host_pid(*of), path.rsplit_once('/')) else {
            continue;
        };
        let Ok(directory) = own_directory(directory, *owner) else { continue };
        // Whatever has that name belonged to a process that has ended.
        let _ = renameat(&directory.fd, name, &directory.fd, pid.to_string().as_str());
    }
}
