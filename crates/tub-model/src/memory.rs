//! The address space: mappings, what backs them, and the fields of the kernel's `mm_struct`.

use alloc::{string::String, vec::Vec};
use tub_units::AddrRange;

/// One mapping of the address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vma {
    /// Page-aligned addresses.
    pub range: AddrRange,
    /// Access rights at the checkpoint.
    pub protection: Protection,
    /// What pages come from when they are not in the image.
    pub backing: Backing,
    /// `MAP_GROWSDOWN` stack (VmFlags `gd`).
    pub grows_down: bool,
    /// `MAP_NORESERVE` (VmFlags `nr`).
    pub no_reserve: bool,
    /// `MAP_DROPPABLE` (VmFlags `dp`): the kernel may turn its pages into zeros at any time.
    pub droppable: bool,
    /// `mseal(2)` (VmFlags `sl`): nothing about the mapping may change any more.
    pub sealed: bool,
    /// Whether its pages stay in memory (VmFlags `lo`, `lf`).
    pub lock: Lock,
    /// Advice in force, as `MADV_*` numbers in the order in which to give them.
    pub advice: Vec<i32>,
    /// Pages whose content is owed to the process and cannot come from `backing`:
    /// ascending, page-aligned, within `range`, disjoint.
    pub saved: Vec<AddrRange>,
    /// `MADV_GUARD_INSTALL`: pages that may not be touched, whatever the access rights. As `saved`,
    /// and disjoint from it.
    pub guards: Vec<AddrRange>,
}

/// Whether pages are locked into memory, as of `mlock2(2)` and `mlockall(2)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lock {
    /// They are not.
    #[default]
    None,
    /// All of them are there, and stay.
    Resident,
    /// They stay from the first touch on (`MLOCK_ONFAULT`).
    OnFault,
}

/// Access rights of a mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// `PROT_READ`.
    pub read: bool,
    /// `PROT_WRITE`.
    pub write: bool,
    /// `PROT_EXEC`.
    pub execute: bool,
}

impl Protection {
    /// The rights as `PROT_*` bits.
    pub const fn bits(self) -> i32 {
        (self.read as i32) | (self.write as i32) << 1 | (self.execute as i32) << 2
    }
}

/// Where a mapping's pages come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Private memory that starts as zeros.
    Anonymous,
    /// A private mapping of a file: pages not written to are the file's.
    PrivateFile {
        /// The file.
        file: FileIdentity,
        /// Offset of the first page in bytes.
        offset_bytes: u64,
    },
    /// A shared mapping of a file.
    SharedFile {
        /// The file.
        file: FileIdentity,
        /// Offset of the first page in bytes.
        offset_bytes: u64,
        /// Whether the file description allows writing (VmFlags `mw`).
        may_write: bool,
    },
    /// A shared mapping of a file that is made anew with the saved content where it is missing:
    /// the JVM's performance counters (`hsperfdata`).
    SharedScratchFile {
        /// Where to make it.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// A mapping of one of the files that the image brings along.
    MemoryFile {
        /// Index into [`crate::Checkpoint::memory_files`].
        file: usize,
        /// Offset of the first page in bytes.
        offset_bytes: u64,
        /// `MAP_SHARED`; else pages written to are the process's own.
        shared: bool,
        /// Whether the file description allows writing (VmFlags `mw`).
        may_write: bool,
    },
    /// `[vvar]`, `[vvar_vclock]` and `[vdso]` as one; the kernel provides it.
    Vdso,
}

/// What identifies a file that is not stored in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// Absolute path.
    pub path: String,
    /// Device number as of `stat`.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Last modification, nanoseconds since 1970.
    pub mtime_ns: i64,
}

/// The bounds that the kernel keeps per address space (`struct prctl_mm_map`, `linux/prctl.h`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MmFields {
    /// Start of the program text.
    pub start_code: u64,
    /// End of the program text.
    pub end_code: u64,
    /// Start of the data.
    pub start_data: u64,
    /// End of the data.
    pub end_data: u64,
    /// Where `brk` started.
    pub start_brk: u64,
    /// Where `brk` stands.
    pub brk: u64,
    /// Bottom of the main stack.
    pub start_stack: u64,
    /// Start of the command line.
    pub arg_start: u64,
    /// End of the command line.
    pub arg_end: u64,
    /// Start of the environment.
    pub env_start: u64,
    /// End of the environment.
    pub env_end: u64,
    /// The auxiliary vector, as in `/proc/PID/auxv`.
    pub auxv: Vec<u8>,
    /// Whether mappings made from now on are locked (`mlockall(MCL_FUTURE)`).
    pub lock_future: Lock,
}

/// A mapped program or library that may give pages back to the kernel (`MADV_DONTNEED`), and may
/// count on them being zero after that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discarder {
    /// Absolute path, or what else there is to name it by.
    pub path: String,
    /// Why it may.
    pub kind: DiscardKind,
}

/// Why a program or library may discard pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiscardKind {
    /// It imports `madvise` or `process_madvise`.
    Imports,
    /// It imports one of them and defines `malloc`: the allocator of the whole process.
    Allocator,
    /// A program without imports: it brings its own.
    Static,
    /// It could not be looked into.
    Unknown,
}
