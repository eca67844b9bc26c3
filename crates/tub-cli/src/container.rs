//! `tub container`: checkpoints of Podman's and Docker's, with the application's part in them.
//!
//! In: the name of a container. Out: words and an exit code.
//! Not here: the dance itself (`tubthumping::Container`).

use crate::checkpoint::{failure, late_agent, seconds};
use crate::report::{Code, Failure};
use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tubthumping::{
    Container, ContainerCheckpoint, ContainerEngine, ContainerError, ContainerRestore, HostPid,
};

/// Checkpoint and restore containers by their own engine, and tell the application inside.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    Checkpoint(CheckpointArgs),
    Restore(RestoreArgs),
}

/// Have the application prepare, and its engine take the checkpoint; if anything fails, it goes on.
#[derive(clap::Args)]
struct CheckpointArgs {
    /// The container.
    container: String,
    /// Whose it is; without it, whoever knows it.
    #[arg(long, value_enum)]
    with: Option<With>,
    /// An archive to restore copies from, with Podman.
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// Name of the checkpoint, with Docker.
    #[arg(long, value_name = "NAME", default_value = "tub")]
    checkpoint: String,
    /// Let the container go on afterwards.
    #[arg(long)]
    leave_running: bool,
    /// How long the application may take to prepare, in seconds.
    #[arg(long, value_name = "S", default_value_t = 60.0)]
    timeout: f64,
    /// Do not load the agent into a JVM that was started without it.
    #[arg(long)]
    no_attach: bool,
    /// More words for the engine's command.
    #[arg(last = true)]
    words: Vec<OsString>,
}

/// Have the engine restore a container, and wait until its application answers.
#[derive(clap::Args)]
struct RestoreArgs {
    /// The container; with --import, the name of the new one.
    container: String,
    /// Whose it is; without it, whoever knows it.
    #[arg(long, value_enum)]
    with: Option<With>,
    /// The archive that it comes from, with Podman.
    #[arg(long, value_name = "FILE")]
    import: Option<PathBuf>,
    /// Name of the checkpoint, with Docker.
    #[arg(long, value_name = "NAME", default_value = "tub")]
    checkpoint: String,
    /// How long the application may take until it answers, in seconds.
    #[arg(long, value_name = "S", default_value_t = 60.0)]
    timeout: f64,
    /// More words for the engine's command.
    #[arg(last = true)]
    words: Vec<OsString>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum With {
    Podman,
    Docker,
}

impl From<With> for ContainerEngine {
    fn from(with: With) -> Self {
        match with {
            With::Podman => Self::Podman,
            With::Docker => Self::Docker,
        }
    }
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    match &args.verb {
        Verb::Checkpoint(args) => checkpoint(args),
        Verb::Restore(args) => restore(args),
    }
}

fn checkpoint(args: &CheckpointArgs) -> Result<ExitCode, Failure> {
    let name = &args.container;
    let options = ContainerCheckpoint {
        checkpoint: args.checkpoint.clone(),
        export: args.export.clone(),
        leave_running: args.leave_running,
        timeout: seconds("timeout", args.timeout)?,
        late_agent: late_agent(args.no_attach)?,
        words: args.words.clone(),
    };
    let what = format!("container {name} cannot be checkpointed");
    let state = "the container goes on; there is no checkpoint";
    let container = Container::find(name, args.with.map(Into::into))
        .map_err(|error| put(&what, state, &error, None))?;
    if options.export.is_some() && container.engine() == ContainerEngine::Docker {
        let causes = vec!["docker has no archives of checkpoints".to_owned()];
        let hint = "leave --export out, and name the checkpoint with --checkpoint".to_owned();
        return Err(Failure { what, causes, state: state.to_owned(), hint, code: Code::Usage });
    }
    let pid = container.pid().map_err(|error| put(&what, state, &error, None))?;
    container.checkpoint(&options).map_err(|error| put(&what, state, &error, Some(pid)))?;
    let end = if args.leave_running { "it goes on" } else { "it was stopped" };
    println!("container {name} was checkpointed by {}; {end}", container.engine());
    Ok(ExitCode::SUCCESS)
}

fn restore(args: &RestoreArgs) -> Result<ExitCode, Failure> {
    let name = &args.container;
    let options = ContainerRestore {
        checkpoint: args.checkpoint.clone(),
        import: args.import.clone(),
        timeout: seconds("timeout", args.timeout)?,
        words: args.words.clone(),
    };
    let what = format!("container {name} cannot be restored");
    let container = match (&args.import, args.with) {
        (Some(_), _) => Ok(Container::named(name, ContainerEngine::Podman)),
        (None, with) => Container::find(name, with.map(Into::into)),
    };
    let pid = container
        .and_then(|container| container.restore(&options))
        .map_err(|error| put(&what, "", &error, None))?;
    println!("container {name} was restored as process {pid}");
    Ok(ExitCode::SUCCESS)
}

fn put(what: &str, state: &str, error: &ContainerError, pid: Option<HostPid>) -> Failure {
    if let (ContainerError::Prepare { source, .. }, Some(pid)) = (error, pid) {
        // What stands in the way is told as `tub checkpoint` tells it.
        let told = failure(pid, Path::new(""), source);
        return Failure { what: what.to_owned(), ..told };
    }
    let (code, hint) = match error {
        ContainerError::Unknown { .. } | ContainerError::NotRunning { .. } => {
            (Code::NoSuchProcess, "`podman ps --all` and `docker ps --all` list what there is")
        }
        ContainerError::NoEngine { .. } => {
            (Code::HostLacks, "install it, or name the other engine with --with")
        }
        ContainerError::Silent { .. } => {
            (Code::TimedOut, "its log may say why; give it more time with --timeout")
        }
        _ => (Code::Failed, "CRIU, which both engines run, is explained in its own manual"),
    };
    Failure::new(what, error as &dyn Error, code).state(state).hint(hint)
}
