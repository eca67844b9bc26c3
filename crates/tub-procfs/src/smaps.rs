//! Parses `/proc/PID/smaps` into one record a mapping.
//!
//! In: bytes. Out: `Vec<SmapsRecord>`.
//! Invariant: each mapping has its `VmFlags`; ranges as in [`crate::maps`].
//! Not here: most of the counters (`Rss`, …). They cost time to parse, and nobody decides by them.

use crate::error::{Place, Result};
use crate::maps::{MapsRecord, check_order, parse_line};
use crate::text::{lines, number};
use alloc::vec::Vec;
use core::fmt;

/// One mapping, with the kernel's flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmapsRecord {
    /// What `maps` says as well.
    pub map: MapsRecord,
    /// The two-letter codes of the line `VmFlags`.
    pub vm_flags: VmFlags,
    /// The line `ProtectionKey` (pkeys(7)); 0 where the processor has none.
    pub protection_key: u32,
    /// What of it is its own, and not a file's or another's: the lines `Anonymous` and `Swap`, in bytes.
    /// `None` where there are none.
    pub own_bytes: Option<u64>,
}

/// The set of two-letter codes of a mapping, as `proc_pid_smaps(5)` lists them.
///
/// A flag that the kernel has no letters for appears as `"??"`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmFlags(Vec<[u8; 2]>);

impl VmFlags {
    /// Whether `code` is among them: `has("gd")`.
    pub fn has(&self, code: &str) -> bool {
        self.0.iter().any(|found| found == code.as_bytes())
    }

    /// The codes in the kernel's order.
    pub fn codes(&self) -> impl Iterator<Item = &str> {
        // `parse_flags` lets only ASCII in, so none is passed over.
        self.0.iter().filter_map(|code| core::str::from_utf8(code).ok())
    }
}

impl fmt::Display for VmFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, code) in self.codes().enumerate() {
            let blank = if index == 0 { "" } else { " " };
            write!(f, "{blank}{code}")?;
        }
        Ok(())
    }
}

/// Parses all of `/proc/PID/smaps`.
///
/// # Errors
/// The first line that is not as described in `proc_pid_smaps(5)`, or a mapping without `VmFlags`
/// (a kernel before 3.8, or a file read in part).
pub fn parse(bytes: &[u8]) -> Result<Vec<SmapsRecord>> {
    // About 700 bytes a mapping on Linux 6.18.
    let mut records = Vec::with_capacity(bytes.len() / 600);
    let mut open: Option<MapsRecord> = None;
    let (mut end, mut protection_key) = (0, 0);
    let (mut anonymous, mut swap) = (None, None);
    let mut last = Place::file("smaps");
    for (place, line) in lines("smaps", bytes) {
        last = place;
        match line.first() {
            // The counters; no other line starts with a capital letter.
            Some(b'A'..=b'Z') => {
                if let Some(flags) = line.strip_prefix(b"VmFlags:") {
                    let map = open.take().ok_or_else(|| place.missing("range"))?;
                    let vm_flags = parse_flags(place, flags)?;
                    let own_bytes = anonymous.take().zip(swap.take());
                    let own_bytes = own_bytes.map(|(one, other): (u64, u64)| one + other);
                    records.push(SmapsRecord { map, vm_flags, protection_key, own_bytes });
                    protection_key = 0;
                } else if let Some(text) = line.strip_prefix(b"Anonymous:") {
                    anonymous = Some(kib(place, "Anonymous", text)?);
                } else if let Some(text) = line.strip_prefix(b"Swap:") {
                    swap = Some(kib(place, "Swap", text)?);
                } else if let Some(key) = line.strip_prefix(b"ProtectionKey:") {
                    let number = number(key.trim_ascii(), 10);
                    protection_key = number.ok_or_else(|| place.malformed("ProtectionKey", key))?;
                }
            }
            _ => {
                if open.is_some() {
                    return Err(place.missing("VmFlags"));
                }
                let map = parse_line(place, line)?;
                end = check_order(place, line, map.range, end)?;
                open = Some(map);
            }
        }
    }
    match open {
        Some(_) => Err(last.missing("VmFlags")),
        None => Ok(records),
    }
}

/// `656 kB`, which are KiB, in bytes.
fn kib(place: Place, field: &'static str, text: &[u8]) -> Result<u64> {
    let digits = text.trim_ascii().strip_suffix(b" kB");
    let kib: Option<u64> = digits.and_then(|digits| number(digits, 10));
    // Half of what there is to address, so that two of them have a sum.
    let bytes = kib.and_then(|kib| kib.checked_mul(1024)).filter(|bytes| *bytes < 1 << 63);
    bytes.ok_or_else(|| place.malformed(field, text))
}

