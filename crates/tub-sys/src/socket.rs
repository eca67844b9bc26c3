//! Socket options by number.

use crate::{Errno, check, own};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// `setsockopt(fd, level, name, value)`.
pub fn set_socket_option(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: &[u8],
) -> Result<(), Errno> {
    let len = libc::socklen_t::try_from(value.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel reads `len` bytes of `value`.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), len) };
    check(i64::from(result)).map(drop)
}

/// `socket(AF_NETLINK, SOCK_DGRAM, NETLINK_SOCK_DIAG)`: family, kind, protocol.
pub const SOCK_DIAG_SOCKET: [i32; 3] =
    [libc::AF_NETLINK, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, libc::NETLINK_SOCK_DIAG];

/// A socket for [`unix_peers`] in our own network namespace.
pub fn sock_diag_socket() -> Result<OwnedFd, Errno> {
    let [family, kind, protocol] = SOCK_DIAG_SOCKET;
    // SAFETY: socket takes numbers.
    own(i64::from(unsafe { libc::socket(family, kind, protocol) }))
}

/// `NETLINK_SOCK_DIAG`, SOCK_DIAG_BY_FAMILY of AF_UNIX: every unix socket of the network namespace
/// of `fd` by inode, with the inode of its peer if it has one.
///
/// # References
///
/// KERNEL(since 3.3): sock_diag(7), linux/unix_diag.h. Sixty lines here stand for four crates.
pub fn unix_peers(fd: BorrowedFd<'_>) -> Result<Vec<(u64, Option<u64>)>, Errno> {
    use nix::sys::socket::{AddressFamily, MsgFlags, recv, send};
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const NLM_F_REQUEST_DUMP: u16 = 0x1 | 0x300;
    const UDIAG_SHOW_PEER: u32 = 4;
    // struct nlmsghdr: length, type, flags, sequence, port; struct unix_diag_req: family, protocol,
    // pad, states, inode, show, cookie.
    let mut request = Vec::with_capacity(40);
    request.extend(40u32.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([AddressFamily::Unix as u8, 0, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(0u32.to_ne_bytes());
    request.extend(UDIAG_SHOW_PEER.to_ne_bytes());
    request.extend([0xff; 8]);
    send(fd.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut sockets = Vec::new();
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        let bytes = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if bytes == 0 || !unix_diag_messages(&buffer[..bytes], &mut sockets)? {
            return Ok(sockets);
        }
    }
}

/// Reads the messages of one datagram; answers whether more are to come.
fn unix_diag_messages(
    mut rest: &[u8],
    sockets: &mut Vec<(u64, Option<u64>)>,
) -> Result<bool, Errno> {
    const NLMSG_ERROR: u16 = 2;
    const NLMSG_DONE: u16 = 3;
    const UNIX_DIAG_PEER: u16 = 2;
    let u16_at = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 2).and_then(|two| two.try_into().ok()).map(u16::from_ne_bytes)
    };
    let u32_at = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_ne_bytes)
    };
    while let (Some(len), Some(kind)) = (u32_at(rest, 0), u16_at(rest, 4)) {
        let len = len as usize;
        if len < 16 || len > rest.len() {
            return Err(Errno::EBADMSG);
        }
        let message = &rest[16..len];
        match kind {
            NLMSG_DONE => return Ok(false),
            NLMSG_ERROR => {
                let errno = u32_at(message, 0).map_or(0, u32::cast_signed);
                return Err(Errno::from_raw(-errno));
            }
            _ => {}
        }
        // struct unix_diag_msg: family, type, state, pad, inode, cookie; then attributes.
        let ino = u32_at(message, 4).ok_or(Errno::EBADMSG)?;
        let mut peer = None;
        let mut attributes = message.get(16..).unwrap_or_default();
        while let (Some(len), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
            let len = usize::from(len);
            if len < 4 || len > attributes.len() {
                break;
            }
            if kind == UNIX_DIAG_PEER {
                // A peer that is closed is still known for a while, but has no inode any more.
                peer = u32_at(attributes, 4).map(u64::from).filter(|&ino| ino != 0);
            }
            attributes = attributes.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        sockets.push((u64::from(ino), peer));
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;

    fn inode(fd: &impl AsRawFd) -> u64 {
        std::fs::metadata(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap().ino()
    }

    #[test]
    fn the_two_ends_of_a_pair_are_each_others_peers() {
        let (a, b) = UnixStream::pair().unwrap();
        let peers = unix_peers(sock_diag_socket().unwrap().as_fd()).unwrap();
        assert!(peers.contains(&(inode(&a), Some(inode(&b)))), "{peers:?}");
        assert!(peers.contains(&(inode(&b), Some(inode(&a)))), "{peers:?}");
    }

    #[test]
    fn a_socket_whose_peer_is_closed_has_none() {
        let (a, b) = UnixStream::pair().unwrap();
        drop(b);
        let peers = unix_peers(sock_diag_socket().unwrap().as_fd()).unwrap();
        assert!(peers.contains(&(inode(&a), None)), "{peers:?}");
    }
}
