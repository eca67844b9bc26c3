//! What makes an image as big as it is, and what is known to lie in it.
//!
//! In: an image. Out: [`Anatomy`], one for each task. Invariant: only `inventory.tub` is believed, and
//! of `pages.tub` no more is read than the command line and the environment; their values stay here.
//! Not here: words and JSON (the parent).
//!
//! The kernel keeps no note of what memory is for, so purposes are inferred, in this order:
//!
//! ```text
//! executable and anonymous                        generated code (a JVM's code cache)
//! grows down, or holds a thread's stack pointer   stacks
//! between the bounds of brk                       malloc
//! in 64 MiB that begin as an arena of glibc does  malloc
//! anonymous after a JVM's shared archive (.jsa)   class space
//! in a JVM, the largest run of neighbours left    Java heap
//! ```
//!
//! Arenas come before the heap: they lie side by side, and many of them are more address space than a
//! small heap.

use super::secrets::Secrets;
use nix::unistd::{Whence, lseek};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use tub_image::{Image, PageRun};
use tub_model::{Backing, Task, Vma};
use tub_units::AddrRange;

/// What one task's memory is made of.
#[derive(Debug)]
pub(crate) struct Anatomy {
    /// By purpose.
    pub(crate) kinds: BTreeMap<Kind, Sum>,
    /// Purpose and sizes of each mapping, in their order.
    pub(crate) mappings: Vec<(Kind, Sum)>,
    /// What looks like a secret.
    pub(crate) secrets: Secrets,
    /// How many variables the environment has.
    pub(crate) variables: usize,
}

/// What memory is for, as far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Private memory of no known purpose.
    Anonymous,
    /// Metadata of classes.
    ClassSpace,
    /// Machine code that a program has made.
    GeneratedCode,
    /// Objects of a JVM.
    JavaHeap,
    /// Of a C library's allocator.
    Malloc,
    /// Mappings of files that the image brings along: shared memory, deleted files.
    MemoryFile,
    /// Private mappings of files: programs, libraries, archives.
    PrivateFile,
    /// A file made anew by a restore.
    ScratchFile,
    /// Shared mappings of files.
    SharedFile,
    /// Of the main thread and of all others.
    Stacks,
    /// The kernel's.
    Vdso,
}

impl Kind {
    /// Its name, for people and in JSON.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::ClassSpace => "class space",
            Self::GeneratedCode => "generated code",
            Self::JavaHeap => "java heap",
            Self::Malloc => "malloc",
            Self::MemoryFile => "memory file",
            Self::PrivateFile => "private file",
            Self::ScratchFile => "scratch file",
            Self::SharedFile => "shared file",
            Self::Stacks => "stacks",
            Self::Vdso => "vdso",
        }
    }
}

/// Sizes, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    /// How many mappings.
    pub(crate) mappings: u64,
    /// Address space.
    pub(crate) bytes: u64,
    /// What the image owes to the process.
    pub(crate) saved_bytes: u64,
    /// Of that, what takes room on the disk: the rest is zeros.
    pub(crate) stored_bytes: u64,
}

impl std::ops::AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        self.mappings += other.mappings;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.saved_bytes = self.saved_bytes.saturating_add(other.saved_bytes);
        self.stored_bytes = self.stored_bytes.saturating_add(other.stored_bytes);
    }
}

impl Anatomy {
    /// Of the task with that index.
    pub(crate) fn of(image: &Image, index: usize) -> Self {
        let task = &image.checkpoint.tasks[index];
        let runs = &image.runs[index];
        let mut kinds: BTreeMap<Kind, Sum> = BTreeMap::new();
        let mut mappings = Vec::with_capacity(task.vmas.len());
        for (vma, kind) in task.vmas.iter().zip(kinds_of(image, index)) {
            let first = runs.partition_point(|run| run.range.end() <= vma.range.start());
            let own = runs[first..].iter().take_while(|run| run.range.start() < vma.range.end());
            let sum = Sum {
                mappings: 1,
                bytes: vma.range.len(),
                saved_bytes: vma.saved.iter().map(|range| range.len()).sum(),
                stored_bytes: own.map(|run| stored_bytes(image, run)).sum(),
            };
            *kinds.entry(kind).or_default() += sum;
            mappings.push((kind, sum));
        }
        let block = |start, end| memory(image, runs, start, end);
        let environment = block(task.mm.env_start, task.mm.env_end);
        let arguments = block(task.mm.arg_start, task.mm.arg_end);
        let variables = environment.split(|&byte| byte == 0).filter(|line| !line.is_empty());
        Self {
            kinds,
            mappings,
            variables: variables.count(),
            secrets: Secrets::among(&environment, &arguments),
        }
    }
}

