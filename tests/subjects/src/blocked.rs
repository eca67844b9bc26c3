//! System calls that wait for somebody: for a lock, a child, room to write, a signal, a futex. In the
//! copy each of them still waits, and ends by what it waits for, or at its own point in time.
//!
//! ```text
//!   main ┬ warden       in wait4(2) for its own child; main waits for it by waitid(2)
//!        │   └ inmate   ends when the harness says go
//!        ├ petitioner   in fcntl(F_SETLKW) for a range that main has locked
//!        └ threads of main, each in one call
//! ```
//!
//! Invariant: none of the calls gives EINTR, but in an original that was only stopped (signal(7)).

use crate::stage::{Promise, Stage, say};
use crate::sys::{self, Answer};
use crate::thread::{self, JoinHandle};
use crate::timers::RunningClock;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long those wait that have a deadline.
pub(crate) const WAIT: Duration = Duration::from_secs(8);
/// How long all have been waiting when the process is ready.
const BEFORE: Duration = Duration::from_millis(1500);
const EARLY: Duration = Duration::from_millis(600);
const LATE: Duration = Duration::from_millis(1500);

static WAITING: AtomicU32 = AtomicU32::new(0);
static SUSPENDED: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    SUSPENDED.fetch_add(1, Ordering::SeqCst);
}

/// A thread in one system call.
struct Waiter {
    name: &'static str,
    thread: JoinHandle<Answer>,
}

impl Waiter {
    fn start(name: &'static str, wait: impl FnOnce() -> Answer + Send + 'static) -> Self {
        let thread = thread::spawn(move || {
            WAITING.fetch_add(1, Ordering::SeqCst);
            wait()
        });
        Self { name, thread }
    }

    /// The call has ended with `expected`, and its registers are as they were.
    fn ends_with(self, stage: &Stage, expected: i64) {
        let Ok(answer) = self.thread.join() else {
            return stage.differs(format!("{}: the thread panicked", self.name));
        };
        stage.same(self.name, &expected, &answer.result);
        stage.holds(&format!("registers after {}", self.name), answer.registers_kept);
    }
}

