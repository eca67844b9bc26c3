//! Parses `/proc/PID/smaps_rollup`: what all mappings of a process take together.
//!
//! In: bytes. Out: [`RollupRecord`]. Lines that it does not know are passed over.

use crate::error::{Place, Result};
use crate::text::{Fields, lines};

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RollupRecord {
    /// All that is mapped.
    pub rss_bytes: u64,
    /// The same, with what is shared divided by the number of those who share it.
    pub pss_bytes: u64,
    /// What is no page of a file.
    pub anonymous_bytes: u64,
}

/// Parses all of the file.
///
/// # Errors
/// A number that is missing or malformed.
pub fn parse(bytes: &[u8]) -> Result<RollupRecord> {
    let (mut rss, mut pss, mut anonymous) = (None, None, None);
    for (place, line) in lines("smaps_rollup", bytes) {
        let mut fields = Fields::new(place, line);
        let (number, field) = match fields.next("name")? {
            b"Rss:" => (&mut rss, "Rss"),
            b"Pss:" => (&mut pss, "Pss"),
            b"Anonymous:" => (&mut anonymous, "Anonymous"),
            _ => continue,
        };
        let kib: u64 = fields.number(10, field)?;
        *number = Some(kib.checked_mul(1024).ok_or_else(|| place.malformed(field, line))?);
    }
    let missing = |field| Place::file("smaps_rollup").missing(field);
    Ok(RollupRecord {
        rss_bytes: rss.ok_or_else(|| missing("Rss"))?,
        pss_bytes: pss.ok_or_else(|| missing("Pss"))?,
        anonymous_bytes: anonymous.ok_or_else(|| missing("Anonymous"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    const REAL: &[u8] = include_bytes!("../../../tests/fixtures/proc/6.18/smaps_rollup");

    #[test]
    fn a_real_file() {
        let kib = |kib: u64| kib * 1024;
        let expected =
            RollupRecord { rss_bytes: kib(2116), pss_bytes: kib(412), anonymous_bytes: kib(156) };
        assert_eq!(parse(REAL), Ok(expected));
    }

    #[test]
    fn what_is_missing_or_too_large_is_named() {
        let error = parse(b"Rss: 1 kB\nPss: 1 kB\n").unwrap_err().to_string();
        assert_eq!(error, "/proc file smaps_rollup: Anonymous is missing");
        assert!(parse(b"Rss: 18446744073709551615 kB\n").is_err());
    }
}
