//! Threads that have the memory they need before they are looked at.
//!
//! In: what a thread is to do. Out: a running thread.
//! Invariant: once `spawn` returns, no thread comes to an arena of malloc by itself any more. The
//! mappings of a subject are compared before and after its checkpoint, and an arena is made in steps
//! at a thread's first allocation (malloc(3), NOTES).
//! Not here: what threads do.

use std::hint::black_box;
use std::sync::mpsc::sync_channel;
pub(crate) use std::thread::{Builder, JoinHandle, park, park_timeout, sleep, yield_now};

/// Starts a thread, and returns when it is about to `work`.
pub(crate) fn spawn<T, F>(work: F) -> JoinHandle<T>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let (begun, first) = sync_channel(1);
    let thread = std::thread::spawn(move || {
        drop(black_box(Vec::<u64>::with_capacity(64)));
        let _ = begun.send(());
        drop(begun);
        work()
    });
    // An error means that it ended already, which its `join` tells.
    let _ = first.recv();
    thread
}
