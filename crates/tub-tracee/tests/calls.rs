//! Calls that the threads of a held process make for us, side by side.
//!
//! In: this program once more, whose threads count what they do. Out: whether each thread answered for itself,
//! and went on as if nothing had been.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tub_tracee::{CallSite, Frozen, RemoteCalls};
use tub_units::HostPid;

const THREADS: usize = 12;
/// Says to the program that it is the one to be held.
const COUNTS: &str = "TUB_TEST_COUNTS";

/// What the program does that is held; by itself it is no test.
#[test]
fn program_whose_threads_count() {
    if std::env::var_os(COUNTS).is_none() {
        return;
    }
    let over = AtomicBool::new(false);
    let counts: [AtomicU64; THREADS] = [const { AtomicU64::new(0) }; THREADS];
    std::thread::scope(|scope| {
        for (index, count) in counts.iter().enumerate() {
            let over = &over;
            scope.spawn(move || {
                // Some are in a system call when they are stopped, some are not.
                while !over.load(Ordering::SeqCst) {
                    count.fetch_add(1, Ordering::SeqCst);
                    if index % 2 == 0 {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                }
            });
        }
        println!("\nready");
        let mut orders = std::io::stdin().lock().bytes();
        while orders.next().is_some() {
            // All have counted on since they were asked.
            let before = counts.each_ref().map(|count| count.load(Ordering::SeqCst));
            let deadline = Instant::now() + Duration::from_secs(20);
            let all = || counts.iter().zip(before).all(|(c, old)| c.load(Ordering::SeqCst) > old);
            while !all() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            println!("{}", if all() { "counted" } else { "stuck" });
        }
        over.store(true, Ordering::SeqCst);
    });
}

#[test]
fn each_thread_answers_for_itself_and_goes_on() {
    let mut program = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "program_whose_threads_count", "--nocapture", "--test-threads", "1"])
        .env(COUNTS, "")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(program.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line == "ready"));
    let mut orders = program.stdin.take().unwrap();
    let pid = HostPid(i32::try_from(program.id()).unwrap());

    for round in 0..20 {
        let frozen = Frozen::freeze(pid).unwrap();
        let maps = std::fs::read(format!("/proc/{pid}/maps")).unwrap();
        let maps = tub_procfs::maps::parse(&maps).unwrap();
        let code = || maps.iter().filter(|map| map.perms.execute);
        let read = |at, to: &mut [u8]| frozen.read(at, to).is_ok();
        let named = code().map(|map| (map.range, map.path.as_deref().unwrap_or("")));
        let site = CallSite::find(read, named).unwrap();
        assert!(site.is_there(read, code().map(|map| map.range)), "round {round}");
        assert!(!site.is_there(|_, _| false, code().map(|map| map.range)));
        assert!(!site.is_there(read, std::iter::empty()));

        let threads = frozen.threads();
        assert!(threads.len() > THREADS, "{}", threads.len());
        let before: Vec<_> = threads.iter().map(|thread| thread.registers().unwrap()).collect();
        let borrow = |thread: &tub_tracee::StoppedThread| frozen.remote(*thread, site, None);
        let mut borrowed: Vec<_> = threads.iter().map(borrow).collect::<Result<_, _>>().unwrap();
        let told = RemoteCalls::call_each(&mut borrowed, libc::SYS_gettid, |_| [0; 6]).unwrap();
        let told: Vec<_> = told.into_iter().map(|tid| tid.unwrap()).collect();
        let wanted: Vec<_> =
            threads.iter().map(|thread| u64::from(thread.tid().0.cast_unsigned())).collect();
        assert_eq!(told, wanted, "round {round}");
        // Each with its own argument, and its own error.
        let bad = [u64::MAX, 0, 0, 0, 0, 0];
        let told = RemoteCalls::call_each(&mut borrowed, libc::SYS_close, |_| bad).unwrap();
        assert!(told.iter().all(|answer| *answer == Err(tub_sys::Errno::EBADF)), "{told:?}");
        // Given back in any way.
        if round % 2 == 0 {
            RemoteCalls::end_each(borrowed).unwrap();
        } else {
            drop(borrowed);
        }
        let after: Vec<_> = threads.iter().map(|thread| thread.registers().unwrap()).collect();
        assert_eq!(after, before, "round {round}");
        let tids: BTreeSet<_> = wanted.into_iter().collect();
        assert_eq!(tids.len(), threads.len());
        frozen.thaw();
        orders.write_all(b"?").unwrap();
        orders.flush().unwrap();
        assert_eq!(said.next().as_deref(), Some("counted"), "round {round}");
    }
    drop(orders);
    assert!(program.wait().unwrap().success());
}
