//! Unix sockets of every kind, with names, with what lies in them, half closed.

use crate::pattern;
use crate::stage::Stage;
use crate::sys;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

/// `unix`: streams, datagrams, packets.
pub(crate) fn unix(stage: &'static Stage) -> io::Result<()> {
    // Bytes under way in both directions, in the buffers of two sizes.
    let (mut left, mut right) = UnixStream::pair()?;
    sys::set_socket_option(&left, libc::SOL_SOCKET, libc::SO_SNDBUF, 100_000)?;
    let buffers = sys::socket_option(&left, libc::SOL_SOCKET, libc::SO_SNDBUF)?;
    left.write_all(&pattern::bytes(50_000, 60))?;
    right.write_all(b"back")?;
    right.set_read_timeout(Some(Duration::from_millis(2500)))?;
    // One that has said all it had to say.
    let (mut half, mut other_half) = UnixStream::pair()?;
    half.write_all(b"last words")?;
    half.shutdown(Shutdown::Write)?;
    // One whose peer has gone, with what it left.
    let (mut orphan, mut gone) = UnixStream::pair()?;
    gone.write_all(b"left behind")?;
    drop(gone);

    let (packets, packets_peer): (OwnedFd, OwnedFd) = sys::socketpair(libc::SOCK_SEQPACKET)?;
    let (mut packets, mut packets_peer) = (File::from(packets), File::from(packets_peer));
    packets.write_all(b"one")?;
    packets.write_all(b"three")?;
    // Packets that a peer left which has gone, an empty one among them; and one that has said all it had to say.
    let (packets_left, gone): (OwnedFd, OwnedFd) = sys::socketpair(libc::SOCK_SEQPACKET)?;
    let (mut packets_left, mut gone) = (File::from(packets_left), UnixStream::from(gone));
    for packet in [&b"first"[..], b"", b"third one"] {
        // Unlike write_all, this sends an empty one.
        stage.same("sending a packet", &packet.len(), &gone.write(packet)?);
    }
    drop(gone);
    let (half_packets, half_packets_peer) = sys::socketpair(libc::SOCK_SEQPACKET)?;
    let mut half_packets = UnixStream::from(half_packets);
    let mut half_packets_peer = File::from(half_packets_peer);
    half_packets.write_all(b"last")?;
    half_packets.shutdown(Shutdown::Write)?;
    let (datagrams, datagrams_peer) = UnixDatagram::pair()?;
    datagrams.send(b"first")?;
    datagrams.send(b"")?;
    datagrams.send(b"third")?;

    // A connection within the process, to a listening socket whose file has rights of its own.
    let path = stage.path("named.sock");
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o660))?;
    let mut caller = UnixStream::connect(&path)?;
    let (mut accepted, _) = listener.accept()?;
    caller.write_all(b"request")?;
    // The same with a name without a file.
    let name = format!("tub-unix-{}-{}", std::process::id(), stage.path("").display());
    let abstract_name = SocketAddr::from_abstract_name(&name)?;
    let hidden = UnixListener::bind_addr(&abstract_name)?;
    let mut hidden_caller = UnixStream::connect_addr(&abstract_name)?;
    let (mut hidden_accepted, _) = hidden.accept()?;
    hidden_accepted.write_all(b"reply")?;

    // A name that starts in the working directory.
    std::env::set_current_dir(stage.path(""))?;
    let near = UnixListener::bind("near.sock")?;

    // A datagram socket with a name, one that is connected to it, and one that is not.
    let inbox = UnixDatagram::bind(stage.path("inbox.sock"))?;
    let sender = UnixDatagram::unbound()?;
    sender.connect(stage.path("inbox.sock"))?;
    sender.send(b"waiting")?;
    let unbound = UnixDatagram::unbound()?;

    stage.across()?;

    let mut bytes = vec![0; 50_000];
    right.read_exact(&mut bytes)?;
    stage.holds("bytes under way", bytes == pattern::bytes(50_000, 60));
    let mut text = [0; 16];
    left.read_exact(&mut text[..4])?;
    stage.same("bytes the other way", &b"back"[..], &text[..4]);
    let found = sys::socket_option(&left, libc::SOL_SOCKET, libc::SO_SNDBUF)?;
    stage.same("SO_SNDBUF", &buffers, &found);
    stage.same("SO_RCVTIMEO", &Some(Duration::from_millis(2500)), &right.read_timeout()?);

    other_half.read_exact(&mut text[..10])?;
    stage.same("last words", &b"last words"[..], &text[..10]);
    stage.same("end after them", &0, &other_half.read(&mut text)?);
    other_half.write_all(b"but I go on")?;
    half.read_exact(&mut text[..11])?;
    stage.same("the open half", &b"but I go on"[..], &text[..11]);
    let closed = half.write(b"x").map_err(|error| error.kind());
    stage.same("the closed half", &Err(io::ErrorKind::BrokenPipe), &closed);
    orphan.read_exact(&mut text[..11])?;
    stage.same("what a peer left", &b"left behind"[..], &text[..11]);
    stage.same("its end", &0, &orphan.read(&mut text)?);

    stage.same("packet", &3, &packets_peer.read(&mut text)?);
    stage.same("next packet", &5, &packets_peer.read(&mut text)?);
    packets_peer.write_all(b"ok")?;
    stage.same("packet back", &2, &packets.read(&mut text)?);
    for expected in [5, 0, 9, 0, 0] {
        stage.same("packet of a peer that has gone", &expected, &packets_left.read(&mut text)?);
    }
    for expected in [4, 0, 0] {
        stage.same("packet before the end", &expected, &half_packets_peer.read(&mut text)?);
    }
    half_packets_peer.write_all(b"but I go on")?;
    stage.same("packet the other way", &11, &half_packets.read(&mut text)?);
    for expected in [5, 0, 5] {
        stage.same("datagram", &expected, &datagrams_peer.recv(&mut text)?);
    }

    accepted.read_exact(&mut text[..7])?;
    stage.same("through a named connection", &b"request"[..], &text[..7]);
    accepted.write_all(b"reply")?;
    caller.read_exact(&mut text[..5])?;
    stage.same("and back", &b"reply"[..], &text[..5]);
    let named =
        |stream: &UnixStream| stream.local_addr().ok()?.as_pathname().map(ToOwned::to_owned);
    stage.same("name of the accepted end", &Some(path.clone()), &named(&accepted));
    let peer = caller.peer_addr()?.as_pathname().map(ToOwned::to_owned);
    stage.same("name of the caller's peer", &Some(path.clone()), &peer);
    stage.same("rights of the file", &0o660, &(fs::metadata(&path)?.mode() & 0o777));
    let again = UnixStream::connect(&path)?;
    stage.holds("the listener listens", listener.accept().is_ok());
    drop(again);
    hidden_caller.read_exact(&mut text[..5])?;
    stage.same("through an abstract name", &b"reply"[..], &text[..5]);
    let hidden_name = hidden_accepted.local_addr()?;
    let hidden_name = hidden_name.as_abstract_name().map(<[u8]>::to_vec);
    stage.same("the abstract name", &Some(name.clone().into_bytes()), &hidden_name);
    let again = UnixStream::connect_addr(&abstract_name)?;
    stage.holds("the hidden listener listens", hidden.accept().is_ok());
    drop(again);

    let again = UnixStream::connect(stage.path("near.sock"))?;
    stage.holds("the listener near by listens", near.accept().is_ok());
    drop(again);

    inbox.set_read_timeout(Some(Duration::from_secs(5)))?;
    stage.same("datagram that waited", &7, &inbox.recv(&mut text)?);
    sender.send(b"connected")?;
    stage.same("through a connection", &9, &inbox.recv(&mut text)?);
    unbound.send_to(b"to a name", stage.path("inbox.sock"))?;
    stage.same("to a name", &9, &inbox.recv(&mut text)?);
    Ok(())
}
