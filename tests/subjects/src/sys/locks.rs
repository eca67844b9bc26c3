//! File locks, signal owners, and what else fcntl(2) does with a structure.

use super::check;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// flock(2) without waiting.
pub(crate) fn flock(fd: impl AsFd, operation: i32) -> io::Result<()> {
    // SAFETY: takes integers.
    check(unsafe { libc::flock(fd.as_fd().as_raw_fd(), operation | libc::LOCK_NB) }).map(drop)
}

/// fcntl(2) with a `struct flock`: `kind` (`F_RDLCK`, …) of `bytes` from `start`; what it became.
pub(crate) fn record_lock(
    fd: impl AsFd,
    command: i32,
    kind: i32,
    start: i64,
    bytes: i64,
) -> io::Result<(i32, i32)> {
    let mut lock = libc::flock {
        l_type: i16::try_from(kind).unwrap_or(0),
        l_whence: 0,
        l_start: start,
        l_len: bytes,
        l_pid: 0,
    };
    // SAFETY: the kernel reads and writes the structure.
    check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), command, &raw mut lock) })?;
    Ok((i32::from(lock.l_type), lock.l_pid))
}

/// fcntl(2) with a `struct f_owner_ex`: kind and id; what they are afterwards.
pub(crate) fn owner(fd: impl AsFd, set: Option<(i32, i32)>) -> io::Result<(i32, i32)> {
    const F_SETOWN_EX: i32 = 15;
    const F_GETOWN_EX: i32 = 16;
    let mut owner = set.map_or([0; 2], |(kind, id)| [kind, id]);
    let command = if set.is_some() { F_SETOWN_EX } else { F_GETOWN_EX };
    // SAFETY: the structure is two ints, which the kernel reads or writes.
    check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), command, owner.as_mut_ptr()) })?;
    Ok((owner[0], owner[1]))
}

/// inotify_init1(2).
pub(crate) fn inotify() -> io::Result<std::os::fd::OwnedFd> {
    // SAFETY: takes an integer.
    super::owned(unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) })
}

/// inotify_add_watch(2): the watch's number.
pub(crate) fn watch(inotify: impl AsFd, path: &std::path::Path, mask: u32) -> io::Result<i32> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path ends with NUL.
    check(unsafe { libc::inotify_add_watch(inotify.as_fd().as_raw_fd(), path.as_ptr(), mask) })
}

/// inotify_rm_watch(2).
pub(crate) fn unwatch(inotify: impl AsFd, number: i32) -> io::Result<()> {
    // SAFETY: takes integers.
    check(unsafe { libc::inotify_rm_watch(inotify.as_fd().as_raw_fd(), number) }).map(drop)
}

/// mkfifo(3).
pub(crate) fn fifo(path: &std::path::Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path ends with NUL.
    check(unsafe { libc::mkfifo(path.as_ptr(), 0o640) }).map(drop)
}
