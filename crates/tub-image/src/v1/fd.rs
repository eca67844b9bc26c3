//! Descriptors and open file descriptions.

use super::Odd;
use super::memory::FileIdentityRecord;
use super::socket::SocketRecord;
use serde::{Deserialize, Serialize};
use tub_model::{EpollTarget, Fd, FileKind, InotifyWatch, OpenFile};
use tub_units::FdNumber;

/// The open file descriptions of all tasks.
#[derive(Serialize, Deserialize)]
pub(crate) struct FilesRecord<'a> {
    #[serde(borrow)]
    files: Vec<OpenFileRecord<'a>>,
}

impl<'a> FilesRecord<'a> {
    pub(crate) fn new(files: &'a [OpenFile]) -> Self {
        Self { files: files.iter().map(OpenFileRecord::new).collect() }
    }

    pub(crate) fn into_model(self) -> Result<Vec<OpenFile>, Odd> {
        let files = self.files.into_iter().map(OpenFileRecord::into_model).collect::<Option<_>>();
        files.ok_or("an epoll set watches a file beyond any index")
    }
}

/// The descriptor table of one task.
#[derive(Serialize, Deserialize)]
pub(crate) struct DescriptorsRecord {
    fds: Vec<FdRecord>,
}

impl DescriptorsRecord {
    pub(crate) fn new(fds: &[Fd]) -> Self {
        Self { fds: fds.iter().map(FdRecord::new).collect() }
    }

    pub(crate) fn into_model(self) -> Result<Vec<Fd>, Odd> {
        let fds = self.fds.into_iter().map(FdRecord::into_model).collect::<Option<_>>();
        fds.ok_or("a descriptor names a file beyond any index")
    }
}

#[derive(Serialize, Deserialize)]
struct FdRecord {
    number: i32,
    close_on_exec: bool,
    file: u64,
}

impl FdRecord {
    fn new(fd: &Fd) -> Self {
        let Fd { number, close_on_exec, file } = *fd;
        Self { number: number.0, close_on_exec, file: file as u64 }
    }

    fn into_model(self) -> Option<Fd> {
        let Self { number, close_on_exec, file } = self;
        Some(Fd { number: FdNumber(number), close_on_exec, file: usize::try_from(file).ok()? })
    }
}

#[derive(Serialize, Deserialize)]
struct OpenFileRecord<'a> {
    flags: i32,
    #[serde(borrow)]
    kind: FileKindRecord<'a>,
}

impl<'a> OpenFileRecord<'a> {
    fn new(file: &'a OpenFile) -> Self {
        let OpenFile { flags, kind } = file;
        Self { flags: *flags, kind: FileKindRecord::new(kind) }
    }

    fn into_model(self) -> Option<OpenFile> {
        Some(OpenFile { flags: self.flags, kind: self.kind.into_model()? })
    }
}

/// The order of the variants is part of the format.
#[derive(Serialize, Deserialize)]
enum FileKindRecord<'a> {
    Regular {
        #[serde(borrow)]
        file: FileIdentityRecord<'a>,
        offset_bytes: u64,
    },
    Directory {
        path: &'a str,
        offset_bytes: u64,
    },
    Device {
        path: &'a str,
    },
    Terminal {
        path: &'a str,
    },
    Pipe {
        id: u64,
        write_end: bool,
        capacity_bytes: u32,
        content: &'a [u8],
        both_ends: bool,
    },
    EventFd {
        count: u64,
        semaphore: bool,
    },
    Epoll {
        targets: Vec<EpollTargetRecord>,
    },
    TimerFd {
        clock: i32,
        ticks: u64,
        settime_flags: i32,
        value_ns: u64,
        interval_ns: u64,
    },
    SignalFd {
        mask: u64,
    },
    Inotify {
        #[serde(borrow)]
        watches: Vec<InotifyWatchRecord<'a>>,
    },
    Socket {
        #[serde(borrow)]
        socket: SocketRecord<'a>,
    },
}

