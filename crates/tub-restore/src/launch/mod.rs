//! Carries out a plan: makes the process, lets it lay itself out, and parks it.
//!
//! In: a plan, the page store, the surroundings. Out: [`Parked`], then [`Running`].
//! Invariant: until [`Parked::resume`] nothing of the image has run, unless the plan has it go at once;
//! dropping a [`Parked`] or failing on the way ends every process that was made.
//!
//! ```text
//!   tub restore ──fork──▶ init (PID 1, ids kept) ──clone3(set_tid)──▶ main ──▶ blob ──▶ image
//!        │                  reaps, mirrors, dies with tub               │
//!        └──────────────◀── handshake: parked / failed; go ──▶──────────┘
//! ```

pub(crate) mod blob;
mod clocks;
mod descriptors;
mod enter;
mod error;
mod family;
mod house;
mod init;
mod other;
mod parked;
mod rebirth;
mod running;
mod standby;
mod surroundings;

pub use error::LaunchError;
pub use house::{Housed, house};
pub use other::Other;
pub use running::{Outcome, Running, keep_children, reap_orphans};
pub use standby::{Waiting, park};
pub use surroundings::Surroundings;

use crate::plan::{Ids, Lowered, RestorePlan, lower};
use clocks::Clocks;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, write};
use parked::Member;
use std::fs::File;
use std::os::fd::OwnedFd;
use tub_sys::Errno;
use tub_units::HostPid;

/// A process that is laid out and waits for the word.
#[derive(Debug)]
pub struct Parked {
    child: Child,
    main: HostPid,
    /// How many tasks wait for the word.
    tasks: usize,
    handshake: OwnedFd,
    /// To be dropped when it runs, and not before.
    #[expect(dead_code, reason = "held to be dropped")]
    spent: Vec<Lowered>,
}

/// The direct child of the restoring process: init where ids are kept, else the main process.
#[derive(Debug)]
struct Child {
    pid: Pid,
    /// Where init tells how the main process ended.
    verdict: Option<OwnedFd>,
    /// All processes of a tree, as far as they have said that they are there.
    family: Vec<Member>,
    armed: bool,
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.armed {
            for member in &self.family {
                member.kill();
            }
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
    }
}

/// Makes the processes of `plan` and parks them.
///
/// The caller must be single-threaded, and have entered the [`Surroundings`] that the plan was made
/// for. On return every signal is blocked in it, so that none is
/// lost: [`Running::wait`] takes them from there.
///
/// # Errors
///
/// What failed, on which object. All processes made have ended.
///
/// # Panics
///
/// Never.
pub fn launch(plan: &RestorePlan, pages: &File) -> Result<Parked, LaunchError> {
    let system = |what| move |source| LaunchError::System { what, source };
    let lowered: Result<Vec<Lowered>, _> =
        plan.tasks.iter().map(|task| lower(plan, task)).collect();
    let lowered = lowered.map_err(system("memory for the blob"))?;
    // An instance on standby enters its time when it is released.
    if plan.standby.is_none()
        && let Some(clocks) = Clocks::of(plan.clocks)?
    {
        clocks.set()?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)
        .map_err(system("signal mask"))?;
    keep_children();
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(system("socket pair"))?;
    // The kernel translates the sender's id into our PID namespace.
    setsockopt(&ours, sockopt::PassCred, &true).map_err(system("socket option"))?;
    let mut child = if plan.ids == Ids::Keep {
        let (verdict, teller) = nix::unistd::pipe().map_err(system("pipe"))?;
        // SAFETY: the caller is single-threaded, so the child may use all of std.
        match unsafe { fork() }.map_err(system("fork"))? {
            ForkResult::Child => {
                drop((ours, verdict));
                init::run(plan, &lowered, pages, theirs, teller)
            }
            ForkResult::Parent { child } => {
                Child { pid: child, verdict: Some(verdict), armed: true, family: Vec::new() }
            }
        }
    } else {
        // SAFETY: the caller is single-threaded, so the child may use all of std.
        match unsafe { fork() }.map_err(system("fork"))? {
            ForkResult::Child => {
                drop(ours);
                rebirth::run(plan, &lowered, pages, theirs, false)
            }
            ForkResult::Parent { child } => {
                Child { pid: child, verdict: None, armed: true, family: Vec::new() }
            }
        }
    };
    drop(theirs);
    let mut told = false;
    let main = parked::await_all(plan, &lowered, &ours, &mut child.family, |alone| {
        descriptors::scratch::name_all(&plan.mapped_files, |_| Some(alone));
        // It is told once more where that fails.
        told = plan.at_once && write(&ours, GO).is_ok();
    })?;
    if plan.births.len() > 1 {
        descriptors::scratch::name_all(&plan.mapped_files, |of| {
            let birth = plan.births.iter().position(|birth| birth.pid == of)?;
            child.family.iter().find(|member| member.is_of(birth)).map(Member::pid)
        });
    }
    let tasks = if told { 0 } else { plan.tasks.len() };
    Ok(Parked { child, main, tasks, handshake: ours, spent: lowered })
}

/// What lets a task go.
const GO: &[u8] = &[1];

impl Parked {
    /// The main process, as we see it.
    pub fn main(&self) -> HostPid {
        self.main
    }

    /// Lets it go, where it has not gone already. The point of no return.
    ///
    /// # Errors
    ///
    /// Where the process has been killed meanwhile.
    pub fn resume(self) -> Result<Running, LaunchError> {
        let died = |_| LaunchError::Died { stage: "before it was told to go" };
        // One message for each task.
        for _ in 0..self.tasks {
            write(&self.handshake, GO).map_err(died)?;
        }
        self.settle().map_err(|_| LaunchError::Died { stage: "on the way back" })
    }

    /// Sees it on its way; or what it has said instead, which is nothing where it was killed.
    fn settle(mut self) -> Result<Running, Vec<u8>> {
        // The main thread of each closes its end right before it lets all others go.
        let mut said = vec![0; parked::WORD_BYTES_MAX];
        loop {
            match nix::unistd::read(&self.handshake, &mut said) {
                Ok(0) => break,
                Err(Errno::EINTR) => {}
                Ok(bytes) => {
                    said.truncate(bytes);
                    return Err(said);
                }
                Err(_) => return Err(Vec::new()),
            }
        }
        self.child.armed = false;
        let verdict = self.child.verdict.take();
        Ok(Running::new(self.child.pid, self.main, verdict))
    }
}
