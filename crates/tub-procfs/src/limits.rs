//! Parses `/proc/PID/limits`.
//!
//! In: bytes. Out: a [`LimitRecord`] a line, by `RLIMIT_*` number.
//! Not here: `prlimit(2)`, which needs CAP_SYS_RESOURCE for another user's process; this file needs
//! nothing.

use crate::error::Result;
use crate::text::{Fields, lines, number};
use alloc::vec::Vec;

/// One resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitRecord {
    /// `RLIMIT_*` number.
    pub resource: u32,
    /// Soft limit; `u64::MAX` for none.
    pub soft: u64,
    /// Hard limit; `u64::MAX` for none.
    pub hard: u64,
}

/// Parses all of the file; a limit that is newer than this list is passed over.
///
/// # Errors
/// A limit that is missing or malformed.
pub fn parse(bytes: &[u8]) -> Result<Vec<LimitRecord>> {
    let mut records = Vec::with_capacity(NAMES.len());
    for (place, line) in lines("limits", bytes) {
        let known = NAMES
            .iter()
            .find_map(|&(name, resource)| Some((line.strip_prefix(name.as_bytes())?, resource)));
        let Some((rest, resource)) = known else { continue };
        let mut fields = Fields::new(place, rest);
        let mut limit = |field| {
            let text = fields.next(field)?;
            match text {
                b"unlimited" => Ok(u64::MAX),
                _ => number(text, 10).ok_or_else(|| place.malformed(field, text)),
            }
        };
        let (soft, hard) = (limit("soft limit")?, limit("hard limit")?);
        records.push(LimitRecord { resource, soft, hard });
    }
    records.sort_unstable_by_key(|record| record.resource);
    Ok(records)
}

/// KERNEL(since 2.6.35): `fs/proc/base.c`, `lnames`; numbers of `asm-generic/resource.h`.
const NAMES: [(&str, u32); 16] = [
    ("Max cpu time ", 0),
    ("Max file size ", 1),
    ("Max data size ", 2),
    ("Max stack size ", 3),
    ("Max core file size ", 4),
    ("Max resident set ", 5),
    ("Max processes ", 6),
    ("Max open files ", 7),
    ("Max locked memory ", 8),
    ("Max address space ", 9),
    ("Max file locks ", 10),
    ("Max pending signals ", 11),
    ("Max msgqueue size ", 12),
    ("Max nice priority ", 13),
    ("Max realtime priority ", 14),
    ("Max realtime timeout ", 15),
];

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: &[u8] = include_bytes!("../../../tests/fixtures/proc/6.18/subject/limits");

    #[test]
    fn all_sixteen_in_order_of_their_numbers() {
        let limits = parse(SUBJECT).unwrap();
        assert!(limits.iter().map(|limit| limit.resource).eq(0..16));
        assert_eq!(limits[0], LimitRecord { resource: 0, soft: u64::MAX, hard: u64::MAX });
        assert_eq!(limits[3], LimitRecord { resource: 3, soft: 8 << 20, hard: u64::MAX });
        assert_eq!(limits[7].soft, 20_000);
    }

    #[test]
    fn a_malformed_limit_is_refused() {
        assert!(parse(b"Max open files            many 5 files\n").is_err());
        assert!(parse(b"Max open files            5\n").is_err());
    }
}
