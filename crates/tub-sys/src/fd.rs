//! Descriptors of kinds that nix does not know.

use crate::{Errno, check, own};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// `eventfd2(count, flags)` with a counter of any 64-bit value.
pub fn eventfd(count: u64, flags: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: eventfd takes two numbers.
    let fd = unsafe { libc::eventfd(0, flags) };
    let fd = own(i64::from(fd))?;
    if count > 0 {
        nix::unistd::write(&fd, &count.to_ne_bytes())?;
    }
    Ok(fd)
}

/// `tee(from, to, len, SPLICE_F_NONBLOCK)`: copies what lies in one pipe to another and leaves it
/// where it is.
pub fn tee(from: BorrowedFd<'_>, to: BorrowedFd<'_>, bytes: usize) -> Result<usize, Errno> {
    // SAFETY: tee takes descriptors and numbers only.
    let result =
        unsafe { libc::tee(from.as_raw_fd(), to.as_raw_fd(), bytes, libc::SPLICE_F_NONBLOCK) };
    check(result as i64).map(|bytes| usize::try_from(bytes).unwrap_or(0))
}

/// `dup3(fd, number, O_CLOEXEC?)` and close of the old number: the descriptor under another number,
/// replacing what was there.
///
/// # Errors
///
/// EBADF where `number` exceeds the limit of open files.
pub fn move_to(fd: OwnedFd, number: RawFd, close_on_exec: bool) -> Result<(), Errno> {
    let flags = if close_on_exec { libc::O_CLOEXEC } else { 0 };
    if fd.as_raw_fd() == number {
        use std::os::fd::IntoRawFd;
        let raw = fd.into_raw_fd();
        return set_close_on_exec(raw, close_on_exec);
    }
    // SAFETY: dup3 takes numbers. What `number` named before belongs to nobody: the caller is
    // laying out the table of a process to be.
    let result = unsafe { libc::dup3(fd.as_raw_fd(), number, flags) };
    check(i64::from(result)).map(drop)
}

/// `dup3(from, number)`: a second number for a description.
pub fn duplicate_to(from: RawFd, number: RawFd, close_on_exec: bool) -> Result<(), Errno> {
    let flags = if close_on_exec { libc::O_CLOEXEC } else { 0 };
    // SAFETY: as for `move_to`.
    let result = unsafe { libc::dup3(from, number, flags) };
    check(i64::from(result)).map(drop)
}

/// `fcntl(fd, F_DUPFD_CLOEXEC, first)`: a duplicate at the lowest free number from `first` on.
pub fn duplicate_above(fd: RawFd, first: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: F_DUPFD_CLOEXEC takes a number.
    own(i64::from(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, first) }))
}

/// `fcntl(number, F_SETFD, …)`.
pub fn set_close_on_exec(number: RawFd, on: bool) -> Result<(), Errno> {
    let flag = if on { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: F_SETFD takes a number.
    let result = unsafe { libc::fcntl(number, libc::F_SETFD, flag) };
    check(i64::from(result)).map(drop)
}

/// `fcntl(number, F_SETFL, flags)`.
pub fn set_status_flags(number: RawFd, flags: i32) -> Result<(), Errno> {
    // SAFETY: F_SETFL takes a number.
    let result = unsafe { libc::fcntl(number, libc::F_SETFL, flags) };
    check(i64::from(result)).map(drop)
}

/// `fcntl(number, F_SETPIPE_SZ, bytes)`.
pub fn set_pipe_capacity(number: RawFd, bytes: u32) -> Result<(), Errno> {
    // SAFETY: F_SETPIPE_SZ takes a number.
    let result = unsafe { libc::fcntl(number, libc::F_SETPIPE_SZ, bytes) };
    check(i64::from(result)).map(drop)
}

/// `fcntl(fd, F_GETPIPE_SZ)`: capacity in bytes.
pub fn pipe_capacity(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    // SAFETY: F_GETPIPE_SZ takes nothing.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETPIPE_SZ) };
    check(i64::from(result)).map(|bytes| u32::try_from(bytes).unwrap_or(0))
}

/// `close_range(first, last, 0)`.
pub fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: close_range takes numbers; the caller is laying out the table of a process to be.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    check(result).map(drop)
}

/// `epoll_ctl(epoll, EPOLL_CTL_ADD, fd, {events, data})`.
pub fn epoll_add(epoll: RawFd, fd: RawFd, events: u32, data: u64) -> Result<(), Errno> {
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: the kernel reads `event`.
    let result = unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
    check(i64::from(result)).map(drop)
}

/// `epoll_wait(epoll, …, 0)`: takes what is ready, and answers how many entries that were.
pub fn epoll_drain(epoll: RawFd) -> Result<usize, Errno> {
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
    // SAFETY: the kernel writes at most the 64 entries that are there.
    let result = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), 64, 0) };
    check(i64::from(result)).map(|ready| usize::try_from(ready).unwrap_or(0))
}

/// `ioctl(fd, FIONREAD)`: bytes that can be read.
pub fn readable_bytes(fd: BorrowedFd<'_>) -> Result<i32, Errno> {
    let mut bytes = 0i32;
    // SAFETY: FIONREAD writes one int.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    check(i64::from(result)).map(|_| bytes)
}

/// `timerfd_create(clock, flags)`.
pub fn timerfd(clock: i32, flags: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: timerfd_create takes numbers.
    own(i64::from(unsafe { libc::timerfd_create(clock, flags) }))
}

/// `timerfd_settime(fd, flags, {value, interval})`, in nanoseconds: from now, or with
/// `TFD_TIMER_ABSTIME` of the clock.
pub fn timerfd_arm(
    fd: BorrowedFd<'_>,
    flags: i32,
    value_ns: u64,
    interval_ns: u64,
) -> Result<(), Errno> {
    let spec =
        libc::itimerspec { it_interval: timespec(interval_ns), it_value: timespec(value_ns) };
    let null = std::ptr::null_mut();
    // SAFETY: the kernel reads `spec`; no old value is asked for.
    let result = unsafe { libc::timerfd_settime(fd.as_raw_fd(), flags, &raw const spec, null) };
    check(i64::from(result)).map(drop)
}

/// `ioctl(fd, TFD_IOC_SET_TICKS, &ticks)`: expirations that count as not read yet.
///
/// # References
///
/// KERNEL(since 3.17, with CONFIG_CHECKPOINT_RESTORE): fs/timerfd.c.
pub fn timerfd_set_ticks(fd: BorrowedFd<'_>, ticks: u64) -> Result<(), Errno> {
    // _IOW('T', 0, __u64)
    const TFD_IOC_SET_TICKS: libc::c_ulong = 0x4008_5400;
    // SAFETY: the kernel reads 8 bytes at `ticks`.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), TFD_IOC_SET_TICKS, &raw const ticks) };
    check(i64::from(result)).map(drop)
}

/// `signalfd4(-1, &mask, 8, flags)`.
pub fn signalfd(mask: u64, flags: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: the kernel reads 8 bytes at `mask`.
    let fd = unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const mask, 8, flags) };
    own(fd)
}

/// Nanoseconds as the kernel's struct timespec.
pub fn timespec(ns: u64) -> libc::timespec {
    libc::timespec {
        tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(ns % 1_000_000_000).unwrap_or(0),
    }
}
