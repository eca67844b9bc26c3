//! Sockets: what they are, and their options.
//!
//! In: a surveyed descriptor, calls made by the process. Out: the model's socket.
//! Not here: which sockets are refused (see [`crate::refuse`]).

use crate::collect::Caller;
use crate::{Result, Survey, SurveyedFd};
use tub_model::{Socket, SocketOption};

/// linux/net.h: SS_CONNECTED.
const SS_CONNECTED: u8 = 3;

pub(super) fn socket(survey: &Survey, fd: &SurveyedFd, caller: &mut Caller<'_>) -> Result<Socket> {
    if let Some(tcp) = survey.tcp.get(&fd.ino) {
        return Ok(Socket::TcpListener {
            address: tcp.local.to_string(),
            // Of a listening socket, the length of its accept queue (net/ipv4/tcp_ipv4.c).
            backlog: tcp.tx_queue,
            options: socket_options(fd.number, tcp.local.is_ipv6(), true, caller)?,
        });
    }
    if let Some(udp) = survey.udp.get(&fd.ino) {
        return Ok(Socket::Udp {
            address: udp.local.to_string(),
            options: socket_options(fd.number, udp.local.is_ipv6(), false, caller)?,
        });
    }
    let unix = &survey.unix[&fd.ino];
    let kind = unix.kind;
    if unix.is_listener() {
        let address = unix.path.clone().unwrap_or_default();
        let at = format!("/proc/{}/root{address}", survey.pid);
        let mode = std::fs::metadata(at)
            .map_or(0o600, |meta| std::os::unix::fs::MetadataExt::mode(&meta) & 0o7777);
        return Ok(Socket::UnixListener { kind, address, mode });
    }
    debug_assert_eq!(unix.state, SS_CONNECTED, "others are refused");
    match caller.unix_peer(fd.ino)? {
        Some(peer) if survey.fds.iter().any(|other| other.ino == peer) => {
            Ok(Socket::UnixPair { kind, id: fd.ino, peer })
        }
        _ => Ok(Socket::UnixOrphan { kind }),
    }
}

/// The options of a socket that are worth keeping and differ from a fresh one's.
fn socket_options(
    fd: i32,
    v6: bool,
    stream: bool,
    caller: &mut Caller<'_>,
) -> Result<Vec<SocketOption>> {
    let sol = libc::SOL_SOCKET;
    let tcp = libc::IPPROTO_TCP;
    let mut asked = vec![
        (sol, libc::SO_REUSEADDR, 0),
        (sol, libc::SO_REUSEPORT, 0),
        (sol, libc::SO_KEEPALIVE, 0),
        (sol, libc::SO_BROADCAST, 0),
    ];
    if v6 {
        // A fresh socket's is 0 by /proc/sys/net/ipv6/bindv6only, which may be otherwise where the
        // image is restored: always kept.
        asked.push((libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, -1));
    }
    if stream {
        asked.push((tcp, libc::TCP_NODELAY, 0));
        asked.push((tcp, libc::TCP_DEFER_ACCEPT, 0));
    }
    let mut options = Vec::new();
    for (level, name, usual) in asked {
        if let Some(value) = caller.socket_option(fd, level, name)?
            && value != usual
        {
            options.push(SocketOption { level, name, value: value.to_ne_bytes().to_vec() });
        }
    }
    Ok(options)
}
