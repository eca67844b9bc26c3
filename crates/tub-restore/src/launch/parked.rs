//! Waits until all tasks are parked.
//!
//! In: the launcher's end of the handshake. Out: the main process. Invariant: a process that fails
//! or ends before all are parked ends the launch, and says which one it was.

use super::{LaunchError, family};
use crate::plan::{Lowered, PlanOp, RestorePlan, Role};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::Pid;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use tub_restorer_abi as abi;
use tub_sys::Errno;
use tub_units::HostPid;

/// Longer than anything that a process says: two paths, of which each byte is an escape of JSON.
pub(super) const WORD_BYTES_MAX: usize = 2 * 6 * 4096;

/// A process of a tree.
#[derive(Debug)]
pub(super) struct Member {
    pid: HostPid,
    /// Index of its birth.
    birth: usize,
    /// None where the host forbids it: then it is not watched over.
    pidfd: Option<OwnedFd>,
}

impl Member {
    /// Its id, as we see it.
    pub(super) const fn pid(&self) -> HostPid {
        self.pid
    }

    /// Whether it is the one with that birth.
    pub(super) const fn is_of(&self, birth: usize) -> bool {
        self.birth == birth
    }

    /// Ends it.
    pub(super) fn kill(&self) {
        let _ = match &self.pidfd {
            Some(pidfd) => tub_sys::kill_by_pidfd(pidfd.as_fd()),
            None => kill(Pid::from_raw(self.pid.0), Signal::SIGKILL),
        };
    }
}

/// What a process has said.
struct Said {
    bytes: Vec<u8>,
    sender: Option<HostPid>,
}

/// Waits for the report of every task that it is parked; answers which process is the main one. Of a
/// task that is alone `born` is told while it makes its memory.
pub(super) fn await_all(
    plan: &RestorePlan,
    lowered: &[Lowered],
    handshake: &OwnedFd,
    family: &mut Vec<Member>,
    mut born: impl FnMut(HostPid),
) -> Result<HostPid, LaunchError> {
    let died = || LaunchError::Died { stage: "before it was parked" };
    let mut main = None;
    let mut parked = 0;
    while parked < plan.tasks.len() {
        watch(plan, handshake, family)?;
        let Said { bytes, sender } = receive(handshake)?;
        let sender = sender.ok_or_else(died)?;
        if let [family::BORN, birth @ ..] = bytes.as_slice() {
            if plan.births.len() == 1 {
                born(sender);
                continue;
            }
            let birth = birth.first_chunk().map_or(usize::MAX, |b| u32::from_ne_bytes(*b) as usize);
            family.push(Member { pid: sender, birth, pidfd: tub_sys::pidfd_open(sender, 0).ok() });
            continue;
        }
        let member = family.iter().find(|member| member.pid == sender);
        let birth = member.map_or(0, |member| member.birth);
        match report(plan, lowered, birth, &bytes) {
            Ok(()) => parked += 1,
            Err(failure) => return Err(of_member(plan, birth, failure)),
        }
        // Whoever is parked has met all others, who had said by then that they were there, or had ended.
        if let Some(missing) = unborn(plan, family) {
            return Err(of_member(plan, missing, died()));
        }
        if birth == 0 {
            main = Some(sender);
        }
    }
    main.ok_or_else(died)
}

/// A task of a tree that has never said that it is there.
fn unborn(plan: &RestorePlan, family: &[Member]) -> Option<usize> {
    let tree = plan.births.len() > 1;
    let is_there = |task: &usize| family.iter().any(|member| member.is_of(*task));
    (0..plan.tasks.len()).find(|task| tree && !is_there(task))
}

/// Names the process, where it is not the main one.
fn of_member(plan: &RestorePlan, birth: usize, failure: LaunchError) -> LaunchError {
    match plan.births.get(birth) {
        Some(of) if birth > 0 => LaunchError::Member { pid: of.pid.0, source: Box::new(failure) },
        _ => failure,
    }
}

