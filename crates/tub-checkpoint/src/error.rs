//! What can go wrong with a checkpoint, and what became of the process.

use crate::Refusal;
use std::io;
use tub_units::HostPid;

/// Result of a checkpoint's stage.
pub type Result<T> = std::result::Result<T, Error>;

/// What became of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was never stopped.
    Untouched,
    /// It was stopped for a moment, and goes on as before.
    Thawed,
    /// It had ended before.
    Gone,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It holds something that cannot be stored.
    #[error("process {pid} holds what cannot be stored")]
    Refused {
        /// The process.
        pid: HostPid,
        /// Everything that stands in the way.
        refusals: Vec<Refusal>,
        /// Whether this was found out before it was frozen or after.
        frozen: bool,
    },
    /// There is no such process.
    #[error("process {pid} does not exist")]
    NoSuchProcess {
        /// The process.
        pid: HostPid,
    },
    /// It is somebody else's.
    #[error("process {pid} is not ours to look into")]
    NotOurs {
        /// The process.
        pid: HostPid,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It cannot be frozen or looked into.
    #[error("process {pid} cannot be frozen or looked into")]
    Tracee {
        /// The process.
        pid: HostPid,
        /// Why.
        #[source]
        source: tub_tracee::Error,
    },
    /// Somebody else traces it: a debugger, or another checkpoint.
    #[error("process {pid} is traced by process {tracer} ({name})")]
    Traced {
        /// The process.
        pid: HostPid,
        /// Who traces it.
        tracer: HostPid,
        /// The tracer's name.
        name: String,
    },
    /// A system call that it made for us failed.
    #[error("{what} of process {pid} cannot be had")]
    Remote {
        /// What was asked for.
        what: String,
        /// The process.
        pid: HostPid,
        /// Why.
        #[source]
        source: tub_sys::Errno,
    },
    /// A file of /proc cannot be read.
    #[error("{path} cannot be read")]
    Proc {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of /proc is not as the kernel documents it.
    #[error("{path} cannot be understood")]
    Malformed {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: tub_procfs::Error,
    },
    /// No memory can be had to copy pages to.
    #[error("{bytes} bytes of memory to copy pages to cannot be had")]
    Room {
        /// How much.
        bytes: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No thread can be had to write pages.
    #[error("a thread that writes pages cannot be had")]
    Thread {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The image cannot be written.
    #[error("image cannot be written")]
    Image(#[source] tub_image::Error),
}

impl Error {
    /// What became of the process. An error that comes out of [`crate::checkpoint()`] after the
    /// freeze has thawed it again.
    pub fn outcome(&self, frozen: bool) -> Outcome {
        match self {
            Self::NoSuchProcess { .. } => Outcome::Gone,
            Self::Tracee { source: tub_tracee::Error::Died { .. }, .. } => Outcome::Gone,
            _ if frozen => Outcome::Thawed,
            _ => Outcome::Untouched,
        }
    }
}
