//! Which mappings to make, and where each page comes from.
//!
//! In: mappings, page runs, the mode. Out: operations. Pure.
//! Invariant: no operation leaves memory writable and executable unless the original was.
//!
//! ```text
//!   lazy   saved run ≥ 2 pages   MAP_PRIVATE of the page store over the mapping, or beside the rest of it
//!          a single page         read into it
//!   exact  every run             read into anonymous memory: MADV_DONTNEED gives zeros again
//! ```

use super::vdso::{self, Bridge};
use super::{MappedFile, PlanError, PlanOp};
use std::collections::HashMap;
use tub_image::PageRun;
use tub_model::{Backing, Lock, MemoryFile, Protection, Task, Vma};
use tub_units::{AddrRange, HostPid, PAGE_BYTES};

/// Runs shorter than this many pages are read rather than mapped. Beside what is mapped already, a mapping
/// takes 1.3 µs, and a page of it that is then written to 3.4; to read takes 3.5 µs for one page and 5.5
/// for two, needed or not. Of two, mostly ends of stacks, most are not needed soon.
const SMALL_RUN_PAGES: u64 = 2;

/// The files that the mappings of all tasks need, each once.
#[derive(Debug, Default)]
pub(super) struct MappedFiles {
    files: Vec<MappedFile>,
    /// Index by path and whether it is open for writing.
    known: HashMap<(String, bool), usize>,
    /// Index of those that are made anew, by the path that they had.
    scratch: HashMap<String, usize>,
}

impl MappedFiles {
    /// Starts with the files that the image brings along, so that each keeps its index.
    pub(super) fn new(memory_files: &[MemoryFile], runs: &[Vec<PageRun>]) -> Self {
        let mut all = Self::default();
        let no_runs = Vec::new();
        for (index, file) in memory_files.iter().enumerate() {
            let content = runs.get(index).unwrap_or(&no_runs).clone();
            let name = format!("{} (no. {index})", file.kind.describe());
            all.files.push(MappedFile::Memory { file: file.clone(), content, name });
        }
        all
    }

    /// Index of one of the files that the image brings along, open for writing or not.
    fn memory_file(&mut self, file: usize, may_write: bool) -> usize {
        if may_write {
            return file;
        }
        let name = self.files.get(file).map_or_else(String::new, |file| file.path().to_owned());
        self.index(MappedFile::ReadOnly { of: file, name })
    }

    /// Seals of the files that the image brings along, as operations.
    fn seals(&self) -> Vec<PlanOp> {
        let sealed = (0..).zip(&self.files).filter_map(|(index, file)| match file {
            MappedFile::Memory { file, .. } if file.seals != 0 => {
                Some(PlanOp::SealFile { file: index, seals: file.seals })
            }
            _ => None,
        });
        sealed.collect()
    }

    /// Index of `file`, which is new or known.
    fn index(&mut self, file: MappedFile) -> usize {
        let key = (file.path().to_owned(), file.is_writable());
        *self.known.entry(key).or_insert_with(|| {
            self.files.push(file);
            self.files.len() - 1
        })
    }

    /// Index of a scratch file that had that path.
    fn scratch(&mut self, path: &str, file: MappedFile) -> usize {
        if let Some(&index) = self.scratch.get(path) {
            return index;
        }
        self.files.push(file);
        let index = self.files.len() - 1;
        self.scratch.insert(path.to_owned(), index);
        index
    }

    /// The name under which a scratch file is made: the restoring process's id, with zeros in front
    /// by which several differ.
    fn scratch_name(&self, path: &str, restorer: HostPid) -> String {
        match path.rsplit_once('/') {
            Some((directory, _)) if !path.starts_with("/memfd:") => {
                let width = 8 + self.scratch.len();
                format!("{directory}/{:0width$}", restorer.0)
            }
            _ => path.to_owned(),
        }
    }

    /// All of them, by index.
    pub(super) fn into_files(self) -> Vec<MappedFile> {
        self.files
    }
}

/// The mappings of a task, as operations in the order in which to perform them.
struct MemoryPlan<'a> {
    ops: Vec<PlanOp>,
    files: &'a mut MappedFiles,
}

/// What the plan of the memory depends on besides the image.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemoryWishes<'a> {
    /// Whether pages are mapped from the store where that is possible.
    pub(super) lazy: bool,
    /// Whether the page store's file system forbids executable mappings.
    pub(super) store_is_noexec: bool,
    /// Where the image's vdso is not this kernel's: how the one leads to the other.
    pub(super) bridge: Option<Bridge<'a>>,
    /// Whether pages may be locked into memory.
    pub(super) lock: bool,
    /// What this kernel has.
    pub(super) kernel: MemoryFacts,
    /// Whether other tasks may map what is to be sealed.
    pub(super) seals_together: bool,
    /// Whose id files have for a name that are made anew.
    pub(super) restorer: HostPid,
}

