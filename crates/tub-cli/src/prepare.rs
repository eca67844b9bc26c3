//! `tub prepare` and `tub resume`: coordination alone, for an engine that is not ours.
//!
//! In: a pid. Out: an application that waits for its image, and one that goes on.
//! Invariant: what is known of a prepared process lies in a directory of the user's alone, and is not
//! relied on: another process of the same number is never written to.
//! Not here: taking an image.

use crate::checkpoint::{failure, late_agent, seconds};
use crate::noted::{note, noted, record};
use crate::report::{Code, Failure};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tubthumping::{CheckpointError, ClientError, HostPid, LateAgent, ResumeError};

/// Have an application prepare for an image that somebody else takes: CRIU, Docker, Podman.
///
/// It waits until it is restored, which it notices by itself, or until `tub resume`, or until its time is
/// over.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The process.
    pid: i32,
    /// How long the application may take to prepare, in seconds.
    #[arg(long, value_name = "S", default_value_t = 60.0)]
    timeout: f64,
    /// How long it waits for its image before it goes on by itself, in seconds.
    #[arg(long, value_name = "S", default_value_t = 600.0)]
    within: f64,
    /// Do not load the agent into a JVM that was started without it.
    #[arg(long)]
    no_attach: bool,
}

/// Have an application go on that `tub prepare` has prepared.
#[derive(clap::Args)]
pub(crate) struct ResumeArgs {
    /// The process.
    pid: i32,
    /// There is no image, and why: whoever asked for the checkpoint is told.
    #[arg(long, value_name = "WHY")]
    failed: Option<String>,
    /// How long the application may take to answer again, in seconds.
    #[arg(long, value_name = "S", default_value_t = 60.0)]
    timeout: f64,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    let pid = HostPid(args.pid);
    let within = seconds("time", args.within)?;
    let timeout = seconds("timeout", args.timeout)?;
    let agent = late_agent(args.no_attach)?;
    if prepare_and_note(pid, agent.as_ref(), timeout, within)? {
        println!(
            "process {pid} is prepared: its image can be taken within {:.0} s; `tub resume {pid}` has it go on",
            args.within
        );
    } else {
        println!("process {pid} takes no part, and can be frozen: {NO_PART}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Why a process is not told.
pub(crate) const NO_PART: &str = "nothing in it listens (a JVM does that is started by `tub run`; any other program calls the library)";

/// As of a checkpoint, but for the image, of which nobody has asked for one yet.
fn unprepared(pid: HostPid, error: &CheckpointError) -> Failure {
    let mut failure = failure(pid, Path::new(""), error);
    failure.what = format!("process {pid} cannot be prepared");
    if let CheckpointError::Engine { .. } = error {
        failure.causes.remove(0);
    }
    failure
}

/// Another checkpoint of it is under way.
pub(crate) fn busy(pid: HostPid, cause: &str, hint: String) -> Failure {
    let what = format!("process {pid} cannot be prepared");
    let causes = vec![cause.to_owned()];
    Failure { what, causes, state: String::new(), hint, code: Code::Busy }
}

/// Has an application prepare, and notes what it takes to have it go on; `false` where it takes no part.
pub(crate) fn prepare_and_note(
    pid: HostPid,
    agent: Option<&LateAgent>,
    timeout: Duration,
    within: Duration,
) -> Result<bool, Failure> {
    let directory = tub_control::default_directory();
    let unkept = |cause: &dyn std::error::Error| {
        let what = format!("process {pid} cannot be prepared: there is no place to note it");
        Failure::new(what, cause, Code::CannotWrite).state("the process goes on and was not told")
    };
    tub_control::make_directory(&directory).map_err(|error| unkept(&error))?;
    let Some(_turn) = Turn::take(pid).map_err(|error| unkept(&error))? else {
        return Err(busy(
            pid,
            "another `tub prepare` is under way",
            "wait for it to end".to_owned(),
        ));
    };
    if let Some(preparation) = noted(pid)
        && tubthumping::is_waiting(&preparation)
    {
        let hint = format!("take its image, or `tub resume {pid}`");
        return Err(busy(pid, "it is prepared already, and waits for its image", hint));
    }
    let prepared = tubthumping::prepare(pid, agent, timeout, within)
        .map_err(|error| unprepared(pid, &error))?;
    let Some(prepared) = prepared else { return Ok(false) };
    if let Err(error) = note(&record(pid), &prepared) {
        // Without it `tub resume` could not reach the process.
        let why = "it could not be noted that it was prepared";
        let _ = tubthumping::resume(&prepared, Some(why), within);
        return Err(unkept(&error).state("the process was told to go on"));
    }
    Ok(true)
}

pub(crate) fn resume(args: &ResumeArgs) -> Result<ExitCode, Failure> {
    let pid = HostPid(args.pid);
    let path = record(pid);
    let what = || format!("process {pid} cannot be told to go on");
    let Some(preparation) = noted(pid) else {
        let causes = vec![format!("{} is not there, or no note of `tub prepare`", path.display())];
        let hint = "only what `tub prepare` of the same user has prepared waits for `tub resume`; a copy \
                    goes on by itself";
        let (state, hint) = ("no process was told anything".to_owned(), hint.to_owned());
        return Err(Failure { what: what(), causes, state, hint, code: Code::NoSuchProcess });
    };
    let timeout = seconds("timeout", args.timeout)?;
    let resumed = tubthumping::resume(&preparation, args.failed.as_deref(), timeout);
    if !matches!(resumed, Err(ResumeError::Silent { .. })) {
        // It is known how it ended; where removing fails, the next preparation overwrites it.
        let _ = fs::remove_file(&path);
    }
    match resumed {
        Ok(true) => println!("process {pid} goes on"),
        Ok(false) => println!("process {pid} goes on already"),
        Err(error) => {
            let (code, hint) = match &error {
                ResumeError::Gone { .. } => {
                    (Code::NoSuchProcess, "what was restored of it goes on by itself")
                }
                ResumeError::Silent { .. } => (Code::TimedOut, "give it more time with --timeout"),
                ResumeError::Coordination(ClientError::TimedOut { .. }) => (Code::TimedOut, ""),
                _ => (Code::Failed, ""),
            };
            return Err(Failure::new(what(), &error, code).hint(hint));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The right to prepare a process. A second one that came in between, when the application has closed its
/// socket and the note is not written yet, would take it for one that takes no part.
struct Turn {
    path: PathBuf,
    _lock: Flock<fs::File>,
}

impl Turn {
    /// `None` where somebody else has it.
    fn take(pid: HostPid) -> io::Result<Option<Self>> {
        let path = tub_control::default_directory().join(format!("{pid}.preparing"));
        let mut options = fs::File::options();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Self { path, _lock: lock })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error.into()),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Whoever waited for nothing opens another.
        let _ = fs::remove_file(&self.path);
    }
}
