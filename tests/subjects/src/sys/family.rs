//! Processes and their relations.

use super::{check, check_long, owned};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null;

/// fork(2), in a process with one thread: `None` in the child.
pub(crate) fn fork() -> io::Result<Option<i32>> {
    // SAFETY: the subjects that fork have one thread, so the child may use everything.
    let pid = check(unsafe { libc::fork() })?;
    Ok((pid > 0).then_some(pid))
}

/// _exit(2).
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: never returns, and runs nothing of ours.
    unsafe { libc::_exit(code) }
}

/// waitpid(2): `(pid, status)`; `None` where none of the kind is ready (WNOHANG).
pub(crate) fn wait(pid: i32, flags: i32) -> io::Result<Option<(i32, i32)>> {
    let mut status = 0;
    // SAFETY: the kernel writes one int.
    let pid = check(unsafe { libc::waitpid(pid, &raw mut status, flags) })?;
    Ok((pid > 0).then_some((pid, status)))
}

/// Waits until the child `pid` has ended, and leaves it a zombie.
pub(crate) fn wait_for_zombie(pid: i32) -> io::Result<()> {
    let id = u32::try_from(pid).unwrap_or(0);
    let flags = libc::WEXITED | libc::WNOWAIT;
    // SAFETY: all zeros is a siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes the siginfo.
    check(unsafe { libc::waitid(libc::P_PID, id, &raw mut info, flags) }).map(drop)
}

/// pidfd_open(2).
pub(crate) fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes integers.
    let fd = check_long(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    owned(libc::c_int::try_from(fd).expect("a descriptor is an int"))
}

/// pidfd_open(2) of the calling thread. KERNEL(since 6.9): PIDFD_THREAD.
pub(crate) fn pidfd_of_thread() -> io::Result<OwnedFd> {
    const PIDFD_THREAD: i32 = libc::O_EXCL;
    let tid = super::gettid();
    // SAFETY: takes integers.
    let fd = check_long(unsafe { libc::syscall(libc::SYS_pidfd_open, tid, PIDFD_THREAD) })?;
    owned(libc::c_int::try_from(fd).expect("a descriptor is an int"))
}

/// pidfd_send_signal(2) without more to say.
pub(crate) fn signal_by(pidfd: &OwnedFd, signal: i32) -> io::Result<()> {
    let (fd, nothing) = (pidfd.as_raw_fd(), null::<libc::siginfo_t>());
    // SAFETY: takes integers, and a null pointer for no siginfo.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, nothing, 0) };
    check_long(sent).map(drop)
}

/// waitid(2) by a pidfd without waiting, which leaves a zombie one: whether it has ended.
pub(crate) fn has_ended(pidfd: &OwnedFd) -> io::Result<bool> {
    let id = pidfd.as_raw_fd().cast_unsigned();
    let flags = libc::WEXITED | libc::WNOWAIT | libc::WNOHANG;
    // SAFETY: all zeros is a siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes the siginfo.
    check(unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, flags) })?;
    Ok(info.si_signo != 0)
}

/// kill(2).
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: takes integers.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// getppid(2).
pub(crate) fn parent() -> i32 {
    // SAFETY: takes nothing.
    unsafe { libc::getppid() }
}

/// getpgid(2) of this process.
pub(crate) fn group() -> io::Result<i32> {
    // SAFETY: takes an integer; 0 is the caller.
    check(unsafe { libc::getpgid(0) })
}

/// setpgid(2) of this process; 0 leads one.
pub(crate) fn join_group(group: i32) -> io::Result<()> {
    // SAFETY: takes integers; 0 is the caller.
    check(unsafe { libc::setpgid(0, group) }).map(drop)
}

/// Whether the process `pid` leads its group: getpgid(2).
pub(crate) fn leads_group(pid: i32) -> io::Result<bool> {
    // SAFETY: takes an integer.
    check(unsafe { libc::getpgid(pid) }).map(|group| group == pid)
}
