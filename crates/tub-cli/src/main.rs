//! The `tub` command: arguments in, words and exit codes out.
//!
//! In: argv. Out: text for people on stderr, results on stdout, a documented exit code.
//! Invariant: only this crate prints, hints or chooses an exit code.
//! Not here: how anything is done; each command is a few calls into the libraries.
#![forbid(unsafe_code)]

#[macro_use]
mod output;

mod check;
mod checkpoint;
mod container;
mod criu;
mod criu_action;
mod foreign;
mod inspect;
mod java;
mod java_options;
mod jdk;
mod noted;
mod pause;
mod prepare;
mod release;
mod report;
mod restore;
mod run;
mod standby;
mod status;
mod train;
mod verify;

use clap::{Parser, Subcommand};
use report::{Code, Failure};
use std::process::ExitCode;
use tubthumping::Stats;

/// Freeze a warmed-up service into an image, and let any number of instances get up from it.
#[derive(Parser)]
#[command(name = "tub", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Args),
    Checkpoint(checkpoint::Args),
    Restore(restore::Args),
    Release(release::Args),
    /// Keep one parked instance for the keeper on standard input.
    #[command(hide = true)]
    Attend(restore::Args),
    Inspect(inspect::Args),
    Verify(verify::Args),
    Train(train::Args),
    Check(check::Args),
    Status(status::Args),
    Prepare(prepare::Args),
    Resume(prepare::ResumeArgs),
    Container(container::Args),
    CriuAction(criu_action::Args),
    /// Wait for a checkpoint on standard input to end, and put right what it leaves if it is killed.
    #[command(hide = true)]
    Guard,
    Jdk(jdk::Args),
    /// What `bin/java` of a `tub jdk` runs.
    #[command(hide = true)]
    LaunchJava(java::Args),
    /// What `bin/jcmd` of a `tub jdk` runs.
    #[command(hide = true)]
    LaunchJcmd(java::Args),
}

/// `tub restore` by itself. To make the arguments of every command takes a third of a millisecond.
#[derive(Parser)]
#[command(name = "restore")]
struct Restore {
    #[command(flatten)]
    args: restore::Args,
}

/// A restore whose arguments are right. Whoever is to be told something is told by [`Cli`].
fn at_once() -> Option<Command> {
    let mut words = std::env::args_os().skip(1).peekable();
    words.peek().filter(|word| *word == "restore")?;
    Restore::try_parse_from(words).ok().map(|restore| Command::Restore(restore.args))
}

fn main() -> ExitCode {
    let stats = Stats::start();
    let command = if criu_action::is_wanted() {
        Command::CriuAction(criu_action::Args::default())
    } else {
        at_once().unwrap_or_else(|| Cli::parse().command)
    };
    let only_tells = matches!(
        command,
        Command::Inspect(_) | Command::Verify(_) | Command::Check(_) | Command::Status(_)
    );
    let outcome = match command {
        Command::Run(args) => run::main(&args),
        Command::Checkpoint(args) => checkpoint::main(&args),
        Command::Restore(args) => restore::main(&args, stats),
        Command::Release(args) => release::main(&args),
        Command::Attend(args) => standby::attend(&args),
        Command::Inspect(args) => inspect::main(&args),
        Command::Verify(args) => verify::main(&args),
        Command::Train(args) => train::main(&args),
        Command::Check(args) => check::main(&args),
        Command::Status(args) => status::main(&args),
        Command::Prepare(args) => prepare::main(&args),
        Command::Resume(args) => prepare::resume(&args),
        Command::Container(args) => container::main(&args),
        Command::CriuAction(args) => criu_action::main(&args),
        Command::Guard => {
            tubthumping::guard(std::io::stdin().lock());
            Ok(ExitCode::SUCCESS)
        }
        Command::Jdk(args) => jdk::main(&args),
        Command::LaunchJava(args) => java::java(&args),
        Command::LaunchJcmd(args) => java::jcmd(&args),
    };
    let lost = output::lost();
    match outcome {
        Ok(code) => match lost {
            Some(error) if only_tells => {
                Failure::new("standard output cannot be written", &error, Code::Failed).print()
            }
            Some(error) => {
                eprintln!("tub: warning: standard output cannot be written: {error}");
                code
            }
            None => code,
        },
        Err(failure) => failure.print(),
    }
}
