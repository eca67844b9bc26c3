//! A pause: the application is told, and the process stops where it is until a restore has it go on,
//! as a *restored* one. For trying out both sides of a checkpoint without an image.
//!
//! In: a process; later the directory that says which. Out: the same process, stopped; then running,
//! with a letter in its mailbox.
//! Invariant: it goes on once. Nobody has it go on who could not have stopped it, and no other process
//! that has its id by now.
//!
//! SIGSTOP stops all its threads, so that the one that waits in the mailbox does not see its deadline
//! pass; the letter is there before SIGCONT. The note lies in its directory before the process stops:
//! should we be killed in between, it goes on at its deadline, and a restore finds it running.
//! Not here: the note (`note`).

mod note;

use super::{Coordinate, Engine, EngineKind, EngineUnusable, Inspection, Report, generation_of};
use crate::checkpoint::{CheckpointError, CheckpointOptions};
use crate::restore::{RestoreError, RestoreOptions, Restoring, letter, missing_labels};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
pub(super) use note::is_note;
use note::{Claim, Note, Placed};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tub_checkpoint::{StageTimes, TcpPolicy, deliver, deliver_to};
use tub_control::{Client, mailbox};
use tub_restore::plan::{Ids, MemoryMode, Stdio};
use tub_restore::{Other, Running, Stats};
use tub_units::{HostPid, RemoteAddr};

/// How long threads may take to stop: one in an uninterruptible wait stops after it.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Why a process cannot be paused, or does not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PauseError {
    /// What it is asked for makes no sense with it.
    #[error("the engine pause does not know {what}")]
    Unsupported {
        /// What.
        what: &'static str,
    },
    /// There is something already.
    #[error("{}: exists, and is neither empty nor the directory of a pause that is over", dir.display())]
    Exists {
        /// Where.
        dir: PathBuf,
    },
    /// Another process waits there.
    #[error("{}: process {pid} is paused there", dir.display())]
    Occupied {
        /// Where.
        dir: PathBuf,
        /// Who.
        pid: HostPid,
    },
    /// It is more than one process.
    #[error("process {pid} has {count} descendant(s), which would go on")]
    Descendants {
        /// Who.
        pid: HostPid,
        /// How many.
        count: usize,
    },
    /// A debugger has it.
    #[error("process {pid} is traced by process {tracer}")]
    Traced {
        /// Who.
        pid: HostPid,
        /// By whom.
        tracer: HostPid,
    },
    /// The kernel keeps a restore from the mailbox.
    #[error("kernel.yama.ptrace_scope is {scope}: a restore could not reach the mailbox")]
    Yama {
        /// What it is.
        scope: String,
    },
    /// The application gave no usable mailbox.
    #[error("the application names no mailbox")]
    NoMailbox,
    /// It does not stop.
    #[error("process {pid} has not stopped within {waited:?}")]
    NotStopped {
        /// Who.
        pid: HostPid,
        /// How long was waited.
        waited: Duration,
    },
    /// The note cannot be used.
    #[error("{}: {reason}", path.display())]
    Note {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It went on already.
    #[error("process {pid} was restored already: what is paused goes on once")]
    Over {
        /// Who.
        pid: HostPid,
    },
    /// It is gone.
    #[error("process {pid} has ended since it was paused")]
    Gone {
        /// Who.
        pid: HostPid,
    },
    /// It is not stopped, or does not wait any more.
    #[error("process {pid} is paused no more: somebody else has continued it")]
    Continued {
        /// Who.
        pid: HostPid,
    },
    /// It is another user's.
    #[error("process {pid} belongs to uid {uid}")]
    NotOurs {
        /// Who.
        pid: HostPid,
        /// Whose.
        uid: u32,
    },
    /// Its mailbox cannot be reached.
    #[error("the mailbox of process {pid} cannot be reached")]
    Mailbox {
        /// Whose.
        pid: HostPid,
        /// Why.
        source: io::Error,
    },
    /// It cannot be signalled.
    #[error("process {pid} cannot be sent {signal}")]
    Signal {
        /// Who.
        pid: HostPid,
        /// Which.
        signal: &'static str,
        /// Why.
        source: Errno,
    },
    /// A file cannot be read or written.
    #[error("{}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Stops, and has go on.
#[derive(Clone, Copy, Debug)]
pub struct PauseEngine;

impl PauseEngine {
    /// Whether the process that was paused in `dir` would go on: it is there, is ours, stopped, and waits.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn verify(dir: &Path) -> Result<(), PauseError> {
        let (note, is_over) = Note::read(dir)?;
        find(&note, is_over).map(drop)
    }
}