/// `blocked`: one of each.
pub(crate) fn blocked(stage: &'static Stage) -> io::Result<()> {
    sys::handle(libc::SIGUSR1, count, 0, &[])?;
    sys::block(&[libc::SIGUSR1]);
    let open = |name: &str| File::options().read(true).write(true).open(stage.path(name));
    for name in ["flock", "posix", "ofd"] {
        fs::write(stage.path(name), [b'.'; 64])?;
    }
    let (whole, ranges, described) = (open("flock")?, open("posix")?, open("ofd")?);
    sys::flock(&whole, libc::LOCK_EX)?;
    sys::record_lock(&ranges, libc::F_SETLK, libc::F_WRLCK, 10, 10)?;
    sys::record_lock(&described, libc::F_OFD_SETLK, libc::F_WRLCK, 10, 10)?;
    // Children first, while there is one thread.
    let warden = child(stage, warden)?;
    let petitioner = child(stage, petitioner)?;

    let (clock, _) = RunningClock::start();
    let semaphore = sys::semaphore()?;
    let full = sys::messages()?;
    while sys::send_message_of_8(full, libc::IPC_NOWAIT).result == 0 {}
    let (mut drain, pipe) = full_pipe()?;
    let (mut far, near) = full_socket()?;
    let (empty, teller) = sys::socketpair(libc::SOCK_STREAM)?;
    let (another_whole, another_described) = (open("flock")?, open("ofd")?);
    let (writer, sender, by_pidfd) =
        (pipe.try_clone()?, near.try_clone()?, sys::pidfd(warden.pid)?);
    let waiters = [
        Waiter::start("flock", move || sys::flock_waiting(&another_whole, libc::LOCK_EX)),
        Waiter::start("F_OFD_SETLKW", move || {
            sys::record_lock_waiting(&another_described, libc::F_OFD_SETLKW, 15, 10)
        }),
        Waiter::start("waitid for any child", || sys::waitid_leaving(libc::P_ALL, 0)),
        Waiter::start("waitid by a pidfd", move || {
            sys::waitid_leaving(libc::P_PIDFD, u64::from(by_pidfd.as_raw_fd().cast_unsigned()))
        }),
        Waiter::start("futex_waitv", || sys::futex_waitv([&WORDS[0], &WORDS[1]], None)),
        Waiter::start("semop", move || sys::semop_lower(semaphore)),
    ];
    let bytes = [
        Waiter::start("write to a full pipe", move || sys::write_byte(&writer, b'w')),
        Waiter::start("send to a full socket", move || sys::send_byte(&sender, b's')),
        Waiter::start("recv", move || sys::receive(&empty)),
    ];
    let message = Waiter::start("msgsnd to a full queue", move || sys::send_message_of_8(full, 0));
    let suspended = Waiter::start("sigsuspend", sys::sigsuspend);
    let timed = thread::spawn(move || {
        WAITING.fetch_add(1, Ordering::SeqCst);
        timed_waitv(stage, clock);
    });
    while WAITING.load(Ordering::SeqCst) < 12 {
        thread::yield_now();
    }
    thread::sleep(BEFORE);

    stage.across()?;

    let everybody = waiters.iter().chain(&bytes).chain([&message, &suspended]);
    // The child that two of them wait for ends by itself.
    for waiter in everybody.filter(|waiter| !waiter.name.starts_with("waitid")) {
        stage.holds(&format!("{} goes on", waiter.name), !waiter.thread.is_finished());
    }
    stage.same("signals before one was sent", &0, &SUSPENDED.load(Ordering::SeqCst));
    // One is enough: the call has set its mask when a signal finds the thread.
    stage.works(
        "waking sigsuspend",
        sys::signal_thread(suspended.thread.as_pthread_t(), libc::SIGUSR1),
    );
    suspended.ends_with(stage, i64::from(-libc::EINTR));
    stage.same("signals", &1, &SUSPENDED.load(Ordering::SeqCst));

    sys::flock(&whole, libc::LOCK_UN)?;
    sys::record_lock(&ranges, libc::F_SETLK, libc::F_UNLCK, 0, 0)?;
    sys::record_lock(&described, libc::F_OFD_SETLK, libc::F_UNLCK, 0, 0)?;
    WORDS[1].store(1, Ordering::SeqCst);
    stage.same("waiters of futex_waitv", &Some(1), &sys::futex_wake_private(&WORDS[1], 1).ok());
    sys::semop_raise(semaphore)?;
    // The second of two words has woken it.
    for (waiter, expected) in waiters.into_iter().zip([0, 0, 0, 0, 1, 0]) {
        waiter.ends_with(stage, expected);
    }
    File::from(teller).write_all(b"r")?;
    stage.same("last byte of the pipe", &Some(b'w'), &last_byte(&mut drain, pipe)?);
    stage.same("last byte of the socket", &Some(b's'), &last_byte(&mut far, near)?);
    for waiter in bytes {
        waiter.ends_with(stage, 1);
    }
    sys::take_message_of_8(full)?;
    message.ends_with(stage, 0);
    stage.holds("timed waiter ends", timed.join().is_ok());

    let mut ends = [sys::wait4(-1).1, sys::wait4(-1).1];
    ends.sort_unstable();
    stage.same("how the children ended", &[0, 5 << 8], &ends);
    for (name, child) in [("warden", warden), ("petitioner", petitioner)] {
        let (mut said, mut text) = (child.said, String::new());
        said.read_to_string(&mut text)?;
        for line in text.lines() {
            stage.differs(format!("{name}: {line}"));
        }
    }
    sys::remove_semaphore(semaphore)?;
    sys::remove_messages(full)
}

static WORDS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];

/// A child, and where it says what differs.
struct Child {
    pid: i32,
    said: File,
}

