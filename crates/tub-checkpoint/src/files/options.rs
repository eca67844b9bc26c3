//! Socket options: those that a fresh socket would not have.
//!
//! In: a socket of the process. Out: the options that differ from a fresh socket's of the same
//! kind, made here for the comparison. Invariant: the socket keeps its own.
//!
//! Asked through a duplicate of the descriptor where the kernel gives one (pidfd_getfd(2)), and
//! otherwise by the process itself, which costs two stops for each option.

use super::socket::number;
use crate::caller::Caller;
use crate::{Error, Result, SurveyedFd};
use std::os::fd::{AsFd, OwnedFd};
use tub_model::SocketOption;
use tub_sys::Errno;

/// Most bytes that an option here has (SO_BINDTODEVICE and TCP_CONGESTION: 16).
const ROOM: usize = 32;

// asm-generic/socket.h and linux/{in,in6,tcp,udp,netlink}.h, as far as libc does not name them on
// every C library.
const SO_BUF_LOCK: i32 = 72;
const SO_PASSPIDFD: i32 = 76;
const IP_MULTICAST_ALL: i32 = 49;
const IP_UNICAST_IF: i32 = 50;
const IP_RECVORIGDSTADDR: i32 = 20;
const IP_MINTTL: i32 = 21;
const IPV6_MULTICAST_ALL: i32 = 29;
const IPV6_DONTFRAG: i32 = 62;
const IPV6_RECVORIGDSTADDR: i32 = 74;
const IPV6_UNICAST_IF: i32 = 76;
const TCP_WINDOW_CLAMP: i32 = 10;
const TCP_FASTOPEN_CONNECT: i32 = 30;
const TCP_INQ: i32 = 36;
const SO_MAX_PACING_RATE: i32 = 47;
const IP_LOCAL_PORT_RANGE: i32 = 51;

/// Options of every family.
const GENERAL: &[i32] = &[
    libc::SO_REUSEADDR,
    libc::SO_REUSEPORT,
    libc::SO_KEEPALIVE,
    libc::SO_BROADCAST,
    libc::SO_DONTROUTE,
    libc::SO_OOBINLINE,
    libc::SO_LINGER,
    libc::SO_PRIORITY,
    libc::SO_MARK,
    libc::SO_BINDTODEVICE,
    libc::SO_RCVLOWAT,
    libc::SO_RCVTIMEO,
    libc::SO_SNDTIMEO,
    libc::SO_PASSCRED,
    libc::SO_PASSSEC,
    SO_PASSPIDFD,
    libc::SO_TIMESTAMP,
    libc::SO_TIMESTAMPNS,
    libc::SO_TIMESTAMPING,
    libc::SO_RXQ_OVFL,
    libc::SO_NO_CHECK,
    libc::SO_BUSY_POLL,
    libc::SO_ZEROCOPY,
    libc::SO_PEEK_OFF,
    SO_MAX_PACING_RATE,
];

/// Options of IPv4, which IPv6 sockets have, too.
const IP: &[i32] = &[
    libc::IP_TOS,
    libc::IP_TTL,
    libc::IP_PKTINFO,
    libc::IP_MTU_DISCOVER,
    libc::IP_RECVERR,
    libc::IP_RECVTTL,
    libc::IP_RECVTOS,
    libc::IP_FREEBIND,
    libc::IP_TRANSPARENT,
    libc::IP_MULTICAST_IF,
    libc::IP_MULTICAST_TTL,
    libc::IP_MULTICAST_LOOP,
    libc::IP_BIND_ADDRESS_NO_PORT,
    IP_MULTICAST_ALL,
    IP_UNICAST_IF,
    IP_RECVORIGDSTADDR,
    IP_MINTTL,
    IP_LOCAL_PORT_RANGE,
];

/// Options of IPv6.
const IPV6: &[i32] = &[
    libc::IPV6_V6ONLY,
    libc::IPV6_UNICAST_HOPS,
    libc::IPV6_MULTICAST_IF,
    libc::IPV6_MULTICAST_HOPS,
    libc::IPV6_MULTICAST_LOOP,
    libc::IPV6_MTU_DISCOVER,
    libc::IPV6_RECVERR,
    libc::IPV6_RECVPKTINFO,
    libc::IPV6_RECVHOPLIMIT,
    libc::IPV6_RECVTCLASS,
    libc::IPV6_TCLASS,
    IPV6_MULTICAST_ALL,
    IPV6_DONTFRAG,
    IPV6_RECVORIGDSTADDR,
    IPV6_UNICAST_IF,
];

