//! Descriptors that std does not make.

use super::{check, check_long, owned};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::null;

/// eventfd(2).
pub(crate) fn eventfd(count: u32, flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers.
    owned(unsafe { libc::eventfd(count, flags) })
}

/// close_range(2) with CLOSE_RANGE_CLOEXEC, from `first` to the last.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: marks descriptors, and closes none.
    check_long(unsafe {
        libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
    })
    .map(drop)
}

/// epoll_create1(2).
pub(crate) fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: takes an integer.
    owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
}

/// epoll_ctl(2): `operation` on `target` with `events` and the word `data`.
pub(crate) fn epoll_ctl(
    epoll: &OwnedFd,
    operation: i32,
    target: impl AsFd,
    events: i32,
    data: u64,
) -> io::Result<()> {
    let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: data };
    let target = target.as_fd().as_raw_fd();
    // SAFETY: `event` is read during the call only.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, target, &raw mut event) })
        .map(drop)
}

/// epoll_wait(2): `(events, data)` of what is ready, sorted by data. `timeout_ms` -1 is for ever.
pub(crate) fn epoll_wait(epoll: &OwnedFd, timeout_ms: i32) -> io::Result<Vec<(u32, u64)>> {
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 16];
    // SAFETY: the kernel writes at most the 16 entries that are there.
    let ready =
        check(unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), 16, timeout_ms) })?;
    let ready = usize::try_from(ready).unwrap_or(0);
    let mut found: Vec<_> = events[..ready].iter().map(|e| (e.events, e.u64)).collect();
    found.sort_by_key(|(_, data)| *data);
    Ok(found)
}

/// pipe2(2): reading end, writing end.
pub(crate) fn pipe(flags: i32) -> io::Result<(File, File)> {
    let mut fds = [0; 2];
    // SAFETY: the kernel writes the two integers.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), flags) })?;
    Ok((File::from(owned(fds[0])?), File::from(owned(fds[1])?)))
}

/// fcntl(2) with an integer argument.
pub(crate) fn fcntl(fd: impl AsFd, command: i32, argument: i32) -> io::Result<i32> {
    // SAFETY: the commands used here take an integer.
    check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), command, argument) })
}

/// dup3(2) to the number `to`.
pub(crate) fn dup_to(fd: impl AsFd, to: RawFd, flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: `to` is a number that the subject uses for nothing else.
    owned(unsafe { libc::dup3(fd.as_fd().as_raw_fd(), to, flags) })
}

/// ioctl(FIONREAD): bytes that could be read.
pub(crate) fn readable_bytes(fd: impl AsFd) -> io::Result<i32> {
    let mut bytes = 0;
    // SAFETY: FIONREAD writes one int.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut bytes) })?;
    Ok(bytes)
}

/// getdents64(2): names of the next entries; at most what fits into `bytes`.
pub(crate) fn next_entries(directory: &File, bytes: usize) -> io::Result<Vec<String>> {
    let mut buffer = vec![0_u8; bytes];
    // SAFETY: the kernel writes at most `bytes` bytes into the buffer.
    let read = check_long(unsafe {
        libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), buffer.as_mut_ptr(), bytes)
    })?;
    buffer.truncate(usize::try_from(read).unwrap_or(0));
    let mut names = Vec::new();
    let mut rest = buffer.as_slice();
    // struct linux_dirent64: u64 inode, i64 offset, u16 record length, u8 type, name, NUL.
    while rest.len() > 19 {
        let record = usize::from(u16::from_ne_bytes([rest[16], rest[17]]));
        let name: Vec<u8> = rest[19..record].iter().copied().take_while(|b| *b != 0).collect();
        names.push(String::from_utf8_lossy(&name).into_owned());
        rest = &rest[record..];
    }
    Ok(names)
}

/// socketpair(2) of unix sockets.
pub(crate) fn socketpair(kind: i32) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: the kernel writes the two integers.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })?;
    Ok((owned(fds[0])?, owned(fds[1])?))
}

/// getsockopt(2) of an integer option.
pub(crate) fn socket_option(fd: impl AsFd, level: i32, name: i32) -> io::Result<i32> {
    let mut value: libc::c_int = 0;
    let mut len = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("4 fits");
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: `len` says that there is room for an int, and the kernel writes no more.
    check(unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut len) })?;
    Ok(value)
}

/// setsockopt(2) of an integer option.
pub(crate) fn set_socket_option(
    fd: impl AsFd,
    level: i32,
    name: i32,
    value: i32,
) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("4 fits");
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the kernel reads one int.
    check(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) }).map(drop)
}

/// poll(2) of one descriptor for `events`; what came of it, 0 after `timeout_ms`.
pub(crate) fn poll(fd: BorrowedFd<'_>, events: i16, timeout_ms: i32) -> io::Result<i16> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: one entry is announced, and one is there.
    check(unsafe { libc::poll(&raw mut entry, 1, timeout_ms) })?;
    Ok(entry.revents)
}

/// ppoll(2) of one descriptor for `events`, without timeout.
pub(crate) fn ppoll_for_ever(fd: BorrowedFd<'_>, events: i16) -> io::Result<i16> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: one entry is announced, and one is there; null means no timeout, no mask.
    check(unsafe { libc::ppoll(&raw mut entry, 1, null(), null()) })?;
    Ok(entry.revents)
}

/// io_uring_setup(2) with room for 4 entries.
pub(crate) fn io_uring() -> io::Result<OwnedFd> {
    // struct io_uring_params is 120 bytes; zeros ask for the defaults.
    let mut params = [0_u64; 15];
    // SAFETY: the kernel reads and writes the 120 bytes.
    let fd =
        check_long(unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, params.as_mut_ptr()) })?;
    owned(libc::c_int::try_from(fd).expect("a descriptor is an int"))
}

/// A pseudo-terminal's master end.
pub(crate) fn pty() -> io::Result<OwnedFd> {
    // SAFETY: takes flags only.
    owned(unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY) })
}
