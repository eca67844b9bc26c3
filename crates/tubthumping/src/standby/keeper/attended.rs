//! One attendant and its instance, as the keeper sees them.
//!
//! In: what the attendant tells, and its end. Out: what has become of the instance.
//! Invariant: a request is handed out once: to whom answers it.

use super::callers::CallerId;
use crate::standby::wire::{
    self, Failed, FailureKind, Memory, ParkedInstance, Request, Told, Wishes,
};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tub_procfs::rollup;
use tub_units::HostPid;

/// How long an attendant may take to end its instance and itself.
const GRACE: Duration = Duration::from_secs(10);

/// Who waits for an instance, and what it is to be told.
type Due = (CallerId, Wishes);

#[derive(Debug)]
enum State {
    Launching,
    Parked {
        pid: i32,
        init: i32,
    },
    Releasing {
        pid: i32,
        init: i32,
        due: Due,
    },
    /// It runs for itself, or has ended; nobody is interested any more.
    Over(Over),
}

#[derive(Debug)]
enum Over {
    Released,
    NotParked {
        failure: String,
    },
    Lost {
        pid: i32,
    },
    /// Said already.
    Told,
}

/// Why an attendant was not told of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undelivered {
    /// It has ended, and its instance with it: another one may do.
    Gone,
    /// The kernel does not take the message. The instance is still parked.
    Refused(Errno),
}

/// An attendant.
#[derive(Debug)]
pub(super) struct Attended {
    child: Child,
    socket: OwnedFd,
    hung_up: bool,
    state: State,
    status: Option<ExitStatus>,
}

impl Attended {
    pub(super) fn start(words: &[OsString]) -> io::Result<Self> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::from(theirs))
            // What a terminal sends to its foreground group is for the keeper alone.
            .process_group(0)
            .spawn()?;
        Ok(Self { child, socket: ours, hung_up: false, state: State::Launching, status: None })
    }

    /// The attendant.
    pub(super) fn pid(&self) -> HostPid {
        HostPid(i32::try_from(self.child.id()).unwrap_or(0))
    }

    /// What is to be watched.
    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        (!self.hung_up).then(|| self.socket.as_fd())
    }

    /// The next word of it, if there is one.
    pub(super) fn hear(&mut self) -> Option<Told> {
        let mut message = [0; 8192];
        while !self.hung_up {
            match recv(self.socket.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return None,
                Ok(0) | Err(_) => self.hung_up = true,
                Ok(bytes) => match serde_json::from_slice(&message[..bytes]) {
                    Ok(told) => return Some(told),
                    // Too long to be read as a whole: that it failed is seen by its end.
                    Err(_) => continue,
                },
            }
        }
        None
    }

    /// Whether it has ended. Only what it has told before counts from then on.
    pub(super) fn has_ended(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status.is_some()
    }

    pub(super) fn is_launching(&self) -> bool {
        matches!(self.state, State::Launching)
    }

    pub(super) fn is_parked(&self) -> bool {
        matches!(self.state, State::Parked { .. })
    }

    /// Whether it is parked, or about to be.
    pub(super) fn stands_by(&self) -> bool {
        self.is_launching() || self.is_parked()
    }

    pub(super) fn parked(&mut self, pid: i32, init: i32) {
        self.state = State::Parked { pid, init };
    }

    /// Has it let its instance go; gives the request back where it cannot be told, with the reason.
    pub(super) fn release(
        &mut self,
        caller: CallerId,
        wishes: Wishes,
    ) -> Result<(), (Due, Undelivered)> {
        let due = (caller, wishes);
        let State::Parked { pid, init } = self.state else { return Err((due, Undelivered::Gone)) };
        let line = wire::line(&Request::Release(due.1.clone()));
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        match send(self.socket.as_raw_fd(), &line, flags) {
            Ok(_) => {
                self.state = State::Releasing { pid, init, due };
                Ok(())
            }
            Err(Errno::EPIPE | Errno::ECONNRESET) => {
                self.state = State::Over(Over::Lost { pid });
                Err((due, Undelivered::Gone))
            }
            // EMSGSIZE: net.core.wmem_default is lower than it was ever made.
            Err(errno) => Err((due, Undelivered::Refused(errno))),
        }
    }

    /// It was let go: who is to be told of it.
    pub(super) fn released(&mut self) -> Option<Due> {
        match std::mem::replace(&mut self.state, State::Over(Over::Released)) {
            State::Releasing { due, .. } => Some(due),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// It has failed to do what it was to do; gives the request that it leaves unanswered.
    pub(super) fn failed(&mut self, failed: &Failed, still_parked: bool) -> Option<Due> {
        let told = std::mem::replace(&mut self.state, State::Over(Over::Told));
        match told {
            State::Releasing { pid, init, due } => {
                if still_parked {
                    self.state = State::Parked { pid, init };
                } else if failed.kind == FailureKind::Killed {
                    self.state = State::Over(Over::Lost { pid });
                }
                Some(due)
            }
            State::Launching => {
                self.state = State::Over(Over::NotParked { failure: failed.error.clone() });
                None
            }
            State::Parked { pid, .. } => {
                self.state = State::Over(Over::Lost { pid });
                None
            }
            over @ State::Over(_) => {
                self.state = over;
                None
            }
        }
    }

    /// After its end: the instance that was lost with it while it was parked.
    pub(super) fn lost(&self) -> Option<i32> {
        match self.state {
            State::Parked { pid, .. } | State::Over(Over::Lost { pid }) => Some(pid),
            _ => None,
        }
    }

    /// After its end: why there was no instance to begin with.
    pub(super) fn launch_failure(&self) -> Option<String> {
        match &self.state {
            State::Over(Over::NotParked { failure }) => Some(failure.clone()),
            State::Launching => {
                let how = self.status.map_or_else(String::new, |status| format!(" ({status})"));
                Some(format!("its attendant ended without a word{how}"))
            }
            _ => None,
        }
    }

    /// After its end: how it ended, as shells tell it.
    pub(super) fn exit_status(&self) -> u8 {
        let status = self.status.unwrap_or_default();
        let code = status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(1);
        u8::try_from(code).ok().filter(|&code| code != 0).unwrap_or(1)
    }

    /// A parked instance as it is described to others.
    pub(super) fn describe(&self) -> Option<ParkedInstance> {
        let State::Parked { pid, init } = self.state else { return None };
        let attendant = self.pid().0;
        let memory = rollup_of(pid).map(|of| {
            let keepers = [attendant, init].into_iter().filter(|&keeper| keeper != pid);
            let keeping = keepers.filter_map(rollup_of).map(|keeper| keeper.anonymous_bytes);
            Memory {
                anonymous_bytes: of.anonymous_bytes,
                pss_bytes: of.pss_bytes,
                rss_bytes: of.rss_bytes,
                keeping_bytes: keeping.sum(),
            }
        });
        Some(ParkedInstance { pid, attendant, memory })
    }

    /// Ends it, and what it has parked; whatever was released goes on.
    pub(super) fn end(mut self) {
        let socket = self.socket;
        drop(socket);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if start.elapsed() > GRACE {
                // What it has parked ends by the closing of its end of the handshake.
                let _ = self.child.kill();
            }
            sleep(Duration::from_millis(1));
        }
    }
}