impl<'a> FileKindRecord<'a> {
    fn new(kind: &'a FileKind) -> Self {
        match kind {
            FileKind::Regular { file, offset_bytes } => {
                Self::Regular { file: FileIdentityRecord::new(file), offset_bytes: *offset_bytes }
            }
            FileKind::Directory { path, offset_bytes } => {
                Self::Directory { path, offset_bytes: *offset_bytes }
            }
            FileKind::Device { path } => Self::Device { path },
            FileKind::Terminal { path } => Self::Terminal { path },
            FileKind::Pipe { id, write_end, capacity_bytes, content, both_ends } => Self::Pipe {
                id: *id,
                write_end: *write_end,
                capacity_bytes: *capacity_bytes,
                content,
                both_ends: *both_ends,
            },
            FileKind::EventFd { count, semaphore } => {
                Self::EventFd { count: *count, semaphore: *semaphore }
            }
            FileKind::Epoll { targets } => {
                Self::Epoll { targets: targets.iter().map(EpollTargetRecord::new).collect() }
            }
            FileKind::TimerFd { clock, ticks, settime_flags, value_ns, interval_ns } => {
                Self::TimerFd {
                    clock: *clock,
                    ticks: *ticks,
                    settime_flags: *settime_flags,
                    value_ns: *value_ns,
                    interval_ns: *interval_ns,
                }
            }
            FileKind::SignalFd { mask } => Self::SignalFd { mask: *mask },
            FileKind::Inotify { watches } => {
                Self::Inotify { watches: watches.iter().map(InotifyWatchRecord::new).collect() }
            }
            FileKind::Socket(socket) => Self::Socket { socket: SocketRecord::new(socket) },
        }
    }

    fn into_model(self) -> Option<FileKind> {
        Some(match self {
            Self::Regular { file, offset_bytes } => {
                FileKind::Regular { file: file.into_model(), offset_bytes }
            }
            Self::Directory { path, offset_bytes } => {
                FileKind::Directory { path: path.into(), offset_bytes }
            }
            Self::Device { path } => FileKind::Device { path: path.into() },
            Self::Terminal { path } => FileKind::Terminal { path: path.into() },
            Self::Pipe { id, write_end, capacity_bytes, content, both_ends } => FileKind::Pipe {
                id,
                write_end,
                capacity_bytes,
                content: content.to_vec(),
                both_ends,
            },
            Self::EventFd { count, semaphore } => FileKind::EventFd { count, semaphore },
            Self::Epoll { targets } => FileKind::Epoll {
                targets: targets
                    .into_iter()
                    .map(EpollTargetRecord::into_model)
                    .collect::<Option<_>>()?,
            },
            Self::TimerFd { clock, ticks, settime_flags, value_ns, interval_ns } => {
                FileKind::TimerFd { clock, ticks, settime_flags, value_ns, interval_ns }
            }
            Self::SignalFd { mask } => FileKind::SignalFd { mask },
            Self::Inotify { watches } => FileKind::Inotify {
                watches: watches.into_iter().map(InotifyWatchRecord::into_model).collect(),
            },
            Self::Socket { socket } => FileKind::Socket(socket.into_model()),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct EpollTargetRecord {
    fd: i32,
    file: u64,
    events: u32,
    data: u64,
}

impl EpollTargetRecord {
    fn new(target: &EpollTarget) -> Self {
        let EpollTarget { fd, file, events, data } = *target;
        Self { fd: fd.0, file: file as u64, events, data }
    }

    fn into_model(self) -> Option<EpollTarget> {
        let Self { fd, file, events, data } = self;
        Some(EpollTarget { fd: FdNumber(fd), file: usize::try_from(file).ok()?, events, data })
    }
}

#[derive(Serialize, Deserialize)]
struct InotifyWatchRecord<'a> {
    number: i32,
    path: &'a str,
    mask: u32,
}

impl<'a> InotifyWatchRecord<'a> {
    fn new(watch: &'a InotifyWatch) -> Self {
        let InotifyWatch { number, path, mask } = watch;
        Self { number: *number, path, mask: *mask }
    }

    fn into_model(self) -> InotifyWatch {
        let Self { number, path, mask } = self;
        InotifyWatch { number, path: path.into(), mask }
    }
}