/// Waits until there is something to read, or a task has ended without a word.
fn watch<'a>(
    plan: &RestorePlan,
    handshake: &OwnedFd,
    family: &'a [Member],
) -> Result<(), LaunchError> {
    let watched = |member: &'a Member| {
        let birth = plan.births.get(member.birth)?;
        let pidfd = member.pidfd.as_ref().filter(|_| matches!(birth.role, Role::Task(_)))?;
        Some((member.birth, pidfd.as_fd()))
    };
    let tasks: Vec<(usize, BorrowedFd<'_>)> = family.iter().filter_map(watched).collect();
    if tasks.is_empty() {
        return Ok(());
    }
    let mut polled = vec![PollFd::new(handshake.as_fd(), PollFlags::POLLIN)];
    polled.extend(tasks.iter().map(|task| PollFd::new(task.1, PollFlags::POLLIN)));
    loop {
        match poll(&mut polled, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            Err(source) => return Err(LaunchError::System { what: "handshake", source }),
            Ok(_) => break,
        }
    }
    let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
    // What it had to say before it ended comes first.
    if ready(&polled[0]) {
        return Ok(());
    }
    match tasks.iter().zip(&polled[1..]).find(|(_, fd)| ready(fd)) {
        Some((&(birth, _), _)) => {
            let died = LaunchError::Died { stage: "before it was parked" };
            Err(of_member(plan, birth, died))
        }
        None => Ok(()),
    }
}

fn receive(handshake: &OwnedFd) -> Result<Said, LaunchError> {
    let mut buffer = vec![0u8; WORD_BYTES_MAX];
    let mut control = nix::cmsg_space!(libc::ucred);
    loop {
        let mut io = [IoSliceMut::new(&mut buffer)];
        let fd = handshake.as_raw_fd();
        let message = match recvmsg::<()>(fd, &mut io, Some(&mut control), MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            Err(source) => return Err(LaunchError::System { what: "handshake", source }),
            Ok(message) => message,
        };
        let sender = message.cmsgs().ok().and_then(|mut all| {
            all.find_map(|one| match one {
                ControlMessageOwned::ScmCredentials(who) => Some(HostPid(who.pid())),
                _ => None,
            })
        });
        let bytes = message.bytes;
        buffer.truncate(bytes);
        return Ok(Said { bytes: buffer, sender });
    }
}

/// What a process says of itself: that it is parked, or what failed.
pub(super) fn report(
    plan: &RestorePlan,
    lowered: &[Lowered],
    birth: usize,
    said: &[u8],
) -> Result<(), LaunchError> {
    if let Some(failure) = LaunchError::from_message(said) {
        return Err(failure);
    }
    let died = LaunchError::Died { stage: "before it was parked" };
    let Some(words) = said.as_chunks::<4>().0.first_chunk::<4>() else { return Err(died) };
    let [kind, program, op, errno] = words.map(u32::from_ne_bytes);
    let (Some(task), Some(lowered)) = (plan.tasks.get(birth), lowered.get(birth)) else {
        return Err(died);
    };
    match kind {
        abi::REPORT_PARKED => Ok(()),
        abi::REPORT_FAILED => {
            let operation =
                lowered.origin(task, program, op).map_or_else(String::new, PlanOp::to_string);
            Err(LaunchError::Operation {
                thread: task.programs.get(program as usize).map_or(0, |program| program.tid.0),
                operation,
                source: Errno::from_raw(errno.cast_signed()),
            })
        }
        _ => Err(died),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt::PassCred,
    };

    #[test]
    fn what_fails_at_the_longest_of_paths_is_told_in_full() {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .unwrap();
        setsockopt(&ours, PassCred, &true).unwrap();
        let path = format!("/{}", "\u{1}".repeat(4094));
        let failure = LaunchError::FileChanged { path, problem: "is gone".to_owned() };
        nix::unistd::write(&theirs, &failure.to_message()).unwrap();
        let said = receive(&ours).unwrap();
        let understood = LaunchError::from_message(&said.bytes).unwrap();
        assert_eq!(understood.to_string(), failure.to_string());
    }
}
