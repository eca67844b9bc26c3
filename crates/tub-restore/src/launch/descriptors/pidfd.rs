//! Handles of processes.
//!
//! In: status flags of the image. Out: descriptors. Not here: whom they name (`super::perform`).

use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};
use std::os::fd::OwnedFd;
use tub_sys::Errno;
use tub_units::HostPid;

/// What `pidfd_open(2)` is given to make a description with these flags: PIDFD_NONBLOCK and
/// PIDFD_THREAD, which are O_NONBLOCK and O_EXCL (linux/pidfd.h).
pub(super) fn flags(status_flags: i32) -> u32 {
    (status_flags & (libc::O_NONBLOCK | libc::O_EXCL)).cast_unsigned()
}

/// A handle of somebody who has ended and was waited for. Whoever it was, no handle can tell them
/// apart any more.
pub(super) fn of_nobody(status_flags: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: this process is single-threaded, so the child may call anything; it only exits.
    match unsafe { fork() }? {
        ForkResult::Child => std::process::exit(0),
        ForkResult::Parent { child } => {
            let opened = tub_sys::pidfd_open(HostPid(child.as_raw()), flags(status_flags));
            while waitpid(child, None) == Err(Errno::EINTR) {}
            // That it has ended is news to nobody but us: where the process has a handler, it would be told.
            let _ = tub_sys::reset_signal_action(libc::SIGCHLD);
            opened
        }
    }
}
