//! Which ports of an image's sockets are taken on this host at the moment.
//!
//! In: an image. Out: sentences. Invariant: nothing listens and nothing is connected to: an address is
//! bound for an instant, as the restore would bind it, and given back.
//! Not here: reasons that stay (`verify`). Who owns a port now may have ended when it matters, and
//! `--pids keep` says nothing about networks.

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use tub_image::Image;
use tub_model::{FileKind, Socket, SocketOption, TcpState};

/// Every address that could not be bound now, and why.
pub(super) fn taken(image: &Image) -> Vec<String> {
    let sockets = image.checkpoint.files.iter().filter_map(|file| match &file.kind {
        FileKind::Socket(socket) => Some(socket),
        _ => None,
    });
    sockets
        .filter_map(|socket| match socket {
            Socket::Tcp { address, options, state: TcpState::Listening { .. }, .. } => {
                let why = cannot_bind(address, SockType::Stream, options)?;
                Some(format!("TCP address {address} {why}"))
            }
            // A port of 0 was never bound.
            Socket::Udp { address, options, .. } if !address.ends_with(":0") => {
                let why = cannot_bind(address, SockType::Datagram, options)?;
                Some(format!("UDP address {address} {why}"))
            }
            _ => None,
        })
        .collect()
}

fn cannot_bind(address: &str, kind: SockType, options: &[SocketOption]) -> Option<&'static str> {
    let address: SocketAddr = address.parse().ok()?;
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let probe = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).ok()?;
    // A listener of before may linger; only one that listens now is in the way.
    let has = |name: i32| options.iter().any(|option| (option.level, option.name) == (1, name));
    // asm-generic/socket.h: SO_REUSEADDR 2, SO_REUSEPORT 15.
    if kind == SockType::Stream || has(2) {
        let _ = setsockopt(&probe, sockopt::ReuseAddr, &true);
    }
    if has(15) {
        let _ = setsockopt(&probe, sockopt::ReusePort, &true);
    }
    // linux/in6.h: IPV6_V6ONLY 26; linux/in.h: IP_FREEBIND 15. Neither needs what the socket does without.
    let is_set = |level: i32, name: i32| {
        let found = options.iter().find(|option| (option.level, option.name) == (level, name));
        found.is_some_and(|option| option.value.iter().any(|&byte| byte != 0))
    };
    if address.is_ipv6() && is_set(41, 26) {
        let _ = setsockopt(&probe, sockopt::Ipv6V6Only, &true);
    }
    if is_set(0, 15) {
        let _ = setsockopt(&probe, sockopt::IpFreebind, &true);
    }
    match bind(probe.as_raw_fd(), &SockaddrStorage::from(address)) {
        Err(Errno::EADDRINUSE) => Some("is in use at the moment"),
        Err(Errno::EADDRNOTAVAIL) => Some("is not one of this host's"),
        Err(Errno::EACCES) => Some("may not be bound by this user"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_taken_while_somebody_listens_there() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let why = || cannot_bind(&address, SockType::Stream, &[]);
        assert_eq!(why(), Some("is in use at the moment"));
        drop(listener);
        assert_eq!(why(), None);
        let elsewhere = cannot_bind("192.0.2.1:80", SockType::Stream, &[]);
        assert_eq!(elsewhere, Some("is not one of this host's"));
        let free = SocketOption { level: 0, name: 15, value: vec![1, 0, 0, 0] };
        assert_eq!(cannot_bind("192.0.2.1:0", SockType::Stream, &[free]), None);
    }

    #[test]
    fn a_port_of_ipv4_is_not_in_the_way_of_a_socket_for_ipv6_only() {
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let address = format!("[::]:{}", listener.local_addr().unwrap().port());
        let only = SocketOption { level: 41, name: 26, value: vec![1, 0, 0, 0] };
        if std::net::TcpListener::bind("[::1]:0").is_err() {
            return std::println!("skipped: no IPv6 here");
        }
        assert_eq!(cannot_bind(&address, SockType::Stream, &[only]), None);
        let both = cannot_bind(&address, SockType::Stream, &[]);
        assert_eq!(both, Some("is in use at the moment"));
    }
}
