//! System calls that were blocked at the checkpoint: in the copy each goes on for what was left.
//!
//! Invariant: a wait ends neither early nor late, measured in running time. EINTR is tolerated only
//! where the engine cannot know how long a call had been waiting (`docs/threads.md`): a timeout that
//! belongs to a socket, or a kernel without `/proc/PID/sched`.

use crate::stage::{Promise, Stage, say};
use crate::sys;
use crate::thread::{self, JoinHandle};
use crate::timers::RunningClock;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(5);

/// More nanoseconds than any counter holds.
const AGES: Duration = Duration::from_secs(1 << 40);

/// How long all have been waiting when the process is ready. A wait that starts anew after the restore
/// ends later than [`LATE`] by a second.
const BEFORE: Duration = Duration::from_millis(2500);

const EARLY: Duration = Duration::from_millis(600);
const LATE: Duration = Duration::from_millis(1500);

static WAITING: AtomicU32 = AtomicU32::new(0);

static POKED: AtomicU32 = AtomicU32::new(0);

extern "C" fn poke(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    POKED.fetch_add(1, Ordering::SeqCst);
}

/// One thread for each call.
pub(crate) fn waits(stage: &'static Stage) -> io::Result<()> {
    wait(stage, true)
}

/// The same but for accept(2): with no address that only one process can have.
pub(crate) fn waits_unnamed(stage: &'static Stage) -> io::Result<()> {
    wait(stage, false)
}

fn wait(stage: &'static Stage, listens: bool) -> io::Result<()> {
    sys::handle(libc::SIGUSR1, poke, 0, &[])?;
    // Before there are threads, for a signal may be taken by any of them that does not block it.
    let (signal, woken) = (libc::SIGRTMIN() + 8, libc::SIGRTMIN() + 9);
    let woken_late = libc::SIGRTMIN() + 10;
    sys::block(&[signal, woken, woken_late]);
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
    let semaphore = sys::semaphore()?;
    for timed in every_timed_call(semaphore, signal)? {
        start(Box::new(move || timed.wait(stage, clock)));
    }
    let (idle, keep_idle) = sys::socketpair(libc::SOCK_DGRAM)?;
    sys::set_receive_timeout(&idle, WAIT)?;
    start(Box::new(move || socket_timeout(stage, clock, &idle)));
    start(Box::new(move || {
        let answer = sys::sigtimedwait(woken, None);
        stage.same("sigwaitinfo", &i64::from(woken), &answer.result);
        stage.holds("registers after sigwaitinfo", answer.registers_kept);
    }));
    start(Box::new(move || {
        let answer = sys::sigtimedwait(woken_late, Some(AGES));
        stage.same("sigtimedwait for ages", &i64::from(woken_late), &answer.result);
    }));
    let messages = sys::messages()?;
    start(Box::new(move || {
        let answer = sys::receive_message(messages);
        stage.same("msgrcv", &0, &answer.result);
        stage.holds("registers after msgrcv", answer.registers_kept);
    }));
    if listens {
        let listener = UnixListener::bind(stage.path("listener"))?;
        start(Box::new(move || {
            let answer = sys::accept(&listener);
            stage.holds("accept gives a descriptor", answer.result > 2);
            stage.holds("registers after accept", answer.registers_kept);
        }));
    }
    start(Box::new(move || deep_sleep(stage, clock)));
    start(Box::new(move || untimed_epoll(stage, &watched)));
    let pausing = thread::spawn(move || {
        WAITING.fetch_add(1, Ordering::SeqCst);
        sys::pause();
        // pause(2) returns only after a handler has run.
        stage.holds("pause ends by a handler", POKED.load(Ordering::SeqCst) > 0);
    });
    let pausing_thread = std::os::unix::thread::JoinHandleExt::as_pthread_t(&pausing);
    let all = if listens { 26 } else { 25 };
    while WAITING.load(Ordering::SeqCst) < all {
        thread::yield_now();
    }
    thread::sleep(BEFORE);

    stage.across()?;

    stage.holds("pause goes on", !pausing.is_finished());
    wake_reader.write_all(b"r")?;
    wake_poller.write_all(b"p")?;
    wake_watcher.write_all(b"w")?;
    let us = i32::try_from(std::process::id()).expect("a pid is an int");
    sys::queue(us, woken, 0)?;
    sys::queue(us, woken_late, 0)?;
    sys::send_message(messages)?;
    let caller = listens.then(|| UnixStream::connect(stage.path("listener"))).transpose()?;
    // A copy goes back into pause(2) by itself, and a handler may run before it is there
    // (`docs/threads.md`).
    while !pausing.is_finished() {
        stage.works("poking the paused thread", sys::signal_thread(pausing_thread, libc::SIGUSR1));
        thread::sleep(Duration::from_millis(20));
    }
    stage.holds("paused thread ends", pausing.join().is_ok());
    for thread in threads {
        stage.holds("waiter ends", thread.join().is_ok());
    }
    sys::remove_semaphore(semaphore)?;
    sys::remove_messages(messages)?;
    drop((caller, keep_quiet, keep_idle));
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
    let milliseconds = i32::try_from(WAIT.as_millis()).expect("a test is short");
    match sys::poll(quiet.as_fd(), libc::POLLIN, milliseconds) {
        Ok(events) => {
            stage.same("events of a poll that timed out", &0, &events);
            lasted(stage, "poll", clock.now().saturating_sub(start));
        }
        Err(error) => interrupted(stage, "poll", &error),
    }
}

