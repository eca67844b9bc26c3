//! Descriptors and the open file descriptions behind them.

use crate::{FileIdentity, Socket};
use alloc::{string::String, vec::Vec};
use tub_units::FdNumber;

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
    /// What it is.
    pub kind: FileKind,
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
    /// One end of a pipe.
    Pipe {
        /// Inode number: both ends carry the same one.
        id: u64,
        /// Whether this is the end to write to.
        write_end: bool,
        /// Capacity in bytes.
        capacity_bytes: u32,
        /// What lies in it; carried by the reading end only.
        content: Vec<u8>,
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
