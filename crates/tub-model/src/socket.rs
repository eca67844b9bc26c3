//! Sockets: what they are, and what it takes to have them again.

use alloc::{string::String, vec::Vec};

/// A socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Socket {
    /// A unix socket.
    Unix(UnixSocket),
    /// A TCP socket that has no connection. Connections not accepted yet are not part of it.
    Tcp {
        /// `IPPROTO_TCP` or `IPPROTO_MPTCP`.
        protocol: i32,
        /// Address and port, as `std::net::SocketAddr` prints them; port 0 where it is not bound.
        address: String,
        /// What it does.
        state: TcpState,
        /// Options that differ from a fresh socket's.
        options: Vec<SocketOption>,
    },
    /// A UDP socket. Datagrams not read yet are not part of it: the protocol may lose any.
    Udp {
        /// Address and port, as `std::net::SocketAddr` prints them; port 0 where it is not bound.
        address: String,
        /// Whom it is connected to, in the same form.
        peer: Option<String>,
        /// Options that differ from a fresh socket's.
        options: Vec<SocketOption>,
    },
    /// A netlink socket with nothing to read.
    Netlink {
        /// `SOCK_*`.
        kind: i32,
        /// `NETLINK_*`.
        protocol: i32,
        /// Its port; 0 where it is not bound.
        port: u32,
        /// Multicast groups, bit n-1 for group n.
        groups: u32,
        /// Options that differ from a fresh socket's.
        options: Vec<SocketOption>,
    },
}

/// What a TCP socket without a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// Nothing yet.
    Fresh,
    /// It listens.
    Listening {
        /// Length of the accept queue.
        backlog: u32,
    },
    /// Its connection is over: reading gives the end, writing EPIPE.
    Dead,
}

/// A unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSocket {
    /// `SOCK_*`.
    pub kind: i32,
    /// Its inode number.
    pub id: u64,
    /// What it is bound to.
    pub name: Option<UnixName>,
    /// What it is connected to.
    pub state: UnixState,
    /// What has been shut down: receiving 1, sending 2.
    pub shutdown: u8,
    /// Messages not read yet; of a stream one with all bytes.
    pub inbox: Vec<Vec<u8>>,
    /// Options that differ from a fresh socket's.
    pub options: Vec<SocketOption>,
}

/// What a unix socket is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixName {
    /// The path, or NUL and an abstract name.
    pub bytes: Vec<u8>,
    /// Its file, if it still was at its path.
    pub file: Option<SocketFile>,
}

/// The file of a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketFile {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What a unix socket is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnixState {
    /// Nothing.
    Unconnected,
    /// It listens.
    Listening {
        /// Length of the accept queue.
        backlog: u32,
    },
    /// To another socket of the image.
    Connected {
        /// Its inode number.
        peer: u64,
    },
    /// To a socket that has been closed: the JDK's pre-close marker is one.
    Orphan,
    /// A datagram socket, to one outside that has a name.
    Outside {
        /// The path, or NUL and an abstract name.
        name: Vec<u8>,
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
