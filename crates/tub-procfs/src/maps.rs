//! Parses `/proc/PID/maps`, and the lines of `smaps` that are the same.
//!
//! In: bytes. Out: `Vec<MapsRecord>`.
//! Invariant: ranges are page-aligned, ascending and do not overlap; the kernel promises so even
//! for a process that runs, so anything else is an error.
//! Not here: which mappings are worth saving (`tub-checkpoint`).

use crate::error::{ErrorKind, Place, Result};
use crate::text::{Fields, lines, lossy, makedev, number, unescape};
use alloc::{string::String, vec::Vec};
use tub_units::AddrRange;

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapsRecord {
    /// Where it lies.
    pub range: AddrRange,
    /// Its access rights, and whether it is shared.
    pub perms: Perms,
    /// Offset in the file of the first page, in bytes; 0 for anonymous memory.
    pub offset_bytes: u64,
    /// Device as `stat(2)` gives it; 0 for anonymous memory. A file system with several devices
    /// under one mount (btrfs, overlayfs) may show another one here than in `stat`.
    pub dev: u64,
    /// Inode; 0 for anonymous memory.
    pub inode: u64,
    /// The file's path, or the kernel's name in brackets (`[heap]`), as seen from the root
    /// directory of the reader. Bytes that are not UTF-8 are replaced, so that it leads nowhere then.
    pub path: Option<String>,
    /// Whether the file has been deleted. The kernel marks it by a suffix, which a live file may
    /// also bear: whoever opens the path must compare `dev` and `inode`.
    pub deleted: bool,
}

/// Access rights of a mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Perms {
    /// `r`.
    pub read: bool,
    /// `w`.
    pub write: bool,
    /// `x`.
    pub execute: bool,
    /// `s` rather than `p`.
    pub shared: bool,
}

/// Parses all of `/proc/PID/maps`.
///
/// # Errors
/// The first line that is not as described in `proc_pid_maps(5)`.
pub fn parse(bytes: &[u8]) -> Result<Vec<MapsRecord>> {
    let mut records = Vec::with_capacity(bytes.len() / 64);
    let mut end = 0;
    for (place, line) in lines("maps", bytes) {
        let record = parse_line(place, line)?;
        end = check_order(place, line, record.range, end)?;
        records.push(record);
    }
    Ok(records)
}

/// Checks that `range` starts at `end` or later, and gives the new end.
pub(crate) fn check_order(place: Place, line: &[u8], range: AddrRange, end: u64) -> Result<u64> {
    if range.start() < end || !range.is_page_aligned() || range.is_empty() {
        return Err(place.error("range", ErrorKind::OutOfOrder, line));
    }
    Ok(range.end())
}

/// Parses `7f0000000000-7f0000001000 rw-p 00000000 fe:00 18500    /path`.
pub(crate) fn parse_line(place: Place, line: &[u8]) -> Result<MapsRecord> {
    let mut fields = Fields::new(place, line);
    let range = fields.next("range")?;
    let range = parse_range(range).ok_or_else(|| place.malformed("range", range))?;
    let perms = fields.next("permissions")?;
    let perms = parse_perms(perms).ok_or_else(|| place.malformed("permissions", perms))?;
    let offset_bytes = fields.number(16, "offset")?;
    let dev = fields.next("device")?;
    let dev = parse_dev(dev).ok_or_else(|| place.malformed("device", dev))?;
    let inode = fields.number(10, "inode")?;
    let (path, deleted) = parse_path(fields.rest(), inode);
    Ok(MapsRecord { range, perms, offset_bytes, dev, inode, path, deleted })
}

fn parse_range(text: &[u8]) -> Option<AddrRange> {
    let (start, end) = split_once(text, b'-')?;
    AddrRange::new(number(start, 16)?, number(end, 16)?)
}

