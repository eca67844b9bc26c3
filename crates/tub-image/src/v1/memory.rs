//! The address space and the runs of pages.

use super::{Odd, RangeRecord};
use crate::pages::PageRun;
use serde::{Deserialize, Serialize};
use tub_model::{
    Backing, DiscardKind, Discarder, FileIdentity, Lock, MemoryFile, MemoryFileKind, MmFields,
    Protection, Task, Vma,
};
use tub_units::AddrRange;

/// Bounds and mappings of one task.
#[derive(Serialize, Deserialize)]
pub(crate) struct MemoryRecord<'a> {
    #[serde(borrow)]
    mm: MmFieldsRecord<'a>,
    #[serde(borrow)]
    vmas: Vec<VmaRecord<'a>>,
    #[serde(borrow)]
    discarders: Vec<DiscarderRecord<'a>>,
}

#[derive(Serialize, Deserialize)]
struct DiscarderRecord<'a> {
    path: &'a str,
    kind: DiscardKindRecord,
}

#[derive(Serialize, Deserialize)]
enum DiscardKindRecord {
    Imports,
    Allocator,
    Static,
    Unknown,
}

impl<'a> MemoryRecord<'a> {
    pub(crate) fn new(task: &'a Task) -> Self {
        Self {
            mm: MmFieldsRecord::new(&task.mm),
            vmas: task.vmas.iter().map(VmaRecord::new).collect(),
            discarders: task.discarders.iter().map(DiscarderRecord::new).collect(),
        }
    }

    pub(crate) fn into_model(self) -> Result<(MmFields, Vec<Vma>, Vec<Discarder>), Odd> {
        let vmas = self.vmas.into_iter().map(VmaRecord::into_model).collect::<Result<_, _>>()?;
        let discarders = self.discarders.into_iter().map(DiscarderRecord::into_model);
        Ok((self.mm.into_model(), vmas, discarders.collect()))
    }
}

impl<'a> DiscarderRecord<'a> {
    fn new(discarder: &'a Discarder) -> Self {
        let kind = match discarder.kind {
            DiscardKind::Imports => DiscardKindRecord::Imports,
            DiscardKind::Allocator => DiscardKindRecord::Allocator,
            DiscardKind::Static => DiscardKindRecord::Static,
            DiscardKind::Unknown => DiscardKindRecord::Unknown,
        };
        Self { path: &discarder.path, kind }
    }

    fn into_model(self) -> Discarder {
        let kind = match self.kind {
            DiscardKindRecord::Imports => DiscardKind::Imports,
            DiscardKindRecord::Allocator => DiscardKind::Allocator,
            DiscardKindRecord::Static => DiscardKind::Static,
            DiscardKindRecord::Unknown => DiscardKind::Unknown,
        };
        Discarder { path: self.path.to_owned(), kind }
    }
}

#[derive(Serialize, Deserialize)]
struct MmFieldsRecord<'a> {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: &'a [u8],
    lock_future: LockRecord,
}

impl<'a> MmFieldsRecord<'a> {
    fn new(mm: &'a MmFields) -> Self {
        Self {
            start_code: mm.start_code,
            end_code: mm.end_code,
            start_data: mm.start_data,
            end_data: mm.end_data,
            start_brk: mm.start_brk,
            brk: mm.brk,
            start_stack: mm.start_stack,
            arg_start: mm.arg_start,
            arg_end: mm.arg_end,
            env_start: mm.env_start,
            env_end: mm.env_end,
            auxv: &mm.auxv,
            lock_future: LockRecord::new(mm.lock_future),
        }
    }