/// Forks a child that does `role`, and returns once that has said that it is about to wait.
fn child(
    stage: &'static Stage,
    role: fn(&'static Stage, &mut File) -> io::Result<i32>,
) -> io::Result<Child> {
    let (mut said, mut line) = sys::pipe(0)?;
    let Some(pid) = sys::fork()? else {
        drop(said);
        let code = stage.works("going on", role(stage, &mut line)).unwrap_or(1);
        for difference in stage.differences() {
            let _ = writeln!(line, "{difference}");
        }
        sys::exit(code)
    };
    drop(line);
    said.read_exact(&mut [0])?;
    Ok(Child { pid, said })
}

/// Waits for a child of its own; for any, because ids may be other ones (`docs/threads.md`, "Ids").
fn warden(stage: &'static Stage, line: &mut File) -> io::Result<i32> {
    let Some(_) = sys::fork()? else {
        let waited = stage.wait_for_go();
        sys::exit(if waited.is_ok() { 4 } else { 1 })
    };
    line.write_all(b".")?;
    let (answer, status) = sys::wait4(-1);
    stage.holds("wait4 gives a child", answer.result > 0);
    stage.holds("registers after wait4", answer.registers_kept);
    stage.same("how the inmate ended", &(4 << 8), &status);
    Ok(5)
}

/// Waits for a range that its parent has locked.
fn petitioner(stage: &'static Stage, line: &mut File) -> io::Result<i32> {
    let file = File::options().read(true).write(true).open(stage.path("posix"))?;
    line.write_all(b".")?;
    let answer = sys::record_lock_waiting(&file, libc::F_SETLKW, 15, 10);
    stage.same("F_SETLKW", &0, &answer.result);
    stage.holds("registers after F_SETLKW", answer.registers_kept);
    Ok(0)
}

/// A pipe without room: the ends for reading and for writing.
fn full_pipe() -> io::Result<(File, File)> {
    let (drain, pipe) = sys::pipe(libc::O_NONBLOCK)?;
    let pipe = filled(pipe)?;
    sys::fcntl(&drain, libc::F_SETFL, 0)?;
    Ok((drain, pipe))
}

/// A connection without room: the far end and the near. Of messages, because how much room a stream takes
/// depends on how it was written, too, and a copy's may be less.
fn full_socket() -> io::Result<(File, File)> {
    let (far, near) = sys::socketpair(libc::SOCK_SEQPACKET)?;
    sys::fcntl(&near, libc::F_SETFL, libc::O_NONBLOCK)?;
    Ok((File::from(far), filled(File::from(near))?))
}

/// Writes as much as fits, and lets it wait from then on.
fn filled(mut file: File) -> io::Result<File> {
    loop {
        match file.write(&[b'.'; 4096]) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    sys::fcntl(&file, libc::F_SETFL, 0)?;
    Ok(file)
}

/// The last byte that comes out of `from`, once nobody has an end to write to any more.
fn last_byte(from: &mut File, to: File) -> io::Result<Option<u8>> {
    drop(to);
    let (mut bytes, mut last) = ([0; 4096], None);
    loop {
        match from.read(&mut bytes)? {
            0 => return Ok(last),
            some => last = Some(bytes[some - 1]),
        }
    }
}

/// futex_waitv(2) with a point in time, which nobody wakes.
fn timed_waitv(stage: &Stage, clock: &RunningClock) {
    let words = [const { AtomicU32::new(0) }; 2];
    let deadline = sys::monotonic() + WAIT;
    until(stage, clock, "futex_waitv with a deadline", deadline, || {
        sys::futex_waitv([&words[0], &words[1]], Some(deadline))
    });
}

/// Makes a call that times out at `deadline`, a point of CLOCK_MONOTONIC.
pub(crate) fn until(
    stage: &Stage,
    clock: &RunningClock,
    name: &str,
    deadline: Duration,
    call: impl FnOnce() -> Answer,
) {
    let start = clock.now();
    let answer = call();
    let waited = clock.now().saturating_sub(start);
    say(&format!("{name} took {waited:?} of running time"));
    stage.same(name, &i64::from(-libc::ETIMEDOUT), &answer.result);
    stage.holds(&format!("registers after {name}"), answer.registers_kept);
    stage.holds(&format!("{name} has reached its deadline"), sys::monotonic() >= deadline);
    // A clock that jumps takes deadlines along.
    let jumps = stage.promised(Promise::Restored) && !stage.promised(Promise::ContinuousClock);
    let least = if jumps { Duration::ZERO } else { WAIT.saturating_sub(EARLY) };
    stage.within(name, &waited, least..=WAIT + LATE);
}
