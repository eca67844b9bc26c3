//! A fact that cannot be had.

use std::{error, fmt, io};

/// A file of `/proc` that cannot be read or does not say what it should.
#[derive(Debug)]
pub struct Error {
    path: &'static str,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Read(io::Error),
    Parse(tub_procfs::Error),
    Lacks(&'static str),
}

impl Error {
    pub(crate) const fn read(path: &'static str, error: io::Error) -> Self {
        Self { path, cause: Cause::Read(error) }
    }

    pub(crate) const fn parse(path: &'static str, error: tub_procfs::Error) -> Self {
        Self { path, cause: Cause::Parse(error) }
    }

    pub(crate) const fn lacks(path: &'static str, what: &'static str) -> Self {
        Self { path, cause: Cause::Lacks(what) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, cause } = self;
        match cause {
            Cause::Read(_) => write!(f, "{path} cannot be read"),
            Cause::Parse(_) => write!(f, "{path} cannot be understood"),
            Cause::Lacks(what) => write!(f, "{path} lacks {what}"),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.cause {
            Cause::Read(error) => Some(error),
            Cause::Parse(error) => Some(error),
            Cause::Lacks(_) => None,
        }
    }
}
