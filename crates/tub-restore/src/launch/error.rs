//! What can go wrong while a process is being made. In every case it is gone, and the image is
//! untouched.

use serde_json::{Value, json};
use std::io;
use tub_sys::Errno;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// Ids cannot be kept here.
    #[error("no PID namespace can be had")]
    NoPidNamespace {
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// A file that the image names is not what it was.
    #[error("file {path} {problem}")]
    FileChanged {
        /// Its path.
        path: String,
        /// What is different.
        problem: String,
    },
    /// A file lock that the image holds is held by somebody else.
    #[error("{lock} of file {path} is held by somebody else")]
    Locked {
        /// The file.
        path: String,
        /// The lock.
        lock: String,
    },
    /// Something that the process had open cannot be had again.
    #[error("{object} cannot be restored")]
    Descriptor {
        /// What: `"descriptor 7: listening socket on 127.0.0.1:8080"`.
        object: String,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// An operation of the plan failed.
    #[error("thread {thread}: operation '{operation}' failed")]
    Operation {
        /// Id of the thread in the image.
        thread: i32,
        /// The operation, as `--dry-run` prints it.
        operation: String,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// A process other than the main one could not be made.
    #[error("process {pid} of the image could not be made")]
    Member {
        /// Its id in the image.
        pid: i32,
        /// Why.
        #[source]
        source: Box<LaunchError>,
    },
    /// A process id of the image is taken.
    #[error("process id {pid} cannot be given")]
    Pid {
        /// The id.
        pid: i32,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// A file of /proc cannot be used.
    #[error("{path} cannot be read or written")]
    Proc {
        /// The file.
        path: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// An everyday system call failed.
    #[error("{what} cannot be had")]
    System {
        /// What it was for.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// The process was killed.
    #[error("the process was killed {stage}")]
    Died {
        /// When.
        stage: &'static str,
    },
    /// There is no terminal to stand for one of the image.
    #[error(
        "descriptor {number}: terminal {path}: no standard stream of this restore is a terminal"
    )]
    NoTerminal {
        /// Its number.
        number: i32,
        /// Which terminal it was.
        path: String,
    },
    /// This architecture is not supported yet.
    #[error("restoring is not supported on this architecture yet: only on x86-64")]
    Architecture,
}

impl LaunchError {
    /// The error as a message from the process being made to its launcher.
    pub(crate) fn to_message(&self) -> Vec<u8> {
        let message = match self {
            Self::FileChanged { path, problem } => {
                json!({"kind": "file", "path": path, "problem": problem})
            }
            Self::Locked { path, lock } => {
                json!({"kind": "locked", "path": path, "lock": lock})
            }
            Self::Descriptor { object, source } => {
                json!({"kind": "descriptor", "object": object, "errno": *source as i32})
            }
            Self::Pid { pid, source } => {
                json!({"kind": "pid", "pid": pid, "errno": *source as i32})
            }
            Self::System { what, source } => {
                json!({"kind": "system", "what": what, "errno": *source as i32})
            }
            Self::NoTerminal { number, path } => {
                json!({"kind": "terminal", "number": number, "path": path})
            }
            Self::Architecture => json!({"kind": "architecture"}),
            other => json!({"kind": "descriptor", "object": other.to_string(), "errno": 0}),
        };
        message.to_string().into_bytes()
    }

    /// The error in a message of [`Self::to_message`]; `None` for any other message.
    pub(crate) fn from_message(bytes: &[u8]) -> Option<Self> {
        if bytes.first() != Some(&b'{') {
            return None;
        }
        let message: Value = serde_json::from_slice(bytes).ok()?;
        let text = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
        let errno = i32::try_from(message["errno"].as_i64().unwrap_or(0)).unwrap_or(0);
        let source = Errno::from_raw(errno);
        Some(match message["kind"].as_str()? {
            "file" => Self::FileChanged { path: text("path"), problem: text("problem") },
            "locked" => Self::Locked { path: text("path"), lock: text("lock") },
            "pid" => {
                let pid = i32::try_from(message["pid"].as_i64().unwrap_or(0)).unwrap_or(0);
                Self::Pid { pid, source }
            }
            "terminal" => {
                let number = i32::try_from(message["number"].as_i64().unwrap_or(0)).unwrap_or(0);
                Self::NoTerminal { number, path: text("path") }
            }
            "architecture" => Self::Architecture,
            "system" => Self::Descriptor { object: text("what"), source },
            _ => Self::Descriptor { object: text("object"), source },
        })
    }
}
