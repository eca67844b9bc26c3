//! Which descriptors stand in the way.
//!
//! In: a [`Survey`]. Out: a [`Refusal`] where a descriptor cannot be stored. Pure.
//! Not here: sockets (see [`super::socket`]).

use super::socket::{TcpPolicy, socket_problem};
use super::{Refusal, RefusalKind};
use crate::memory_files::is_memory_file;
use crate::tree::KinFd;
use crate::{Survey, SurveyedFd};
use nix::sys::stat::SFlag;
use tub_procfs::fdinfo::{EpollRecord, InotifyRecord, LockKind};
use tub_procfs::maps::MapsRecord;
use tub_units::NsPid;

/// Largest content of deleted files that an image takes in, all of them together.
pub const DELETED_BYTES_MAX: u64 = 64 << 20;

/// Why a descriptor cannot be stored, if it cannot.
pub(crate) fn descriptor(
    survey: &Survey,
    fd: &SurveyedFd,
    tcp_policy: TcpPolicy,
) -> Option<Refusal> {
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
    let file = |reason| refuse(RefusalKind::File, fd.link.clone(), reason, close);
    if fd.info.locks.iter().any(|lock| lock.kind == LockKind::Lease) {
        let reason = "has a lease, which the kernel may break at any time";
        return refuse(RefusalKind::File, fd.link.clone(), reason, "give it up (F_UNLCK)");
    }
    if fd.info.flags.cast_signed() & libc::O_PATH != 0 {
        if is_deleted(fd) || !fd.link.starts_with('/') {
            return file("is open for its path only, and has none");
        }
        if !fd.link.starts_with("/proc/") {
            return astray(fd).and_then(file);
        }
        return kernel_file(survey, fd).is_none().then(|| file("is of another process")).flatten();
    }
    if fd.is(SFlag::S_IFSOCK) {
        let (object, problem, remedy) = socket_problem(survey, fd, tcp_policy)?;
        return refuse(RefusalKind::Socket, object, problem, remedy);
    }
    if fd.is(SFlag::S_IFIFO) {
        if !fd.link.starts_with("pipe:") {
            let deleted = is_deleted(fd).then_some("is a FIFO that was deleted");
            return deleted.or_else(|| astray(fd)).and_then(file);
        }
        let internal = fd.other_end_closed || has_other_end(survey, fd);
        if !internal && !shares_with_stdio(survey, fd) {
            let reason = "leads to another process";
            return refuse(RefusalKind::Resource, fd.link.clone(), reason, close);
        }
        return None;
    }
    if is_pidfd(fd) {
        return pidfd(survey, fd);
    }
    if !fd.is_inode() || fd.link.starts_with("anon_inode:") {
        return anonymous(survey, fd)
            .and_then(|reason| refuse(RefusalKind::Resource, fd.link.clone(), reason, close));
    }
    if fd.link.starts_with("/proc/") || fd.link.starts_with("/sys/") {
        return kernel_file(survey, fd)
            .is_none()
            .then(|| file("is of another process or changes this host"))
            .flatten();
    }
    if fd.is(SFlag::S_IFREG) {
        return regular(survey, fd).and_then(|(reason, remedy)| {
            refuse(RefusalKind::File, fd.link.clone(), &reason, remedy)
        });
    }
    if fd.is(SFlag::S_IFDIR) {
        let deleted = is_deleted(fd).then_some("is a directory that was deleted");
        return deleted.or_else(|| astray(fd)).and_then(file);
    }
    if fd.is(SFlag::S_IFCHR) {
        if shares_with_stdio(survey, fd)
            || is_controlling_terminal(survey, fd)
            || STATELESS_DEVICES.contains(&fd.rdev)
        {
            return None;
        }
        return file(if fd.link.starts_with("/dev/pts/") || fd.rdev == CONTROLLING_TERMINAL {
            "is a terminal other than that of the standard streams"
        } else {
            "is a device with a state that cannot be stored"
        });
    }
    file("is a block device")
}

