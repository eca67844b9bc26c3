//! What stands in the way of a checkpoint, all of it at once.
//!
//! In: a [`Survey`], the application's policy. Out: [`Refusal`]s. Pure.
//! Invariant: whatever `collect` cannot store is named here; `collect` relies on it.

use crate::{Survey, SurveyedFd};
use nix::sys::stat::SFlag;
use std::fmt;
use tub_procfs::smaps::SmapsRecord;

/// One thing that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of object it is.
    pub kind: RefusalKind,
    /// Its descriptor, if it has one.
    pub fd: Option<i32>,
    /// Which object: a path, an address.
    pub object: String,
    /// Why it stands in the way.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

/// What kind of object stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// Something of the process as a whole.
    Process,
    /// A mapping.
    Memory,
    /// A file.
    File,
    /// A socket.
    Socket,
    /// Another descriptor.
    Resource,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fd) = self.fd {
            write!(f, "descriptor {fd}: ")?;
        }
        write!(f, "{} {}", self.object, self.reason)?;
        if !self.remedy.is_empty() {
            write!(f, " ({})", self.remedy)?;
        }
        Ok(())
    }
}

/// Which of its descriptors the application may leave open.
#[derive(Clone, Debug, Default)]
pub struct OpenPolicy {
    /// Descriptors that the runtime says are its own: the application never opened them.
    pub private_fds: Vec<i32>,
    /// Files and directories that may stay open.
    pub allowed_paths: Vec<String>,
}

/// The descriptors over which a process and the engine talk (`docs/control-protocol.md`). It closes
/// them before the image is taken, so they stand in nobody's way.
pub fn control_sockets(survey: &Survey) -> Vec<i32> {
    let is_control = |fd: &&SurveyedFd| {
        let path = survey.unix.get(&fd.ino).and_then(|unix| unix.path.as_deref());
        let mut parts = path.unwrap_or_default().rsplit('/');
        parts.next().is_some_and(|name| name.ends_with(".sock"))
            && parts
                .next()
                .and_then(|dir| dir.strip_prefix("tub-"))
                .is_some_and(|uid| !uid.is_empty() && uid.bytes().all(|byte| byte.is_ascii_digit()))
    };
    survey.fds.iter().filter(is_control).map(|fd| fd.number).collect()
}

/// What the engine cannot store, whoever opened it. `closing` are descriptors that will be gone.
pub fn unsupported(survey: &Survey, closing: &[i32]) -> Vec<Refusal> {
    let mut all = Vec::new();
    process(survey, &mut all);
    for mapping in &survey.mappings {
        all.extend(memory(mapping));
    }
    for fd in &survey.fds {
        if fd.number > 2 && !closing.contains(&fd.number) {
            all.extend(descriptor(survey, fd));
        }
    }
    all
}

fn process(survey: &Survey, all: &mut Vec<Refusal>) {
    let mut refuse = |object: String, reason: &str, remedy: &str| {
        all.push(Refusal {
            kind: RefusalKind::Process,
            fd: None,
            object,
            reason: reason.to_owned(),
            remedy: remedy.to_owned(),
        });
    };
    for child in &survey.children {
        let name = std::fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
        refuse(
            format!("child process {child} ({})", name.trim()),
            "would be left behind: process trees are not supported yet",
            "let it end first",
        );
    }
    let status = &survey.status;
    if "TZX".contains(status.state) {
        let what = if status.state == 'T' { "is stopped" } else { "has ended" };
        refuse(format!("process {}", survey.pid), what, "send it SIGCONT if it is stopped");
    }
    if status.seccomp.is_some_and(|mode| mode != 0) {
        let own = std::fs::read("/proc/self/status").ok();
        let own = own.and_then(|bytes| tub_procfs::status::parse(&bytes).ok());
        let same = own.is_some_and(|own| {
            own.seccomp == status.seccomp && own.seccomp_filters == status.seccomp_filters
        });
        if !same {
            refuse(
                "seccomp filter".to_owned(),
                "of its own cannot be stored yet",
                "start it without one, or run tub under the same filter",
            );
        }
    }
    if survey.root != "/" {
        refuse(format!("root directory {}", survey.root), "is not /", "run tub inside of it");
    }
}

