//! The restored process while it runs: signals forwarded, stops and exit status mirrored.
//!
//! In: the running process, every signal blocked in ours. Out: how it ended.
//!
//! What is sent to us is sent on: real-time signals and the values that came with signals included.
//! Only SIGKILL and SIGSTOP cannot be (signal(7)): the first ends the process with us (see `init`), the
//! second stops us alone. A process that a terminal's Ctrl-Z stopped stops us, too, so that the shell
//! takes over; `fg` continues both.

use super::LaunchError;
use super::init::Change;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::unistd::{Pid, getpgid, getpgrp, getpid, read};
use std::os::fd::{AsFd, OwnedFd};
use tub_sys::{ChildChange, Errno};
use tub_units::HostPid;

/// A restored process that is on its way.
#[derive(Debug)]
pub struct Running {
    child: Pid,
    main: HostPid,
    verdict: Option<OwnedFd>,
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
        Self { child, main, verdict }
    }

    /// The main process, as we see it.
    pub fn main(&self) -> HostPid {
        self.main
    }

    /// Waits until it ends, and passes signals on to it meanwhile.
    ///
    /// # Errors
    ///
    /// Where the kernel does not let us wait.
    pub fn wait(self) -> Result<Outcome, LaunchError> {
        let system = |what| move |source| LaunchError::System { what, source };
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals =
            SignalFd::with_flags(&SigSet::all(), flags).map_err(system("signal descriptor"))?;
        // Its end is seen by the closing of the pipe on which init tells of changes.
        let mut told = self.verdict.as_ref();
        loop {
            if let Some(outcome) = self.changes()? {
                return Ok(outcome);
            }
            let mut polled = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            polled.extend(told.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
            match poll(&mut polled, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(source) => return Err(LaunchError::System { what: "signals", source }),
            }
            let readable = |at: usize| polled.get(at).is_some_and(|fd| fd.any() == Some(true));
            if readable(1) {
                match told.map(Change::receive) {
                    Some(Some(Change::Stopped(signal))) => stop_as(signal),
                    Some(Some(Change::Ended(outcome))) => {
                        // Init has nothing more to do; it is a matter of moments.
                        let _ = tub_sys::wait_for_child(self.child.as_raw(), 0);
                        return Ok(outcome);
                    }
                    Some(None) | None => told = None,
                }
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
                return;
            }
        }
        // It may have ended this moment.
        let _ = if info.ssi_code == libc::SI_QUEUE {
            tub_sys::queue_signal(self.main, signal, info.ssi_ptr)
        } else {
            tub_sys::send_signal(self.main, signal)
        };
    }

    /// What became of our child, if anything did.
    ///
    /// As the first program of a container, we are who gets the orphans of all others there: they are
    /// reaped, and that is all. Elsewhere a caller's other children are its own.
    fn changes(&self) -> Result<Option<Outcome>, LaunchError> {
        let whom = if getpid().as_raw() == 1 { -1 } else { self.child.as_raw() };
        loop {
            let flags = libc::WNOHANG | libc::WUNTRACED;
            let change = match tub_sys::wait_for_child(whom, flags) {
                Ok(Some((pid, change))) if pid == self.child.as_raw() => change,
                Ok(Some(_)) => continue,
                Ok(None) => return Ok(None),
                Err(Errno::EINTR) => continue,
                Err(source) => return Err(LaunchError::System { what: "exit status", source }),
            };
            match (change, &self.verdict) {
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
