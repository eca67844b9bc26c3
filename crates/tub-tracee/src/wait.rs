//! Waiting for one thread of a held process, whose end must not be waited for in vain.
//!
//! In: a thread. Out: its next stop, or that its process has been killed.
//! Invariant: a process that is killed while it is held ends the wait.
//!
//! KERNEL: the end of a main thread is told only when all other threads have been reaped
//! (delay_group_leader, kernel/exit.c), and those of a held process only its tracer can reap. Whoever
//! merely waits for the main one waits for himself.

use crate::freeze::raw;
use crate::{Frozen, StoppedThread};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use std::time::{Duration, Instant};
use tub_sys::{Errno, TraceeChange, tracee_has_ended, wait_for_tracee};

/// How long to wait where what we wait for may be hidden behind something else.
const PAUSE: Duration = Duration::from_micros(50);

/// Waits for the next thing that happens to `thread`; ESRCH if its process has been killed.
pub(crate) fn next_stop(frozen: &Frozen, thread: StoppedThread) -> Result<TraceeChange, Errno> {
    let tid = thread.tid();
    let other = frozen.threads().last().filter(|other| other.tid() != tid);
    let Some(other) = other.filter(|_| tid == frozen.pid()) else {
        return Ok(wait_for_tracee(tid, 0)?.unwrap_or(TraceeChange::Other));
    };
    loop {
        if let Some(change) = wait_for_tracee(tid, libc::WNOHANG)? {
            return Ok(change);
        }
        // Until anything happens to anybody, which stays to be waited for.
        let any = WaitPidFlag::__WALL
            | WaitPidFlag::WEXITED
            | WaitPidFlag::WSTOPPED
            | WaitPidFlag::WNOWAIT;
        let about = waitid(Id::All, any).ok().and_then(|status| status.pid());
        if about == Some(raw(tid)) {
            continue;
        }
        // Whoever kills a process kills all of its threads.
        if has_died(*other) {
            return Err(Errno::ESRCH);
        }
        // A child of this program's that nobody reaps would be named again and again.
        std::thread::sleep(PAUSE);
    }
}

/// Whether a thread that was stopped is dead. It is left to be reaped.
pub(crate) fn has_died(thread: StoppedThread) -> bool {
    matches!(tracee_has_ended(thread.tid()), Ok(true) | Err(Errno::ECHILD))
}

/// Asks about each of `threads` again and again until it is `settled` or the time is over, and gives
/// those that are not. In turns: the main one's end is told only after that of all others.
pub(crate) fn settle(
    mut threads: Vec<StoppedThread>,
    time: Duration,
    settled: impl Fn(TraceeChange, StoppedThread) -> bool,
) -> Vec<StoppedThread> {
    let deadline = Instant::now() + time;
    loop {
        threads.retain(|thread| match wait_for_tracee(thread.tid(), libc::WNOHANG) {
            Ok(Some(TraceeChange::Ended(_))) | Err(Errno::ECHILD | Errno::ESRCH) => false,
            Ok(Some(change)) => !settled(change, *thread),
            Ok(None) | Err(_) => true,
        });
        if threads.is_empty() || Instant::now() > deadline {
            return threads;
        }
        std::thread::sleep(PAUSE);
    }
}