/// What a run takes on the disk: holes are pages of zeros.
fn stored_bytes(image: &Image, run: &PageRun) -> u64 {
    let end = run.offset_bytes + run.range.len();
    let mut at = run.offset_bytes;
    let mut stored = 0;
    while at < end {
        // Where the file system knows of no holes, all of it is data.
        let Some(data) = seek(image, at, Whence::SeekData) else { break };
        if data >= end {
            break;
        }
        let hole = seek(image, data, Whence::SeekHole).unwrap_or(end).clamp(data + 1, end);
        stored += hole - data;
        at = hole;
    }
    stored
}

/// `None` where there is nothing of the kind up to the end of the file (ENXIO).
fn seek(image: &Image, from: u64, whence: Whence) -> Option<u64> {
    let from = i64::try_from(from).ok()?;
    lseek(&image.pages, from, whence).ok().and_then(|at| u64::try_from(at).ok())
}

/// An environment or a command line longer than the kernel takes is none (execve(2): with the
/// usual limits, 2 MiB for both).
const BLOCK_BYTES_MAX: u64 = 4 << 20;

/// What lay in memory from `start` to `end`; what is not in the image reads as zeros.
fn memory(image: &Image, runs: &[PageRun], start: u64, end: u64) -> Vec<u8> {
    let Some(wanted) = AddrRange::new(start, end).filter(|range| range.len() <= BLOCK_BYTES_MAX)
    else {
        return Vec::new();
    };
    let mut bytes = vec![0; usize::try_from(wanted.len()).unwrap_or(0)];
    let first = runs.partition_point(|run| run.range.end() <= start);
    for run in &runs[first..] {
        let Some(part) = run.range.intersection(wanted) else { break };
        let at = usize::try_from(part.start() - start).unwrap_or(0);
        let length = usize::try_from(part.len()).unwrap_or(0);
        let offset = run.offset_bytes + (part.start() - run.range.start());
        let _ = image.pages.read_exact_at(&mut bytes[at..at + length], offset);
    }
    bytes
}

fn kinds_of(image: &Image, index: usize) -> Vec<Kind> {
    let (task, runs) = (&image.checkpoint.tasks[index], &image.runs[index]);
    let mut kinds: Vec<Kind> = task.vmas.iter().map(|vma| plain_kind(task, vma)).collect();
    mark_stacks(task, &mut kinds);
    mark_arenas(task, runs, image, &mut kinds);
    if is_jvm(task) {
        mark_java(task, &mut kinds);
    }
    kinds
}

/// HEAP_MAX_SIZE of glibc's malloc/arena.c, on 64 bits; arenas are aligned to it.
const ARENA_BYTES: u64 = 64 << 20;

/// An arena is writable as far as it has grown, and the rest of its 64 MiB is not accessible.
fn mark_arenas(task: &Task, runs: &[PageRun], image: &Image, kinds: &mut [Kind]) {
    let is_start =
        |address| task.vmas.binary_search_by_key(&address, |vma| vma.range.start()).is_ok();
    let mut arena_end = 0;
    for (vma, kind) in task.vmas.iter().zip(kinds).filter(|(_, kind)| **kind == Kind::Anonymous) {
        let start = vma.range.start();
        if start.is_multiple_of(ARENA_BYTES) && vma.protection.write {
            let begins = begins_an_arena(&memory(image, runs, start, start + 8), is_start);
            arena_end = if begins { start + ARENA_BYTES } else { 0 };
        }
        if vma.range.end() <= arena_end {
            *kind = Kind::Malloc;
        }
    }
}

