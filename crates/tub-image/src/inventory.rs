//! The body of `inventory.tub`: records in, a checkpoint and its runs out, and back.
//!
//! In: a [`Checkpoint`] with its runs, or the bytes after the header. Out: the other.
//! Invariant: every byte of a body is accounted for: a record is understood in whole, or optional
//! and listed, or the body is refused.
//! Not here: checksums (`image`), and whether the parts fit together (`structure`).

use crate::error::ErrorKind;
use crate::layout::{Frame, OPTIONAL, put_frame, take_frame};
use crate::pages::PageRun;
use crate::v1;
use serde::{Deserialize, Serialize};
use tub_model::{Checkpoint, Task};

/// Everything that the body says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inventory {
    pub(crate) checkpoint: Checkpoint,
    /// Of each task, and then of each memory file.
    pub(crate) runs: Vec<Vec<PageRun>>,
    /// Kind and version of optional records that this release does not know.
    pub(crate) unread: Vec<(u32, u32)>,
}

const PROVENANCE: u32 = 1;
const HOST: u32 = 2;
const CLOCKS: u32 = 3;
const COORDINATION: u32 = 4;
const TASK: u32 = 5;
const MEMORY: u32 = 6;
const DESCRIPTORS: u32 = 7;
const SIGNALS: u32 = 8;
const THREADS: u32 = 9;
const RUNS: u32 = 10;
const FILES: u32 = 11;
const ZOMBIES: u32 = 12;
const MEMORY_FILES: u32 = 13;

/// The body for `checkpoint` and `runs`.
pub(crate) fn encode(checkpoint: &Checkpoint, runs: &[Vec<PageRun>]) -> Vec<u8> {
    let Checkpoint { provenance, host, clocks, coordination, files, memory_files, tasks, zombies } =
        checkpoint;
    let mut body = Vec::with_capacity(256 << 10);
    put(&mut body, PROVENANCE, &v1::ProvenanceRecord::new(provenance));
    put(&mut body, HOST, &v1::HostRecord::new(host));
    put(&mut body, CLOCKS, &v1::ClocksRecord::new(*clocks));
    if let Some(coordination) = coordination {
        put(&mut body, COORDINATION, &v1::CoordinationRecord::new(coordination));
    }
    put(&mut body, FILES, &v1::FilesRecord::new(files));
    for (task, runs) in tasks.iter().zip(runs) {
        put(&mut body, TASK, &v1::TaskRecord::new(task));
        put(&mut body, MEMORY, &v1::MemoryRecord::new(task));
        put(&mut body, DESCRIPTORS, &v1::DescriptorsRecord::new(&task.fds));
        put(&mut body, SIGNALS, &v1::SignalsRecord::new(task));
        put(&mut body, THREADS, &v1::ThreadsRecord::new(&task.threads));
        put(&mut body, RUNS, &v1::RunsRecord::new(runs));
    }
    put(&mut body, ZOMBIES, &v1::ZombiesRecord::new(zombies));
    let runs = runs.get(tasks.len()..).unwrap_or_default();
    put(&mut body, MEMORY_FILES, &v1::MemoryFilesRecord::new(memory_files, runs));
    body
}

fn put(body: &mut Vec<u8>, kind: u32, record: &impl Serialize) {
    let payload = postcard::to_allocvec(record)
        .expect("a record of sequences with known lengths, written to memory, cannot fail");
    put_frame(body, kind, 1, &payload);
}

/// What `body` says.
///
/// # Errors
/// [`ErrorKind::Malformed`] or [`ErrorKind::UnknownRecord`].
pub(crate) fn decode(body: &[u8]) -> Result<Inventory, ErrorKind> {
    let mut parts = Parts::default();
    let mut rest = body;
    while !rest.is_empty() {
        let (frame, after) = take_frame(rest).ok_or_else(|| malformed("a record is cut short"))?;
        rest = after;
        parts.add(frame)?;
    }
    parts.finish()
}

/// The records seen so far.
#[derive(Default)]
struct Parts<'a> {
    provenance: Option<v1::ProvenanceRecord<'a>>,
    host: Option<v1::HostRecord<'a>>,
    clocks: Option<v1::ClocksRecord>,
    coordination: Option<v1::CoordinationRecord<'a>>,
    files: Option<v1::FilesRecord<'a>>,
    tasks: Vec<TaskRecords<'a>>,
    zombies: Option<v1::ZombiesRecord<'a>>,
    memory_files: Option<v1::MemoryFilesRecord<'a>>,
    unread: Vec<(u32, u32)>,
}

/// The records of one task: the first one starts it, the others follow in any order.
struct TaskRecords<'a> {
    task: v1::TaskRecord<'a>,
    memory: Option<v1::MemoryRecord<'a>>,
    descriptors: Option<v1::DescriptorsRecord>,
    signals: Option<v1::SignalsRecord<'a>>,
    threads: Option<v1::ThreadsRecord<'a>>,
    runs: Option<v1::RunsRecord>,
}

