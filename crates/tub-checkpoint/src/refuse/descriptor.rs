//! Which descriptors stand in the way.
//!
//! In: a [`Survey`]. Out: a [`Refusal`] where a descriptor cannot be stored. Pure.
//! Not here: sockets (see [`super::socket`]).

use super::socket::socket_problem;
use super::{Refusal, RefusalKind};
use crate::{Survey, SurveyedFd};
use nix::sys::stat::SFlag;

pub(super) fn descriptor(survey: &Survey, fd: &SurveyedFd) -> Option<Refusal> {
    let refuse = |kind, object: String, reason: &str, remedy: &str| {
        Some(Refusal {
            kind,
            fd: Some(fd.number),
            object,
            reason: reason.to_owned(),
            remedy: remedy.to_owned(),
        })
    };
    let close = "close it before the checkpoint";
    if fd.is(SFlag::S_IFSOCK) {
        let (object, problem) = socket_problem(survey, fd)?;
        return refuse(RefusalKind::Socket, object, problem, close);
    }
    if fd.is(SFlag::S_IFIFO) {
        if !fd.link.starts_with("pipe:") {
            let object = format!("FIFO {}", fd.link);
            return refuse(RefusalKind::File, object, "is not supported yet", close);
        }
        let internal = fd.other_end_closed || other_end(survey, fd).is_some();
        if !internal && !shares_with_stdio(survey, fd) {
            let reason = "leads to another process";
            return refuse(RefusalKind::Resource, fd.link.clone(), reason, close);
        }
        return None;
    }
    if fd.info.locks > 0 {
        let reason = "is locked, which is not supported yet";
        return refuse(RefusalKind::File, fd.link.clone(), reason, "unlock it");
    }
    if fd.is(SFlag::S_IFREG) {
        if fd.link.starts_with("/memfd:") {
            let reason = "is a memory file, which is not supported yet";
            return refuse(RefusalKind::Resource, fd.link.clone(), reason, close);
        }
        if fd.links == 0 || fd.link.ends_with(" (deleted)") {
            let reason = "was deleted, so that it cannot be opened again";
            return refuse(RefusalKind::File, fd.link.clone(), reason, close);
        }
        if fd.link.starts_with("/proc/") {
            let reason = "is of this process or host only";
            return refuse(RefusalKind::File, fd.link.clone(), reason, close);
        }
        if i32::try_from(fd.info.flags).is_ok_and(|flags| flags & libc::O_PATH != 0) {
            let reason = "is open for its path only, which is not supported yet";
            return refuse(RefusalKind::File, fd.link.clone(), reason, close);
        }
        return None;
    }
    if fd.is(SFlag::S_IFDIR) {
        return None;
    }
    if fd.is(SFlag::S_IFCHR) {
        if shares_with_stdio(survey, fd) || STATELESS_DEVICES.contains(&fd.rdev) {
            return None;
        }
        let what = if fd.link.starts_with("/dev/pts/") || fd.link == "/dev/tty" {
            "is a terminal that is not a standard stream"
        } else {
            "is a device with a state that cannot be stored"
        };
        return refuse(RefusalKind::File, fd.link.clone(), what, close);
    }
    if fd.is(SFlag::S_IFBLK) {
        return refuse(RefusalKind::File, fd.link.clone(), "is a block device", close);
    }
    anonymous(survey, fd)
        .and_then(|reason| refuse(RefusalKind::Resource, fd.link.clone(), reason, close))
}

/// Why an `anon_inode:` cannot be stored, if it cannot.
fn anonymous(survey: &Survey, fd: &SurveyedFd) -> Option<&'static str> {
    match fd.link.as_str() {
        "anon_inode:[eventfd]" | "anon_inode:[timerfd]" | "anon_inode:[signalfd]" => None,
        "anon_inode:[eventpoll]" => {
            let open = |tfd| survey.fds.iter().any(|other| other.number == tfd);
            let stale = fd.info.epoll.iter().any(|target| !open(target.tfd));
            stale.then_some("is an epoll set that watches a descriptor closed since")
        }
        "anon_inode:inotify" => (!fd.info.inotify.is_empty())
            .then_some("is an inotify instance with watches, which is not supported yet"),
        "anon_inode:[io_uring]" => Some("is an io_uring, which the kernel cannot give back"),
        _ => Some("is a kernel object that cannot be stored"),
    }
}

/// Minor numbers of major 1: null 3, zero 5, full 7, random 8, urandom 9 (admin-guide/devices.txt).
const STATELESS_DEVICES: [u64; 5] = [0x103, 0x105, 0x107, 0x108, 0x109];

/// Whether a descriptor is the same file as one of the standard streams, which the restoring
/// process provides.
pub(crate) fn shares_with_stdio(survey: &Survey, fd: &SurveyedFd) -> bool {
    survey.fds.iter().any(|other| {
        other.number <= 2 && (other.dev, other.ino, other.rdev) == (fd.dev, fd.ino, fd.rdev)
    })
}

/// The other end of a pipe, if the process holds it.
pub(crate) fn other_end<'a>(survey: &'a Survey, fd: &SurveyedFd) -> Option<&'a SurveyedFd> {
    let mode = |fd: &SurveyedFd| fd.info.flags.cast_signed() & libc::O_ACCMODE;
    survey
        .fds
        .iter()
        .find(|other| (other.dev, other.ino) == (fd.dev, fd.ino) && mode(other) != mode(fd))
}
