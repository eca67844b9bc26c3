//! System calls that were blocked at the checkpoint.
//!
//! Invariant: EINTR is tolerated only where signal(7) documents it for stops without a handler:
//! nanosleep, poll, epoll_wait, sigtimedwait, relative futex waits (see `futexes`). Those that the
//! kernel restarts by itself must not show anything.

use crate::stage::{Stage, say};
use crate::sys;
use crate::timers::RunningClock;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(3);
const EARLY: Duration = Duration::from_millis(600);
const LATE: Duration = Duration::from_millis(1500);

static WAITING: AtomicU32 = AtomicU32::new(0);

static POKED: AtomicU32 = AtomicU32::new(0);

extern "C" fn poke(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    POKED.fetch_add(1, Ordering::SeqCst);
}

/// One thread for each call.
pub(crate) fn waits(stage: &'static Stage) -> io::Result<()> {
    sys::handle(libc::SIGUSR1, poke, 0, &[])?;
    let (clock, _) = RunningClock::start();
    let (mut reading, mut wake_reader) = sys::pipe(0)?;
    let (polled, mut wake_poller) = sys::pipe(0)?;
    let (watched, mut wake_watcher) = sys::pipe(0)?;
    let (quiet, keep_quiet) = sys::pipe(0)?;

    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    let mut start = |work: Box<dyn FnOnce() + Send>| {
        threads.push(thread::spawn(move || {
            WAITING.fetch_add(1, Ordering::SeqCst);
            work();
        }));
    };
    start(Box::new(move || relative_sleep(stage, clock)));
    start(Box::new(move || absolute_sleep(stage, clock)));
    start(Box::new(move || {
        let mut byte = [0];
        stage.works("read from an empty pipe", reading.read_exact(&mut byte));
        stage.same("byte read", b"r", &byte);
    }));
    start(Box::new(move || {
        let ready = sys::ppoll_for_ever(polled.as_fd(), libc::POLLIN);
        let ready = stage.works("ppoll without timeout", ready);
        stage.same("events of ppoll", &Some(libc::POLLIN), &ready);
    }));
    start(Box::new(move || timed_poll(stage, clock, &quiet)));
    start(Box::new(move || untimed_epoll(stage, &watched)));
    let pausing = thread::spawn(move || {
        WAITING.fetch_add(1, Ordering::SeqCst);
        let poked = POKED.load(Ordering::SeqCst);
        sys::pause();
        // pause(2) returns only after a handler has run.
        stage.holds("pause ends by a handler", POKED.load(Ordering::SeqCst) > poked);
    });
    let pausing_thread = std::os::unix::thread::JoinHandleExt::as_pthread_t(&pausing);
    while WAITING.load(Ordering::SeqCst) < 7 {
        thread::yield_now();
    }
    thread::sleep(Duration::from_millis(50));

    stage.across()?;

    stage.holds("pause goes on", !pausing.is_finished());
    wake_reader.write_all(b"r")?;
    wake_poller.write_all(b"p")?;
    wake_watcher.write_all(b"w")?;
    stage.works("poking the paused thread", sys::signal_thread(pausing_thread, libc::SIGUSR1));
    stage.holds("paused thread ends", pausing.join().is_ok());
    for thread in threads {
        stage.holds("waiter ends", thread.join().is_ok());
    }
    drop(keep_quiet);
    Ok(())
}

fn relative_sleep(stage: &Stage, clock: &RunningClock) {
    let start = clock.now();
    let mut rest = WAIT;
    // nanosleep(2) tells what remains, and callers go on with that.
    while let Some(Some(remaining)) = stage.works("nanosleep", sys::nanosleep(rest)) {
        say(&format!("nanosleep interrupted with {remaining:?} left"));
        stage.holds("remaining time is less than asked for", remaining <= rest);
        rest = remaining;
    }
    let slept = clock.now().saturating_sub(start);
    say(&format!("nanosleep took {slept:?} of running time"));
    stage.within("nanosleep", &slept, WAIT.saturating_sub(EARLY)..=WAIT + LATE);
}

fn absolute_sleep(stage: &Stage, clock: &RunningClock) {
    let start = clock.now();
    let deadline = sys::monotonic() + WAIT;
    stage.works("clock_nanosleep to a point in time", sys::sleep_until(deadline));
    stage.holds("CLOCK_MONOTONIC has reached that point", sys::monotonic() >= deadline);
    let slept = clock.now().saturating_sub(start);
    stage.within("clock_nanosleep is not late", &slept, Duration::ZERO..=WAIT + LATE);
}

fn timed_poll(stage: &Stage, clock: &RunningClock, quiet: &std::fs::File) {
    let start = clock.now();
    match sys::poll(quiet.as_fd(), libc::POLLIN, 3000) {
        Ok(events) => {
            stage.same("events of a poll that timed out", &0, &events);
            let waited = clock.now().saturating_sub(start);
            stage.within("poll", &waited, WAIT.saturating_sub(EARLY)..=WAIT + LATE);
        }
        Err(error) => stage.same("error of poll", &Some(libc::EINTR), &error.raw_os_error()),
    }
}

fn untimed_epoll(stage: &Stage, watched: &std::fs::File) {
    let result = (|| {
        let epoll = sys::epoll_create()?;
        sys::epoll_ctl(&epoll, libc::EPOLL_CTL_ADD, watched, libc::EPOLLIN, 0xfeed)?;
        loop {
            match sys::epoll_wait(&epoll, -1) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        }
    })();
    let ready = stage.works("epoll_wait without timeout", result);
    stage.same("events of epoll_wait", &Some(vec![(0x1, 0xfeed)]), &ready);
}