impl<'a> Parts<'a> {
    fn add(&mut self, frame: Frame<'a>) -> Result<(), ErrorKind> {
        let Frame { kind, version, payload } = frame;
        if version != 1 || !(PROVENANCE..=MEMORY_FILES).contains(&kind) {
            if kind & OPTIONAL == 0 {
                return Err(ErrorKind::UnknownRecord { kind, version });
            }
            self.unread.push((kind, version));
            return Ok(());
        }
        match kind {
            PROVENANCE => once(&mut self.provenance, payload, "provenance"),
            HOST => once(&mut self.host, payload, "host"),
            CLOCKS => once(&mut self.clocks, payload, "clocks"),
            COORDINATION => once(&mut self.coordination, payload, "coordination"),
            TASK => {
                let mut task = None;
                once(&mut task, payload, "task")?;
                self.tasks.extend(task.map(|task| TaskRecords {
                    task,
                    memory: None,
                    descriptors: None,
                    signals: None,
                    threads: None,
                    runs: None,
                }));
                Ok(())
            }
            FILES => once(&mut self.files, payload, "files"),
            ZOMBIES => once(&mut self.zombies, payload, "zombies"),
            MEMORY_FILES => once(&mut self.memory_files, payload, "memory files"),
            _ => {
                let first = || malformed("a part of a task comes before any task");
                let task = self.tasks.last_mut().ok_or_else(first)?;
                match kind {
                    MEMORY => once(&mut task.memory, payload, "memory"),
                    DESCRIPTORS => once(&mut task.descriptors, payload, "descriptors"),
                    SIGNALS => once(&mut task.signals, payload, "signals"),
                    THREADS => once(&mut task.threads, payload, "threads"),
                    _ => once(&mut task.runs, payload, "runs"),
                }
            }
        }
    }

    fn finish(self) -> Result<Inventory, ErrorKind> {
        let provenance = present(self.provenance, "provenance")?.into_model();
        let host = present(self.host, "host")?.into_model();
        let clocks = present(self.clocks, "clocks")?.into_model();
        let coordination = self.coordination.map(v1::CoordinationRecord::into_model).transpose();
        let coordination = coordination.map_err(malformed)?;
        let files = present(self.files, "files")?.into_model().map_err(malformed)?;
        let zombies = present(self.zombies, "zombies")?.into_model().map_err(malformed)?;
        let finished = self.tasks.into_iter().map(TaskRecords::finish);
        let (tasks, mut runs) = finished.collect::<Result<(Vec<_>, Vec<_>), _>>()?;
        let memory_files = present(self.memory_files, "memory files")?;
        let (memory_files, their_runs) = memory_files.into_model().map_err(malformed)?;
        runs.extend(their_runs);
        let checkpoint = Checkpoint {
            provenance,
            host,
            clocks,
            coordination,
            files,
            memory_files,
            tasks,
            zombies,
        };
        Ok(Inventory { checkpoint, runs, unread: self.unread })
    }
}

impl TaskRecords<'_> {
    fn finish(self) -> Result<(Task, Vec<PageRun>), ErrorKind> {
        let parts = v1::TaskParts {
            memory: present(self.memory, "memory")?.into_model().map_err(malformed)?,
            fds: present(self.descriptors, "descriptors")?.into_model().map_err(malformed)?,
            signals: present(self.signals, "signals")?.into_model().map_err(malformed)?,
            threads: present(self.threads, "threads")?.into_model().map_err(malformed)?,
        };
        let runs = present(self.runs, "runs")?.into_model().map_err(malformed)?;
        Ok((self.task.into_model(parts).map_err(malformed)?, runs))
    }
}

/// Decodes all of `payload` into `slot`, which must be empty.
fn once<'a, T: Deserialize<'a>>(
    slot: &mut Option<T>,
    payload: &'a [u8],
    name: &str,
) -> Result<(), ErrorKind> {
    if slot.is_some() {
        return Err(malformed(format!("there are two {name} records where one belongs")));
    }
    match postcard::take_from_bytes(payload) {
        Ok((record, [])) => {
            *slot = Some(record);
            Ok(())
        }
        Ok((_, rest)) => Err(malformed(format!(
            "{} bytes of the {name} record are not accounted for",
            rest.len()
        ))),
        Err(error) => Err(malformed(format!("the {name} record cannot be decoded: {error}"))),
    }
}

fn present<T>(record: Option<T>, name: &str) -> Result<T, ErrorKind> {
    record.ok_or_else(|| malformed(format!("there is no {name} record")))
}

fn malformed(what: impl Into<String>) -> ErrorKind {
    ErrorKind::Malformed { what: what.into() }
}
