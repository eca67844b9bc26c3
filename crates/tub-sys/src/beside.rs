//! Work for a second processor.
//!
//! In: two closures. Out: what each gave. Invariant: whatever happens, the thread has ended when the call
//! comes back, so that both may borrow.
//!
//! A scheduler may leave a new thread on the processor of the one that made it until it next looks for
//! load to share, which takes milliseconds: that of a virtual machine which is to use as few of its
//! host's processors as it can does so on purpose. What is over in a few milliseconds is then done one
//! after the other, so the thread is told to stay away from where the caller runs.

use std::io;
use std::mem;
use std::os::unix::thread::JoinHandleExt;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

/// Runs `beside` on a thread with that name, and `here` on the caller's, which is told where no thread
/// could be had.
pub fn beside<A: Send, B>(
    name: &str,
    beside: impl FnOnce() -> A + Send,
    here: impl FnOnce(Option<&io::Error>) -> B,
) -> (io::Result<A>, B) {
    let sent_away = Mutex::new(());
    let sending = sent_away.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        let _stays = Until(&sent_away);
        beside()
    };
    // SAFETY: the thread is joined below before anything it borrows ends, and by `Joined` where `here`
    // panics; nobody else gets the handle.
    let started = unsafe { Builder::new().name(name.to_owned()).spawn_unchecked(work) };
    match started {
        Err(error) => {
            let here = here(Some(&error));
            (Err(error), here)
        }
        Ok(thread) => {
            send_away(&thread);
            drop(sending);
            let joined = Joined(Some(thread));
            let here = here(None);
            (Ok(joined.join()), here)
        }
    }
}

/// Lets a thread run on any of our processors but this one, if there is any other.
fn send_away<T>(thread: &JoinHandle<T>) {
    let Ok(mut others) = crate::affinity(tub_units::HostPid(0)) else { return };
    let Some(here) = crate::processor() else { return };
    let Some(word) = others.get_mut(here as usize / 64) else { return };
    *word &= !(1 << (here % 64));
    if others.iter().all(|word| *word == 0) {
        return;
    }
    let mask = others.as_ptr().cast::<libc::cpu_set_t>();
    // It is only a hint: where it fails, the scheduler decides.
    // SAFETY: the handle's thread has not ended (`Until`); the C library reads as many bytes as it is told.
    unsafe {
        libc::pthread_setaffinity_np(thread.as_pthread_t(), mem::size_of_val(&*others), mask)
    };
}

/// Keeps a thread from ending, by panic or not, as long as somebody holds the lock. The C library would take the
/// id of one that has ended for 0, and so confine the caller (pthread_setaffinity_np of glibc 2.36 and musl 1.2.3).
struct Until<'a>(&'a Mutex<()>);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A thread that is waited for in any case.
struct Joined<A>(Option<JoinHandle<A>>);

impl<A> Joined<A> {
    fn join(mut self) -> A {
        let ended = self.0.take().map(JoinHandle::join);
        match ended {
            Some(Ok(result)) => result,
            Some(Err(panic)) => resume_unwind(panic),
            None => unreachable!("it is taken only here, and where this is dropped"),
        }
    }
}

impl<A> Drop for Joined<A> {
    fn drop(&mut self) {
        let _ = self.0.take().map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::sleep;
    use std::time::Duration;

    #[test]
    fn both_give_what_they_give_and_run_at_the_same_time() {
        let (one, other) = (AtomicBool::new(false), AtomicBool::new(false));
        let meet = |mine: &AtomicBool, theirs: &AtomicBool| {
            mine.store(true, Ordering::SeqCst);
            while !theirs.load(Ordering::SeqCst) {
                sleep(Duration::from_micros(10));
            }
            std::thread::current().name().map(str::to_owned)
        };
        let (beside, here) = beside(
            "at-side",
            || meet(&one, &other),
            |failed| {
                assert!(failed.is_none());
                meet(&other, &one)
            },
        );
        assert_eq!(beside.unwrap().as_deref(), Some("at-side"));
        assert_ne!(here.as_deref(), Some("at-side"));
    }

    #[test]
    fn the_thread_has_ended_before_a_panic_goes_on() {
        let ended = AtomicBool::new(false);
        let work = || {
            sleep(Duration::from_millis(50));
            ended.store(true, Ordering::SeqCst);
        };
        let caught = catch_unwind(AssertUnwindSafe(|| {
            beside("slow", work, |_| panic!("for the test"));
        }));
        assert!(caught.is_err());
        assert!(ended.load(Ordering::SeqCst));
        let caught = catch_unwind(|| beside("fails", || panic!("for the test"), |_| 7));
        assert!(caught.is_err());
    }

    #[test]
    fn one_that_is_done_at_once_confines_nobody() {
        let before = crate::affinity(tub_units::HostPid(0)).unwrap();
        for round in 0..2000 {
            let (done, _) = beside("at-once", || round, |_| ());
            assert_eq!(done.unwrap(), round);
            assert_eq!(crate::affinity(tub_units::HostPid(0)).unwrap(), before, "round {round}");
        }
    }

    /// As long as it has anything to do, it leaves the caller's processor to the caller.
    #[test]
    fn it_runs_on_another_processor_where_there_is_one() {
        let own = crate::affinity(tub_units::HostPid(0)).unwrap();
        let processors: u32 = own.iter().map(|word| word.count_ones()).sum();
        if processors < 2 {
            return println!("skipped: one processor");
        }
        let (theirs, ()) = beside(
            "elsewhere",
            || crate::affinity(tub_units::HostPid(0)),
            |_| {
                sleep(Duration::from_millis(20));
            },
        );
        // It may have asked before it was told, where it was elsewhere from the start.
        let theirs: u32 = theirs.unwrap().unwrap().iter().map(|word| word.count_ones()).sum();
        assert!(theirs == processors || theirs == processors - 1, "{theirs} of {processors}");
    }
}
