//! A process and all its descendants, as /proc tells of them.
//!
//! In: a pid. Out: [`SurveyedTree`]. Invariant: each member comes after its parent; each knows what
//! the others hold (see [`Kin`]).
//! Not here: what of it can be stored (see [`crate::refuse`]).

use crate::survey::{COMMON, parsed, survey_knowing};
use crate::{Result, Survey, SurveyedFd};
use nix::sys::stat::SFlag;
use std::time::Duration;
use tub_procfs::stat::StatRecord;
use tub_procfs::status::StatusRecord;
use tub_sys::Common;
use tub_units::{HostPid, NsPid};

/// A process that ends is no zombie yet, and has neither memory nor descriptors: how often it is
/// looked at until that is over, and the pause in between.
const END_ATTEMPTS: u32 = 50;
const END_PAUSE: Duration = Duration::from_millis(2);

/// What /proc says about a process and its descendants.
#[derive(Debug)]
pub struct SurveyedTree {
    /// All processes that can run, the main one first, each after its parent.
    pub members: Vec<Survey>,
    /// Of each member, the index of its parent; none for the main one.
    pub parents: Vec<Option<usize>>,
    /// Those that have ended and were not waited for.
    pub zombies: Vec<SurveyedZombie>,
}

/// A process that has ended and was not waited for.
#[derive(Debug)]
pub struct SurveyedZombie {
    /// Its id.
    pub pid: HostPid,
    /// Index of its parent.
    pub parent: usize,
    /// `/proc/PID/status`.
    pub status: StatusRecord,
    /// `/proc/PID/stat`.
    pub stat: StatRecord,
}

/// What a process shares with the other members of its tree.
#[derive(Debug, Default)]
pub struct Kin {
    /// The main process's standard streams, which the restoring process provides: device, inode
    /// and, of a device file, its number.
    pub stdio: Vec<(u64, u64, u64)>,
    /// The descriptors of the others.
    pub descriptors: Vec<KinFd>,
    /// Whether it is not the main process.
    pub descendant: bool,
    /// All processes of the tree, zombies included: id here, and as the process sees it itself.
    pub processes: Vec<(HostPid, NsPid)>,
    /// What it has in common with its parent, as threads have and processes nearly never.
    pub common: Vec<&'static str>,
}

/// A descriptor of another member.
#[derive(Clone, Copy, Debug)]
pub struct KinFd {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// `O_ACCMODE` bits.
    pub access: i32,
}

impl KinFd {
    pub(crate) fn new(fd: &SurveyedFd) -> Self {
        let access = fd.info.flags.cast_signed() & libc::O_ACCMODE;
        Self { dev: fd.dev, ino: fd.ino, access }
    }

    /// Whether it is the other end of the pipe that `fd` is an end of.
    pub(crate) fn is_other_end_of(self, fd: &SurveyedFd) -> bool {
        let one = Self::new(fd);
        (self.dev, self.ino) == (one.dev, one.ino) && self.access != one.access
    }
}

/// Surveys `pid` and all its descendants.
///
/// # Errors
///
/// As [`crate::survey()`]. A descendant that ends meanwhile is none.
pub fn survey_tree(pid: HostPid) -> Result<SurveyedTree> {
    survey_tree_knowing(pid, None)
}

/// Surveys them once more, with what took long to find at the first time.
pub(crate) fn survey_tree_knowing(
    pid: HostPid,
    known: Option<&SurveyedTree>,
) -> Result<SurveyedTree> {
    let main = surveyed(pid, known)?;
    let mut tree = SurveyedTree { members: vec![main], parents: vec![None], zombies: Vec::new() };
    let mut parent = 0;
    while parent < tree.members.len() {
        for child in tree.members[parent].children.clone() {
            tree.add(parent, child, known)?;
        }
        parent += 1;
    }
    tree.introduce(known.is_some());
    Ok(tree)
}

impl SurveyedTree {
    /// The main process.
    pub fn main(&self) -> &Survey {
        &self.members[0]
    }