fn lasted(stage: &Stage, what: &str, time: Duration) {
    say(&format!("{what} took {time:?} of running time"));
    stage.within(what, &time, WAIT.saturating_sub(EARLY)..=WAIT + LATE);
}

/// A wait ended with an error after all.
fn interrupted(stage: &Stage, what: &str, error: &io::Error) {
    stage.same(&format!("error of {what}"), &Some(libc::EINTR), &error.raw_os_error());
    let could_be_known = std::path::Path::new("/proc/self/sched").exists();
    stage.holds(&format!("{what} goes on"), !could_be_known);
}

/// A call that waits for a time span.
struct Timed {
    name: &'static str,
    /// What it gives in the end: 0, or the negative errno of a timeout.
    ends_with: i32,
    call: Box<dyn FnOnce() -> sys::Answer + Send>,
}

impl Timed {
    fn wait(self, stage: &Stage, clock: &RunningClock) {
        let start = clock.now();
        let answer = (self.call)();
        let time = clock.now().saturating_sub(start);
        stage.holds(&format!("registers after {}", self.name), answer.registers_kept);
        if answer.result == i64::from(-libc::EINTR) {
            return interrupted(stage, self.name, &io::Error::from_raw_os_error(libc::EINTR));
        }
        stage.same(self.name, &i64::from(self.ends_with), &answer.result);
        lasted(stage, self.name, time);
    }
}

fn every_timed_call(semaphore: i32, signal: i32) -> io::Result<Vec<Timed>> {
    let [one, masked, other] = [sys::epoll_create()?, sys::epoll_create()?, sys::epoll_create()?];
    let timed = |name, ends_with, call| Timed { name, ends_with, call };
    Ok(vec![
        timed("nanosleep, blindly", 0, Box::new(|| sys::nanosleep_blindly(WAIT))),
        timed("nanosleep, asking", 0, Box::new(|| sys::nanosleep_asking(WAIT))),
        timed("clock_nanosleep", 0, Box::new(|| sys::clock_nanosleep(WAIT))),
        timed("poll of nothing", 0, Box::new(|| sys::poll_nothing(WAIT))),
        timed("ppoll", 0, Box::new(|| sys::ppoll_nothing(WAIT))),
        timed("select", 0, Box::new(|| sys::select_nothing(WAIT))),
        timed("pselect", 0, Box::new(|| sys::pselect_nothing(WAIT))),
        timed("epoll_wait", 0, Box::new(move || sys::epoll_wait_for(&one, Some(WAIT)))),
        timed("epoll_pwait", 0, Box::new(move || sys::epoll_pwait(&masked, WAIT))),
        timed("epoll_pwait2", 0, Box::new(move || sys::epoll_pwait2(&other, WAIT))),
        timed("futex", -libc::ETIMEDOUT, Box::new(|| sys::futex_nobody_wakes(WAIT))),
        timed(
            "sigtimedwait",
            -libc::EAGAIN,
            Box::new(move || sys::sigtimedwait(signal, Some(WAIT))),
        ),
        timed("semtimedop", -libc::EAGAIN, Box::new(move || sys::semtimedop(semaphore, WAIT))),
    ])
}

/// A timeout that belongs to a socket: the kernel gives EINTR to whoever was stopped (signal(7)).
fn socket_timeout(stage: &Stage, clock: &RunningClock, socket: &std::os::fd::OwnedFd) {
    let start = clock.now();
    let answer = sys::receive(socket);
    if answer.result != i64::from(-libc::EINTR) {
        stage.same("recv with a timeout", &i64::from(-libc::EAGAIN), &answer.result);
        lasted(stage, "recv with a timeout", clock.now().saturating_sub(start));
    }
}

/// A wait below other frames, whose locals lie around it.
fn deep_sleep(stage: &Stage, clock: &RunningClock) {
    fn down(depth: u64) -> u64 {
        let local = std::hint::black_box(depth);
        if depth == 0 {
            thread::sleep(WAIT);
            return 0;
        }
        down(depth - 1) + local
    }
    let start = clock.now();
    stage.same("sum of the frames above a sleep", &(1..=100).sum::<u64>(), &down(100));
    lasted(stage, "sleep of the standard library", clock.now().saturating_sub(start));
}

fn untimed_epoll(stage: &Stage, watched: &std::fs::File) {
    let result = (|| {
        let epoll = sys::epoll_create()?;
        sys::epoll_ctl(&epoll, libc::EPOLL_CTL_ADD, watched, libc::EPOLLIN, 0xfeed)?;
        let answer = sys::epoll_wait(&epoll, -1);
        if stage.promised(Promise::Restored) {
            return answer;
        }
        // An original that was only stopped: signal(7).
        answer.or_else(|_| sys::epoll_wait(&epoll, -1))
    })();
    let ready = stage.works("epoll_wait without timeout", result);
    stage.same("events of epoll_wait", &Some(vec![(0x1, 0xfeed)]), &ready);
}