/// Options of TCP.
const TCP: &[i32] = &[
    libc::TCP_NODELAY,
    libc::TCP_MAXSEG,
    libc::TCP_CORK,
    libc::TCP_KEEPIDLE,
    libc::TCP_KEEPINTVL,
    libc::TCP_KEEPCNT,
    libc::TCP_SYNCNT,
    libc::TCP_LINGER2,
    libc::TCP_DEFER_ACCEPT,
    libc::TCP_CONGESTION,
    libc::TCP_USER_TIMEOUT,
    libc::TCP_FASTOPEN,
    libc::TCP_NOTSENT_LOWAT,
    libc::TCP_SAVE_SYN,
    TCP_WINDOW_CLAMP,
    TCP_FASTOPEN_CONNECT,
    TCP_INQ,
];

/// Options of UDP: UDP_SEGMENT, UDP_GRO.
const UDP: &[i32] = &[103, 104];

/// Options of netlink: packet information, broadcast errors, no ENOBUFS, all namespaces, capped and
/// extended acknowledgements, strict checking.
const NETLINK: &[i32] = &[3, 4, 5, 8, 10, 11, 12];
const SOL_NETLINK: i32 = 270;

/// What of a socket's options a fresh one would not have.
pub(super) fn differing(fd: &SurveyedFd, caller: &mut Caller<'_>) -> Result<Vec<SocketOption>> {
    let ours = tub_sys::duplicate_of(caller.pid(), fd.number).ok();
    let mut socket = Asked { ours, fd, caller };
    let sol = libc::SOL_SOCKET;
    let family = socket.word(sol, libc::SO_DOMAIN)?.unwrap_or(0);
    let kind = socket.word(sol, libc::SO_TYPE)?.unwrap_or(0);
    let protocol = socket.word(sol, libc::SO_PROTOCOL)?.unwrap_or(0);
    // Without one nobody could tell what of its options is its own, and all of them would be lost.
    let fresh = tub_sys::socket(family, kind, protocol).map_err(|source| {
        let what = format!("a socket like descriptor {}, to compare its options with,", fd.number);
        Error::Remote { what, pid: socket.caller.pid(), source }
    })?;
    let mut asked: Vec<(i32, i32)> = GENERAL.iter().map(|&name| (sol, name)).collect();
    let mut ask = |level, names: &[i32]| asked.extend(names.iter().map(|&name| (level, name)));
    if family == libc::AF_INET || family == libc::AF_INET6 {
        ask(libc::IPPROTO_IP, IP);
        if family == libc::AF_INET6 {
            ask(libc::IPPROTO_IPV6, IPV6);
        }
        match kind {
            libc::SOCK_STREAM => ask(libc::IPPROTO_TCP, TCP),
            libc::SOCK_DGRAM => ask(libc::IPPROTO_UDP, UDP),
            _ => {}
        }
    } else if family == libc::AF_NETLINK {
        ask(SOL_NETLINK, NETLINK);
    }
    let mut found = socket.buffers(&fresh)?;
    for (level, name) in asked {
        let Some(value) = socket.read(level, name, ROOM)? else { continue };
        // A fresh socket's is by /proc/sys/net/ipv6/bindv6only, which may be otherwise where the
        // image is restored: always kept.
        let always = (level, name) == (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY);
        let usual = tub_sys::socket_option(fresh.as_fd(), level, name, ROOM);
        if always || usual.as_ref() != Ok(&value) {
            found.push(SocketOption { level, name, value });
        }
    }
    Ok(found)
}

/// A socket to be asked.
struct Asked<'s, 'c, 'a> {
    ours: Option<OwnedFd>,
    fd: &'s SurveyedFd,
    caller: &'c mut Caller<'a>,
}

