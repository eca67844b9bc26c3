//! What a socket is, in the words of `OpenDescriptor.java`.
//!
//! In: a number. Out: six strings. Invariant: nothing of the socket is changed.
//! Not here: to whom it belongs (`descriptors`).

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

type Name = unsafe extern "C" fn(RawFd, *mut libc::sockaddr, *mut libc::socklen_t) -> i32;

/// Family, local address and port, remote address and port, `listening`.
pub(crate) fn describe(number: RawFd) -> Option<[String; 6]> {
    let (family, local, local_port) = name(number, libc::getsockname)?;
    let (_, remote, remote_port) = name(number, libc::getpeername).unwrap_or_default();
    let listening = if is_listening(number) { "listening" } else { "" };
    Some([family, local, local_port, remote, remote_port, listening.to_owned()])
}

fn is_listening(number: RawFd) -> bool {
    let (mut on, mut size) = (0_i32, libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(0));
    let place = (&raw mut on).cast::<c_void>();
    let option = libc::SO_ACCEPTCONN;
    // SAFETY: getsockopt(2) writes at most `size` bytes, which `on` has.
    let status =
        unsafe { libc::getsockopt(number, libc::SOL_SOCKET, option, place, &raw mut size) };
    status == 0 && on != 0
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
