//! A child that tries what would change its own process for good.
//!
//! In: the name of a trial. Out: lines `NAME ok` or `NAME` and a reason.
//! Invariant: a helper is the same program, run anew, since namespaces can be entered by a process
//! of one thread only; it ends when its standard input does, at the latest after [`PATIENCE`].

use super::kill;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, getegid, geteuid};
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How to run this program as a helper: a command that prints what [`try_in_helper`] returns for
/// the name it is given.
pub struct Helper<'a>(pub &'a dyn Fn(&str) -> Command);

pub(super) const USER_NAMESPACE: &str = "user-namespace";
pub(super) const PID_NAMESPACE: &str = "pid-namespace";
pub(super) const TIME_NAMESPACE: &str = "time-namespace";
pub(super) const MOUNT_PROC: &str = "mount-proc";
pub(super) const CHOSEN_ID: &str = "chosen-id";

/// Blocks until its input ends.
const WAIT: &str = "wait";
/// The first process of a PID namespace.
const FIRST: &str = "first";
/// Prints its own id.
const OWN_ID: &str = "own-id";

/// Longer than any trial takes on a machine that works at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// What helpers said.
pub(super) struct Report(Result<String, String>);

impl Report {
    /// What came of the trial `name`.
    pub(super) fn outcome(&self, name: &str) -> Result<(), String> {
        let text = self.0.as_ref().map_err(Clone::clone)?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        match line {
            Some("ok") => Ok(()),
            Some(reason) => Err(reason.to_owned()),
            None => Err("it was not reached".to_owned()),
        }
    }
}

impl Helper<'_> {
    /// Runs the trial `name` in a helper.
    pub(super) fn run(&self, name: &str) -> Report {
        let mut command = (self.0)(name);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Report(output(command))
    }

    /// Calls `act` with the id of a helper that waits; it ends afterwards.
    pub(super) fn with_waiting<T>(&self, act: impl FnOnce(Pid) -> T) -> Result<T, String> {
        let mut command = (self.0)(WAIT);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| format!("helper: {error}"))?;
        let result = act(pid(&child));
        kill(pid(&child));
        let _ = child.wait();
        Ok(result)
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("process ids are positive 32-bit numbers"))
}

/// Output of a command that prints little and ends soon.
fn output(mut command: Command) -> Result<String, String> {
    let mut child = command.spawn().map_err(|error| format!("helper: {error}"))?;
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(_)) => break,
            Ok(None) if start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(None) => {
                kill(pid(&child));
                let _ = child.wait();
                return Err(format!("helper did not end within {} s", PATIENCE.as_secs()));
            }
            Err(error) => return Err(format!("helper: {error}")),
        }
    }
    let mut text = String::new();
    // A few lines lie in the pipe; its writers are gone.
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut text).map_err(|error| format!("helper: {error}"))?;
    }
    Ok(text)
}

/// Tries `name` in this process, which must have one thread and be done with afterwards.
///
/// The text is to be printed on standard output.
pub fn try_in_helper(helper: &Helper<'_>, name: &str) -> String {
    let mut report = String::new();
    let mut tell = |name: &str, outcome: Result<(), String>| {
        let outcome = outcome.err().unwrap_or_else(|| "ok".into());
        let _ = writeln!(report, "{name} {outcome}");
    };
    match name {
        WAIT => {
            let _ = std::io::stdin().read(&mut [0]);
        }
        OWN_ID => return format!("{}\n", std::process::id()),
        USER_NAMESPACE => tell(name, enter(CloneFlags::CLONE_NEWUSER)),
        TIME_NAMESPACE => {
            let outcome = enter_as_privileged(CLONE_NEWTIME).and_then(|()| {
                let offsets = fs::write("/proc/self/timens_offsets", "monotonic 1 0\n");
                offsets.map_err(|error| format!("timens_offsets: {error}"))
            });
            tell(name, outcome);
        }
        PID_NAMESPACE => match enter_as_privileged(CloneFlags::CLONE_NEWPID) {
            Err(reason) => tell(name, Err(reason)),
            Ok(()) => {
                tell(name, Ok(()));
                let Report(said) = helper.run(FIRST);
                report.push_str(&said.unwrap_or_else(|reason| format!("{MOUNT_PROC} {reason}\n")));
            }
        },
        FIRST => {
            let mounted = mount_proc();
            let chosen = chosen_id(helper);
            tell(MOUNT_PROC, mounted);
            tell(CHOSEN_ID, chosen);
        }
        _ => tell(name, Err("there is no such trial".into())),
    }
    report
}

/// linux/sched.h; not every C library has a name for it.
const CLONE_NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// Enters a namespace by our own privilege, or with that of a user namespace of our own, as
/// `tub restore` does.
fn enter_as_privileged(flags: CloneFlags) -> Result<(), String> {
    match unshare(flags) {
        Ok(()) => Ok(()),
        Err(_) => enter(flags | CloneFlags::CLONE_NEWUSER),
    }
}

fn enter(flags: CloneFlags) -> Result<(), String> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(flags).map_err(|errno| format!("unshare: {errno}"))?;
    if flags.contains(CloneFlags::CLONE_NEWUSER) {
        // As 0, so that a helper of ours keeps its privilege over the namespace across exec.
        let write = |path: &str, text: String| {
            fs::write(path, text).map_err(|error| format!("{path}: {error}"))
        };
        write("/proc/self/setgroups", "deny".into())?;
        write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    Ok(())
}

fn mount_proc() -> Result<(), String> {
    use nix::mount::{MsFlags, mount};
    let nothing = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| format!("unshare: {errno}"))?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(nothing, "/", nothing, flags, nothing)
        .and_then(|()| mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), nothing))
        .map_err(|errno| format!("mount: {errno}"))
}

/// Sets the id that the next process gets. `clone3(set_tid)` asks for the same privilege, and
/// cannot be called from safe code.
fn chosen_id(helper: &Helper<'_>) -> Result<(), String> {
    let path = "/proc/sys/kernel/ns_last_pid";
    fs::write(path, "4241").map_err(|error| format!("{path}: {error}"))?;
    let Report(said) = helper.run(OWN_ID);
    match said?.trim() {
        "4242" => Ok(()),
        other => Err(format!("process 4242 became {other:?}")),
    }
}
