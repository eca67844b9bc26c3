//! Sockets that std does not make.

use super::{check, owned};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// socket(2), close-on-exec.
pub(crate) fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes integers.
    owned(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })
}

/// bind(2) of an IPv4 socket to 127.0.0.1 and any port.
pub(crate) fn bind_loopback(socket: &OwnedFd) -> io::Result<()> {
    let address = libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).expect("2 fits"),
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    };
    let len = libc::socklen_t::try_from(size_of_val(&address)).expect("16 fits");
    // SAFETY: the kernel reads an address of the length announced.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) }).map(drop)
}

/// getsockname(2): the raw address.
pub(crate) fn local_address(socket: &OwnedFd) -> io::Result<[u8; 16]> {
    let mut address = [0_u8; 16];
    let mut len: libc::socklen_t = 16;
    let to = address.as_mut_ptr();
    // SAFETY: the kernel writes at most the 16 bytes announced.
    check(unsafe { libc::getsockname(socket.as_raw_fd(), to.cast(), &raw mut len) })?;
    Ok(address)
}

/// listen(2).
pub(crate) fn listen(socket: &OwnedFd, backlog: i32) -> io::Result<()> {
    // SAFETY: takes integers.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) }).map(drop)
}

/// Length of the accept queue of a listening TCP socket: `tcpi_sacked` of TCP_INFO (tcp(7)).
pub(crate) fn accept_queue(socket: impl AsFd) -> io::Result<u32> {
    let mut info = [0_u8; 32];
    let mut len: libc::socklen_t = 32;
    let (fd, to) = (socket.as_fd().as_raw_fd(), info.as_mut_ptr());
    let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
    // SAFETY: the kernel writes at most the 32 bytes announced.
    check(unsafe { libc::getsockopt(fd, level, name, to.cast(), &raw mut len) })?;
    Ok(u32::from_ne_bytes([info[28], info[29], info[30], info[31]]))
}
