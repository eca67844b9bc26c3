//! Where the clocks of a time namespace stand.
//!
//! In: what the image says of its clocks, and now. Out: the offsets that make them go on from there.
//! Invariant: they are counted when they are asked for, as late as can be.

use super::LaunchError;
use crate::plan::{CLOCKS_BYTES, ClockPlan};
use std::fs;
use std::time::Duration;

/// The offsets of the time namespace that our children will be in.
pub(super) const OFFSETS: &str = "/proc/self/timens_offsets";

/// Values of the two clocks that a time namespace has, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    monotonic: i128,
    boottime: i128,
}

/// Clocks that are to go on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    saved: Pair,
    /// What our own clocks are off by, from the initial namespace's.
    own: Pair,
}

impl Clocks {
    /// Those of `plan`, if they go on.
    ///
    /// # Errors
    ///
    /// Our own offsets cannot be read.
    pub(super) fn of(plan: ClockPlan) -> Result<Option<Self>, LaunchError> {
        let ClockPlan::Continue { monotonic_ns, boottime_ns } = plan else { return Ok(None) };
        // The new namespace starts as a copy of ours, and offsets count from the initial one
        // (time_namespaces(7)); so what it holds now is what our own clocks are off by.
        let own = fs::read_to_string(OFFSETS).map_err(failed)?;
        let own = |name: &str| -> i128 {
            own.lines()
                .find_map(|line| {
                    let mut fields = line.split_whitespace();
                    (fields.next()? == name).then_some(())?;
                    let seconds: i128 = fields.next()?.parse().ok()?;
                    let nanoseconds: i128 = fields.next()?.parse().ok()?;
                    Some(seconds * SECOND + nanoseconds)
                })
                .unwrap_or(0)
        };
        Ok(Some(Self {
            saved: Pair { monotonic: monotonic_ns.into(), boottime: boottime_ns.into() },
            own: Pair { monotonic: own("monotonic"), boottime: own("boottime") },
        }))
    }

    /// The offsets with which they go on now, as `/proc/self/timens_offsets` takes them.
    pub(super) fn offsets(self) -> [u8; CLOCKS_BYTES] {
        let Self { saved, own } = self;
        let (monotonic, boottime) = (now(libc::CLOCK_MONOTONIC), now(libc::CLOCK_BOOTTIME));
        lines(Pair {
            monotonic: saved.monotonic - monotonic + own.monotonic,
            boottime: saved.boottime - boottime + own.boottime,
        })
    }

    /// Sets those of the time namespace that our children will be in.
    pub(super) fn set(self) -> Result<(), LaunchError> {
        fs::write(OFFSETS, self.offsets()).map_err(failed)
    }
}

const SECOND: i128 = 1_000_000_000;

fn failed(source: std::io::Error) -> LaunchError {
    LaunchError::Proc { path: OFFSETS.to_owned(), source }
}

/// Two lines, always of the same length: whoever waits for them has room for no more.
fn lines(offsets: Pair) -> [u8; CLOCKS_BYTES] {
    let line = |name: &str, offset: i128| {
        format!("{name} {:>20} {:>9}\n", offset.div_euclid(SECOND), offset.rem_euclid(SECOND))
    };
    let text = line("monotonic", offsets.monotonic) + &line("boottime", offsets.boottime);
    text.into_bytes().try_into().expect("seconds of an i64 have at most 20 characters")
}

fn now(clock: libc::clockid_t) -> i128 {
    let now = nix::time::clock_gettime(nix::time::ClockId::from_raw(clock));
    now.map_or(Duration::ZERO, Into::into).as_nanos().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_have_one_length_and_round_towards_the_past() {
        let text = |monotonic, boottime| {
            String::from_utf8(lines(Pair { monotonic, boottime }).to_vec()).unwrap()
        };
        let expected =
            "monotonic                   -2 999999999\nboottime                    0         1\n";
        assert_eq!(text(-1 - SECOND, 1), expected);
        let most = i128::from(i64::MIN) * SECOND;
        assert!(
            text(most, -most - SECOND).starts_with("monotonic -9223372036854775808         0\n")
        );
    }
}
