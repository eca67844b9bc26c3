//! Which sockets stand in the way, and what a socket is called.
//!
//! In: a [`Survey`]. Out: what is wrong with a socket, in words. Pure.

use super::descriptor::holds_socket;
use crate::{Survey, SurveyedFd};

/// TCP states (net/tcp_states.h).
const TCP_LISTEN: u8 = 10;
/// `SS_*` of linux/net.h.
pub(super) const SS_CONNECTED: u8 = 3;

/// What becomes of TCP connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcpPolicy {
    /// They stand in the way.
    #[default]
    Refuse,
    /// They come back as sockets whose connection is over: reading gives the end, writing EPIPE.
    Close,
}

const CLOSE: &str = "close it before the checkpoint";

/// Why a socket cannot be stored, if it cannot, and what to do; as far as /proc tells.
pub(super) fn socket_problem(
    survey: &Survey,
    fd: &SurveyedFd,
    policy: TcpPolicy,
) -> Option<(String, &'static str, &'static str)> {
    let object = socket_name(survey, fd);
    if let Some(tcp) = survey.tcp.get(&fd.ino) {
        let remedy = "close it before the checkpoint, or use --tcp close";
        return (tcp.state != TCP_LISTEN && policy == TcpPolicy::Refuse).then_some((
            object,
            "is connected to a peer outside",
            remedy,
        ));
    }
    match fd.protocol.as_deref().unwrap_or_default() {
        "TCP" | "TCPv6" | "MPTCP" | "MPTCPv6" | "UDP" | "UDPv6" | "NETLINK" => None,
        "UNIX" | "UNIX-STREAM" => {
            if fd.info.scm_fds.unwrap_or(0) > 0 {
                return Some((
                    object,
                    "holds descriptors under way to whoever reads it",
                    "read it",
                ));
            }
            let diag = survey.unix_diag.get(&fd.ino)?;
            let outside = diag.peer.is_some_and(|peer| !holds_socket(survey, fd, peer));
            let datagram = survey.unix.get(&fd.ino).is_some_and(|unix| unix.kind == SOCK_DGRAM);
            let reason = "is connected to a socket of another process";
            // A datagram socket may have a peer with a name, to which it can be connected again.
            (outside && !datagram).then_some((object, reason, CLOSE))
        }
        _ => Some((object, "is of a family that cannot be stored", CLOSE)),
    }
}

/// linux/net.h.
const SOCK_DGRAM: i32 = 2;

/// A socket's address, for people.
pub(crate) fn socket_name(survey: &Survey, fd: &SurveyedFd) -> String {
    if let Some(tcp) = survey.tcp.get(&fd.ino) {
        return if tcp.state == TCP_LISTEN {
            format!("listening TCP socket on {}", tcp.local)
        } else {
            format!("TCP socket {} to {}", tcp.local, tcp.remote)
        };
    }
    if let Some(udp) = survey.udp.get(&fd.ino) {
        return format!("UDP socket {} to {}", udp.local, udp.remote);
    }
    match survey.unix.get(&fd.ino).map(|unix| (unix, &unix.path)) {
        Some((unix, Some(path))) if unix.is_listener() => {
            format!("listening unix socket on {path}")
        }
        Some((_, Some(path))) => format!("unix socket {path}"),
        Some((_, None)) => "unnamed unix socket".to_owned(),
        None => match &fd.protocol {
            Some(protocol) => format!("{protocol} socket"),
            None => fd.link.clone(),
        },
    }
}
