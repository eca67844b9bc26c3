//! Every developer command: `cargo xtask demo`, `test`, `ci`, …
//!
//! In: a command line. Out: what the command is for; progress on stderr.
//! Invariant: pure Rust; what else a command needs, it looks for and installs or names itself.
//! Not here: anything that a user of the product runs.
#![forbid(unsafe_code)]

mod bench;
mod checks;
mod containers;
mod criu;
mod debian;
mod demo;
mod dist;
mod endurance;
mod examples;
mod failure;
mod fuzz;
mod jdk21;
mod layout;
mod measure;
mod postgres;
mod process;
mod servers;
mod setup;
mod tidy;
mod uvicorn;

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
    /// Knock a warmed-up web service down and let it get up again, with a stopwatch.
    Demo(demo::Options),
    /// Measure, and keep the numbers (bench/README.md).
    Bench(bench::Bench),
    /// Build tub, the agent and the prober, and lay them out in target/tub.
    Build,
    /// Run all tests, in all languages; the last line sums up.
    Test,
    /// Run every subject of the tests under CRIU, and compare with the ledger of what is expected.
    Conformance,
    /// Check the rules that no compiler knows: crate walls, headers, lengths, links.
    Tidy,
    /// Fuzz every parser for a while, or the targets named.
    Fuzz(fuzz::Options),
    /// Let every system call of a checkpoint and a restore fail, and kill tub at every one (slow).
    Faults(endurance::Faults),
    /// Let JVMs with every collector and heaps of every kind get up (slow).
    Heaps,
    /// Let a busy program go through many checkpoints and restores, and many instances live at once.
    Soak(endurance::Soak),
    /// Take images of JVMs in the middle of load, and compare every answer (slow).
    JvmSoak(endurance::JvmSoak),
    /// The quick part of `ci`: formatting, tidy, lints, documentation, unit tests.
    Prepush,
    /// Everything that must hold: formatting, tidy, lints, documentation, the README's test command.
    Ci,
    /// Install what the machine lacks for all of this (as root, through apt-get and rustup).
    Setup,
    /// Pack tub and the agent into one archive.
    Dist,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Bench(what) => bench::run(&what),
        Command::Build => build().map(|layout| println!("{}", layout.dir.display())),
        Command::Test => checks::test(),
        Command::Conformance => checks::conformance(),
        Command::Tidy => tidy::run(),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Faults(options) => endurance::faults(&options),
        Command::Heaps => endurance::heaps(),
        Command::Soak(options) => endurance::soak(&options),
        Command::JvmSoak(options) => endurance::jvm_soak(&options),
        Command::Prepush => checks::prepush(),
        Command::Ci => checks::ci(),
        Command::Setup => setup::everything(),
        Command::Dist => build()
            .and_then(|layout| dist::run(&layout))
            .map(|archive| println!("{}", archive.display())),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Builds everything, with the Java agent if there is a JDK, and says so if there is none.
fn build() -> failure::Result<layout::Layout> {
    setup::need_linker()?;
    let jdk = match setup::need_jdk(None) {
        Ok(jdk) => Some(jdk),
        Err(error) => {
            process::progress(&format!("the Java agent is not built: {error}"));
            None
        }
    };
    let layout = layout::build(jdk.as_ref().map(|jdk| jdk.home.as_path()))?;
    layout::build_packages(&layout)?;
    Ok(layout)
}
