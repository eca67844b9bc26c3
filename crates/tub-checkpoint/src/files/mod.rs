//! Descriptors: from what /proc and the process itself say to the model.
//!
//! In: the survey of a frozen process, and calls made by it. Out: descriptions and descriptors.
//! Invariant: descriptors that share a description name the same one.
//! Not here: what is refused (see [`crate::refuse`]); whatever comes here has passed it.

mod pipe;
mod socket;

use crate::collect::Caller;
use crate::same::same_description;
use crate::survey::fdinfo;
use crate::{Result, Survey, SurveyedFd};
use nix::sys::stat::SFlag;
use tub_model::{EpollTarget, Fd, FileIdentity, FileKind, OpenFile};
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
        let mut shared = None;
        for (index, first) in &firsts {
            if shared.is_none() && alike(first, fd) {
                let same = same_description(survey.pid, caller, first.number, fd.number)?;
                shared = same.then_some(*index);
            }
        }
        let file = match shared {
            Some(index) => index,
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

/// Whether it is worth asking if two descriptors share a description.
fn alike(a: &SurveyedFd, b: &SurveyedFd) -> bool {
    let mask = !libc::O_CLOEXEC;
    let look = |fd: &SurveyedFd| {
        (fd.dev, fd.ino, fd.rdev, fd.info.pos, fd.info.flags.cast_signed() & mask)
    };
    look(a) == look(b)
}

fn open_file(survey: &Survey, fd: &SurveyedFd, caller: &mut Caller<'_>) -> Result<OpenFile> {
    let flags = fd.info.flags.cast_signed() & !libc::O_CLOEXEC;
    let info = &fd.info;
    let path = || fd.link.clone();
    let kind = if fd.is(SFlag::S_IFSOCK) {
        FileKind::Socket(socket::socket(survey, fd, caller)?)
    } else if fd.is(SFlag::S_IFIFO) {
        pipe::pipe(survey, fd)?
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
