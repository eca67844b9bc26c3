//! An instance that is parked until somebody wants it.
//!
//! In: a plan for standby, then a letter. Out: [`Waiting`], then [`Running`].
//! Invariant: it ends with us, whatever ends us, until it has been released; its clocks go on from the
//! release, as if there had been no time since the checkpoint.
//! Not here: who asks for it, and how many there are.

use super::clocks::{Clocks, OFFSETS};
use super::parked::report;
use super::surroundings::CLONE_NEWTIME;
use super::{LaunchError, Parked, Running, launch};
use crate::plan::{CLOCKS_BYTES, RestorePlan, lower};
use nix::fcntl::{OFlag, open};
use nix::sched::unshare;
use nix::sys::stat::Mode;
use nix::unistd::write;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use tub_units::HostPid;

/// A parked instance with its memory, its hot pages and its descriptors.
#[derive(Debug)]
pub struct Waiting {
    parked: Parked,
    clocks: Option<Clocks>,
    /// To say in words what may fail after all.
    plan: RestorePlan,
}

/// Makes the process of `plan`, which is one for standby, and parks it. As [`launch()`] otherwise.
///
/// # Errors
///
/// As [`launch()`].
pub fn park(plan: RestorePlan, pages: &File) -> Result<Waiting, LaunchError> {
    let clocks = Clocks::of(plan.clocks)?;
    Ok(Waiting { parked: launch(&plan, pages)?, clocks, plan })
}

impl Waiting {
    /// The main process, as we see it.
    pub fn main(&self) -> HostPid {
        self.parked.main()
    }

    /// Our child: init where ids are kept, else the main process.
    pub fn child(&self) -> HostPid {
        HostPid(self.parked.child.pid.as_raw())
    }

    /// Lets it go with `letter`, which is for its mailbox. The point of no return.
    ///
    /// # Errors
    ///
    /// Where it has been killed meanwhile, or cannot have now what it needs: nothing is left of it.
    pub fn release(self, letter: &[u8]) -> Result<Running, LaunchError> {
        let Self { parked, clocks, plan } = self;
        let takes_letter = plan.standby.is_some_and(|awakening| awakening.mailbox.is_some());
        let died = |_| LaunchError::Died { stage: "before it was released" };
        if takes_letter {
            write(&parked.handshake, letter).map_err(died)?;
        }
        // As late as can be: this is when its clocks go on.
        let offsets = clocks.map_or([0; CLOCKS_BYTES], Clocks::offsets);
        write(&parked.handshake, &offsets).map_err(died)?;
        parked.settle().map_err(|said| {
            let lowered: Result<Vec<_>, _> =
                plan.tasks.iter().map(|task| lower(&plan, task)).collect();
            let failure = lowered.ok().and_then(|lowered| report(&plan, &lowered, 0, &said).err());
            failure.unwrap_or(LaunchError::Died { stage: "on the way back" })
        })
    }
}

/// Can be read when something has become of the instance: it says so, or has ended.
impl AsFd for Waiting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.parked.handshake.as_fd()
    }
}

/// Makes the time namespace that the calling process, which is the one being reborn, enters at its
/// release; its offsets stay open for writing. The blob needs nothing but the two descriptors.
pub(super) fn make_clocks(number: i32) -> Result<(), LaunchError> {
    let system = |what| move |source| LaunchError::System { what, source };
    unshare(CLONE_NEWTIME).map_err(system("time namespace"))?;
    let opened = |path: &str, flags| open(path, flags | OFlag::O_CLOEXEC, Mode::empty());
    let offsets = opened(OFFSETS, OFlag::O_WRONLY).map_err(system("offsets of the clocks"))?;
    tub_sys::move_to(offsets, number, true).map_err(system("descriptor"))?;
    let namespace = "/proc/self/ns/time_for_children";
    let namespace = opened(namespace, OFlag::O_RDONLY).map_err(system("time namespace"))?;
    tub_sys::move_to(namespace, number + 1, true).map_err(system("descriptor"))
}