impl MemoryWishes<'_> {
    /// Whether the pages of `vma` may come from the store when they are touched.
    const fn is_lazy(self, vma: &Vma) -> bool {
        // A stack must stay anonymous: over a file mapping /proc/PID/cmdline reads empty, and it no
        // longer grows. Locked pages are all touched at once, so mapping them would copy each.
        let resident = self.lock && matches!(vma.lock, Lock::Resident);
        self.lazy && !vma.grows_down && !resident
    }
}

/// Kinds of memory that not every kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryFacts {
    /// Guards: KERNEL(since 6.13).
    pub guards: bool,
    /// Droppable memory: KERNEL(since 6.11).
    pub droppable: bool,
    /// `mseal`: KERNEL(since 6.10).
    pub seals: bool,
}

/// Plans all mappings of `task`; the files that the operations name by index go to `files`.
pub(super) fn plan(
    task: &Task,
    runs: &[PageRun],
    wishes: MemoryWishes<'_>,
    files: &mut MappedFiles,
) -> Result<Vec<PlanOp>, PlanError> {
    let mut plan = MemoryPlan { ops: Vec::new(), files };
    // The vdso goes first: the kernel takes the address as a wish, granted only while it is free.
    if let Some(bridge) = wishes.bridge {
        plan.ops.extend(vdso::plan(task, runs, bridge)?);
    } else {
        for vma in task.vmas.iter().filter(|vma| vma.backing == Backing::Vdso) {
            plan.ops.push(PlanOp::MapVdso(tub_units::RemoteAddr(vma.range.start())));
            plan.ops.push(PlanOp::CheckMapped(vma.range));
        }
    }
    let mut rest = runs;
    for vma in &task.vmas {
        let first = rest.partition_point(|run| run.range.end() <= vma.range.start());
        rest = &rest[first..];
        let count = rest.partition_point(|run| run.range.start() < vma.range.end());
        let (own, _) = rest.split_at(count);
        plan.vma(task, vma, own, wishes);
    }
    // Seals come when everything is mapped, since some forbid new mappings and leave the old ones
    // alone; and once, since one of them forbids any more.
    if wishes.seals_together {
        plan.ops.push(PlanOp::HaveMapped);
    }
    if task.parent.is_none() {
        plan.ops.extend(wishes.seals_together.then_some(PlanOp::AwaitMapped));
        let seals = plan.files.seals();
        plan.ops.extend(seals);
    }
    if wishes.lock && task.mm.lock_future != Lock::None {
        plan.ops.push(PlanOp::LockFuture { on_fault: task.mm.lock_future == Lock::OnFault });
    }
    Ok(plan.ops)
}

/// Of the pages known to be written to first, those that lie in private writable memory.
pub(super) fn hot(task: &Task, ranges: &[AddrRange]) -> Vec<AddrRange> {
    let mut hot = Vec::with_capacity(ranges.len());
    let mut rest = ranges;
    for vma in &task.vmas {
        let private = matches!(vma.backing, Backing::Anonymous | Backing::PrivateFile { .. });
        // A stack is not mapped from the image: its pages are there.
        if !private || !vma.protection.write || vma.grows_down {
            continue;
        }
        rest = &rest[rest.partition_point(|range| range.end() <= vma.range.start())..];
        let own = rest.iter().take_while(|range| range.start() < vma.range.end());
        hot.extend(own.filter_map(|range| range.intersection(vma.range)));
    }
    hot
}