fn parse_perms(text: &[u8]) -> Option<Perms> {
    let &[read, write, execute, shared] = text else { return None };
    let right = |found: u8, letter: u8| match found {
        b'-' => Some(false),
        _ if found == letter => Some(true),
        _ => None,
    };
    let shared = match shared {
        b's' => true,
        b'p' => false,
        _ => return None,
    };
    Some(Perms {
        read: right(read, b'r')?,
        write: right(write, b'w')?,
        execute: right(execute, b'x')?,
        shared,
    })
}

fn parse_dev(text: &[u8]) -> Option<u64> {
    let (major, minor) = split_once(text, b':')?;
    Some(makedev(number(major, 16)?, number(minor, 16)?))
}

fn split_once(text: &[u8], delimiter: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&byte| byte == delimiter)?;
    Some((&text[..at], &text[at + 1..]))
}

/// KERNEL(since 2.6): `fs/proc/task_mmu.c`, `show_map_vma`: of a file's path only the newline is
/// escaped, as `\012`; a backslash is not, so a name that holds these four characters cannot be
/// told from one with a newline.
fn parse_path(text: &[u8], inode: u64) -> (Option<String>, bool) {
    if text.is_empty() {
        return (None, false);
    }
    let (text, deleted) = match text.strip_suffix(b" (deleted)") {
        Some(path) if inode != 0 => (path, true),
        _ => (text, false),
    };
    let path =
        if text.contains(&b'\\') { lossy(&unescape(text, b"\\012", b'\n')) } else { lossy(text) };
    (Some(path), deleted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    const SUBJECT: &[u8] = include_bytes!("../../../tests/fixtures/proc/6.18/subject/maps");

    #[test]
    fn a_subject_with_hostile_names() {
        let records = parse(SUBJECT).unwrap();
        assert_eq!(records.len(), 94);
        let odd: Vec<_> = records
            .iter()
            .filter(|r| r.path.as_deref() == Some("/tmp/subject/a b\nc\\d"))
            .collect();
        assert_eq!(odd.len(), 2);
        assert!(odd.iter().all(|r| r.dev == 0xfe00 && r.inode != 0 && !r.deleted));
        let private = odd.iter().find(|r| !r.perms.shared).unwrap();
        assert_eq!(private.offset_bytes, 4096);
        let gone = records.iter().find(|r| r.deleted).unwrap();
        assert_eq!(gone.path.as_deref(), Some("/tmp/subject/gone"));
        assert!(gone.perms.shared && gone.perms.write && !gone.perms.execute);
        let last = records.last().unwrap();
        assert_eq!(last.path.as_deref(), Some("[vsyscall]"));
        assert_eq!(last.range.start(), 0xffff_ffff_ff60_0000);
    }

    #[test]
    fn each_malformed_field_is_named() {
        for (line, field) in [
            ("1000 rw-p 0 0:0 0", "range"),
            ("2000-1000 rw-p 0 0:0 0", "range"),
            ("1000-2000 rwxq 0 0:0 0", "permissions"),
            ("1000-2000 rwq 0 0:0 0", "permissions"),
            ("1000-2000 rw-p z 0:0 0", "offset"),
            ("1000-2000 rw-p 0 00 0", "device"),
            ("1000-2000 rw-p 0 0:0 x", "inode"),
            ("1000-2000 rw-p 0 0:0", "inode"),
            ("1001-2000 rw-p 0 0:0 0", "range"),
            ("1000-2000 rw-p 0 0:0 0\n1000-2000 rw-p 0 0:0 0", "range"),
        ] {
            let error = parse(line.as_bytes()).unwrap_err();
            assert!(format!("{error}").contains(field), "{line}: {error}");
        }
        let error = parse(b"1000-2000 rw-p 0 0:0").unwrap_err();
        assert_eq!((error.file(), error.line()), ("maps", 1));
        let odd = parse(b"1000-2000 rw-p 0 0:0 1 /a\xffb").unwrap();
        assert_eq!(odd[0].path.as_deref(), Some("/a\u{fffd}b"));
    }
}
