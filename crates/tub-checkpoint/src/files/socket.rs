//! Sockets: what they are, and what lies in them.
//!
//! In: a surveyed descriptor, calls made by the process. Out: the model's socket, or why there can
//! be none. Invariant: nothing is taken out of a socket, and none of its settings stays changed.
//!
//! Most of this only the socket itself tells, so that some reasons to refuse come up here, when the
//! process is frozen already, and not in [`crate::refuse`].

use super::options::{self, option_word};
use crate::caller::Caller;
use crate::refuse::{TcpPolicy, socket_name};
use crate::{Result, Survey, SurveyedFd};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt;
use tub_model::{Socket, SocketFile, TcpState, UnixName, UnixSocket, UnixState};
use tub_sys::{Errno, UnixDiag};

/// Why a socket cannot be stored: which one, and the reason.
pub(super) type Problem = (String, &'static str);

/// The socket behind a descriptor.
pub(super) fn socket(
    survey: &Survey,
    fd: &SurveyedFd,
    caller: &mut Caller<'_>,
    tcp_policy: TcpPolicy,
) -> Result<std::result::Result<Socket, Problem>> {
    let problem = |reason| Ok(Err((socket_name(survey, fd), reason)));
    if options::has_filter(fd, caller)? {
        return problem("has a packet filter, which is not supported yet");
    }
    match fd.protocol.as_deref().unwrap_or_default() {
        "TCP" | "TCPv6" | "MPTCP" | "MPTCPv6" => tcp(fd, caller, tcp_policy)?
            .map_or_else(|| problem("is connected to a peer outside"), |socket| Ok(Ok(socket))),
        "UDP" | "UDPv6" => Ok(Ok(Socket::Udp {
            address: internet_address(&name(fd, false, caller)?.unwrap_or_default()),
            peer: name(fd, true, caller)?.map(|name| internet_address(&name)),
            options: options::differing(fd, caller)?,
        })),
        "NETLINK" => {
            if readable(fd, caller)? {
                return problem("holds messages not read yet");
            }
            if options::has_high_groups(fd, caller)? {
                return problem("is a member of multicast groups above 32");
            }
            // struct sockaddr_nl: family, pad, port, groups.
            let name = name(fd, false, caller)?.unwrap_or_default();
            let word = |at: usize| {
                let bytes = name.get(at..at + 4).and_then(|four| four.try_into().ok());
                bytes.map_or(0, u32::from_ne_bytes)
            };
            Ok(Ok(Socket::Netlink {
                kind: option_word(fd, libc::SOL_SOCKET, libc::SO_TYPE, caller)?.unwrap_or(0),
                protocol: option_word(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL, caller)?
                    .unwrap_or(0),
                port: word(4),
                groups: word(8),
                options: options::differing(fd, caller)?,
            }))
        }
        "UNIX" | "UNIX-STREAM" => unix(survey, fd, caller),
        _ => problem("is of a family that cannot be stored"),
    }
}

/// A TCP socket without a connection, or one that loses it by `policy`.
fn tcp(fd: &SurveyedFd, caller: &mut Caller<'_>, policy: TcpPolicy) -> Result<Option<Socket>> {
    // struct tcp_info (linux/tcp.h): the state comes first; of a listening socket, `tcpi_sacked` at
    // 28 is the length of its accept queue (net/ipv4/tcp.c, tcp_get_info).
    const TCP_CLOSE: u8 = 7;
    const TCP_LISTEN: u8 = 10;
    let info = options::read(fd, libc::IPPROTO_TCP, libc::TCP_INFO, 104, caller)?;
    let info = info.unwrap_or_default();
    let name = name(fd, false, caller)?.unwrap_or_default();
    let mut address = internet_address(&name);
    let state = match info.first().copied().unwrap_or(TCP_CLOSE) {
        TCP_LISTEN => {
            let backlog = info.get(28..32).and_then(|four| four.try_into().ok());
            TcpState::Listening { backlog: backlog.map_or(0, u32::from_ne_bytes) }
        }
        // A connection that was reset has been shut down in both directions.
        TCP_CLOSE if poll(fd, libc::POLLRDHUP, caller)? & libc::POLLRDHUP != 0 => TcpState::Dead,
        TCP_CLOSE => TcpState::Fresh,
        _ if policy == TcpPolicy::Close => TcpState::Dead,
        _ => return Ok(None),
    };
    if state == TcpState::Dead {
        let v6 = address.starts_with('[');
        address = if v6 { "[::]:0" } else { "0.0.0.0:0" }.to_owned();
    }
    let protocol = option_word(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL, caller)?;
    let protocol = protocol.unwrap_or(libc::IPPROTO_TCP);
    let options =
        if state == TcpState::Dead { Vec::new() } else { options::differing(fd, caller)? };
    Ok(Some(Socket::Tcp { protocol, address, state, options }))
}

fn unix(
    survey: &Survey,
    fd: &SurveyedFd,
    caller: &mut Caller<'_>,
) -> Result<std::result::Result<Socket, Problem>> {
    let problem = |reason| Ok(Err((socket_name(survey, fd), reason)));
    let kind = option_word(fd, libc::SOL_SOCKET, libc::SO_TYPE, caller)?.unwrap_or(0);
    let listens = option_word(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, caller)? == Some(1);
    let diag = caller.unix_diag(fd.ino)?;
    let peer_name = if diag.had_peer { name(fd, true, caller)? } else { None };
    let peer_name = peer_name.and_then(|name| unix_address(&name));
    let state = if listens {
        UnixState::Listening { backlog: diag.sent }
    } else if let Some(peer) = diag.peer {
        // Whether it belongs to the image, is seen when all processes are known.
        match peer_name {
            Some(name) if kind == libc::SOCK_DGRAM && !holds(survey, fd, peer) => {
                UnixState::Outside { name }
            }
            _ => UnixState::Connected { peer },
        }
    } else if waits_to_be_accepted(survey, fd, &diag) {
        return problem("waits to be accepted by a listening socket");
    } else if diag.had_peer {
        UnixState::Orphan
    } else {
        UnixState::Unconnected
    };
    let bound = name(fd, false, caller)?.and_then(|name| unix_address(&name));
    let bound = bound.map(|bytes| UnixName { file: socket_file(survey, &bytes, &diag), bytes });
    let is_mutual = matches!(state, UnixState::Connected { peer }
        if caller.unix_diag(peer).is_ok_and(|diag| diag.peer == Some(fd.ino)));
    let mut inbox = Vec::new();
    if !listens && diag.received > 0 || kind == libc::SOCK_DGRAM && readable(fd, caller)? {
        match messages(fd, kind, is_mutual, caller)? {
            Ok(messages) => inbox = messages,
            Err(reason) => return problem(reason),
        }
    }
    // Closing the peer has shut down both directions already.
    let shutdown = if state == UnixState::Orphan { 0 } else { diag.shutdown };
    let options = options::differing(fd, caller)?;
    Ok(Ok(Socket::Unix(UnixSocket {
        kind,
        id: fd.ino,
        name: bound,
        state,
        shutdown,
        inbox,
        options,
    })))
}

/// Whether the process itself holds the socket with that inode number.
fn holds(survey: &Survey, like: &SurveyedFd, ino: u64) -> bool {
    survey.fds.iter().any(|other| (other.dev, other.ino) == (like.dev, ino))
}

/// Whether a connection is in the queue of a listening socket: its peer has no inode number yet,
/// just as one that has been closed.
fn waits_to_be_accepted(survey: &Survey, fd: &SurveyedFd, diag: &UnixDiag) -> bool {
    let in_queue = || survey.unix_diag.values().any(|other| other.waiting.contains(&fd.ino));
    diag.had_peer && diag.peer.is_none() && diag.shutdown != 3 && in_queue()
}

/// The file that a socket is bound to, if it is still there.
fn socket_file(survey: &Survey, name: &[u8], diag: &UnixDiag) -> Option<SocketFile> {
    let path = std::str::from_utf8(name).ok().filter(|path| !path.starts_with('\0'))?;
    let base = if path.starts_with('/') { "root" } else { "cwd/" };
    let meta = std::fs::symlink_metadata(format!("/proc/{}/{base}{path}", survey.pid)).ok()?;
    // The diagnosis tells the lower half of the inode number.
    let same = diag.file.is_none_or(|ino| u64::from(ino) == meta.ino() & 0xffff_ffff);
    same.then(|| SocketFile { mode: meta.mode() & 0o7777, uid: meta.uid(), gid: meta.gid() })
}

/// What lies in a socket. Looked at by MSG_PEEK from a moving offset, which is put back after.
fn messages(
    fd: &SurveyedFd,
    kind: i32,
    is_mutual: bool,
    caller: &mut Caller<'_>,
) -> Result<std::result::Result<Vec<Vec<u8>>, &'static str>> {
    let offset = option_word(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, caller)?.unwrap_or(-1);
    let credentials = option_word(fd, libc::SOL_SOCKET, libc::SO_PASSCRED, caller)? == Some(1);
    if let Err(source) = options::write_word(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, 0, caller)? {
        return Err(remote("messages of a unix socket", caller, source));
    }
    let found = caller.with_memory(PEEK_BYTES, |caller, at| {
        let mut messages: Vec<Vec<u8>> = Vec::new();
        let mut empty = 0;
        loop {
            let peeked = match peek(fd, at.0, credentials, caller)? {
                Ok(peeked) => peeked,
                Err(Errno::EAGAIN) => return Ok(Ok(messages)),
                Err(source) => return Err(remote("messages of a unix socket", caller, source)),
            };
            if peeked.cut_off {
                return Ok(Err("holds messages with descriptors, or too long ones"));
            }
            if peeked.has_sender && kind == libc::SOCK_DGRAM && !is_mutual {
                return Ok(Err("holds messages of senders with names"));
            }
            if kind == libc::SOCK_STREAM && peeked.bytes == 0 {
                // The end, after a shutdown or a closed peer.
                return Ok(Ok(messages));
            }
            empty = if peeked.bytes == 0 { empty + 1 } else { 0 };
            if kind == libc::SOCK_SEQPACKET && empty > EMPTY_PACKETS_MAX {
                // The same. An empty packet reads like the end, so that none before it is missed.
                messages.truncate(messages.len() + 1 - empty);
                return Ok(Ok(messages));
            }
            let mut bytes = vec![0; peeked.bytes];
            caller.read(at, &mut bytes)?;
            match messages.last_mut() {
                Some(before) if kind == libc::SOCK_STREAM => before.extend(bytes),
                _ => messages.push(bytes),
            }
        }
    });
    let _ = options::write_word(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, offset, caller)?;
    found
}

