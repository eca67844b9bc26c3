//! Which sockets stand in the way, and what a socket is called.
//!
//! In: a [`Survey`]. Out: what is wrong with a socket, in words. Pure.

use crate::{Survey, SurveyedFd};

/// TCP states (net/tcp_states.h).
const TCP_LISTEN: u8 = 10;
const TCP_CLOSE: u8 = 7;
/// `SS_*` of linux/net.h.
pub(super) const SS_CONNECTED: u8 = 3;

/// Why a socket cannot be stored, if it cannot.
pub(super) fn socket_problem(survey: &Survey, fd: &SurveyedFd) -> Option<(String, &'static str)> {
    let object = socket_name(survey, fd);
    if let Some(tcp) = survey.tcp.get(&fd.ino) {
        return (tcp.state != TCP_LISTEN).then_some((object, "is connected to a peer outside"));
    }
    if let Some(udp) = survey.udp.get(&fd.ino) {
        if udp.state != TCP_CLOSE {
            return Some((object, "is connected to a peer outside"));
        }
        return (udp.rx_queue > 0).then_some((object, "holds data not read yet"));
    }
    if let Some(unix) = survey.unix.get(&fd.ino) {
        if unix.is_listener() || unix.state == SS_CONNECTED && unix.path.is_none() {
            return None;
        }
        return Some((object, "is neither listening nor one of an unnamed pair"));
    }
    Some((object, "is of a family or state that cannot be stored"))
}

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
        None => fd.link.clone(),
    }
}
