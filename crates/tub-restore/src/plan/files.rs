//! How the descriptor tables are laid out again.
//!
//! In: descriptions and descriptors of all tasks. Out: steps for the launcher, in order. Pure.
//! Invariant: a step only uses numbers that an earlier one has made.
//!
//! Each description is opened once, in the process that becomes the main task. Where there is no
//! other task, it is placed at its lowest number, and its other numbers are duplicates. Else it
//! waits at a number above all, from which every task that has it takes its own numbers. Sets that
//! refer to other descriptors (epoll) are filled when all are in place, and files are locked last: closing any descriptor of a file gives up the task's locks of it
//! (fcntl_locking(2)).

use super::events;
use super::handles::{epolls_of_pidfds, holders, named_process};
use super::{Ids, PlanOp};
use std::collections::{BTreeMap, BTreeSet};
use tub_model::{
    Checkpoint, EpollTarget, FileKind, FileLock, LockHolder, OpenFile, Socket, Task, UnixSocket,
    UnixState,
};
use tub_units::NsPid;

/// A descriptor that is one end of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Number.
    pub number: i32,
    /// FD_CLOEXEC.
    pub close_on_exec: bool,
    /// Access mode and status flags.
    pub flags: i32,
}

/// A unix socket with its number.
pub type Placed = (End, UnixSocket);

/// One step of laying out the descriptor table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileStep {
    /// Opens a description and places it at a number.
    Open {
        /// Number.
        number: i32,
        /// FD_CLOEXEC.
        close_on_exec: bool,
        /// What to open.
        file: OpenFile,
    },
    /// Opens a file without a name once more, through a number that it has.
    Reopen {
        /// That number.
        of: i32,
        /// Number.
        number: i32,
        /// FD_CLOEXEC.
        close_on_exec: bool,
        /// What to open.
        file: OpenFile,
    },
    /// Opens a handle of a process, when all of them are there.
    PidFd {
        /// The process, by its id in the image.
        of: NsPid,
        /// Number.
        number: i32,
        /// FD_CLOEXEC.
        close_on_exec: bool,
        /// Status flags.
        flags: i32,
    },
    /// Makes the socket by which one task hands a description to others.
    LetterBox {
        /// Number.
        number: i32,
    },
    /// Hands a description to other tasks.
    Hand {
        /// Its number.
        number: i32,
        /// By which socket.
        letter_box: i32,
        /// How many take it.
        copies: usize,
    },
    /// Takes a description that another task hands over, and places it at a number.
    Take {
        /// From which socket.
        letter_box: i32,
        /// Number.
        number: i32,
        /// FD_CLOEXEC.
        close_on_exec: bool,
    },
    /// Makes a pipe, or opens a FIFO, and places the ends that are open.
    Pipe {
        /// Of a FIFO.
        path: Option<String>,
        /// The ends, by their access mode.
        ends: Vec<End>,
        /// Capacity in bytes.
        capacity_bytes: u32,
        /// What lies in it, in packets.
        content: Vec<Vec<u8>>,
    },
    /// Makes two connected unix sockets, with what lies in them.
    UnixPair {
        /// The one.
        a: Placed,
        /// The other, if it is not closed.
        b: Option<Placed>,
        /// Whether the files of their names stay.
        keeps_file: bool,
    },
    /// Connects a datagram socket.
    UnixConnect {
        /// Its number.
        number: i32,
        /// To which name.
        name: Vec<u8>,
    },
    /// Gives a description a second number.
    Duplicate {
        /// Existing number.
        from: i32,
        /// New one.
        to: i32,
        /// FD_CLOEXEC of the new one.
        close_on_exec: bool,
    },
    /// Opens the terminal of the restoring side once more.
    Terminal {
        /// The standard stream that was the same terminal.
        like: i32,
        /// Number.
        number: i32,
        /// FD_CLOEXEC.
        close_on_exec: bool,
        /// Access mode and status flags.
        flags: i32,
        /// What it was, for messages.
        path: String,
    },
    /// Closes a number.
    Close(i32),
    /// Adds a target to an epoll set.
    EpollAdd {
        /// The set.
        epoll: i32,
        /// A number that what it watches has now.
        via: i32,
        /// The target.
        target: EpollTarget,
    },
    /// Takes what is ready out of an epoll set that so far has disabled one-shot entries only:
    /// the kernel adds every entry with hang-ups and errors enabled.
    EpollDrain {
        /// The set.
        epoll: i32,
    },
    /// Has signals of a description sent to the process itself, whatever its id is.
    OwnedByMe {
        /// Its number.
        number: i32,
        /// `F_OWNER_*`.
        kind: i32,
        /// Signal.
        signal: i32,
    },
    /// Takes a file lock.
    Lock {
        /// Number.
        number: i32,
        /// Path, for messages.
        path: String,
        /// The lock.
        lock: FileLock,
    },
}

