//! What /proc shows of a process, to be compared before and after.
//!
//! In: a process. Out: plain values, and the differences in words.
//! Invariant: nothing that an engine tells is used; only what anybody can see.

use crate::Process;
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;

/// Threads, descriptors and mappings of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VisibleState {
    /// Names of the threads, sorted.
    pub threads: Vec<String>,
    /// Ids of the threads as they see them themselves, sorted.
    pub thread_ids: Vec<i32>,
    /// What each descriptor is, but for the three standard streams.
    pub descriptors: BTreeMap<i32, String>,
    /// Mapped ranges with their rights, neighbours of equal rights joined.
    pub mappings: Vec<(Range<u64>, String)>,
}

/// How much a stack or a heap may have grown without anything being wrong.
const GROWTH: u64 = 256 << 10;

/// Where the restorer stands, through which every thread has entered its new life.
const RESTORER: Range<u64> = 0x1000_0000_0000..0x1000_0100_0000;

impl VisibleState {
    /// What is visible of `process` now.
    pub fn of(process: &Process) -> Self {
        let mut state = Self::default();
        let Ok(tasks) = fs::read_dir(process.proc("task")) else { return state };
        for task in tasks.flatten() {
            let read = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            state.threads.push(read("comm").trim_end().to_owned());
            let status = read("status");
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            let inner: Option<i32> =
                ids.and_then(|ids| ids.split_whitespace().next_back()?.parse().ok());
            state.thread_ids.extend(inner);
        }
        state.threads.sort();
        state.thread_ids.sort_unstable();
        for fd in fs::read_dir(process.proc("fd")).into_iter().flatten().flatten() {
            let number = fd.file_name().to_string_lossy().parse().unwrap_or(-1);
            let target = fs::read_link(fd.path()).unwrap_or_default();
            let target = target.to_string_lossy();
            // Numbers of pipes and sockets are the kernel's and change.
            let kind = match target.split_once(":[") {
                Some((kind @ ("pipe" | "socket"), _)) => kind,
                // A file without a name is given one by the kernel.
                _ if target.ends_with(" (deleted)") && !target.starts_with("/memfd:") => {
                    "deleted file"
                }
                _ => &target,
            };
            // A file without a name shows where it was made, and /proc the process's own id.
            let id =
                |rest: &str| rest.split('/').next().is_some_and(|id| id.parse::<i32>().is_ok());
            let kind = match kind.strip_prefix("/proc/").filter(|rest| id(rest)) {
                _ if kind.ends_with(" (deleted)") => "deleted".to_owned(),
                Some(rest) => format!("/proc/self{}", rest.trim_start_matches(char::is_numeric)),
                None => kind.to_owned(),
            };
            if number > 2 {
                state.descriptors.insert(number, kind);
            }
        }
        let maps = fs::read_to_string(process.proc("maps")).unwrap_or_default();
        for (range, rights) in maps.lines().filter_map(mapping) {
            match state.mappings.last_mut() {
                Some((last, known)) if last.end == range.start && *known == rights => {
                    last.end = range.end;
                }
                _ => state.mappings.push((range, rights)),
            }
        }
        state
    }

    /// Differences of a later life from this one, one sentence each; ids only where they are kept.
    pub fn differences(&self, later: &Self, same_ids: bool) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, before: String, after: String| {
            if before != after {
                found.push(format!("{what}: {before} before, {after} after"));
            }
        };
        compare("threads", format!("{:?}", self.threads), format!("{:?}", later.threads));
        if same_ids {
            let ids = |state: &Self| format!("{:?}", state.thread_ids);
            compare("thread ids", ids(self), ids(later));
        }
        let descriptors = |state: &Self| format!("{:?}", state.descriptors);
        compare("descriptors", descriptors(self), descriptors(later));
        for (range, rights) in &self.mappings {
            let covered = covered(&later.mappings, range, rights);
            if covered < range.end - range.start {
                found.push(format!(
                    "mapping {:x}-{:x} {rights}: {covered:#x} bytes of it after",
                    range.start, range.end
                ));
            }
        }
        for (range, rights) in &later.mappings {
            let bytes = range.end - range.start;
            let extra = bytes - covered(&self.mappings, range, rights);
            // Threads that allocate for the first time reserve an arena (malloc(3)).
            let reserved = rights == "---p";
            let restorer = RESTORER.start <= range.start && range.end <= RESTORER.end;
            if extra > GROWTH && !reserved && !restorer {
                let (start, end) = (range.start, range.end);
                found.push(format!("mapping {start:x}-{end:x} {rights}: {extra:#x} bytes are new"));
            }
        }
        found
    }
}

/// Bytes of `range` that `mappings` has with just these rights.
fn covered(mappings: &[(Range<u64>, String)], range: &Range<u64>, rights: &str) -> u64 {
    let same = mappings.iter().filter(|(_, known)| known == rights);
    same.map(|(other, _)| range.end.min(other.end).saturating_sub(range.start.max(other.start)))
        .sum()
}

/// Range and `rwxp` of a line of `/proc/PID/maps`.
fn mapping(line: &str) -> Option<(Range<u64>, String)> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    Some((start..end, rest.get(..4)?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(mappings: &[(Range<u64>, &str)]) -> VisibleState {
        let mappings = mappings.iter().map(|(r, p)| (r.clone(), (*p).to_owned())).collect();
        VisibleState { mappings, ..VisibleState::default() }
    }

    #[test]
    fn a_mapping_cut_in_two_is_no_difference() {
        let before = state(&[(0x1000..0x9000, "rw-p")]);
        let after = state(&[(0x1000..0x4000, "rw-p"), (0x4000..0x9000, "rw-p")]);
        assert_eq!(before.differences(&after, true), Vec::<String>::new());
    }

    #[test]
    fn other_rights_and_lost_pages_are_differences() {
        let before = state(&[(0x1000..0x9000, "rw-p")]);
        let after = state(&[(0x1000..0x8000, "rw-p"), (0x8000..0x9000, "r--p")]);
        assert_eq!(before.differences(&after, true).len(), 1);
        assert_eq!(before.differences(&state(&[]), true).len(), 1);
    }
}
