//! Reads the pages of a frozen tree, for the image.
//!
//! In: the mappings of the checkpoint, the processes' memory. Out: bytes, handed in to be written
//! ([`crate::aside`]). Invariant: only what `collect` chose is read.
//!
//! After a fork, parent and child share their pages until one of them writes. What is still the
//! same at the same address is stored once, so that instances that map it share it again.

use crate::aside::{CHUNK_BYTES, Halt, Outbox};
use crate::batch::{Batch, read};
use crate::sharing::Same;
use crate::{Error, Result};
use tub_image::Zeros;
use tub_model::{Backing, Checkpoint, Task};
use tub_tracee::{Frozen, FrozenTree};
use tub_units::{AddrRange, HostPid, PAGE_BYTES};

/// [`PAGE_BYTES`] as a length.
const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_BYTES);

/// Reads all saved pages of all tasks. `pids` are the tasks' ids here.
pub(crate) fn pages(
    tree: &FrozenTree,
    pids: &[HostPid],
    checkpoint: &Checkpoint,
    outbox: &Outbox<'_>,
) -> std::result::Result<(), Halt> {
    let frozen = |index: usize| {
        let pid = pids[index];
        let member = tree.members().iter().find(|member| member.pid() == pid);
        member.ok_or(Error::NoSuchProcess { pid })
    };
    for (index, task) in checkpoint.tasks.iter().enumerate() {
        let mut parent = match task.parent {
            Some(parent) => Some(Parent::new(parent, frozen(parent)?, &checkpoint.tasks[parent])),
            None => None,
        };
        task_pages(frozen(index)?, task, parent.as_mut(), outbox)?;
    }
    Ok(())
}

/// Nothing is written before all is read as long as there is room: then all of a task is one batch.
fn task_pages(
    frozen: &Frozen,
    task: &Task,
    mut parent: Option<&mut Parent<'_>>,
    outbox: &Outbox<'_>,
) -> std::result::Result<(), Halt> {
    let mut batch = Batch::default();
    for vma in &task.vmas {
        let zeros = match vma.backing {
            Backing::PrivateFile { .. } | Backing::MemoryFile { shared: false, .. } => {
                Zeros::Content
            }
            _ => Zeros::Implied,
        };
        for range in &vma.saved {
            let mut at = range.start();
            while at < range.end() {
                let wanted = range.end() - at;
                let length =
                    |chunk: &[u8]| usize::try_from(wanted).unwrap_or(usize::MAX).min(chunk.len());
                let to_spare = if parent.is_none() { outbox.chunk_to_spare(wanted) } else { None };
                let length = if let Some(chunk) = to_spare {
                    let length = length(chunk);
                    batch.add(at, (chunk, length), zeros);
                    length
                } else {
                    batch.hand_in(frozen, outbox)?;
                    let chunk = outbox.chunk(wanted)?;
                    let length = length(chunk);
                    let bytes = &mut chunk[..length];
                    read(frozen, at, bytes)?;
                    let same = match &mut parent {
                        Some(parent) => Some(parent.same(at, bytes)?),
                        None => None,
                    };
                    outbox.pages(at, (chunk, length), zeros, same)?;
                    length
                };
                at += length as u64;
            }
            if batch.is_empty() {
                outbox.end_range()?;
            } else {
                batch.end_range();
            }
        }
    }
    batch.hand_in(frozen, outbox)?;
    outbox.end_task()
}

/// The parent of a task, to compare with.
struct Parent<'a> {
    task: usize,
    frozen: &'a Frozen,
    /// What of it is stored, ascending.
    saved: Vec<AddrRange>,
    bytes: Vec<u8>,
}

impl<'a> Parent<'a> {
    fn new(index: usize, frozen: &'a Frozen, task: &Task) -> Self {
        let saved = task.vmas.iter().flat_map(|vma| vma.saved.iter().copied()).collect();
        Self { task: index, frozen, saved, bytes: vec![0; CHUNK_BYTES] }
    }

    /// Which of the pages from `start` on are the same in the parent.
    fn same(&mut self, start: u64, bytes: &[u8]) -> Result<Same> {
        let mut same = Same { task: self.task, ranges: Vec::new() };
        let Some(all) = AddrRange::with_len(start, bytes.len() as u64) else { return Ok(same) };
        let first = self.saved.partition_point(|range| range.end() <= all.start());
        for saved in self.saved[first..].iter().map_while(|range| range.intersection(all)) {
            let from = usize::try_from(saved.start() - start).unwrap_or(usize::MAX);
            let to = usize::try_from(saved.end() - start).unwrap_or(usize::MAX);
            let theirs = &mut self.bytes[from..to];
            read(self.frozen, saved.start(), theirs)?;
            let pages = bytes[from..to].chunks(PAGE).zip(theirs.chunks(PAGE));
            let mut at = saved.start();
            for (own, theirs) in pages {
                let end = at + PAGE_BYTES;
                if own == theirs {
                    match same.ranges.last_mut().filter(|last| last.end() == at) {
                        Some(last) => *last = AddrRange::new(last.start(), end).unwrap_or(*last),
                        None => same.ranges.extend(AddrRange::new(at, end)),
                    }
                }
                at = end;
            }
        }
        Ok(same)
    }
}
