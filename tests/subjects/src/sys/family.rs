//! Processes and their relations.

use super::check;
use std::io;

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
