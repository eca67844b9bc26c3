//! Processes that get signals while they are being stopped, and lose none of them.
//!
//! In: this program once more, whose threads signal themselves as fast as they can. Out: how many
//! signals they have sent, and how many they got.

mod again;

use again::freeze_again_and_again;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};

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
    let program = "program_that_signals_itself";
    let signal = signal.to_string();
    let (failures, counts) = freeze_again_and_again(program, (SIGNAL, &signal), FREEZES, "sent ");
    let counts = counts.expect("it counts");
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
