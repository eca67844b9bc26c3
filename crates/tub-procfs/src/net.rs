//! Parses `/proc/PID/net/{tcp,tcp6,udp,udp6,unix}`: the sockets of a network namespace.
//!
//! In: bytes. Out: one record a socket.
//! Invariant: none about order. The files list every socket of the namespace, not only the
//! process's; whoever looks one up does so by inode.

use crate::error::{Place, Result};
use crate::text::{Fields, lines, number};
use alloc::{string::String, vec::Vec};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A TCP or UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InetRecord {
    /// Own address. The scope of a link-local IPv6 address is not in the file.
    pub local: SocketAddr,
    /// The peer's; unspecified and port 0 where there is none.
    pub remote: SocketAddr,
    /// TCP state: 1 established, 7 closed (an unconnected UDP socket), 10 listening, ….
    pub state: u8,
    /// Bytes sent and not acknowledged. For a listener: 0.
    pub tx_queue: u32,
    /// Bytes received and not read. For a listener: connections not yet accepted.
    pub rx_queue: u32,
    /// Owner.
    pub uid: u32,
    /// Inode; 0 where no descriptor is left.
    pub inode: u64,
}

/// A unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixRecord {
    /// Inode.
    pub inode: u64,
    /// `SOCK_*`.
    pub kind: i32,
    /// 1 unconnected, 2 connecting, 3 connected, 4 disconnecting.
    pub state: u8,
    /// Bit 16 is set for a listener (`__SO_ACCEPTCON`).
    pub flags: u32,
    /// Path, or `@` and an abstract name, whose NUL bytes also appear as `@`. Bytes that are not
    /// UTF-8 are replaced.
    pub path: Option<String>,
}

impl UnixRecord {
    /// Whether it listens.
    pub const fn is_listener(&self) -> bool {
        self.flags & 1 << 16 != 0
    }
}

/// Parses `net/tcp` or `net/tcp6`.
///
/// # Errors
/// A line that is not as described in `proc_pid_net(5)`.
pub fn parse_tcp(bytes: &[u8]) -> Result<Vec<InetRecord>> {
    parse_inet("net/tcp", bytes)
}

/// Parses `net/udp` or `net/udp6`.
///
/// # Errors
/// A line that is not as described in `proc_pid_net(5)`.
pub fn parse_udp(bytes: &[u8]) -> Result<Vec<InetRecord>> {
    parse_inet("net/udp", bytes)
}

fn parse_inet(file: &'static str, bytes: &[u8]) -> Result<Vec<InetRecord>> {
    // The first line is a heading.
    lines(file, bytes).skip(1).map(|(place, line)| inet(place, line)).collect()
}

fn inet(place: Place, line: &[u8]) -> Result<InetRecord> {
    let mut fields = Fields::new(place, line);
    fields.until(b':', "sl")?;
    let mut address = |field| {
        let text = fields.next(field)?;
        parse_address(text).ok_or_else(|| place.malformed(field, text))
    };
    let (local, remote) = (address("local_address")?, address("remote_address")?);
    let state = fields.number(16, "st")?;
    let tx_queue = fields.until(b':', "tx_queue")?;
    let tx_queue = number(tx_queue, 16).ok_or_else(|| place.malformed("tx_queue", tx_queue))?;
    let rx_queue = fields.number(16, "rx_queue")?;
    fields.next("tr")?;
    fields.next("retrnsmt")?;
    let uid = fields.number(10, "uid")?;
    fields.next("timeout")?;
    let inode = fields.number(10, "inode")?;
    Ok(InetRecord { local, remote, state, tx_queue, rx_queue, uid, inode })
}

