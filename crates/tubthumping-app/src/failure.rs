//! What went wrong, by the names that all languages share.
//!
//! In: errors of hooks, refusals of the engine. Out: flat lists of failures.
//! Invariant: a failure is never lost; nested ones are spliced in, in the order of the hooks.
//! Not here: who is told.

use std::fmt;
use tub_control::mailbox::Failed;
use tub_control::{OpenResource, OpenResourceKind, ResourceFailure};

/// One thing that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind: the type of a hook's error, or, as in Java, `CheckpointOpenFileException`,
    /// `CheckpointOpenSocketException`, `CheckpointOpenResourceException`, `TimeoutException`,
    /// `IllegalStateException`, `RuntimeException`.
    pub type_name: String,
    /// What is wrong; of a descriptor its path or address.
    pub message: String,
    /// The resource that failed, if one did.
    pub resource: Option<String>,
}

impl Failure {
    pub(crate) fn new(type_name: &str, message: impl Into<String>) -> Self {
        Self { type_name: type_name.to_owned(), message: message.into(), resource: None }
    }

    pub(crate) fn to_wire(&self) -> ResourceFailure {
        let Self { type_name, message, resource } = self.clone();
        ResourceFailure { type_name, message, resource }
    }
}

impl From<&OpenResource> for Failure {
    fn from(open: &OpenResource) -> Self {
        let type_name = match open.kind {
            OpenResourceKind::File => "CheckpointOpenFileException",
            OpenResourceKind::Socket => "CheckpointOpenSocketException",
            OpenResourceKind::Resource => "CheckpointOpenResourceException",
        };
        Self::new(type_name, open.detail.clone())
    }
}

/// What stood in the way, or else the one sentence that there is.
pub(crate) fn failures_of(failed: &Failed) -> Vec<Failure> {
    if failed.failures.is_empty() {
        return vec![Failure::new("RuntimeException", failed.message.clone())];
    }
    failed.failures.iter().map(Failure::from).collect()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(resource) = &self.resource {
            write!(f, "{resource}: ")?;
        }
        write!(f, "{}: {}", self.type_name, self.message)
    }
}

/// Why a hook failed: any error by `?`, or [`HookError::new`].
#[derive(Debug)]
pub struct HookError {
    pub(crate) failures: Vec<Failure>,
}

impl HookError {
    /// A failure by the name of its type.
    pub fn new(type_name: &str, message: impl Into<String>) -> Self {
        Self { failures: vec![Failure::new(type_name, message)] }
    }

    /// Several failures at once: type and message of each.
    pub fn of(failures: impl IntoIterator<Item = (String, String)>) -> Self {
        let failure = |(type_name, message)| Failure { type_name, message, resource: None };
        Self { failures: failures.into_iter().map(failure).collect() }
    }
}

impl<E: std::error::Error> From<E> for HookError {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            message.push_str(": ");
            message.push_str(&inner.to_string());
            source = inner.source();
        }
        Self::new(std::any::type_name::<E>(), message)
    }
}

/// Whether there is an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is none, and the application goes on.
    CheckpointException,
    /// There is one; resources failed afterwards.
    RestoreException,
}

/// Why a checkpoint did not end well, with everything that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Whether there is an image.
    pub kind: ErrorKind,
    /// What failed, in the order of the hooks; never empty.
    pub failures: Vec<Failure>,
}

impl Error {
    pub(crate) fn checkpoint(failure: Failure) -> Self {
        Self { kind: ErrorKind::CheckpointException, failures: vec![failure] }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            ErrorKind::CheckpointException => "the checkpoint failed",
            ErrorKind::RestoreException => "resources failed after the checkpoint",
        })?;
        for (index, failure) in self.failures.iter().enumerate() {
            write!(f, "{} {failure}", if index == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
