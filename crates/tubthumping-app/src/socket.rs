//! What a socket is, in the words that rules use.
//!
//! In: a number. Out: a [`Socket`]. Invariant: nothing of the socket is changed, but by [`end`] and
//! [`share_port`].
//! Not here: to whom it belongs.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

type Name = unsafe extern "C" fn(RawFd, *mut libc::sockaddr, *mut libc::socklen_t) -> i32;

/// A socket of a family that has addresses or paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Socket {
    /// `inet` or `unix`; nothing for all others.
    pub family: String,
    /// Address or path.
    pub local: String,
    /// Its port.
    pub local_port: String,
    /// Address or path; empty where there is no peer.
    pub remote: String,
    /// Its port.
    pub remote_port: String,
    /// Whether it waits for connections.
    pub is_listening: bool,
    /// Whether it is of a kind that makes connections.
    pub is_stream: bool,
}

impl Socket {
    /// What a socket is; of other families than those with addresses or paths only its kind.
    pub fn of(number: RawFd) -> Self {
        let is_listening = option(number, libc::SO_ACCEPTCONN).is_some_and(|on| on != 0);
        let kind = option(number, libc::SO_TYPE);
        let is_stream = matches!(kind, Some(libc::SOCK_STREAM | libc::SOCK_SEQPACKET));
        let Some((family, local, local_port)) = name(number, libc::getsockname) else {
            return Self { is_listening, is_stream, ..Self::default() };
        };
        let (_, remote, remote_port) = name(number, libc::getpeername).unwrap_or_default();
        Self { family, local, local_port, remote, remote_port, is_listening, is_stream }
    }
}

/// Ends a connection, and every call that waits for one: those who read find the end.
pub(crate) fn end(number: RawFd) {
    // SAFETY: shutdown(2) touches no memory. Where it fails there is nobody to be told; KERNEL: of a
    // datagram socket without a peer it wakes who waits all the same, and says ENOTCONN.
    unsafe { libc::shutdown(number, libc::SHUT_RDWR) };
}

/// Lets a listener have the port while connections that it accepted are remembered (SO_REUSEADDR): both
/// have to be asked, the connection before it ends.
///
/// KERNEL: bind(2) compares `sk_reuse` with that of every socket at the port, and what waits out its
/// TIME_WAIT keeps that of its connection (`inet_bind_conflict`, `inet_twsk_alloc`).
pub(crate) fn share_port(number: RawFd) {
    let on = 1_i32;
    let size = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(0);
    let place = (&raw const on).cast::<c_void>();
    // SAFETY: setsockopt(2) reads `size` bytes, which `on` has. A socket that has no such option stays
    // as it is.
    unsafe { libc::setsockopt(number, libc::SOL_SOCKET, libc::SO_REUSEADDR, place, size) };
}

fn option(number: RawFd, option: i32) -> Option<i32> {
    let (mut value, mut size) = (0_i32, libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(0));
    let place = (&raw mut value).cast::<c_void>();
    // SAFETY: getsockopt(2) writes at most `size` bytes, which `value` has.
    let status =
        unsafe { libc::getsockopt(number, libc::SOL_SOCKET, option, place, &raw mut size) };
    (status == 0).then_some(value)
}

/// Family, address and port of one end. A path of a unix socket has no port; a name in the abstract
/// namespace begins with `@`, as in /proc/net/unix.
fn name(number: RawFd, call: Name) -> Option<(String, String, String)> {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut size = libc::socklen_t::try_from(size_of::<libc::sockaddr_storage>()).ok()?;
    // SAFETY: getsockname(2) and getpeername(2) write at most `size` bytes, which there are.
    let status = unsafe { call(number, storage.as_mut_ptr().cast(), &raw mut size) };
    if status != 0 {
        return None;
    }
    // SAFETY: all zeros is a valid address, as is what the kernel has written over it.
    let storage = unsafe { storage.assume_init() };
    let place = (&raw const storage).cast::<c_void>();
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the kernel says that this is a `sockaddr_in`, which is smaller.
            let address = unsafe { place.cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
            let port = u16::from_be(address.sin_port);
            Some(("inet".into(), ip.to_string(), port.to_string()))
        }
        libc::AF_INET6 => {
            // SAFETY: the kernel says that this is a `sockaddr_in6`, which is smaller.
            let address = unsafe { place.cast::<libc::sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
            let port = u16::from_be(address.sin6_port);
            Some(("inet".into(), ip.to_string(), port.to_string()))
        }
        libc::AF_UNIX => {
            // SAFETY: the kernel says that this is a `sockaddr_un`, which is smaller.
            let address = unsafe { place.cast::<libc::sockaddr_un>().read() };
            let bytes = address.sun_path.map(|byte| byte.to_ne_bytes()[0]);
            let length = usize::try_from(size).unwrap_or(0).saturating_sub(2).min(bytes.len());
            let path = match &bytes[..length] {
                [0, name @ ..] => format!("@{}", String::from_utf8_lossy(name)),
                path => {
                    let end = path.iter().position(|&byte| byte == 0).unwrap_or(path.len());
                    String::from_utf8_lossy(&path[..end]).into_owned()
                }
            };
            Some(("unix".into(), path, String::new()))
        }
        _ => None,
    }
}
