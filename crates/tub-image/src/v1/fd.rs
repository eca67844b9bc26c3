//! Descriptors and open file descriptions.

use super::Odd;
use super::memory::FileIdentityRecord;
use super::socket::SocketRecord;
use serde::{Deserialize, Serialize};
use tub_model::{
    EpollTarget, Fd, FileKind, FileLock, FileOwner, InotifyWatch, LockHolder, OpenFile,
};
use tub_units::{FdNumber, NsPid};

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
        files.ok_or("a description names a file beyond any index")
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
    owner: Option<FileOwnerRecord>,
    locks: Vec<FileLockRecord>,
    #[serde(borrow)]
    kind: FileKindRecord<'a>,
}

impl<'a> OpenFileRecord<'a> {
    fn new(file: &'a OpenFile) -> Self {
        let OpenFile { flags, owner, locks, kind } = file;
        Self {
            flags: *flags,
            owner: owner.map(FileOwnerRecord::new),
            locks: locks.iter().map(FileLockRecord::new).collect(),
            kind: FileKindRecord::new(kind),
        }
    }

    fn into_model(self) -> Option<OpenFile> {
        Some(OpenFile {
            flags: self.flags,
            owner: self.owner.map(FileOwnerRecord::into_model),
            locks: self.locks.into_iter().map(FileLockRecord::into_model).collect(),
            kind: self.kind.into_model()?,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct FileOwnerRecord {
    kind: i32,
    id: i32,
    signal: i32,
}

impl FileOwnerRecord {
    fn new(owner: FileOwner) -> Self {
        let FileOwner { kind, id, signal } = owner;
        Self { kind, id: id.0, signal }
    }

    fn into_model(self) -> FileOwner {
        let Self { kind, id, signal } = self;
        FileOwner { kind, id: NsPid(id), signal }
    }
}

#[derive(Serialize, Deserialize)]
struct FileLockRecord {
    holder: LockHolderRecord,
    exclusive: bool,
    start: u64,
    end: Option<u64>,
}

impl FileLockRecord {
    fn new(lock: &FileLock) -> Self {
        let FileLock { holder, exclusive, start, end } = *lock;
        let holder = match holder {
            LockHolder::Flock => LockHolderRecord::Flock,
            LockHolder::Description => LockHolderRecord::Description,
            LockHolder::Task(pid) => LockHolderRecord::Task { pid: pid.0 },
        };
        Self { holder, exclusive, start, end }
    }

    fn into_model(self) -> FileLock {
        let Self { holder, exclusive, start, end } = self;
        let holder = match holder {
            LockHolderRecord::Flock => LockHolder::Flock,
            LockHolderRecord::Description => LockHolder::Description,
            LockHolderRecord::Task { pid } => LockHolder::Task(NsPid(pid)),
        };
        FileLock { holder, exclusive, start, end }
    }
}

/// The order of the variants is part of the format.
#[derive(Serialize, Deserialize)]
enum LockHolderRecord {
    Flock,
    Description,
    Task { pid: i32 },
}

/// The order of the variants is part of the format.
#[derive(Serialize, Deserialize)]
enum FileKindRecord<'a> {
    Regular {
        #[serde(borrow)]
        file: FileIdentityRecord<'a>,
        offset_bytes: u64,
    },
    Deleted {
        path: &'a str,
        dev: u64,
        ino: u64,
        mode: u32,
        content: &'a [u8],
        offset_bytes: u64,
    },
    PathOnly {
        path: &'a str,
    },
    Kernel {
        path: &'a str,
        offset_bytes: u64,
    },
    Outside {
        what: &'a str,
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
        path: Option<&'a str>,
        id: u64,
        write_end: bool,
        capacity_bytes: u32,
        content: Vec<&'a [u8]>,
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
    Memory {
        file: u64,
        offset_bytes: u64,
    },
    PidFd {
        of: Option<i32>,
    },
}

impl<'a> FileKindRecord<'a> {
    fn new(kind: &'a FileKind) -> Self {
        match kind {
            FileKind::Regular { file, offset_bytes } => {
                Self::Regular { file: FileIdentityRecord::new(file), offset_bytes: *offset_bytes }
            }
            FileKind::Memory { file, offset_bytes } => {
                Self::Memory { file: *file as u64, offset_bytes: *offset_bytes }
            }
            FileKind::Deleted { path, dev, ino, mode, content, offset_bytes } => Self::Deleted {
                path,
                dev: *dev,
                ino: *ino,
                mode: *mode,
                content,
                offset_bytes: *offset_bytes,
            },
            FileKind::PathOnly { path } => Self::PathOnly { path },
            FileKind::Kernel { path, offset_bytes } => {
                Self::Kernel { path, offset_bytes: *offset_bytes }
            }
            FileKind::Outside { what } => Self::Outside { what },
            FileKind::Directory { path, offset_bytes } => {
                Self::Directory { path, offset_bytes: *offset_bytes }
            }
            FileKind::Device { path } => Self::Device { path },
            FileKind::Terminal { path } => Self::Terminal { path },
            FileKind::Pipe { path, id, write_end, capacity_bytes, content, both_ends } => {
                Self::Pipe {
                    path: path.as_deref(),
                    id: *id,
                    write_end: *write_end,
                    capacity_bytes: *capacity_bytes,
                    content: content.iter().map(Vec::as_slice).collect(),
                    both_ends: *both_ends,
                }
            }
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
            FileKind::PidFd { of } => Self::PidFd { of: of.map(|pid| pid.0) },
        }
    }

    fn into_model(self) -> Option<FileKind> {
        Some(match self {
            Self::Memory { file, offset_bytes } => {
                FileKind::Memory { file: usize::try_from(file).ok()?, offset_bytes }
            }
            Self::Regular { file, offset_bytes } => {
                FileKind::Regular { file: file.into_model(), offset_bytes }
            }
            Self::Deleted { path, dev, ino, mode, content, offset_bytes } => FileKind::Deleted {
                path: path.into(),
                dev,
                ino,
                mode,
                content: content.to_vec(),
                offset_bytes,
            },
            Self::PathOnly { path } => FileKind::PathOnly { path: path.into() },
            Self::Kernel { path, offset_bytes } => {
                FileKind::Kernel { path: path.into(), offset_bytes }
            }
            Self::Outside { what } => FileKind::Outside { what: what.into() },
            Self::Directory { path, offset_bytes } => {
                FileKind::Directory { path: path.into(), offset_bytes }
            }
            Self::Device { path } => FileKind::Device { path: path.into() },
            Self::Terminal { path } => FileKind::Terminal { path: path.into() },
            Self::Pipe { path, id, write_end, capacity_bytes, content, both_ends } => {
                FileKind::Pipe {
                    path: path.map(Into::into),
                    id,
                    write_end,
                    capacity_bytes,
                    content: content.into_iter().map(<[u8]>::to_vec).collect(),
                    both_ends,
                }
            }
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
            Self::PidFd { of } => FileKind::PidFd { of: of.map(NsPid) },
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