/// What the steps depend on besides the image's descriptors.
pub(super) struct FileWishes {
    /// Whether numbers 0 to 2 of the main task are those of the restoring process.
    pub(super) inherit_stdio: bool,
    /// Same ids or new ones.
    pub(super) ids: Ids,
    /// CLOCK_REALTIME at the checkpoint.
    pub(super) realtime_ns: u64,
    /// First of the numbers at which descriptions wait for several tasks to take them.
    pub(super) first_parked: i32,
}

/// The steps of all.
pub(super) struct FilePlan {
    /// Those that make the descriptions.
    pub(super) shared: Vec<FileStep>,
    /// Those that each task then makes its table with.
    pub(super) tasks: Vec<Vec<FileStep>>,
}

/// Plans the steps.
pub(super) fn plan(checkpoint: &Checkpoint, wishes: &FileWishes) -> FilePlan {
    let task = &checkpoint.tasks[0];
    let files = &checkpoint.files;
    let several = checkpoint.tasks.len() > 1;
    let numbers = numbers(checkpoint, wishes.first_parked);
    let inherited = inherited(checkpoint, wishes.inherit_stdio);
    let mut opens = Vec::new();
    let mut pairs = Pairs::default();
    let mut connects = Vec::new();
    let mut duplicates = Vec::new();
    let mut epolls = Vec::new();
    let mut pidfds = Vec::new();
    let mut last = Vec::new();
    let mut pipes: BTreeMap<(u64, Option<&str>), Pipe> = BTreeMap::new();
    let mut deleted: BTreeMap<(u64, u64), i32> = BTreeMap::new();
    for (&index, at) in &numbers {
        let file = &files[index];
        let (number, close_on_exec) = at[0];
        let end = End { number, close_on_exec, flags: file.flags };
        let stream = |number: i32| wishes.inherit_stdio && number <= 2;
        for &(to, close_on_exec) in at[1..].iter().filter(|(to, _)| !stream(*to)) {
            duplicates.push(FileStep::Duplicate { from: number, to, close_on_exec });
        }
        if !several && inherited.contains_key(&index) {
            continue;
        }
        if let Some(like) = stands_for(files, index, &inherited) {
            opens.push(match &file.kind {
                FileKind::Terminal { path } if !inherited.contains_key(&index) => {
                    let (flags, path) = (file.flags, path.clone());
                    FileStep::Terminal { like, number, close_on_exec, flags, path }
                }
                _ => FileStep::Duplicate { from: like, to: number, close_on_exec },
            });
            continue;
        }
        if let Some(of) = named_process(file) {
            // Of several tasks the first that has it opens it, since nobody but the main one is there yet,
            // and hands it to the others.
            if !several {
                pidfds.push(FileStep::PidFd { of, number, close_on_exec, flags: file.flags });
            } else if holders(checkpoint, index).nth(1).is_some() {
                opens.push(FileStep::LetterBox { number });
            }
            continue;
        }
        match &file.kind {
            FileKind::Pipe { path, id, write_end, capacity_bytes, content, .. } => {
                let pipe = pipes.entry((*id, path.as_deref())).or_default();
                pipe.ends.push(end);
                pipe.capacity_bytes = *capacity_bytes;
                if !*write_end {
                    pipe.content.clone_from(content);
                }
            }
            FileKind::Socket(Socket::Unix(unix)) if pairs.takes(files, unix) => {
                pairs.add(end, unix);
            }
            FileKind::Deleted { dev, ino, .. } if deleted.contains_key(&(*dev, *ino)) => {
                let (of, file) = (deleted[&(*dev, *ino)], file.clone());
                opens.push(FileStep::Reopen { of, number, close_on_exec, file });
            }
            kind => {
                if let FileKind::Deleted { dev, ino, .. } = kind {
                    deleted.insert((*dev, *ino), number);
                }
                let mut file = file.clone();
                file.kind = on_this_clock(file.kind, wishes.realtime_ns);
                opens.push(FileStep::Open { number, close_on_exec, file });
            }
        }
        match &file.kind {
            FileKind::Epoll { targets } => {
                let early = |target: &&EpollTarget| {
                    !several || named_process(&files[target.file]).is_none()
                };
                epolls.extend(epoll(number, targets.iter().filter(early), &numbers));
            }
            FileKind::Socket(Socket::Unix(unix)) => connects.extend(connect(files, number, unix)),
            _ => {}
        }
        if !several {
            last.extend(events::step(task, number, file.owner, wishes.ids));
        }
        last.extend(locks(number, file, several));
    }
    let mut steps = pairs.into_steps(files);
    steps.extend(opens);
    steps.extend(pipes.into_iter().map(|((_, path), pipe)| FileStep::Pipe {
        path: path.map(str::to_owned),
        ends: pipe.ends,
        capacity_bytes: pipe.capacity_bytes,
        content: pipe.content,
    }));
    if !several {
        let own = [pidfds, connects, duplicates, epolls, last].concat();
        return FilePlan { shared: steps, tasks: vec![own] };
    }
    let tasks = 0..checkpoint.tasks.len();
    let tasks = tasks.map(|task| table(checkpoint, task, wishes, &inherited, &numbers)).collect();
    FilePlan { shared: [steps, connects, epolls, last].concat(), tasks }
}