/// Room for what is looked at in one go: more than the largest message of a default system
/// (net.core.wmem_max).
const PEEK_BYTES: u64 = 1 << 20;

/// How many empty packets in a row are packets; more are the end of a connection, which reads as one for
/// ever.
const EMPTY_PACKETS_MAX: usize = 16;

struct Peeked {
    bytes: usize,
    has_sender: bool,
    /// Whether the message, or what came along with it, did not fit.
    cut_off: bool,
}

/// `recvmsg(fd, …, MSG_PEEK | MSG_DONTWAIT)` into memory of the process at `to`.
fn peek(
    fd: &SurveyedFd,
    to: u64,
    credentials: bool,
    caller: &mut Caller<'_>,
) -> Result<std::result::Result<Peeked, Errno>> {
    // struct msghdr (56 bytes): name, its length, iovec, their number, control, its length, flags;
    // then the iovec at 64, the name at 96, control at 256. Of control messages only credentials
    // get room, so that descriptors are announced (MSG_CTRUNC) and not received.
    const NAME_ROOM: u64 = 128;
    let control = if credentials { 32u64 } else { 0 };
    let mut memory = [0u8; 320];
    let flags = (libc::MSG_PEEK | libc::MSG_DONTWAIT) as u64;
    let base = caller.scratch_address();
    let words = [base + 96, NAME_ROOM, base + 64, 1, base + 256, control, 0, 0, to, PEEK_BYTES];
    for (at, word) in memory.chunks_exact_mut(8).zip(words) {
        at.copy_from_slice(&word.to_ne_bytes());
    }
    let result =
        caller.call_on(libc::SYS_recvmsg, &mut memory, |at| [number(fd), at, flags, 0, 0, 0])?;
    let word = |at: usize| {
        u32::from_ne_bytes([memory[at], memory[at + 1], memory[at + 2], memory[at + 3]])
    };
    let flags = word(48).cast_signed();
    Ok(result.map(|bytes| Peeked {
        bytes: usize::try_from(bytes).unwrap_or(0),
        // More than the family.
        has_sender: word(8) > 2,
        cut_off: flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0,
    }))
}

