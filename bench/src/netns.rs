//! A network namespace of one's own, so that many instances can have the same fixed port.
//!
//! In: nothing. Out: the calling process stands in a new network namespace whose loopback is up.
//! Invariant: called before any thread exists; unshare(2) of a user namespace demands it.
//! Not here: any route to the outside; a measurement must not depend on one.

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use nix::unistd::{getegid, geteuid};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;

/// Why there is no namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The kernel or the container refuses it.
    #[error("network namespace: unshare refused")]
    Refused(#[source] nix::Error),
    /// The user namespace around it could not be given its one user.
    #[error("network namespace: cannot write {file}")]
    Identity {
        /// The file of /proc.
        file: &'static str,
        /// What writing said.
        #[source]
        source: io::Error,
    },
    /// The loopback interface stays down.
    #[error("network namespace: cannot bring up loopback")]
    Loopback(#[source] io::Error),
}

/// Enters a new network namespace with loopback up.
///
/// Root needs nothing else. An ordinary user gets a user namespace around it, in which it keeps
/// its own ids.
///
/// # Errors
/// Where namespaces are refused, as in containers with default settings.
///
/// # References
/// `network_namespaces(7)`, `user_namespaces(7)`
pub fn enter() -> Result<(), NetnsError> {
    let (user, group) = (geteuid(), getegid());
    if user.is_root() {
        unshare(CloneFlags::CLONE_NEWNET).map_err(NetnsError::Refused)?;
    } else {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
            .map_err(NetnsError::Refused)?;
        // KERNEL(since 3.19): an unprivileged gid_map is accepted only after setgroups is denied.
        write("/proc/self/setgroups", "deny")?;
        write("/proc/self/uid_map", &format!("{user} {user} 1"))?;
        write("/proc/self/gid_map", &format!("{group} {group} 1"))?;
    }
    bring_up_loopback().map_err(NetnsError::Loopback)
}

fn write(file: &'static str, text: &str) -> Result<(), NetnsError> {
    fs::write(file, text).map_err(|source| NetnsError::Identity { file, source })
}

/// Sets IFF_UP on interface 1 through rtnetlink(7): the ioctl would do as well, but needs a union.
fn bring_up_loopback() -> io::Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST_ACK: u16 = 1 | 4;
    const NLMSG_ERROR: u16 = 2;
    /// KERNEL: loopback is the first interface of every network namespace.
    const LOOPBACK_INDEX: u32 = 1;
    const IFF_UP: u32 = 1;
    const MESSAGE_BYTES: u32 = 32;

    let mut message = Vec::with_capacity(MESSAGE_BYTES as usize);
    // struct nlmsghdr: length, type, flags, sequence, port.
    message.extend(MESSAGE_BYTES.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    // struct ifinfomsg: family and padding, type, index, flags, mask of the flags to change.
    message.extend([0_u8; 4]);
    message.extend(LOOPBACK_INDEX.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());

    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    sendto(netlink.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut reply = [0_u8; 1024];
    let bytes = recv(netlink.as_raw_fd(), &mut reply, MsgFlags::empty())?;
    // The acknowledgement is an nlmsghdr of type NLMSG_ERROR followed by minus the errno.
    let (Some(kind), Some(code)) = (reply[..bytes].get(4..6), reply[..bytes].get(16..20)) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "netlink answer too short"));
    };
    if kind != NLMSG_ERROR.to_ne_bytes() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "netlink answer is no answer"));
    }
    match i32::from_ne_bytes(code.try_into().expect("the slice has four bytes")) {
        0 => Ok(()),
        negative => Err(io::Error::from_raw_os_error(-negative)),
    }
}
