//! Streams the pages of a frozen process into the image.
//!
//! In: the mappings of the checkpoint, the process's memory. Out: bytes in the page store.
//! Invariant: only what `collect` chose is read; nothing is decided here.

use crate::{Error, Result};
use tub_image::{PageWriter, Zeros};
use tub_model::{Backing, Task};
use tub_tracee::Frozen;
use tub_units::RemoteAddr;

/// Bytes copied at once: large enough that system calls do not count, small enough for the cache.
const CHUNK_BYTES: usize = 1 << 20;

/// Writes all saved pages of `task`.
pub(crate) fn pages(frozen: &Frozen, task: &Task, writer: &mut PageWriter) -> Result<()> {
    let mut chunk = vec![0u8; CHUNK_BYTES];
    for vma in &task.vmas {
        let zeros = match vma.backing {
            Backing::PrivateFile { .. } => Zeros::Content,
            _ => Zeros::Implied,
        };
        for range in &vma.saved {
            let mut at = range.start();
            while at < range.end() {
                let rest = usize::try_from(range.end() - at).unwrap_or(usize::MAX);
                let bytes = &mut chunk[..rest.min(CHUNK_BYTES)];
                frozen
                    .read(RemoteAddr(at), bytes)
                    .map_err(|source| Error::Tracee { pid: frozen.pid(), source })?;
                writer.append(RemoteAddr(at), bytes, zeros).map_err(Error::Image)?;
                at += bytes.len() as u64;
            }
            writer.finish_range().map_err(Error::Image)?;
        }
    }
    writer.finish_task().map_err(Error::Image)
}