    fn into_model(self) -> MmFields {
        MmFields {
            start_code: self.start_code,
            end_code: self.end_code,
            start_data: self.start_data,
            end_data: self.end_data,
            start_brk: self.start_brk,
            brk: self.brk,
            start_stack: self.start_stack,
            arg_start: self.arg_start,
            arg_end: self.arg_end,
            env_start: self.env_start,
            env_end: self.env_end,
            auxv: self.auxv.to_vec(),
            lock_future: self.lock_future.into_model(),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct VmaRecord<'a> {
    range: RangeRecord,
    /// `PROT_*` bits: 1 read, 2 write, 4 execute.
    protection: u8,
    #[serde(borrow)]
    backing: BackingRecord<'a>,
    grows_down: bool,
    no_reserve: bool,
    droppable: bool,
    sealed: bool,
    lock: LockRecord,
    advice: Vec<i32>,
    saved: Vec<RangeRecord>,
    guards: Vec<RangeRecord>,
}

impl<'a> VmaRecord<'a> {
    fn new(vma: &'a Vma) -> Self {
        let Vma { range, protection, backing, grows_down, no_reserve, .. } = vma;
        let Vma { droppable, sealed, lock, advice, saved, guards, .. } = vma;
        let ranges = |ranges: &[AddrRange]| ranges.iter().copied().map(RangeRecord::new).collect();
        let Protection { read, write, execute } = *protection;
        Self {
            range: RangeRecord::new(*range),
            protection: u8::from(read) | u8::from(write) << 1 | u8::from(execute) << 2,
            backing: BackingRecord::new(backing),
            grows_down: *grows_down,
            no_reserve: *no_reserve,
            droppable: *droppable,
            sealed: *sealed,
            lock: LockRecord::new(*lock),
            advice: advice.clone(),
            saved: ranges(saved),
            guards: ranges(guards),
        }
    }

    fn into_model(self) -> Result<Vma, Odd> {
        if self.protection > 7 {
            return Err("protection of a mapping has unknown bits");
        }
        let ranges = |ranges: Vec<RangeRecord>| {
            ranges.into_iter().map(RangeRecord::into_model).collect::<Option<_>>()
        };
        Ok(Vma {
            range: self.range.into_model().ok_or("a mapping ends before it starts")?,
            protection: Protection {
                read: self.protection & 1 != 0,
                write: self.protection & 2 != 0,
                execute: self.protection & 4 != 0,
            },
            backing: self.backing.into_model().ok_or("a mapping is of a file beyond any index")?,
            grows_down: self.grows_down,
            no_reserve: self.no_reserve,
            droppable: self.droppable,
            sealed: self.sealed,
            lock: self.lock.into_model(),
            advice: self.advice,
            saved: ranges(self.saved).ok_or("a saved range ends before it starts")?,
            guards: ranges(self.guards).ok_or("a guard ends before it starts")?,
        })
    }
}

/// The order of the variants is part of the format.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum LockRecord {
    None,
    Resident,
    OnFault,
}

impl LockRecord {
    const fn new(lock: Lock) -> Self {
        match lock {
            Lock::None => Self::None,
            Lock::Resident => Self::Resident,
            Lock::OnFault => Self::OnFault,
        }
    }

    const fn into_model(self) -> Lock {
        match self {
            Self::None => Lock::None,
            Self::Resident => Lock::Resident,
            Self::OnFault => Lock::OnFault,
        }
    }
}

/// The order of the variants is part of the format.
#[derive(Serialize, Deserialize)]
enum BackingRecord<'a> {
    Anonymous,
    PrivateFile {
        #[serde(borrow)]
        file: FileIdentityRecord<'a>,
        offset_bytes: u64,
    },
    SharedFile {
        #[serde(borrow)]
        file: FileIdentityRecord<'a>,
        offset_bytes: u64,
        may_write: bool,
    },
    SharedScratchFile {
        path: &'a str,
        mode: u32,
    },
    Vdso,
    MemoryFile {
        file: u64,
        offset_bytes: u64,
        shared: bool,
        may_write: bool,
    },
}

impl<'a> BackingRecord<'a> {
    fn new(backing: &'a Backing) -> Self {
        match backing {
            Backing::Anonymous => Self::Anonymous,
            Backing::PrivateFile { file, offset_bytes } => Self::PrivateFile {
                file: FileIdentityRecord::new(file),
                offset_bytes: *offset_bytes,
            },
            Backing::SharedFile { file, offset_bytes, may_write } => Self::SharedFile {
                file: FileIdentityRecord::new(file),
                offset_bytes: *offset_bytes,
                may_write: *may_write,
            },
            Backing::SharedScratchFile { path, mode } => {
                Self::SharedScratchFile { path, mode: *mode }
            }
            Backing::Vdso => Self::Vdso,
            Backing::MemoryFile { file, offset_bytes, shared, may_write } => Self::MemoryFile {
                file: *file as u64,
                offset_bytes: *offset_bytes,
                shared: *shared,
                may_write: *may_write,
            },
        }
    }

    fn into_model(self) -> Option<Backing> {
        Some(match self {
            Self::Anonymous => Backing::Anonymous,
            Self::PrivateFile { file, offset_bytes } => {
                Backing::PrivateFile { file: file.into_model(), offset_bytes }
            }
            Self::SharedFile { file, offset_bytes, may_write } => {
                Backing::SharedFile { file: file.into_model(), offset_bytes, may_write }
            }
            Self::SharedScratchFile { path, mode } => {
                Backing::SharedScratchFile { path: path.into(), mode }
            }
            Self::Vdso => Backing::Vdso,
            Self::MemoryFile { file, offset_bytes, shared, may_write } => Backing::MemoryFile {
                file: usize::try_from(file).ok()?,
                offset_bytes,
                shared,
                may_write,
            },
        })
    }
}

