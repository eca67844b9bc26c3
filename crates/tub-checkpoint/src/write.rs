//! Streams the pages of a frozen tree into the image.
//!
//! In: the mappings of the checkpoint, the processes' memory. Out: bytes in the page store.
//! Invariant: only what `collect` chose is read.
//!
//! After a fork, parent and child share their pages until one of them writes. What is still the
//! same at the same address is stored once, so that instances that map it share it again.

use crate::{Error, Result};
use tub_image::{PageWriter, Zeros};
use tub_model::{Backing, Checkpoint, Task};
use tub_tracee::{Frozen, FrozenTree};
use tub_units::{AddrRange, HostPid, PAGE_BYTES, RemoteAddr};

/// Bytes copied at once: large enough that system calls do not count, small enough that they are still
/// in the processor's own cache when they are looked at and written (1 MiB took a quarter more).
const CHUNK_BYTES: usize = 256 << 10;

/// [`PAGE_BYTES`] as a length.
const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_BYTES);

/// Fewer pages than this in a row are stored once more: a mapping of their own costs more at every
/// restore.
const SHARED_PAGES_MIN: usize = 16;

/// Writes all saved pages of all tasks. `pids` are the tasks' ids here.
pub(crate) fn pages(
    tree: &FrozenTree,
    pids: &[HostPid],
    checkpoint: &Checkpoint,
    writer: &mut PageWriter,
) -> Result<()> {
    let frozen = |index: usize| {
        let pid = pids[index];
        let member = tree.members().iter().find(|member| member.pid() == pid);
        member.ok_or(Error::NoSuchProcess { pid })
    };
    for (index, task) in checkpoint.tasks.iter().enumerate() {
        let parent = match task.parent {
            Some(parent) => Some((parent, frozen(parent)?)),
            None => None,
        };
        task_pages(frozen(index)?, task, parent, writer)?;
    }
    Ok(())
}

fn task_pages(
    frozen: &Frozen,
    task: &Task,
    parent: Option<(usize, &Frozen)>,
    writer: &mut PageWriter,
) -> Result<()> {
    let mut chunk = vec![0u8; CHUNK_BYTES];
    let mut theirs = vec![0u8; if parent.is_some() { CHUNK_BYTES } else { 0 }];
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
                let rest = usize::try_from(range.end() - at).unwrap_or(usize::MAX);
                let length = rest.min(CHUNK_BYTES);
                let bytes = &mut chunk[..length];
                read(frozen, at, bytes)?;
                match parent {
                    Some((index, parent)) => {
                        let theirs = &mut theirs[..length];
                        append_what_differs(at, bytes, (index, parent, theirs), zeros, writer)?;
                    }
                    None => append(at, bytes, zeros, writer)?,
                }
                at += length as u64;
            }
            writer.finish_range().map_err(Error::Image)?;
        }
    }
    writer.finish_task().map_err(Error::Image)
}

fn read(frozen: &Frozen, at: u64, to: &mut [u8]) -> Result<()> {
    let tracee = |source| Error::Tracee { pid: frozen.pid(), source };
    frozen.read(RemoteAddr(at), to).map_err(tracee)
}

fn append(at: u64, bytes: &[u8], zeros: Zeros, writer: &mut PageWriter) -> Result<()> {
    writer.append(RemoteAddr(at), bytes, zeros).map_err(Error::Image)
}

/// Appends `bytes`, but for what the parent has stored at the same addresses with the same content.
fn append_what_differs(
    start: u64,
    bytes: &[u8],
    (index, parent, theirs): (usize, &Frozen, &mut [u8]),
    zeros: Zeros,
    writer: &mut PageWriter,
) -> Result<()> {
    let Some(range) = AddrRange::with_len(start, bytes.len() as u64) else { return Ok(()) };
    let mut done = 0;
    for stored in writer.stored(index, range) {
        let from = usize::try_from(stored.start() - start).unwrap_or(usize::MAX);
        let to = usize::try_from(stored.end() - start).unwrap_or(usize::MAX);
        read(parent, stored.start(), &mut theirs[from..to])?;
        let mut at = from;
        while at < to {
            let pages = bytes[at..to].chunks(PAGE).zip(theirs[at..to].chunks(PAGE));
            let same = pages.take_while(|(own, theirs)| own == theirs).count();
            if same >= SHARED_PAGES_MIN {
                append(start + done as u64, &bytes[done..at], zeros, writer)?;
                done = at + same * PAGE;
                let shared = RemoteAddr(start + at as u64);
                writer.share(index, shared, &bytes[at..done]).map_err(Error::Image)?;
            }
            // The page after them differs.
            at += (same + 1) * PAGE;
        }
    }
    append(start + done as u64, &bytes[done..], zeros, writer)
}
