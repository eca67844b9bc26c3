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

    /// Has it let its instance go.
    pub(super) fn release(&mut self, caller: CallerId, wishes: Wishes) {
        let State::Parked { pid, init } = self.state else { return };
        let line = wire::line(&Request::Release(wishes.clone()));
        self.state = State::Releasing { pid, init, due: (caller, wishes) };
        // Where it has ended, that is noticed next.
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let _ = send(self.socket.as_raw_fd(), &line, flags);
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
        let attendant = i32::try_from(self.child.id()).unwrap_or(0);
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
