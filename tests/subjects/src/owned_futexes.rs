//! Waits for futexes in which the id of their owner stands, with a time and without.
//!
//! Invariant: as for `mutexes`, only with the same ids.

use crate::blocked::{WAIT, until};
use crate::stage::{Promise, Stage, say};
use crate::sys;
use crate::thread::{self, JoinHandle};
use crate::timers::RunningClock;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const BEFORE: Duration = Duration::from_millis(1500);
const LATE: Duration = Duration::from_millis(1500);

/// Held by the main thread all the time.
static HELD: AtomicU32 = AtomicU32::new(0);
/// Free, until somebody is moved to it.
static TARGET: AtomicU32 = AtomicU32::new(0);
/// Where two wait that nobody moves, and one that is moved.
static NEVER: AtomicU32 = AtomicU32::new(0);
static SOON: AtomicU32 = AtomicU32::new(0);
static WAITING: AtomicU32 = AtomicU32::new(0);

/// `owned-futexes`: FUTEX_LOCK_PI and its kin, by the bare calls.
pub(crate) fn owned_futexes(stage: &'static Stage) -> io::Result<()> {
    let (clock, _) = RunningClock::start();
    let me = sys::gettid().cast_unsigned();
    HELD.store(me, Ordering::SeqCst);
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    let mut start = |work: Box<dyn FnOnce() + Send>| {
        threads.push(thread::spawn(move || {
            WAITING.fetch_add(1, Ordering::SeqCst);
            work();
        }));
    };
    start(Box::new(move || by_the_wall_clock(stage, clock)));
    start(Box::new(move || {
        let deadline = sys::monotonic() + WAIT;
        let call = || sys::lock_pi2(&HELD, deadline);
        until(stage, clock, "FUTEX_LOCK_PI2", deadline, call);
    }));
    start(Box::new(move || {
        let deadline = sys::monotonic() + WAIT;
        let call = || sys::wait_requeue_pi(&NEVER, &TARGET, Some(deadline));
        until(stage, clock, "FUTEX_WAIT_REQUEUE_PI", deadline, call);
    }));
    let moved = thread::spawn(move || {
        WAITING.fetch_add(1, Ordering::SeqCst);
        let answer = sys::wait_requeue_pi(&SOON, &TARGET, None);
        stage.same("FUTEX_WAIT_REQUEUE_PI, moved", &0, &answer.result);
        stage.holds("registers after FUTEX_WAIT_REQUEUE_PI", answer.registers_kept);
        let owner = TARGET.load(Ordering::SeqCst) & libc::FUTEX_TID_MASK;
        stage.same("owner of what it was moved to", &sys::gettid().cast_unsigned(), &owner);
        stage.works("giving it up", sys::unlock_pi(&TARGET));
    });
    while WAITING.load(Ordering::SeqCst) < 4 {
        thread::yield_now();
    }
    thread::sleep(BEFORE);

    stage.across()?;

    stage.holds("nobody has been moved", !moved.is_finished());
    let free = TARGET.compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst);
    stage.same("what nobody holds is free", &Ok(0), &free);
    stage.same("who is moved", &Some(1), &stage.works("moving", sys::requeue_pi(&SOON, &TARGET)));
    stage.works("giving it up", sys::unlock_pi(&TARGET));
    stage.holds("the one that was moved ends", moved.join().is_ok());
    for thread in threads {
        stage.holds("waiter ends", thread.join().is_ok());
    }
    let owner = HELD.load(Ordering::SeqCst) & libc::FUTEX_TID_MASK;
    stage.same("owner of what is held all the time", &me, &owner);
    stage.works("giving it up", sys::unlock_pi(&HELD));
    Ok(())
}

/// The deadline of FUTEX_LOCK_PI is one of CLOCK_REALTIME, which goes on while there is no process.
fn by_the_wall_clock(stage: &Stage, clock: &RunningClock) {
    let start = clock.now();
    let deadline = sys::real_time() + WAIT;
    let answer = sys::lock_pi(&HELD, deadline);
    let waited = clock.now().saturating_sub(start);
    say(&format!("FUTEX_LOCK_PI took {waited:?} of running time"));
    stage.same("FUTEX_LOCK_PI", &i64::from(-libc::ETIMEDOUT), &answer.result);
    stage.holds("registers after FUTEX_LOCK_PI", answer.registers_kept);
    stage.holds("FUTEX_LOCK_PI has reached its deadline", sys::real_time() >= deadline);
    let least = if stage.promised(Promise::Restored) { Duration::ZERO } else { WAIT };
    stage.within("FUTEX_LOCK_PI", &waited, least.saturating_sub(LATE)..=WAIT + LATE);
}