/// At which numbers each description is made: those of the only task, or one above all.
fn numbers(checkpoint: &Checkpoint, first_parked: i32) -> BTreeMap<usize, Vec<(i32, bool)>> {
    let mut numbers: BTreeMap<usize, Vec<(i32, bool)>> = BTreeMap::new();
    if let [task] = checkpoint.tasks.as_slice() {
        for fd in &task.fds {
            numbers.entry(fd.file).or_default().push((fd.number.0, fd.close_on_exec));
        }
    } else {
        let parked = (first_parked..).map(|number| vec![(number, true)]);
        numbers.extend((0..checkpoint.files.len()).zip(parked));
    }
    numbers
}

/// The descriptions that are the restoring process's standard streams, with their numbers there:
/// those of the main task. Pipes between members of a tree are theirs, whatever their numbers.
fn inherited(checkpoint: &Checkpoint, inherit_stdio: bool) -> BTreeMap<usize, i32> {
    let several = checkpoint.tasks.len() > 1;
    let internal = |file: usize| {
        let kind = &checkpoint.files[file].kind;
        several && matches!(kind, FileKind::Pipe { both_ends: true, .. })
    };
    let mut inherited = BTreeMap::new();
    let streams = checkpoint.tasks[0].fds.iter().filter(|fd| inherit_stdio && fd.number.0 <= 2);
    for fd in streams.filter(|fd| !internal(fd.file)) {
        inherited.entry(fd.file).or_insert(fd.number.0);
    }
    inherited
}

