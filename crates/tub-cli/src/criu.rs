//! Words about CRIU: its options, and what to do about its failures.

use crate::report::Code;
use std::ffi::OsString;
use std::path::PathBuf;
use tubthumping::{CriuError, CriuOptions};

/// Options for CRIU, which the native engine does not look at.
#[derive(clap::Args)]
#[command(next_help_heading = "CRIU")]
pub(crate) struct CriuArgs {
    /// The program, rather than that of TUB_CRIU or PATH.
    #[arg(long, value_name = "FILE")]
    criu: Option<PathBuf>,
    /// One more word for its command line: --criu-option=--tcp-close. May be repeated.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    criu_option: Vec<OsString>,
}

impl CriuArgs {
    pub(crate) fn options(&self) -> CriuOptions {
        CriuOptions { program: self.criu.clone(), words: self.criu_option.clone() }
    }
}

pub(crate) fn advice(error: &CriuError) -> (Code, &'static str) {
    match error {
        CriuError::NotFound | CriuError::CannotRun { .. } | CriuError::NotCriu { .. } => {
            (Code::HostLacks, "install CRIU, or name it with --criu or TUB_CRIU")
        }
        CriuError::Unusable { .. } | CriuError::House(_) => {
            (Code::HostLacks, "CRIU wants root; `tub check` tells what else this host allows")
        }
        CriuError::Exists { .. } => {
            (Code::CannotWrite, "choose another --image, or --replace to replace an image")
        }
        CriuError::ForeignSession { .. } => (
            Code::Refused,
            "start the service in a session of its own (setsid(1)), or use --engine native",
        ),
        CriuError::Io { .. } => (Code::CannotWrite, ""),
        CriuError::Marker { .. } => (Code::BadImage, "take a new checkpoint"),
        _ => (Code::Failed, "what CRIU says is explained in its manual and on its web pages"),
    }
}
