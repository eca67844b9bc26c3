//! Who is told of a description's events (`F_SETOWN_EX`, fcntl(2)).
//!
//! In: descriptions and tasks. Out: what a task or its launcher does about its own descriptors. Pure.
//! Invariant: of all the tasks that have a description, one names its owner, and only one who is there by
//! then; an owner whom nobody can name is told of.
//!
//! The owner itself comes first: all its threads are there when it does so. Else it is named by one of
//! its descendants, or by its parent, since children are made before any program begins.

use super::{FileStep, Ids, PlanOp};
use std::collections::BTreeSet;
use tub_model::{Checkpoint, FileOwner, Task};

/// `F_OWNER_PGRP`.
const GROUP: i32 = 2;

/// What the launcher does for a task whose id is new: only the process itself is known then.
pub(super) fn step(
    task: &Task,
    number: i32,
    owner: Option<FileOwner>,
    ids: Ids,
) -> Option<FileStep> {
    let owner = owner.filter(|owner| ids == Ids::New && owner.id == task.pid)?;
    Some(FileStep::OwnedByMe { number, kind: owner.kind, signal: owner.signal })
}

/// What the process itself does when all its threads are there.
pub(super) fn ops(
    checkpoint: &Checkpoint,
    index: usize,
    ids: Ids,
    warnings: &mut Vec<String>,
) -> Vec<PlanOp> {
    let tasks = &checkpoint.tasks;
    let mut ops = Vec::new();
    let mut seen = BTreeSet::new();
    for fd in &tasks[index].fds {
        let Some(owner) = checkpoint.files[fd.file].owner.filter(|_| seen.insert(fd.file)) else {
            continue;
        };
        let number = fd.number.0;
        let has_it = |&at: &usize| tasks[at].fds.iter().any(|other| other.file == fd.file);
        let mut holders = (0..tasks.len()).filter(has_it);
        let first = holders.clone().next();
        let by_itself = holders.clone().find(|&at| is_own(owner, &tasks[at], ids));
        let named_by = match ids {
            Ids::Keep => by_itself.or_else(|| holders.find(|&at| is_kin(checkpoint, owner, at))),
            Ids::New => by_itself,
        };
        match named_by {
            // Nobody is known by no id, whatever the ids are.
            Some(at) if at == index && (ids == Ids::Keep || owner.id.0 == 0) => {
                ops.push(PlanOp::SetOwner { number, owner });
            }
            // Another one does, or the launcher.
            Some(_) => {}
            None if first == Some(index) => warnings.push(format!(
                "descriptor {number} tells nobody of its events: {} is not there any more",
                owner.id
            )),
            None => {}
        }
    }
    ops
}

/// Whether the owner is the task, its group or one of its threads.
fn is_own(owner: FileOwner, task: &Task, ids: Ids) -> bool {
    let is_thread = || task.threads.iter().any(|thread| thread.tid == owner.id);
    let is_group = || owner.kind == GROUP && task.group == owner.id;
    // Nobody is the same whatever the ids are.
    owner.id.0 == 0 || owner.id == task.pid || ids == Ids::Keep && (is_group() || is_thread())
}

/// Whether the owner is an ancestor of the task or a child.
fn is_kin(checkpoint: &Checkpoint, owner: FileOwner, at: usize) -> bool {
    let tasks = &checkpoint.tasks;
    let mut ancestors = std::iter::successors(tasks[at].parent, |&parent| tasks[parent].parent);
    let is_child = |task: &Task| task.parent == Some(at) && task.pid == owner.id;
    owner.kind != GROUP
        && (ancestors.any(|ancestor| tasks[ancestor].pid == owner.id) || tasks.iter().any(is_child))
}
