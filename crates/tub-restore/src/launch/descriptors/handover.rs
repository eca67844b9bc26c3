//! A descriptor that one process of a family makes, and others have in common with it.
//!
//! In: a socket that all of them were born with. Out: descriptors of one description.
//! Invariant: everybody waits only for somebody before himself in the order of tasks, so that nobody waits
//! for ever; nobody else can put anything into the box.
//! Not here: who makes it, and who waits (`plan::files`).

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    bind, connect, getsockname, recvmsg, sendmsg, socket,
};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use tub_sys::Errno;

/// A socket that gets what is sent by it: one number for all. It is bound to a name that the kernel
/// chooses, and takes from its peer only, which is itself (unix(7)). Such a one is never full.
pub(super) fn letter_box() -> Result<OwnedFd, Errno> {
    let fd = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    bind(fd.as_raw_fd(), &UnixAddr::new_unnamed())?;
    let own: UnixAddr = getsockname(fd.as_raw_fd())?;
    connect(fd.as_raw_fd(), &own)?;
    Ok(fd)
}

/// Puts `fd` into the box as often as somebody else has it.
pub(super) fn hand(fd: i32, letter_box: i32, copies: usize) -> Result<(), Errno> {
    let (byte, rights) = ([IoSlice::new(b"h")], [fd]);
    let rights = [ControlMessage::ScmRights(&rights)];
    for _ in 0..copies {
        sendmsg::<UnixAddr>(letter_box, &byte, &rights, MsgFlags::empty(), None)?;
    }
    Ok(())
}

/// Waits for one to be in the box.
pub(super) fn take(letter_box: i32) -> Result<OwnedFd, Errno> {
    let mut byte = [0];
    let mut buffer = [IoSliceMut::new(&mut byte)];
    let mut room = cmsg_space!([i32; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<UnixAddr>(letter_box, &mut buffer, Some(&mut room), flags) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let rights = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(rights) => rights.first().copied(),
        _ => None,
    });
    let fd = rights.ok_or(Errno::EBADMSG)?;
    // SAFETY: the kernel has just made it for this process, which has asked for one.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