/// What a file is known by.
#[derive(Serialize, Deserialize)]
pub(super) struct FileIdentityRecord<'a> {
    path: &'a str,
    dev: u64,
    ino: u64,
    size_bytes: u64,
    mtime_ns: i64,
}

impl<'a> FileIdentityRecord<'a> {
    pub(super) fn new(file: &'a FileIdentity) -> Self {
        let FileIdentity { path, dev, ino, size_bytes, mtime_ns } = file;
        Self { path, dev: *dev, ino: *ino, size_bytes: *size_bytes, mtime_ns: *mtime_ns }
    }

    pub(super) fn into_model(self) -> FileIdentity {
        let Self { path, dev, ino, size_bytes, mtime_ns } = self;
        FileIdentity { path: path.into(), dev, ino, size_bytes, mtime_ns }
    }
}

/// The files that the image brings along.
#[derive(Serialize, Deserialize)]
pub(crate) struct MemoryFilesRecord<'a> {
    #[serde(borrow)]
    files: Vec<MemoryFileRecord<'a>>,
}

#[derive(Serialize, Deserialize)]
struct MemoryFileRecord<'a> {
    #[serde(borrow)]
    kind: MemoryFileKindRecord<'a>,
    size_bytes: u64,
    mode: u32,
    seals: u32,
    saved: Vec<RangeRecord>,
    runs: RunsRecord,
}

/// The order of the variants is part of the format.
#[derive(Serialize, Deserialize)]
enum MemoryFileKindRecord<'a> {
    Memfd { name: &'a str },
    SharedAnonymous,
    Deleted { path: &'a str },
}

impl<'a> MemoryFilesRecord<'a> {
    /// For `files`, of which each has its `runs`.
    pub(crate) fn new(files: &'a [MemoryFile], runs: &[Vec<PageRun>]) -> Self {
        let record = |(file, runs): (&'a MemoryFile, &Vec<PageRun>)| MemoryFileRecord {
            kind: match &file.kind {
                MemoryFileKind::Memfd { name } => MemoryFileKindRecord::Memfd { name },
                MemoryFileKind::SharedAnonymous => MemoryFileKindRecord::SharedAnonymous,
                MemoryFileKind::Deleted { path } => MemoryFileKindRecord::Deleted { path },
            },
            size_bytes: file.size_bytes,
            mode: file.mode,
            seals: file.seals,
            saved: file.saved.iter().copied().map(RangeRecord::new).collect(),
            runs: RunsRecord::new(runs),
        };
        Self { files: files.iter().zip(runs).map(record).collect() }
    }

    pub(crate) fn into_model(self) -> Result<(Vec<MemoryFile>, Vec<Vec<PageRun>>), Odd> {
        let file = |record: MemoryFileRecord<'_>| {
            let saved =
                record.saved.into_iter().map(RangeRecord::into_model).collect::<Option<_>>();
            let kind = match record.kind {
                MemoryFileKindRecord::Memfd { name } => MemoryFileKind::Memfd { name: name.into() },
                MemoryFileKindRecord::SharedAnonymous => MemoryFileKind::SharedAnonymous,
                MemoryFileKindRecord::Deleted { path } => {
                    MemoryFileKind::Deleted { path: path.into() }
                }
            };
            let file = MemoryFile {
                kind,
                size_bytes: record.size_bytes,
                mode: record.mode,
                seals: record.seals,
                saved: saved.ok_or("a saved range of a file ends before it starts")?,
            };
            Ok((file, record.runs.into_model()?))
        };
        self.files.into_iter().map(file).collect()
    }
}

/// Where the pages of one task lie in `pages.tub`.
#[derive(Serialize, Deserialize)]
pub(crate) struct RunsRecord {
    runs: Vec<RunRecord>,
}

#[derive(Serialize, Deserialize)]
struct RunRecord {
    range: RangeRecord,
    offset_bytes: u64,
    hash: u64,
}

impl RunsRecord {
    pub(crate) fn new(runs: &[PageRun]) -> Self {
        let record = |run: &PageRun| RunRecord {
            range: RangeRecord::new(run.range),
            offset_bytes: run.offset_bytes,
            hash: run.hash,
        };
        Self { runs: runs.iter().map(record).collect() }
    }

    pub(crate) fn into_model(self) -> Result<Vec<PageRun>, Odd> {
        let run = |RunRecord { range, offset_bytes, hash }| {
            Some(PageRun { range: range.into_model()?, offset_bytes, hash })
        };
        let runs = self.runs.into_iter().map(run).collect::<Option<_>>();
        runs.ok_or("a run of pages ends before it starts")
    }
}
