//! How a developer command fails: one sentence, and what to do.
//!
//! In: what went wrong. Out: text for stderr.
//! Invariant: a failure of a tool that we ran carries that tool's own last words.
//! Not here: the errors of the product, which have types.

use std::fmt;
use std::io;
use std::path::Path;

/// Why a command stopped.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    hint: Option<String>,
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    /// A failure of the operating system on a file.
    pub(crate) fn io(operation: &str, path: &Path, error: &io::Error) -> Self {
        Self::new(format!("{}: cannot {operation}: {error}", path.display()))
    }

    /// Says what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}
