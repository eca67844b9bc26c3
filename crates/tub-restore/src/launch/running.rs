//! The restored process while it runs: signals forwarded, stops and exit status mirrored.
//!
//! In: the running process, every signal blocked in ours. Out: how it ended.
//!
//! What is sent to us is sent on: real-time signals and the values that came with signals included.
//! Only SIGKILL and SIGSTOP cannot be (signal(7)): the first ends the process with us (see `init`), the
//! second stops us alone. A process that a terminal's Ctrl-Z stopped stops us, too, so that the shell
//! takes over; `fg` continues both.
//!
//! A process that is not our child is watched by a pidfd. Its stops are not told to us, so that a Ctrl-Z
//! that we pass on stops us at once; and how it ended is told by the kernel where that keeps it
//! (since 6.15), or by what is left of it, as long as its parent has not waited for it.

use super::LaunchError;
use super::init::Change;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::unistd::{Pid, getpgid, getpgrp, getpid, read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use tub_sys::{ChildChange, Ended, Errno};
use tub_units::HostPid;

/// How long what is left of a process that is not our child is looked at: either its parent waits for
/// it, after which the kernel tells how it ended, or it stays and tells itself.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// A restored process that is on its way.
#[derive(Debug)]
pub struct Running {
    watched: Watched,
    main: HostPid,
}

/// By what we know of its end.
#[derive(Debug)]
enum Watched {
    /// Our child, and where init, if that is it, tells of the main process.
    Child { pid: Pid, verdict: Option<OwnedFd> },
    /// Somebody else's child, as a pidfd.
    Other(OwnedFd),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With this status.
    Exited(u8),
    /// By a signal.
    Killed {
        /// Which.
        signal: i32,
        /// Whether it left a core dump.
        core_dumped: bool,
    },
}

impl Running {
    pub(super) fn new(child: Pid, main: HostPid, verdict: Option<OwnedFd>) -> Self {
        Self { watched: Watched::Child { pid: child, verdict }, main }
    }

    pub(super) fn other(main: HostPid, pidfd: OwnedFd) -> Self {
        Self { watched: Watched::Other(pidfd), main }
    }

    /// The main process, as we see it.
    pub fn main(&self) -> HostPid {
        self.main
    }

    /// Waits until it ends, and passes signals on to it meanwhile. `None` where it is not our child, and
    /// how it ended is known to its parent alone.
    ///
    /// # Errors
    ///
    /// Where the kernel does not let us wait.
    pub fn wait(self) -> Result<Option<Outcome>, LaunchError> {
        let system = |what| move |source| LaunchError::System { what, source };
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals =
            SignalFd::with_flags(&SigSet::all(), flags).map_err(system("signal descriptor"))?;
        // Its end is seen by the closing of the pipe on which init tells of changes.
        let (child, mut told) = match &self.watched {
            Watched::Child { pid, verdict } => (Some((*pid, verdict.as_ref())), verdict.as_ref()),
            Watched::Other(pidfd) => (None, Some(pidfd)),
        };
        loop {
            if let Some((pid, verdict)) = child
                && let Some(outcome) = changes(pid, verdict)?
            {
                return Ok(Some(outcome));
            }
            let mut polled = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            polled.extend(told.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
            match poll(&mut polled, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(source) => return Err(LaunchError::System { what: "signals", source }),
            }
            let readable = |at: usize| polled.get(at).is_some_and(|fd| fd.any() == Some(true));
            match child {
                Some((pid, _)) if readable(1) => match told.map(Change::receive) {
                    Some(Some(Change::Stopped(signal))) => stop_as(signal),
                    Some(Some(Change::Ended(outcome))) => {
                        // Init has nothing more to do; it is a matter of moments.
                        let _ = tub_sys::wait_for_child(pid.as_raw(), 0);
                        return Ok(Some(outcome));
                    }
                    Some(None) | None => told = None,
                },
                None if readable(1) => return Ok(self.end_of_other()),
                _ => {}
            }
            while let Ok(Some(info)) = signals.read_signal() {
                self.pass_on(&info);
            }
        }
    }

    /// Sends on what was sent to us.
    fn pass_on(&self, info: &siginfo) {
        let signal = i32::try_from(info.ssi_signo).unwrap_or(0);
        // A child of ours has changed: that was for us.
        if signal == libc::SIGCHLD {
            return;
        }
        // What a terminal sends, it sends to its whole foreground group, which the process may be in
        // as well.
        if info.ssi_code == libc::SI_KERNEL {
            let theirs = getpgid(Some(Pid::from_raw(self.main.0)));
            if theirs == Ok(getpgrp()) {
                return self.stopped_by(signal);
            }
        }
        // It may have ended this moment.
        let _ = if info.ssi_code == libc::SI_QUEUE {
            tub_sys::queue_signal(self.main, signal, info.ssi_ptr)
        } else {
            tub_sys::send_signal(self.main, signal)
        };
        self.stopped_by(signal);
    }

    /// Stops with a process that is not our child: that it stops, nobody tells us.
    fn stopped_by(&self, signal: i32) {
        if matches!(self.watched, Watched::Other(_)) {
            stop_as(signal);
        }
    }

    /// How a process ended that is not our child, as far as anybody tells us.
    fn end_of_other(&self) -> Option<Outcome> {
        let Watched::Other(pidfd) = &self.watched else { return None };
        let start = Instant::now();
        while start.elapsed() < END_PATIENCE {
            if let Ok(Some(ended)) = tub_sys::end_by_pidfd(pidfd.as_fd()) {
                return Some(ended.into());
            }
            // Last in the file (proc_pid_stat(5)); the process behind the number is this one as long as
            // nobody has waited for it, which the pidfd tells.
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.main));
            let is_left = tub_sys::signal_by_pidfd(pidfd.as_fd(), 0).is_ok();
            let status =
                stat.ok().and_then(|stat| stat.split_whitespace().next_back()?.parse().ok());
            match status.and_then(Ended::of_status) {
                Some(ended) if is_left => return Some(ended.into()),
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        None
    }
}

/// Has the kernel keep what becomes of our children until we ask: where a parent of ours ignores SIGCHLD, we
/// do, too, and children leave nothing behind (wait(2)).
pub fn keep_children() {
    // It has an action, so that this cannot fail.
    let _ = tub_sys::reset_signal_action(libc::SIGCHLD);
}

/// As the first program of a container, we are who gets the orphans of all others there, with what is left
/// of them when they end. It is taken away, but for that of our `own` children.
pub fn reap_orphans(is_own: impl Fn(HostPid) -> bool) {
    while getpid().as_raw() == 1
        && let Ok(Some(pid)) = tub_sys::ended_child()
        && !is_own(HostPid(pid))
        && tub_sys::wait_for_child(pid, libc::WNOHANG).is_ok()
    {}
}

/// What became of our child, if anything did.
///
/// As the first program of a container, we are who gets the orphans of all others there: they are
/// reaped, and that is all. Elsewhere a caller's other children are its own.
fn changes(child: Pid, verdict: Option<&OwnedFd>) -> Result<Option<Outcome>, LaunchError> {
    let whom = if getpid().as_raw() == 1 { -1 } else { child.as_raw() };
    loop {
        let flags = libc::WNOHANG | libc::WUNTRACED;
        let change = match tub_sys::wait_for_child(whom, flags) {
            Ok(Some((pid, change))) if pid == child.as_raw() => change,
            Ok(Some(_)) => continue,
            Ok(None) => return Ok(None),
            Err(Errno::EINTR) => continue,
            Err(source) => return Err(LaunchError::System { what: "exit status", source }),
        };
        match (change, verdict) {
            (ChildChange::Stopped(signal), None) => stop_as(i32::from(signal)),
            (ChildChange::Stopped(_) | ChildChange::Continued, _) => {}
            (ChildChange::Ended(ended), None) => return Ok(Some(ended.into())),
            (ChildChange::Ended(ended), Some(verdict)) => {
                // Where init was killed before it could tell, its own end is the best answer.
                while let Some(change) = Change::receive(verdict) {
                    if let Change::Ended(outcome) = change {
                        return Ok(Some(outcome));
                    }
                }
                return Ok(Some(ended.into()));
            }
        }
    }
}

/// Stops with a process that job control has stopped (Ctrl-Z, or the terminal in the background).
/// SIGSTOP is somebody's who knows the process itself, and who continues it without us.
fn stop_as(signal: i32) {
    if [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal) {
        let _ = raise(Signal::SIGSTOP);
    }
}

impl From<tub_sys::Ended> for Outcome {
    fn from(ended: tub_sys::Ended) -> Self {
        match ended {
            tub_sys::Ended::Exited(code) => Self::Exited(code),
            tub_sys::Ended::Killed { signal, core_dumped } => {
                Self::Killed { signal: i32::from(signal), core_dumped }
            }
        }
    }
}

impl Change {
    /// The next one that init has told; `None` at the end.
    fn receive(pipe: &OwnedFd) -> Option<Self> {
        let mut told = [0u8; 2];
        loop {
            match read(pipe, &mut told) {
                Ok(2) => return Self::from_bytes(told),
                Err(Errno::EINTR) => {}
                _ => return None,
            }
        }
    }
}
