//! Waits until the JIT compilers have nothing to do.
//!
//! In: a limit. Out: whether they came to rest. Invariant: the wait is bounded.
//! Not here: which methods are compiled.
//!
//! A compilation that is under way at the checkpoint goes on in every copy, where it competes with
//! the first request: measured on two processors, 30 % of the time to the first answer of a Spring
//! Boot service. JVM(since 17): compiler threads are not visible to Java, but their names are to
//! the kernel, cut to 15 bytes: `C1 CompilerThre`, `C2 CompilerThre`.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// How often the compilers are looked at.
const SAMPLE: Duration = Duration::from_millis(10);
/// How many samples without work count as rest: a compiler takes a new task at once.
const QUIET_SAMPLES: u32 = 3;
/// A thread that merely wakes up to look for work needs less than this per sample.
const IDLE_NS: u64 = 200_000;

/// Waits until no compiler has worked for a while, for at most `limit`.
pub(crate) fn rest(limit: Duration) -> bool {
    let start = Instant::now();
    let mut before = compilers();
    let mut quiet = 0;
    while quiet < QUIET_SAMPLES {
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(SAMPLE);
        let now = compilers();
        let is_idle = |(tid, now): (&u64, &Compiler)| {
            let known = before.get(tid);
            !now.waits_to_run
                && known.is_some_and(|known| now.run_ns.saturating_sub(known.run_ns) < IDLE_NS)
        };
        quiet = if now.iter().all(is_idle) { quiet + 1 } else { 0 };
        before = now;
    }
    true
}

/// What a compiler thread is about.
struct Compiler {
    /// Its time on a processor so far (KERNEL: Documentation/scheduler/sched-stats.rst, first field
    /// of /proc/PID/task/TID/schedstat).
    run_ns: u64,
    /// On a processor, or in need of one: where others take them all, it is not idle for that.
    waits_to_run: bool,
}

/// The compiler threads by id.
fn compilers() -> BTreeMap<u64, Compiler> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return BTreeMap::new() };
    tasks
        .flatten()
        .filter_map(|task| {
            let name = fs::read_to_string(task.path().join("comm")).ok()?;
            if !name.contains(" CompilerThre") {
                return None;
            }
            let tid = task.file_name().to_str()?.parse().ok()?;
            let times = fs::read_to_string(task.path().join("schedstat")).ok()?;
            let run_ns = times.split_whitespace().next()?.parse().ok()?;
            // The state follows the name, which is in parentheses (proc_pid_stat(5)).
            let stat = fs::read_to_string(task.path().join("stat")).ok()?;
            let waits_to_run = stat.rsplit_once(") ")?.1.starts_with('R');
            Some((tid, Compiler { run_ns, waits_to_run }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_compilers_is_at_rest() {
        assert!(rest(Duration::from_secs(5)));
    }

    #[test]
    fn a_busy_compiler_is_waited_for_and_no_longer_than_allowed() {
        let busy = std::thread::Builder::new()
            .name("C2 CompilerThread0".to_owned())
            .spawn(|| {
                let start = Instant::now();
                while start.elapsed() < Duration::from_millis(600) {
                    std::hint::spin_loop();
                }
            })
            .unwrap();
        std::thread::sleep(Duration::from_millis(20));
        assert!(!rest(Duration::from_millis(150)));
        assert!(rest(Duration::from_secs(10)));
        busy.join().unwrap();
    }
}
