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

/// `getsockopt(fd, level, name)`: at most `room` bytes.
///
/// # Errors
///
/// ENOPROTOOPT or EOPNOTSUPP where the socket has no such option.
pub fn socket_option(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    room: usize,
) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0u8; room];
    let mut len = libc::socklen_t::try_from(room).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `value` has room for `len` bytes, and the kernel writes no more.
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut len)
    };
    check(i64::from(result))?;
    value.truncate(len as usize);
    Ok(value)
}

/// `socket(domain, kind, protocol)`, close-on-exec.
pub fn socket(domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: socket takes numbers.
    own(i64::from(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) }))
}

/// `listen(fd, backlog)`, of any length: the kernel cuts it down to net.core.somaxconn.
pub fn listen(fd: BorrowedFd<'_>, backlog: i32) -> Result<(), Errno> {
    // SAFETY: listen takes numbers.
    check(i64::from(unsafe { libc::listen(fd.as_raw_fd(), backlog) })).map(drop)
}

/// `socket(AF_NETLINK, SOCK_DGRAM, NETLINK_SOCK_DIAG)`: family, kind, protocol.
pub const SOCK_DIAG_SOCKET: [i32; 3] =
    [libc::AF_NETLINK, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, libc::NETLINK_SOCK_DIAG];

/// `getxattr(path, "system.sockprotoname")`: the name of the protocol of a socket, by a path like
/// `/proc/PID/fd/N`: `TCP`, `UNIX-STREAM`, `NETLINK`.
///
/// # References
///
/// KERNEL(since 2.6.39): net/socket.c, sockfs_xattr_get.
pub fn socket_protocol(path: &str) -> Result<String, Errno> {
    let path = std::ffi::CString::new(path).map_err(|_| Errno::EINVAL)?;
    let name = c"system.sockprotoname";
    let mut value = [0u8; 64];
    // SAFETY: both strings end with NUL; the kernel writes at most 64 bytes to `value`.
    let result = unsafe {
        libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    let bytes = usize::try_from(check(result as i64)?).unwrap_or(0).min(value.len());
    let text = value[..bytes].split(|&byte| byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// A unix socket as the kernel's diagnosis tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnixDiag {
    /// Inode of the socket at the other end; `None` where there is none, or it has been closed.
    pub peer: Option<u64>,
    /// Whether it ever had a peer, be it closed by now or not accepted yet.
    pub had_peer: bool,
    /// `RCV_SHUTDOWN` 1, `SEND_SHUTDOWN` 2.
    pub shutdown: u8,
    /// Of a listener, connections not accepted yet; else bytes (of datagram sockets: the first
    /// message) to be received.
    pub received: u32,
    /// Of a listener, the length of its accept queue; else bytes sent and not received yet.
    pub sent: u32,
    /// Inode of the file that it is bound to, as far as it is one.
    pub file: Option<u32>,
    /// Of a listener, inodes of those who wait to be accepted.
    pub waiting: Vec<u64>,
}

/// A socket for [`unix_sockets`] in our own network namespace.
pub fn sock_diag_socket() -> Result<OwnedFd, Errno> {
    let [family, kind, protocol] = SOCK_DIAG_SOCKET;
    // SAFETY: socket takes numbers.
    own(i64::from(unsafe { libc::socket(family, kind, protocol) }))
}

/// `NETLINK_SOCK_DIAG`, SOCK_DIAG_BY_FAMILY of AF_UNIX: every unix socket of the network namespace
/// of `fd` by inode.
///
/// # References
///
/// KERNEL(since 3.3): sock_diag(7), linux/unix_diag.h. A hundred lines here stand for four crates.
pub fn unix_sockets(fd: BorrowedFd<'_>) -> Result<Vec<(u64, UnixDiag)>, Errno> {
    use nix::sys::socket::{AddressFamily, MsgFlags, recv, send};
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const NLM_F_REQUEST_DUMP: u16 = 0x1 | 0x300;
    // UDIAG_SHOW_VFS, _PEER, _ICONS, _RQLEN.
    const SHOW: u32 = 2 | 4 | 8 | 16;
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
    request.extend(SHOW.to_ne_bytes());
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

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).and_then(|two| two.try_into().ok()).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_ne_bytes)
}

/// Reads the messages of one datagram; answers whether more are to come.
fn unix_diag_messages(mut rest: &[u8], sockets: &mut Vec<(u64, UnixDiag)>) -> Result<bool, Errno> {
    const NLMSG_ERROR: u16 = 2;
    const NLMSG_DONE: u16 = 3;
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
        sockets.push((u64::from(ino), unix_diag(message.get(16..).unwrap_or_default())));
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

fn unix_diag(mut attributes: &[u8]) -> UnixDiag {
    const UNIX_DIAG_VFS: u16 = 1;
    const UNIX_DIAG_PEER: u16 = 2;
    const UNIX_DIAG_ICONS: u16 = 3;
    const UNIX_DIAG_RQLEN: u16 = 4;
    const UNIX_DIAG_SHUTDOWN: u16 = 6;
    let mut diag = UnixDiag::default();
    while let (Some(len), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        let len = usize::from(len);
        if len < 4 || len > attributes.len() {
            break;
        }
        let value = &attributes[4..len];
        let word = |at| u32_at(value, at).unwrap_or(0);
        match kind {
            UNIX_DIAG_VFS => diag.file = u32_at(value, 0),
            UNIX_DIAG_PEER => {
                diag.had_peer = true;
                // A peer that is closed is still known for a while, but has no inode any more.
                diag.peer = Some(u64::from(word(0))).filter(|&ino| ino != 0);
            }
            UNIX_DIAG_ICONS => {
                diag.waiting = (0..value.len() / 4).map(|i| u64::from(word(i * 4))).collect();
            }
            UNIX_DIAG_RQLEN => (diag.received, diag.sent) = (word(0), word(4)),
            UNIX_DIAG_SHUTDOWN => diag.shutdown = value.first().copied().unwrap_or(0),
            _ => {}
        }
        attributes = attributes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    diag
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

    fn diag(fd: &impl AsRawFd) -> UnixDiag {
        let all = unix_sockets(sock_diag_socket().unwrap().as_fd()).unwrap();
        let ino = inode(fd);
        all.into_iter().find(|(found, _)| *found == ino).unwrap().1
    }

    #[test]
    fn the_two_ends_of_a_pair_are_each_others_peers() {
        let (a, b) = UnixStream::pair().unwrap();
        assert_eq!(diag(&a).peer, Some(inode(&b)));
        assert_eq!(diag(&b).peer, Some(inode(&a)));
        assert_eq!(diag(&a).shutdown, 0);
        a.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!((diag(&a).shutdown, diag(&b).shutdown), (2, 1));
    }

    #[test]
    fn a_socket_whose_peer_is_closed_has_none() {
        let (a, b) = UnixStream::pair().unwrap();
        drop(b);
        assert_eq!(diag(&a).peer, None);
    }

    #[test]
    fn a_socket_tells_its_protocol() {
        let (a, _b) = UnixStream::pair().unwrap();
        let name = socket_protocol(&format!("/proc/self/fd/{}", a.as_raw_fd())).unwrap();
        assert!(name.starts_with("UNIX"), "{name}");
    }
}
