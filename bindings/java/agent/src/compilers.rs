//! Waits until the JIT compilers have nothing to do.
//!
//! In: a limit. Out: whether they came to rest. Invariant: the wait is bounded.
//! Not here: which methods are compiled.
//!
//! A compilation that is under way at the checkpoint goes on in every copy, where it competes with
//! the first request: measured on two processors, 30 % of the time to the first answer of a Spring
//! Boot service. JVM(since 17): compiler threads are not visible to Java, but their names are to
//! the kernel, cut to 15 bytes: `C1 CompilerThre`, `C2 CompilerThre`.
//!
//! While the application itself is at work they never come to rest: it gives them more than they finish.
//! There the wait would only make the checkpoint late, so it is short.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// How often the compilers are looked at.
const SAMPLE: Duration = Duration::from_millis(10);
/// How many samples without work count as rest: a compiler takes a new task at once.
const QUIET_SAMPLES: u32 = 3;
/// A thread that merely wakes up to look for work needs less than this per sample.
const IDLE_NS: u64 = 200_000;
/// How long the application is looked at before it counts as being at work.
const WINDOW: Duration = Duration::from_secs(1);
/// The part of a processor that is next to nothing: a twentieth.
const NEXT_TO_NOTHING: u32 = 20;
/// KERNEL: `USER_HZ`, the unit of times in proc_pid_stat(5), is 100 on all architectures.
const TICK_NS: u64 = 10_000_000;

/// Waits until no compiler has worked for a while, for at most `limit`; and no longer than while all others
/// work less than half as much as the compilers do, or next to nothing.
pub(crate) fn rest(limit: Duration) -> bool {
    let start = Instant::now();
    let mut before = compilers();
    let mut all = Totals::default();
    let mut window = (start, all.count(&before));
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
        let lasted = window.0.elapsed();
        if lasted >= WINDOW {
            let times = all.count(&now);
            let [compiled, worked] = [0, 1].map(|of| times[of].saturating_sub(window.1[of]));
            let is_work = Duration::from_nanos(worked) >= lasted / NEXT_TO_NOTHING;
            if quiet == 0 && is_work && worked >= compiled / 2 {
                return false;
            }
            window = (Instant::now(), times);
        }
        before = now;
    }
    true
}

/// Times on a processor since the start of this process.
#[derive(Default)]
struct Totals {
    /// Of each compiler that there was, as those that have ended count in the process.
    compilers: BTreeMap<u64, u64>,
}

impl Totals {
    /// That of the compilers, and that of all threads but them and us.
    fn count(&mut self, compilers: &BTreeMap<u64, Compiler>) -> [u64; 2] {
        self.compilers.extend(compilers.iter().map(|(&tid, compiler)| (tid, compiler.run_ns)));
        let compilers = self.compilers.values().sum::<u64>();
        let ours = run_ns("/proc/thread-self/schedstat").unwrap_or(0);
        [compilers, process_ns().unwrap_or(0).saturating_sub(compilers + ours)]
    }
}

/// The time of the whole process: `utime` and `stime`, fields 14 and 15 of proc_pid_stat(5).
fn process_ns() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some((ticks()? + ticks()?) * TICK_NS)
}

/// The first field of a `schedstat` (KERNEL: Documentation/scheduler/sched-stats.rst).
fn run_ns(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
}

/// What a compiler thread is about.
struct Compiler {
    /// Its time on a processor so far.
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
            let run_ns = run_ns(task.path().join("schedstat").to_str()?)?;
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Says that this process has no other test.
    const ALONE: &str = "TUB_TEST_ALONE";

    /// A thread of that name that works until it is told to stop.
    fn busy(name: &str, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
        let stop = Arc::clone(stop);
        let work = move || {
            while !stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(work).unwrap()
    }

    /// One test, since a busy compiler of one would be seen by the other.
    #[test]
    fn a_busy_compiler_is_waited_for_unless_the_application_works_on() {
        // In a process of its own: what other tests do here would be the application's work.
        if std::env::var_os(ALONE).is_none() {
            let name =
                "compilers::tests::a_busy_compiler_is_waited_for_unless_the_application_works_on";
            let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
            let ended = alone.args(["--exact", name]).env(ALONE, "1").status().unwrap();
            assert!(ended.success(), "{ended}");
            return;
        }
        assert!(rest(Duration::from_secs(10)), "there is none");
        let stop = Arc::new(AtomicBool::new(false));
        let compiler = busy("C2 CompilerThread0", &stop);
        std::thread::sleep(Duration::from_millis(20));
        let start = Instant::now();
        assert!(!rest(Duration::from_millis(1_500)));
        assert!(start.elapsed() >= Duration::from_millis(1_500), "{:?}", start.elapsed());
        // It makes work for the compiler, for all that anybody knows.
        let application = [(); 2].map(|()| busy("application", &stop));
        let start = Instant::now();
        assert!(!rest(Duration::from_secs(60)));
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
        stop.store(true, Ordering::Relaxed);
        application.into_iter().chain([compiler]).for_each(|thread| thread.join().unwrap());
        assert!(rest(Duration::from_secs(10)));
    }
}