/// The standard stream that a description is, or that it is another description of: the same
/// terminal or pipe, opened once more.
fn stands_for(files: &[OpenFile], index: usize, inherited: &BTreeMap<usize, i32>) -> Option<i32> {
    let same = |known: &FileKind| match (&files[index].kind, known) {
        (FileKind::Terminal { path }, FileKind::Terminal { path: known }) => {
            path == known || path == "/dev/tty"
        }
        (
            FileKind::Pipe { id, write_end, both_ends: false, .. },
            FileKind::Pipe { id: known, write_end: writes, .. },
        ) => (id, write_end) == (known, writes),
        _ => false,
    };
    let other = || inherited.iter().find(|(known, _)| same(&files[**known].kind));
    inherited.get(&index).or_else(|| other().map(|(_, number)| number)).copied()
}

/// How one of several tasks takes its descriptors from those that wait.
fn table(
    checkpoint: &Checkpoint,
    index: usize,
    wishes: &FileWishes,
    inherited: &BTreeMap<usize, i32>,
    numbers: &BTreeMap<usize, Vec<(i32, bool)>>,
) -> Vec<FileStep> {
    let task = &checkpoint.tasks[index];
    let mut steps = Vec::new();
    if index > 0 {
        let open = |number: &i32| task.fds.iter().any(|fd| fd.number.0 == *number);
        steps.extend((0..=2).filter(|number| !open(number)).map(FileStep::Close));
    }
    let mut seen = BTreeSet::new();
    let mut pidfds: BTreeMap<usize, Vec<(i32, bool)>> = BTreeMap::new();
    for fd in &task.fds {
        let number = fd.number.0;
        let process = named_process(&checkpoint.files[fd.file]);
        if let Some(of) = process.filter(|_| !inherited.contains_key(&fd.file)) {
            let (close_on_exec, flags) = (fd.close_on_exec, checkpoint.files[fd.file].flags);
            let known = pidfds.entry(fd.file).or_default();
            let (letter_box, copies) =
                (numbers[&fd.file][0].0, holders(checkpoint, fd.file).count() - 1);
            match known.first() {
                Some(&(from, _)) => {
                    steps.push(FileStep::Duplicate { from, to: number, close_on_exec });
                }
                None if holders(checkpoint, fd.file).next() == Some(index) => {
                    steps.push(FileStep::PidFd { of, number, close_on_exec, flags });
                    if copies > 0 {
                        steps.push(FileStep::Hand { number, letter_box, copies });
                    }
                }
                None => steps.push(FileStep::Take { letter_box, number, close_on_exec }),
            }
            known.push((number, close_on_exec));
            continue;
        }
        let in_place =
            index == 0 && wishes.inherit_stdio && number <= 2 && inherited.contains_key(&fd.file);
        if !in_place {
            let from = numbers[&fd.file][0].0;
            let close_on_exec = fd.close_on_exec;
            steps.push(FileStep::Duplicate { from, to: number, close_on_exec });
        }
        if seen.insert(fd.file) {
            let owner = checkpoint.files[fd.file].owner;
            steps.extend(events::step(task, number, owner, wishes.ids));
        }
    }
    steps.extend(epolls_of_pidfds(checkpoint, index, &pidfds));
    steps
}

#[derive(Default)]
struct Pipe {
    ends: Vec<End>,
    capacity_bytes: u32,
    content: Vec<Vec<u8>>,
}

/// Unix sockets that are made together with another one.
#[derive(Default)]
struct Pairs {
    steps: Vec<(Placed, Option<Placed>)>,
    half: BTreeMap<u64, Placed>,
}

impl Pairs {
    /// Whether a socket cannot be made by itself. A datagram socket whose peer is connected to
    /// somebody else can: it is connected later, by the peer's name.
    fn takes(&self, files: &[OpenFile], unix: &UnixSocket) -> bool {
        match unix.state {
            UnixState::Orphan => true,
            UnixState::Connected { peer } => socket(files, peer).is_some_and(
                |other| matches!(other.state, UnixState::Connected { peer } if peer == unix.id),
            ),
            _ => false,
        }
    }

