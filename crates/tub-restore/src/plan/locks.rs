//! Whether memory that was locked can be locked again.
//!
//! In: the task, the limits and capabilities of the caller. Out: a decision, with a warning where
//! it is no. Pure. Not here: the operations (see [`super::memory`]).

use super::PlanFacts;
use tub_model::{Limit, Lock, Task};

/// linux/resource.h: RLIMIT_MEMLOCK.
const LIMIT_MEMLOCK: u32 = 8;

/// Whether memory can be locked as it was, and if so, the limit to set beforehand where ours is too
/// narrow. The limits of the restoring side win; an instance that runs unlocked is slower when
/// memory is short, and nothing else: its pages are in the image, on a disk, in any case.
pub(super) fn plan(
    task: &Task,
    facts: &PlanFacts,
    limits: &mut Vec<Limit>,
    warnings: &mut Vec<String>,
) -> Option<Option<Limit>> {
    const IPC_LOCK: u64 = 1 << 14;
    let locked = task.vmas.iter().filter(|vma| vma.lock != Lock::None);
    let bytes: u64 = locked.map(|vma| vma.range.len()).sum();
    if bytes == 0 && task.mm.lock_future == Lock::None {
        return Some(None);
    }
    // KERNEL: can_do_mlock, mm/mlock.c, asks for the capability in the initial user namespace.
    if !facts.user_namespace && facts.capabilities[0] & IPC_LOCK != 0 {
        return Some(None);
    }
    let here = facts.limits.iter().find(|limit| limit.resource == LIMIT_MEMLOCK)?;
    if here.hard < bytes || here.hard == 0 {
        warnings.push(format!(
            "{bytes} bytes of locked memory are not locked: the limit is {} bytes here (raise \
             RLIMIT_MEMLOCK, `ulimit -l`)",
            here.hard
        ));
        return None;
    }
    if here.soft >= bytes {
        return Some(None);
    }
    // Afterwards the limit is what it would have been.
    if limits.iter().all(|limit| limit.resource != LIMIT_MEMLOCK) {
        limits.push(*here);
    }
    Some(Some(Limit { soft: here.hard, ..*here }))
}
