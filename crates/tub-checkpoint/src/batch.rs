//! Pages that are read together, by two threads where there are many.
//!
//! In: where pages lie in a process that stands still, memory for them. Out: their bytes, handed in in
//! the order in which they were asked for. Invariant: nothing is handed in before all of the batch has
//! been read.
//! Not here: which pages there are (`write`), and what becomes of them (`aside`).
//!
//! One thread copies some 3 GB/s, two nearly twice as much: the kernel looks up and copies page by page
//! (process_vm_readv(2)), and it is that work, not memory, that takes the time.

use crate::aside::{Halt, Outbox};
use crate::{Error, Result};
use std::sync::{Mutex, PoisonError};
use tub_image::Zeros;
use tub_tracee::Frozen;
use tub_units::RemoteAddr;

/// For less than this a second thread is not worth its start: one reads it in some 2 ms.
const BYTES_FOR_TWO: usize = 8 << 20;

/// Pages of one process, in the order of the image.
#[derive(Default)]
pub(crate) struct Batch<'a>(Vec<Piece<'a>>);

struct Piece<'a> {
    at: u64,
    chunk: &'a mut [u8],
    length: usize,
    zeros: Zeros,
    ends_range: bool,
}

impl<'a> Batch<'a> {
    /// Asks for the pages from `at` on, to be read into the first `length` bytes of `chunk`.
    pub(crate) fn add(&mut self, at: u64, (chunk, length): (&'a mut [u8], usize), zeros: Zeros) {
        self.0.push(Piece { at, chunk, length, zeros, ends_range: false });
    }

    /// Whether nothing is asked for.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pages asked for last are the last ones of their range.
    pub(crate) fn end_range(&mut self) {
        if let Some(last) = self.0.last_mut() {
            last.ends_range = true;
        }
    }

    /// Reads all, and hands it in.
    pub(crate) fn hand_in(
        &mut self,
        frozen: &Frozen,
        outbox: &Outbox<'a>,
    ) -> std::result::Result<(), Halt> {
        read_all(frozen, &mut self.0)?;
        for Piece { at, chunk, length, zeros, ends_range } in self.0.drain(..) {
            outbox.pages(at, (chunk, length), zeros, None)?;
            if ends_range {
                outbox.end_range()?;
            }
        }
        Ok(())
    }
}

fn read_all(frozen: &Frozen, pieces: &mut [Piece<'_>]) -> Result<()> {
    let bytes: usize = pieces.iter().map(|piece| piece.length).sum();
    let left = Mutex::new(pieces.iter_mut());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        while let Some(Piece { at, chunk, length, .. }) = next() {
            read(frozen, *at, &mut chunk[..*length])?;
        }
        Ok(())
    };
    if bytes < BYTES_FOR_TWO {
        return work();
    }
    // Where no thread can be had, we read it all ourselves.
    let (theirs, ours) = tub_sys::beside("tub-read", work, |_| work());
    ours.and(theirs.unwrap_or(Ok(())))
}

/// Reads memory of a process.
pub(crate) fn read(frozen: &Frozen, at: u64, to: &mut [u8]) -> Result<()> {
    let tracee = |source| Error::Tracee { pid: frozen.pid(), source };
    frozen.read(RemoteAddr(at), to).map_err(tracee)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    use tub_units::{AddrRange, HostPid};

    #[test]
    fn what_two_threads_read_is_what_is_there_and_what_cannot_be_read_is_told() {
        let mut child =
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // It has started when it answers.
        child.stdin.as_mut().unwrap().write_all(b"there\n").unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let pid = HostPid(i32::try_from(child.id()).unwrap());
        let maps = std::fs::read(format!("/proc/{pid}/maps")).unwrap();
        let maps = tub_procfs::maps::parse(&maps).unwrap();
        let readable = |map: &&tub_procfs::maps::MapsRecord| {
            map.perms.read && map.path.as_deref().is_some_and(|path| path.starts_with('/'))
        };
        let ranges: Vec<_> = maps.iter().filter(readable).map(|map| map.range).collect();
        let frozen = Frozen::freeze(pid).unwrap();
        let length = |range: &AddrRange| usize::try_from(range.len()).unwrap();
        let times = 2 * BYTES_FOR_TWO / ranges.iter().map(length).sum::<usize>();
        let asked: Vec<_> = (0..=times).flat_map(|_| ranges.iter().copied()).collect();
        let mut memory: Vec<Vec<u8>> = asked.iter().map(|range| vec![0; length(range)]).collect();
        let mut pieces: Vec<Piece<'_>> = memory
            .iter_mut()
            .zip(&asked)
            .map(|(chunk, range)| Piece {
                at: range.start(),
                length: length(range),
                chunk,
                zeros: Zeros::Content,
                ends_range: false,
            })
            .collect();
        read_all(&frozen, &mut pieces).unwrap();
        for piece in &pieces {
            let mut alone = vec![0; piece.length];
            read(&frozen, piece.at, &mut alone).unwrap();
            assert!(alone == piece.chunk, "{:#x}", piece.at);
        }
        pieces[3].at = 4096; // where nothing is
        let result = read_all(&frozen, &mut pieces);
        assert!(matches!(result, Err(Error::Tracee { .. })), "{result:?}");
        drop(frozen);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
