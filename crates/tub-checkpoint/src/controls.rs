//! What `prctl(2)` and its like set, and how threads are scheduled.
//!
//! In: a survey, a borrowed thread. Out: values. What a kernel does not know yet counts as not set.

use crate::caller::Caller;
use crate::survey::bytes;
use crate::{Result, Survey, SurveyedThread};
use tub_model::{Controls, Scheduling};
use tub_units::HostPid;

// linux/prctl.h.
const PR_GET_SECUREBITS: u64 = 27;
const PR_MCE_KILL_GET: u64 = 34;
const PR_GET_MDWE: u64 = 66;
/// `PR_MCE_KILL_DEFAULT`, and what a process starts with.
const MEMORY_FAILURE_DEFAULT: u32 = 2;

/// linux/membarrier.h: MEMBARRIER_CMD_GET_REGISTRATIONS, KERNEL(since 6.3).
const GET_REGISTRATIONS: u64 = 1 << 9;
/// MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED and _PRIVATE_EXPEDITED.
const REGISTER_EXPEDITED: u32 = 1 << 2 | 1 << 4;

/// asm/prctl.h: KERNEL(since 5.16), Documentation/arch/x86/xstate.rst.
const ARCH_GET_XCOMP_PERM: u64 = 0x1022;
/// Bit of the tiles' data, the one component that a process has to ask for.
const XFEATURE_XTILE_DATA: u64 = 1 << 18;

/// Asks for the switches of the process.
pub(crate) fn collect(caller: &mut Caller<'_>, survey: &Survey) -> Result<Controls> {
    let prctl = libc::SYS_prctl;
    let known = |value: Option<u32>| value.unwrap_or(0);
    // An older kernel does not tell. To be registered without need does no harm, not to be fails the
    // program's next barrier (EPERM, membarrier(2)).
    let membarrier = caller
        .ask_if_known(libc::SYS_membarrier, [GET_REGISTRATIONS, 0, 0, 0, 0, 0])?
        .unwrap_or(REGISTER_EXPEDITED);
    let memory_failure = caller
        .ask_if_known(prctl, [PR_MCE_KILL_GET, 0, 0, 0, 0, 0])?
        .unwrap_or(MEMORY_FAILURE_DEFAULT);
    let args = [ARCH_GET_XCOMP_PERM, caller.scratch.0, 0, 0, 0, 0];
    let tiles = match caller.ask_if_known(libc::SYS_arch_prctl, args)? {
        Some(_) => {
            let [components] = caller.words()?;
            components & XFEATURE_XTILE_DATA != 0
        }
        None => false,
    };
    let core_filter = bytes(&format!("/proc/{}/coredump_filter", survey.pid)).ok();
    let core_filter = core_filter
        .and_then(|text| u32::from_str_radix(String::from_utf8_lossy(&text).trim(), 16).ok());
    Ok(Controls {
        secure_bits: known(caller.ask_if_known(prctl, [PR_GET_SECUREBITS, 0, 0, 0, 0, 0])?),
        membarrier,
        memory_failure,
        no_write_execute: known(caller.ask_if_known(prctl, [PR_GET_MDWE, 0, 0, 0, 0, 0])?),
        core_filter: core_filter.unwrap_or(CORE_FILTER_DEFAULT),
        tiles,
    })
}

/// core(5): what the filter is unless somebody changes it.
const CORE_FILTER_DEFAULT: u32 = 0x33;

/// How a thread is scheduled.
///
/// An affinity that is ours as well is not its own but the host's, or the container's: it is left to
/// the restoring side, which may have other processors.
pub(crate) fn scheduling(thread: &SurveyedThread) -> Scheduling {
    const SCHED_FLAG_RESET_ON_FORK: u64 = 1;
    let tid = thread.tid;
    let flags = tub_sys::sched_attr(tid).map_or(0, |attr| attr.flags);
    let affinity = tub_sys::affinity(tid).unwrap_or_default();
    let ours = tub_sys::affinity(HostPid(0)).unwrap_or_default();
    Scheduling {
        policy: thread.stat.policy,
        nice: thread.stat.nice,
        priority: thread.stat.rt_priority,
        reset_on_fork: flags & SCHED_FLAG_RESET_ON_FORK != 0,
        io_priority: tub_sys::io_priority(tid).unwrap_or(0),
        affinity: if affinity == ours { Vec::new() } else { affinity },
    }
}
