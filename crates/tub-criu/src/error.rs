//! What can go wrong around CRIU.

use std::io;
use std::path::PathBuf;
use tub_units::HostPid;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no CRIU.
    #[error("criu is not installed: it is neither named by TUB_CRIU nor found in PATH")]
    NotFound,
    /// It cannot be run.
    #[error("{} cannot be run", path.display())]
    CannotRun {
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It does not say what every CRIU says.
    #[error("{} does not answer as CRIU does: {said}", path.display())]
    NotCriu {
        /// The program.
        path: PathBuf,
        /// What it said.
        said: String,
    },
    /// CRIU itself says that it does not work here.
    #[error("CRIU {version} does not work on this host: {reason}")]
    Unusable {
        /// Its version.
        version: String,
        /// The last of what it said.
        reason: String,
    },
    /// CRIU failed. Its words are worth more than ours.
    #[error("CRIU {version} could not {verb}: {}", lines.join("; "))]
    Failed {
        /// Its version.
        version: String,
        /// What it was to do: `dump process 42`.
        verb: String,
        /// The last errors of its log.
        lines: Vec<String>,
    },
    /// The process has no session that CRIU could store.
    #[error(
        "the session of process {pid} was begun outside of this PID namespace (its id is 0, \
         credentials(7)), and CRIU takes no such process"
    )]
    ForeignSession {
        /// Who.
        pid: HostPid,
    },
    /// Something stands where the image is to go.
    #[error("{} is there already", dir.display())]
    Exists {
        /// The place.
        dir: PathBuf,
    },
    /// A file or directory cannot be read or written.
    #[error("{} cannot be read or written", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The marker beside the image is not one of ours, or the image is somebody else's.
    #[error("{} cannot be trusted: {reason}", path.display())]
    Marker {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The process could not be given a place to live.
    #[error("no place for the process can be had")]
    House(#[source] tub_restore::LaunchError),
    /// CRIU said that it is there, and it is not.
    #[error("the restored process ended at once")]
    Gone,
}

impl Error {
    /// Whether nothing of the host or the process was touched, since CRIU was never started on it.
    pub const fn is_before_criu(&self) -> bool {
        !matches!(self, Self::Failed { .. } | Self::Gone)
    }
}