fn remote(what: &str, caller: &Caller<'_>, source: Errno) -> crate::Error {
    crate::Error::Remote { what: what.to_owned(), pid: caller.pid(), source }
}

pub(super) fn number(fd: &SurveyedFd) -> u64 {
    u64::from(fd.number.cast_unsigned())
}

/// `getsockname` or, of the peer, `getpeername`: the raw address; `None` where there is no peer.
fn name(fd: &SurveyedFd, peer: bool, caller: &mut Caller<'_>) -> Result<Option<Vec<u8>>> {
    const ROOM: u32 = 128;
    let call = if peer { libc::SYS_getpeername } else { libc::SYS_getsockname };
    let mut memory = [0u8; 8 + ROOM as usize];
    memory[..4].copy_from_slice(&ROOM.to_ne_bytes());
    let result = caller.call_on(call, &mut memory, |at| [number(fd), at + 8, at, 0, 0, 0])?;
    let len = u32::from_ne_bytes([memory[0], memory[1], memory[2], memory[3]]).min(ROOM);
    Ok(result.ok().map(|_| memory[8..8 + len as usize].to_vec()))
}

/// `poll(fd, events, 0)`: what came of it.
fn poll(fd: &SurveyedFd, events: i16, caller: &mut Caller<'_>) -> Result<i16> {
    let mut memory = [0u8; 8];
    memory[..4].copy_from_slice(&fd.number.to_ne_bytes());
    memory[4..6].copy_from_slice(&events.to_ne_bytes());
    // ppoll(fds, 1, {0, 0}, null, 8) without the timeout's rewriting: poll is enough on x86-64, and
    // other architectures are refused.
    let timeout = [0u8; 16];
    let mut all = [0u8; 24];
    all[..8].copy_from_slice(&memory);
    all[8..].copy_from_slice(&timeout);
    let _ = caller.call_on(libc::SYS_ppoll, &mut all, |at| [at, 1, at + 8, 0, 8, 0])?;
    Ok(i16::from_ne_bytes([all[6], all[7]]))
}

