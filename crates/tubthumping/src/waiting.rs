//! Whether an application waits in its mailbox.
//!
//! In: the memory of a process, opened when it was known who it is. Out: yes or no.
//! Invariant: memory that is no mailbox any more is not taken for one by its mapping alone.
//! Not here: letters.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use tub_control::mailbox;
use tub_units::{AddrRange, HostPid};

/// Whether the process still has its mailbox, and nobody has left a letter there.
pub(crate) fn waits_in(memory: &File, pid: HostPid, mailbox: AddrRange) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let mut state = [0; 4];
    maps.lines().any(|line| holds(line, mailbox))
        && memory.read_exact_at(&mut state, mailbox.start()).is_ok()
        && u32::from_ne_bytes(state) == mailbox::WAITING
}

/// Whether a line of `/proc/PID/maps` is private memory with all of that range in it: the kernel shows
/// neighbours as one.
fn holds(line: &str, range: AddrRange) -> bool {
    let mut words = line.split(' ');
    let bounds = words.next().and_then(|bounds| bounds.split_once('-'));
    let bound = |text| u64::from_str_radix(text, 16).ok();
    let bounds = bounds.and_then(|(from, to)| Some((bound(from)?, bound(to)?)));
    bounds.is_some_and(|(from, to)| from <= range.start() && range.end() <= to)
        && words.next() == Some("rw-p")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_is_found_where_the_kernel_shows_it_as_one_with_its_neighbours() {
        let mailbox = AddrRange::with_len(0x7f00_0010_0000, 0x10_0000).unwrap();
        assert!(holds("7f0000100000-7f0000200000 rw-p 00000000 00:00 0 ", mailbox));
        assert!(holds("7f0000000000-7f0000300000 rw-p 00000000 00:00 0 ", mailbox));
        assert!(!holds("7f0000100000-7f00001ff000 rw-p 00000000 00:00 0 ", mailbox));
        assert!(!holds("7f0000100000-7f0000200000 r--p 00000000 00:00 0 ", mailbox));
        assert!(!holds("", mailbox));
    }
}
