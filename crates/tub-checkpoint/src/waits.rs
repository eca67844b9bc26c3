//! For how long threads have been waiting.
//!
//! In: a process that is about to be frozen, and then the frozen one. Out: nanoseconds a thread.
//! Invariant: never more than it was, so that a copy never ends a wait too early; and where it is not
//! known, nothing. Nothing about the process is changed, and nothing here can fail a checkpoint.
//!
//! The kernel knows when an interrupted wait would have ended, and has no interface to tell
//! (KERNEL: `struct restart_block`). But it notes when a thread last went to sleep, and that was the
//! start of the wait, at the latest. The note counts on the clock of the processor that the thread ran
//! on (rq_clock_task, kernel/sched/core.c), which leaves out the time that interrupts and other virtual
//! machines took, so it is compared with a note about ourselves on the same processor, made later: what is
//! left out in between makes the wait seem shorter. Both must be read before the freeze, which wakes the
//! thread; how often it has gone to sleep tells whether the note was still the right one then: once more,
//! for the stop itself.

use crate::{Survey, registers};
use nix::time::{ClockId, clock_gettime};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use tub_procfs::sched::SchedRecord;
use tub_tracee::Frozen;
use tub_units::HostPid;

/// What the scheduler noted about the threads of running processes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    threads: HashMap<HostPid, Note>,
    /// What CLOCK_MONOTONIC is ahead of each processor's clock, where that can be told.
    offsets_ns: HashMap<u32, i64>,
}

#[derive(Clone, Copy, Debug)]
struct Note {
    sched: SchedRecord,
    processor: u32,
}

impl Notes {
    /// Reads them, shortly before the freeze.
    pub(crate) fn read(pids: impl Iterator<Item = HostPid>) -> Self {
        let mut threads = HashMap::new();
        for pid in pids {
            let listing = std::fs::read_dir(format!("/proc/{pid}/task"));
            let tids = listing
                .into_iter()
                .flatten()
                .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok().map(HostPid));
            threads.extend(tids.filter_map(|tid| Some((tid, Note::read(pid, tid)?))));
        }
        let offsets_ns = offsets_ns(threads.values().map(|note| note.processor).collect());
        Self { threads, offsets_ns }
    }

    /// For how long each thread has been waiting that may be in a wait for a time span, in
    /// nanoseconds. `survey` was made of the frozen process.
    pub(crate) fn waited_ns(&self, frozen: &Frozen, survey: &Survey) -> HashMap<HostPid, u64> {
        let now_ns = monotonic_ns();
        let mut waited = HashMap::new();
        for thread in frozen.threads() {
            if !thread.registers().is_ok_and(|registers| registers::may_wait(&registers)) {
                continue;
            }
            let tid = thread.tid();
            let known = survey.threads.iter().find(|thread| thread.tid == tid);
            let since_ns = known.and_then(|known| {
                let switches = known.status.voluntary_switches;
                self.since_ns(tid, switches)
            });
            waited.extend(since_ns.map(|since_ns| (tid, now_ns.saturating_sub(since_ns))));
        }
        waited
    }

    /// When it began to wait, on CLOCK_MONOTONIC; by now it has gone to sleep so many times.
    fn since_ns(&self, tid: HostPid, voluntary_switches: u64) -> Option<u64> {
        // Without the note of any thread, the kernel makes none.
        if self.threads.is_empty() {
            return None;
        }
        match self.threads.get(&tid) {
            Some(before) if voluntary_switches == before.sched.voluntary_switches + 1 => {
                let offset_ns = self.offsets_ns.get(&before.processor)?;
                before.sched.exec_start_ns.checked_add_signed(*offset_ns)
            }
            // It has gone to sleep since, or did not exist: the wait is as good as new.
            _ => Some(u64::MAX),
        }
    }
}

impl Note {
    fn read(pid: HostPid, tid: HostPid) -> Option<Self> {
        let sched = sched(&format!("/proc/{pid}/task/{tid}/sched"))?;
        let stat = std::fs::read(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
        let processor = tub_procfs::stat::parse(&stat).ok()?.processor;
        Some(Self { sched, processor })
    }
}

/// What CLOCK_MONOTONIC is ahead of the clocks of `processors`. None of those on which we may not run.
fn offsets_ns(processors: BTreeSet<u32>) -> HashMap<u32, i64> {
    let Ok(affinity) = tub_sys::affinity(HostPid(0)) else { return HashMap::new() };
    let offset = |processor| Some((processor, offset_ns(processor)?));
    let offsets = processors.into_iter().filter_map(offset).collect();
    // We had it before; processors unplugged since are no reason to fail.
    let _ = tub_sys::set_own_affinity(&affinity);
    offsets
}

fn offset_ns(processor: u32) -> Option<i64> {
    let word = usize::try_from(processor / 64).ok()?;
    let mut mask = vec![0u64; word + 1];
    mask[word] = 1 << (processor % 64);
    tub_sys::set_own_affinity(&mask).ok()?;
    // The note about ourselves is made anew whenever we have slept, however shortly.
    std::thread::sleep(Duration::from_micros(20));
    let own = sched("/proc/thread-self/sched")?;
    // In this order, so that what passes in between makes waits seem shorter, not longer.
    let now_ns = monotonic_ns();
    i64::try_from(now_ns).ok()?.checked_sub(i64::try_from(own.exec_start_ns).ok()?)
}

fn sched(path: &str) -> Option<SchedRecord> {
    tub_procfs::sched::parse(&std::fs::read(path).ok()?).ok()
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeping_threads_note_is_when_it_went_to_sleep() {
        let started_ns = monotonic_ns();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = HostPid(i32::try_from(child.id()).unwrap());
        std::thread::sleep(Duration::from_millis(300));
        let notes = Notes::read([pid].into_iter());
        let waited = Frozen::freeze(pid).map(|frozen| {
            let waited = notes.waited_ns(&frozen, &crate::survey(pid).unwrap());
            let elapsed_ns = monotonic_ns() - started_ns;
            (waited.get(&pid).copied(), elapsed_ns)
        });
        child.kill().unwrap();
        child.wait().unwrap();
        let (waited, elapsed_ns) = waited.unwrap();
        let Some(waited_ns) = waited else {
            // Where the kernel was built without the note.
            assert!(!std::path::Path::new("/proc/self/sched").exists());
            return println!("skipped: this kernel has no /proc/PID/sched");
        };
        // It has not slept longer than it lives, and for most of that time.
        assert!(waited_ns <= elapsed_ns, "{waited_ns} of {elapsed_ns}");
        assert!(waited_ns >= 100_000_000, "{waited_ns} of {elapsed_ns}");
    }
}
