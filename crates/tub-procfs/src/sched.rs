//! Parses `/proc/PID/task/TID/sched`: what the scheduler notes about a thread.
//!
//! In: bytes. Out: a [`SchedRecord`].
//!
//! KERNEL: proc_sched_show_task, kernel/sched/debug.c. A debugging aid (CONFIG_SCHED_DEBUG until 6.14,
//! always there since), not a stable interface: whoever reads it must do without it, too.

use crate::error::{Place, Result};
use crate::text::{Fields, lines};

/// What is of use of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedRecord {
    /// When its processor time was last accounted, in nanoseconds of the clock of the processor that
    /// it ran on: while it sleeps, the moment at which it went to sleep.
    pub exec_start_ns: u64,
    /// How often it has gone to sleep.
    pub voluntary_switches: u64,
}

/// Parses all of the file.
///
/// # Errors
/// One of the two that is missing or malformed.
pub fn parse(bytes: &[u8]) -> Result<SchedRecord> {
    let (mut exec_start_ns, mut voluntary_switches) = (None, None);
    for (place, line) in lines("sched", bytes) {
        let mut fields = Fields::new(place, line);
        match fields.maybe() {
            Some(b"se.exec_start") => {
                fields.label(":")?;
                exec_start_ns = Some(milliseconds(place, fields.next("exec_start")?)?);
            }
            Some(b"nr_voluntary_switches") => {
                fields.label(":")?;
                voluntary_switches = Some(fields.number(10, "nr_voluntary_switches")?);
            }
            _ => {}
        }
    }
    let place = Place { file: "sched", line: 1 };
    Ok(SchedRecord {
        exec_start_ns: exec_start_ns.ok_or(place.missing("se.exec_start"))?,
        voluntary_switches: voluntary_switches.ok_or(place.missing("nr_voluntary_switches"))?,
    })
}

/// `703115.753076`: milliseconds, and six digits after the point.
fn milliseconds(place: Place, text: &[u8]) -> Result<u64> {
    let odd = || place.malformed("exec_start", text);
    let dot = text.iter().position(|&byte| byte == b'.').ok_or_else(odd)?;
    let (whole, rest) = (&text[..dot], &text[dot + 1..]);
    let number = |digits| crate::text::number::<u64>(digits, 10);
    let (whole, nanos) = number(whole).zip(number(rest)).ok_or_else(odd)?;
    let whole = whole.checked_mul(1_000_000);
    whole.filter(|_| rest.len() == 6).and_then(|whole| whole.checked_add(nanos)).ok_or_else(odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: &[u8] = include_bytes!("../../../tests/fixtures/proc/6.18/subject/sched");

    #[test]
    fn a_thread_that_slept() {
        let record = parse(SUBJECT).unwrap();
        assert_eq!(record.exec_start_ns, 949_063_179_105);
        assert_eq!(record.voluntary_switches, 1);
    }

    #[test]
    fn nothing_makes_it_panic() {
        for end in 0..SUBJECT.len() {
            let _ = parse(&SUBJECT[..end]);
        }
        for hostile in ["", "1", ".", "1.", "1.5", "-1.000000", "18446744073709551615.000000"] {
            let text = alloc::format!("se.exec_start : {hostile}\nnr_voluntary_switches : 1\n");
            assert!(parse(text.as_bytes()).is_err(), "{hostile}");
        }
    }
}
