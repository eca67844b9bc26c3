//! A process that nobody of ours made: signalled and waited for by a descriptor, so that no later one
//! with its id is meant.
//!
//! In: an id. Out: signals; a [`Running`]. Invariant: whoever checks an id after [`Other::open`] knows
//! that what it found is what is signalled.
//! Not here: whether it is the right one.

use super::Running;
use std::os::fd::{AsFd, OwnedFd};
use tub_sys::Errno;
use tub_units::HostPid;

/// A process that is not our child.
#[derive(Debug)]
pub struct Other {
    pid: HostPid,
    pidfd: OwnedFd,
}

impl Other {
    /// The process that has this id now.
    ///
    /// # Errors
    ///
    /// ESRCH where there is none.
    pub fn open(pid: HostPid) -> Result<Self, Errno> {
        Ok(Self { pid, pidfd: tub_sys::pidfd_open(pid, 0)? })
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// ESRCH where it has ended, EPERM where it is another user's.
    pub fn send(&self, signal: i32) -> Result<(), Errno> {
        tub_sys::signal_by_pidfd(self.pidfd.as_fd(), signal)
    }

    /// It runs; from now on it is waited for.
    pub fn running(self) -> Running {
        Running::other(self.pid, self.pidfd)
    }
}
