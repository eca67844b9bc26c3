//! `pages.tub`: the bytes of the pages, and the runs that say where each belongs.
//!
//! In: ranges of pages in ascending order. Out: a sparse file and its [`PageRun`]s.
//! Invariant: a run's bytes lie in the file as they lay in memory, page-aligned and contiguous, so
//! that one `mmap` brings a run back. Zeros are holes of the file.
//!
//! ```text
//! memory     | data | 3 zero pages | data | 40 zero pages | data |     anonymous
//! runs       |<------------ one ------------>|            |<two->|
//! pages.tub  | data |     hole     | data | data |
//! ```
//!
//! A short stretch of zeros stays within its run as a hole, because each run becomes a mapping at
//! restore, and mappings are what a restore costs (300: 2 ms, 1360: 5.6 ms). A long stretch ends
//! the run, so that freshly mapped anonymous memory can stand in for it.

use crate::error::{Error, ErrorKind, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tub_units::{AddrRange, PAGE_BYTES, RemoteAddr};
use xxhash_rust::xxh3::Xxh3;

/// A range of memory and where its bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// Page-aligned addresses, not empty.
    pub range: AddrRange,
    /// Offset in `pages.tub`, page-aligned.
    pub offset_bytes: u64,
    /// XXH3-64 of the bytes, zeros included.
    pub hash: u64,
}

/// What pages of zeros mean in a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zeros {
    /// Memory starts as zeros (anonymous memory): they need not be in any run.
    Implied,
    /// Without a run, the pages would be something else (private file mappings): they must be.
    Content,
}

/// Writes `pages.tub`.
#[derive(Debug)]
pub struct PageWriter {
    file: File,
    path: PathBuf,
    /// Runs of the tasks before.
    finished: Vec<Vec<PageRun>>,
    /// Runs of this one.
    runs: Vec<PageRun>,
    open: Option<OpenRun>,
    /// Logical length of the file so far: where the next page of a run goes.
    tail: u64,
    /// Addresses below this one have had their turn.
    passed: u64,
    /// Bytes not yet written; they go to `buffer_offset`.
    buffer: Vec<u8>,
    buffer_offset: u64,
    zero_pages: u64,
}

/// The run that grows.
struct OpenRun {
    start: u64,
    /// End of what the hash and the file already hold.
    end: u64,
    /// Zero pages after `end` that have been passed and may yet belong to the run.
    zeros_after: u64,
    bytes: Bytes,
    offset_bytes: u64,
    hash: Box<Xxh3>,
}

/// Where the bytes of a run come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bytes {
    /// They are stored for it.
    Own(Zeros),
    /// They are those of a finished task.
    Shared,
}

impl OpenRun {
    fn new(start: u64, bytes: Bytes, offset_bytes: u64) -> Self {
        Self { start, end: start, zeros_after: 0, bytes, offset_bytes, hash: Box::new(Xxh3::new()) }
    }
}

impl std::fmt::Debug for OpenRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenRun({:x}-{:x} +{} zero pages)", self.start, self.end, self.zeros_after)
    }
}

/// Stretches of zeros of this many pages end a run where zeros are implied.
const ZERO_PAGES_SPLIT: u64 = 16;

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 256 << 10;

/// [`PAGE_BYTES`] as a length.
const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_BYTES);

static ZERO_PAGE: [u8; PAGE] = [0; PAGE];

impl PageWriter {
    pub(crate) fn new(file: File, path: PathBuf) -> Self {
        Self {
            file,
            path,
            finished: Vec::new(),
            runs: Vec::new(),
            open: None,
            tail: 0,
            passed: 0,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            buffer_offset: 0,
            zero_pages: 0,
        }
    }

