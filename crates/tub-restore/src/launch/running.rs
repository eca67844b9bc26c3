//! The restored process while it runs: signals forwarded, exit status mirrored.
//!
//! In: the running process, every signal blocked in ours. Out: how it ended.

use super::LaunchError;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::os::fd::OwnedFd;
use tub_sys::Errno;
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
    /// By this signal.
    Killed(i32),
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
        let all = SigSet::all();
        loop {
            if let Some(outcome) = self.ended()? {
                return Ok(outcome);
            }
            let info = tub_sys::wait_for_signal(&all)
                .map_err(|source| LaunchError::System { what: "signal", source })?;
            // What the terminal sends, it sends to the whole foreground group, and the process is
            // in it as well.
            if info.signal != libc::SIGCHLD
                && !info.from_kernel
                && let Ok(signal) = Signal::try_from(info.signal)
            {
                let _ = kill(Pid::from_raw(self.main.0), signal);
            }
        }
    }

    fn ended(&self) -> Result<Option<Outcome>, LaunchError> {
        let status = match waitpid(self.child, Some(WaitPidFlag::WNOHANG)) {
            Ok(status) => status,
            Err(Errno::EINTR) => return Ok(None),
            Err(source) => return Err(LaunchError::System { what: "exit status", source }),
        };
        let own = match status {
            WaitStatus::Exited(_, code) => Outcome::Exited(code.to_le_bytes()[0]),
            WaitStatus::Signaled(_, signal, _) => Outcome::Killed(signal as i32),
            _ => return Ok(None),
        };
        let Some(verdict) = &self.verdict else { return Ok(Some(own)) };
        // Where init was killed before it could tell, its own end is the best answer.
        let mut told = [0u8; 2];
        Ok(Some(match nix::unistd::read(verdict, &mut told) {
            Ok(2) if told[0] == 0 => Outcome::Exited(told[1]),
            Ok(2) => Outcome::Killed(i32::from(told[1])),
            _ => own,
        }))
    }
}
