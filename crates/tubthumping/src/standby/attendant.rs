//! Who keeps one parked instance: a process for each, since a launch needs namespaces, and a process
//! with a single thread.
//!
//! In: a socket to the keeper as standard input, options. Out: what became of the instance, told on that
//! socket. Invariant: as long as the instance is parked it ends with us, and we end with the keeper;
//! once released it is as independent as one that was restored detached.

use super::wire::{Failed, FailureKind, Released, Request, Told};
use super::{Parked, park, wire};
use crate::restore::{RestoreError, RestoreOptions};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::unistd::dup2_stdin;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;
use tub_restore::LaunchError;

/// Attends one instance. `warn` is given what a user should know.
///
/// The caller must be single-threaded, and its standard input the socket of a keeper.
///
/// # Errors
///
/// The instance could not be parked; the keeper has been told.
pub fn attend(options: RestoreOptions, warn: &mut dyn FnMut(&str)) -> Result<(), RestoreError> {
    let keeper = Keeper::on_stdin().map_err(RestoreError::Keeper)?;
    // What is parked outlives us when it is released; until then it ends by our end of the handshake.
    let options = RestoreOptions { detach: true, ..options };
    let parked = match park(options) {
        Ok(parked) => parked,
        Err(error) => {
            keeper.failed(failed(FailureKind::Instance, &error), false);
            return Err(error);
        }
    };
    for warning in &parked.warnings {
        warn(warning);
    }
    let (pid, init) = parked.ids();
    keeper.tell(&Told::Parked { pid: pid.0, init: init.0 });
    let (heard, letter) = loop {
        match keeper.next(&parked) {
            // It ends with us.
            Next::KeeperGone => return Ok(()),
            Next::InstanceGone => {
                let error = "the parked instance was killed".to_owned();
                keeper.failed(Failed { kind: FailureKind::Killed, error }, false);
                return Ok(());
            }
            Next::Request(Request::Release(wishes)) => {
                let heard = Instant::now();
                match parked.letter(wishes.environment(), wishes.arguments()) {
                    Ok(letter) => break (heard, letter),
                    Err(error) => keeper.failed(failed(FailureKind::Request, &error), true),
                }
            }
            // The keeper knows that itself.
            Next::Request(Request::Status) => {}
        }
    };
    match parked.release(&letter) {
        Ok(running) => {
            let running_us = u64::try_from(heard.elapsed().as_micros()).unwrap_or(u64::MAX);
            keeper.tell(&Told::Released(Released { pid: running.main().0, running_us }));
        }
        Err(error) => {
            let killed = matches!(&error, RestoreError::Launch(LaunchError::Died { .. }));
            let kind = if killed { FailureKind::Killed } else { FailureKind::Instance };
            keeper.failed(failed(kind, &error), false);
        }
    }
    Ok(())
}

fn failed(kind: FailureKind, error: &RestoreError) -> Failed {
    Failed { kind, error: crate::sentence(error) }
}

/// What is to be done next.
enum Next {
    Request(Request),
    KeeperGone,
    InstanceGone,
}

/// Our end of the socket to the keeper.
struct Keeper(OwnedFd);

impl Keeper {
    /// Takes it from where the keeper has left it, so that the instance does not get it as its standard
    /// input: that is empty.
    fn on_stdin() -> io::Result<Self> {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        dup2_stdin(File::open("/dev/null")?)?;
        Ok(Self(socket))
    }

    fn tell(&self, told: &Told) {
        // Nobody is there to be told that the keeper is gone; that is noticed elsewhere.
        let _ = send(self.0.as_raw_fd(), &wire::line(told), MsgFlags::MSG_NOSIGNAL);
    }

    fn failed(&self, failed: Failed, parked: bool) {
        self.tell(&Told::Failed { failed, parked });
    }

    /// The next message, in no more memory than it needs: room for the longest one would be 32 pages to
    /// clear, while somebody waits for the instance.
    fn message(&self) -> nix::Result<Vec<u8>> {
        let socket = self.0.as_raw_fd();
        let bytes = recv(socket, &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC)?;
        let mut message = vec![0; bytes.min(wire::REQUEST_BYTES_MAX)];
        let bytes = recv(socket, &mut message, MsgFlags::empty())?;
        message.truncate(bytes);
        Ok(message)
    }

    /// Waits for a word of the keeper's, or for the end of either.
    fn next(&self, parked: &Parked) -> Next {
        loop {
            let mut ends =
                [self.0.as_fd(), parked.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut ends, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return Next::KeeperGone,
            }
            let [keeper, instance] = ends.map(|end| end.any() == Some(true));
            if instance {
                return Next::InstanceGone;
            }
            if !keeper {
                continue;
            }
            match self.message() {
                Err(Errno::EINTR) => {}
                Err(_) => return Next::KeeperGone,
                Ok(message) if message.is_empty() => return Next::KeeperGone,
                // It has understood what it sends on.
                Ok(message) => {
                    if let Ok(request) = wire::request(&message) {
                        return Next::Request(request);
                    }
                }
            }
        }
    }
}