fn parse_flags(place: Place, text: &[u8]) -> Result<VmFlags> {
    let mut codes = Vec::with_capacity(text.len() / 3);
    for code in text.split(u8::is_ascii_whitespace).filter(|code| !code.is_empty()) {
        match code {
            &[first, second] if code.is_ascii() => codes.push([first, second]),
            _ => return Err(place.malformed("VmFlags", code)),
        }
    }
    Ok(VmFlags(codes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, maps};
    use alloc::string::ToString;

    const SUBJECT: &[u8] = include_bytes!("../../../tests/fixtures/proc/6.18/subject/smaps");
    const JVM: &[u8] = include_bytes!("../../../tests/fixtures/proc/6.18/jvm/smaps");
    const JVM_MAPS: &[u8] = include_bytes!("../../../tests/fixtures/proc/6.18/jvm/maps");

    #[test]
    fn a_subject_with_advice() {
        let records = parse(SUBJECT).unwrap();
        assert_eq!(records.len(), 94);
        let wiped = records.iter().find(|r| r.vm_flags.has("wf")).unwrap();
        assert_eq!(wiped.map.range.len(), 1 << 20);
        assert_eq!(wiped.vm_flags.to_string(), "rd wr mr mw me dc ac wf");
        let stack = records.iter().find(|r| r.map.path.as_deref() == Some("[stack]")).unwrap();
        assert!(stack.vm_flags.has("gd") && !stack.vm_flags.has("nr"));
        assert!(stack.own_bytes.is_some_and(|bytes| bytes > 0 && bytes % 4096 == 0));
        let code = records.iter().find(|r| r.map.perms.execute && r.map.inode != 0).unwrap();
        assert_eq!(code.own_bytes, Some(0));
    }

    #[test]
    fn a_jvm_and_its_maps_agree() {
        let records = parse(JVM).unwrap();
        let maps = maps::parse(JVM_MAPS).unwrap();
        assert_eq!(records.len(), 208);
        assert_eq!(
            records.iter().map(|r| r.map.range).collect::<Vec<_>>(),
            maps.iter().map(|r| r.range).collect::<Vec<_>>()
        );
        let archive = "/usr/lib/jvm/java-17-openjdk-amd64/lib/server/classes.jsa";
        assert!(records.iter().any(|r| r.map.path.as_deref() == Some(archive)));
        assert!(records.iter().any(|r| r.vm_flags.has("nr")));
        assert!(records.iter().any(|r| r.map.path.as_deref() == Some("[vvar_vclock]")));
    }

    #[test]
    fn a_protection_key_is_its_own_mappings_alone() {
        let text = b"1000-2000 rw-p 00000000 00:00 0 \nProtectionKey:         3\nVmFlags: rd wr\n\
                     2000-3000 rw-p 00000000 00:00 0 \nVmFlags: rd wr\n";
        let keys = |bytes: &[u8]| {
            parse(bytes).unwrap().iter().map(|r| r.protection_key).collect::<Vec<_>>()
        };
        assert_eq!(keys(text), [3, 0]);
        assert!(keys(SUBJECT).iter().all(|key| *key == 0));
        let odd = b"1000-2000 rw-p 00000000 00:00 0 \nProtectionKey: x\nVmFlags: rd wr\n";
        assert_eq!(parse(odd).unwrap_err().kind(), ErrorKind::Malformed);
    }

    #[test]
    fn its_own_bytes_are_those_in_memory_and_in_swap() {
        let own = |counters: &str| {
            let head = "1000-9000 rw-p 00000000 00:00 0 \n";
            let text = alloc::format!("{head}{counters}VmFlags: rd wr\n");
            parse(text.as_bytes()).map(|records| records[0].own_bytes)
        };
        let counters = "Rss: 12 kB\nAnonymous:   8 kB\nSwap:  4 kB\nSwapPss: 1 kB\n";
        assert_eq!(own(counters), Ok(Some(12 << 10)));
        assert_eq!(own("Anonymous: 8 kB\n"), Ok(None));
        assert_eq!(own(""), Ok(None));
        for odd in ["", "8", "x kB", "-1 kB", "18014398509481984 kB", "9007199254740992 kB"] {
            let error = own(&alloc::format!("Anonymous: {odd}\nSwap: 0 kB\n")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Malformed, "{odd}");
        }
    }

    #[test]
    fn a_file_read_in_part_is_an_error() {
        let cut = SUBJECT.len() - "VmFlags: ex \n".len();
        assert_eq!(parse(&SUBJECT[..cut]).unwrap_err().kind(), ErrorKind::Missing);
        let end = SUBJECT.windows(8).position(|window| window == b"VmFlags:").unwrap();
        let mut without = SUBJECT[..end].to_vec();
        without.extend_from_slice(&SUBJECT[end + "VmFlags: rd mr mw me \n".len()..]);
        assert_eq!(parse(&without).unwrap_err().kind(), ErrorKind::Missing);
    }

    #[test]
    fn no_part_of_a_file_makes_it_panic() {
        for end in (0..SUBJECT.len().min(4000)).chain(SUBJECT.len() - 200..SUBJECT.len()) {
            let _ = parse(&SUBJECT[..end]);
        }
    }
}