    fn add(&mut self, end: End, unix: &UnixSocket) {
        let UnixState::Connected { peer } = unix.state else {
            return self.steps.push(((end, unix.clone()), None));
        };
        match self.half.remove(&peer) {
            Some(other) => self.steps.push((other, Some((end, unix.clone())))),
            None => {
                self.half.insert(unix.id, (end, unix.clone()));
            }
        }
    }

    /// They come first: while they are made, they may have names that listening sockets get later.
    fn into_steps(self, files: &[OpenFile]) -> Vec<FileStep> {
        let names: Vec<&[u8]> = unix_sockets(files)
            .filter(|unix| matches!(unix.state, UnixState::Listening { .. }))
            .filter_map(|unix| unix.name.as_ref().map(|name| name.bytes.as_slice()))
            .collect();
        let stays = |unix: &UnixSocket| {
            unix.name
                .as_ref()
                .is_none_or(|name| name.file.is_some() && !names.contains(&name.bytes.as_slice()))
        };
        let step = |(a, b): (Placed, Option<Placed>)| {
            let keeps_file = stays(&a.1) && b.as_ref().is_none_or(|b| stays(&b.1));
            FileStep::UnixPair { a, b, keeps_file }
        };
        self.steps.into_iter().map(step).collect()
    }
}

fn unix_sockets(files: &[OpenFile]) -> impl Iterator<Item = &UnixSocket> {
    files.iter().filter_map(|file| match &file.kind {
        FileKind::Socket(Socket::Unix(unix)) => Some(unix),
        _ => None,
    })
}

fn socket(files: &[OpenFile], id: u64) -> Option<&UnixSocket> {
    unix_sockets(files).find(|unix| unix.id == id)
}

/// How a datagram socket is connected that is not one of a pair.
fn connect(files: &[OpenFile], number: i32, unix: &UnixSocket) -> Option<FileStep> {
    let name = match &unix.state {
        UnixState::Outside { name } => name.clone(),
        UnixState::Connected { peer } => {
            let other = socket(files, *peer)?;
            let mutual = matches!(other.state, UnixState::Connected { peer } if peer == unix.id);
            if mutual {
                return None;
            }
            other.name.as_ref()?.bytes.clone()
        }
        _ => return None,
    };
    Some(FileStep::UnixConnect { number, name })
}

/// Fills an epoll set: first what is disabled, then all others.
pub(super) fn epoll<'a>(
    epoll: i32,
    targets: impl Iterator<Item = &'a EpollTarget>,
    numbers: &BTreeMap<usize, Vec<(i32, bool)>>,
) -> Vec<FileStep> {
    // linux/eventpoll.h: everything but EPOLLEXCLUSIVE, EPOLLWAKEUP, EPOLLONESHOT, EPOLLET.
    const EVENTS: u32 = (1 << 28) - 1;
    const EPOLLONESHOT: u32 = 1 << 30;
    let add = |target: &EpollTarget| {
        let at = numbers.get(&target.file)?;
        let own = at.iter().find(|(number, _)| *number == target.fd.0);
        let via = own.or(at.first())?.0;
        Some(FileStep::EpollAdd { epoll, via, target: *target })
    };
    // Whatever else has no events would be ready again and again while it is drained.
    let is_disabled =
        |target: &&EpollTarget| target.events & (EVENTS | EPOLLONESHOT) == EPOLLONESHOT;
    let (disabled, enabled): (Vec<_>, Vec<_>) = targets.partition(is_disabled);
    let mut steps: Vec<FileStep> = disabled.into_iter().filter_map(add).collect();
    if !steps.is_empty() {
        steps.push(FileStep::EpollDrain { epoll });
    }
    steps.extend(enabled.into_iter().filter_map(add));
    steps
}

