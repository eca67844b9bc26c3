//! Sockets, bound, listening and connected to each other as they were.
//!
//! In: the image's socket. Out: a descriptor, or two. Invariant: a socket file is replaced only
//! where nobody listens behind it any more, and only one of the same owner.

use nix::fcntl::{AtFlags, OFlag};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, Shutdown, SockFlag, SockType, SockaddrStorage, UnixAddr,
    accept4, bind, connect, send, sendto, shutdown, socket, socketpair,
};
use nix::sys::stat::{Mode, fchmod, fstat, umask};
use nix::unistd::{Gid, Uid, fchownat};
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use tub_model::{Socket, SocketOption, TcpState, UnixName, UnixSocket, UnixState};
use tub_sys::Errno;

fn socket_kind(kind: i32) -> Result<SockType, Errno> {
    SockType::try_from(kind & 0xf)
}

/// Makes a socket that is not connected to another one of the image.
pub(super) fn open_socket(saved: &Socket) -> Result<OwnedFd, Errno> {
    match saved {
        Socket::Unix(unix) => open_unix(unix),
        Socket::Tcp { protocol, address, state: TcpState::Dead, .. } => {
            let fd = tub_sys::socket(family(address)? as i32, libc::SOCK_STREAM, *protocol)?;
            // KERNEL: inet_shutdown (net/ipv4/af_inet.c) complains of a socket without a
            // connection, and shuts it down all the same.
            match shutdown(fd.as_raw_fd(), Shutdown::Both) {
                Ok(()) | Err(Errno::ENOTCONN) => Ok(fd),
                Err(errno) => Err(errno),
            }
        }
        Socket::Tcp { protocol, address, state, options } => {
            let fd = tub_sys::socket(family(address)? as i32, libc::SOCK_STREAM, *protocol)?;
            set_options(&fd, options)?;
            bind_internet(&fd, address)?;
            if let TcpState::Listening { backlog } = state {
                tub_sys::listen(fd.as_fd(), i32::try_from(*backlog).unwrap_or(i32::MAX))?;
            }
            Ok(fd)
        }
        Socket::Udp { address, peer, options } => {
            let fd = tub_sys::socket(family(address)? as i32, libc::SOCK_DGRAM, 0)?;
            set_options(&fd, options)?;
            match bind_internet(&fd, address) {
                // Connecting had chosen the address, and chooses another one where it is taken, or
                // is not this host's.
                Err(_) if peer.is_some() => {}
                bound => bound?,
            }
            if let Some(peer) = peer {
                let peer: SocketAddr = peer.parse().map_err(|_| Errno::EINVAL)?;
                connect(fd.as_raw_fd(), &SockaddrStorage::from(peer))?;
            }
            Ok(fd)
        }
        Socket::Netlink { kind, protocol, port, groups, options } => {
            let fd = tub_sys::socket(libc::AF_NETLINK, *kind, *protocol)?;
            set_options(&fd, options)?;
            if *port != 0 || *groups != 0 {
                match bind(fd.as_raw_fd(), &NetlinkAddr::new(*port, *groups)) {
                    // Ports are by process ids at first; another instance may have it.
                    Err(Errno::EADDRINUSE) => {
                        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, *groups))?;
                    }
                    bound => bound?,
                }
            }
            Ok(fd)
        }
    }
}

fn family(address: &str) -> Result<AddressFamily, Errno> {
    match address.parse().map_err(|_| Errno::EINVAL)? {
        SocketAddr::V4(_) => Ok(AddressFamily::Inet),
        SocketAddr::V6(_) => Ok(AddressFamily::Inet6),
    }
}

/// Binds where the original was bound: port 0 says that it was not.
fn bind_internet(fd: &OwnedFd, address: &str) -> Result<(), Errno> {
    let address: SocketAddr = address.parse().map_err(|_| Errno::EINVAL)?;
    if address.port() == 0 {
        return Ok(());
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))
}

/// Sets options. A priority above 6 needs a privilege, and changes nothing that is sent or received.
fn set_options(fd: &OwnedFd, options: &[SocketOption]) -> Result<(), Errno> {
    for SocketOption { level, name, value } in options {
        match tub_sys::set_socket_option(fd.as_fd(), *level, *name, value) {
            Err(Errno::EPERM) if (*level, *name) == (libc::SOL_SOCKET, libc::SO_PRIORITY) => {}
            set => set?,
        }
    }
    Ok(())
}