fn memory(mapping: &SmapsRecord) -> Option<Refusal> {
    let map = &mapping.map;
    let name = map.path.as_deref().unwrap_or("");
    let flags = &mapping.vm_flags;
    let hsperf = name.contains("/hsperfdata_") || name.starts_with("/memfd:tub-scratch");
    let (reason, remedy) = if flags.has("ht") {
        ("is on huge pages of a pool, which are not supported yet", "")
    } else if flags.has("io") || flags.has("pf") {
        if name.starts_with("[v") {
            return None;
        }
        ("maps a device", "close the device before the checkpoint")
    } else if flags.has("ss") {
        ("is a shadow stack, which is not supported yet", "")
    } else if flags.has("um") || flags.has("uw") {
        ("is registered with userfaultfd", "")
    } else if flags.has("lo") {
        ("is locked, which is not supported yet", "unlock it before the checkpoint")
    } else if name.starts_with("/SYSV") {
        ("is System V shared memory", "detach it before the checkpoint")
    } else if name == "/[aio]" || name == "[uprobes]" || name.starts_with("anon_inode:") {
        ("belongs to a kernel object that cannot be stored", "close it before the checkpoint")
    } else if map.perms.shared && !hsperf && (name.starts_with("/memfd:") || name == "/dev/zero") {
        ("is shared anonymous memory, which is not supported yet", "unmap it before the checkpoint")
    } else if map.perms.shared && map.deleted && !hsperf {
        ("is a shared mapping of a deleted file", "unmap it before the checkpoint")
    } else {
        return None;
    };
    Some(Refusal {
        kind: RefusalKind::Memory,
        fd: None,
        object: format!("mapping {} {name}", map.range),
        reason: reason.to_owned(),
        remedy: remedy.to_owned(),
    })
}

fn descriptor(survey: &Survey, fd: &SurveyedFd) -> Option<Refusal> {
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

/// TCP states (net/tcp_states.h).
const TCP_LISTEN: u8 = 10;
const TCP_CLOSE: u8 = 7;
/// `SS_*` of linux/net.h.
const SS_CONNECTED: u8 = 3;

/// Why a socket cannot be stored, if it cannot.
fn socket_problem(survey: &Survey, fd: &SurveyedFd) -> Option<(String, &'static str)> {
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

/// What the application left open and a CRaC JDK would complain of: files and sockets that are not
/// the runtime's own. Everything private to the JDK stays: selectors, random devices, read-only
/// jars, the pre-close marker, the attach listener.
pub fn application_open(survey: &Survey, policy: &OpenPolicy) -> Vec<Refusal> {
    let closing = control_sockets(survey);
    survey
        .fds
        .iter()
        .filter(|fd| fd.number > 2 && !closing.contains(&fd.number))
        .filter(|fd| !policy.private_fds.contains(&fd.number))
        .filter(|fd| !shares_with_stdio(survey, fd))
        .filter_map(|fd| {
            let (kind, object) = opened_by_application(survey, fd, policy)?;
            Some(Refusal {
                kind,
                fd: Some(fd.number),
                object,
                reason: "was left open by the application".to_owned(),
                remedy: "close it in beforeCheckpoint, or run with --open restore".to_owned(),
            })
        })
        .collect()
}

fn opened_by_application(
    survey: &Survey,
    fd: &SurveyedFd,
    policy: &OpenPolicy,
) -> Option<(RefusalKind, String)> {
    if fd.is(SFlag::S_IFSOCK) {
        let unix = survey.unix.get(&fd.ino);
        let private = unix.is_some_and(|unix| match &unix.path {
            // The JDK's pre-close marker, and the pair by which a WatchService is woken.
            None => unix.state == SS_CONNECTED,
            // The attach listener (jcmd): its name is made of the process id.
            Some(path) => path.rsplit('/').next().is_some_and(|name| name.starts_with(".java_pid")),
        });
        return (!private).then(|| (RefusalKind::Socket, socket_name(survey, fd)));
    }
    if fd.is(SFlag::S_IFREG) || fd.is(SFlag::S_IFDIR) {
        let read_only = fd.info.flags.cast_signed() & libc::O_ACCMODE == libc::O_RDONLY;
        let archive = [".jar", ".jmod", ".war", ".zip"].iter().any(|end| fd.link.ends_with(end));
        let allowed = policy.allowed_paths.iter().any(|path| {
            fd.link
                .strip_prefix(path.trim_end_matches('/'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        let private = allowed || read_only && archive;
        return (!private).then(|| (RefusalKind::File, fd.link.clone()));
    }
    if fd.is(SFlag::S_IFIFO) {
        return Some((RefusalKind::Resource, fd.link.clone()));
    }
    None
}
