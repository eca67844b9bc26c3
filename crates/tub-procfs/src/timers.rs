//! Parses `/proc/PID/timers`: the timers of `timer_create(2)`.
//!
//! In: bytes. Out: a [`TimerRecord`] a timer, ascending by id.
//! Not here: when a timer fires next; only `timer_gettime(2)` in the process itself tells.

use crate::error::Result;
use crate::text::{Fields, lines, number};
use alloc::vec::Vec;

/// One POSIX timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerRecord {
    /// The kernel's id.
    pub id: i32,
    /// Signal sent.
    pub signal: i32,
    /// `sigev_value`.
    pub value: u64,
    /// `SIGEV_*`, with SIGEV_THREAD_ID (4) folded in.
    pub notify: i32,
    /// Process or thread signalled, as seen in our PID namespace.
    pub target: i32,
    /// `CLOCK_*`; a CPU clock of a process or thread is negative.
    pub clock: i32,
}

/// Parses all of the file.
///
/// # Errors
/// A line that is not as described in `proc_pid_timers(5)`.
pub fn parse(bytes: &[u8]) -> Result<Vec<TimerRecord>> {
    let mut records = Vec::new();
    let mut lines = lines("timers", bytes);
    while let Some((place, line)) = lines.next() {
        let mut fields = Fields::new(place, line);
        fields.label("ID:")?;
        let id = fields.number(10, "ID")?;
        let mut next = |label: &'static str| {
            let (place, line) = lines.next().ok_or_else(|| place.missing(label))?;
            let mut fields = Fields::new(place, line);
            fields.label(label)?;
            Ok(fields)
        };

        let mut fields = next("signal:")?;
        let signal = fields.until(b'/', "signal")?;
        let signal = number(signal, 10).ok_or_else(|| place.malformed("signal", signal))?;
        let value = fields.next("value")?;
        let value = number(value, 16).ok_or_else(|| place.malformed("value", value))?;

        let mut fields = next("notify:")?;
        let how = fields.until(b'/', "notify")?;
        let base = match how {
            b"signal" => 0,
            b"none" => 1,
            b"thread" => 2,
            _ => return Err(place.malformed("notify", how)),
        };
        let whom = fields.until(b'.', "notify")?;
        let notify = match whom {
            b"pid" => base,
            b"tid" => base | SIGEV_THREAD_ID,
            _ => return Err(place.malformed("notify", whom)),
        };
        let target = fields.number(10, "target")?;
        let clock = next("ClockID:")?.number(10, "ClockID")?;
        records.push(TimerRecord { id, signal, value, notify, target, clock });
    }
    records.sort_unstable_by_key(|record| record.id);
    Ok(records)
}

const SIGEV_THREAD_ID: i32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: &[u8] = include_bytes!("../../../tests/fixtures/proc/6.18/subject/timers");

    #[test]
    fn two_timers() {
        let timers = parse(SUBJECT).unwrap();
        assert_eq!(timers.len(), 2);
        assert_eq!((timers[0].id, timers[0].signal, timers[0].value), (0, 10, 0x1234));
        assert_eq!((timers[0].notify, timers[1].notify), (0, SIGEV_THREAD_ID));
        assert_eq!((timers[1].signal, timers[1].value, timers[1].clock), (12, 5, 1));
        assert_eq!(timers[0].target, timers[1].target);
        assert_eq!(parse(b"").unwrap(), []);
    }

    #[test]
    fn nothing_makes_it_panic() {
        for end in 0..SUBJECT.len() {
            let _ = parse(&SUBJECT[..end]);
        }
    }
}
