//! Stopping a process with all its descendants.
//!
//! In: a pid. Out: [`FrozenTree`]. Invariant: no member runs, so none can make another one; dropping
//! the tree lets every member go on where it was.
//!
//! From the top down: a parent that is held does not end, so its children stay its own, and a fork
//! that was under way shows its child as soon as the parent stands still.

use crate::freeze::raw;
use crate::{Error, Frozen, Result};
use nix::sys::signal::{Signal, kill};
use std::time::Duration;
use tub_sys::Errno;
use tub_units::HostPid;

/// A process that ends is no zombie yet, cannot be stopped any more, and has no memory: how often
/// it is looked at until that is over, and the pause in between.
const END_ATTEMPTS: u32 = 50;
const END_PAUSE: Duration = Duration::from_millis(2);

/// A process and all its descendants, stopped.
#[derive(Debug)]
pub struct FrozenTree {
    members: Vec<Frozen>,
    parents: Vec<Option<usize>>,
    zombies: Vec<(HostPid, usize)>,
}

impl FrozenTree {
    /// Stops `root` and all its descendants, those included that appear meanwhile.
    ///
    /// # Errors
    ///
    /// In every case all that were stopped so far are let go again.
    pub fn freeze(root: HostPid) -> Result<Self> {
        let main = Frozen::freeze(root)?;
        if main.stopped_by().is_some() {
            return Err(Error::GroupStopped { pid: root });
        }
        let mut tree = Self { members: vec![main], parents: vec![None], zombies: Vec::new() };
        // A member may get new children while others are still being stopped: those of its own
        // descendants that end, if it is a subreaper.
        while tree.stop_new_ones()? {}
        Ok(tree)
    }

    /// Stops the children that are not known yet; answers whether there were any.
    fn stop_new_ones(&mut self) -> Result<bool> {
        let mut any = false;
        let mut parent = 0;
        while parent < self.members.len() {
            for child in children(&self.members[parent])? {
                if !self.knows(child) {
                    any |= self.add(parent, child)?;
                }
            }
            parent += 1;
        }
        Ok(any)
    }

    fn add(&mut self, parent: usize, child: HostPid) -> Result<bool> {
        let mut attempts = 0..END_ATTEMPTS;
        loop {
            match state(child) {
                // Its parent ignores its end.
                None => return Ok(false),
                Some('Z') => {
                    self.zombies.push((child, parent));
                    return Ok(true);
                }
                Some(_) => {}
            }
            match Frozen::freeze(child) {
                Ok(frozen) => {
                    self.members.push(frozen);
                    self.parents.push(Some(parent));
                    return Ok(true);
                }
                Err(error) if attempts.next().is_none() => return Err(error),
                // It may be about to end.
                Err(_) => std::thread::sleep(END_PAUSE),
            }
        }
    }

    fn knows(&self, pid: HostPid) -> bool {
        self.members.iter().any(|member| member.pid() == pid)
            || self.zombies.iter().any(|&(zombie, _)| zombie == pid)
    }

    /// All processes that can run, the main one first, each after its parent.
    pub fn members(&self) -> &[Frozen] {
        &self.members
    }

    /// Of each member, the index of its parent; none for the main one.
    pub fn parents(&self) -> &[Option<usize>] {
        &self.parents
    }

    /// Those that have ended and were not waited for, each with the index of its parent.
    pub fn zombies(&self) -> &[(HostPid, usize)] {
        &self.zombies
    }

    /// Lets every thread of every member go on where it was.
    pub fn thaw(self) {
        drop(self);
    }

    /// Ends all members. None of them ever runs another instruction.
    ///
    /// The init of the PID namespace that we live in ends when the calling thread does, and takes
    /// everything in the namespace along: whatever is left to be done is done before.
    ///
    /// # Errors
    ///
    /// The first one, the main process before all others, that the kernel does not let us end: it
    /// goes on, and so do those after it. Or the first that was killed and is there all the same.
    pub fn kill(self) -> std::result::Result<(), (HostPid, Errno)> {
        // All before any is reaped: none may be told of the end of another one.
        for member in self.members.iter().filter(|member| !member.is_our_init()) {
            match kill(raw(member.pid()), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(source) => return Err((member.pid(), source)),
            }
        }
        let mut result = Ok(());
        for member in self.members.into_iter().rev() {
            let pid = member.pid();
            if member.is_our_init() {
                if let Err(source) = member.end_with_us() {
                    result = Err((pid, source));
                }
            } else if !member.reap() {
                result = Err((pid, Errno::ETIMEDOUT));
            }
        }
        result
    }
}

/// The state's letter of `proc_pid_stat(5)`: a zombie's is Z, as long as it has no other thread
/// left. `None` where there is no such process.
fn state(pid: HostPid) -> Option<char> {
    let bytes = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = tub_procfs::stat::parse(&bytes).ok()?;
    Some(if stat.state == 'Z' && stat.threads > 1 { 'S' } else { stat.state })
}

/// The children of all threads of a held process.
fn children(of: &Frozen) -> Result<Vec<HostPid>> {
    let mut all = Vec::new();
    for thread in of.threads() {
        let path = format!("/proc/{}/task/{}/children", of.pid(), thread.tid());
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(source) => return Err(Error::Proc { path, source }),
        };
        // The kernel writes numbers and blanks (proc_tid_children(5)).
        all.extend(tub_procfs::children::parse(&bytes).unwrap_or_default());
    }
    Ok(all)
}
