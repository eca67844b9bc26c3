//! Everything that /proc tells about a process, read at one go, frozen or not.
//!
//! In: a pid. Out: [`Survey`]. Invariant: reading changes nothing about the process.
//! Not here: what of it can be stored (see [`crate::refuse`]).

use crate::mapped::{Unmappable, tell_live_from_deleted, unmappable};
use crate::refuse::SECRET_MEMORY_REASON;
use crate::tree::Kin;
use crate::watched::Watched;
use crate::{Error, Refusal, RefusalKind, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::SFlag;
use nix::sys::statfs::{FsType, HUGETLBFS_MAGIC, statfs};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;
use tub_procfs::fdinfo::FdInfoRecord;
use tub_procfs::limits::LimitRecord;
use tub_procfs::net::{InetRecord, UnixRecord};
use tub_procfs::smaps::SmapsRecord;
use tub_procfs::stat::StatRecord;
use tub_procfs::status::StatusRecord;
use tub_procfs::timens::TimensOffsets;
use tub_procfs::timers::TimerRecord;
use tub_sys::{Common, UnixDiag};
use tub_units::{HostPid, NsPid};

/// What /proc says about a process.
#[derive(Debug)]
pub struct Survey {
    /// The process.
    pub pid: HostPid,
    /// `/proc/PID/status`.
    pub status: StatusRecord,
    /// `/proc/PID/stat`.
    pub stat: StatRecord,
    /// `/proc/PID/smaps`.
    pub mappings: Vec<SmapsRecord>,
    /// Paths of mapped files that could not be mapped again.
    pub unmappable: BTreeMap<String, Unmappable>,
    /// Threads, the main one first.
    pub threads: Vec<SurveyedThread>,
    /// Descriptors, ascending.
    pub fds: Vec<SurveyedFd>,
    /// Child processes of any of its threads.
    pub children: Vec<HostPid>,
    /// `/proc/PID/limits`.
    pub limits: Vec<LimitRecord>,
    /// `/proc/PID/timers`.
    pub timers: Vec<TimerRecord>,
    /// `/proc/PID/timens_offsets`.
    pub clock_offsets: TimensOffsets,
    /// Target of `/proc/PID/exe`.
    pub exe: String,
    /// Whether its program is 32-bit code.
    pub is_32_bit: bool,
    /// Target of `/proc/PID/cwd`.
    pub cwd: String,
    /// Whether that directory has no name any more.
    pub cwd_is_gone: bool,
    /// Whether its path leads to it; where nobody lets us look, it is taken to.
    pub cwd_is_there: bool,
    /// Target of `/proc/PID/root`.
    pub root: String,
    /// `/proc/PID/auxv`.
    pub auxv: Vec<u8>,
    /// `/proc/PID/personality`.
    pub personality: u32,
    /// `/proc/PID/oom_score_adj`.
    pub oom_score_adj: i32,
    /// TCP sockets of its network namespace, by inode.
    pub tcp: HashMap<u64, InetRecord>,
    /// UDP sockets, by inode.
    pub udp: HashMap<u64, InetRecord>,
    /// Unix sockets, by inode.
    pub unix: HashMap<u64, UnixRecord>,
    /// What the kernel's diagnosis says of unix sockets, by inode; empty where the process is in
    /// another network namespace, into which we cannot ask before it is frozen.
    pub unix_diag: HashMap<u64, UnixDiag>,
    /// Paths of what its inotify instances watch, as far as they were found.
    pub watched: Watched,
    /// Its namespaces: name, and what the link `/proc/PID/ns/NAME` says.
    pub namespaces: Vec<(&'static str, String)>,
    /// What it shares with the other members of its tree.
    pub kin: Kin,
}

/// The namespaces that all members of a tree are in together.
const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// A thread.
#[derive(Debug)]
pub struct SurveyedThread {
    /// Its id.
    pub tid: HostPid,
    /// `/proc/PID/task/TID/status`.
    pub status: StatusRecord,
    /// `/proc/PID/task/TID/stat`.
    pub stat: StatRecord,
    /// What it does not have in common with the main thread, as nearly all threads do.
    pub apart: Vec<&'static str>,
}

/// A descriptor.
#[derive(Debug)]
pub struct SurveyedFd {
    /// Its number.
    pub number: i32,
    /// Target of `/proc/PID/fd/N`.
    pub link: String,
    /// `st_mode`.
    pub mode: u32,
    /// `st_dev`.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
    /// `st_rdev`.
    pub rdev: u64,
    /// `st_size`.
    pub size_bytes: u64,
    /// `st_mtim` in nanoseconds.
    pub mtime_ns: i64,
    /// `st_nlink`.
    pub links: u64,
    /// Of a socket, the name of its protocol: `TCP`, `UNIX-STREAM`.
    pub protocol: Option<String>,
    /// Of a pipe: whether everybody has closed the other end.
    pub other_end_closed: bool,
    /// Of what has a path: whether that leads to it. `None` where nobody lets us look.
    pub found_by_path: Option<bool>,
    /// What is special about it, if it looks like a regular file and is none.
    pub no_file: Option<&'static str>,
    /// `/proc/PID/fdinfo/N`.
    pub info: FdInfoRecord,
}

impl Survey {
    /// The id of one of its threads, as the process itself sees it.
    pub(crate) fn inner_id(&self, tid: HostPid) -> NsPid {
        let thread = self.threads.iter().find(|thread| thread.tid == tid);
        let inner = thread.and_then(|thread| thread.status.ns_pid.last().copied());
        inner.unwrap_or(NsPid(tid.0))
    }
}

impl SurveyedFd {
    /// Whether `st_mode` is of that type.
    pub fn is(&self, kind: SFlag) -> bool {
        self.mode & SFlag::S_IFMT.bits() == kind.bits()
    }

    /// Whether it is of any type: kernel objects behind an anonymous inode are of none.
    pub fn is_inode(&self) -> bool {
        self.mode & SFlag::S_IFMT.bits() != 0
    }
}

/// Reads it all.
///
/// # Errors
///
/// [`Error::NoSuchProcess`], [`Error::NotOurs`], or what of /proc cannot be read.
pub fn survey(pid: HostPid) -> Result<Survey> {
    survey_knowing(pid, None)
}

/// Reads it all once more, with what took long to find at the first time.
pub(crate) fn survey_knowing(pid: HostPid, known: Option<&Watched>) -> Result<Survey> {
    let at = |name: &str| format!("/proc/{pid}/{name}");
    if !Path::new(&format!("/proc/{pid}")).exists() {
        return Err(Error::NoSuchProcess { pid });
    }
    // The first file that only the owner may read.
    let exe = link(&at("exe")).map_err(|error| match error {
        Error::Proc { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            Error::NotOurs { pid, source }
        }
        // A kernel thread has none, a zombie has none any more.
        Error::Proc { source, .. } if source.kind() == ErrorKind::NotFound => {
            if let Some(refusal) = without_main_thread(pid) {
                return Error::Refused { pid, refusals: vec![refusal], frozen: known.is_some() };
            }
            Error::NotOurs { pid, source }
        }
        other => other,
    })?;
    let status = parsed(&at("status"), tub_procfs::status::parse)?;
    // The kernel walks all page tables to tell of the mappings, which takes longer than all else.
    let rest = || Ok((threads(pid, known.is_none())?, fds(pid)?));
    let (mappings, rest) = side_by_side(|| mappings(pid), rest);
    let (mappings, ((threads, children), fds)) = (mappings?, rest?);
    let tcp = inet(&fds, "TCP", [&at("net/tcp"), &at("net/tcp6")], tub_procfs::net::parse_tcp)?;
    let udp = inet(&fds, "UDP", [&at("net/udp"), &at("net/udp6")], tub_procfs::net::parse_udp)?;
    // KERNEL: an accepted unix socket lives in the network namespace of the one who connected
    // (unix_stream_connect, net/unix/af_unix.c), and for the control socket that is us.
    let mut unix = parsed("/proc/self/net/unix", tub_procfs::net::parse_unix)?;
    unix.extend(parsed(&at("net/unix"), tub_procfs::net::parse_unix)?);
    let cwd = link(&at("cwd"))?;
    let there = fs::metadata(at("cwd")).ok().and_then(|meta| found_by_path(pid, &cwd, &meta));
    let cwd_is_there = there != Some(false);
    let watched = Watched::find(&fds, &mappings, &cwd, known);
    Ok(Survey {
        unix_diag: unix_diag(pid),
        watched,
        pid,
        stat: parsed(&at("stat"), tub_procfs::stat::parse)?,
        unmappable: unmappable(pid, &mappings),
        mappings,
        threads,
        children,
        limits: parsed(&at("limits"), tub_procfs::limits::parse)?,
        // Absent without CONFIG_POSIX_TIMERS or CONFIG_CHECKPOINT_RESTORE.
        timers: optional(parsed(&at("timers"), tub_procfs::timers::parse))?,
        clock_offsets: optional(parsed(&at("timens_offsets"), tub_procfs::timens::parse_offsets))?,
        exe,
        is_32_bit: is_32_bit(&at("exe")),
        cwd_is_gone: cwd.ends_with(" (deleted)") && !cwd_is_there,
        cwd_is_there,
        cwd,
        root: link(&at("root"))?,
        auxv: bytes(&at("auxv"))?,
        personality: u32::from_str_radix(&text(&at("personality"))?, 16).unwrap_or(0),
        oom_score_adj: text(&at("oom_score_adj"))?.parse().unwrap_or(0),
        tcp,
        udp,
        unix: unix.into_iter().map(|record| (record.inode, record)).collect(),
        // Absent where the kernel was built without that kind.
        namespaces: NAMESPACES
            .into_iter()
            .filter_map(|name| Some((name, link(&at(&format!("ns/{name}"))).ok()?)))
            .collect(),
        kin: Kin { stdio: standard_streams(&fds), ..Kin::default() },
        fds,
        status,
    })
}

/// Whether a program is 32-bit code, as its first bytes say (elf(5): ELFCLASS32).
fn is_32_bit(path: &str) -> bool {
    let mut start = [0; 5];
    let read = File::open(path).and_then(|mut program| program.read_exact(&mut start));
    read.is_ok() && start == *b"\x7fELF\x01"
}

/// A process whose main thread has ended (pthread_exit(3)) shows nothing of itself under its own id,
/// although its other threads go on.
fn without_main_thread(pid: HostPid) -> Option<Refusal> {
    let stat = parsed(&format!("/proc/{pid}/stat"), tub_procfs::stat::parse).ok()?;
    (stat.state == 'Z' && stat.threads > 1).then(|| Refusal {
        kind: RefusalKind::Process,
        fd: None,
        object: format!("main thread of process {pid} ({})", stat.comm),
        reason: "has ended, and others go on".to_owned(),
        remedy: "let it wait for them instead (pthread_join(3))".to_owned(),
    })
}

/// Does two things at the same time, or one after the other where no thread can be had.
pub(crate) fn side_by_side<A: Send, B>(
    one: impl Fn() -> A + Sync,
    other: impl FnOnce() -> B,
) -> (A, B) {
    let (beside, other) = tub_sys::beside("tub-beside", &one, |_| other());
    (beside.unwrap_or_else(|_| one()), other)
}

/// What threads nearly always have in common.
pub(crate) const COMMON: [(Common, &str); 2] = [
    (Common::Descriptors, "descriptors"),
    (Common::Directories, "root, working directory and umask"),
];

/// The threads, the main one first, and the children of all of them. To compare their namespaces takes
/// too long for a process that stands still.
fn threads(pid: HostPid, namespaces: bool) -> Result<(Vec<SurveyedThread>, Vec<HostPid>)> {
    let all_namespaces = |tid: i32| {
        let link = |name| link(&format!("/proc/{pid}/task/{tid}/ns/{name}")).ok();
        NAMESPACES.map(|name| link(name).filter(|_| namespaces))
    };
    let of_main = all_namespaces(pid.0);
    let mut threads = Vec::new();
    let mut children = Vec::new();
    for tid in numbers(&format!("/proc/{pid}/task"))? {
        let thread = |name: &str| format!("/proc/{pid}/task/{tid}/{name}");
        // A thread may end while we look; once frozen, none does.
        let mut read = || -> Result<SurveyedThread> {
            children.extend(parsed(&thread("children"), tub_procfs::children::parse)?);
            let status = parsed(&thread("status"), tub_procfs::status::parse)?;
            let stat = parsed(&thread("stat"), tub_procfs::stat::parse)?;
            let mut apart = Vec::new();
            if tid != pid.0 {
                // Default Docker and Podman forbid to ask.
                let differ = |what| tub_sys::in_common(pid, HostPid(tid), what) == Ok(false);
                apart
                    .extend(COMMON.iter().filter(|(what, _)| differ(*what)).map(|(_, name)| *name));
                if namespaces && all_namespaces(tid) != of_main {
                    apart.push("namespaces");
                }
            }
            Ok(SurveyedThread { tid: HostPid(tid), status, stat, apart })
        };
        match gone(read()) {
            Some(thread) => threads.push(thread?),
            None => continue,
        }
    }
    threads.sort_by_key(|thread| (thread.tid != pid, thread.tid));
    Ok((threads, children))
}

/// The descriptors, ascending.
fn fds(pid: HostPid) -> Result<Vec<SurveyedFd>> {
    let mut fds = Vec::new();
    for number in numbers(&format!("/proc/{pid}/fd"))? {
        if let Some(fd) = gone(surveyed_fd(pid, number)) {
            fds.push(fd?);
        }
    }
    fds.sort_by_key(|fd| fd.number);
    Ok(fds)
}

/// What the diagnosis says, where it speaks of the network namespace of the process.
fn unix_diag(pid: HostPid) -> HashMap<u64, UnixDiag> {
    let namespace = |who: String| fs::read_link(format!("/proc/{who}/ns/net")).ok();
    if namespace("self".to_owned()) != namespace(pid.to_string()) {
        return HashMap::new();
    }
    let sockets = tub_sys::sock_diag_socket().and_then(|fd| tub_sys::unix_sockets(fd.as_fd()));
    sockets.map_or_else(|_| HashMap::new(), |all| all.into_iter().collect())
}

/// How often the mappings of a running process are read before it is given up.
const MAPPINGS_ATTEMPTS: usize = 20;

/// `/proc/PID/smaps`.
///
/// KERNEL: the file is made piece by piece, and a running process changes its mappings in between
/// (proc_pid_maps(5)), so that a piece may go back behind the one before: seen with a JVM whose
/// heap had just grown. Then it is read once more. Once the process is frozen, the first attempt
/// succeeds.
pub(crate) fn mappings(pid: HostPid) -> Result<Vec<SmapsRecord>> {
    let path = format!("/proc/{pid}/smaps");
    let mut attempts = 1..MAPPINGS_ATTEMPTS;
    let mut mappings = loop {
        match parsed(&path, tub_procfs::smaps::parse) {
            Err(Error::Malformed { .. }) if attempts.next().is_some() => {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => break other?,
        }
    };
    for SmapsRecord { map, .. } in &mut mappings {
        tell_live_from_deleted(pid, map);
    }
    Ok(mappings)
}

/// What names the standard streams: device, inode and, of a device file, its number.
fn standard_streams(fds: &[SurveyedFd]) -> Vec<(u64, u64, u64)> {
    let standard = fds.iter().filter(|fd| fd.number <= 2);
    standard.map(|fd| (fd.dev, fd.ino, fd.rdev)).collect()
}

fn surveyed_fd(pid: HostPid, number: i32) -> Result<SurveyedFd> {
    let path = format!("/proc/{pid}/fd/{number}");
    let target = link(&path)?;
    let info = fdinfo(pid, number)?;
    let is_pipe = target.starts_with("pipe:");
    let other_end_closed = is_pipe && other_end_closed(pid, number, info.flags.cast_signed());
    let protocol = tub_sys::socket_protocol(&path).ok().filter(|_| target.starts_with("socket:"));
    let meta = match fs::metadata(&path) {
        Ok(meta) => meta,
        Err(source) => return Err(Error::Proc { path, source }),
    };
    let found_by_path = found_by_path(pid, &target, &meta);
    let may_be_none = meta.is_file() && found_by_path == Some(false);
    let no_file = may_be_none.then(|| no_file(&path)).flatten();
    Ok(SurveyedFd {
        protocol,
        other_end_closed,
        found_by_path,
        no_file,
        number,
        link: target,
        mode: meta.mode(),
        dev: meta.dev(),
        ino: meta.ino(),
        rdev: meta.rdev(),
        size_bytes: meta.size(),
        mtime_ns: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
        links: meta.nlink(),
        info,
    })
}

/// Whether the path of an open file leads to it, from the process's root. What else may be there:
/// nothing, where the kernel shows a name that is no path, another file, where something was mounted over
/// it, or nothing of that name, where it is no text.
fn found_by_path(pid: HostPid, path: &str, open: &fs::Metadata) -> Option<bool> {
    if !path.starts_with('/') {
        return None;
    }
    // A link is open only as itself (O_PATH), and no part of the kernel's path is one.
    match fs::symlink_metadata(format!("/proc/{pid}/root{path}")) {
        Ok(there) => Some((there.dev(), there.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
        Err(_) => Some(false),
    }
}

/// What something of a file system of the kernel's own is (linux/magic.h): memfd_create(2) with
/// MFD_HUGETLB, memfd_secret(2), mq_overview(7).
fn no_file(path: &str) -> Option<&'static str> {
    const SECRET_MEMORY: FsType = FsType(0x5345_434d);
    const MESSAGE_QUEUES: FsType = FsType(0x1980_0202);
    match statfs(path).ok()?.filesystem_type() {
        HUGETLBFS_MAGIC => Some("is on huge pages of a pool, which are not supported yet"),
        SECRET_MEMORY => Some(SECRET_MEMORY_REASON),
        MESSAGE_QUEUES => Some("is a POSIX message queue, which cannot be stored"),
        _ => None,
    }
}

/// `/proc/PID/fdinfo/N`.
pub(crate) fn fdinfo(pid: HostPid, number: i32) -> Result<FdInfoRecord> {
    parsed(&format!("/proc/{pid}/fdinfo/{number}"), tub_procfs::fdinfo::parse)
}

/// Whether everybody has closed the other end of a pipe. A description of our own on the same end
/// tells: reading hangs up where nobody writes, and opening for writing fails where nobody reads
/// (poll(2), fifo(7)).
fn other_end_closed(pid: HostPid, number: i32, flags: i32) -> bool {
    let writes = flags & libc::O_ACCMODE == libc::O_WRONLY;
    let opened = fs::File::options()
        .read(!writes)
        .write(writes)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(format!("/proc/{pid}/fd/{number}"));
    match opened {
        Err(error) => error.raw_os_error() == Some(libc::ENXIO),
        Ok(file) => {
            let mut polled = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
            poll(&mut polled, PollTimeout::ZERO).is_ok()
                && polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
        }
    }
}

/// `None` where the object has gone between being listed and being read.
fn gone<T>(result: Result<T>) -> Option<Result<T>> {
    match &result {
        Err(Error::Proc { source, .. })
            if source.kind() == ErrorKind::NotFound
                || source.raw_os_error() == Some(libc::ESRCH) =>
        {
            None
        }
        _ => Some(result),
    }
}

fn optional<T: Default>(result: Result<T>) -> Result<T> {
    gone(result).unwrap_or_else(|| Ok(T::default()))
}

/// The content of a file of /proc.
pub(crate) fn bytes(path: &str) -> Result<Vec<u8>> {
    // Such a file has no length that would tell how much to expect, and without room std begins with
    // 32 bytes: eight reads where two do. `take` keeps it from asking for the length.
    let mut content = Vec::with_capacity(PROC_BYTES);
    let read = File::open(path).and_then(|file| file.take(u64::MAX).read_to_end(&mut content));
    match read {
        Ok(_) => Ok(content),
        Err(source) => Err(Error::Proc { path: path.to_owned(), source }),
    }
}

/// Room for most files of /proc at once; the kernel hands out a page or two at a time.
const PROC_BYTES: usize = 16 << 10;

fn text(path: &str) -> Result<String> {
    Ok(String::from_utf8_lossy(&bytes(path)?).trim().to_owned())
}

pub(crate) fn link(path: &str) -> Result<String> {
    fs::read_link(path)
        .map(|target| target.to_string_lossy().into_owned())
        .map_err(|source| Error::Proc { path: path.to_owned(), source })
}

pub(crate) fn parsed<T>(path: &str, parse: fn(&[u8]) -> tub_procfs::Result<T>) -> Result<T> {
    parse(&bytes(path)?).map_err(|source| Error::Malformed { path: path.to_owned(), source })
}

/// What the kernel's tables of a protocol say of the process's own sockets, and of others that
/// stand in the same table; `tables` are that of IPv4 and that of IPv6.
///
/// A table is read only while a socket of the process has not been found. KERNEL: each read(2) of
/// `net/tcp` that gets to its end walks all buckets of the hash of connections (tcp_seek_last_pos,
/// net/ipv4/tcp_ipv4.c), which takes 2.5 ms where there are 2^18 of them, and the process is frozen.
fn inet(
    fds: &[SurveyedFd],
    protocol: &str,
    tables: [&str; 2],
    parse: fn(&[u8]) -> tub_procfs::Result<Vec<InetRecord>>,
) -> Result<HashMap<u64, InetRecord>> {
    // A socket whose protocol is not told may be anything.
    let speaks = |fd: &&SurveyedFd| {
        fd.is(SFlag::S_IFSOCK) && fd.protocol.as_ref().is_none_or(|name| name.contains(protocol))
    };
    let own: Vec<&SurveyedFd> = fds.iter().filter(speaks).collect();
    let is_v6 = |fd: &&SurveyedFd| fd.protocol.as_ref().is_some_and(|name| name.ends_with("v6"));
    let [v4, v6] = tables;
    let likely_first = if own.iter().any(is_v6) { [v6, v4] } else { [v4, v6] };
    let mut found = HashMap::new();
    for table in likely_first {
        // The other one, too, where one was made of the other family (IPV6_ADDRFORM, ipv6(7)), or
        // was never bound and stands in none.
        if own.iter().any(|fd| !found.contains_key(&fd.ino)) {
            let records = optional(parsed(table, parse))?;
            found.extend(records.into_iter().map(|record| (record.inode, record)));
        }
    }
    Ok(found)
}

pub(crate) fn numbers(path: &str) -> Result<Vec<i32>> {
    let listing =
        fs::read_dir(path).map_err(|source| Error::Proc { path: path.to_owned(), source })?;
    Ok(listing.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}
