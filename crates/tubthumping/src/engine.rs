//! Engines: whoever freezes a process and brings it back.
//!
//! In: what the facade was asked for. Out: images and processes. Invariant: coordination is the same
//! with every engine; an engine neither speaks with the application nor knows what was said.
//! Not here: the engines themselves (`tub-checkpoint` and `tub-restore`; `tub-criu`).

mod criu;
mod native;
mod pause;
mod sim;

pub use criu::CriuEngine;
pub use native::NativeEngine;
pub(crate) use pause::Paused;
pub use pause::{PauseEngine, PauseError};
pub use sim::SimEngine;

use crate::checkpoint::{CheckpointError, CheckpointOptions};
use crate::restore::{RestoreError, RestoreOptions, Restoring};
use nix::errno::Errno;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tub_control::{Client, Prepared};
use tub_restore::Stats;
use tub_units::HostPid;

/// The engines that there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// Our own.
    #[default]
    Native,
    /// CRIU, a program beside ours.
    Criu,
    /// None: the application is told, and goes on without an image.
    Sim,
    /// None: the process is stopped where it is, and a restore has it go on.
    Pause,
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Criu => "criu",
            Self::Sim => "sim",
            Self::Pause => "pause",
        })
    }
}

/// Options for CRIU, which nobody else reads.
#[derive(Clone, Debug, Default)]
pub struct CriuOptions {
    /// The program, rather than that of `TUB_CRIU` or PATH.
    pub program: Option<PathBuf>,
    /// More words for its command line.
    pub words: Vec<OsString>,
}

/// An image taken.
#[derive(Clone, Debug)]
pub struct Report {
    /// By whom.
    pub engine: EngineKind,
    /// Where it is.
    pub dir: PathBuf,
    /// What it takes on the disk.
    pub image_bytes: u64,
    /// How many processes there are: itself and its descendants.
    pub processes: usize,
    /// How many threads they have.
    pub threads: usize,
    /// How long each stage took, as far as the engine tells.
    pub times: tub_checkpoint::StageTimes,
    /// Who goes on although it was to end, and why: the image is complete all the same.
    pub not_ended: Option<(HostPid, Errno)>,
}

/// What every engine can tell of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Whose it is.
    pub engine: EngineKind,
    /// Which version took it.
    pub engine_version: String,
    /// When, in nanoseconds since 1970.
    pub created_unix_ns: u64,
    /// How many checkpoints lie behind the process.
    pub generation: u64,
    /// What it is called, by name.
    pub labels: Vec<(String, String)>,
    /// Id of the main process.
    pub pid: i32,
    /// Its threads.
    pub threads: usize,
    /// What runs it, if it takes part.
    pub runtime: Option<String>,
    /// Its resources.
    pub resources: Vec<String>,
}

/// Tells the application to prepare, and to wait. An engine calls it once, when it has found out
/// everything that needs no answer; without an answer there is nobody who takes part.
pub type Coordinate<'a> = &'a mut dyn FnMut() -> Result<Option<Prepared>, CheckpointError>;

/// Whoever freezes a process into an image and brings it back.
pub trait Engine {
    /// Which one it is.
    fn kind(&self) -> EngineKind;

    /// Whether it works on this host; answers its version.
    ///
    /// # Errors
    ///
    /// Why it does not.
    fn check(&self) -> Result<String, EngineUnusable>;

    /// Takes an image of `pid`. Whatever `coordinate` has promised the application is kept: it is
    /// told how it ended.
    ///
    /// # Errors
    ///
    /// There is no image, and the process goes on.
    fn checkpoint(
        &self,
        pid: HostPid,
        options: &CheckpointOptions,
        coordinate: Coordinate<'_>,
    ) -> Result<Report, CheckpointError>;

    /// Brings an image to the point of no return.
    ///
    /// # Errors
    ///
    /// There is no process, and the image is as it was.
    fn restore(
        &self,
        options: &RestoreOptions,
        stats: &mut Stats,
    ) -> Result<Restoring, RestoreError>;

    /// Tells what is in an image.
    ///
    /// # Errors
    ///
    /// It cannot be read or trusted.
    fn inspect(&self, dir: &Path) -> Result<Inspection, RestoreError>;
}

/// Why an engine does not work here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineUnusable {
    /// CRIU is not there, or says so itself.
    #[error(transparent)]
    Criu(#[from] tub_criu::Error),
    /// The native engine lacks something.
    #[error("{0}")]
    Native(String),
    /// A restore could not reach what is paused.
    #[error(transparent)]
    Pause(#[from] PauseError),
}

/// The engine of that kind.
pub fn engine(kind: EngineKind, criu: &CriuOptions) -> Box<dyn Engine> {
    match kind {
        EngineKind::Native => Box::new(NativeEngine),
        EngineKind::Criu => Box::new(CriuEngine::new(criu.clone())),
        EngineKind::Sim => Box::new(SimEngine),
        EngineKind::Pause => Box::new(PauseEngine),
    }
}

/// Whose image lies in `dir`: what is not marked as another engine's is ours to judge.
pub fn engine_of(dir: &Path) -> EngineKind {
    if tub_criu::is_image(dir) {
        EngineKind::Criu
    } else if pause::is_note(dir) {
        EngineKind::Pause
    } else {
        EngineKind::Native
    }
}

/// How many checkpoints lie behind a process, as it says itself: it has seen those as well that it went
/// on after. 0 of one that takes no part.
fn generation_of(pid: HostPid) -> u64 {
    let status = Client::find(pid).ok().flatten().and_then(|mut client| client.status().ok());
    status.map_or(0, |status| status.generation)
}

/// How long the application waits for our letter after it has let go of its socket: more than any
/// image takes, since it is only ever needed when we die.
pub(crate) const COMMIT_DEADLINE: Duration = Duration::from_secs(120);