fn rollup_of(pid: i32) -> Option<rollup::RollupRecord> {
    let bytes = fs::read(format!("/proc/{pid}/smaps_rollup")).ok()?;
    rollup::parse(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::socket::{setsockopt, sockopt};

    fn parked(program: &str) -> Attended {
        let mut one = Attended::start(&[program.into(), "1000".into()]).unwrap();
        one.parked(1, 1);
        one
    }

    #[test]
    fn a_request_that_cannot_be_passed_on_is_given_back() {
        let mut one = parked("sleep");
        setsockopt(&one.socket, sockopt::SndBuf, &1).unwrap();
        let long = Wishes { args: vec!["x".repeat(100_000)], ..Wishes::default() };
        let refused = one.release(7, long.clone());
        assert_eq!(refused, Err(((7, long), Undelivered::Refused(Errno::EMSGSIZE))));
        assert!(one.is_parked());
        assert_eq!(one.release(7, Wishes::default()), Ok(()));
        let _ = one.child.kill();
        one.end();
    }

    #[test]
    fn a_request_to_somebody_who_has_ended_is_given_back() {
        let mut one = parked("true");
        one.child.wait().unwrap();
        // A program that another test starts at this moment has the other end until its exec.
        let mut watched = [PollFd::new(one.socket.as_fd(), PollFlags::empty())];
        assert_eq!(poll(&mut watched, PollTimeout::from(10_000_u16)), Ok(1));
        let gone = one.release(7, Wishes::default());
        assert_eq!(gone, Err(((7, Wishes::default()), Undelivered::Gone)));
        assert_eq!(one.lost(), Some(1));
    }
}
