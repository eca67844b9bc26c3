//! How a process notices by itself that it is a copy, where nobody of ours restores it.
//!
//! In: `/proc/self/stat`, the kernel's randomness. Out: whether this is another process than before,
//! and what it is to know of itself.
//! Invariant: a process that was only stopped for a while is never taken for a copy.
//! Not here: who waits, and how long (the bindings).
//!
//! Whoever restores a process makes a new one, which started later than the one before it did: even
//! where its ids are kept, and even where a time namespace hides how much time went by, since its
//! clock goes on from when the image was taken. Freezers, SIGSTOP and tracers change nothing of it.

use crate::mailbox::Restored;
use std::fs::File;
use std::io::{self, Read};
use std::time::{SystemTime, UNIX_EPOCH};

/// When this process started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Ticks since the boot of its time namespace: field 22 of proc_pid_stat(5).
    start: Option<u64>,
}

impl Witness {
    /// Of the process that calls.
    pub fn of_this_process() -> Self {
        Self { start: std::fs::read("/proc/self/stat").ok().and_then(|stat| start_of(&stat)) }
    }

    /// Whether the process that calls is another one. Not so where `/proc` could not be read, now or
    /// then.
    pub fn is_a_copy_now(self) -> bool {
        match (self.start, Self::of_this_process().start) {
            (Some(then), Some(now)) => then != now,
            _ => false,
        }
    }
}

/// The name in parentheses may hold anything; no field after it holds a parenthesis.
fn start_of(stat: &[u8]) -> Option<u64> {
    let close = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    // The first one after the name is field 3.
    rest.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// What a copy is to know of itself that nobody tells. Its generation is 0: one more than before,
/// which only the application can count.
///
/// # Errors
///
/// The kernel has no randomness to read.
pub fn unannounced() -> io::Result<Restored> {
    let mut random = [0; 48];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (instance, seed) = digits.split_at(32);
    Ok(Restored {
        instance: instance.to_owned(),
        generation: 0,
        seed: seed.to_owned(),
        restore_unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_found_behind_any_name() {
        let stat = b"42 (a) R 1 (2)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        assert_eq!(start_of(stat), Some(4711));
        assert_eq!(start_of(b"42 (x) S 1 2"), None);
        assert_eq!(start_of(b""), None);
    }

    #[test]
    fn this_process_stays_the_same() {
        let witness = Witness::of_this_process();
        assert!(witness.start.is_some_and(|start| start > 0));
        assert!(!witness.is_a_copy_now());
        assert!(Witness { start: Some(1) }.is_a_copy_now());
    }

    #[test]
    fn copies_that_nobody_tells_of_differ_all_the_same() {
        let [one, other] = [(); 2].map(|()| unannounced().unwrap());
        assert!(one.instance.len() == 32 && one.seed.len() == 64);
        assert!(one.instance != other.instance && one.seed != other.seed);
    }
}