impl MemoryPlan<'_> {
    fn vma(&mut self, task: &Task, vma: &Vma, runs: &[PageRun], wishes: MemoryWishes<'_>) {
        let protection = vma.protection;
        match &vma.backing {
            Backing::Vdso => return,
            Backing::Anonymous => {
                let Vma { no_reserve, grows_down, .. } = *vma;
                let droppable = vma.droppable && wishes.kernel.droppable;
                self.private(vma, runs, wishes, |_, range, protection| PlanOp::MapAnonymous {
                    range,
                    protection,
                    no_reserve,
                    grows_down,
                    droppable,
                });
            }
            Backing::PrivateFile { file, offset_bytes } => {
                let map = map_of(vma, *offset_bytes);
                self.private(vma, runs, wishes, |files, range, protection| {
                    map(files.index(MappedFile::existing(file, false)), range, protection)
                });
            }
            Backing::MemoryFile { file, offset_bytes, shared: false, .. } => {
                let map = map_of(vma, *offset_bytes);
                self.private(vma, runs, wishes, |files, range, protection| {
                    map(files.memory_file(*file, false), range, protection)
                });
            }
            Backing::MemoryFile { file, offset_bytes, may_write, .. } => {
                let file = self.files.memory_file(*file, *may_write);
                let (range, offset_bytes) = (vma.range, *offset_bytes);
                self.ops.push(PlanOp::MapFile {
                    range,
                    protection,
                    shared: true,
                    file,
                    offset_bytes,
                });
            }
            Backing::SharedFile { file, offset_bytes, may_write } => {
                let file = self.files.index(MappedFile::existing(file, *may_write));
                let (range, offset_bytes) = (vma.range, *offset_bytes);
                self.ops.push(PlanOp::MapFile {
                    range,
                    protection,
                    shared: true,
                    file,
                    offset_bytes,
                });
            }
            Backing::SharedScratchFile { path, mode } => {
                let range = vma.range;
                let scratch = MappedFile::Scratch {
                    path: self.files.scratch_name(path, wishes.restorer),
                    of: task.pid,
                    owner: task.credentials.uids[1],
                    mode: *mode,
                    size_bytes: range.len(),
                    start: range.start(),
                    content: runs.to_vec(),
                };
                let file = self.files.scratch(path, scratch);
                let map =
                    PlanOp::MapFile { range, protection, shared: true, file, offset_bytes: 0 };
                self.ops.push(map);
            }
        }
        self.finish(vma, wishes);
    }

    /// What comes once the content is in place.
    fn finish(&mut self, vma: &Vma, wishes: MemoryWishes<'_>) {
        let advise = |&advice: &i32| PlanOp::Advise { range: vma.range, advice };
        self.ops.extend(vma.advice.iter().map(advise));
        // Before the lock: the kernel takes no guard in locked memory.
        self.ops.extend(vma.guards.iter().copied().map(PlanOp::Guard));
        if wishes.lock && vma.lock != Lock::None {
            let on_fault = vma.lock == Lock::OnFault;
            let untouchable = vma.protection == Protection::default() || !vma.guards.is_empty();
            self.ops.push(PlanOp::Lock { range: vma.range, on_fault, untouchable });
        }
        if vma.sealed && wishes.kernel.seals {
            self.ops.push(PlanOp::Seal(vma.range));
        }
    }

    /// Makes a private mapping with its content: what is mapped from the store, and beneath it, or beside
    /// it where that will do, what `beneath` makes for a range with rights.
    fn private(
        &mut self,
        vma: &Vma,
        runs: &[PageRun],
        wishes: MemoryWishes<'_>,
        beneath: impl FnOnce(&mut MappedFiles, AddrRange, Protection) -> PlanOp,
    ) {
        let protection = vma.protection;
        let runs = runs.iter().filter_map(|run| {
            let range = run.range.intersection(vma.range)?;
            // A small run in memory that is not writable is mapped all the same: changing rights
            // twice costs more.
            let small = range.len() < SMALL_RUN_PAGES * PAGE_BYTES && protection.write;
            let forbidden = wishes.store_is_noexec && protection.execute;
            let mapped = wishes.is_lazy(vma) && !small && !forbidden;
            Some((range, run.offset_bytes + (range.start() - run.range.start()), mapped))
        });
        let runs: Vec<_> = runs.collect();
        let needs_write = (!protection.write || protection.execute)
            && runs.iter().any(|(.., is_mapped)| !is_mapped);
        let mapped = || runs.iter().filter(|run| run.2).map(|run| run.0);
        // What would lie beneath the first and the last could never be seen.
        let start =
            mapped().fold(
                vma.range.start(),
                |start, run| {
                    if run.start() == start { run.end() } else { start }
                },
            );
        let end = mapped()
            .rev()
            .fold(vma.range.end(), |end, run| if run.end() == end { run.start() } else { end });
        if start < end {
            let range = AddrRange::new(start, end).expect("its start is before its end");
            // Writable while content is read into it; the right is taken away again below.
            let protection = if needs_write { WRITABLE } else { protection };
            self.ops.push(beneath(self.files, range, protection));
        }
        for (range, offset_bytes, is_mapped) in runs {
            let no_reserve = vma.no_reserve;
            self.ops.push(if is_mapped {
                PlanOp::MapPages { range, protection, offset_bytes, no_reserve }
            } else {
                PlanOp::ReadPages { range, offset_bytes }
            });
        }
        if needs_write {
            self.ops.push(PlanOp::Protect { range: vma.range, protection });
        }
    }
}

/// Makes operations that map parts of `vma`, which maps a file privately from there on.
fn map_of(vma: &Vma, offset_bytes: u64) -> impl Fn(usize, AddrRange, Protection) -> PlanOp {
    let start = vma.range.start();
    move |file, range, protection| {
        let offset_bytes = offset_bytes + (range.start() - start);
        PlanOp::MapFile { range, protection, shared: false, file, offset_bytes }
    }
}

/// Rights while content is being read into a mapping: never executable at the same time.
const WRITABLE: Protection = Protection { read: true, write: true, execute: false };