/// A timer that was set to a time of day still means that time; every other one has as long to go
/// as it had.
pub(super) fn on_this_clock(kind: FileKind, realtime_ns: u64) -> FileKind {
    const TFD_TIMER_ABSTIME: i32 = 1;
    const CLOCK_REALTIME: i32 = 0;
    const CLOCK_REALTIME_ALARM: i32 = 8;
    let FileKind::TimerFd { clock, ticks, settime_flags, value_ns, interval_ns } = kind else {
        return kind;
    };
    let of_day = matches!(clock, CLOCK_REALTIME | CLOCK_REALTIME_ALARM);
    let absolute = of_day && settime_flags & TFD_TIMER_ABSTIME != 0 && value_ns > 0;
    let (settime_flags, value_ns) = if absolute {
        (settime_flags, realtime_ns.saturating_add(value_ns))
    } else {
        (0, value_ns)
    };
    FileKind::TimerFd { clock, ticks, settime_flags, value_ns, interval_ns }
}

/// With `of_all`, those that a task holds are left to the task itself.
fn locks(number: i32, file: &OpenFile, of_all: bool) -> impl Iterator<Item = FileStep> {
    let path = match &file.kind {
        FileKind::Regular { file, .. } => file.path.clone(),
        FileKind::Directory { path, .. } | FileKind::Deleted { path, .. } => path.clone(),
        _ => "a file".to_owned(),
    };
    let step = move |lock: &FileLock| FileStep::Lock { number, path: path.clone(), lock: *lock };
    let by_task = |lock: &FileLock| matches!(lock.holder, LockHolder::Task(_));
    file.locks.iter().filter(move |lock| !of_all || !by_task(lock)).map(step)
}

/// What the process itself does to its descriptors when all its threads are there and the launcher's
/// files are closed.
pub(super) fn ops(
    checkpoint: &Checkpoint,
    index: usize,
    ids: Ids,
    warnings: &mut Vec<String>,
) -> Vec<PlanOp> {
    let locks = task_locks(&checkpoint.files, &checkpoint.tasks[index]);
    let locks = locks.map(|(number, lock)| PlanOp::LockFile { number, lock });
    locks.chain(events::ops(checkpoint, index, ids, warnings)).collect()
}

/// The listening unix sockets that the task is the first to have. KERNEL: the credentials that a client sees
/// are those of the last to call listen(2) (unix_listen, net/unix/af_unix.c); the launcher's may be others.
pub(super) fn listens(checkpoint: &Checkpoint, index: usize) -> Vec<PlanOp> {
    let mut seen = BTreeSet::new();
    let fds = checkpoint.tasks[index].fds.iter();
    // The standard streams may be those of the restoring process.
    let first =
        fds.filter(|fd| fd.number.0 > 2 && holders(checkpoint, fd.file).next() == Some(index));
    let listen = |fd: &tub_model::Fd| match &checkpoint.files[fd.file].kind {
        FileKind::Socket(Socket::Unix(UnixSocket {
            state: UnixState::Listening { backlog },
            ..
        })) if seen.insert(fd.file) => {
            Some(PlanOp::Listen { number: fd.number.0, backlog: *backlog })
        }
        _ => None,
    };
    first.filter_map(listen).collect()
}

/// Locks that the task itself holds, with the number of a descriptor: closing the launcher's own
/// descriptors of the same files has given them up.
fn task_locks<'a>(
    files: &'a [OpenFile],
    task: &'a Task,
) -> impl Iterator<Item = (i32, FileLock)> + 'a {
    task.fds.iter().flat_map(|fd| {
        let first = task.fds.iter().find(|other| other.file == fd.file);
        let is_first = first.is_some_and(|first| first.number == fd.number);
        let of_task = |lock: &&FileLock| lock.holder == LockHolder::Task(task.pid);
        let locks = files[fd.file].locks.iter().filter(of_task).filter(move |_| is_first);
        locks.map(|lock| (fd.number.0, *lock))
    })
}
