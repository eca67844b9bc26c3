//! Locks that know their owner by a thread's id.
//!
//! In: the threads of all tasks, whether ids are kept. Out: warnings. Pure.
//! Not here: recursive and error-checking mutexes: nothing tells them from other memory
//! (`docs/threads.md`, "Locks").

use super::Ids;
use tub_model::{Checkpoint, Thread};

/// What does not work any more under new ids.
pub(super) fn warn(checkpoint: &Checkpoint, ids: Ids, warnings: &mut Vec<String>) {
    if ids == Ids::Keep {
        return;
    }
    let threads = || checkpoint.tasks.iter().flat_map(|task| &task.threads);
    let who = |thread: &Thread| format!("thread {} ({})", thread.tid, thread.name);
    for thread in threads().filter(|thread| thread.robust_held > 0) {
        warnings.push(format!(
            "{} holds {} robust mutexes by its old id: unlocking them gives EPERM, and its death is \
             not noticed; keep ids, or unlock them before the checkpoint",
            who(thread),
            thread.robust_held
        ));
    }
    for thread in threads().filter(|thread| thread.waits_for_owner) {
        warnings.push(format!(
            "{} waits for a priority-inheriting mutex, whose owner has another id now, and may wait \
             for ever; keep ids, or unlock it before the checkpoint",
            who(thread)
        ));
    }
}
