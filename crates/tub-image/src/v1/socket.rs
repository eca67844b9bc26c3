//! Sockets.

use serde::{Deserialize, Serialize};
use tub_model::{Socket, SocketFile, SocketOption, TcpState, UnixName, UnixSocket, UnixState};

/// The order of the variants is part of the format.
#[derive(Serialize, Deserialize)]
pub(super) enum SocketRecord<'a> {
    Unix {
        #[serde(borrow)]
        socket: UnixSocketRecord<'a>,
    },
    Tcp {
        protocol: i32,
        address: &'a str,
        state: TcpStateRecord,
        #[serde(borrow)]
        options: Vec<SocketOptionRecord<'a>>,
    },
    Udp {
        address: &'a str,
        peer: Option<&'a str>,
        #[serde(borrow)]
        options: Vec<SocketOptionRecord<'a>>,
    },
    Netlink {
        kind: i32,
        protocol: i32,
        port: u32,
        groups: u32,
        #[serde(borrow)]
        options: Vec<SocketOptionRecord<'a>>,
    },
}

impl<'a> SocketRecord<'a> {
    pub(super) fn new(socket: &'a Socket) -> Self {
        match socket {
            Socket::Unix(socket) => Self::Unix { socket: UnixSocketRecord::new(socket) },
            Socket::Tcp { protocol, address, state, options } => Self::Tcp {
                protocol: *protocol,
                address,
                state: TcpStateRecord::new(*state),
                options: records(options),
            },
            Socket::Udp { address, peer, options } => {
                Self::Udp { address, peer: peer.as_deref(), options: records(options) }
            }
            Socket::Netlink { kind, protocol, port, groups, options } => Self::Netlink {
                kind: *kind,
                protocol: *protocol,
                port: *port,
                groups: *groups,
                options: records(options),
            },
        }
    }

    pub(super) fn into_model(self) -> Socket {
        match self {
            Self::Unix { socket } => Socket::Unix(socket.into_model()),
            Self::Tcp { protocol, address, state, options } => Socket::Tcp {
                protocol,
                address: address.into(),
                state: state.into_model(),
                options: model(options),
            },
            Self::Udp { address, peer, options } => Socket::Udp {
                address: address.into(),
                peer: peer.map(Into::into),
                options: model(options),
            },
            Self::Netlink { kind, protocol, port, groups, options } => {
                Socket::Netlink { kind, protocol, port, groups, options: model(options) }
            }
        }
    }
}

fn records(options: &[SocketOption]) -> Vec<SocketOptionRecord<'_>> {
    options.iter().map(SocketOptionRecord::new).collect()
}

fn model(options: Vec<SocketOptionRecord<'_>>) -> Vec<SocketOption> {
    options.into_iter().map(SocketOptionRecord::into_model).collect()
}

/// The order of the variants is part of the format.
#[derive(Serialize, Deserialize)]
pub(super) enum TcpStateRecord {
    Fresh,
    Listening { backlog: u32 },
    Dead,
}

impl TcpStateRecord {
    fn new(state: TcpState) -> Self {
        match state {
            TcpState::Fresh => Self::Fresh,
            TcpState::Listening { backlog } => Self::Listening { backlog },
            TcpState::Dead => Self::Dead,
        }
    }

    fn into_model(self) -> TcpState {
        match self {
            Self::Fresh => TcpState::Fresh,
            Self::Listening { backlog } => TcpState::Listening { backlog },
            Self::Dead => TcpState::Dead,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct UnixSocketRecord<'a> {
    kind: i32,
    id: u64,
    #[serde(borrow)]
    name: Option<UnixNameRecord<'a>>,
    #[serde(borrow)]
    state: UnixStateRecord<'a>,
    shutdown: u8,
    #[serde(borrow)]
    inbox: Vec<&'a [u8]>,
    #[serde(borrow)]
    options: Vec<SocketOptionRecord<'a>>,
}

impl<'a> UnixSocketRecord<'a> {
    fn new(socket: &'a UnixSocket) -> Self {
        let UnixSocket { kind, id, name, state, shutdown, inbox, options } = socket;
        Self {
            kind: *kind,
            id: *id,
            name: name.as_ref().map(UnixNameRecord::new),
            state: UnixStateRecord::new(state),
            shutdown: *shutdown,
            inbox: inbox.iter().map(Vec::as_slice).collect(),
            options: records(options),
        }
    }

    fn into_model(self) -> UnixSocket {
        let Self { kind, id, name, state, shutdown, inbox, options } = self;
        UnixSocket {
            kind,
            id,
            name: name.map(UnixNameRecord::into_model),
            state: state.into_model(),
            shutdown,
            inbox: inbox.into_iter().map(<[u8]>::to_vec).collect(),
            options: model(options),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct UnixNameRecord<'a> {
    bytes: &'a [u8],
    /// Permission bits, owner, group.
    file: Option<(u32, u32, u32)>,
}

impl<'a> UnixNameRecord<'a> {
    fn new(name: &'a UnixName) -> Self {
        let UnixName { bytes, file } = name;
        Self { bytes, file: file.map(|SocketFile { mode, uid, gid }| (mode, uid, gid)) }
    }

    fn into_model(self) -> UnixName {
        let file = self.file.map(|(mode, uid, gid)| SocketFile { mode, uid, gid });
        UnixName { bytes: self.bytes.to_vec(), file }
    }
}

/// The order of the variants is part of the format.
#[derive(Serialize, Deserialize)]
enum UnixStateRecord<'a> {
    Unconnected,
    Listening { backlog: u32 },
    Connected { peer: u64 },
    Orphan,
    Outside { name: &'a [u8] },
}

impl<'a> UnixStateRecord<'a> {
    fn new(state: &'a UnixState) -> Self {
        match state {
            UnixState::Unconnected => Self::Unconnected,
            UnixState::Listening { backlog } => Self::Listening { backlog: *backlog },
            UnixState::Connected { peer } => Self::Connected { peer: *peer },
            UnixState::Orphan => Self::Orphan,
            UnixState::Outside { name } => Self::Outside { name },
        }
    }

    fn into_model(self) -> UnixState {
        match self {
            Self::Unconnected => UnixState::Unconnected,
            Self::Listening { backlog } => UnixState::Listening { backlog },
            Self::Connected { peer } => UnixState::Connected { peer },
            Self::Orphan => UnixState::Orphan,
            Self::Outside { name } => UnixState::Outside { name: name.to_vec() },
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
