//! What this host and this caller allow, as far as a plan depends on it.
//!
//! In: the page store, the surroundings entered. Out: [`PlanFacts`]. Reads only.

use crate::launch::{Surroundings, blob};
use crate::plan::{MemoryFacts, PlanFacts};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::getgroups;
use std::fs::File;
use std::time::Duration;
use tub_model::{HostFacts, Limit};

/// Gathers the facts.
pub fn plan_facts(
    pages: &File,
    surroundings: &Surroundings,
    image: &HostFacts,
    here: &HostFacts,
) -> PlanFacts {
    let clock = |id| clock_gettime(id).map_or(0, |now| nanoseconds(now.into()));
    PlanFacts {
        user_namespace: surroundings.user_namespace,
        time_namespace: surroundings.time_namespace,
        set_executable: surroundings.user_namespace || has_checkpoint_restore(surroundings),
        clone3: tub_sys::has_clone3(),
        store_is_noexec: fstatvfs(pages)
            .is_ok_and(|stat| stat.flags().contains(FsFlags::ST_NOEXEC)),
        monotonic_ns: clock(ClockId::CLOCK_MONOTONIC),
        boottime_ns: clock(ClockId::CLOCK_BOOTTIME),
        uid: surroundings.uid,
        gid: surroundings.gid,
        groups: groups(),
        capabilities: surroundings.capabilities,
        limits: limits(),
        timer_ids: tub_sys::has_timer_restore_ids(),
        other_vdso: (image.vdso != here.vdso).then(|| here.vdso.clone()),
        memory: MemoryFacts {
            guards: tub_sys::knows_advice(tub_sys::MADV_GUARD_INSTALL),
            droppable: tub_sys::has_droppable(),
            seals: tub_sys::has_mseal(),
        },
        blob_bytes: blob::CODE.len() as u64,
        terminal: nix::unistd::isatty(std::io::stdin()).unwrap_or(false),
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// linux/capability.h: CAP_SYS_ADMIN 21 and CAP_CHECKPOINT_RESTORE 40 both open prctl(PR_SET_MM)'s
/// executable.
fn has_checkpoint_restore(surroundings: &Surroundings) -> bool {
    surroundings.capabilities[0] & (1 << 21 | 1 << 40) != 0
}

/// user_namespaces(7): where `/proc/PID/setgroups` says so, nobody changes groups.
fn groups() -> Option<Vec<u32>> {
    if std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|may| may.trim() == "deny") {
        return None;
    }
    let mut groups: Vec<u32> =
        getgroups().ok()?.into_iter().map(nix::unistd::Gid::as_raw).collect();
    groups.sort_unstable();
    Some(groups)
}

/// All limits of ourselves, by `RLIMIT_*` number.
fn limits() -> Vec<Limit> {
    tub_sys::own_limits()
        .into_iter()
        .map(|(resource, soft, hard)| Limit { resource, soft, hard })
        .collect()
}
