//! When each stage of a restore was reached.
//!
//! In: marks. Out: microseconds since the command started. Invariant: taking a mark is one clock
//! reading into a fixed array: nothing is formatted while the restore runs.

use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// Names and times of the stages so far.
#[derive(Clone, Debug)]
pub struct Stats {
    start: Instant,
    start_monotonic_ns: u64,
    marks: Vec<(&'static str, Duration)>,
}

impl Stats {
    /// Starts the clock.
    pub fn start() -> Self {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        Self {
            start: Instant::now(),
            start_monotonic_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
            marks: Vec::with_capacity(16),
        }
    }

    /// CLOCK_MONOTONIC when the clock was started, for those who read that clock before the command
    /// was executed.
    pub fn start_monotonic_ns(&self) -> u64 {
        self.start_monotonic_ns
    }

    /// Notes that a stage has been reached.
    pub fn mark(&mut self, stage: &'static str) {
        self.marks.push((stage, self.start.elapsed()));
    }

    /// The stages reached, with microseconds since the start.
    pub fn stages(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.marks
            .iter()
            .map(|(name, at)| (*name, u64::try_from(at.as_micros()).unwrap_or(u64::MAX)))
    }
}
