//! `tub criu-action`: CRIU's action script, for whoever runs CRIU and does not know us.
//!
//! In: CRTOOLS_SCRIPT_ACTION and CRTOOLS_INIT_PID, as criu(8) sets them. Out: an application that is told
//! before and after, or an exit code by which CRIU takes no image.
//! Invariant: what takes no part, and what was prepared already, is left alone. Nothing is sent to an
//! application that stands still: a connection in its queue would be in the way of the image.
//! Not here: the copy, which notices by itself that it is one.

use crate::noted::noted;
use crate::prepare::{busy, prepare_and_note};
use crate::report::Failure;
use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;
use tubthumping::{HostPid, answers_within, is_waiting, leave_word, participant};

/// How long an application may take to prepare, and a copy to answer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How long it waits for CRIU to freeze it: where another script fails after ours, nobody tells it.
const PATIENCE: Duration = Duration::from_secs(120);

const FAILED: &str = "CRIU could not take the image";

/// Where a task sleeps that a control group's freezer has stopped, of either version.
/// KERNEL: kernel/freezer.c, kernel/signal.c; proc_pid_wchan(5).
const FREEZERS: [&str; 2] = ["__refrigerator", "do_freezer_trap"];

/// Be an action script of CRIU's: have the application prepare before a dump, and go on after it.
///
/// CRIU runs a script without words. A `tub` without any that finds CRTOOLS_SCRIPT_ACTION does the same, so
/// that `criu dump --action-script /opt/tub/bin/tub` works. It is of no use where a container is frozen before
/// CRIU runs, as containerd (with it Docker) and CRI-O do: there, `tub container` or `tub prepare`.
#[derive(Default, clap::Args)]
pub(crate) struct Args {
    /// Wait for the end of CRIU, and have the application go on if it still waits for its image then.
    #[arg(long, hide = true, num_args = 2, value_names = ["CRIU", "PID"])]
    watch: Vec<i32>,
}

/// Whether CRIU has started us, without words.
pub(crate) fn is_wanted() -> bool {
    env::args_os().len() == 1 && env::var_os("CRTOOLS_SCRIPT_ACTION").is_some()
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    if let [criu, pid] = args.watch[..] {
        watch(HostPid(criu), HostPid(pid));
        return Ok(ExitCode::SUCCESS);
    }
    let init = env::var("CRTOOLS_INIT_PID").ok().and_then(|pid| pid.parse().ok()).map(HostPid);
    let stage = env::var("CRTOOLS_SCRIPT_ACTION").unwrap_or_default();
    let Some(init) = init else { return Ok(ExitCode::SUCCESS) };
    let pid = participant(init);
    // CRIU(4.2): network-unlock without post-dump before it is a sign of a dump that failed. After one that did
    // not, the application was told already; after a restore nobody waits for word.
    match stage.as_str() {
        "pre-dump" => before(pid)?,
        "post-dump" => tell(pid, None),
        "network-unlock" => tell(pid, Some(FAILED)),
        "post-resume" => {
            answers_within(init, TIMEOUT);
        }
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn before(pid: HostPid) -> Result<(), Failure> {
    if noted(pid).is_some_and(|noted| is_waiting(&noted)) || !tub_control::listens(pid) {
        return Ok(());
    }
    if is_frozen(pid) {
        let hint = "have it prepare before its engine is called: `tub container checkpoint`, `tub prepare`";
        let cause = "it was frozen before CRIU was called, and cannot be told any more";
        return Err(busy(pid, cause, hint.to_owned()));
    }
    if prepare_and_note(pid, None, TIMEOUT, PATIENCE)? {
        start_watching(pid);
    }
    Ok(())
}

/// CRIU may fail without a word to its scripts, or be killed. The application would notice at the end of its
/// patience; where there is no watcher, it does.
fn start_watching(pid: HostPid) {
    let criu = std::os::unix::process::parent_id().to_string();
    let mut command = Command::new("/proc/self/exe");
    command.args(["criu-action", "--watch", &criu, &pid.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // CRIU waits for its script, and for nobody else.
    let _ = command.process_group(0).spawn();
}

fn watch(criu: HostPid, pid: HostPid) {
    while !tub_checkpoint::has_ended(criu) {
        if tub_checkpoint::has_ended(pid) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    tell(pid, Some(FAILED));
}

fn is_frozen(pid: HostPid) -> bool {
    let sleeps_in = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
    FREEZERS.contains(&sleeps_in.trim())
}

/// All its threads stand still; it finds the word as soon as it goes on.
fn tell(pid: HostPid, failed: Option<&str>) {
    if let Some(noted) = noted(pid) {
        leave_word(&noted, failed);
    }
}