/// What glibc's arenas begin with (`heap_info`, malloc/arena.c): where the arena's own description lies, which
/// is behind this structure, here or in the first of the arena's stretches, where a mapping starts. A JVM's
/// metaspace or heap may start at 64 MiB as well, and begins otherwise.
fn begins_an_arena(bytes: &[u8], is_start: impl Fn(u64) -> bool) -> bool {
    let word = bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    let offset = word % ARENA_BYTES;
    matches!(offset, 32 | 48 | 64) && is_start(word - offset)
}

fn plain_kind(task: &Task, vma: &Vma) -> Kind {
    match vma.backing {
        Backing::Anonymous if vma.grows_down => Kind::Stacks,
        Backing::Anonymous if vma.protection.execute => Kind::GeneratedCode,
        Backing::Anonymous => {
            let heap = AddrRange::new(task.mm.start_brk, task.mm.brk);
            let is_heap = heap.is_some_and(|heap| heap.overlaps(vma.range));
            if is_heap { Kind::Malloc } else { Kind::Anonymous }
        }
        Backing::PrivateFile { .. } => Kind::PrivateFile,
        Backing::SharedFile { .. } => Kind::SharedFile,
        Backing::SharedScratchFile { .. } => Kind::ScratchFile,
        Backing::MemoryFile { .. } => Kind::MemoryFile,
        Backing::Vdso => Kind::Vdso,
    }
}

/// Index of the stack pointer in `struct user_regs_struct` (sys/user.h).
const RSP: usize = 19;

fn mark_stacks(task: &Task, kinds: &mut [Kind]) {
    for thread in &task.threads {
        let pointer = thread.registers.general[RSP];
        let at = task.vmas.partition_point(|vma| vma.range.end() <= pointer);
        if task.vmas.get(at).is_some_and(|vma| vma.range.contains(pointer))
            && kinds[at] == Kind::Anonymous
        {
            kinds[at] = Kind::Stacks;
        }
    }
}

fn is_jvm(task: &Task) -> bool {
    task.vmas.iter().any(|vma| path(vma).is_some_and(|path| path.ends_with("/libjvm.so")))
}

fn path(vma: &Vma) -> Option<&str> {
    match &vma.backing {
        Backing::PrivateFile { file, .. } => Some(&file.path),
        _ => None,
    }
}

/// Class space lies behind the archive of shared classes; of what is left, the heap is the largest
/// run of neighbours by far.
fn mark_java(task: &Task, kinds: &mut [Kind]) {
    for at in 1..kinds.len() {
        let (before, vma) = (&task.vmas[at - 1], &task.vmas[at]);
        let after_archive = path(before).is_some_and(|path| path.ends_with(".jsa"));
        let neighbours = before.range.end() == vma.range.start()
            || after_archive && vma.range.start() - before.range.end() < ARENA_BYTES;
        if kinds[at] == Kind::Anonymous
            && neighbours
            && (after_archive || kinds[at - 1] == Kind::ClassSpace)
        {
            kinds[at] = Kind::ClassSpace;
        }
    }
    let mut largest = 0..0;
    let mut largest_bytes = 0;
    let mut start = 0;
    for at in 0..=kinds.len() {
        let goes_on = at > start
            && at < kinds.len()
            && kinds[at] == Kind::Anonymous
            && task.vmas[at - 1].range.end() == task.vmas[at].range.start();
        if goes_on {
            continue;
        }
        let run = &task.vmas[start..at];
        let bytes: u64 = run.iter().map(|vma| vma.range.len()).sum();
        if !run.is_empty() && kinds[start] == Kind::Anonymous && bytes > largest_bytes {
            (largest, largest_bytes) = (start..at, bytes);
        }
        start = at;
    }
    kinds[largest].fill(Kind::JavaHeap);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arena_is_known_by_its_first_word() {
        let begins = |word: u64| {
            begins_an_arena(&word.to_le_bytes(), |start| {
                [0x7f00_0000_0000, 0x7f00_0400_0000].contains(&start)
            })
        };
        // sizeof(heap_info) was 32 bytes once, and is 48 with a page size in it.
        assert!(begins(0x7f00_0000_0020) && begins(0x7f00_0400_0030));
        assert!(
            !begins(0) && !begins(0x30) && !begins(0x7f00_0000_1230) && !begins(0x7f00_0800_0030)
        );
        // An object of Java begins with its lock and its hash.
        assert!(!begins(0x0012_3400_0001) && !begins_an_arena(&[], |_| true));
    }
}
