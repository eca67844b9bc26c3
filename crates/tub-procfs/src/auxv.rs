//! Parses `/proc/PID/auxv`: the auxiliary vector of a 64-bit process.
//!
//! In: bytes. Out: its entries, up to and without AT_NULL.

use crate::error::{Place, Result};
use alloc::vec::Vec;

/// `AT_SYSINFO_EHDR`: where the vdso is mapped.
pub const AT_SYSINFO_EHDR: u64 = 33;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuxvRecord {
    /// `AT_*`.
    pub kind: u64,
    /// Its value.
    pub value: u64,
}

/// Parses all of the file.
///
/// # Errors
/// A vector that does not end with AT_NULL, or ends amid an entry.
pub fn parse(bytes: &[u8]) -> Result<Vec<AuxvRecord>> {
    let (words, _) = bytes.as_chunks::<8>();
    let mut records = Vec::with_capacity(words.len() / 2);
    for pair in words.chunks_exact(2) {
        let (kind, value) = (u64::from_ne_bytes(pair[0]), u64::from_ne_bytes(pair[1]));
        if kind == 0 {
            return Ok(records);
        }
        records.push(AuxvRecord { kind, value });
    }
    Err(Place::file("auxv").missing("AT_NULL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const JVM: &[u8] = include_bytes!("../../../tests/fixtures/proc/6.18/jvm/auxv");

    #[test]
    fn a_jvm_knows_its_vdso() {
        let vector = parse(JVM).unwrap();
        let vdso = vector.iter().find(|entry| entry.kind == AT_SYSINFO_EHDR).unwrap();
        let maps = include_bytes!("../../../tests/fixtures/proc/6.18/jvm/maps");
        let maps = crate::maps::parse(maps).unwrap();
        let mapped = maps.iter().find(|map| map.path.as_deref() == Some("[vdso]")).unwrap();
        assert_eq!(vdso.value, mapped.range.start());
    }

    #[test]
    fn a_vector_without_end_is_refused() {
        assert!(parse(&JVM[..JVM.len() - 17]).is_err());
        assert!(parse(b"").is_err());
    }
}