    /// Takes the pages from `start` on: whole pages, above all that came before.
    ///
    /// What follows directly on what came before continues its run; call
    /// [`PageWriter::finish_range`] between two mappings, since a run belongs to one.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] for bytes that are not whole pages or not in order,
    /// [`ErrorKind::NoSpace`], [`ErrorKind::System`].
    pub fn append(&mut self, start: RemoteAddr, bytes: &[u8], zeros: Zeros) -> Result<()> {
        let (pages, rest) = bytes.as_chunks::<PAGE>();
        if !start.is_page_aligned() || !rest.is_empty() {
            return Err(self.misuse("pages are whole"));
        }
        if start.0 < self.passed || start.checked_add(bytes.len() as u64).is_none() {
            return Err(self.misuse("addresses ascend"));
        }
        let continues = |open: &OpenRun| start.0 == self.passed && open.bytes == Bytes::Own(zeros);
        if !self.open.as_ref().is_some_and(continues) {
            self.finish_range()?;
        }
        self.passed = start.0;
        let mut rest = pages;
        while !rest.is_empty() {
            let zero_pages = rest.iter().take_while(|page| is_zero(page)).count();
            if zero_pages > 0 {
                self.append_zeros(zero_pages as u64, zeros)?;
            }
            rest = &rest[zero_pages..];
            let data_pages = rest.iter().take_while(|page| !is_zero(page)).count();
            let (data, after) = rest.split_at(data_pages);
            if data_pages > 0 {
                self.append_data(data.as_flattened(), zeros)?;
            }
            rest = after;
        }
        Ok(())
    }

    /// The parts of `range` whose bytes task `of`, which is finished, has in the file.
    pub fn stored(&self, of: usize, range: AddrRange) -> Vec<AddrRange> {
        let runs = self.finished.get(of).map_or(&[][..], Vec::as_slice);
        let first = runs.partition_point(|run| run.range.end() <= range.start());
        let near = runs[first..].iter().take_while(|run| run.range.start() < range.end());
        near.filter_map(|run| run.range.intersection(range)).collect()
    }

    /// Takes the pages from `start` on, as [`PageWriter::append`] does, without storing them once
    /// more: task `of` has the same bytes at the same addresses, in one of its
    /// [`PageWriter::stored`] parts. What follows directly on what was shared before, here and there,
    /// continues its run.
    ///
    /// # Errors
    /// As [`PageWriter::append`], and [`ErrorKind::Misuse`] where they are not stored.
    pub fn share(&mut self, of: usize, start: RemoteAddr, bytes: &[u8]) -> Result<()> {
        let shared = AddrRange::with_len(start.0, bytes.len() as u64);
        let runs = self.finished.get(of).map_or(&[][..], Vec::as_slice);
        let found = shared.and_then(|shared| {
            let run = runs.iter().find(|run| run.range.covers(shared))?;
            Some((shared, run.offset_bytes + (shared.start() - run.range.start())))
        });
        let Some((range, offset_bytes)) = found else {
            return Err(self.misuse("shared pages are stored"));
        };
        if !range.is_page_aligned() || range.is_empty() || range.start() < self.passed {
            return Err(self.misuse("addresses ascend"));
        }
        let continues = |open: &OpenRun| {
            open.bytes == Bytes::Shared
                && open.end == range.start()
                && open.offset_bytes + (open.end - open.start) == offset_bytes
        };
        if !self.open.as_ref().is_some_and(continues) {
            self.finish_range()?;
        }
        let begin = || OpenRun::new(range.start(), Bytes::Shared, offset_bytes);
        let open = self.open.get_or_insert_with(begin);
        open.hash.update(bytes);
        open.end = range.end();
        self.passed = range.end();
        Ok(())
    }

    /// Ends the run, so that what follows starts another one.
    ///
    /// # Errors
    /// [`ErrorKind::NoSpace`], [`ErrorKind::System`].
    pub fn finish_range(&mut self) -> Result<()> {
        if let Some(mut open) = self.open.take() {
            if open.bytes == Bytes::Own(Zeros::Content) {
                self.flush()?;
                self.settle_zeros(&mut open);
            }
            let range = AddrRange::new(open.start, open.end).expect("a run only grows");
            let (offset_bytes, hash) = (open.offset_bytes, open.hash.digest());
            self.runs.push(PageRun { range, offset_bytes, hash });
        }
        Ok(())
    }

    /// Ends the task or memory file: what follows belongs to the next one, whose addresses start
    /// anew.
    ///
    /// # Errors
    /// [`ErrorKind::NoSpace`], [`ErrorKind::System`].
    pub fn finish_task(&mut self) -> Result<()> {
        self.finish_range()?;
        self.finished.push(std::mem::take(&mut self.runs));
        self.passed = 0;
        Ok(())
    }

    fn append_zeros(&mut self, pages: u64, zeros: Zeros) -> Result<()> {
        self.zero_pages += pages;
        let start = self.passed;
        self.passed += pages * PAGE_BYTES;
        if self.open.is_none() && zeros == Zeros::Content {
            self.open = Some(OpenRun::new(start, Bytes::Own(zeros), self.tail));
        }
        if let Some(open) = &mut self.open {
            open.zeros_after += pages;
            if zeros == Zeros::Implied && open.zeros_after >= ZERO_PAGES_SPLIT {
                self.finish_range()?;
            }
        }
        Ok(())
    }

