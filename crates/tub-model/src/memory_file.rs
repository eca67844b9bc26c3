//! Files without a name: shared memory, and what was deleted while in use.

use alloc::{string::String, vec::Vec};
use tub_units::AddrRange;

/// A file whose content is the image's to bring back, for nobody else has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryFile {
    /// What it is.
    pub kind: MemoryFileKind,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// `F_SEAL_*` in force (`fcntl(2)`).
    pub seals: u32,
    /// Offsets at which there is content: ascending, whole pages, disjoint; all else is zeros.
    pub saved: Vec<AddrRange>,
}

/// What a [`MemoryFile`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryFileKind {
    /// `memfd_create(2)`.
    Memfd {
        /// The name that it was given.
        name: String,
    },
    /// `mmap(MAP_SHARED | MAP_ANONYMOUS)`.
    SharedAnonymous,
    /// A file of a file system, mapped as shared memory, that has lost its last name.
    Deleted {
        /// Where it was.
        path: String,
    },
}

impl MemoryFileKind {
    /// For people.
    pub fn describe(&self) -> String {
        match self {
            Self::Memfd { name } => alloc::format!("memory file {name:?}"),
            Self::SharedAnonymous => "shared anonymous memory".into(),
            Self::Deleted { path } => alloc::format!("deleted file {path}"),
        }
    }
}
