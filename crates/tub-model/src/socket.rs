//! Sockets: what they are, and what it takes to have them again.

use alloc::{string::String, vec::Vec};

/// A socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Socket {
    /// One of two connected unnamed unix sockets, both in this task, with nothing under way.
    UnixPair {
        /// `SOCK_*`.
        kind: i32,
        /// Own inode number.
        id: u64,
        /// Inode number of the other one.
        peer: u64,
    },
    /// A unix socket whose peer has been closed: the JDK's pre-close marker.
    UnixOrphan {
        /// `SOCK_*`.
        kind: i32,
    },
    /// A listening unix socket.
    UnixListener {
        /// `SOCK_*`.
        kind: i32,
        /// Path, or `@` and an abstract name.
        address: String,
        /// Permission bits of the path.
        mode: u32,
    },
    /// A listening TCP socket.
    TcpListener {
        /// Address and port, as `std::net::SocketAddr` prints them.
        address: String,
        /// Length of the accept queue.
        backlog: u32,
        /// Options that differ from a fresh socket's.
        options: Vec<SocketOption>,
    },
    /// A UDP socket, bound or not, that is not connected and holds no data.
    Udp {
        /// Address and port, as `std::net::SocketAddr` prints them.
        address: String,
        /// Options that differ from a fresh socket's.
        options: Vec<SocketOption>,
    },
}

/// A socket option, verbatim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOption {
    /// `SOL_*` or `IPPROTO_*`.
    pub level: i32,
    /// `SO_*`, `TCP_*`, ….
    pub name: i32,
    /// Value bytes.
    pub value: Vec<u8>,
}
