//! A child that tries what would change its own process for good.
//!
//! In: the name of a trial. Out: lines `NAME ok` or `NAME` and a reason.
//! Invariant: a helper is the same program, run anew, since namespaces can be entered by a process
//! of one thread only; it ends when its standard input does, at the latest after [`PATIENCE`].

use super::kill;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, getegid, geteuid};
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tub_units::NsPid;

/// How to run this program as a helper: a command that prints what [`try_in_helper`] returns for
/// the name it is given.
pub struct Helper<'a>(pub &'a dyn Fn(&str) -> Command);

pub(super) const USER_NAMESPACE: &str = "user-namespace";
pub(super) const PID_NAMESPACE: &str = "pid-namespace";
pub(super) const TIME_NAMESPACE: &str = "time-namespace";
pub(super) const MOUNT_NAMESPACE: &str = "mount-namespace";
pub(super) const MOUNT_PROC: &str = "mount-proc";
pub(super) const CHOSEN_ID: &str = "chosen-id";
pub(super) const CLOCK_OFFSETS: &str = "clock-offsets";
pub(super) const MEMORY_BOUNDS: &str = "memory-bounds";
pub(super) const EXECUTABLE: &str = "executable";
pub(super) const PERSONALITY: &str = "personality";

pub(super) const NO_STACK: &str = "no such stack";

/// Blocks until its input ends.
const WAIT: &str = "wait";
/// The first process of a PID namespace.
const FIRST: &str = "first";
/// Leaves a process behind that waits, and prints its id.
const ORPHAN: &str = "orphan";

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

    /// Calls `act` with the id of a helper that waits and is no descendant of ours, unless we adopt
    /// orphans; it ends afterwards, since its input does.
    pub(super) fn with_orphan<T>(&self, act: impl FnOnce(Pid) -> T) -> Result<T, String> {
        let (input, ours) = std::io::pipe().map_err(|error| format!("pipe: {error}"))?;
        let mut command = (self.0)(ORPHAN);
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::null());
        let text = output(command)?;
        let orphan = text.trim().parse().map_err(|_| format!("helper: it said {text:?}"))?;
        let result = act(Pid::from_raw(orphan));
        drop(ours);
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
    // A few lines lie in the pipe; its writers are gone, or have another output.
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
        ORPHAN => {
            // It inherits the input; with our output, whoever reads that would wait for it as well.
            let mut command = (helper.0)(WAIT);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            return match command.spawn() {
                Ok(child) => format!("{}\n", child.id()),
                Err(error) => format!("{error}\n"),
            };
        }
        MEMORY_BOUNDS => tell(name, memory_bounds(-1)),
        EXECUTABLE => tell(name, executable()),
        PERSONALITY => {
            use nix::sys::personality::{Persona, set};
            let set = set(Persona::ADDR_NO_RANDOMIZE);
            tell(name, set.map(drop).map_err(|errno| errno.to_string()));
        }
        USER_NAMESPACE => tell(name, enter(CloneFlags::CLONE_NEWUSER)),
        TIME_NAMESPACE => {
            let entered = enter_as_privileged(CLONE_NEWTIME);
            let offsets = entered.clone().and_then(|()| {
                let offsets = fs::write("/proc/self/timens_offsets", "monotonic 1 0\n");
                offsets.map_err(|error| format!("timens_offsets: {error}"))
            });
            tell(TIME_NAMESPACE, entered);
            tell(CLOCK_OFFSETS, offsets);
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
            // Ids like these are far from where a fresh namespace counts.
            let chosen = tub_sys::try_chosen_id(NsPid(4242));
            tell(CHOSEN_ID, chosen.map_err(|errno| errno.to_string()));
            let own = unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| format!("unshare: {errno}"));
            let mounted = own.clone().and_then(|()| mount_proc());
            tell(MOUNT_NAMESPACE, own);
            tell(MOUNT_PROC, mounted);
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

/// As `tub restore` does: mounts made outside still arrive, ours stay ours.
fn mount_proc() -> Result<(), String> {
    use nix::mount::{MsFlags, mount};
    let nothing = None::<&str>;
    let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(nothing, "/", nothing, slave, nothing)
        .and_then(|()| mount(Some("proc"), "/proc", Some("proc"), flags, nothing))
        .map_err(|errno| format!("mount: {errno}"))
}

/// Sets the bounds of our own memory to what they are.
fn memory_bounds(exe_fd: i32) -> Result<(), String> {
    set_memory_bounds(exe_fd)?.map_err(|errno| format!("PR_SET_MM_MAP: {errno}"))
}

fn set_memory_bounds(exe_fd: i32) -> Result<Result<(), Errno>, String> {
    let path = "/proc/self/stat";
    let text = fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let stat = tub_procfs::stat::parse(&text).map_err(|error| format!("{path}: {error}"))?;
    let bounds = [
        stat.start_code,
        stat.end_code,
        stat.start_data,
        stat.end_data,
        stat.start_brk,
        tub_sys::own_brk(),
        stat.start_stack,
        stat.arg_start,
        stat.arg_end,
        stat.env_start,
        stat.env_end,
    ];
    let map = tub_sys::RawMmMap { bounds, exe_fd, ..tub_sys::RawMmMap::default() };
    Ok(tub_sys::set_own_bounds(&map))
}

/// With our own privilege, or that of a user namespace. The right is asked for first: that the old
/// executable is still mapped (EBUSY) is said to those who have it.
fn executable() -> Result<(), String> {
    let exe = fs::File::open("/proc/self/exe").map_err(|error| format!("exe: {error}"))?;
    let set = || match set_memory_bounds(exe.as_raw_fd())? {
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(errno) => Err(format!("PR_SET_MM_MAP: {errno}")),
    };
    set()
        .or_else(|reason| enter(CloneFlags::CLONE_NEWUSER).map_err(|_| reason).and_then(|()| set()))
}