/// Whether there is something to read.
fn readable(fd: &SurveyedFd, caller: &mut Caller<'_>) -> Result<bool> {
    Ok(poll(fd, libc::POLLIN, caller)? & libc::POLLIN != 0)
}

/// A `sockaddr_in` or `sockaddr_in6` as `std::net` prints it.
fn internet_address(raw: &[u8]) -> String {
    let port = raw.get(2..4).map_or(0, |two| u16::from_be_bytes([two[0], two[1]]));
    let family = raw.get(..2).map_or(0, |two| u16::from_ne_bytes([two[0], two[1]]));
    let v6: Option<[u8; 16]> = raw.get(8..24).and_then(|ip| ip.try_into().ok());
    let v4: Option<[u8; 4]> = raw.get(4..8).and_then(|ip| ip.try_into().ok());
    let address = match (i32::from(family), v6, v4) {
        (libc::AF_INET6, Some(ip), _) => {
            let scope = raw.get(24..28).and_then(|four| four.try_into().ok());
            let scope = scope.map_or(0, u32::from_ne_bytes);
            SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope).into()
        }
        (_, _, ip) => SocketAddr::from((Ipv4Addr::from(ip.unwrap_or_default()), port)),
    };
    address.to_string()
}

/// The name in a `sockaddr_un`: a path, or NUL and an abstract name.
fn unix_address(raw: &[u8]) -> Option<Vec<u8>> {
    let name = raw.get(2..)?;
    match name.first()? {
        0 => Some(name.to_vec()),
        _ => Some(name.split(|&byte| byte == 0).next()?.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_what_the_kernel_says() {
        let v4 = [2, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(internet_address(&v4), "127.0.0.1:8080");
        let mut v6 = vec![10, 0, 0, 80, 0, 0, 0, 0, 0xfe, 0x80];
        v6.extend([0; 13]);
        v6.extend([1, 3, 0, 0, 0]);
        assert_eq!(internet_address(&v6), "[fe80::1%3]:80");
        assert_eq!(internet_address(&[]), "0.0.0.0:0");
        assert_eq!(unix_address(&[1, 0]), None);
        assert_eq!(unix_address(b"\x01\x00/run/a\0"), Some(b"/run/a".to_vec()));
        assert_eq!(unix_address(b"\x01\x00\0a\0b"), Some(b"\0a\0b".to_vec()));
    }
}
