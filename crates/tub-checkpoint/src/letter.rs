//! Letters: how a process that waits in its mailbox is told what became of it.
//!
//! In: a process, where its mailbox is, a letter. Out: nothing: there would be nobody to tell.
//! Invariant: nothing is written where nobody waits any more. A process waits for no longer than its
//! deadline, gives the memory back, and may have put anything there since.
//! Not here: what a letter says (`tub-control`).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use tub_units::{AddrRange, HostPid, RemoteAddr};

/// State of a mailbox that nobody has written to (docs/control-protocol.md, "The mailbox").
const WAITING: [u8; 4] = [0; 4];

/// Writes a letter into the mailbox at `at` of a process that still waits in it.
pub fn deliver(pid: HostPid, at: RemoteAddr, letter: &[u8]) {
    let path = format!("/proc/{pid}/mem");
    let Ok(memory) = File::options().read(true).write(true).open(path) else { return };
    let range = AddrRange::with_len(at.0, letter.len() as u64);
    if range.is_some_and(|range| waits_in(&memory, pid, range)) {
        let _ = deliver_to(&memory, at, letter);
    }
}

/// Puts a letter into the mailbox at `at` of the process whose `/proc/PID/mem` this is.
///
/// # Errors
///
/// That of pwrite(2); then there is no letter.
pub fn deliver_to(memory: &File, at: RemoteAddr, letter: &[u8]) -> io::Result<()> {
    // The state comes first in the letter, and is written last: it says that the rest is there.
    let (state, rest) = letter.split_at(WAITING.len().min(letter.len()));
    memory.write_all_at(rest, at.0 + WAITING.len() as u64)?;
    memory.write_all_at(state, at.0)
}

/// Whether the process, whose memory this is, still has its mailbox, and nobody has left a letter there.
pub fn waits_in(memory: &File, pid: HostPid, mailbox: AddrRange) -> bool {
    let maps = fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
    let mut state = [1; WAITING.len()];
    maps.split(|&byte| byte == b'\n').any(|line| holds(line, mailbox))
        && memory.read_exact_at(&mut state, mailbox.start()).is_ok()
        && state == WAITING
}

/// Whether a line of `/proc/PID/maps` is private memory with all of that range in it: the kernel shows
/// neighbours as one.
fn holds(line: &[u8], range: AddrRange) -> bool {
    let mut words = line.split(|&byte| byte == b' ').map(|word| str::from_utf8(word).ok());
    let bounds = words.next().flatten().and_then(|bounds| bounds.split_once('-'));
    let bound = |text| u64::from_str_radix(text, 16).ok();
    let bounds = bounds.and_then(|(from, to)| Some((bound(from)?, bound(to)?)));
    bounds.is_some_and(|(from, to)| from <= range.start() && range.end() <= to)
        && words.next().flatten() == Some("rw-p")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_is_found_where_the_kernel_shows_it_as_one_with_its_neighbours() {
        let mailbox = AddrRange::with_len(0x7f00_0010_0000, 0x10_0000).unwrap();
        assert!(holds(b"7f0000100000-7f0000200000 rw-p 00000000 00:00 0 ", mailbox));
        assert!(holds(b"7f0000000000-7f0000300000 rw-p 00000000 00:00 0 ", mailbox));
        assert!(!holds(b"7f0000100000-7f00001ff000 rw-p 00000000 00:00 0 ", mailbox));
        assert!(!holds(b"7f0000100000-7f0000200000 r--p 00000000 00:00 0 ", mailbox));
        assert!(!holds(b"", mailbox));
    }

    /// One that has waited for longer than its deadline has given its mailbox back, and works with what
    /// is there now.
    #[test]
    fn memory_that_is_no_mailbox_any_more_gets_no_letter() {
        let pid = HostPid(std::process::id().cast_signed());
        let memory = File::options().read(true).write(true).open("/proc/self/mem").unwrap();
        let place: &'static [u8] = vec![0; 64].leak();
        let at = RemoteAddr(place.as_ptr() as u64);
        let there = || {
            let mut bytes = [0; 64];
            memory.read_exact_at(&mut bytes, at.0).unwrap();
            bytes
        };
        memory.write_all_at(&[7; 64], at.0).unwrap();
        deliver(pid, at, b"stateletter");
        assert_eq!(there(), [7; 64], "somebody works with it");
        memory.write_all_at(&[0; 64], at.0).unwrap();
        deliver(pid, at, b"stateletter");
        assert_eq!(there()[..11], *b"stateletter");
    }
}
