//! The kernel's edge: the system calls that neither std nor nix wraps, documented and typed.
//!
//! In: numbers and buffers. Out: what the kernel said, as values or an [`Errno`].
//! Invariant: one call each; nothing here decides what a failure means.
//! Not here: calls that nix wraps well, and what combines several, unless it is unsafe in its parts and safe
//! as a whole ([`beside()`], a mapping for a moment, a trial).

mod beside;
mod fd;
mod lock;
mod memory;
mod pages;
mod process;
mod ptrace;
mod scheduling;
mod sigframe;
mod socket;
mod trial;

pub use beside::*;
pub use fd::*;
pub use lock::*;
pub use memory::*;
pub use nix::errno::Errno;
pub use pages::*;
pub use process::*;
pub use ptrace::*;
pub use scheduling::*;
pub use sigframe::*;
pub use socket::*;
pub use trial::*;

use std::os::fd::{FromRawFd, OwnedFd};

/// Takes a descriptor that the kernel has just handed out.
fn own(result: i64) -> Result<OwnedFd, Errno> {
    let fd = i32::try_from(check(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just handed out `fd`, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Turns libc's -1 into an [`Errno`].
fn check(result: i64) -> Result<i64, Errno> {
    if result == -1 { Err(Errno::last()) } else { Ok(result) }
}
