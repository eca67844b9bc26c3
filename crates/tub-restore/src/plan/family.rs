//! Which processes there are to be, whose children they are, and in which sessions and groups.
//!
//! In: tasks and zombies. Out: one [`Birth`] for each process, and for each group leader that is no
//! more. Pure. Invariant: each comes after its parent; what the kernel does not allow is refused.
//!
//! ```text
//!   each process   makes the children of its parent's session (early)
//!                  leads a session of its own, if it did
//!                  makes its other children
//!                  leads a group, if it did
//!   all meet       every leader is there
//!                  joins its group
//!   all meet       leaders that are no more, and zombies, may end
//! ```
//!
//! KERNEL: setpgid(2): a process is put into a group by itself or its parent, and only into one of
//! its own session that has a member; a zombie counts. A session is only ever inherited or begun.

use super::{Ids, PlanError, PlanFacts};
use std::collections::BTreeMap;
use std::fmt;
use tub_model::Checkpoint;
use tub_units::NsPid;

/// How one process comes to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Birth {
    /// Its id in the image.
    pub pid: NsPid,
    /// Its parent, by index; none for the main process.
    pub parent: Option<usize>,
    /// Whether its parent makes it before it begins a session of its own.
    pub early: bool,
    /// Whether it begins a session.
    pub leads_session: bool,
    /// Its process group.
    pub group: Group,
    /// What it is.
    pub role: Role,
}

impl Birth {
    /// Whether it is a child of that process, and ends before the process runs.
    pub(super) fn ends_as_child_of(&self, parent: usize) -> bool {
        self.parent == Some(parent) && !matches!(self.role, Role::Task(_))
    }
}

/// How a process comes into its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// It stays where it was born.
    Inherit,
    /// It leads one.
    Lead,
    /// It joins that of another one, by index.
    Join(usize),
}

/// What a process is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// To become the task of that index.
    Task(usize),
    /// To end, and to be waited for.
    Zombie {
        /// Its name.
        name: String,
        /// How it ended, as `wait(2)` tells it.
        status: i32,
    },
    /// To lead a group until all members are in it: the leader had ended, and the group had not.
    Leader,
}

/// What each process is born for, with what cannot be had under new ids.
pub(super) fn births(
    checkpoint: &Checkpoint,
    facts: &PlanFacts,
    ids: Ids,
    warnings: &mut Vec<String>,
) -> Result<Vec<Birth>, PlanError> {
    let several = checkpoint.tasks.len() + checkpoint.zombies.len() > 1;
    if several && ids == Ids::New {
        warnings.push(
            "processes have new ids: a parent that remembers the ids of its children, or of groups, \
             does not find them by these (waiting for any child works)"
                .to_owned(),
        );
    }
    plan(checkpoint, several && !facts.terminal)
}

/// Plans all births: tasks first, under their own indices.
///
/// `own_group` tells whether the main process gets the group that it led; where it is not so, it
/// stays in that of the restoring process.
fn plan(checkpoint: &Checkpoint, own_group: bool) -> Result<Vec<Birth>, PlanError> {
    let tasks = &checkpoint.tasks;
    let main = &tasks[0];
    // Id, parent, group and session of all.
    let mut all: Vec<(NsPid, Option<usize>, NsPid, NsPid)> =
        tasks.iter().map(|task| (task.pid, task.parent, task.group, task.session)).collect();
    let zombies = checkpoint.zombies.iter();
    all.extend(zombies.map(|one| (one.pid, Some(one.parent), one.group, one.session)));
    let index: BTreeMap<NsPid, usize> =
        all.iter().enumerate().map(|(index, one)| (one.0, index)).collect();
    let mut births = Vec::with_capacity(all.len());
    // Group leaders that are no more, by their ids, each with a member to make it.
    let mut leaders: BTreeMap<NsPid, usize> = BTreeMap::new();
    for (at, &(pid, parent, group, session)) in all.iter().enumerate() {
        let leads_session = session == pid;
        let early = match parent {
            Some(parent) if !leads_session => is_early(pid, session, &all, parent, main.session)
                .ok_or(PlanError::Session { pid: pid.0, session: session.0 })?,
            _ => false,
        };
        let main_stays = !own_group && main.session != main.pid;
        let group = if leads_session {
            Group::Inherit
        } else if group == pid {
            if at == 0 && main_stays { Group::Inherit } else { Group::Lead }
        } else if group == main.group && (main.group != main.pid || main_stays) {
            Group::Inherit
        } else if let Some(&leader) = index.get(&group) {
            if all[leader].2 != group {
                return Err(PlanError::Group { pid: pid.0, group: group.0 });
            }
            Group::Join(leader)
        } else if at == 0 || group.0 == 0 {
            Group::Inherit
        } else {
            leaders.entry(group).or_insert(at);
            // Corrected below, when the indices of leaders are known.
            Group::Join(usize::MAX)
        };
        let role = match at.checked_sub(tasks.len()) {
            None => Role::Task(at),
            Some(zombie) => {
                let zombie = &checkpoint.zombies[zombie];
                Role::Zombie { name: zombie.name.clone(), status: zombie.status }
            }
        };
        births.push(Birth { pid, parent, early, leads_session, group, role });
    }
    for (group, member) in leaders {
        let leader = births.len();
        // Made by a process of the right session: a member, or the parent of a zombie.
        let maker = if member < tasks.len() { Some(member) } else { births[member].parent };
        for (birth, one) in births.iter_mut().zip(&all) {
            if birth.group == Group::Join(usize::MAX) && one.2 == group {
                birth.group = Group::Join(leader);
            }
        }
        births.push(Birth {
            pid: group,
            parent: maker,
            early: false,
            leads_session: false,
            group: Group::Lead,
            role: Role::Leader,
        });
    }
    Ok(births)
}

/// Whether a process that begins no session was born before its parent began its own; `None` where
/// its session is neither its parent's nor the one that its parent was born in.
fn is_early(
    pid: NsPid,
    session: NsPid,
    all: &[(NsPid, Option<usize>, NsPid, NsPid)],
    parent: usize,
    outside: NsPid,
) -> Option<bool> {
    debug_assert_ne!(pid, session, "asked for those that begin none");
    let (parent_pid, grandparent, _, parents_session) = all[parent];
    if session == parents_session {
        return Some(false);
    }
    let began_one = parents_session == parent_pid;
    let born_in = grandparent.map(|grandparent| all[grandparent].3);
    // What the main process was born in is the restoring process's: its number means nothing.
    let led_here = all.iter().any(|one| one.0 == session);
    let fits = match born_in {
        Some(born_in) => born_in == session,
        None => !led_here && (outside == parent_pid),
    };
    (began_one && fits).then_some(true)
}

impl fmt::Display for Birth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match &self.role {
            Role::Task(_) => "task",
            Role::Zombie { .. } => "zombie",
            Role::Leader => "group leader for the moment",
        };
        write!(f, "{} {what}", self.pid)?;
        if let Some(parent) = self.parent {
            write!(f, ", child of {parent}")?;
        }
        if self.early {
            f.write_str(", before its parent's session")?;
        }
        if self.leads_session {
            f.write_str(", leads a session")?;
        }
        match self.group {
            Group::Inherit => {}
            Group::Lead => f.write_str(", leads a group")?,
            Group::Join(leader) => write!(f, ", in the group of {leader}")?,
        }
        if let Role::Zombie { status, .. } = &self.role {
            write!(f, ", ended with {status:#x}")?;
        }
        Ok(())
    }
}