fn open_unix(unix: &UnixSocket) -> Result<OwnedFd, Errno> {
    let fd = socket(AddressFamily::Unix, socket_kind(unix.kind)?, SockFlag::SOCK_CLOEXEC, None)?;
    set_options(&fd, &unix.options)?;
    if let Some(name) = &unix.name {
        bind_unix(&fd, name, unix.kind)?;
    }
    if let UnixState::Listening { backlog } = unix.state {
        tub_sys::listen(fd.as_fd(), i32::try_from(backlog).unwrap_or(i32::MAX))?;
    }
    if let Some(name) = &unix.name
        && !unix.inbox.is_empty()
    {
        // Senders without a name: anybody without one does.
        let sender = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        let to = unix_address(&name.bytes)?;
        for message in &unix.inbox {
            sendto(sender.as_raw_fd(), message, &to, MsgFlags::MSG_DONTWAIT)?;
        }
    }
    if let Some(name) = unix.name.as_ref().filter(|name| name.file.is_none()) {
        remove_file(name);
    }
    shut_down(&fd, unix.shutdown)?;
    Ok(fd)
}

/// Connects a datagram socket to one that has a name.
pub(super) fn connect_unix(number: i32, name: &[u8]) -> Result<(), Errno> {
    connect(number, &unix_address(name)?)
}

/// Makes two sockets that are connected to each other; without `b` the other end has been closed.
///
/// `keeps_file` says whether the socket files of their names stay: most of them are those of
/// listening sockets, which come later.
pub(super) fn open_pair(
    a: &UnixSocket,
    b: Option<&UnixSocket>,
    keeps_file: bool,
) -> Result<(OwnedFd, OwnedFd), Errno> {
    let name_of_b = b.and_then(|b| b.name.as_ref());
    let is_abstract = |name: Option<&UnixName>| name.is_some_and(|n| n.bytes.first() == Some(&0));
    let (one, other) =
        if a.kind == libc::SOCK_DGRAM || !is_abstract(a.name.as_ref()) && !is_abstract(name_of_b) {
            let kind = socket_kind(a.kind)?;
            let (one, other) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?;
            for (fd, name) in [(&one, a.name.as_ref()), (&other, name_of_b)] {
                if let Some(name) = name {
                    bind_unix(fd, name, a.kind)?;
                    if !keeps_file {
                        remove_file(name);
                    }
                }
            }
            (one, other)
        } else if is_abstract(a.name.as_ref()) {
            accepted(a.kind, a.name.as_ref(), name_of_b)?
        } else {
            let (one, other) = accepted(a.kind, name_of_b, a.name.as_ref())?;
            (other, one)
        };
    set_options(&one, &a.options)?;
    if let Some(b) = b {
        set_options(&other, &b.options)?;
        deliver(&one, &b.inbox)?;
        shut_down(&other, b.shutdown)?;
    }
    deliver(&other, &a.inbox)?;
    shut_down(&one, a.shutdown)?;
    Ok((one, other))
}

/// A connection that one socket has accepted: it has the name of the listening one, which only
/// accepting can give it as long as an abstract name may be bound but once. Neither end waits.
fn accepted(
    kind: i32,
    server: Option<&UnixName>,
    client: Option<&UnixName>,
) -> Result<(OwnedFd, OwnedFd), Errno> {
    let fresh = |flags| {
        let flags = flags | SockFlag::SOCK_CLOEXEC;
        socket(AddressFamily::Unix, socket_kind(kind)?, flags, None)
    };
    let (listener, caller) = (fresh(SockFlag::empty())?, fresh(SockFlag::SOCK_NONBLOCK)?);
    let name = server.ok_or(Errno::EINVAL)?;
    bind_unix(&listener, name, kind)?;
    tub_sys::listen(listener.as_fd(), 1)?;
    if let Some(client) = client {
        bind_unix(&caller, client, kind)?;
        remove_file(client);
    }
    let address = unix_address(&name.bytes)?;
    let accept = || {
        let got = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
        // SAFETY: accept4 has just handed out the number, and nobody else knows it.
        Ok::<_, Errno>(unsafe { OwnedFd::from_raw_fd(got) })
    };
    // Others may have been quicker; what they get is a closed connection. While they fill the queue, nobody but
    // us would make room in it.
    loop {
        match connect(caller.as_raw_fd(), &address) {
            Err(Errno::EAGAIN) => drop(accept()?),
            connected => break connected?,
        }
    }
    loop {
        let got = accept()?;
        let who = nix::sys::socket::getsockopt(&got, nix::sys::socket::sockopt::PeerCredentials)?;
        if who.pid() == nix::unistd::getpid().as_raw() {
            return Ok((got, caller));
        }
    }
}

/// Puts messages into the receive queue of the other end of `from`.
fn deliver(from: &OwnedFd, messages: &[Vec<u8>]) -> Result<(), Errno> {
    for message in messages {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        if send(from.as_raw_fd(), message, flags)? < message.len() {
            return Err(Errno::ENOBUFS);
        }
    }
    Ok(())
}