impl Engine for PauseEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Pause
    }

    fn check(&self) -> Result<String, EngineUnusable> {
        let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok();
        let is_root = nix::unistd::geteuid().is_root();
        match scope.as_deref().map(str::trim) {
            Some(scope) if scope != "0" && !is_root => {
                Err(PauseError::Yama { scope: scope.to_owned() }.into())
            }
            _ => Ok(env!("CARGO_PKG_VERSION").to_owned()),
        }
    }

    fn checkpoint(
        &self,
        pid: HostPid,
        options: &CheckpointOptions,
        coordinate: Coordinate<'_>,
    ) -> Result<Report, CheckpointError> {
        let untouched = |source| CheckpointError::Pause { source, stopped: false };
        let tree = tub_checkpoint::survey_tree(pid)?;
        let main = tree.main();
        let other = Other::open(pid).map_err(|_| untouched(PauseError::Gone { pid }))?;
        supports(options).map_err(untouched)?;
        if let Err(EngineUnusable::Pause(error)) = self.check() {
            return Err(untouched(error));
        }
        if main.status.tracer_pid.0 != 0 {
            return Err(untouched(PauseError::Traced { pid, tracer: main.status.tracer_pid }));
        }
        if tree.members.len() > 1 {
            let count = tree.members.len() - 1;
            return Err(untouched(PauseError::Descendants { pid, count }));
        }
        let (start, threads) = (main.stat.starttime, main.threads.len());
        place(&options.dir, options.replace, (pid, start)).map_err(untouched)?;
        let generation = generation_of(pid) + 1;
        let begun = Instant::now();
        let prepared = coordinate()?.ok_or(CheckpointError::NobodyToTell)?;
        let Some(place) = prepared.mailbox.range() else {
            return Err(untouched(PauseError::NoMailbox));
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let metrics = options.metrics_with(Some(&prepared));
        let note = Note {
            v: 1,
            engine: "pause".into(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            created_unix_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
            generation,
            pid: pid.0,
            start,
            boot: boot(),
            threads,
            mailbox: place.start(),
            runtime: prepared.runtime,
            resources: prepared.resources,
            labels: options.labels.clone(),
            metrics,
        };
        let stopping = Instant::now();
        let placed = Placed::new(&options.dir, &note);
        let stopped = placed.and_then(|placed| {
            stop(&other, pid)?;
            Ok(placed.keep())
        });
        let image_bytes = stopped.map_err(|source| {
            let failed =
                mailbox::Failed { message: crate::sentence(&source), failures: Vec::new() };
            let letter = mailbox::encode_failed(&failed).unwrap_or_default();
            deliver(pid, RemoteAddr(place.start()), &letter);
            let _ = other.send(Signal::SIGCONT as i32);
            CheckpointError::Pause { source, stopped: true }
        })?;
        Ok(Report {
            engine: EngineKind::Pause,
            dir: options.dir.clone(),
            image_bytes,
            processes: 1,
            threads,
            times: StageTimes {
                freeze: stopping.elapsed(),
                collect: stopping.duration_since(begun),
                ..StageTimes::default()
            },
            not_ended: None,
        })
    }

    fn restore(
        &self,
        options: &RestoreOptions,
        stats: &mut Stats,
    ) -> Result<Restoring, RestoreError> {
        let unsupported = |what| RestoreError::Unsupported { engine: EngineKind::Pause, what };
        if options.ids == Ids::New {
            return Err(unsupported("--pids new: the process is there, and has its ids"));
        }
        if options.memory != MemoryMode::Auto {
            return Err(unsupported("--memory: the process is there, and has its memory"));
        }
        if options.stdio == Stdio::Image {
            return Err(unsupported("--stdio: the process has the standard streams that it had"));
        }
        let (note, is_over) = Note::read(&options.dir)?;
        stats.mark("opened_us");
        let missing = missing_labels(&note.labels, &options.required_labels);
        if !missing.is_empty() {
            return Err(RestoreError::Labels(missing));
        }
        let letter = letter(note.generation, options)?;
        let (other, memory) = find(&note, is_over)?;
        // As everybody finds them who restores; they are passed on from now on.
        let _ = SigSet::all().thread_block();
        let pid = HostPid(note.pid);
        let claim = Claim::take(&options.dir)?.ok_or(PauseError::Over { pid })?;
        stats.mark("parked_us");
        Ok(Restoring::paused(Paused {
            pid,
            other,
            memory,
            mailbox: RemoteAddr(note.mailbox),
            letter,
            claim,
        }))
    }

    fn inspect(&self, dir: &Path) -> Result<Inspection, RestoreError> {
        let (note, _) = Note::read(dir)?;
        Ok(Inspection {
            engine: EngineKind::Pause,
            engine_version: note.tool_version,
            created_unix_ns: note.created_unix_ns,
            generation: note.generation,
            labels: note.labels,
            pid: note.pid,
            threads: note.threads,
            runtime: Some(note.runtime),
            resources: note.resources,
        })
    }
}

/// A process that is paused, and ours to have go on.
#[derive(Debug)]
pub(crate) struct Paused {
    pid: HostPid,
    other: Other,
    memory: File,
    mailbox: RemoteAddr,
    letter: Vec<u8>,
    claim: Claim,
}

impl Paused {
    /// Leaves the letter, and has it go on.
    pub(crate) fn resume(self) -> Result<Running, PauseError> {
        let Self { pid, other, memory, mailbox, letter, claim } = self;
        deliver_to(&memory, mailbox, &letter)
            .map_err(|source| PauseError::Mailbox { pid, source })?;
        match other.send(Signal::SIGCONT as i32) {
            Ok(()) => {}
            Err(Errno::ESRCH) => return Err(PauseError::Gone { pid }),
            Err(source) => return Err(PauseError::Signal { pid, signal: "SIGCONT", source }),
        }
        claim.use_up();
        Ok(other.running())
    }
}

/// What makes no sense for a process that only stops is refused by name.
fn supports(options: &CheckpointOptions) -> Result<(), PauseError> {
    let unsupported = |what| Err(PauseError::Unsupported { what });
    if options.leave_running {
        return unsupported(
            "--leave-running: the process is stopped, and nothing else is kept of it",
        );
    }
    if options.tcp == TcpPolicy::Close {
        return unsupported("--tcp close: connections stay as they are");
    }
    if !options.beside.is_empty() {
        return unsupported("files of others beside an image");
    }
    Ok(())
}

/// Whether a note of `process` may lie in `dir`.
fn place(dir: &Path, replace: bool, process: (HostPid, u64)) -> Result<(), PauseError> {
    let io = |source| PauseError::Io { path: dir.to_owned(), source };
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    fs::metadata(parent).map_err(|source| PauseError::Io { path: parent.to_owned(), source })?;
    let Ok(metadata) = fs::symlink_metadata(dir) else { return Ok(()) };
    if metadata.is_dir() && fs::read_dir(dir).map_err(io)?.next().is_none() {
        return Ok(());
    }
    if !is_note(dir) {
        return Err(PauseError::Exists { dir: dir.to_owned() });
    }
    let (note, is_over) = Note::read(dir)?;
    match find(&note, is_over) {
        // It would wait for ever.
        Ok(_) => Err(PauseError::Occupied { dir: dir.to_owned(), pid: HostPid(note.pid) }),
        // As with images, the one that a process came from makes room for the next.
        Err(_) if replace || (note.pid, note.start) == (process.0.0, process.1) => Ok(()),
        Err(_) => Err(PauseError::Exists { dir: dir.to_owned() }),
    }
}

/// Stops all threads of a process.
fn stop(other: &Other, pid: HostPid) -> Result<(), PauseError> {
    match other.send(Signal::SIGSTOP as i32) {
        Ok(()) => {}
        Err(Errno::ESRCH) => return Err(PauseError::Gone { pid }),
        Err(source) => return Err(PauseError::Signal { pid, signal: "SIGSTOP", source }),
    }
    let start = Instant::now();
    while start.elapsed() < STOP_PATIENCE {
        if is_stopped(pid)? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(PauseError::NotStopped { pid, waited: STOP_PATIENCE })
}

/// Whether all threads of a process are stopped, but for those that have ended.
fn is_stopped(pid: HostPid) -> Result<bool, PauseError> {
    let gone = |_| PauseError::Gone { pid };
    let mut stopped = false;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).map_err(gone)? {
        let stat = fs::read(thread.map_err(gone)?.path().join("stat"));
        // One that has ended meanwhile is none.
        let Some(stat) = stat.ok().and_then(|text| tub_procfs::stat::parse(&text).ok()) else {
            continue;
        };
        match stat.state {
            'T' => stopped = true,
            'Z' | 'X' => {}
            _ => return Ok(false),
        }
    }
    if stopped { Ok(true) } else { Err(PauseError::Gone { pid }) }
}

/// The process of a note, if it still waits, and its memory.
fn find(note: &Note, is_over: bool) -> Result<(Other, File), PauseError> {
    let pid = HostPid(note.pid);
    if is_over {
        return Err(PauseError::Over { pid });
    }
    // First of all, so that everything below is about what it names.
    let other = Other::open(pid).map_err(|_| PauseError::Gone { pid })?;
    let read = |name: &str| fs::read(format!("/proc/{pid}/{name}"));
    let stat = read("stat").ok().and_then(|text| tub_procfs::stat::parse(&text).ok());
    let is_same = stat.is_some_and(|stat| stat.starttime == note.start && stat.state != 'Z');
    if !is_same || boot() != note.boot {
        return Err(PauseError::Gone { pid });
    }
    let status = read("status").ok().and_then(|text| tub_procfs::status::parse(&text).ok());
    let status = status.ok_or(PauseError::Gone { pid })?;
    let us = nix::unistd::geteuid();
    if let Some(uid) = status.uids.into_iter().find(|&uid| uid != us.as_raw())
        && !us.is_root()
    {
        return Err(PauseError::NotOurs { pid, uid });
    }
    if !is_stopped(pid)? {
        return Err(PauseError::Continued { pid });
    }
    let unreachable = |source| PauseError::Mailbox { pid, source };
    let path = format!("/proc/{pid}/mem");
    let memory = File::options().read(true).write(true).open(path).map_err(unreachable)?;
    // Continued, and stopped again: it listens by now, or its mailbox is gone or has a letter.
    let mut state = [0; 4];
    let is_empty = memory.read_exact_at(&mut state, note.mailbox).is_ok()
        && u32::from_ne_bytes(state) == mailbox::WAITING;
    if !is_empty || !matches!(Client::find(pid), Ok(None)) {
        return Err(PauseError::Continued { pid });
    }
    Ok((other, memory))
}

/// Which boot of the kernel this is.
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
