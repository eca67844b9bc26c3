//! File locks, and who is told of what happens to a descriptor.

use crate::{Errno, check};
use std::os::fd::{AsRawFd, BorrowedFd};

/// `flock(fd, LOCK_EX|LOCK_SH|LOCK_NB)`.
///
/// # Errors
///
/// EWOULDBLOCK where another description holds a lock that conflicts.
pub fn flock(fd: BorrowedFd<'_>, exclusive: bool) -> Result<(), Errno> {
    let kind = if exclusive { libc::LOCK_EX } else { libc::LOCK_SH };
    // SAFETY: flock takes numbers.
    let result = unsafe { libc::flock(fd.as_raw_fd(), kind | libc::LOCK_NB) };
    check(i64::from(result)).map(drop)
}

/// A range of a file, for [`record_lock`]: first byte, and last byte or the end of the file.
pub type LockRange = (u64, Option<u64>);

/// `struct flock` as `fcntl` takes it.
///
/// # Errors
///
/// EOVERFLOW where a position does not fit.
pub fn lock_request(exclusive: bool, (start, end): LockRange) -> Result<libc::flock, Errno> {
    let position = |value: u64| i64::try_from(value).map_err(|_| Errno::EOVERFLOW);
    let length = match end {
        Some(end) => end.checked_sub(start).and_then(|n| n.checked_add(1)).ok_or(Errno::EINVAL)?,
        None => 0,
    };
    let kind = if exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
    Ok(libc::flock {
        l_type: i16::try_from(kind).unwrap_or(0),
        l_whence: 0,
        l_start: position(start)?,
        l_len: position(length)?,
        l_pid: 0,
    })
}

/// `fcntl(fd, F_SETLK | F_OFD_SETLK, …)`: a lock of the process, or of the description.
///
/// # Errors
///
/// EAGAIN or EACCES where somebody holds a lock that conflicts.
pub fn record_lock(
    fd: BorrowedFd<'_>,
    of_description: bool,
    exclusive: bool,
    range: LockRange,
) -> Result<(), Errno> {
    let request = lock_request(exclusive, range)?;
    let command = if of_description { libc::F_OFD_SETLK } else { libc::F_SETLK };
    // SAFETY: the kernel reads `request`.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), command, &raw const request) };
    check(i64::from(result)).map(drop)
}

/// `fcntl(fd, F_OFD_GETLK, …)`: who holds a lock that conflicts with one of a description: its
/// process, -1 for a description's, `None` for nobody.
pub fn record_lock_holder(
    fd: BorrowedFd<'_>,
    exclusive: bool,
    range: LockRange,
) -> Result<Option<i32>, Errno> {
    let mut request = lock_request(exclusive, range)?;
    // SAFETY: the kernel reads and writes `request`.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &raw mut request) };
    check(i64::from(result))?;
    Ok((i32::from(request.l_type) != libc::F_UNLCK).then_some(request.l_pid))
}

/// `struct f_owner_ex` (linux/fcntl.h).
#[repr(C)]
struct OwnerEx {
    kind: i32,
    id: i32,
}

/// `fcntl(fd, F_SETOWN_EX, {kind, id})`: who gets SIGIO: a thread (0), a process (1), or a process
/// group (2).
pub fn set_owner(fd: BorrowedFd<'_>, kind: i32, id: i32) -> Result<(), Errno> {
    const F_SETOWN_EX: i32 = 15;
    let owner = OwnerEx { kind, id };
    // SAFETY: the kernel reads `owner`.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), F_SETOWN_EX, &raw const owner) };
    check(i64::from(result)).map(drop)
}

/// `fcntl(fd, F_SETSIG, signal)`: which signal it is; 0 for SIGIO without information.
pub fn set_owner_signal(fd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    const F_SETSIG: i32 = 10;
    // SAFETY: F_SETSIG takes a number.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), F_SETSIG, signal) };
    check(i64::from(result)).map(drop)
}
