//! Processes that get signals while they are being stopped, and lose none of them.
//!
//! In: this program once more, whose threads signal themselves as fast as they can. Out: how many
//! signals they have sent, and how many they got.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use tub_tracee::Frozen;
use tub_units::HostPid;

const THREADS: usize = 4;
const FREEZES: usize = 400;
/// Names the signal to the program that sends it.
const SIGNAL: &str = "TUB_TEST_SIGNAL";

static GOT: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_: libc::c_int) {
    GOT.fetch_add(1, Ordering::SeqCst);
}

/// What the program does that is frozen; by itself it is no test.
#[test]
fn program_that_signals_itself() {
    let Some(signal) = std::env::var(SIGNAL).ok().and_then(|signal| signal.parse().ok()) else {
        return;
    };
    let handler = count as extern "C" fn(libc::c_int);
    // SAFETY: the handler touches nothing but an atomic.
    unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    let over = std::sync::atomic::AtomicBool::new(false);
    let sent: u64 = std::thread::scope(|scope| {
        let send = || {
            let mut sent = 0;
            while !over.load(Ordering::SeqCst) {
                // SAFETY: takes a number. It returns when the handler has.
                sent += u64::from(unsafe { libc::raise(signal) } == 0);
            }
            sent
        };
        let threads = [(); THREADS].map(|()| scope.spawn(send));
        println!("\nready");
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        over.store(true, Ordering::SeqCst);
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    println!("\nsent {sent} got {}", GOT.load(Ordering::SeqCst));
}

/// Freezes a program that sends itself `signal` all the time, again and again, and compares how many
/// it has sent with how many it got.
fn storm(signal: i32) {
    let mut program = Command::new(std::env::current_exe().expect("we have a program"));
    program.args(["--exact", "program_that_signals_itself", "--nocapture"]);
    program.env(SIGNAL, signal.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut program = program.spawn().expect("it starts");
    let mut answers =
        BufReader::new(program.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
    answers.find(|line| line == "ready").expect("it says so");

    let pid = HostPid(program.id().cast_signed());
    let mut failures = Vec::new();
    for number in 0..FREEZES {
        match Frozen::freeze(pid) {
            Ok(frozen) => frozen.thaw(),
            Err(error) => failures.push(format!("freeze {number}: {error:?}")),
        }
    }
    drop(program.stdin.take());
    let counts = answers.find(|line| line.starts_with("sent ")).expect("it counts");
    program.wait().expect("it has ended");
    let counts: Vec<&str> = counts.split(' ').collect();
    assert_eq!(failures, Vec::<String>::new(), "{counts:?}");
    assert_eq!(counts[1], counts[3]);
}

#[test]
fn no_ordinary_signal_is_lost_in_a_freeze() {
    storm(libc::SIGUSR1);
}

/// Their numbers are unknown to most wrappers of system calls.
#[test]
fn no_real_time_signal_is_lost_in_a_freeze() {
    storm(libc::SIGRTMIN() + 3);
}