    fn append_data(&mut self, bytes: &[u8], zeros: Zeros) -> Result<()> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => OpenRun::new(self.passed, Bytes::Own(zeros), self.tail),
        };
        if open.zeros_after > 0 {
            self.flush()?;
            self.settle_zeros(&mut open);
        }
        open.hash.update(bytes);
        open.end += bytes.len() as u64;
        self.open = Some(open);
        self.passed += bytes.len() as u64;
        self.store(bytes)
    }

    /// Makes the zeros after `open` part of it: a hole in the file. The buffer must be empty.
    fn settle_zeros(&mut self, open: &mut OpenRun) {
        for _ in 0..open.zeros_after {
            open.hash.update(&ZERO_PAGE);
        }
        let hole = open.zeros_after * PAGE_BYTES;
        open.end += hole;
        open.zeros_after = 0;
        self.tail += hole;
    }

    /// Puts `bytes` at the tail of the file.
    fn store(&mut self, bytes: &[u8]) -> Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if bytes.len() >= BUFFER_BYTES {
            self.write(bytes, self.tail)?;
        } else {
            if self.buffer.is_empty() {
                self.buffer_offset = self.tail;
            }
            self.buffer.extend_from_slice(bytes);
        }
        self.tail += bytes.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.write(&self.buffer, self.buffer_offset)?;
            self.buffer.clear();
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(|error| Error::system(&self.path, "write", error))
    }

    /// Gives the file its full length, and syncs it.
    pub(crate) fn finish(&mut self) -> Result<Pages> {
        if self.open.is_some() || !self.runs.is_empty() {
            return Err(self.misuse("the last task is finished"));
        }
        self.flush()?;
        let path = &self.path;
        let failed = |call| move |error| Error::system(path, call, error);
        // A hole at the end has not been written by anything.
        self.file.set_len(self.tail).map_err(failed("ftruncate"))?;
        self.file.sync_all().map_err(failed("fsync"))?;
        let metadata = self.file.metadata().map_err(failed("fstat"))?;
        Ok(Pages {
            runs: std::mem::take(&mut self.finished),
            pages_bytes: self.tail,
            stored_bytes: std::os::unix::fs::MetadataExt::blocks(&metadata) * STAT_BLOCK_BYTES,
            zero_pages: self.zero_pages,
        })
    }

    fn misuse(&self, rule: &'static str) -> Error {
        Error::new(&self.path, ErrorKind::Misuse { rule })
    }
}

/// POSIX leaves the unit of `st_blocks` open; Linux has always used 512 bytes (`stat(2)`).
const STAT_BLOCK_BYTES: u64 = 512;

/// What a finished page file holds.
pub(crate) struct Pages {
    pub(crate) runs: Vec<Vec<PageRun>>,
    pub(crate) pages_bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) zero_pages: u64,
}

/// Compares with a page of zeros: `memcmp` stops at the first difference, and most pages that are
/// not zeros differ early.
fn is_zero(page: &[u8; PAGE]) -> bool {
    *page == ZERO_PAGE
}

/// Hashes the run's bytes in `file`, through `buffer`, and compares.
fn is_intact(file: &File, run: &PageRun, buffer: &mut [u8], path: &Path) -> Result<bool> {
    let mut hash = Xxh3::new();
    let mut done = 0;
    while done < run.range.len() {
        let left = usize::try_from(run.range.len() - done).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        let piece = &mut buffer[..length];
        let read = file.read_exact_at(piece, run.offset_bytes + done);
        read.map_err(|error| Error::system(path, "read", error))?;
        hash.update(piece);
        done += piece.len() as u64;
    }
    Ok(hash.digest() == run.hash)
}

/// The runs whose bytes in `file` are not what they were.
///
/// One thread: the kernel reads ahead while we hash, and hashing is faster than any disk. The
/// caller may want to enter a namespace afterwards, which only a process with one thread can.
pub(crate) fn altered<'a>(
    file: &File,
    runs: impl Iterator<Item = &'a PageRun>,
    path: &Path,
) -> Result<Vec<AddrRange>> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut ranges = Vec::new();
    for run in runs {
        if !is_intact(file, run, &mut buffer, path)? {
            ranges.push(run.range);
        }
    }
    Ok(ranges)
}
