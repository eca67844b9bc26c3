//! Descriptors: from what /proc and the process itself say to the model.
//!
//! In: the surveys of frozen processes, and calls made by them. Out: descriptions and descriptors.
//! Invariant: descriptors that share a description name the same one, whichever process has them.
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

/// The open file descriptions of all processes, found so far.
#[derive(Debug, Default)]
pub(crate) struct Descriptions<'a> {
    files: Vec<OpenFile>,
    /// Of each, where it was found first.
    firsts: Vec<(HostPid, &'a SurveyedFd)>,
}

impl<'a> Descriptions<'a> {
    /// All descriptors of one process.
    pub(crate) fn collect(
        &mut self,
        survey: &'a Survey,
        caller: &mut Caller<'_>,
    ) -> Result<Vec<Fd>> {
        let mut fds: Vec<Fd> = Vec::with_capacity(survey.fds.len());
        let first_new = self.files.len();
        for fd in &survey.fds {
            let file = match self.known(survey, fd, caller)? {
                Some(index) => index,
                None => {
                    self.files.push(open_file(survey, fd, caller)?);
                    self.firsts.push((survey.pid, fd));
                    self.files.len() - 1
                }
            };
            let close_on_exec = fd.info.flags.cast_signed() & libc::O_CLOEXEC != 0;
            fds.push(Fd { number: FdNumber(fd.number), close_on_exec, file });
        }
        for file in &mut self.files[first_new..] {
            let FileKind::Epoll { targets } = &mut file.kind else { continue };
            for target in targets {
                // One that is not open any more is refused.
                let watched = fds.iter().find(|fd| fd.number == target.fd);
                target.file = watched.map_or(usize::MAX, |fd| fd.file);
            }
        }
        Ok(fds)
    }

    /// Index of the description behind `fd`, if it has been met before.
    fn known(
        &self,
        survey: &Survey,
        fd: &SurveyedFd,
        caller: &mut Caller<'_>,
    ) -> Result<Option<usize>> {
        for (index, &(pid, first)) in self.firsts.iter().enumerate() {
            if alike(first, fd) && same_description(caller, (pid, first), (survey.pid, fd))? {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// All of them, by index.
    pub(crate) fn into_files(self) -> Vec<OpenFile> {
        self.files
    }
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
            file: usize::MAX,
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
