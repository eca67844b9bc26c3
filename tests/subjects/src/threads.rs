//! Many threads: their local storage, their stacks, and what they return.

use crate::pattern;
use crate::stage::Stage;
use crate::sys;
use crate::thread::{self, JoinHandle};
use std::cell::{Cell, RefCell};
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

thread_local! {
    static NUMBER: Cell<u64> = const { Cell::new(0) };
    static TABLE: RefCell<[u64; 512]> = const { RefCell::new([0; 512]) };
}

/// Thread-local storage in forty threads, read through fs as compilers do.
pub(crate) fn memory_tls(stage: &'static Stage) -> io::Result<()> {
    static READY: AtomicU32 = AtomicU32::new(0);
    const THREADS: u64 = 40;
    let threads: Vec<JoinHandle<()>> = (0..THREADS)
        .map(|number| {
            thread::spawn(move || {
                NUMBER.set(pattern::word(50, number));
                TABLE.with_borrow_mut(|table| pattern::fill(table, number));
                READY.fetch_add(1, Ordering::SeqCst);
                while !stage.is_over() {
                    // Half of the threads stand in the kernel, half in user code.
                    if number % 2 == 0 {
                        thread::sleep(Duration::from_millis(20));
                    } else {
                        thread::yield_now();
                    }
                }
                stage.same("thread-local number", &pattern::word(50, number), &NUMBER.get());
                TABLE.with_borrow(|table| {
                    let difference = pattern::first_difference(table, number);
                    stage.same("thread-local table", &None, &difference);
                });
            })
        })
        .collect();
    while READY.load(Ordering::SeqCst) < 40 {
        thread::yield_now();
    }
    NUMBER.set(51);
    stage.across()?;
    stage.same("thread-local number of main", &51, &NUMBER.get());
    for thread in threads {
        stage.holds("thread could be joined", thread.join().is_ok());
    }
    Ok(())
}

/// Two hundred threads, waiting in several ways; each gives back what it was given, and new ones
/// can be made.
pub(crate) fn threads_200(stage: &'static Stage) -> io::Result<()> {
    many_threads(stage, 200)
}

/// The same with a thousand.
pub(crate) fn threads_1000(stage: &'static Stage) -> io::Result<()> {
    many_threads(stage, 1000)
}

fn many_threads(stage: &'static Stage, count: u32) -> io::Result<()> {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let ready = Arc::new(AtomicU32::new(0));
    let threads: Vec<JoinHandle<u64>> = (0..u64::from(count))
        .map(|number| {
            let (gate, ready) = (Arc::clone(&gate), Arc::clone(&ready));
            let named = thread::Builder::new().name(format!("worker-{number}"));
            named.spawn(move || {
                let mut sum = pattern::word(60, number);
                ready.fetch_add(1, Ordering::SeqCst);
                match number % 4 {
                    0 => {
                        let (open, changed) = &*gate;
                        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
                        while !*open {
                            open = changed.wait(open).unwrap_or_else(PoisonError::into_inner);
                        }
                    }
                    1 => {
                        while !stage.is_over() {
                            thread::sleep(Duration::from_millis(30));
                        }
                    }
                    2 => {
                        while !stage.is_over() {
                            thread::park_timeout(Duration::from_secs(100));
                        }
                    }
                    _ => {
                        while !stage.is_over() {
                            sum = sum.rotate_left(1).wrapping_add(1);
                            sum = sum.wrapping_sub(1).rotate_right(1);
                            thread::sleep(Duration::from_millis(10));
                        }
                    }
                }
                sum
            })
        })
        .collect::<io::Result<_>>()?;
    while ready.load(Ordering::SeqCst) < count {
        thread::yield_now();
    }
    stage.across()?;
    *gate.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    gate.1.notify_all();
    for thread in &threads {
        thread.thread().unpark();
    }
    for (number, thread) in (0..).zip(threads) {
        let name = thread.thread().name().map(str::to_owned);
        stage.same("name", &Some(format!("worker-{number}")), &name);
        let found = thread.join().map_err(|_| io::Error::other("a thread panicked"))?;
        stage.same("what a thread returned", &pattern::word(60, number), &found);
    }
    new_threads_work(stage);
    Ok(())
}

/// Threads made after the restore have an own id and can signal, wait and be joined.
pub(crate) fn new_threads_work(stage: &'static Stage) {
    static SUM: AtomicU64 = AtomicU64::new(0);
    let before = SUM.load(Ordering::SeqCst);
    let threads: Vec<_> = (1..=8_u64)
        .map(|n| {
            thread::spawn(move || {
                SUM.fetch_add(n, Ordering::SeqCst);
                sys::gettid()
            })
        })
        .collect();
    let mut ids: Vec<i32> = threads.into_iter().filter_map(|t| t.join().ok()).collect();
    stage.same("new threads that could be joined", &8, &ids.len());
    stage.same("sum of the new threads", &(before + 36), &SUM.load(Ordering::SeqCst));
    stage.holds("new threads are not the main one", !ids.contains(&sys::gettid()));
    ids.clear();
}