/// `0100007F:1F90`: each 32-bit word of the address as the host's number, the port in host order.
fn parse_address(text: &[u8]) -> Option<SocketAddr> {
    let colon = text.iter().position(|&byte| byte == b':')?;
    let (address, port) = (&text[..colon], number(&text[colon + 1..], 16)?);
    let word = |digits| Some(number::<u32>(digits, 16)?.to_ne_bytes());
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(address)?)),
        32 => {
            let mut octets = [0; 16];
            for (four, digits) in octets.chunks_exact_mut(4).zip(address.chunks_exact(8)) {
                four.copy_from_slice(&word(digits)?);
            }
            IpAddr::V6(Ipv6Addr::from(octets))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Parses `net/unix`.
///
/// A path may hold newlines, unescaped, and any user of the host can bind one: a line that is no
/// socket continues the path of the one before. A path can therefore fake sockets; it cannot
/// hide one.
///
/// # Errors
/// None today; the type leaves room for a kernel that prints something else.
pub fn parse_unix(bytes: &[u8]) -> Result<Vec<UnixRecord>> {
    let mut records: Vec<UnixRecord> = Vec::new();
    for (place, line) in lines("net/unix", bytes).skip(1) {
        match unix(place, line) {
            Ok(record) => records.push(record),
            Err(_) => {
                if let Some(path) = records.last_mut().and_then(|record| record.path.as_mut()) {
                    path.push('\n');
                    path.push_str(&String::from_utf8_lossy(line));
                }
            }
        }
    }
    Ok(records)
}

/// `0000000009c88d07: 00000002 00000000 00010000 0001 01  9655 /tmp/subject/a b.sock`
fn unix(place: Place, line: &[u8]) -> Result<UnixRecord> {
    let mut fields = Fields::new(place, line);
    fields.until(b':', "Num")?;
    fields.number::<u32>(16, "RefCount")?;
    fields.number::<u32>(16, "Protocol")?;
    let flags = fields.number(16, "Flags")?;
    let kind = fields.number(16, "Type")?;
    let state = fields.number(16, "St")?;
    let inode = fields.number(10, "Inode")?;
    let path = fields.rest();
    let path = (!path.is_empty()).then(|| String::from_utf8_lossy(path).into_owned());
    Ok(UnixRecord { inode, kind, state, flags, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! fixture {
        ($file:literal) => {
            include_bytes!(concat!("../../../tests/fixtures/proc/6.18/subject/net/", $file))
        };
    }

    #[test]
    fn tcp_with_a_listener_and_a_connection_with_unread_bytes() {
        for (file, loopback) in [(&fixture!("tcp")[..], "127.0.0.1"), (fixture!("tcp6"), "::1")] {
            let loopback: IpAddr = loopback.parse().unwrap();
            let sockets = parse_tcp(file).unwrap();
            let listener = sockets.iter().find(|s| s.state == 10 && s.local.ip() == loopback);
            let listener = listener.unwrap();
            assert_eq!(listener.remote.port(), 0);
            let unread = sockets.iter().find(|s| s.rx_queue == 6).unwrap();
            assert_eq!((unread.state, unread.local), (1, listener.local));
            assert!(sockets.iter().any(|s| s.local == unread.remote && s.inode != 0));
        }
    }

    #[test]
    fn udp() {
        let sockets = parse_udp(fixture!("udp")).unwrap();
        assert_eq!(sockets.len(), 1);
        assert_eq!(sockets[0].state, 7);
        assert!(sockets[0].local.ip().is_loopback() && sockets[0].remote.ip().is_unspecified());
        assert!(parse_udp(fixture!("udp6")).unwrap()[0].local.is_ipv6());
    }

    #[test]
    fn unix_with_a_blank_and_an_abstract_name() {
        let sockets = parse_unix(fixture!("unix")).unwrap();
        let named = |path| sockets.iter().find(|s| s.path.as_deref() == Some(path)).unwrap();
        assert!(named("/tmp/subject/a b.sock").is_listener());
        assert!(named("@tub-abstract").is_listener());
        assert!(sockets.iter().any(|s| s.state == 3 && s.path.is_none() && !s.is_listener()));
    }

    #[test]
    fn a_newline_in_a_path_hides_no_socket() {
        let line = "0000000009c88d07: 00000002 00000000 00010000 0001 01  7 /a\nb c\n";
        let mut text = alloc::string::String::from("Num\n");
        text.push_str(line);
        text.push_str("0000000009c88d07: 00000002 00000000 00010000 0001 01  8 /d\n");
        let sockets = parse_unix(text.as_bytes()).unwrap();
        assert_eq!(sockets.len(), 2);
        assert_eq!(sockets[0].path.as_deref(), Some("/a\nb c"));
        assert_eq!(sockets[1].inode, 8);
    }

    #[test]
    fn a_malformed_address_is_refused() {
        let line = "h\n 0: 0100007:E68B 00000000:0000 0A 0:0 00:0 0 0 0 1578 1\n";
        assert!(parse_tcp(line.as_bytes()).is_err());
        for end in 0..fixture!("tcp6").len() {
            let _ = parse_tcp(&fixture!("tcp6")[..end]);
        }
    }
}
