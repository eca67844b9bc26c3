//! How the descriptor tables are laid out again.
//!
//! In: descriptions and descriptors of all tasks. Out: steps for the launcher, in order. Pure.
//! Invariant: a step only uses numbers that an earlier one has made.
//!
//! Each description is opened once, in the process that becomes the main task, and placed at its
//! lowest number; its other numbers are duplicates. Sets that refer to other descriptors (epoll)
//! are filled when all are in place.

use std::collections::BTreeMap;
use tub_model::{Checkpoint, EpollTarget, FileKind, OpenFile, Socket};

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
    /// Makes a pipe and places its ends, or the one that is left.
    Pipe {
        /// Reading end: number, FD_CLOEXEC, status flags; `None` where it is closed.
        read: Option<(i32, bool, i32)>,
        /// Writing end.
        write: Option<(i32, bool, i32)>,
        /// Capacity in bytes.
        capacity_bytes: u32,
        /// What lies in it.
        content: Vec<u8>,
    },
    /// Makes two connected unix sockets.
    UnixPair {
        /// `SOCK_*`.
        kind: i32,
        /// The one: number, FD_CLOEXEC, status flags.
        a: (i32, bool, i32),
        /// The other.
        b: (i32, bool, i32),
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
    /// Adds a target to an epoll set.
    EpollAdd {
        /// The set.
        epoll: i32,
        /// The target.
        target: EpollTarget,
    },
}

/// The steps of all.
pub(super) struct FilePlan {
    /// Those that make the descriptions.
    pub(super) shared: Vec<FileStep>,
    /// Those that each task then makes its table with.
    pub(super) tasks: Vec<Vec<FileStep>>,
}

/// Plans the steps. With `inherit_stdio`, numbers 0 to 2 are those of the restoring process.
pub(super) fn plan(checkpoint: &Checkpoint, inherit_stdio: bool) -> FilePlan {
    let task = &checkpoint.tasks[0];
    let mut numbers: BTreeMap<usize, Vec<(i32, bool)>> = BTreeMap::new();
    for fd in &task.fds {
        numbers.entry(fd.file).or_default().push((fd.number.0, fd.close_on_exec));
    }
    let mut steps = Vec::new();
    let mut late = Vec::new();
    let mut pipes: BTreeMap<u64, Halves> = BTreeMap::new();
    let mut pairs: BTreeMap<u64, (i32, (i32, bool, i32))> = BTreeMap::new();
    for (&index, at) in &numbers {
        let file = &checkpoint.files[index];
        let (number, close_on_exec) = at[0];
        if !(inherit_stdio && number <= 2) {
            match &file.kind {
                FileKind::Pipe { id, write_end, capacity_bytes, content, .. } => {
                    let half = pipes.entry(*id).or_default();
                    let end = (number, close_on_exec, file.flags);
                    half.capacity_bytes = *capacity_bytes;
                    if *write_end {
                        half.write = Some(end);
                    } else {
                        half.read = Some(end);
                        half.content.clone_from(content);
                    }
                }
                FileKind::Socket(Socket::UnixPair { kind, id, peer }) => {
                    let end = (number, close_on_exec, file.flags);
                    match pairs.remove(peer) {
                        Some((_, other)) => {
                            steps.push(FileStep::UnixPair { kind: *kind, a: other, b: end });
                        }
                        None => {
                            pairs.insert(*id, (*kind, end));
                        }
                    }
                }
                _ => {
                    steps.push(FileStep::Open { number, close_on_exec, file: file.clone() });
                }
            }
            if let FileKind::Epoll { targets } = &file.kind {
                let adds =
                    targets.iter().map(|&target| FileStep::EpollAdd { epoll: number, target });
                late.extend(adds);
            }
        }
        for &(to, close_on_exec) in &at[1..] {
            if !(inherit_stdio && to <= 2) {
                late.insert(0, FileStep::Duplicate { from: number, to, close_on_exec });
            }
        }
    }
    steps.extend(pipes.into_values().map(|halves| FileStep::Pipe {
        read: halves.read,
        write: halves.write,
        capacity_bytes: halves.capacity_bytes,
        content: halves.content,
    }));
    FilePlan { shared: steps, tasks: vec![late] }
}

#[derive(Default)]
struct Halves {
    read: Option<(i32, bool, i32)>,
    write: Option<(i32, bool, i32)>,
    capacity_bytes: u32,
    content: Vec<u8>,
}