impl Asked<'_, '_, '_> {
    fn read(&mut self, level: i32, name: i32, room: usize) -> Result<Option<Vec<u8>>> {
        match &self.ours {
            Some(ours) => Ok(tub_sys::socket_option(ours.as_fd(), level, name, room).ok()),
            None => read(self.fd, level, name, room, self.caller),
        }
    }

    fn word(&mut self, level: i32, name: i32) -> Result<Option<i32>> {
        Ok(self.read(level, name, 4)?.as_deref().and_then(word_of))
    }

    /// Sizes of the buffers, where the application has set them: those that the kernel adapts by
    /// itself would stay fixed once set. setsockopt doubles what it is given (socket(7)).
    fn buffers(&mut self, fresh: &OwnedFd) -> Result<Vec<SocketOption>> {
        let sol = libc::SOL_SOCKET;
        // KERNEL(since 5.15): bit 0 for the sending buffer, bit 1 for the receiving one.
        let locked = self.word(sol, SO_BUF_LOCK)?;
        let mut found = Vec::new();
        for (name, bit) in [(libc::SO_SNDBUF, 1), (libc::SO_RCVBUF, 2)] {
            let Some(value) = self.word(sol, name)? else { continue };
            let usual = tub_sys::socket_option(fresh.as_fd(), sol, name, 4);
            let usual = usual.ok().as_deref().and_then(word_of);
            if locked.map_or(usual != Some(value), |locked| locked & bit != 0) {
                found.push(SocketOption {
                    level: sol,
                    name,
                    value: (value / 2).to_ne_bytes().into(),
                });
            }
        }
        Ok(found)
    }
}

fn word_of(bytes: &[u8]) -> Option<i32> {
    bytes.get(..4)?.try_into().ok().map(i32::from_ne_bytes)
}

/// `getsockopt`, made by the process; `None` where the socket has no such option.
pub(super) fn read(
    fd: &SurveyedFd,
    level: i32,
    name: i32,
    room: usize,
    caller: &mut Caller<'_>,
) -> Result<Option<Vec<u8>>> {
    let mut memory = vec![0u8; 8 + room];
    memory[..4].copy_from_slice(&u32::try_from(room).unwrap_or(0).to_ne_bytes());
    let word = |value: i32| u64::from(value.cast_unsigned());
    let result = caller.call_on(libc::SYS_getsockopt, &mut memory, |at| {
        [number(fd), word(level), word(name), at + 8, at, 0]
    })?;
    let len = usize::try_from(word_of(&memory).unwrap_or(0)).unwrap_or(0).min(room);
    Ok(result.ok().map(|_| memory[8..8 + len].to_vec()))
}

/// Whether a filter is attached: without room for it, the kernel answers how many instructions it
/// has, and EACCES of one that is a program of bpf(2) (KERNEL(since 3.8): net/core/filter.c, sk_get_filter).
pub(super) fn has_filter(fd: &SurveyedFd, caller: &mut Caller<'_>) -> Result<bool> {
    let mut memory = [0u8; 8];
    let (level, name) = (libc::SOL_SOCKET as u64, libc::SO_GET_FILTER as u64);
    let result = caller.call_on(libc::SYS_getsockopt, &mut memory, |at| {
        [number(fd), level, name, at + 4, at, 0]
    })?;
    Ok(match result {
        Ok(_) => word_of(&memory).is_some_and(|instructions| instructions > 0),
        Err(errno) => errno == Errno::EACCES,
    })
}

/// Whether a netlink socket is a member of groups that its address has no bit for: those are joined
/// one by one, and what their numbers mean is in part up to the running kernel (genetlink).
pub(super) fn has_high_groups(fd: &SurveyedFd, caller: &mut Caller<'_>) -> Result<bool> {
    // KERNEL(since 4.2): a bit for each group, as many words as fit.
    const NETLINK_LIST_MEMBERSHIPS: i32 = 9;
    const GROUPS_MAX: usize = 16 << 10;
    let words = read(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, GROUPS_MAX / 8, caller)?;
    Ok(words.unwrap_or_default().iter().skip(4).any(|&eight| eight != 0))
}

/// An option that is an int.
pub(super) fn option_word(
    fd: &SurveyedFd,
    level: i32,
    name: i32,
    caller: &mut Caller<'_>,
) -> Result<Option<i32>> {
    Ok(read(fd, level, name, 4, caller)?.as_deref().and_then(word_of))
}

/// `setsockopt` of an int, made by the process.
pub(super) fn write_word(
    fd: &SurveyedFd,
    level: i32,
    name: i32,
    value: i32,
    caller: &mut Caller<'_>,
) -> Result<std::result::Result<(), Errno>> {
    let mut memory = value.to_ne_bytes();
    let word = |value: i32| u64::from(value.cast_unsigned());
    let result = caller.call_on(libc::SYS_setsockopt, &mut memory, |at| {
        [number(fd), word(level), word(name), at, 4, 0]
    })?;
    Ok(result.map(drop))
}
