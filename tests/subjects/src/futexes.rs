//! Futexes: waiters of every kind, locks held across, and the robust list.

use crate::stage::{Promise, Stage, say};
use crate::sys;
use crate::thread::{self, JoinHandle};
use crate::timers::RunningClock;
use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(3);
const EARLY: Duration = Duration::from_millis(600);
const LATE: Duration = Duration::from_millis(1500);

/// Condition variables, mutexes, raw futexes, a robust mutex.
pub(crate) fn futexes(stage: &'static Stage) -> io::Result<()> {
    static HELD: Mutex<u32> = Mutex::new(0);
    static GATE: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
    static NEVER: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());
    static WORD: AtomicU32 = AtomicU32::new(7);
    static WAITING: AtomicU32 = AtomicU32::new(0);

    let (clock, _) = RunningClock::start();
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    let mut start = |work: Box<dyn FnOnce() + Send>| {
        threads.push(thread::spawn(move || {
            WAITING.fetch_add(1, Ordering::SeqCst);
            work();
        }));
    };
    for _ in 0..4 {
        start(Box::new(|| *HELD.lock().unwrap_or_else(PoisonError::into_inner) += 1));
    }
    for _ in 0..8 {
        start(Box::new(|| {
            let mut open = GATE.0.lock().unwrap_or_else(PoisonError::into_inner);
            while !*open {
                open = GATE.1.wait(open).unwrap_or_else(PoisonError::into_inner);
            }
        }));
    }
    start(Box::new(move || timed_condition(stage, clock, &NEVER)));
    start(Box::new(move || timed_futex(stage, clock)));
    start(Box::new(move || {
        // Untimed waits are restarted by the kernel; only futex(2)'s spurious EINTR is tolerated.
        while WORD.load(Ordering::SeqCst) == 7 {
            match sys::futex_wait(&WORD, 7, None) {
                Err(e) if !matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {
                    stage.differs(format!("untimed futex wait: {e}"));
                    return;
                }
                _ => {}
            }
        }
    }));
    let owner = thread::spawn(move || die_with_robust_mutex(stage));
    while WAITING.load(Ordering::SeqCst) < 15 || OWNED.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    thread::sleep(Duration::from_millis(50));

    stage.across()?;

    stage.same("counted under the held mutex", &0, &*held);
    drop(held);
    *GATE.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    GATE.1.notify_all();
    WORD.store(8, Ordering::SeqCst);
    stage.works("waking the futex", sys::futex_wake(&WORD, 1));
    for thread in threads {
        stage.holds("waiter ends", thread.join().is_ok());
    }
    let counted = *HELD.lock().unwrap_or_else(PoisonError::into_inner);
    stage.same("counted by those who waited for the mutex", &4, &counted);

    stage.holds("owner of the robust mutex ends", owner.join().is_ok());
    // The owner's id stands in the mutex itself; with other ids the kernel cannot know it again.
    if stage.promised(Promise::SameIds) || !stage.promised(Promise::Restored) {
        stage.same("locking after the owner's death", &libc::EOWNERDEAD, &ROBUST.lock());
    }
    Ok(())
}

/// A timed wait on a condition variable, which std turns into an absolute futex wait.
fn timed_condition(stage: &Stage, clock: &RunningClock, never: &(Mutex<()>, Condvar)) {
    let start = clock.now();
    let started = Instant::now();
    let mut guard = never.0.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let rest = WAIT.saturating_sub(started.elapsed());
        let (again, result) =
            never.1.wait_timeout(guard, rest).unwrap_or_else(PoisonError::into_inner);
        guard = again;
        if result.timed_out() {
            break;
        }
    }
    drop(guard);
    let waited = clock.now().saturating_sub(start);
    say(&format!("timed condition waited {waited:?} of running time"));
    stage.within("timed condition is not late", &waited, Duration::ZERO..=WAIT + LATE);
    // A clock that jumps takes absolute deadlines along.
    if stage.promised(Promise::ContinuousClock) {
        stage.within(
            "timed condition is not early",
            &waited,
            WAIT.saturating_sub(EARLY)..=WAIT + LATE,
        );
    }
}

/// A relative futex wait, which must not start from the beginning after a restore.
fn timed_futex(stage: &Stage, clock: &RunningClock) {
    let word = AtomicU32::new(0);
    let start = clock.now();
    let result = sys::futex_wait(&word, 0, Some(WAIT));
    let waited = clock.now().saturating_sub(start);
    say(&format!("relative futex wait gave {result:?} after {waited:?} of running time"));
    match result.map_err(|e| e.raw_os_error()) {
        Err(Some(libc::ETIMEDOUT)) => {
            let bounds = WAIT.saturating_sub(EARLY)..=WAIT + LATE;
            stage.within("relative futex wait", &waited, bounds);
        }
        // futex(2) documents it.
        Err(Some(libc::EINTR)) => {}
        other => stage.differs(format!("relative futex wait: {other:?}")),
    }
}

/// Set once the robust mutex is held.
static OWNED: AtomicU32 = AtomicU32::new(0);

static ROBUST: RobustMutex = RobustMutex(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));

/// Holds the robust mutex across the checkpoint and dies with it.
fn die_with_robust_mutex(stage: &Stage) {
    ROBUST.set_up();
    stage.same("locking the robust mutex", &0, &ROBUST.lock());
    OWNED.store(1, Ordering::SeqCst);
    while !stage.is_over() {
        thread::sleep(Duration::from_millis(5));
    }
}

/// A pthread mutex whose death the kernel announces (pthread_mutexattr_setrobust(3)).
struct RobustMutex(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: being shared between threads is what a mutex is for.
unsafe impl Sync for RobustMutex {}

impl RobustMutex {
    /// Makes it robust; called once, before anybody else uses it.
    fn set_up(&self) {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: writes the attributes.
        unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) };
        let robust = libc::PTHREAD_MUTEX_ROBUST;
        // SAFETY: initialised above.
        unsafe { libc::pthread_mutexattr_setrobust(attributes.as_mut_ptr(), robust) };
        // SAFETY: nobody uses the mutex yet; the attributes are initialised.
        unsafe { libc::pthread_mutex_init(self.0.get(), attributes.as_ptr()) };
    }

    /// pthread_mutex_lock(3).
    fn lock(&self) -> i32 {
        // SAFETY: a static mutex never moves and is initialised (statically, then by `set_up`).
        unsafe { libc::pthread_mutex_lock(self.0.get()) }
    }
}