    fn add(&mut self, parent: usize, child: HostPid, known: Option<&SurveyedTree>) -> Result<()> {
        let mut attempts = 0..END_ATTEMPTS;
        loop {
            if let Some(zombie) = zombie(child, parent) {
                self.zombies.push(zombie);
                return Ok(());
            }
            match surveyed(child, known) {
                Ok(member) => {
                    self.members.push(member);
                    self.parents.push(Some(parent));
                    return Ok(());
                }
                Err(_) if gone(child) => return Ok(()),
                Err(error) if attempts.next().is_none() => return Err(error),
                // It may be about to end.
                Err(_) => std::thread::sleep(END_PAUSE),
            }
        }
    }

    /// Tells each member what the others hold. A child that runs may have its parent's memory because
    /// it is about to execute a program (vfork(2)); one that stands still, with its parent, is not.
    fn introduce(&mut self, standing_still: bool) {
        let pids: Vec<HostPid> = self.members.iter().map(|member| member.pid).collect();
        let common = |index: usize| {
            let parent = self.parents[index].map(|parent| pids[parent]);
            let same = |what| {
                parent
                    .is_some_and(|parent| tub_sys::in_common(parent, pids[index], what) == Ok(true))
            };
            let memory = standing_still && same(Common::Memory);
            let rest = COMMON.iter().filter(|(what, _)| same(*what)).map(|(_, name)| *name);
            memory.then_some("memory").into_iter().chain(rest).collect::<Vec<_>>()
        };
        let common: Vec<_> = (0..pids.len()).map(common).collect();
        let all: Vec<Vec<KinFd>> =
            self.members.iter().map(|member| member.fds.iter().map(KinFd::new).collect()).collect();
        let others = |index: usize| {
            let before = all[..index].iter().flatten();
            before.chain(all[index + 1..].iter().flatten()).copied().collect::<Vec<_>>()
        };
        let descendants = others(0);
        // A pipe between the main process and a descendant is theirs, whatever its number.
        let private = |fd: &SurveyedFd| {
            fd.is(SFlag::S_IFIFO) && descendants.iter().any(|kin| kin.is_other_end_of(fd))
        };
        let stdio: Vec<_> = self.members[0]
            .fds
            .iter()
            .filter(|fd| fd.number <= 2 && !private(fd))
            .map(|fd| (fd.dev, fd.ino, fd.rdev))
            .collect();
        let members = self.members.iter().map(|member| (member.pid, &member.status));
        let zombies = self.zombies.iter().map(|zombie| (zombie.pid, &zombie.status));
        let inner = |status: &StatusRecord| status.ns_pid.last().copied();
        let processes: Vec<_> = members
            .chain(zombies)
            .map(|(pid, status)| (pid, inner(status).unwrap_or(NsPid(pid.0))))
            .collect();
        for ((index, member), common) in self.members.iter_mut().enumerate().zip(common) {
            member.kin = Kin {
                common,
                stdio: stdio.clone(),
                descriptors: others(index),
                descendant: index > 0,
                processes: processes.clone(),
            };
        }
    }
}

fn surveyed(pid: HostPid, known: Option<&SurveyedTree>) -> Result<Survey> {
    let before = known.and_then(|known| known.members.iter().find(|member| member.pid == pid));
    survey_knowing(pid, before.map(|member| &member.watched))
}

/// A process that has ended, if it is one: its last thread, too.
fn zombie(pid: HostPid, parent: usize) -> Option<SurveyedZombie> {
    let stat = parsed(&format!("/proc/{pid}/stat"), tub_procfs::stat::parse).ok()?;
    if stat.state != 'Z' || stat.threads > 1 {
        return None;
    }
    let status = parsed(&format!("/proc/{pid}/status"), tub_procfs::status::parse).ok()?;
    Some(SurveyedZombie { pid, parent, status, stat })
}

fn gone(pid: HostPid) -> bool {
    !std::path::Path::new(&format!("/proc/{pid}")).exists()
}
