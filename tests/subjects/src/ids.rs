//! Process and thread ids: the same where promised, and working where they are new.

use crate::stage::{Promise, Stage};
use crate::sys;
use crate::thread;
use crate::threads::new_threads_work;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

/// The thread that the last SIGUSR1 was delivered to.
static DELIVERED_TO: AtomicI32 = AtomicI32::new(0);

static STARTED: AtomicU32 = AtomicU32::new(0);

extern "C" fn note(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    DELIVERED_TO.store(sys::gettid(), Ordering::SeqCst);
}

/// getpid, gettid, /proc/self, and what libc keeps of ids: raise, pthread_kill, join.
pub(crate) fn ids(stage: &'static Stage) -> io::Result<()> {
    static LOCK: Mutex<u32> = Mutex::new(0);
    const THREADS: u32 = 6;
    sys::handle(libc::SIGUSR1, note, libc::SA_RESTART, &[])?;
    let pid = std::process::id();
    let tids = Mutex::new(BTreeSet::from([sys::gettid()]));
    let tids: &'static Mutex<_> = Box::leak(Box::new(tids));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            thread::spawn(move || {
                let before = sys::gettid();
                tids.lock().unwrap_or_else(PoisonError::into_inner).insert(before);
                STARTED.fetch_add(1, Ordering::SeqCst);
                while !stage.is_over() {
                    thread::sleep(Duration::from_millis(5));
                }
                if stage.promised(Promise::SameIds) {
                    stage.same("thread id", &before, &sys::gettid());
                }
                *LOCK.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                // Stays until it has been signalled, so that its pthread_t is good.
                while STARTED.load(Ordering::SeqCst) < 2 * THREADS {
                    thread::sleep(Duration::from_millis(5));
                }
                sys::gettid()
            })
        })
        .collect();
    while STARTED.load(Ordering::SeqCst) < THREADS {
        thread::yield_now();
    }
    let before = tids.lock().unwrap_or_else(PoisonError::into_inner).clone();

    stage.across()?;

    let now = threads_of_this_process()?;
    stage.same("number of threads", &before.len(), &now.len());
    if stage.promised(Promise::SameIds) {
        stage.same("process id", &pid, &std::process::id());
        stage.same("thread ids", &before, &now);
    }
    let link = fs::read_link("/proc/self")?;
    stage.same("/proc/self", &std::process::id().to_string(), &link.to_string_lossy().into_owned());
    stage.same("id of the main thread", &sys::gettid().cast_unsigned(), &std::process::id());

    // raise(3) and pthread_kill(3) use ids that libc keeps; wrong ones hit nobody or a stranger.
    sys::raise(libc::SIGUSR1)?;
    stage.same("raise reaches this thread", &sys::gettid(), &DELIVERED_TO.load(Ordering::SeqCst));
    let mut reached = BTreeSet::new();
    for thread in &threads {
        DELIVERED_TO.store(0, Ordering::SeqCst);
        stage.works("pthread_kill", sys::signal_thread(thread.as_pthread_t(), libc::SIGUSR1));
        for _ in 0..400 {
            if DELIVERED_TO.load(Ordering::SeqCst) != 0 {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        reached.insert(DELIVERED_TO.load(Ordering::SeqCst));
        STARTED.fetch_add(1, Ordering::SeqCst);
    }
    let mut own = BTreeSet::new();
    for thread in threads {
        own.insert(thread.join().map_err(|_| io::Error::other("a thread panicked"))?);
    }
    stage.same("threads that pthread_kill reached", &own, &reached);
    stage.same("ids in /proc/self/task", &now.len(), &(own.len() + 1));
    let counted = *LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    stage.same("count under a mutex", &THREADS, &counted);
    new_threads_work(stage);
    Ok(())
}

fn threads_of_this_process() -> io::Result<BTreeSet<i32>> {
    fs::read_dir("/proc/self/task")?
        .map(|entry| {
            let name = entry?.file_name();
            name.to_string_lossy().parse().map_err(io::Error::other)
        })
        .collect()
}
