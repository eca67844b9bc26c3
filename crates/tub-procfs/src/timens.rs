//! Parses `/proc/PID/timens_offsets`.
//!
//! In: bytes. Out: what the process's time namespace adds to the host's clocks.

use crate::error::{Place, Result};
use crate::text::{Fields, lines};

/// Offsets in nanoseconds, to be added to the host's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimensOffsets {
    /// Of CLOCK_MONOTONIC.
    pub monotonic_ns: i64,
    /// Of CLOCK_BOOTTIME.
    pub boottime_ns: i64,
}

/// Parses all of the file.
///
/// # Errors
/// An offset that is missing, malformed, or beyond 292 years (the kernel refuses such ones).
pub fn parse_offsets(bytes: &[u8]) -> Result<TimensOffsets> {
    let (mut monotonic, mut boottime) = (None, None);
    for (place, line) in lines("timens_offsets", bytes) {
        let mut fields = Fields::new(place, line);
        let clock = fields.next("clock")?;
        let seconds: i64 = fields.number(10, "seconds")?;
        let nanos: i64 = fields.number(10, "nanoseconds")?;
        let offset = seconds.checked_mul(1_000_000_000).and_then(|ns| ns.checked_add(nanos));
        let offset = offset.ok_or_else(|| place.malformed("seconds", line))?;
        match clock {
            b"monotonic" => monotonic = Some(offset),
            b"boottime" => boottime = Some(offset),
            _ => return Err(place.malformed("clock", clock)),
        }
    }
    let missing = |clock| Place::file("timens_offsets").missing(clock);
    Ok(TimensOffsets {
        monotonic_ns: monotonic.ok_or_else(|| missing("monotonic"))?,
        boottime_ns: boottime.ok_or_else(|| missing("boottime"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initial_namespace_adds_nothing() {
        let zero = include_bytes!("../../../tests/fixtures/proc/6.18/jvm/timens_offsets");
        assert_eq!(parse_offsets(zero).unwrap(), TimensOffsets::default());
    }

    #[test]
    fn a_negative_offset_has_positive_nanoseconds() {
        let text = b"monotonic         -10 500000000\nboottime        86400         1\n";
        let offsets = parse_offsets(text).unwrap();
        assert_eq!(offsets.monotonic_ns, -9_500_000_000);
        assert_eq!(offsets.boottime_ns, 86_400_000_000_001);
        assert!(parse_offsets(b"monotonic 9223372036854775807 0\nboottime 0 0\n").is_err());
        assert!(parse_offsets(b"monotonic 0 0\n").is_err());
    }
}
