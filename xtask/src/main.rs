//! Every developer command: `cargo xtask demo`, `test`, `ci`, …
//!
//! In: a command line. Out: what the command is for; progress on stderr.
//! Invariant: pure Rust; what else a command needs, it looks for and installs or names itself.
//! Not here: anything that a user of the product runs.
#![forbid(unsafe_code)]

mod failure;
mod layout;
mod process;
mod setup;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// The developer's door to Tubthumping.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build tub, the agent and the prober, and lay them out in target/tub.
    Build,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Build => build(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> failure::Result<()> {
    setup::need_linker()?;
    let jdk = match setup::need_jdk(None) {
        Ok(jdk) => Some(jdk),
        Err(error) => {
            process::progress(&error.to_string());
            None
        }
    };
    let layout = layout::build(jdk.as_ref().map(|jdk| jdk.home.as_path()))?;
    println!("{}", layout.dir.display());
    Ok(())
}
