//! Sockets of the network without a connection: bound, fresh, listening, connected UDP, netlink.

use crate::stage::Stage;
use crate::sys;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

// linux/in.h, linux/tcp.h.
const IP_RECVORIGDSTADDR: i32 = 20;
const IP_MINTTL: i32 = 21;
const TCP_INQ: i32 = 36;

/// `inet`: one of each.
pub(crate) fn inet(stage: &'static Stage) -> io::Result<()> {
    let fresh = sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    sys::set_socket_option(&fresh, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 77)?;
    sys::set_socket_option(&fresh, libc::SOL_SOCKET, libc::SO_RCVBUF, 70_000)?;
    let room = sys::socket_option(&fresh, libc::SOL_SOCKET, libc::SO_RCVBUF)?;
    sys::set_socket_option(&fresh, libc::IPPROTO_TCP, TCP_INQ, 1)?;
    sys::set_socket_option(&fresh, libc::IPPROTO_IP, IP_MINTTL, 5)?;
    let bound = sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    sys::bind_loopback(&bound)?;
    let address = sys::local_address(&bound)?;

    let listener = sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    sys::set_socket_option(&listener, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    sys::set_socket_option(&listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 0)?;
    sys::bind_loopback(&listener)?;
    sys::listen(&listener, 7)?;
    let listener = TcpListener::from(listener);
    let backlog = sys::accept_queue(&listener)?;
    // A connection that nobody has accepted does not come back, and what listens does.
    drop(TcpStream::connect(listener.local_addr()?)?);
    let only_v6 = sys::socket(libc::AF_INET6, libc::SOCK_STREAM, 0).ok();
    if let Some(socket) = &only_v6 {
        sys::set_socket_option(socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }

    let server = UdpSocket::bind("127.0.0.1:0")?;
    let client = UdpSocket::bind("127.0.0.1:0")?;
    client.connect(server.local_addr()?)?;
    client.set_ttl(9)?;
    sys::set_socket_option(&client, libc::IPPROTO_IP, IP_RECVORIGDSTADDR, 1)?;
    let (server_address, client_address) = (server.local_addr()?, client.local_addr()?);
    let unbound = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    let netlink = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, 0)?;

    stage.across()?;

    let tcp = |socket: &OwnedFd, name| sys::socket_option(socket, libc::IPPROTO_TCP, name);
    stage.same("TCP_KEEPIDLE", &Some(77), &tcp(&fresh, libc::TCP_KEEPIDLE).ok());
    stage.same("TCP_INQ", &Some(1), &tcp(&fresh, TCP_INQ).ok());
    let ttl = sys::socket_option(&fresh, libc::IPPROTO_IP, IP_MINTTL)?;
    stage.same("IP_MINTTL", &5, &ttl);
    let found = sys::socket_option(&fresh, libc::SOL_SOCKET, libc::SO_RCVBUF)?;
    stage.same("SO_RCVBUF", &room, &found);
    stage.same("address of a bound socket", &address, &sys::local_address(&bound)?);
    sys::listen(&bound, 1)?;
    stage.holds("a bound socket can listen", answers(TcpListener::from(bound))?);

    stage.same("length of the accept queue", &backlog, &sys::accept_queue(&listener)?);
    let reuse = sys::socket_option(&listener, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    stage.same("SO_REUSEADDR", &1, &reuse);
    listener.set_nonblocking(true)?;
    while listener.accept().is_ok() {}
    listener.set_nonblocking(false)?;
    stage.holds("a listener answers", answers(listener)?);
    if let Some(socket) = &only_v6 {
        let only = sys::socket_option(socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)?;
        stage.same("IPV6_V6ONLY", &1, &only);
    }

    stage.same("address of UDP", &server_address, &server.local_addr()?);
    stage.same("address of connected UDP", &client_address, &client.local_addr()?);
    stage.same("whom it is connected to", &Some(server_address), &client.peer_addr().ok());
    stage.same("IP_TTL", &9, &client.ttl()?);
    let original = sys::socket_option(&client, libc::IPPROTO_IP, IP_RECVORIGDSTADDR)?;
    stage.same("IP_RECVORIGDSTADDR", &1, &original);
    server.set_read_timeout(Some(Duration::from_secs(5)))?;
    client.send(b"connected")?;
    let (bytes, from) = server.recv_from(&mut [0; 16])?;
    stage.same("datagram", &(9, client_address), &(bytes, from));
    UdpSocket::from(unbound).send_to(b"x", server_address)?;
    stage.same("datagram of an unbound socket", &1, &server.recv(&mut [0; 16])?);
    let domain = sys::socket_option(&netlink, libc::SOL_SOCKET, libc::SO_DOMAIN)?;
    stage.same("family of netlink", &libc::AF_NETLINK, &domain);
    Ok(())
}

fn answers(listener: TcpListener) -> io::Result<bool> {
    let mut caller = TcpStream::connect_timeout(&listener.local_addr()?, Duration::from_secs(5))?;
    listener.accept()?.0.write_all(b"tub!")?;
    let mut text = [0; 4];
    caller.read_exact(&mut text)?;
    Ok(&text == b"tub!")
}

/// `tcp-closed`: a connection, and what is left of it where that is the policy.
pub(crate) fn tcp_closed(stage: &'static Stage) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut here = TcpStream::connect(listener.local_addr()?)?;
    let (mut there, _) = listener.accept()?;

    stage.across()?;

    if !stage.promised(crate::stage::Promise::Restored) {
        here.write_all(b"alive")?;
        there.read_exact(&mut [0; 5])?;
        return Ok(());
    }
    for end in [&mut here, &mut there] {
        let peer = end.peer_addr().map_err(|error| error.kind());
        stage.same("peer", &Err(io::ErrorKind::NotConnected), &peer);
        let ready = sys::poll(end.as_fd(), libc::POLLIN | libc::POLLRDHUP, 0)?;
        stage.holds("the end can be waited for", ready & libc::POLLRDHUP != 0);
        stage.same("reading", &0, &end.read(&mut [0; 8])?);
        let written = end.write(b"x").map_err(|error| error.kind());
        stage.same("writing", &Err(io::ErrorKind::BrokenPipe), &written);
    }
    stage.holds("the listener answers", answers(listener)?);
    Ok(())
}
