//! Descriptors: from what /proc and the process itself say to the model.
//!
//! In: the survey of a frozen process, and calls made by it. Out: descriptions and descriptors.
//! Invariant: descriptors that share a description name the same one.
//! Not here: what is refused (see [`crate::refuse`]); whatever comes here has passed it.

use crate::collect::Caller;
use crate::refuse::{other_end, shares_with_stdio};
use crate::survey::fdinfo;
use crate::{Error, Result, Survey, SurveyedFd};
use nix::sys::stat::SFlag;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use tub_model::{EpollTarget, Fd, FileIdentity, FileKind, OpenFile, Socket, SocketOption};
use tub_units::{FdNumber, HostPid};

/// All descriptors of the process.
pub(crate) fn collect(
    survey: &Survey,
    caller: &mut Caller<'_>,
) -> Result<(Vec<OpenFile>, Vec<Fd>)> {
    let mut files = Vec::new();
    let mut fds: Vec<Fd> = Vec::new();
    let mut firsts: Vec<(usize, &SurveyedFd)> = Vec::new();
    for fd in &survey.fds {
        let shared = firsts.iter().find(|(_, first)| same_description(survey.pid, first, fd));
        let file = match shared {
            Some((index, _)) => *index,
            None => {
                files.push(open_file(survey, fd, caller)?);
                firsts.push((files.len() - 1, fd));
                files.len() - 1
            }
        };
        let close_on_exec = fd.info.flags.cast_signed() & libc::O_CLOEXEC != 0;
        fds.push(Fd { number: FdNumber(fd.number), close_on_exec, file });
    }
    Ok((files, fds))
}

/// Whether two descriptors share a description. Only those that look alike are worth asking about;
/// where kcmp is forbidden (default Docker), those that look alike and are standard streams are
/// taken for shared, and all others for separate.
fn same_description(pid: HostPid, a: &SurveyedFd, b: &SurveyedFd) -> bool {
    let mask = !libc::O_CLOEXEC;
    let look = |fd: &SurveyedFd| {
        (fd.dev, fd.ino, fd.rdev, fd.info.pos, fd.info.flags.cast_signed() & mask)
    };
    look(a) == look(b)
        && tub_sys::same_description(pid, a.number, b.number).unwrap_or(a.number <= 2)
}

fn open_file(survey: &Survey, fd: &SurveyedFd, caller: &mut Caller<'_>) -> Result<OpenFile> {
    let flags = fd.info.flags.cast_signed() & !libc::O_CLOEXEC;
    let info = &fd.info;
    let path = || fd.link.clone();
    let kind = if fd.is(SFlag::S_IFSOCK) {
        FileKind::Socket(socket(survey, fd, caller)?)
    } else if fd.is(SFlag::S_IFIFO) {
        pipe(survey, fd)?
    } else if fd.is(SFlag::S_IFREG) {
        let file = FileIdentity {
            path: path(),
            dev: fd.dev,
            ino: fd.ino,
            size_bytes: fd.size_bytes,
            mtime_ns: fd.mtime_ns,
        };
        FileKind::Regular { file, offset_bytes: info.pos }
    } else if fd.is(SFlag::S_IFDIR) {
        FileKind::Directory { path: path(), offset_bytes: info.pos }
    } else if fd.is(SFlag::S_IFCHR) {
        // Major 1 is the memory devices; everything else that gets here is a standard stream.
        if fd.rdev >> 8 == 1 {
            FileKind::Device { path: path() }
        } else {
            FileKind::Terminal { path: path() }
        }
    } else if let Some(eventfd) = info.eventfd {
        let semaphore = eventfd.semaphore.unwrap_or(false);
        FileKind::EventFd { count: eventfd.count, semaphore }
    } else if info.timerfd.is_some_and(|timer| timer.interval_ns > 0) {
        periodic_timer(survey.pid, fd.number, caller)?
    } else if let Some(timer) = info.timerfd {
        FileKind::TimerFd {
            clock: timer.clock,
            ticks: timer.ticks,
            settime_flags: timer.settime_flags.cast_signed(),
            value_ns: timer.value_ns,
            interval_ns: timer.interval_ns,
        }
    } else if let Some(mask) = info.sigmask {
        FileKind::SignalFd { mask }
    } else if fd.link == "anon_inode:inotify" {
        FileKind::Inotify { watches: Vec::new() }
    } else {
        let target = |record: &tub_procfs::fdinfo::EpollRecord| EpollTarget {
            fd: FdNumber(record.tfd),
            events: record.events,
            data: record.data,
        };
        FileKind::Epoll { targets: info.epoll.iter().map(target).collect() }
    };
    Ok(OpenFile { flags, kind })
}

/// A periodic timerfd that has expired is only armed again when it is read, and shows no remaining
/// time until then. Asking for its time arms it, and changes nothing that a reader could notice
/// (KERNEL: do_timerfd_gettime, fs/timerfd.c).
fn periodic_timer(pid: HostPid, number: i32, caller: &mut Caller<'_>) -> Result<FileKind> {
    let (value_ns, interval_ns) = caller.timerfd_time(number)?;
    let info = fdinfo(pid, number)?;
    let timer = info.timerfd.unwrap_or_default();
    Ok(FileKind::TimerFd {
        clock: timer.clock,
        ticks: timer.ticks,
        settime_flags: timer.settime_flags.cast_signed(),
        value_ns,
        interval_ns,
    })
}

