//! Who asks a keeper: connections, and what has been read of them.
//!
//! In: a listening socket. Out: requests. Invariant: nobody makes the keeper wait: what is slow to ask or
//! to listen waits for itself; only the keeper's own user and root are listened to.

use crate::standby::wire::{self, Answer, Failed, FailureKind, REQUEST_BYTES_MAX, Request};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

/// A connection.
pub(super) type CallerId = u64;

/// So many may be connected at once; who comes later waits at the socket's door.
const MOST: usize = 256;

#[derive(Debug)]
struct Caller {
    stream: UnixStream,
    read: Vec<u8>,
    /// An answer is due: nothing more is read until it is given.
    asked: bool,
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Callers {
    all: BTreeMap<CallerId, Caller>,
    last: CallerId,
}

impl Callers {
    /// Lets in who knocks; gives the users that were turned away.
    pub(super) fn accept(&mut self, listener: &UnixListener) -> Vec<u32> {
        let mut turned_away = Vec::new();
        while self.has_room() {
            let Ok((mut stream, _)) = listener.accept() else { break };
            let peer = getsockopt(&stream, PeerCredentials).map(|peer| peer.uid());
            let uid = peer.unwrap_or(u32::MAX);
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if uid != 0 && uid != geteuid().as_raw() {
                let kind = FailureKind::NotAllowed;
                let error = format!("only user {} and root may ask this keeper", geteuid());
                let failed = Answer::Failed(Failed { kind, error });
                let _ = stream.write_all(&wire::line(&failed));
                turned_away.push(uid);
                continue;
            }
            self.last += 1;
            self.all.insert(self.last, Caller { stream, read: Vec::new(), asked: false });
        }
        turned_away
    }

    /// Whether one more may come in. Who knocks at a full house is not to wake anybody.
    pub(super) fn has_room(&self) -> bool {
        self.all.len() < MOST
    }

    /// What is to be watched.
    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.all.values().filter(|caller| !caller.asked).map(|caller| caller.stream.as_fd())
    }

    /// Requests that have arrived as a whole.
    pub(super) fn take_requests(&mut self) -> Vec<(CallerId, Request)> {
        let mut requests = Vec::new();
        let mut failures = Vec::new();
        self.all.retain(|id, caller| {
            if caller.asked {
                return true;
            }
            let goes_on = caller.read();
            match caller.line() {
                Some(Ok(request)) => requests.push((*id, request)),
                Some(Err(failed)) => failures.push((*id, failed)),
                None => return goes_on,
            }
            caller.asked = true;
            true
        });
        for (id, failed) in failures {
            self.answer(id, &Answer::Failed(failed));
            // Whatever else it says is not worth reading.
            self.all.remove(&id);
        }
        requests
    }

    /// Whether nobody listens there any more.
    pub(super) fn has_left(&self, id: CallerId) -> bool {
        let Some(caller) = self.all.get(&id) else { return true };
        let mut end = [PollFd::new(caller.stream.as_fd(), PollFlags::empty())];
        let hung_up = PollFlags::POLLHUP | PollFlags::POLLERR;
        let found = poll(&mut end, PollTimeout::ZERO);
        found == Ok(1) && end[0].revents().is_some_and(|events| events.intersects(hung_up))
    }

    /// Forgets somebody who has left.
    pub(super) fn forget(&mut self, id: CallerId) {
        self.all.remove(&id);
    }

    /// Answers; whoever wants more asks again on the same connection.
    pub(super) fn answer(&mut self, id: CallerId, answer: &Answer) {
        let Some(caller) = self.all.get_mut(&id) else { return };
        caller.asked = false;
        // It takes the whole line at once, or does not listen.
        if caller.stream.write_all(&wire::line(answer)).is_err() {
            self.all.remove(&id);
        }
    }
}

impl Caller {
    /// Reads what is there; answers whether there may be more.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(bytes) => {
                    self.read.extend(&buffer[..bytes]);
                    if self.read.len() > REQUEST_BYTES_MAX {
                        return false;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    fn line(&mut self) -> Option<Result<Request, Failed>> {
        if self.read.len() > REQUEST_BYTES_MAX {
            let error = format!("request is longer than {REQUEST_BYTES_MAX} bytes");
            return Some(Err(Failed { kind: FailureKind::Request, error }));
        }
        let end = self.read.iter().position(|&byte| byte == b'\n')?;
        let line: Vec<u8> = self.read.drain(..=end).collect();
        Some(wire::request(&line))
    }
}
