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
            // Where one of many did not stop, the others did.
            Self::Tracee { pid, source } if !is_of_the_first(*pid, source) => Outcome::Thawed,
            _ => Outcome::Untouched,
        }
    }
}

/// Why a process could not be frozen that may be traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfrozen {
    /// A signal of job control had stopped it meanwhile.
    Stopped,
    /// A thread waits for a device or a network file system.
    Busy,
}

impl Error {
    /// Why it could not be frozen, where nothing keeps anybody from tracing it.
    pub fn unfrozen(&self) -> Option<Unfrozen> {
        let Self::Tracee { source, .. } = self else { return None };
        match source {
            tub_tracee::Error::GroupStopped { .. } => Some(Unfrozen::Stopped),
            tub_tracee::Error::NotStopping { .. } => Some(Unfrozen::Busy),
            _ => None,
        }
    }
}

/// Whether a freeze failed before anything of `pid` stood still: at its first thread.
fn is_of_the_first(pid: HostPid, error: &tub_tracee::Error) -> bool {
    match error {
        tub_tracee::Error::Attach { tid, .. } => *tid == pid,
        tub_tracee::Error::Proc { path, .. } => *path == format!("/proc/{pid}/mem"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tub_sys::Errno;

    #[test]
    fn what_may_be_traced_and_cannot_be_frozen_is_told_from_what_may_not() {
        let pid = HostPid(10);
        let unfrozen = |source| Error::Tracee { pid, source }.unfrozen();
        let waited = std::time::Duration::from_secs(10);
        let stuck = tub_tracee::Error::NotStopping { tid: pid, waited };
        assert_eq!(unfrozen(stuck), Some(Unfrozen::Busy));
        let stopped = tub_tracee::Error::GroupStopped { pid };
        assert_eq!(unfrozen(stopped), Some(Unfrozen::Stopped));
        assert_eq!(unfrozen(tub_tracee::Error::Attach { tid: pid, source: Errno::EPERM }), None);
    }

    #[test]
    fn a_process_of_which_a_part_stood_still_is_not_called_untouched() {
        let pid = HostPid(10);
        let outcome = |source| Error::Tracee { pid, source }.outcome(false);
        let attach = |tid| tub_tracee::Error::Attach { tid, source: Errno::EPERM };
        assert_eq!(outcome(attach(pid)), Outcome::Untouched);
        // Another thread of it, or a descendant.
        assert_eq!(outcome(attach(HostPid(11))), Outcome::Thawed);
        let waited = std::time::Duration::from_secs(10);
        let stuck = tub_tracee::Error::NotStopping { tid: pid, waited };
        assert_eq!(outcome(stuck), Outcome::Thawed);
        assert_eq!(outcome(tub_tracee::Error::GroupStopped { pid }), Outcome::Thawed);
        assert_eq!(outcome(tub_tracee::Error::Died { pid }), Outcome::Gone);
        let of = |path: &str| {
            let source = io::Error::from(io::ErrorKind::PermissionDenied);
            tub_tracee::Error::Proc { path: path.to_owned(), source }
        };
        assert_eq!(outcome(of("/proc/10/mem")), Outcome::Untouched);
        assert_eq!(outcome(of("/proc/11/mem")), Outcome::Thawed);
    }
}
