//! What the restored process may do: whose it is, its capabilities, its limits.
//!
//! Invariant: nothing that the caller could not have (SECURITY.md).

use super::{CredentialChange, PlanError, PlanFacts};
use tub_model::{Limit, Task};

/// Decides whose the restored process is: never anybody's that the caller could not become, never
/// with a capability that the caller lacks (design decision E11, SECURITY.md).
pub(super) fn credentials(
    task: &Task,
    facts: &PlanFacts,
    warnings: &mut Vec<String>,
) -> Result<CredentialChange, PlanError> {
    let image = &task.credentials;
    let same = image.uids.iter().all(|&uid| uid == facts.uid)
        && image.gids.iter().all(|&gid| gid == facts.gid);
    // linux/capability.h: CAP_SETGID 6, CAP_SETUID 7.
    const SET_IDS: u64 = 1 << 6 | 1 << 7;
    let may_change = !facts.user_namespace && facts.capabilities[0] & SET_IDS == SET_IDS;
    let other_groups = || {
        let mut groups = image.groups.clone();
        groups.sort_unstable();
        facts.groups.as_ref().is_some_and(|here| *here != groups)
    };
    let identity = if same && !(may_change && other_groups()) {
        None
    } else if may_change {
        Some(image.clone())
    } else if image.uids[1] == 0 {
        // A root process restored by an ordinary user would have to run as that user, who lacks
        // what the process counts on.
        return Err(PlanError::ForeignUser { image: 0, caller: facts.uid });
    } else {
        warnings.push(format!("runs as user {}, not as {}", facts.uid, image.uids[1]));
        None
    };
    let bounded = |which: usize| image.capabilities[which] & facts.capabilities[1];
    let permitted = bounded(1);
    let capabilities =
        [bounded(0) & permitted, permitted, image.capabilities[2] & facts.capabilities[2]];
    Ok(CredentialChange { identity, capabilities })
}

/// What `RLIMIT_*` limit, by their numbers (asm-generic/resource.h, getrlimit(2)).
const LIMITS: [&str; 16] = [
    "processor time (s)",
    "file size (bytes)",
    "data (bytes)",
    "stack (bytes)",
    "core file (bytes)",
    "resident memory (bytes)",
    "processes",
    "open files",
    "locked memory (bytes)",
    "address space (bytes)",
    "file locks",
    "pending signals",
    "message queues (bytes)",
    "nice priority",
    "real-time priority",
    "real-time run (us)",
];

/// Limits of the restoring side win: what the original had is set as far as it stays below them.
pub(super) fn limits(task: &Task, facts: &PlanFacts, warnings: &mut Vec<String>) -> Vec<Limit> {
    let mut wanted = Vec::new();
    for saved in &task.limits {
        let Some(here) = facts.limits.iter().find(|here| here.resource == saved.resource) else {
            continue;
        };
        let hard = saved.hard.min(here.hard);
        let soft = saved.soft.min(hard);
        if soft < saved.soft {
            let name = usize::try_from(saved.resource).ok().and_then(|at| LIMITS.get(at));
            let before = match saved.soft {
                u64::MAX => "unlimited".to_owned(),
                soft => soft.to_string(),
            };
            warnings.push(format!(
                "limit of {} shrinks from {before} to {soft}: the restoring side allows no more",
                name.unwrap_or(&"a resource")
            ));
        }
        if (soft, hard) != (here.soft, here.hard) {
            wanted.push(Limit { resource: saved.resource, soft, hard });
        }
    }
    wanted
}
