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
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use std::time::{Duration, Instant};
use tub_sys::Errno;

/// How long to wait where what we wait for may be hidden behind something else.
const PAUSE: Duration = Duration::from_micros(50);

/// Waits for the next thing that happens to `thread`; ESRCH if its process has been killed.
pub(crate) fn next_stop(frozen: &Frozen, thread: StoppedThread) -> Result<WaitStatus, Errno> {
    let tid = raw(thread.tid());
    let other = frozen.threads().last().filter(|other| other.tid() != thread.tid());
    let Some(other) = other.filter(|_| thread.tid() == frozen.pid()) else {
        return waitpid(tid, Some(WaitPidFlag::__WALL));
    };
    loop {
        match waitpid(tid, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG))? {
            WaitStatus::StillAlive => {}
            status => return Ok(status),
        }
        // Until anything happens to anybody, which stays to be waited for.
        let any = WaitPidFlag::__WALL
            | WaitPidFlag::WEXITED
            | WaitPidFlag::WSTOPPED
            | WaitPidFlag::WNOWAIT;
        let about = waitid(Id::All, any).ok().and_then(|status| status.pid());
        if about == Some(tid) {
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
    let flags =
        WaitPidFlag::__WALL | WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let status = waitid(Id::Pid(raw(thread.tid())), flags);
    matches!(status, Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(Errno::ECHILD))
}

/// Asks about each of `threads` again and again until it is `settled` or the time is over, and gives
/// those that are not. In turns: the main one's end is told only after that of all others.
pub(crate) fn settle(
    mut threads: Vec<StoppedThread>,
    time: Duration,
    settled: impl Fn(WaitStatus, StoppedThread) -> bool,
) -> Vec<StoppedThread> {
    let deadline = Instant::now() + time;
    let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
    loop {
        threads.retain(|thread| match waitpid(raw(thread.tid()), Some(flags)) {
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..))
            | Err(Errno::ECHILD | Errno::ESRCH) => false,
            Ok(status) => !settled(status, *thread),
            Err(_) => true,
        });
        if threads.is_empty() || Instant::now() > deadline {
            return threads;
        }
        std::thread::sleep(PAUSE);
    }
}
