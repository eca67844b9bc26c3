//! What `demo` and `bench` share: one way to start something, to measure it, and to count.
//!
//! In: command lines. Out: times, memory.
//! Invariant: whoever measures, measures with the same prober and the same clock.
//! Not here: what is measured, and what is made of the numbers.

mod host;
mod instance;
mod prober;
mod stage;

pub(crate) use host::warm_memory;
pub(crate) use instance::{Memory, Restore, disk_bytes, minor_faults};
pub(crate) use prober::{FirstAnswer, Load, Manner, Parked, Prober, Question, Standby};
pub(crate) use stage::{Scratch, Stage, remove_leftovers};

use std::fs;

/// The value below which `percent` of the samples lie (nearest rank); `None` without samples.
pub(crate) fn percentile(samples: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// Three decimals: more would be noise.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Kernel and processors, without which a time means little.
pub(crate) fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    format!("Linux {}, {processors} processors", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        assert_eq!(percentile(&samples, 50), Some(5.0));
        assert_eq!(percentile(&samples, 90), Some(9.0));
        assert_eq!(percentile(&samples, 100), Some(10.0));
        assert_eq!(percentile(&[7.0], 50), Some(7.0));
        assert_eq!(percentile(&[], 50), None);
    }
}