fn pipe(survey: &Survey, fd: &SurveyedFd) -> Result<FileKind> {
    let write_end = fd.info.flags.cast_signed() & libc::O_ACCMODE == libc::O_WRONLY;
    let internal = fd.other_end_closed || other_end(survey, fd).is_some();
    let both_ends = internal && !shares_with_stdio(survey, fd);
    let (capacity_bytes, content) =
        if both_ends { pipe_content(survey.pid, fd, !write_end)? } else { (0, Vec::new()) };
    Ok(FileKind::Pipe { id: fd.ino, write_end, capacity_bytes, content, both_ends })
}

/// Capacity and, if asked for, content of a pipe, which is left as it is: opening the link gives a
/// description of our own on the same pipe, and tee(2) copies without taking.
fn pipe_content(pid: HostPid, fd: &SurveyedFd, content: bool) -> Result<(u32, Vec<u8>)> {
    let path = format!("/proc/{pid}/fd/{}", fd.number);
    let failed = |source| Error::Proc { path: path.clone(), source };
    let ours = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(&path)
        .map_err(failed)?;
    let capacity = tub_sys::pipe_capacity(ours.as_fd()).map_err(|errno| failed(errno.into()))?;
    if !content {
        return Ok((capacity, Vec::new()));
    }
    let (mut copy, sink) = std::io::pipe().map_err(failed)?;
    let _ = tub_sys::set_pipe_capacity(sink.as_raw_fd(), capacity);
    let mut bytes = Vec::new();
    match tub_sys::tee(ours.as_fd(), sink.as_fd(), capacity as usize) {
        Ok(got) => {
            bytes.resize(got, 0);
            copy.read_exact(&mut bytes).map_err(failed)?;
        }
        Err(tub_sys::Errno::EAGAIN) => {}
        Err(errno) => return Err(failed(errno.into())),
    }
    Ok((capacity, bytes))
}

/// linux/net.h: SS_CONNECTED.
const SS_CONNECTED: u8 = 3;

fn socket(survey: &Survey, fd: &SurveyedFd, caller: &mut Caller<'_>) -> Result<Socket> {
    if let Some(tcp) = survey.tcp.get(&fd.ino) {
        return Ok(Socket::TcpListener {
            address: tcp.local.to_string(),
            // Of a listening socket, the length of its accept queue (net/ipv4/tcp_ipv4.c).
            backlog: tcp.tx_queue,
            options: socket_options(fd.number, tcp.local.is_ipv6(), true, caller)?,
        });
    }
    if let Some(udp) = survey.udp.get(&fd.ino) {
        return Ok(Socket::Udp {
            address: udp.local.to_string(),
            options: socket_options(fd.number, udp.local.is_ipv6(), false, caller)?,
        });
    }
    let unix = &survey.unix[&fd.ino];
    let kind = unix.kind;
    if unix.is_listener() {
        let address = unix.path.clone().unwrap_or_default();
        let at = format!("/proc/{}/root{address}", survey.pid);
        let mode = std::fs::metadata(at)
            .map_or(0o600, |meta| std::os::unix::fs::MetadataExt::mode(&meta) & 0o7777);
        return Ok(Socket::UnixListener { kind, address, mode });
    }
    debug_assert_eq!(unix.state, SS_CONNECTED, "others are refused");
    match caller.unix_peer(fd.ino)? {
        Some(peer) if survey.fds.iter().any(|other| other.ino == peer) => {
            Ok(Socket::UnixPair { kind, id: fd.ino, peer })
        }
        _ => Ok(Socket::UnixOrphan { kind }),
    }
}

/// The options of a socket that are worth keeping and differ from a fresh one's.
fn socket_options(
    fd: i32,
    v6: bool,
    stream: bool,
    caller: &mut Caller<'_>,
) -> Result<Vec<SocketOption>> {
    let sol = libc::SOL_SOCKET;
    let tcp = libc::IPPROTO_TCP;
    let mut asked = vec![
        (sol, libc::SO_REUSEADDR, 0),
        (sol, libc::SO_REUSEPORT, 0),
        (sol, libc::SO_KEEPALIVE, 0),
        (sol, libc::SO_BROADCAST, 0),
    ];
    if v6 {
        // A fresh socket's is 0 by /proc/sys/net/ipv6/bindv6only, which may be otherwise where the
        // image is restored: always kept.
        asked.push((libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, -1));
    }
    if stream {
        asked.push((tcp, libc::TCP_NODELAY, 0));
        asked.push((tcp, libc::TCP_DEFER_ACCEPT, 0));
    }
    let mut options = Vec::new();
    for (level, name, usual) in asked {
        if let Some(value) = caller.socket_option(fd, level, name)?
            && value != usual
        {
            options.push(SocketOption { level, name, value: value.to_ne_bytes().to_vec() });
        }
    }
    Ok(options)
}
