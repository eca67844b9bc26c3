//! The checkpoint as plain values: what `collect` found out and what `plan` works from.
//!
//! In: nothing. Out: types that can be printed, compared and built by hand in a test.
//! Invariant: no I/O and no storage format; the image's records are apart, in `tub-image`.
//! Not here: page contents. They are a stream on the way out and a mapping on the way in.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod controls;
mod fd;
mod host;
mod memory;
mod memory_file;
mod socket;
mod task;

pub use controls::*;
pub use fd::*;
pub use host::*;
pub use memory::*;
pub use memory_file::*;
pub use socket::*;
pub use task::*;

use alloc::{string::String, vec::Vec};
use tub_units::AddrRange;

/// Everything about a process tree at one instant, but for the bytes of its pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Who made the image, when, and how many checkpoints lie behind it.
    pub provenance: Provenance,
    /// The host on which it was taken.
    pub host: HostFacts,
    /// The clocks as the task saw them.
    pub clocks: Clocks,
    /// How the application took part, if it did.
    pub coordination: Option<Coordination>,
    /// Open file descriptions of all tasks, each named by its index: several tasks may share one.
    pub files: Vec<OpenFile>,
    /// Files that live in the image and nowhere else, each named by its index: descriptors and
    /// mappings of all tasks may share one.
    pub memory_files: Vec<MemoryFile>,
    /// The tasks, each after its parent: the main one first.
    pub tasks: Vec<Task>,
    /// Processes that have ended, and that their parents have not waited for yet.
    pub zombies: Vec<Zombie>,
}

/// Who made an image, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// Version of the tool that wrote the image.
    pub tool_version: String,
    /// CLOCK_REALTIME at the freeze, in nanoseconds since 1970.
    pub created_unix_ns: u64,
    /// How many checkpoints this process has gone through: 1 for the first image.
    pub generation: u64,
    /// Random, so that two images can be told apart.
    pub image_id: [u8; 16],
    /// What whoever took the image calls it, by name: a restore may require it.
    pub labels: Vec<(String, String)>,
    /// What whoever took the image measured, by name: numbers, in their own words.
    pub metrics: Vec<(String, String)>,
}

/// Clocks at the freeze, as seen in the time namespace of the task, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// CLOCK_MONOTONIC.
    pub monotonic_ns: u64,
    /// CLOCK_BOOTTIME.
    pub boottime_ns: u64,
    /// CLOCK_REALTIME.
    pub realtime_ns: u64,
}

/// What a coordinated process told about itself. An allegation: checked before it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coordination {
    /// Where the engine leaves its message (see `docs/control-protocol.md`, "The mailbox").
    pub mailbox: AddrRange,
    /// The runtime that took part, for people: `"OpenJDK 64-Bit Server VM 17.0.15"`.
    pub runtime: String,
    /// The resources told, in order of registration, for people.
    pub resources: Vec<String>,
}
