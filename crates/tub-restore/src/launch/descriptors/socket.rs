//! Sockets, bound and listening as they were.
//!
//! In: the image's socket. Out: a descriptor. Invariant: a socket file is replaced only where
//! nobody listens behind it any more.

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, UnixAddr, bind, listen, socket,
    socketpair,
};
use nix::sys::stat::{Mode, umask};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use tub_model::{Socket, SocketOption};
use tub_sys::Errno;

pub(super) fn socket_kind(kind: i32) -> Result<SockType, Errno> {
    SockType::try_from(kind & 0xf)
}

pub(super) fn open_socket(saved: &Socket) -> Result<OwnedFd, Errno> {
    let cloexec = SockFlag::SOCK_CLOEXEC;
    match saved {
        Socket::UnixOrphan { kind } => {
            let kind = socket_kind(*kind)?;
            let (kept, _closed) = socketpair(AddressFamily::Unix, kind, None, cloexec)?;
            Ok(kept)
        }
        Socket::UnixListener { kind, address, mode } => {
            let fd = socket(AddressFamily::Unix, socket_kind(*kind)?, cloexec, None)?;
            if let Some(name) = address.strip_prefix('@') {
                bind(fd.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
            } else {
                bind_path(&fd, address, *mode)?;
            }
            listen(&fd, Backlog::MAXCONN)?;
            Ok(fd)
        }
        Socket::TcpListener { address, backlog, options } => {
            let fd = inet_socket(address, SockType::Stream, options)?;
            let backlog = i32::try_from(*backlog).unwrap_or(i32::MAX).min(4096);
            listen(&fd, Backlog::new(backlog)?)?;
            Ok(fd)
        }
        Socket::Udp { address, options } => inet_socket(address, SockType::Datagram, options),
        Socket::UnixPair { .. } => Err(Errno::EOPNOTSUPP),
    }
}

/// Binds to a path. A socket that nobody listens on any more, left over from the original or an
/// earlier instance, is replaced.
fn bind_path(fd: &OwnedFd, path: &str, mode: u32) -> Result<(), Errno> {
    let address = UnixAddr::new(path)?;
    // The kernel makes the file with the rights that the mask leaves. To change them afterwards
    // would be to change whatever somebody has put in its place by then.
    let others = umask(Mode::from_bits_truncate(!mode & 0o777));
    let bound = match bind(fd.as_raw_fd(), &address) {
        Err(Errno::EADDRINUSE) if is_abandoned_socket(path) => {
            nix::unistd::unlink(path).and_then(|()| bind(fd.as_raw_fd(), &address))
        }
        bound => bound,
    };
    umask(others);
    bound
}

/// Whether a socket is at `path` and nobody listens behind it. (To connect to any other file is
/// refused as well: that one is somebody's.)
fn is_abandoned_socket(path: &str) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

fn inet_socket(address: &str, kind: SockType, options: &[SocketOption]) -> Result<OwnedFd, Errno> {
    let address: SocketAddr = address.parse().map_err(|_| Errno::EINVAL)?;
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    for option in options {
        tub_sys::set_socket_option(fd.as_fd(), option.level, option.name, &option.value)?;
    }
    if kind == SockType::Stream || address.port() != 0 {
        bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    }
    Ok(fd)
}
