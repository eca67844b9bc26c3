//! Why an image cannot be restored in the way wished for, as far as no other room knows it.
//!
//! In: the image, facts, wishes. Out: the first reason, or none. Pure.

use super::{PlanError, PlanFacts, PlanWishes, Stdio, TIMER_ID_MAX};
use tub_model::{Checkpoint, FileKind, Task};

pub(super) fn guards(task: &Task, facts: &PlanFacts) -> Result<(), PlanError> {
    match task.vmas.iter().find(|vma| !vma.guards.is_empty()) {
        Some(vma) if !facts.memory.guards => Err(PlanError::Guards { range: vma.range }),
        _ => Ok(()),
    }
}

/// Without the kernel's help every id from 0 on is to be made and deleted.
pub(super) fn timers(task: &Task, facts: &PlanFacts) -> Result<(), PlanError> {
    let last = task.posix_timers.iter().map(|timer| timer.id).max().unwrap_or(0);
    let few = last < TIMER_ID_MAX;
    if facts.timer_ids || few { Ok(()) } else { Err(PlanError::TimerIds { id: last }) }
}

pub(super) fn mailbox(checkpoint: &Checkpoint, wishes: &PlanWishes) -> Result<(), PlanError> {
    let Some(coordination) = &checkpoint.coordination else { return Ok(()) };
    let (have, need) = (coordination.mailbox.len(), wishes.mailbox.len() as u64);
    if need > have { Err(PlanError::MailboxTooSmall { have, need }) } else { Ok(()) }
}

pub(super) fn stdio(checkpoint: &Checkpoint, stdio: Stdio) -> Result<(), PlanError> {
    if stdio == Stdio::Inherit {
        return Ok(());
    }
    let fds = checkpoint.tasks.iter().flat_map(|task| &task.fds);
    for fd in fds.filter(|fd| fd.number.0 <= 2) {
        let what = match &checkpoint.files[fd.file].kind {
            FileKind::Terminal { .. } => "a terminal",
            FileKind::Outside { .. } => "something outside",
            FileKind::Pipe { both_ends: false, .. } => "a pipe to another process",
            _ => continue,
        };
        return Err(PlanError::Stdio { number: fd.number.0, what });
    }
    Ok(())
}
