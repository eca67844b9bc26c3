//! What can go wrong while a process is held.

use tub_sys::Errno;
use tub_units::{HostPid, RemoteAddr};

/// Result of an operation on a held process.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. In every case the process is let go when the [`crate::Frozen`] is dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel does not let us trace it.
    #[error("thread {tid} cannot be traced")]
    Attach {
        /// The thread.
        tid: HostPid,
        /// EPERM: another user's, traced by somebody else, or forbidden by Yama.
        #[source]
        source: Errno,
    },
    /// It ended while we held it.
    #[error("process {pid} ended while it was being frozen")]
    Died {
        /// The process.
        pid: HostPid,
    },
    /// It is stopped by job control, and would look so for ever in the image.
    #[error("process {pid} is stopped by a signal (SIGSTOP or Ctrl-Z)")]
    GroupStopped {
        /// The process.
        pid: HostPid,
    },
    /// A thread does not stop: it is in an uninterruptible sleep.
    #[error("thread {tid} did not stop within {waited:?}")]
    NotStopping {
        /// The thread.
        tid: HostPid,
        /// How long we waited.
        waited: std::time::Duration,
    },
    /// A request about a stopped thread failed.
    #[error("{what} of thread {tid} cannot be had")]
    Request {
        /// What was asked for.
        what: &'static str,
        /// The thread.
        tid: HostPid,
        /// Why.
        #[source]
        source: Errno,
    },
    /// Its memory cannot be read or written.
    #[error("memory of process {pid} at {address} cannot be {what}")]
    Memory {
        /// `"read"` or `"written"`.
        what: &'static str,
        /// The process.
        pid: HostPid,
        /// First address that failed.
        address: RemoteAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of /proc cannot be read.
    #[error("{path} cannot be read")]
    Proc {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}
