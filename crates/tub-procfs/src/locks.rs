//! Parses `/proc/locks`: the file locks of all processes.
//!
//! In: bytes. Out: one record a lock that is held. Invariant: waiting locks (`->`) and leases are
//! passed over.

use crate::error::Result;
use crate::fdinfo::{LockKind, LockRecord, lock_of};
use crate::text::{Fields, lines, makedev, number};
use alloc::vec::Vec;
use tub_units::HostPid;

/// A lock, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldLockRecord {
    /// The lock.
    pub lock: LockRecord,
    /// Who took it; `None` where the kernel does not say (a lock of a description).
    pub pid: Option<HostPid>,
    /// Device of the file, as `stat(2)` gives it.
    pub dev: u64,
    /// Its inode.
    pub ino: u64,
}

/// Parses all of the file.
///
/// # Errors
/// A line that is not as described in `proc_locks(5)`.
pub fn parse(bytes: &[u8]) -> Result<Vec<HeldLockRecord>> {
    let mut held = Vec::new();
    for (place, line) in lines("locks", bytes) {
        let mut fields = Fields::new(place, line);
        fields.next("number")?;
        if fields.rest().starts_with(b"->") {
            continue;
        }
        let (lock, pid, file) = lock_of(fields)?;
        // A file system may have no device to tell: `<none>:0`.
        let mut parts = file.split(|&byte| byte == b':');
        let mut part = |radix| parts.next().and_then(|digits| number::<u64>(digits, radix));
        let (Some(major), Some(minor), Some(ino)) = (part(16), part(16), part(10)) else {
            continue;
        };
        if lock.kind == LockKind::Lease {
            continue;
        }
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let dev = makedev(narrow(major), narrow(minor));
        held.push(HeldLockRecord { lock, pid: (pid > 0).then_some(HostPid(pid)), dev, ino });
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_of_every_kind() {
        let text = b"1: POSIX  ADVISORY  WRITE 5536 fe:00:9977984 10 109\n\
            1: -> POSIX  ADVISORY  WRITE 5537 fe:00:9977984 10 109\n\
            2: FLOCK  ADVISORY  READ 1 00:1a:3 0 EOF\n\
            3: OFDLCK ADVISORY  WRITE -1 08:01:131 0 EOF\n\
            4: LEASE  ACTIVE    READ  9 08:01:131 0 EOF\n";
        let locks = parse(text).unwrap();
        let kinds: Vec<_> = locks.iter().map(|held| held.lock.kind).collect();
        assert_eq!(kinds, [LockKind::Posix, LockKind::Flock, LockKind::OpenFile]);
        assert_eq!((locks[0].pid, locks[0].dev), (Some(HostPid(5536)), 0xfe00));
        assert_eq!((locks[0].lock.start, locks[0].lock.end), (10, Some(109)));
        assert_eq!((locks[2].pid, locks[2].dev, locks[2].ino), (None, 0x801, 131));
        for end in 0..text.len() {
            let _ = parse(&text[..end]);
        }
    }
}