/// Why a regular file cannot be stored, and what to do.
fn regular(survey: &Survey, fd: &SurveyedFd) -> Option<(String, &'static str)> {
    let close = "close it before the checkpoint";
    let because = |reason: &str| Some((reason.to_owned(), close));
    let mapped = |map: &MapsRecord| is_memory_file(map) && (map.dev, map.inode) == (fd.dev, fd.ino);
    if let Some(reason) = fd.no_file {
        return because(reason);
    }
    // The image brings along what lies in memory only.
    if fd.link.starts_with("/memfd:") || survey.mappings.iter().any(|record| mapped(&record.map)) {
        return None;
    }
    if !fd.link.starts_with('/') {
        return because("is a kernel object that cannot be stored");
    }
    if !is_deleted(fd) {
        return astray(fd).and_then(because);
    }
    if fd.links > 0 {
        return because(
            "was deleted, but the file has another name, which the kernel does not tell",
        );
    }
    let deleted = |fd: &&SurveyedFd| {
        fd.is(SFlag::S_IFREG) && is_deleted(fd) && !fd.link.starts_with("/memfd:")
    };
    let mut files: Vec<_> =
        survey.fds.iter().filter(deleted).map(|fd| (fd.dev, fd.ino, fd.size_bytes)).collect();
    files.sort_unstable();
    files.dedup();
    let total: u64 = files.iter().map(|file| file.2).sum();
    (total > DELETED_BYTES_MAX).then(|| {
        let reason = format!(
            "was deleted and has {} bytes; an image takes in deleted files of {DELETED_BYTES_MAX} \
             bytes in all, and the process has {total}",
            fd.size_bytes
        );
        (reason, close)
    })
}

/// Whether a file has no name any more: the kernel marks it by a suffix, which a live file may also bear,
/// and counts no links to it, which some file systems do for none (FUSE). What is there is there.
pub(crate) fn is_deleted(fd: &SurveyedFd) -> bool {
    fd.found_by_path != Some(true) && (fd.links == 0 || fd.link.ends_with(" (deleted)"))
}

/// Why something that is opened again by its path would not be found there, if it would not.
fn astray(fd: &SurveyedFd) -> Option<&'static str> {
    (fd.found_by_path == Some(false)).then(|| astray_reason(&fd.link))
}

/// Why `path` does not lead to what is open or mapped under that name.
pub(super) fn astray_reason(path: &str) -> &'static str {
    if path.contains(char::REPLACEMENT_CHARACTER) {
        "has a name that is no UTF-8, which an image cannot hold"
    } else {
        "is not what its path leads to, where something else was mounted since"
    }
}

/// How a file of the kernel's is called for whoever opens it again: files about the process itself,
/// and what everybody may read. `None` for all others, and for files that are none of the kernel's.
pub(crate) fn kernel_file(survey: &Survey, fd: &SurveyedFd) -> Option<String> {
    let reads = fd.info.flags.cast_signed() & libc::O_ACCMODE == libc::O_RDONLY;
    if is_deleted(fd) {
        return None;
    }
    if fd.link.starts_with("/sys/") {
        return reads.then(|| fd.link.clone());
    }
    let rest = fd.link.strip_prefix("/proc/")?;
    let (first, inside) = rest.split_once('/').unwrap_or((rest, ""));
    if let Ok(pid) = first.parse::<i32>() {
        let own = pid == survey.pid.0 || survey.status.ns_pid.iter().any(|own| own.0 == pid);
        // Its threads are not there yet when files are opened.
        let of_a_thread = inside.starts_with("task/");
        // They are opened by the process that becomes the main one.
        let opens_itself = !survey.kin.descendant;
        let path = if inside.is_empty() { "/proc/self" } else { &format!("/proc/self/{inside}") };
        return (own && !of_a_thread && opens_itself).then(|| path.to_owned());
    }
    reads.then(|| fd.link.clone())
}

/// Why an `anon_inode:` cannot be stored, if it cannot.
fn anonymous(survey: &Survey, fd: &SurveyedFd) -> Option<&'static str> {
    match fd.link.as_str() {
        "anon_inode:[eventfd]" | "anon_inode:[timerfd]" | "anon_inode:[signalfd]" => None,
        "anon_inode:[eventpoll]" => {
            let open = |target: &EpollRecord| holds(survey, target.ino);
            let stale = !fd.info.epoll.iter().all(open);
            stale.then_some("is an epoll set that watches what only other processes have open")
        }
        "anon_inode:inotify" => {
            let found = |watch: &InotifyRecord| survey.watched.path(watch.dev, watch.ino).is_some();
            let lost = !fd.info.inotify.iter().all(found);
            lost.then_some("is an inotify instance that watches a file whose path is not found")
        }
        "anon_inode:[io_uring]" => Some("is an io_uring, which the kernel cannot give back"),
        "anon_inode:[fanotify]" => Some("is a fanotify group, which needs privilege to restore"),
        "anon_inode:[userfaultfd]" => Some("is a userfaultfd, whose faults only it can answer"),
        "anon_inode:[perf_event]" => Some("is a performance counter, which cannot be stored"),
        link if link.starts_with("anon_inode:bpf") => Some("is a BPF object, kept by the kernel"),
        _ => Some("is a kernel object that cannot be stored"),
    }
}

/// Whether a descriptor names a process. KERNEL(since 5.3); the file system that they live on since
/// 6.9 (pidfs) shows them under the same name.
pub(crate) fn is_pidfd(fd: &SurveyedFd) -> bool {
    fd.link == "anon_inode:[pidfd]"
}

