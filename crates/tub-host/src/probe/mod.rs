//! What this host allows, found out by trying.
//!
//! In: a helper, which tries what would change the process that tries it. Out: a [`Probe`] each,
//! and what is possible all in all.
//! Invariant: nothing is left behind: helpers end with their probe, within seconds.
//! Not here: what a restore makes of it (`tub-restore` tries again and falls back by itself).

mod helper;
mod own;
mod traced;
mod values;

pub use helper::{Helper, try_in_helper};

use nix::unistd::Pid;
use std::path::Path;

/// One thing that was tried or looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What.
    pub name: &'static str,
    /// What came of it.
    pub finding: Finding,
    /// What follows from it; empty where nothing does.
    pub follows: &'static str,
    /// What is impossible without it.
    pub needed_for: &'static [Ability],
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It works.
    Works,
    /// It does not, for this reason.
    Refused(String),
    /// It is a number or a state.
    Value(String),
}

/// What the native engine can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ability {
    /// Take images.
    Checkpoint,
    /// Bring them back with other ids: `--pids new`.
    NewIds,
    /// Bring them back with the ids of before: `--pids keep`.
    KeepIds,
}

impl Ability {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Checkpoint, Self::NewIds, Self::KeepIds];

    /// Its name for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::NewIds => "restore_new_ids",
            Self::KeepIds => "restore_same_ids",
        }
    }
}

impl Probe {
    /// Whether `ability` is lost by what this probe found.
    pub fn rules_out(&self, ability: Ability) -> bool {
        matches!(self.finding, Finding::Refused(_)) && self.needed_for.contains(&ability)
    }
}

/// Every restore needs it.
const RESTORE: &[Ability] = &[Ability::NewIds, Ability::KeepIds];
/// Both ways need it.
const EVERYTHING: &[Ability] = &Ability::ALL;
const CHECKPOINT: &[Ability] = &[Ability::Checkpoint];
const KEEP_IDS: &[Ability] = &[Ability::KeepIds];
const NOTHING: &[Ability] = &[];

/// What stands in the way of `ability`: the probes that rule it out.
pub fn obstacles(probes: &[Probe], ability: Ability) -> impl Iterator<Item = &Probe> {
    probes.iter().filter(move |probe| probe.rules_out(ability))
}

/// Tries everything. `image_dir` is where images are to lie.
pub fn probe(helper: &Helper<'_>, image_dir: &Path) -> Vec<Probe> {
    let mut found = traced::probes(helper);
    found.extend(own::probes(helper, image_dir));
    found.extend(namespaces(helper));
    found.extend(values::probes());
    found
}

fn tried(
    name: &'static str,
    outcome: Result<(), String>,
    otherwise: &'static str,
    needed_for: &'static [Ability],
) -> Probe {
    match outcome {
        Ok(()) => Probe { name, finding: Finding::Works, follows: "", needed_for },
        Err(reason) => {
            Probe { name, finding: Finding::Refused(reason), follows: otherwise, needed_for }
        }
    }
}

/// What the kernel said, where it said anything.
fn said<T>(outcome: Result<T, nix::errno::Errno>) -> Result<(), String> {
    outcome.map(drop).map_err(|errno| errno.to_string())
}

fn namespaces(helper: &Helper<'_>) -> Vec<Probe> {
    let user = helper.run(helper::USER_NAMESPACE);
    let pids = helper.run(helper::PID_NAMESPACE);
    let time = helper.run(helper::TIME_NAMESPACE);
    let mut found = vec![
        tried(
            "user namespace",
            user.outcome(helper::USER_NAMESPACE),
            "only root with its capabilities can keep ids: others use --pids new",
            NOTHING,
        ),
        tried(
            "PID namespace",
            pids.outcome(helper::PID_NAMESPACE),
            "ids cannot be kept: use --pids new",
            KEEP_IDS,
        ),
    ];
    if found[1].finding == Finding::Works {
        found.extend([
            tried(
                "chosen ids in a PID namespace",
                pids.outcome(helper::CHOSEN_ID),
                "ids cannot be kept: use --pids new (clone3 with set_tid, Linux 5.5 or later)",
                KEEP_IDS,
            ),
            tried(
                "mount namespace",
                pids.outcome(helper::MOUNT_NAMESPACE),
                "with --pids keep, the restored process sees the ids of outside in /proc",
                NOTHING,
            ),
            tried(
                "own /proc in a PID namespace",
                pids.outcome(helper::MOUNT_PROC),
                "with --pids keep, the restored process sees the ids of outside in /proc",
                NOTHING,
            ),
        ]);
    }
    found.push(tried(
        "time namespace",
        time.outcome(helper::TIME_NAMESPACE),
        "after a restore monotonic clocks jump; an image of a host that had run for longer is refused, but \
         for --clocks any",
        NOTHING,
    ));
    if time.outcome(helper::TIME_NAMESPACE).is_ok() {
        found.push(tried(
            "clock offsets of a time namespace",
            time.outcome(helper::CLOCK_OFFSETS),
            "no image can be restored: clocks would be set that cannot be (timens_offsets)",
            RESTORE,
        ));
    }
    found
}

/// Ends a helper by its id; it is our child and not waited for yet, so the id is still its own.
fn kill(pid: Pid) {
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_rules_out() {
        let refused = |needed| tried("x", Err("no".into()), "so", needed);
        assert!(refused(CHECKPOINT).rules_out(Ability::Checkpoint));
        assert!(!refused(CHECKPOINT).rules_out(Ability::KeepIds));
        assert!(!refused(NOTHING).rules_out(Ability::NewIds));
        assert!(!tried("x", Ok(()), "so", EVERYTHING).rules_out(Ability::NewIds));
        assert_eq!(tried("x", Ok(()), "so", EVERYTHING).follows, "");
    }

    #[test]
    fn obstacles_are_named_for_each_ability() {
        let probes = [
            tried("namespace", Err("EPERM".into()), "use --pids new", KEEP_IDS),
            tried("tracing", Ok(()), "", CHECKPOINT),
        ];
        let of = |ability| obstacles(&probes, ability).map(|probe| probe.name).collect::<Vec<_>>();
        assert_eq!(of(Ability::KeepIds), ["namespace"]);
        assert_eq!(of(Ability::NewIds), [""; 0]);
        assert_eq!(of(Ability::Checkpoint), [""; 0]);
    }
}