/// Shuts down what was: receiving 1, sending 2.
fn shut_down(fd: &OwnedFd, what: u8) -> Result<(), Errno> {
    match what {
        0 => Ok(()),
        1 => shutdown(fd.as_raw_fd(), Shutdown::Read),
        2 => shutdown(fd.as_raw_fd(), Shutdown::Write),
        _ => shutdown(fd.as_raw_fd(), Shutdown::Both),
    }
}

fn unix_address(name: &[u8]) -> Result<UnixAddr, Errno> {
    match name.split_first() {
        Some((0, rest)) => UnixAddr::new_abstract(rest),
        _ => UnixAddr::new(Path::new(OsStr::from_bytes(name))),
    }
}

fn path_of(name: &UnixName) -> Option<&Path> {
    (name.bytes.first() != Some(&0)).then(|| Path::new(OsStr::from_bytes(&name.bytes)))
}

fn remove_file(name: &UnixName) {
    if let Some(path) = path_of(name) {
        let _ = nix::unistd::unlink(path);
    }
}

/// Binds to a name. A socket file that nobody listens behind any more, left over from the original
/// or an earlier instance, is replaced if it belongs to the same user.
fn bind_unix(fd: &OwnedFd, name: &UnixName, kind: i32) -> Result<(), Errno> {
    let address = unix_address(&name.bytes)?;
    let Some(path) = path_of(name) else { return bind(fd.as_raw_fd(), &address) };
    let mode = name.file.map_or(0o600, |file| file.mode);
    // The file gets the rights of the socket's own inode at once, less the umask
    // (KERNEL: unix_bind_bsd, net/unix/af_unix.c).
    fchmod(fd, Mode::from_bits_truncate(mode))?;
    let before = umask(Mode::empty());
    let bound = match bind(fd.as_raw_fd(), &address) {
        Err(Errno::EADDRINUSE) if is_dead(path, &address, kind) => {
            nix::unistd::unlink(path).and_then(|()| bind(fd.as_raw_fd(), &address))
        }
        bound => bound,
    };
    umask(before);
    bound?;
    if let Some(file) = name.file {
        // As far as the caller may give it away; the group is often enough.
        let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        if (file.uid, file.gid) != own {
            let _ = give_away(path, file.uid, file.gid);
        }
    }
    Ok(())
}

/// Gives the file of a socket that we have just made to somebody else, whose directory it may lie in: what he
/// has put in its place by now, be it a link of either kind, is left alone.
fn give_away(path: &Path, uid: u32, gid: u32) -> Result<(), Errno> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let there = nix::fcntl::open(path, flags, Mode::empty())?;
    let stat = fstat(&there)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFSOCK || stat.st_nlink != 1 {
        return Err(Errno::EPERM);
    }
    let itself = AtFlags::AT_EMPTY_PATH;
    let give = |uid| fchownat(&there, "", uid, Some(Gid::from_raw(gid)), itself);
    give(Some(Uid::from_raw(uid))).or_else(|_| give(None))
}

/// Whether a path is a socket of ours that nobody has open any more.
fn is_dead(path: &Path, address: &UnixAddr, kind: i32) -> bool {
    let ours = nix::unistd::geteuid().as_raw();
    let is_ours = std::fs::symlink_metadata(path)
        .is_ok_and(|meta| meta.file_type().is_socket() && (meta.uid() == ours || ours == 0));
    let refused = || {
        let kind = socket_kind(kind)?;
        // Whoever takes no more connections at the moment is not waited for.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let caller = socket(AddressFamily::Unix, kind, flags, None)?;
        connect(caller.as_raw_fd(), address)
    };
    is_ours && refused() == Err(Errno::ECONNREFUSED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_a_sockets_own_file_is_given_away() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: only root gives files away");
            return;
        }
        let dir = std::env::temp_dir().join(format!("tub-give-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = |name: &str| dir.join(name);
        let owner = |name: &str| fs::symlink_metadata(path(name)).unwrap().uid();
        let listening = ["mine", "other"].map(|name| UnixListener::bind(path(name)).unwrap());
        fs::write(path("precious"), "").unwrap();
        fs::hard_link(path("precious"), path("file")).unwrap();
        fs::hard_link(path("other"), path("socket")).unwrap();
        std::os::unix::fs::symlink("precious", path("link")).unwrap();
        for name in ["file", "socket", "link"] {
            assert_eq!(give_away(&path(name), 65534, 65534), Err(Errno::EPERM), "{name}");
            assert_eq!((owner(name), owner("precious")), (0, 0));
        }
        give_away(&path("mine"), 65534, 65534).unwrap();
        assert_eq!(owner("mine"), 65534);
        drop(listening);
        fs::remove_dir_all(&dir).unwrap();
    }
}
