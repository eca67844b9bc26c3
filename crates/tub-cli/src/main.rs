//! The `tub` command: arguments in, words and exit codes out.
//!
//! In: argv. Out: text for people on stderr, results on stdout, a documented exit code.
//! Invariant: only this crate prints, hints or chooses an exit code.
//! Not here: how anything is done; each command is a few calls into the libraries.
#![forbid(unsafe_code)]

mod report;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Freeze a warmed-up service into an image, and let any number of instances get up from it.
#[derive(Parser)]
#[command(name = "tub", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome: Result<ExitCode, report::Failure> = match cli.command {};
    match outcome {
        Ok(code) => code,
        Err(failure) => failure.print(),
    }
}
