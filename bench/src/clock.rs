//! CLOCK_MONOTONIC in nanoseconds.
//!
//! In: nothing. Out: absolute readings.
//! Invariant: readings of different probers can be compared, which `std::time::Instant` hides.

use nix::time::{ClockId, clock_gettime};

/// The clock now, in nanoseconds since an arbitrary but common point.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .expect("CLOCK_MONOTONIC exists on every Linux kernel");
    let seconds = u64::try_from(now.tv_sec()).expect("CLOCK_MONOTONIC never is negative");
    let nanoseconds = u64::try_from(now.tv_nsec()).expect("nanoseconds are never negative");
    seconds * 1_000_000_000 + nanoseconds
}

/// The difference of two readings in milliseconds, for people.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "2^53 ns are 104 days; the result is for people")]
pub fn milliseconds(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 / 1e6
}
