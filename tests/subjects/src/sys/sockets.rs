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

/// sendmsg(2) of one byte over `socket`, and of `descriptor` with it (SCM_RIGHTS).
pub(crate) fn send_descriptor(socket: &OwnedFd, descriptor: &OwnedFd) -> io::Result<()> {
    let mut byte = [1_u8];
    let mut data = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // struct cmsghdr: length, level, type; then the descriptor.
    let mut control = [0_u64; 3];
    let (level, kind) = (u64::from(libc::SOL_SOCKET.cast_unsigned()), libc::SCM_RIGHTS);
    control[0] = 20;
    control[1] = level | u64::from(kind.cast_unsigned()) << 32;
    control[2] = u64::from(descriptor.as_raw_fd().cast_unsigned());
    // SAFETY: zero is a valid msghdr: no name, no data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut data;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the message and all it points to live until the call returns.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
