//! The kernel's edge for subjects: one safe function for each call that std does not have.
//!
//! In: plain values. Out: `io::Result`.
//! Invariant: nothing here decides anything; each function is one call.
//! Not here: handlers and assembly, which stand where they are used.

mod blocking;
mod descriptors;
mod family;
mod locks;
mod memory;
mod odd;
mod process;
mod signals;
mod sockets;
mod time;
mod waits;

pub(crate) use blocking::*;
pub(crate) use descriptors::*;
pub(crate) use family::*;
pub(crate) use locks::*;
pub(crate) use memory::*;
pub(crate) use odd::*;
pub(crate) use process::*;
pub(crate) use signals::*;
pub(crate) use sockets::*;
pub(crate) use time::*;
pub(crate) use waits::*;

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_long(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    let fd = check(fd)?;
    // SAFETY: the kernel has just handed out `fd`, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
