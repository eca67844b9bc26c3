//! `tub release`: lets an instance on standby go.

use crate::report::{Code, Failure};
use crate::restore::{variable, write_whole};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tubthumping::standby::{self, AskError, FailureKind, Status};

/// Let an instance that `tub restore --standby` keeps parked go, and print the id of its process.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The keeper's socket, or the image that it keeps.
    target: PathBuf,
    /// Set a variable that the application sees from now on. May be repeated.
    #[arg(long, value_name = "K=V", value_parser = variable)]
    env: Vec<(OsString, OsString)>,
    /// Write the process's id to this file once it runs.
    #[arg(long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// How long to wait for one where none is parked right now, in seconds.
    #[arg(long, value_name = "S", default_value_t = 10)]
    timeout: u64,
    /// Release nothing; tell what is parked, and what memory it takes.
    #[arg(long, conflicts_with_all = ["env", "pidfile", "arguments"])]
    status: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// New arguments for the application.
    #[arg(last = true, value_name = "NEW-ARGS")]
    arguments: Vec<OsString>,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    let control = standby::control_socket(&args.target);
    let patience = Duration::from_secs(args.timeout.max(1));
    let failed = |error: AskError| {
        let what = format!("nothing can be had from standby at {}", control.display());
        let (code, hint) = advice(&error);
        let late = matches!(error, AskError::NoAnswer { .. }) && !args.status;
        let state =
            if late { "an instance may have been released" } else { "nothing was released" };
        Failure::new(what, &error, code).state(state).hint(hint)
    };
    if args.status {
        let status = standby::status(&control, patience).map_err(failed)?;
        print_status(args, &status);
        return Ok(ExitCode::SUCCESS);
    }
    let env = args
        .env
        .iter()
        .map(|(name, value)| Ok((text(name)?, text(value)?)))
        .collect::<Result<_, Failure>>()?;
    let arguments = args.arguments.iter().map(text).collect::<Result<_, _>>()?;
    let released = standby::release(&control, env, arguments, patience).map_err(failed)?;
    if let Some(path) = &args.pidfile {
        write_whole(path, &format!("{}\n", released.pid)).unwrap_or_else(|error| {
            eprintln!("tub: warning: pidfile {} cannot be written: {error}", path.display());
        });
    }
    if args.json {
        println!("{}", serde_json::json!(released));
    } else {
        println!("{}", released.pid);
    }
    Ok(ExitCode::SUCCESS)
}

/// The keeper is asked in JSON.
fn text(word: &OsString) -> Result<String, Failure> {
    word.to_str().map(str::to_owned).ok_or_else(|| {
        let what = format!("{word:?} is not UTF-8, which a release can only pass on");
        Failure {
            what,
            causes: vec![],
            state: String::new(),
            hint: String::new(),
            code: Code::Usage,
        }
    })
}

fn print_status(args: &Args, status: &Status) {
    if args.json {
        println!("{}", serde_json::json!(status));
        return;
    }
    let mb = |bytes: u64| format!("{}.{}", bytes / 1_000_000, bytes % 1_000_000 / 100_000);
    println!("image       {}", status.image);
    println!("parked      {} of {}", status.parked.len(), status.standby);
    println!("launching   {}", status.launching);
    println!("released    {}", status.released);
    println!("lost        {}", status.lost);
    if let Some(failure) = &status.failure {
        println!("failure     {failure}");
    }
    for one in &status.parked {
        match one.memory {
            Some(memory) => println!(
                "process     {}  anonymous {} MB, Pss {} MB, keeping it {} MB",
                one.pid,
                mb(memory.anonymous_bytes),
                mb(memory.pss_bytes),
                mb(memory.keeping_bytes),
            ),
            None => println!("process     {}  has just ended", one.pid),
        }
    }
}

fn advice(error: &AskError) -> (Code, &'static str) {
    match error {
        AskError::Nobody { source, .. }
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            (Code::NoSuchProcess, "only the keeper's own user and root may ask it")
        }
        AskError::Nobody { .. } => (Code::NoSuchProcess, "start one: tub restore DIR --standby N"),
        AskError::NoAnswer { .. } => (Code::TimedOut, "give it more time with --timeout"),
        AskError::Failed { kind, .. } => match kind {
            FailureKind::Request => (Code::Usage, ""),
            FailureKind::NotAllowed => (Code::NoSuchProcess, ""),
            FailureKind::ImageChanged => {
                (Code::BadImage, "start the keeper again, with the image that is to be used")
            }
            _ => (Code::Failed, "`tub release --status` tells what is parked"),
        },
        _ => (Code::Failed, ""),
    }
}
