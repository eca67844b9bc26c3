//! The engine's side of a conversation.
//!
//! In: the id of a process. Out: what it answered.
//! Invariant: no call waits longer than it was told to, plus a fixed grace.
//! Not here: what to do with the answers.

use crate::bounded::{connect_within, read_line_within};
use crate::find;
use crate::mailbox::MAILBOX_BYTES;
use crate::message::{
    DecodeError, Event, LINE_LIMIT_BYTES, MailboxPlace, OpenResource, Operation, Prepared, Refusal,
    Status, answer_from_line, as_many_as_fit,
};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tub_units::HostPid;

/// How long an answer may take that needs no work of the application's.
const ANSWER_GRACE: Duration = Duration::from_secs(10);

/// How much longer than its timeout the answer to `prepare` may take: on a failure the
/// application tells its resources to go on before it answers.
const PREPARE_GRACE: Duration = Duration::from_secs(30);

/// How long the after-hooks may take when the engine takes its word back.
const ABORT_GRACE: Duration = Duration::from_secs(90);

/// Why a conversation did not go as it should.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The application said no.
    #[error("the application refused")]
    Refused(#[source] Refusal),
    /// The application did not answer in time.
    #[error("no answer to \"{operation}\" within {waited:?}")]
    TimedOut {
        /// What was asked.
        operation: &'static str,
        /// How long was waited.
        waited: Duration,
    },
    /// The application ended the conversation.
    #[error("the connection ended before the answer to \"{operation}\"")]
    Ended {
        /// What was asked.
        operation: &'static str,
    },
    /// The application gave an answer that is none.
    #[error("the answer to \"{operation}\" cannot be understood")]
    Malformed {
        /// What was asked.
        operation: &'static str,
        /// What is wrong with it.
        #[source]
        source: Option<DecodeError>,
    },
    /// A system call failed.
    #[error("{object}: cannot {operation}")]
    Io {
        /// Path of the object.
        object: PathBuf,
        /// What could not be done with it.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// One conversation with an application.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Client {
    /// Connects to the control socket of `pid`; `None` where it has none, so that nobody is to
    /// be told of a checkpoint. A socket that somebody else listens on is none of its.
    ///
    /// # Errors
    /// [`ClientError::Io`], where the process is gone or not ours, or the socket does not answer.
    pub fn find(pid: HostPid) -> Result<Option<Self>, ClientError> {
        let sockets = find::control_sockets(pid).map_err(|source| ClientError::Io {
            object: format!("/proc/{pid}").into(),
            operation: "look for a control socket",
            source,
        })?;
        let mut outcome = Ok(None);
        for path in sockets {
            // The path is the one that the process knows, in its own mount namespace.
            let mut seen = PathBuf::from(format!("/proc/{pid}/root"));
            seen.extend(path.components().skip(1));
            match Self::connect(&seen) {
                // KERNEL: a name may hold newlines, and make up whole lines of /proc/PID/net/unix, with the
                // inode of a socket that the process does have (unix_seq_show, net/unix/af_unix.c). Who
                // called listen(2), nobody can make up (unix(7), SO_PEERCRED).
                Ok(client) if !client.is_served_by(pid) => {}
                Ok(client) => return Ok(Some(client)),
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    fn is_served_by(&self, pid: HostPid) -> bool {
        getsockopt(self.stream.get_ref(), PeerCredentials).is_ok_and(|who| who.pid() == pid.0)
    }

    /// Connects to the control socket at `path`.
    ///
    /// # Errors
    /// [`ClientError::Io`], where nobody answers there.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Io { object: path.into(), operation: "connect", source };
        let directory = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().unwrap_or_default();
        // KERNEL: a socket address holds 108 bytes (unix(7)), which "/proc/PID/root" in front of
        // a long TMPDIR can exceed. A descriptor of the directory makes every path short.
        let directory = File::options()
            .read(true)
            .custom_flags(nix::fcntl::OFlag::O_PATH.bits() | nix::fcntl::OFlag::O_DIRECTORY.bits())
            .open(directory)
            .map_err(failed)?;
        let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        let stream = connect_within(&short, ANSWER_GRACE).map_err(failed)?;
        stream.set_write_timeout(Some(ANSWER_GRACE)).map_err(failed)?;
        Ok(Self { stream: BufReader::new(stream), path: path.into() })
    }

    /// What the application is doing.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub fn status(&mut self) -> Result<Status, ClientError> {
        match self.ask(&Operation::Status, "status", ANSWER_GRACE)? {
            Event::Status(status) => Ok(status),
            _ => Err(ClientError::Malformed { operation: "status", source: None }),
        }
    }

    /// Has every resource told that a checkpoint is near; they may take `timeout` together.
    ///
    /// # Errors
    /// Any [`ClientError`]. After each of them the application goes on as before, once this client
    /// is dropped.
    pub fn prepare(&mut self, timeout: Duration) -> Result<Prepared, ClientError> {
        let operation = Operation::Prepare { timeout_ms: millis(timeout) };
        match self.ask(&operation, "prepare", timeout + PREPARE_GRACE)? {
            // A letter may be as long as a mailbox: in a smaller one it would go on behind its end.
            Event::Prepared(Prepared { mailbox, .. })
                if mailbox.range().is_none_or(|range| range.len() < MAILBOX_BYTES as u64) =>
            {
                let MailboxPlace { address, bytes } = mailbox;
                let odd = format!("a mailbox of {bytes} bytes at {address:#x} is none");
                let source = Some(DecodeError::Malformed(serde::de::Error::custom(odd)));
                Err(ClientError::Malformed { operation: "prepare", source })
            }
            Event::Prepared(prepared) => Ok(prepared),
            _ => Err(ClientError::Malformed { operation: "prepare", source: None }),
        }
    }

    /// Takes the word back: the application goes on, and its callers get an exception that holds
    /// `failures`. Returns when all resources have been told.
    ///
    /// # Errors
    /// Any [`ClientError`]. The application goes on all the same, since a connection that ends
    /// means the same.
    pub fn abort(mut self, message: &str, failures: &[OpenResource]) -> Result<(), ClientError> {
        // A line that is too long would be no message, and nobody would learn what stood in the way.
        let operation = as_many_as_fit(message, failures, |message, failures| {
            let operation = Operation::Abort { message, failures };
            let fits = operation.to_line().len() as u64 <= LINE_LIMIT_BYTES;
            if fits { Ok(operation) } else { Err(ClientError::Ended { operation: "abort" }) }
        })?;
        match self.ask(&operation, "abort", ABORT_GRACE)? {
            Event::Resumed => Ok(()),
            _ => Err(ClientError::Malformed { operation: "abort", source: None }),
        }
    }

    /// Announces that the image is taken now. When this returns, the application has closed its
    /// control descriptors and waits on its mailbox, for `deadline` at most.
    ///
    /// # Errors
    /// Any [`ClientError`]. The application may or may not wait on its mailbox then, so leave a
    /// letter there.
    pub fn commit(mut self, deadline: Duration) -> Result<(), ClientError> {
        let operation = Operation::Commit { deadline_ms: millis(deadline) };
        self.send(&operation, "commit")?;
        match self.receive("commit", ANSWER_GRACE) {
            Err(ClientError::Ended { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(ClientError::Malformed { operation: "commit", source: None }),
        }
    }

    fn ask(
        &mut self,
        operation: &Operation,
        name: &'static str,
        patience: Duration,
    ) -> Result<Event, ClientError> {
        self.send(operation, name)?;
        self.receive(name, patience)
    }

    fn send(&mut self, operation: &Operation, name: &'static str) -> Result<(), ClientError> {
        self.stream.get_mut().write_all(&operation.to_line()).map_err(|source| {
            match source.kind() {
                io::ErrorKind::BrokenPipe => ClientError::Ended { operation: name },
                _ => {
                    ClientError::Io { object: self.path.clone(), operation: "write to it", source }
                }
            }
        })
    }

    fn receive(&mut self, name: &'static str, patience: Duration) -> Result<Event, ClientError> {
        let failed = |source| ClientError::Io {
            object: self.path.clone(),
            operation: "read from it",
            source,
        };
        let line = match read_line_within(&mut self.stream, LINE_LIMIT_BYTES, patience) {
            Ok(line) => line,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(ClientError::TimedOut { operation: name, waited: patience });
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        if line.is_empty() {
            return Err(ClientError::Ended { operation: name });
        }
        answer_from_line(&line)
            .map_err(|source| ClientError::Malformed { operation: name, source: Some(source) })?
            .map_err(ClientError::Refused)
    }
}

/// Milliseconds for the wire, at least one: a zero timeout would be no chance at all.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
