//! Sockets.

use serde::{Deserialize, Serialize};
use tub_model::{Socket, SocketOption};

/// The order of the variants is part of the format.
#[derive(Serialize, Deserialize)]
pub(super) enum SocketRecord<'a> {
    UnixPair {
        kind: i32,
        id: u64,
        peer: u64,
    },
    UnixOrphan {
        kind: i32,
    },
    UnixListener {
        kind: i32,
        address: &'a str,
        mode: u32,
    },
    TcpListener {
        address: &'a str,
        backlog: u32,
        #[serde(borrow)]
        options: Vec<SocketOptionRecord<'a>>,
    },
    Udp {
        address: &'a str,
        #[serde(borrow)]
        options: Vec<SocketOptionRecord<'a>>,
    },
}

impl<'a> SocketRecord<'a> {
    pub(super) fn new(socket: &'a Socket) -> Self {
        let records = |options: &'a [SocketOption]| {
            options.iter().map(SocketOptionRecord::new).collect::<Vec<_>>()
        };
        match socket {
            Socket::UnixPair { kind, id, peer } => {
                Self::UnixPair { kind: *kind, id: *id, peer: *peer }
            }
            Socket::UnixOrphan { kind } => Self::UnixOrphan { kind: *kind },
            Socket::UnixListener { kind, address, mode } => {
                Self::UnixListener { kind: *kind, address, mode: *mode }
            }
            Socket::TcpListener { address, backlog, options } => {
                Self::TcpListener { address, backlog: *backlog, options: records(options) }
            }
            Socket::Udp { address, options } => Self::Udp { address, options: records(options) },
        }
    }

    pub(super) fn into_model(self) -> Socket {
        let model = |options: Vec<SocketOptionRecord<'_>>| {
            options.into_iter().map(SocketOptionRecord::into_model).collect::<Vec<_>>()
        };
        match self {
            Self::UnixPair { kind, id, peer } => Socket::UnixPair { kind, id, peer },
            Self::UnixOrphan { kind } => Socket::UnixOrphan { kind },
            Self::UnixListener { kind, address, mode } => {
                Socket::UnixListener { kind, address: address.into(), mode }
            }
            Self::TcpListener { address, backlog, options } => {
                Socket::TcpListener { address: address.into(), backlog, options: model(options) }
            }
            Self::Udp { address, options } => {
                Socket::Udp { address: address.into(), options: model(options) }
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct SocketOptionRecord<'a> {
    level: i32,
    name: i32,
    value: &'a [u8],
}

impl<'a> SocketOptionRecord<'a> {
    fn new(option: &'a SocketOption) -> Self {
        let SocketOption { level, name, value } = option;
        Self { level: *level, name: *name, value }
    }

    fn into_model(self) -> SocketOption {
        let Self { level, name, value } = self;
        SocketOption { level, name, value: value.to_vec() }
    }
}
