//! Asks a keeper.
//!
//! In: a socket, a wish. Out: the answer. Invariant: no wait without a bound.

use super::wire::{self, Answer, FailureKind, Released, Request, Status, Wishes};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tub_control::{LINE_LIMIT_BYTES, connect_within, read_line_within};

/// Why nothing was released, or told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nobody answers there.
    #[error("no keeper answers at {}", path.display())]
    Nobody {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The keeper went away, or says what cannot be understood.
    #[error("keeper at {} did not answer", path.display())]
    NoAnswer {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It says no.
    #[error("{error}")]
    Failed {
        /// Which kind.
        kind: FailureKind,
        /// In words.
        error: String,
    },
}

/// Has the keeper at `control` let one instance go, with variables on top of the keeper's and new
/// arguments.
///
/// # Errors
///
/// Nothing was released, unless the keeper did not answer: then it may have been.
pub fn release(
    control: &Path,
    env: Vec<(String, String)>,
    args: Vec<String>,
    patience: Duration,
) -> Result<Released, AskError> {
    match ask(control, &Request::Release(Wishes { env, args }), patience)? {
        Answer::Released(released) => Ok(released),
        other => Err(unexpected(control, other)),
    }
}

/// What is parked at `control`.
///
/// # Errors
///
/// It cannot be told.
pub fn status(control: &Path, patience: Duration) -> Result<Status, AskError> {
    match ask(control, &Request::Status, patience)? {
        Answer::Status(status) => Ok(status),
        other => Err(unexpected(control, other)),
    }
}

fn unexpected(control: &Path, answer: Answer) -> AskError {
    match answer {
        Answer::Failed(failed) => AskError::Failed { kind: failed.kind, error: failed.error },
        _ => {
            let path = control.to_owned();
            AskError::NoAnswer { path, source: io::ErrorKind::InvalidData.into() }
        }
    }
}

fn ask(control: &Path, request: &Request, patience: Duration) -> Result<Answer, AskError> {
    let nobody = |source| AskError::Nobody { path: control.to_owned(), source };
    let no_answer = |source: io::Error| {
        // What a bounded write says when its time is over.
        let late = source.kind() == io::ErrorKind::WouldBlock;
        let source = if late { io::ErrorKind::TimedOut.into() } else { source };
        AskError::NoAnswer { path: control.to_owned(), source }
    };
    let mut stream = connect_within(control, patience).map_err(|source| match source.kind() {
        // Somebody is there, and does not even let us in.
        io::ErrorKind::TimedOut => no_answer(source),
        _ => nobody(source),
    })?;
    stream.set_write_timeout(Some(patience)).map_err(no_answer)?;
    // One that turns us away does so without listening.
    let written = stream.write_all(&wire::line(request));
    let read = read_line_within(&mut BufReader::new(stream), LINE_LIMIT_BYTES, patience);
    let line = match (read, written) {
        (Ok(line), Ok(())) if line.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
        (Ok(line), Err(unwritten)) if line.is_empty() => Err(unwritten),
        (Err(_), Err(unwritten)) => Err(unwritten),
        (read, _) => read,
    };
    let line = line.map_err(no_answer)?;
    serde_json::from_slice(&line).map_err(|error| no_answer(error.into()))
}
