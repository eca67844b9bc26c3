//! Makes the whole family: each process its own children, then all go into their groups.
//!
//! In: the births of the plan, in the process that becomes the main task. Out: every process in its
//! place, each on its way to become its task.
//! Invariant: nobody goes on before all are there; a process that fails says so, and the launcher
//! ends all.

use super::{LaunchError, rebirth};
use crate::plan::{Birth, Group, Ids, Lowered, RestorePlan, Role};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{ForkResult, Pid, fork, getpid, read, setpgid, setsid, write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use tub_sys::{Errno, Forked};
use tub_units::HostPid;

/// First byte of the message by which a process tells the launcher that it is there: the number of
/// its birth follows. One that is alone says so when all files are made.
pub(super) const BORN: u8 = b'B';

/// Ids of processes, by their births, for as long as they are being made.
pub(super) type Pids = &'static [AtomicI32];

/// What all processes of a family share while it is being made.
pub(super) struct Family<'a> {
    plan: &'a RestorePlan,
    lowered: &'a [Lowered],
    /// The ids that they have got.
    ids: Pids,
    /// Where each waits for all others, once with leaders in place, once with members.
    leaders: Meeting,
    members: Meeting,
}

/// A pipe that nobody writes to: it ends when the last one has closed it.
struct Meeting {
    read: OwnedFd,
    write: OwnedFd,
}

impl Meeting {
    /// Above all numbers of the plan.
    fn new(plan: &RestorePlan) -> Result<Self, Errno> {
        let (read, write) = nix::unistd::pipe()?;
        let above = plan.spare.last + 1;
        Ok(Self {
            read: tub_sys::duplicate_above(read.as_raw_fd(), above)?,
            write: tub_sys::duplicate_above(write.as_raw_fd(), above)?,
        })
    }

    /// Waits for all others.
    fn attend(self) {
        drop(self.write);
        let mut nothing = [0u8; 1];
        while read(&self.read, &mut nothing) == Err(Errno::EINTR) {}
    }
}

/// Becomes the main process of a family, with all others made. Gives everybody's ids, by their births.
pub(super) fn make(plan: &RestorePlan, lowered: &[Lowered]) -> Result<Pids, LaunchError> {
    let system = |what| move |source| LaunchError::System { what, source };
    let family = Family {
        plan,
        lowered,
        ids: tub_sys::shared_words(plan.births.len()).map_err(system("shared memory"))?,
        leaders: Meeting::new(plan).map_err(system("pipe"))?,
        members: Meeting::new(plan).map_err(system("pipe"))?,
    };
    family.live(0)
}

impl Family<'_> {
    /// The life of one process until it is in its place: returns where it is to become a task.
    fn live(self, at: usize) -> Result<Pids, LaunchError> {
        let birth = &self.plan.births[at];
        let system = |what| move |source| LaunchError::System { what, source };
        tell_born(self.plan, at);
        self.ids[at].store(getpid().as_raw(), Ordering::Release);
        let mut family = self.make_children(at, true)?;
        if birth.leads_session {
            setsid().map_err(system("session"))?;
        }
        family = family.make_children(at, false)?;
        if birth.group == Group::Lead {
            setpgid(Pid::from_raw(0), Pid::from_raw(0)).map_err(system("process group"))?;
        }
        let Family { plan, ids, leaders, members, .. } = family;
        leaders.attend();
        if let Group::Join(leader) = birth.group {
            let leader = Pid::from_raw(ids[leader].load(Ordering::Acquire));
            setpgid(Pid::from_raw(0), leader).map_err(system("process group"))?;
        }
        members.attend();
        match &birth.role {
            Role::Task(_) => settle_children(plan, at, ids).map(|()| ids),
            Role::Leader => std::process::exit(0),
            Role::Zombie { name, status } => end(name, *status),
        }
    }

    /// Makes the children that are due; each goes its own way.
    fn make_children(self, parent: usize, early: bool) -> Result<Self, LaunchError> {
        let family = self;
        let births = &family.plan.births;
        let due = |birth: &Birth| birth.parent == Some(parent) && birth.early == early;
        for (at, birth) in births.iter().enumerate().filter(|(_, birth)| due(birth)) {
            match family.fork(birth)? {
                ForkResult::Parent { .. } => {}
                ForkResult::Child => {
                    let (plan, lowered) = (family.plan, family.lowered);
                    rebirth::finish(plan, lowered, at, family.live(at))
                }
            }
        }
        Ok(family)
    }

    fn fork(&self, birth: &Birth) -> Result<ForkResult, LaunchError> {
        match self.plan.ids {
            Ids::Keep => {
                // SAFETY: this process is single-threaded: it was forked from a single-threaded one.
                let forked = unsafe { tub_sys::fork_with_pid(birth.pid) };
                match forked.map_err(|source| LaunchError::Pid { pid: birth.pid.0, source })? {
                    Forked::Child => Ok(ForkResult::Child),
                    Forked::Parent(pid) => Ok(ForkResult::Parent { child: Pid::from_raw(pid) }),
                }
            }
            Ids::New => {
                // SAFETY: as above.
                unsafe { fork() }.map_err(|source| LaunchError::System { what: "fork", source })
            }
        }
    }
}

/// Tells the launcher that the process with that birth is there.
pub(super) fn tell_born(plan: &RestorePlan, at: usize) {
    // SAFETY: `claim` has placed the handshake there, and nothing closes it.
    let handshake = unsafe { BorrowedFd::borrow_raw(plan.spare.handshake) };
    let mut message = vec![BORN];
    message.extend(u32::try_from(at).unwrap_or(u32::MAX).to_ne_bytes());
    let _ = write(handshake, &message);
}

/// Waits for what has to have happened to the children of `at`: leaders are gone, zombies are
/// zombies.
fn settle_children(plan: &RestorePlan, at: usize, ids: &[AtomicI32]) -> Result<(), LaunchError> {
    for (child, birth) in plan.births.iter().enumerate() {
        if birth.parent != Some(at) {
            continue;
        }
        let stays_zombie = match birth.role {
            Role::Task(_) => continue,
            Role::Leader => false,
            Role::Zombie { .. } => true,
        };
        let pid = ids[child].load(Ordering::Acquire);
        loop {
            match tub_sys::await_end(pid, stays_zombie) {
                Err(Errno::EINTR) => {}
                Err(source) => return Err(LaunchError::System { what: "end of a child", source }),
                Ok(()) => break,
            }
        }
    }
    Ok(())
}

/// Ends as the zombie did. That its memory was dumped cannot be had again.
fn end(name: &str, status: i32) -> ! {
    let _ = tub_sys::set_own_name(name);
    let signal = status & 0x7f;
    if signal != 0 {
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
        let _ = tub_sys::reset_signal_action(signal);
        let _ = tub_sys::unblock_signal(signal);
        let _ = tub_sys::send_signal(HostPid(getpid().as_raw()), signal);
    }
    std::process::exit((status >> 8) & 0xff)
}
