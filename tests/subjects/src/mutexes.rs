//! Mutexes in which the id of their owner stands, held across the checkpoint.
//!
//! Invariant: only with the same ids can they be what they were; with new ones the owner is a thread that
//! there is not (`docs/threads.md`).

use crate::stage::{Stage, say};
use crate::thread;
use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

static WAITING: AtomicU32 = AtomicU32::new(0);

/// Recursive, error-checking, priority-inheriting and robust, all held by the main thread.
pub(crate) fn mutexes(stage: &'static Stage) -> io::Result<()> {
    let recursive = Mutex::new(|kind| kind.set_type(libc::PTHREAD_MUTEX_RECURSIVE))?;
    let checking = Mutex::new(|kind| kind.set_type(libc::PTHREAD_MUTEX_ERRORCHECK))?;
    let inheriting = Mutex::new(Attributes::inherit_priority)?;
    let robust = Mutex::new(Attributes::make_robust)?;
    let both = Mutex::new(|kind| kind.inherit_priority() | kind.make_robust())?;
    let all = [recursive, checking, inheriting, robust, both];
    for mutex in all {
        stage.same("locking", &0, &mutex.lock());
    }
    stage.same("locking again", &0, &recursive.lock());
    let waiters: Vec<_> = all
        .into_iter()
        .map(|mutex| {
            thread::spawn(move || {
                WAITING.fetch_add(1, Ordering::SeqCst);
                let result = mutex.lock();
                (result, mutex.unlock())
            })
        })
        .collect();
    while WAITING.load(Ordering::SeqCst) < 5 {
        thread::yield_now();
    }
    thread::sleep(Duration::from_millis(100));

    stage.across()?;

    stage.holds("nobody has got one", waiters.iter().all(|waiter| !waiter.is_finished()));
    stage.same("locking a third time", &0, &recursive.lock());
    stage.same("locking what checks for it", &libc::EDEADLK, &checking.lock());
    for _ in 0..2 {
        stage.same("unlocking what was locked again", &0, &recursive.unlock());
    }
    for (name, mutex) in
        ["recursive", "checking", "inheriting", "robust", "robust and inheriting"].iter().zip(all)
    {
        say(&format!("unlocking the {name} one"));
        stage.same(&format!("unlocking the {name} one"), &0, &mutex.unlock());
    }
    stage.same("unlocking what is not held", &libc::EPERM, &checking.unlock());
    for waiter in waiters {
        let results = waiter.join().map_err(|_| io::Error::other("a thread panicked"))?;
        stage.same("locking and unlocking by a waiter", &(0, 0), &results);
    }
    Ok(())
}

/// A pthread mutex that lives for ever.
#[derive(Clone, Copy)]
struct Mutex(&'static Shared);

struct Shared(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: being shared between threads is what a mutex is for.
unsafe impl Sync for Shared {}

struct Attributes(libc::pthread_mutexattr_t);

impl Attributes {
    fn set_type(&mut self, kind: i32) -> i32 {
        // SAFETY: the attributes are initialised.
        unsafe { libc::pthread_mutexattr_settype(&raw mut self.0, kind) }
    }

    fn inherit_priority(&mut self) -> i32 {
        // SAFETY: the attributes are initialised.
        unsafe { libc::pthread_mutexattr_setprotocol(&raw mut self.0, libc::PTHREAD_PRIO_INHERIT) }
    }

    fn make_robust(&mut self) -> i32 {
        // SAFETY: the attributes are initialised.
        unsafe { libc::pthread_mutexattr_setrobust(&raw mut self.0, libc::PTHREAD_MUTEX_ROBUST) }
    }
}

impl Mutex {
    fn new(set: impl FnOnce(&mut Attributes) -> i32) -> io::Result<Self> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: writes the attributes.
        unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) };
        // SAFETY: initialised above.
        let mut attributes = Attributes(unsafe { attributes.assume_init() });
        let error = set(&mut attributes);
        let shared = Shared(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));
        let shared: &'static Shared = Box::leak(Box::new(shared));
        // SAFETY: nobody else knows the mutex yet; the attributes are initialised.
        let also = unsafe { libc::pthread_mutex_init(shared.0.get(), &raw const attributes.0) };
        match error | also {
            0 => Ok(Self(shared)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// pthread_mutex_lock(3).
    fn lock(self) -> i32 {
        // SAFETY: the mutex never moves and is initialised.
        unsafe { libc::pthread_mutex_lock(self.0.0.get()) }
    }

    /// pthread_mutex_unlock(3).
    fn unlock(self) -> i32 {
        // SAFETY: the mutex never moves and is initialised.
        unsafe { libc::pthread_mutex_unlock(self.0.0.get()) }
    }
}
