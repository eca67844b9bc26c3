//! Handles of processes, in a tree of several: nobody is there yet when all else is opened.
//!
//! In: descriptions and descriptors of all tasks. Out: steps of each task's own. Pure.
//! Invariant: the first task that has a handle opens it and hands it to the others, each of which waits only
//! for a task before itself.

use super::files::{FileStep, epoll};
use std::collections::{BTreeMap, BTreeSet};
use tub_model::{Checkpoint, EpollTarget, FileKind, OpenFile, Task};
use tub_units::NsPid;

/// The process of the image that a description is a handle of.
pub(super) fn named_process(file: &OpenFile) -> Option<NsPid> {
    match file.kind {
        FileKind::PidFd { of } => of,
        _ => None,
    }
}

/// The tasks that have a description, in their order.
pub(super) fn holders(checkpoint: &Checkpoint, file: usize) -> impl Iterator<Item = usize> {
    let has = move |task: &Task| task.fds.iter().any(|fd| fd.file == file);
    let tasks = checkpoint.tasks.iter().enumerate();
    tasks.filter(move |(_, task)| has(task)).map(|(index, _)| index)
}

/// What is added to epoll sets only by one of several tasks itself: handles of processes. A set is
/// not drained of those that had fired, since others in it may be ready for ever.
pub(super) fn epolls_of_pidfds(
    checkpoint: &Checkpoint,
    index: usize,
    pidfds: &BTreeMap<usize, Vec<(i32, bool)>>,
) -> Vec<FileStep> {
    let has = |task: &Task, file: usize| task.fds.iter().any(|fd| fd.file == file);
    // A set that several tasks have takes each once.
    let first = |set: usize, target: usize| {
        checkpoint.tasks.iter().position(|task| has(task, set) && has(task, target))
    };
    let mut steps = Vec::new();
    let mut seen = BTreeSet::new();
    for fd in checkpoint.tasks[index].fds.iter().filter(|fd| seen.insert(fd.file)) {
        let FileKind::Epoll { targets } = &checkpoint.files[fd.file].kind else { continue };
        let ours = |target: &&EpollTarget| {
            pidfds.contains_key(&target.file) && first(fd.file, target.file) == Some(index)
        };
        let added = epoll(fd.number.0, targets.iter().filter(ours), pidfds);
        steps.extend(added.into_iter().filter(|step| matches!(step, FileStep::EpollAdd { .. })));
    }
    steps
}
