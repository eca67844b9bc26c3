//! Timers: they fire when they should have, neither early nor late, and clocks go on.
//!
//! Time is measured by a clock of our own that stands still while the process is frozen, for the
//! wall clock goes on between checkpoint and restore and CLOCK_MONOTONIC may.

use crate::stage::{Promise, Stage, say};
use crate::sys::{self, PosixTimer};
use crate::thread::{self, JoinHandle};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// How late a timer may be on a busy machine.
const LATE: Duration = Duration::from_millis(1500);

/// How early a timer may seem to fire: what the freeze takes from the timer and not from us.
const EARLY: Duration = Duration::from_millis(600);

/// Steps of the running clock above this are jumps.
const JUMP: Duration = Duration::from_millis(400);

/// A clock that ticks while its process runs.
pub(crate) struct RunningClock {
    nanos: AtomicU64,
    largest_step: AtomicU64,
    stop: AtomicBool,
}

impl RunningClock {
    /// Starts the clock.
    pub(crate) fn start() -> (&'static Self, JoinHandle<()>) {
        let clock: &'static Self = Box::leak(Box::new(Self {
            nanos: AtomicU64::new(0),
            largest_step: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }));
        let thread = thread::spawn(move || {
            let mut last = sys::monotonic();
            while !clock.stop.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(2));
                let now = sys::monotonic();
                let step = now.saturating_sub(last);
                last = now;
                clock.largest_step.fetch_max(nanos(step), Ordering::SeqCst);
                clock.nanos.fetch_add(nanos(step.min(JUMP)), Ordering::SeqCst);
            }
        });
        (clock, thread)
    }

    /// Running time so far.
    pub(crate) fn now(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::SeqCst))
    }

    /// The largest step that CLOCK_MONOTONIC took.
    pub(crate) fn largest_step(&self) -> Duration {
        Duration::from_nanos(self.largest_step.load(Ordering::SeqCst))
    }

    /// Waits until `time` of running time has passed since `start`.
    pub(crate) fn wait_until(&self, time: Duration) {
        while self.now() < time {
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Calls of the SIGALRM handler.
static ALARMS: AtomicU64 = AtomicU64::new(0);

extern "C" fn alarm(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    ALARMS.fetch_add(1, Ordering::SeqCst);
}

/// The period of a timer that nobody listens to until after the checkpoint.
const BEAT: Duration = Duration::from_millis(40);

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// setitimer, timer_create and timerfd, one-shot and periodic, firing and far away.
pub(crate) fn timers(stage: &'static Stage) -> io::Result<()> {
    let (first, last) = (libc::SIGRTMIN() + 5, libc::SIGRTMIN() + 7);
    let signals: Vec<i32> = (first..=last).collect();
    let directed = libc::SIGRTMIN() + 10;
    sys::block(&signals);
    let unheard = libc::SIGRTMIN() + 11;
    let measured = libc::SIGRTMIN() + 12;
    sys::block(&[directed, unheard, measured]);
    sys::handle(libc::SIGALRM, alarm, libc::SA_RESTART, &[])?;
    let (clock, clock_thread) = RunningClock::start();

    let monotonic_before = sys::monotonic();
    let boottime_before = sys::clock(libc::CLOCK_BOOTTIME);

    // Three timers, the middle one deleted: ids must be given back, not dealt out anew.
    let once = PosixTimer::new(libc::CLOCK_MONOTONIC, first, 101)?;
    let gap = PosixTimer::new(libc::CLOCK_MONOTONIC, first, 0)?;
    let far = PosixTimer::new(libc::CLOCK_REALTIME, first + 1, 102)?;
    let (tell, told) = mpsc::channel();
    let target = thread::spawn(move || wait_for_own_timer(&tell, directed));
    let idle = PosixTimer::new(libc::CLOCK_BOOTTIME, last, 103)?;
    gap.delete()?;
    let tid = told.recv().map_err(io::Error::other)?;
    let thread_timer = PosixTimer::for_thread(libc::CLOCK_MONOTONIC, directed, 104, tid)?;
    thread_timer.set(seconds(3), Duration::ZERO)?;
    once.set(seconds(3), Duration::ZERO)?;
    far.set(seconds(1000), seconds(7))?;
    let armed_at = clock.now();
    let beating = PosixTimer::new(libc::CLOCK_MONOTONIC, unheard, 105)?;
    beating.set(Duration::from_millis(1), BEAT)?;
    let worker = BusyThread::start()?;
    // 200 ms of the worker's time from here on, and more of the process's and our own than there will be.
    let of_worker = PosixTimer::new(thread_clock(worker.tid), measured, 106)?;
    of_worker.set(WORK, Duration::ZERO)?;
    let of_us = PosixTimer::new(thread_clock(sys::gettid()), measured, 107)?;
    of_us.set(seconds(1000), seconds(13))?;
    let of_process = PosixTimer::new(process_clock(std::process::id()), measured, 108)?;
    of_process.set(seconds(1000), seconds(17))?;
    let ended = BusyThread::start()?;
    let of_ended = PosixTimer::new(thread_clock(ended.tid), measured, 109)?;
    of_ended.set(seconds(1), Duration::ZERO)?;
    // And one that would signal it.
    let to_ended = PosixTimer::for_thread(libc::CLOCK_MONOTONIC, measured, 110, ended.tid)?;
    to_ended.set(seconds(1000), seconds(19))?;
    ended.end()?;
    sys::set_interval_timer(libc::ITIMER_REAL, seconds(3), Duration::from_millis(250))?;
    sys::set_interval_timer(libc::ITIMER_VIRTUAL, seconds(2000), seconds(9))?;
    let mut fd_once = sys::timerfd(libc::CLOCK_MONOTONIC, seconds(3), Duration::ZERO)?;
    let fd_far = sys::timerfd(libc::CLOCK_REALTIME, seconds(1000), seconds(11))?;
    let mut fd_ticked =
        sys::timerfd(libc::CLOCK_BOOTTIME, Duration::from_millis(1), seconds(3000))?;
    thread::sleep(Duration::from_millis(20));

    let fired = |what, at: Duration| {
        let after = at.saturating_sub(armed_at);
        say(&format!("{what} fired after {after:?} of running time"));
        stage.within(what, &after, seconds(3).saturating_sub(EARLY)..=seconds(3) + LATE);
    };

    stage.across()?;

    let alarms_at_go = ALARMS.load(Ordering::SeqCst);
    let monotonic = sys::monotonic();
    stage.holds("CLOCK_MONOTONIC does not go back", monotonic >= monotonic_before);
    stage.holds(
        "CLOCK_BOOTTIME does not go back",
        sys::clock(libc::CLOCK_BOOTTIME) >= boottime_before,
    );
    if stage.promised(Promise::ContinuousClock) {
        let step = clock.largest_step();
        stage.within("largest step of CLOCK_MONOTONIC", &step, Duration::ZERO..=seconds(1));
    }

    // The alarms interrupt a wait, so that it takes several.
    let taken_by = |signal, deadline| -> io::Result<Option<sys::Taken>> {
        while clock.now() <= deadline {
            if let Some(taken) = sys::take(&[signal], Duration::from_millis(100))? {
                return Ok(Some(taken));
            }
        }
        Ok(None)
    };
    let taken = taken_by(first, armed_at + seconds(3) + LATE)?;
    let at = clock.now();
    let expected = sys::Taken { signal: first, code: libc::SI_TIMER, value: 101 };
    stage.same("what the POSIX timer sends", &Some(expected), &taken);
    fired("POSIX timer", at);
    stage.same("remaining time of the fired timer", &seconds(0), &once.get()?.0);

    let mut ticks = [0; 8];
    fd_once.read_exact(&mut ticks)?;
    stage.same("ticks of a timerfd", &1, &u64::from_ne_bytes(ticks));
    fired("timerfd", clock.now());
    fd_ticked.read_exact(&mut ticks)?;
    stage.same("ticks unread at the checkpoint", &1, &u64::from_ne_bytes(ticks));

    // Its signal has been waiting since before the checkpoint; it stands for all beats until now.
    let expected = sys::Taken { signal: unheard, code: libc::SI_TIMER, value: 105 };
    let mut beats = 0;
    for _ in 0..3 {
        let taken = taken_by(unheard, clock.now() + seconds(2))?;
        stage.same("what an unheard timer sends", &Some(expected), &taken);
        beats += 1 + beating.overrun()?;
    }
    let most = clock.now().saturating_sub(armed_at).as_millis() / BEAT.as_millis();
    say(&format!("{beats} beats, of {most} at most"));
    stage.within("beats of an unheard timer", &beats, 3..=u32::try_from(most).unwrap_or(0) + 3);
    stage.same("period of an unheard timer", &BEAT, &beating.get()?.1);
    beating.set(Duration::ZERO, Duration::ZERO)?;

    let taken = target.join().map_err(|_| io::Error::other("a thread panicked"))??;
    stage.same("timer of a thread", &Some(104), &taken.map(|taken| taken.value));
    stage.same("its remaining time", &seconds(0), &thread_timer.get()?.0);
    stage.same(
        "timer of a thread's work before it works",
        &None,
        &sys::take(&[measured], Duration::ZERO)?,
    );
    worker.work();
    let taken = taken_by(measured, clock.now() + seconds(10))?.map(|taken| taken.value);
    stage.same("timer of a thread's work", &Some(106), &taken);
    let worked = worker.end()?;
    say(&format!("it fired when the thread had worked for {worked:?}"));
    stage.within("work until its timer fired", &worked, WORK - TICK..=WORK + LATE);
    far_away(stage, "timer of our own work", of_us.get()?, 1000, seconds(13));
    far_away(stage, "timer of all work", of_process.get()?, 1000, seconds(17));
    stage.same("timer of a thread that has ended", &seconds(0), &of_ended.get()?.0);
    far_away(stage, "timer for a thread that has ended", to_ended.get()?, 1000, seconds(19));
    far_away(stage, "POSIX timer", far.get()?, 1000, seconds(7));
    far_away(stage, "timerfd", sys::timerfd_remaining(&fd_far)?, 1000, seconds(11));
    far_away(stage, "ITIMER_VIRTUAL", sys::interval_timer(libc::ITIMER_VIRTUAL)?, 2000, seconds(9));
    far_away(
        stage,
        "period of the ticked timerfd",
        sys::timerfd_remaining(&fd_ticked)?,
        3000,
        seconds(3000),
    );
    stage.same("disarmed timer", &(seconds(0), seconds(0)), &idle.get()?);
    idle.set(Duration::from_millis(1), Duration::ZERO)?;
    let taken = taken_by(last, clock.now() + seconds(2))?.map(|taken| taken.value);
    stage.same("disarmed timer armed again", &Some(103), &taken);

    stage.same("alarms before their time", &0, &alarms_at_go);
    clock.wait_until(armed_at + seconds(3) + LATE);
    let alarms = ALARMS.load(Ordering::SeqCst);
    // From 3 s on, one each quarter of a second; two of them must have come within LATE.
    stage.within("alarms within 1.5 s of the first", &alarms, 2..=10);
    sys::set_interval_timer(libc::ITIMER_REAL, Duration::ZERO, Duration::ZERO)?;
    clock.stop();
    stage.holds("clock could be joined", clock_thread.join().is_ok());
    Ok(())
}

/// How long a thread works until a timer that measures that fires.
const WORK: Duration = Duration::from_millis(200);

/// Such timers are looked at a hundred times a second.
const TICK: Duration = Duration::from_millis(10);

/// The clocks of pthread_getcpuclockid(3) and clock_getcpuclockid(3), by the kernel's rule.
fn thread_clock(tid: i32) -> libc::clockid_t {
    (!tid << 3) | 6
}

fn process_clock(pid: u32) -> libc::clockid_t {
    (!pid.cast_signed() << 3) | 2
}

/// A thread that works when it is told to, and as long.
struct BusyThread {
    tid: i32,
    go: mpsc::Sender<()>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl BusyThread {
    fn start() -> io::Result<Self> {
        let (tell, told) = mpsc::channel();
        let (go, gone) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let _ = tell.send(sys::gettid());
            // Nobody says go where it is only to end.
            if gone.recv().is_err() {
                return Duration::ZERO;
            }
            let start = sys::clock(libc::CLOCK_THREAD_CPUTIME_ID);
            while !until.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
            sys::clock(libc::CLOCK_THREAD_CPUTIME_ID).saturating_sub(start)
        });
        let tid = told.recv().map_err(io::Error::other)?;
        Ok(Self { tid, go, stop, thread })
    }

    fn work(&self) {
        let _ = self.go.send(());
    }

    /// Ends it. Gives how long it has worked.
    fn end(self) -> io::Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.go);
        self.thread.join().map_err(|_| io::Error::other("a thread panicked"))
    }
}

/// Tells its id, and waits for the signal that only it can take.
fn wait_for_own_timer(tell: &mpsc::Sender<i32>, signal: i32) -> io::Result<Option<sys::Taken>> {
    tell.send(sys::gettid()).map_err(io::Error::other)?;
    for _ in 0..200 {
        if let Some(taken) = sys::take(&[signal], Duration::from_millis(100))? {
            return Ok(Some(taken));
        }
    }
    Ok(None)
}

/// A timer set to `set` seconds is a little below that, and keeps its period.
fn far_away(
    stage: &Stage,
    what: &str,
    (remaining, period): (Duration, Duration),
    set: u64,
    every: Duration,
) {
    stage.same(&format!("period of a far {what}"), &every, &period);
    // Ten seconds for the test's own time; the wall clock's share is not charged to it.
    // setitimer(2) rounds up to a tick.
    let bounds = seconds(set.saturating_sub(20))..=seconds(set) + Duration::from_millis(10);
    stage.within(&format!("remaining time of a far {what}"), &remaining, bounds);
}
