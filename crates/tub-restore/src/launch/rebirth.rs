//! The last steps of the launcher's code inside the process being reborn.
//!
//! In: the plan, in a process of our own making. Out: never returns: the blob takes over.
//! Invariant: on failure the launcher is told, and the process ends.

use super::family::Pids;
use super::{LaunchError, blob, descriptors, enter, family, standby};
use crate::plan::{Lowered, RestorePlan, TaskPlan};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, setsid, write};
use std::convert::Infallible;
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use tub_units::AddrRange;

/// asm-generic/signal.h, _NSIG.
const SIGNAL_MAX: i32 = 64;

/// Becomes the main process of the plan, and makes all others. `own_mounts` says whether what is
/// mounted here is seen by nobody else.
pub(super) fn run(
    plan: &RestorePlan,
    lowered: &[Lowered],
    pages: &File,
    handshake: OwnedFd,
    own_mounts: bool,
) -> ! {
    // The plan sets actions that are not the default, and ours are not: Rust's runtime ignores SIGPIPE and
    // catches SIGSEGV, and a shell may have us ignore others (`nohup`, `&`).
    for signal in 1..=SIGNAL_MAX {
        // SIGKILL and SIGSTOP have no action.
        let _ = tub_sys::reset_signal_action(signal);
    }
    if let Err(failure) = descriptors::claim(plan, pages, &handshake) {
        let _ = write(&handshake, &failure.to_message());
        std::process::exit(1)
    }
    finish(plan, lowered, 0, make(plan, lowered, own_mounts))
}

/// Makes everything that tasks share, and the tasks. Gives their ids, if there is more than one.
fn make(plan: &RestorePlan, lowered: &[Lowered], own_mounts: bool) -> Result<Pids, LaunchError> {
    umask(Mode::from_bits_truncate(plan.tasks[0].umask));
    // Unix sockets may have been bound to names that start there.
    enter_directory(&plan.tasks[0])?;
    descriptors::open_all(plan, own_mounts)?;
    if plan.births.len() > 1 {
        return family::make(plan, lowered);
    }
    if plan.births[0].leads_session {
        setsid().map_err(|source| LaunchError::System { what: "session", source })?;
    }
    family::tell_born(plan, 0);
    Ok(&[])
}

/// Becomes task `index`, whose process is in its place: that is what `made` says.
pub(super) fn finish(
    plan: &RestorePlan,
    lowered: &[Lowered],
    index: usize,
    made: Result<Pids, LaunchError>,
) -> ! {
    let become_it = |pids| prepare(plan, &plan.tasks[index], &lowered[index], pids);
    let Err(failure) = made.and_then(become_it);
    // SAFETY: `claim` has placed the handshake there, and nothing closes it.
    let handshake = unsafe { BorrowedFd::borrow_raw(plan.spare.handshake) };
    let _ = write(handshake, &failure.to_message());
    std::process::exit(1)
}

fn enter_directory(task: &TaskPlan) -> Result<(), LaunchError> {
    chdir(task.cwd.as_str()).map_err(|source| {
        let object = format!("working directory {}", task.cwd);
        LaunchError::Descriptor { object, source }
    })
}

fn prepare(
    plan: &RestorePlan,
    task: &TaskPlan,
    lowered: &Lowered,
    pids: Pids,
) -> Result<Infallible, LaunchError> {
    enter_directory(task)?;
    umask(Mode::from_bits_truncate(task.umask));
    // A lower value than ours needs a privilege; without it ours stays.
    let _ = std::fs::write("/proc/self/oom_score_adj", task.oom_score_adj.to_string());
    // What a core dump holds stays with the address space, which the blob fills anew.
    let _ = std::fs::write("/proc/self/coredump_filter", format!("{:#x}", task.core_filter));
    descriptors::lay_out(plan, task, pids)?;
    if let Some(number) = plan.spare.clocks {
        standby::make_clocks(number)?;
    }
    let system = |what| move |source| LaunchError::System { what, source };
    tub_sys::map_fresh_at(task.blob).map_err(system("memory for the blob"))?;
    tub_sys::unregister_own_rseq().map_err(system("end of rseq registration"))?;
    let code = AddrRange::with_len(task.blob.start(), plan.code_bytes);
    let code = code.ok_or(LaunchError::System { what: "memory", source: nix::Error::ENOMEM })?;
    enter::enter(code, blob::CODE, blob::ENTRY, lowered)
}
