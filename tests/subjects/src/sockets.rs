//! Sockets that can be had again: listeners, unix pairs, and unbound or bound UDP.

use crate::stage::Stage;
use crate::sys;
use crate::thread;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

static ACCEPTING: AtomicU32 = AtomicU32::new(0);

/// Every kind of socket that an image may hold.
pub(crate) fn sockets(stage: &'static Stage) -> io::Result<()> {
    let v4 = TcpListener::bind("127.0.0.1:0")?;
    let v6 = TcpListener::bind("[::1]:0").ok();
    sys::set_socket_option(&v4, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    sys::set_socket_option(&v4, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    let addresses = [Some(v4.local_addr()?), v6.as_ref().and_then(|l| l.local_addr().ok())];
    let observed = v4.try_clone()?;
    let answering = thread::spawn(move || answer(&v4));
    if let Some(v6) = v6 {
        thread::spawn(move || answer(&v6));
    } else {
        crate::stage::say("skipped: this host has no IPv6 loopback");
    }
    // A connection that has come and gone, as any service that was warmed up has had.
    stage.same("answer before", &Some(*b"tub!"), &ask(stage, addresses[0]));

    let unix_path = stage.path("unix.sock");
    let unix = UnixListener::bind(&unix_path)?;
    let name = format!("tub-subject-{}-{}", std::process::id(), stage.path("").display());
    let abstract_name = UnixAddr::from_abstract_name(&name)?;
    let hidden = UnixListener::bind_addr(&abstract_name)?;

    let (left, right) = sys::socketpair(libc::SOCK_STREAM | libc::SOCK_NONBLOCK)?;
    let (left, right) = (File::from(left), File::from(right));
    let (packets, packets_peer) = sys::socketpair(libc::SOCK_SEQPACKET)?;
    let (packets, packets_peer) = (File::from(packets), File::from(packets_peer));
    // The JDK's marker for sockets being closed: a unix socket whose peer is gone.
    let (orphan, peer) = sys::socketpair(libc::SOCK_STREAM)?;
    let orphan = File::from(orphan);
    drop(peer);

    let udp = UdpSocket::bind("127.0.0.1:0")?;
    let udp_address = udp.local_addr()?;
    while ACCEPTING.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    thread::sleep(Duration::from_millis(30));

    stage.across()?;

    for address in addresses.into_iter().flatten() {
        stage.same(&format!("answer of {address}"), &Some(*b"tub!"), &ask(stage, Some(address)));
    }
    stage.same("address of the listener", &addresses[0], &observed.local_addr().ok());
    let option = |level, name| sys::socket_option(&observed, level, name).map_err(|e| e.kind());
    stage.same("SO_KEEPALIVE", &Ok(1), &option(libc::SOL_SOCKET, libc::SO_KEEPALIVE));
    stage.same("TCP_NODELAY", &Ok(1), &option(libc::IPPROTO_TCP, libc::TCP_NODELAY));
    stage.same("SO_ACCEPTCONN", &Ok(1), &option(libc::SOL_SOCKET, libc::SO_ACCEPTCONN));
    stage.holds("accepting thread goes on", !answering.is_finished());

    let mut client = UnixStream::connect(&unix_path)?;
    client.write_all(b"u")?;
    unix.accept()?.0.read_exact(&mut [0])?;
    let mut client = UnixStream::connect_addr(&abstract_name)?;
    client.write_all(b"a")?;
    hidden.accept()?.0.read_exact(&mut [0])?;

    let (mut left, mut right) = (left, right);
    let empty = left.read(&mut [0]).map_err(|error| error.raw_os_error());
    stage.same("O_NONBLOCK of a pair", &Err(Some(libc::EAGAIN)), &empty);
    left.write_all(b"over")?;
    let mut text = [0; 4];
    right.read_exact(&mut text)?;
    stage.same("through a pair", b"over", &text);
    let (mut packets, mut packets_peer) = (packets, packets_peer);
    packets.write_all(b"one")?;
    packets.write_all(b"four")?;
    stage.same("packet bounds", &3, &packets_peer.read(&mut [0; 16])?);
    drop(right);
    stage.same("end of file of a pair", &0, &left.read(&mut [0])?);
    stage.same("end of file of an orphan", &0, &(&orphan).read(&mut [0])?);

    stage.same("address of UDP", &Some(udp_address), &udp.local_addr().ok());
    udp.set_read_timeout(Some(Duration::from_secs(5)))?;
    UdpSocket::bind("127.0.0.1:0")?.send_to(b"datagram", udp_address)?;
    stage.same("datagram", &8, &udp.recv(&mut [0; 16])?);
    Ok(())
}

/// Answers whoever comes, until the process ends.
fn answer(listener: &TcpListener) {
    loop {
        ACCEPTING.fetch_add(1, Ordering::SeqCst);
        // accept(2) is restarted by the kernel; std tries again after EINTR.
        let Ok((mut stream, _)) = listener.accept() else { return };
        let _ = stream.write_all(b"tub!");
    }
}

fn ask(stage: &Stage, address: Option<SocketAddr>) -> Option<[u8; 4]> {
    let result = (|| {
        let address = address.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut text = [0; 4];
        stream.read_exact(&mut text)?;
        // The server closes first, so the client's end leaves no TIME_WAIT on its own port.
        Ok(text)
    })();
    stage.works("asking a listener", result)
}
