//! A busy program with state that would show a single lost or doubled step; it also tells the
//! outside how far it is, so that a test can see whether it goes on.

use crate::pattern;
use crate::stage::{Stage, say};
use crate::thread::{self, JoinHandle};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A step count and the digest of all steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chain {
    steps: u64,
    digest: u64,
}

impl Chain {
    const fn new(seed: u64) -> Self {
        Self { steps: 0, digest: seed }
    }

    const fn step(&mut self) {
        self.steps += 1;
        self.digest = pattern::word(self.digest, self.steps);
    }

    fn replay(seed: u64, steps: u64) -> Self {
        let mut chain = Self::new(seed);
        (0..steps).for_each(|_| chain.step());
        chain
    }
}

/// So many steps are made without a pause, and few of them afterwards: all are made once more in the
/// end, for which one who has endured a sweep of faults for minutes, on a machine that is busy with
/// others, has a minute.
const BUSY_STEPS: u64 = 20_000_000;

/// Four threads count, each in its own way; a fifth prints `count N` every few milliseconds.
pub(crate) fn counter(stage: &'static Stage) -> io::Result<()> {
    static SHARED: Mutex<Chain> = Mutex::new(Chain::new(3));
    let count = |seed: u64, pause: Option<Duration>| {
        thread::spawn(move || {
            let mut chain = Chain::new(seed);
            while !stage.is_over() {
                match pause {
                    None if chain.steps < BUSY_STEPS => {
                        (0..50).for_each(|_| chain.step());
                        thread::yield_now();
                    }
                    _ => {
                        chain.step();
                        thread::sleep(pause.unwrap_or(Duration::from_micros(500)));
                    }
                }
            }
            (seed, chain)
        })
    };
    let alone = [count(1, None), count(2, Some(Duration::from_micros(200)))];
    let together: [JoinHandle<()>; 2] = std::array::from_fn(|_| {
        thread::spawn(move || {
            while !stage.is_over() {
                SHARED.lock().unwrap_or_else(PoisonError::into_inner).step();
                thread::sleep(Duration::from_micros(500));
            }
        })
    });
    let heart = heartbeat(stage);
    stage.across()?;
    for thread in alone {
        let (seed, chain) = thread.join().map_err(|_| io::Error::other("a counter panicked"))?;
        stage.same("chain of a thread", &Chain::replay(seed, chain.steps), &chain);
    }
    for thread in together {
        stage.holds("thread could be joined", thread.join().is_ok());
    }
    stage.holds("heartbeat could be joined", heart.join().is_ok());
    let shared = *SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    stage.same("shared chain", &Chain::replay(3, shared.steps), &shared);
    Ok(())
}

/// Prints `count N`, N growing by one, every ten milliseconds.
pub(crate) fn heartbeat(stage: &'static Stage) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut beats = 0_u64;
        while !stage.is_over() {
            beats += 1;
            say(&format!("count {beats}"));
            thread::sleep(Duration::from_millis(10));
        }
    })
}
