//! The one error: which file, which line, which field, and what stood there.

use alloc::string::String;
use core::fmt;

/// Result of every parser here.
pub type Result<T> = core::result::Result<T, Error>;

/// A file of `/proc` that does not say what it should.
///
/// Either the kernel is newer than this parser, or the file was read while it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    file: &'static str,
    line: usize,
    field: &'static str,
    kind: ErrorKind,
    found: String,
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// It is not there.
    Missing,
    /// It is there and cannot be read as what it should be.
    Malformed,
    /// It is a name that is not UTF-8; such names cannot be stored in an image.
    NotUtf8,
    /// Entries that the kernel lists in order are not.
    OutOfOrder,
}

impl Error {
    /// The kind of the error.
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The file that was parsed, without the process: `"smaps"`.
    pub const fn file(&self) -> &'static str {
        self.file
    }

    /// The line, counted from 1; 0 where the file as a whole is meant.
    pub const fn line(&self) -> usize {
        self.line
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, field, kind, found } = self;
        write!(f, "/proc file {file}")?;
        if *line > 0 {
            write!(f, " line {line}")?;
        }
        match kind {
            ErrorKind::Missing => write!(f, ": {field} is missing"),
            ErrorKind::Malformed => write!(f, ": {field} is malformed: {found:?}"),
            ErrorKind::NotUtf8 => write!(f, ": {field} is not UTF-8: {found:?}"),
            ErrorKind::OutOfOrder => write!(f, ": {field} is out of order: {found:?}"),
        }
    }
}

impl core::error::Error for Error {}

/// Where a parser stands; makes the errors.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) file: &'static str,
    pub(crate) line: usize,
}

impl Place {
    /// The file as a whole.
    pub(crate) const fn file(file: &'static str) -> Self {
        Self { file, line: 0 }
    }

    pub(crate) fn missing(self, field: &'static str) -> Error {
        self.error(field, ErrorKind::Missing, b"")
    }

    pub(crate) fn malformed(self, field: &'static str, found: &[u8]) -> Error {
        self.error(field, ErrorKind::Malformed, found)
    }

    pub(crate) fn error(self, field: &'static str, kind: ErrorKind, found: &[u8]) -> Error {
        // Long enough to recognise the text, short enough for one line of a message.
        let shown = &found[..found.len().min(80)];
        let found = String::from_utf8_lossy(shown).into_owned();
        Error { file: self.file, line: self.line, field, kind, found }
    }
}
