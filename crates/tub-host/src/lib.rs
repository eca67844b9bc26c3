//! What this host is and what it allows. Internal to tubthumping.
//!
//! In: nothing but the host. Out: [`facts()`], which an image keeps and a restore compares; whether
//! the files are there that an image refers to; what this host allows ([`probe()`]); and how much
//! memory is to spare.
//! Invariant: nothing of the host is changed.
//! Not here: what follows for a restore (`tub-restore`).
#![forbid(unsafe_code)]

mod arch;
mod compare;
mod error;
mod facts;
mod files;
mod locks;
mod memory;
mod probe;

pub use compare::{Mismatch, compare, unknown_to_image};
pub use error::Error;
pub use facts::{facts, facts_since};
pub use files::{FileMismatch, FileProblem, check_files};
pub use locks::{LockConflict, check_locks};
pub use memory::spare_memory_bytes;
pub use probe::{Ability, Finding, Helper, Probe, obstacles, probe, try_in_helper};
