//! Checkpoint and restore of processes, and coordination with them.
//!
//! A checkpoint freezes a process into an image directory; a restore makes a running process of it
//! again, any number of times, at once if wanted, without privileges. A process that takes part
//! (see `docs/control-protocol.md`) is told before and after.
//!
//! In: a pid or an image, options. Out: an image or a running process.
//! Invariant: a failed checkpoint leaves the process as it was; a failed restore leaves nothing.
//! Not here: words for users and exit codes (`tub-cli`).
#![forbid(unsafe_code)]

mod attach;
mod checkpoint;
mod container;
mod engine;
mod guardian;
mod prepare;
mod restore;
pub mod standby;
mod train;

pub use attach::{AttachError, LateAgent};
pub use checkpoint::{CheckpointError, CheckpointOptions, checkpoint};
pub use container::{
    Container, ContainerCheckpoint, ContainerEngine, ContainerError, ContainerRestore,
    answers_within, participant,
};
pub use engine::{
    Coordinate, CriuEngine, CriuOptions, Engine, EngineKind, EngineUnusable, Inspection,
    NativeEngine, PauseEngine, PauseError, Report, SimEngine, engine, engine_of,
};
pub use guardian::guard;
pub use prepare::{Preparation, ResumeError, is_waiting, leave_word, prepare, resume};
pub use restore::{
    MissingLabel, RestoreError, RestoreOptions, Restoring, dry_run, fits, missing_labels, restore,
};

pub use train::{TrainError, Training};

pub use tub_checkpoint::{Error as EngineError, Outcome as ProcessState, Refusal, TcpPolicy};
pub use tub_control::{Client, ClientError, OpenRule, Prepared};
pub use tub_criu::Error as CriuError;
pub use tub_host::Mismatch;
pub use tub_restore::plan::{Ids, MemoryDecision, MemoryMode, PlanError, Stdio, auto_memory};
pub use tub_restore::{LaunchError, Outcome, Running, Stats};
pub use tub_units::HostPid;

/// An error with its sources on one line, for places that have room for one only.
pub fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
