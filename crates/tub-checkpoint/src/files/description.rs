//! One open file description: what it is, who is told of it, what it locks.
//!
//! In: a surveyed descriptor, calls made by the process. Out: the model's description, or why there
//! can be none. Invariant: the description is left as it was found.

use super::{FilePolicy, inotify, pipe, socket};
use crate::caller::Caller;
use crate::memory_files::MemoryFiles;
use crate::refuse::{self, Refusal, RefusalKind};
use crate::survey::fdinfo;
use crate::{Error, Result, Survey, SurveyedFd};
use nix::sys::stat::SFlag;
use tub_model::{EpollTarget, FileIdentity, FileKind, FileLock, FileOwner, LockHolder, OpenFile};
use tub_procfs::fdinfo::{EpollRecord, LockKind, LockRecord};
use tub_units::{FdNumber, HostPid, NsPid};

/// The description behind a descriptor. What cannot be stored joins `refusals`, unless it is a
/// standard stream, which the restoring process provides.
pub(super) fn open_file(
    survey: &Survey,
    fd: &SurveyedFd,
    caller: &mut Caller<'_>,
    (policy, memory_files): (FilePolicy, &MemoryFiles),
    refusals: &mut Vec<Refusal>,
) -> Result<OpenFile> {
    let flags = fd.info.flags.cast_signed() & !libc::O_CLOEXEC;
    if fd.number <= 2 && refuse::descriptor(survey, fd, policy.tcp).is_some() {
        let kind = FileKind::Outside { what: what(survey, fd) };
        return Ok(OpenFile { flags, owner: None, locks: Vec::new(), kind });
    }
    let mut refuse = |kind, object: String, reason: &str| {
        refusals.push(Refusal {
            kind,
            fd: Some(fd.number),
            object,
            reason: reason.to_owned(),
            remedy: "close it before the checkpoint".to_owned(),
        });
    };
    let outside = || FileKind::Outside { what: what(survey, fd) };
    let kind = if flags & libc::O_PATH != 0 {
        match refuse::kernel_file(survey, fd) {
            Some(path) => FileKind::Kernel { path, offset_bytes: 0 },
            None => FileKind::PathOnly { path: fd.link.clone() },
        }
    } else if refuse::is_pidfd(fd) {
        // A standard stream may name whomever it likes.
        match refuse::named_by(survey, fd) {
            Some(of) => FileKind::PidFd { of },
            None => outside(),
        }
    } else if let Some(file) =
        memory_files.known((fd.dev, fd.ino)).filter(|_| fd.is(SFlag::S_IFREG))
    {
        FileKind::Memory { file, offset_bytes: fd.info.pos }
    } else if fd.is(SFlag::S_IFSOCK) {
        match socket::socket(survey, fd, caller, policy.tcp)? {
            Ok(socket) => FileKind::Socket(socket),
            Err((object, reason)) => {
                if fd.number > 2 {
                    refuse(RefusalKind::Socket, object, reason);
                }
                outside()
            }
        }
    } else if fd.is(SFlag::S_IFIFO) {
        pipe::pipe(survey, fd)?
    } else if fd.link == "anon_inode:inotify" {
        match inotify::inotify(survey, fd, caller)? {
            Ok(kind) => kind,
            Err(reason) => {
                refuse(RefusalKind::Resource, fd.link.clone(), reason);
                outside()
            }
        }
    } else {
        kind(survey, fd, caller)?
    };
    Ok(OpenFile { flags, owner: owner(fd, flags, caller)?, locks: locks(survey, fd), kind })
}

/// What a descriptor is, for messages.
fn what(survey: &Survey, fd: &SurveyedFd) -> String {
    if fd.is(SFlag::S_IFSOCK) { refuse::socket_name(survey, fd) } else { fd.link.clone() }
}

fn kind(survey: &Survey, fd: &SurveyedFd, caller: &mut Caller<'_>) -> Result<FileKind> {
    let info = &fd.info;
    let path = || fd.link.clone();
    Ok(if let Some(path) = refuse::kernel_file(survey, fd) {
        FileKind::Kernel { path, offset_bytes: info.pos }
    } else if fd.is(SFlag::S_IFREG) && refuse::is_deleted(fd) {
        deleted(survey.pid, fd, caller)?
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
    } else {
        let target = |record: &EpollRecord| EpollTarget {
            fd: FdNumber(record.tfd),
            file: usize::MAX,
            events: record.events,
            data: record.data,
        };
        FileKind::Epoll { targets: info.epoll.iter().map(target).collect() }
    })
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

/// A file without a name, with its content. Its rights may forbid to open it once more, even to its owner:
/// gunicorn's workers show that they are alive by changing those of such a file. Then the process itself reads it.
fn deleted(pid: HostPid, fd: &SurveyedFd, caller: &mut Caller<'_>) -> Result<FileKind> {
    let path = format!("/proc/{pid}/fd/{}", fd.number);
    let writes_only = fd.info.flags.cast_signed() & libc::O_ACCMODE == libc::O_WRONLY;
    let content = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && !writes_only => {
            caller.content(fd.number)?
        }
        read => read.map_err(|source| Error::Proc { path, source })?,
    };
    Ok(FileKind::Deleted {
        path: fd.link.trim_end_matches(" (deleted)").to_owned(),
        dev: fd.dev,
        ino: fd.ino,
        mode: fd.mode & 0o7777,
        content,
        offset_bytes: fd.info.pos,
    })
}

/// Who is told of events. Without O_ASYNC, files and directories tell nobody of anything.
fn owner(fd: &SurveyedFd, flags: i32, caller: &mut Caller<'_>) -> Result<Option<FileOwner>> {
    const F_GETSIG: u64 = 11;
    const F_GETOWN_EX: u64 = 16;
    let silent = fd.is(SFlag::S_IFREG) || fd.is(SFlag::S_IFDIR) || !fd.is_inode();
    if flags & libc::O_PATH != 0 || silent && flags & libc::O_ASYNC == 0 {
        return Ok(None);
    }
    let number = u64::from(fd.number.cast_unsigned());
    // struct f_owner_ex: kind, id.
    let mut memory = [0u8; 8];
    let asked =
        caller.call_on(libc::SYS_fcntl, &mut memory, |at| [number, F_GETOWN_EX, at, 0, 0, 0])?;
    let signal = caller.attempt(libc::SYS_fcntl, [number, F_GETSIG, 0, 0, 0, 0])?.unwrap_or(0);
    let signal = i32::try_from(signal).unwrap_or(0);
    let [a, b, c, d, e, f, g, h] = memory;
    let (kind, id) = (i32::from_ne_bytes([a, b, c, d]), i32::from_ne_bytes([e, f, g, h]));
    let nobody = asked.is_err() || id == 0 && signal == 0;
    Ok((!nobody).then_some(FileOwner { kind, id: NsPid(id), signal }))
}

fn locks(survey: &Survey, fd: &SurveyedFd) -> Vec<FileLock> {
    let pid = survey.status.ns_pid.last().copied().unwrap_or(NsPid(survey.pid.0));
    let lock = |record: &LockRecord| {
        let holder = match record.kind {
            LockKind::Flock => LockHolder::Flock,
            LockKind::OpenFile => LockHolder::Description,
            LockKind::Posix => LockHolder::Task(pid),
            LockKind::Lease => return None,
        };
        let LockRecord { exclusive, start, end, .. } = *record;
        Some(FileLock { holder, exclusive, start, end })
    };
    fd.info.locks.iter().filter_map(lock).collect()
}