/// Whom a pidfd names, by the id that the process has for itself: `Some(None)` for one who has ended
/// and was waited for, `None` for whoever is no process of the tree.
pub(crate) fn named_by(survey: &Survey, fd: &SurveyedFd) -> Option<Option<NsPid>> {
    let pid = fd.info.pidfd?;
    let known = || survey.kin.processes.iter().find(|(known, _)| known.0 == pid);
    if pid == -1 { Some(None) } else { known().map(|&(_, inner)| Some(inner)) }
}

fn pidfd(survey: &Survey, fd: &SurveyedFd) -> Option<Refusal> {
    if named_by(survey, fd).is_some() {
        return None;
    }
    let refuse = |object: String, reason: &str| {
        Some(Refusal {
            kind: RefusalKind::Resource,
            fd: Some(fd.number),
            object,
            reason: reason.to_owned(),
            remedy: "close it before the checkpoint".to_owned(),
        })
    };
    let Some(pid) = fd.info.pidfd.filter(|pid| *pid > 0) else {
        return refuse("pidfd".to_owned(), "names a process that is not visible from here");
    };
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let object = format!("pidfd of {pid} ({})", name.trim());
    // KERNEL(since 6.9): PIDFD_THREAD, which is O_EXCL.
    let of_thread = fd.info.flags.cast_signed() & libc::O_EXCL != 0;
    let reason = if of_thread {
        "names a thread, which is not there yet when descriptors are restored"
    } else {
        "names a process that is not part of the tree"
    };
    refuse(object, reason)
}

/// Minor numbers of major 1: null 3, zero 5, full 7, random 8, urandom 9 (admin-guide/devices.txt).
const STATELESS_DEVICES: [u64; 5] = [0x103, 0x105, 0x107, 0x108, 0x109];

/// `/dev/tty` (admin-guide/devices.txt).
const CONTROLLING_TERMINAL: u64 = 0x500;

/// Whether a descriptor is the terminal of the standard streams under the name `/dev/tty`: which one
/// it stood for when it was opened is not told, and no session changes its terminal.
fn is_controlling_terminal(survey: &Survey, fd: &SurveyedFd) -> bool {
    let terminal = u64::from(survey.stat.tty_nr.cast_unsigned());
    fd.rdev == CONTROLLING_TERMINAL
        && terminal != 0
        && survey.kin.stdio.iter().any(|(_, _, rdev)| *rdev == terminal)
}

/// Whether a descriptor is the same file as one of the standard streams, which the restoring
/// process provides.
pub(crate) fn shares_with_stdio(survey: &Survey, fd: &SurveyedFd) -> bool {
    survey.kin.stdio.contains(&(fd.dev, fd.ino, fd.rdev))
}

/// Whether the process, or another one of its tree, holds something with that inode number.
pub(super) fn holds(survey: &Survey, ino: u64) -> bool {
    survey.fds.iter().any(|fd| fd.ino == ino)
        || survey.kin.descriptors.iter().any(|fd| fd.ino == ino)
}

/// The same of a socket that may have the number of somebody's file: all sockets are of one file system,
/// that of `like`.
pub(super) fn holds_socket(survey: &Survey, like: &SurveyedFd, ino: u64) -> bool {
    survey.fds.iter().any(|fd| (fd.dev, fd.ino) == (like.dev, ino))
        || survey.kin.descriptors.iter().any(|fd| (fd.dev, fd.ino) == (like.dev, ino))
}

/// Whether the process, or another one of its tree, holds the other end of a pipe.
pub(crate) fn has_other_end(survey: &Survey, fd: &SurveyedFd) -> bool {
    let own = survey.fds.iter().map(KinFd::new);
    own.chain(survey.kin.descriptors.iter().copied()).any(|other| other.is_other_end_of(fd))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tub_procfs::fdinfo::FdInfoRecord;

    #[test]
    fn what_its_path_leads_to_is_there_whatever_it_is_called_and_however_its_links_are_counted() {
        let fd = |link: &str, links, found_by_path| SurveyedFd {
            number: 3,
            link: link.to_owned(),
            mode: SFlag::S_IFREG.bits(),
            dev: 1,
            ino: 2,
            rdev: 0,
            size_bytes: 0,
            mtime_ns: 0,
            links,
            protocol: None,
            other_end_closed: false,
            found_by_path,
            no_file: None,
            info: FdInfoRecord::default(),
        };
        assert!(!is_deleted(&fd("/mnt/fuse/log", 0, Some(true))));
        assert!(!is_deleted(&fd("/a (deleted)", 1, Some(true))));
        assert!(!is_deleted(&fd("/a", 1, Some(true))));
        assert!(is_deleted(&fd("/a (deleted)", 0, Some(false))));
        assert!(is_deleted(&fd("/a (deleted)", 1, Some(false))));
        assert!(is_deleted(&fd("/a", 0, None)));
    }
}
