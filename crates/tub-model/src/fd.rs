//! Descriptors and the open file descriptions behind them.

use crate::{FileIdentity, Socket};
use alloc::{string::String, vec::Vec};
use core::fmt;
use tub_units::{FdNumber, NsPid};

/// A descriptor: a number that names an open file description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fd {
    /// Its number.
    pub number: FdNumber,
    /// `FD_CLOEXEC`.
    pub close_on_exec: bool,
    /// Index into [`crate::Checkpoint::files`]; several descriptors may share one.
    pub file: usize,
}

/// An open file description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFile {
    /// `O_*` status flags and access mode as of `fcntl(F_GETFL)`, without `O_CLOEXEC`.
    pub flags: i32,
    /// Who is told that something can be read or written (`F_SETOWN_EX`, `F_SETSIG`).
    pub owner: Option<FileOwner>,
    /// File locks held through it.
    pub locks: Vec<FileLock>,
    /// What it is.
    pub kind: FileKind,
}

/// Who is told of what happens to a description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileOwner {
    /// `F_OWNER_TID` 0, `F_OWNER_PID` 1, `F_OWNER_PGRP` 2.
    pub kind: i32,
    /// Its id, as the task sees it; 0 for nobody.
    pub id: NsPid,
    /// Signal sent; 0 for SIGIO without information.
    pub signal: i32,
}

/// A file lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLock {
    /// Whose it is.
    pub holder: LockHolder,
    /// Whether it excludes everybody, rather than writers only.
    pub exclusive: bool,
    /// First byte.
    pub start: u64,
    /// Last byte; `None` for the end of the file, wherever that is.
    pub end: Option<u64>,
}

impl fmt::Display for FileLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.exclusive { "exclusive" } else { "shared" })?;
        match (self.holder, self.end) {
            (LockHolder::Flock, _) | (_, None) if self.start == 0 => f.write_str(" lock"),
            (_, None) => write!(f, " lock of all bytes from {} on", self.start),
            (_, Some(end)) => write!(f, " lock of bytes {} to {end}", self.start),
        }
    }
}

/// Whose a file lock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockHolder {
    /// The description's, over the whole file: `flock(2)`.
    Flock,
    /// The description's: `fcntl(F_OFD_SETLK)`.
    Description,
    /// A task's: `fcntl(F_SETLK)`.
    Task(NsPid),
}

/// What an open file description is, and what it takes to have it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file, opened again at its path.
    Regular {
        /// The file.
        file: FileIdentity,
        /// Read and write position in bytes.
        offset_bytes: u64,
    },
    /// One of the files that the image brings along.
    Memory {
        /// Index into [`crate::Checkpoint::memory_files`].
        file: usize,
        /// Read and write position in bytes.
        offset_bytes: u64,
    },
    /// A regular file without a name. Made anew, with its content, with no name again.
    Deleted {
        /// Where it was.
        path: String,
        /// Device number, as of `stat`.
        dev: u64,
        /// Inode number: descriptions of the same file carry the same one.
        ino: u64,
        /// Permission bits.
        mode: u32,
        /// Its content; of several descriptions of the same file the first one carries it.
        content: Vec<u8>,
        /// Read and write position in bytes.
        offset_bytes: u64,
    },
    /// Anything that is open for its path only (`O_PATH`).
    PathOnly {
        /// Its path.
        path: String,
    },
    /// A file or directory of the kernel's, in `/proc` or `/sys`.
    Kernel {
        /// Its path; that of the task itself starts with `/proc/self/`.
        path: String,
        /// Read and write position in bytes.
        offset_bytes: u64,
    },
    /// Something outside that only the restoring process can provide: a standard stream.
    Outside {
        /// What, for messages.
        what: String,
    },
    /// A directory.
    Directory {
        /// Its path.
        path: String,
        /// Read position, as of `lseek`.
        offset_bytes: u64,
    },
    /// A character device without state: null, zero, full, random, urandom.
    Device {
        /// Its path.
        path: String,
    },
    /// A terminal; only ever one of the standard streams, which the restoring process provides.
    Terminal {
        /// Its path, for messages.
        path: String,
    },
    /// One end of a pipe, or of a named one (FIFO); a FIFO's may be both.
    Pipe {
        /// Path of a FIFO.
        path: Option<String>,
        /// Inode number: both ends carry the same one.
        id: u64,
        /// Whether this is the end to write to.
        write_end: bool,
        /// Capacity in bytes.
        capacity_bytes: u32,
        /// What lies in it, in packets where it is in packet mode (`O_DIRECT`); carried by the
        /// reading end only.
        content: Vec<Vec<u8>>,
        /// Whether nobody outside holds the other end: it is in a task, too, or closed. Where
        /// somebody does, only a standard stream can be restored, from the restoring process.
        both_ends: bool,
    },
    /// `eventfd(2)`.
    EventFd {
        /// Counter.
        count: u64,
        /// `EFD_SEMAPHORE`.
        semaphore: bool,
    },
    /// `epoll_create1(2)`.
    Epoll {
        /// What it watches.
        targets: Vec<EpollTarget>,
    },
    /// `timerfd_create(2)`.
    TimerFd {
        /// `CLOCK_*`.
        clock: i32,
        /// Expirations not read yet.
        ticks: u64,
        /// `TFD_TIMER_*` of the last `timerfd_settime`.
        settime_flags: i32,
        /// Nanoseconds until it next fires; 0 when disarmed.
        value_ns: u64,
        /// Period in nanoseconds.
        interval_ns: u64,
    },
    /// `signalfd(2)`.
    SignalFd {
        /// Signals accepted, bit n-1 for signal n.
        mask: u64,
    },
    /// `inotify_init1(2)`.
    Inotify {
        /// Its watches, ascending by number.
        watches: Vec<InotifyWatch>,
    },
    /// A socket.
    Socket(Socket),
    /// `pidfd_open(2)`.
    PidFd {
        /// Whom it names: a task or a zombie of the image, or somebody who has ended and was waited
        /// for.
        of: Option<NsPid>,
    },
}

/// One entry of an epoll set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpollTarget {
    /// The number by which the set knows what it watches.
    pub fd: FdNumber,
    /// What it watches: index into [`crate::Checkpoint::files`].
    pub file: usize,
    /// `EPOLL*` bits.
    pub events: u32,
    /// The caller's word, verbatim.
    pub data: u64,
}

/// One watch of an inotify instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InotifyWatch {
    /// Watch number.
    pub number: i32,
    /// Path watched.
    pub path: String,
    /// `IN_*` mask.
    pub mask: u32,
}
