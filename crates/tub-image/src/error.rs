//! The one error: which file, what is wrong with it, and the system's word where it had one.

use crate::layout::{FLAG_NAMES, Version};
use std::path::{Path, PathBuf};
use std::{error, fmt, io};
use tub_units::AddrRange;

/// Result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure to write or to read an image.
///
/// A failed write leaves nothing behind, and what stood at the image's place untouched.
#[derive(Debug)]
pub struct Error {
    path: PathBuf,
    kind: ErrorKind,
    source: Option<io::Error>,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Checksums do not match: bytes changed after they were written.
    Altered {
        /// Which part.
        part: &'static str,
    },
    /// There is no directory to put the image into.
    ParentMissing,
    /// The image's place is taken by an image, which may not be replaced.
    ExistsImage {
        /// Its id, where it can be read.
        image_id: Option<[u8; 16]>,
    },
    /// The image's place is taken by something that is no image of ours.
    ExistsOther {
        /// What it is.
        what: String,
    },
    /// The caller broke the writer's rules.
    Misuse {
        /// Which one.
        rule: &'static str,
    },
    /// The image's place is a mount point, which no finished directory can be renamed to.
    MountPoint,
    /// There is no name to give to the image: `..`, `/`.
    NoName,
    /// The disk, or the quota, is full.
    NoSpace,
    /// The path is there and holds no image.
    NotAnImage {
        /// What is missing.
        why: String,
    },
    /// Nothing is at the path.
    NotFound,
    /// The image belongs to somebody else, or somebody else may write to it.
    NotOurs {
        /// Owner.
        uid: u32,
        /// Permission bits.
        mode: u32,
    },
    /// We may not write here.
    NotWritable,
    /// The image was taken on another architecture.
    OtherArchitecture {
        /// Its ELF machine number.
        found: u32,
        /// Ours.
        here: u32,
    },
    /// The image was taken with another page size.
    OtherPageSize {
        /// Its page size in bytes.
        found_bytes: u32,
        /// Ours.
        here_bytes: u32,
    },
    /// Runs of pages whose bytes changed after they were written.
    PagesAltered {
        /// Their addresses, ascending.
        ranges: Vec<AddrRange>,
    },
    /// Checksums match and yet the content cannot be: a faulty writer, or a forged image.
    Malformed {
        /// What cannot be.
        what: String,
    },
    /// A system call failed in a way that has no kind of its own.
    System {
        /// Which call.
        call: &'static str,
    },
    /// The file ends early.
    Truncated {
        /// Bytes that are there.
        found_bytes: u64,
        /// Bytes that should be.
        expected_bytes: u64,
    },
    /// A newer release wrote the image in a way that must be understood and is not.
    UnknownFlags {
        /// The flags of the header.
        flags: u32,
    },
    /// A newer release wrote a part that must be understood and is not.
    UnknownRecord {
        /// Its kind.
        kind: u32,
        /// Its version.
        version: u32,
    },
    /// A release with another format wrote the image.
    UnknownVersion {
        /// Its version.
        found: Version,
        /// The newest that this release reads.
        understood: Version,
    },
}

impl Error {
    pub(crate) fn new(path: &Path, kind: ErrorKind) -> Self {
        Self { path: path.to_owned(), kind, source: None }
    }

    pub(crate) fn malformed(path: &Path, what: impl Into<String>) -> Self {
        Self::new(path, ErrorKind::Malformed { what: what.into() })
    }

    /// The error of `call` on `path`, by kind as far as the system tells.
    pub(crate) fn system(path: &Path, call: &'static str, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => ErrorKind::NoSpace,
            _ => ErrorKind::System { call },
        };
        Self { path: path.to_owned(), kind, source: Some(source) }
    }

    pub(crate) fn with_source(path: &Path, kind: ErrorKind, source: io::Error) -> Self {
        Self { path: path.to_owned(), kind, source: Some(source) }
    }

    /// What is wrong.
    pub const fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// The file or directory in question.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.kind)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Altered { part } => write!(f, "{part} was altered: its checksum does not match"),
            Self::ParentMissing => write!(f, "parent directory does not exist"),
            Self::ExistsImage { image_id: Some(id) } => {
                write!(f, "an image is already there, with id {}", Hex(id))
            }
            Self::ExistsImage { image_id: None } => write!(f, "an image is already there"),
            Self::ExistsOther { what } => write!(f, "something that is no image is there: {what}"),
            Self::Misuse { rule } => write!(f, "caller broke a rule of the writer: {rule}"),
            Self::MountPoint => write!(
                f,
                "a mount point is there, and a finished image can only be renamed into place \
                 below it"
            ),
            Self::NoName => write!(f, "path does not end in a name"),
            Self::NoSpace => write!(f, "no space is left"),
            Self::NotAnImage { why } => write!(f, "not an image: {why}"),
            Self::NotFound => write!(f, "nothing is there"),
            Self::NotOurs { uid, mode } => write!(
                f,
                "not safe to use: owner is uid {uid}, mode is {mode:04o}, and only we or root \
                 may own it or write to it"
            ),
            Self::NotWritable => write!(f, "directory is not writable"),
            Self::OtherArchitecture { found, here } => write!(
                f,
                "image is of another architecture: ELF machine {found}, and this is {here}"
            ),
            Self::OtherPageSize { found_bytes, here_bytes } => {
                write!(f, "image has pages of {found_bytes} bytes, and this is for {here_bytes}")
            }
            Self::PagesAltered { ranges } => {
                let bytes: u64 = ranges.iter().map(|range| range.len()).sum();
                write!(f, "{} runs of pages ({bytes} bytes) were altered: ", ranges.len())?;
                for (index, range) in ranges.iter().take(3).enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{range}")?;
                }
                if ranges.len() > 3 { write!(f, ", …") } else { Ok(()) }
            }
            Self::Malformed { what } => write!(f, "content is inconsistent: {what}"),
            Self::System { call } => write!(f, "{call} failed"),
            Self::Truncated { found_bytes, expected_bytes } => {
                write!(f, "truncated: {found_bytes} of {expected_bytes} bytes are there")
            }
            Self::UnknownFlags { flags } => {
                write!(f, "image is written in a way that this release does not read: ")?;
                let named = FLAG_NAMES.iter().filter(|(bit, _)| flags & bit != 0);
                for (_, name) in named {
                    write!(f, "{name}, ")?;
                }
                write!(f, "flags {flags:#x}; a newer release wrote it")
            }
            Self::UnknownRecord { kind, version } => write!(
                f,
                "record of kind {kind} and version {version} is not understood; a newer release \
                 wrote it"
            ),
            Self::UnknownVersion { found, understood } => write!(
                f,
                "format version {found} is not understood; this release reads {}.0 to \
                 {understood}",
                understood.major
            ),
        }
    }
}

/// Bytes as hexadecimal digits.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}
