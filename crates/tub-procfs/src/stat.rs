//! Parses `/proc/PID/stat`.
//!
//! In: bytes. Out: a [`StatRecord`]. The numbers of the fields are those of `proc_pid_stat(5)`.

use crate::error::{Place, Result};
use crate::text::{Fields, Number};
use alloc::{string::String, vec::Vec};
use tub_units::HostPid;

/// What `stat` says about a process.
///
/// The addresses are 0 or 1 for a reader who may not trace the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatRecord {
    /// (1) Process id.
    pub pid: HostPid,
    /// (2) Command name; bytes that are not UTF-8 are replaced, for it only serves messages.
    pub comm: String,
    /// (3) State: the letter.
    pub state: char,
    /// (4) Parent; 0 where we cannot see it.
    pub ppid: HostPid,
    /// (5) Process group.
    pub pgrp: i32,
    /// (6) Session.
    pub session: i32,
    /// (7) Controlling terminal's device number, in the encoding of the file; 0 for none.
    pub tty_nr: i32,
    /// (9) What the kernel notes about it, `PF_*` (linux/sched.h).
    pub flags: u32,
    /// (19) Nice value.
    pub nice: i32,
    /// (20) Number of threads.
    pub threads: u32,
    /// (22) Start after boot, in clock ticks: tells a process from a later one with its id.
    pub starttime: u64,
    /// (26) Start of the program text.
    pub start_code: u64,
    /// (27) End of the program text.
    pub end_code: u64,
    /// (28) Bottom of the main stack.
    pub start_stack: u64,
    /// (38) The signal that tells its parent of its end; -1 of a thread that is not the main one.
    pub exit_signal: i32,
    /// (39) The processor it last ran on.
    pub processor: u32,
    /// (40) Real-time priority.
    pub rt_priority: u32,
    /// (41) Scheduling policy, `SCHED_*`.
    pub policy: u32,
    /// (45) Start of the data.
    pub start_data: u64,
    /// (46) End of the data.
    pub end_data: u64,
    /// (47) Where `brk` started.
    pub start_brk: u64,
    /// (48) Start of the command line.
    pub arg_start: u64,
    /// (49) End of the command line.
    pub arg_end: u64,
    /// (50) Start of the environment.
    pub env_start: u64,
    /// (51) End of the environment.
    pub env_end: u64,
    /// (52) How it ended, as `wait(2)` tells it; 0 as long as it runs.
    pub exit_code: i32,
}

/// Parses the file.
///
/// # Errors
/// A field that is missing or malformed.
pub fn parse(bytes: &[u8]) -> Result<StatRecord> {
    let place = Place { file: "stat", line: 1 };
    // The command name may hold blanks, newlines and parentheses; no field after it holds one.
    let open = bytes.iter().position(|&byte| byte == b'(').ok_or(place.missing("comm"))?;
    let close = bytes.iter().rposition(|&byte| byte == b')').ok_or(place.missing("comm"))?;
    let comm = bytes.get(open + 1..close).ok_or_else(|| place.malformed("comm", bytes))?;
    let mut fields = Fields::new(place, &bytes[close + 1..]);
    let mut after = Vec::with_capacity(50);
    while let Some(field) = fields.maybe() {
        after.push(field);
    }
    let stat = Stat { place, after };
    let state = stat.field(3, "state")?.first().copied().map_or('?', char::from);
    Ok(StatRecord {
        pid: HostPid(Fields::new(place, &bytes[..open]).number(10, "pid")?),
        comm: String::from_utf8_lossy(comm).into_owned(),
        state,
        ppid: HostPid(stat.number(4, "ppid")?),
        pgrp: stat.number(5, "pgrp")?,
        session: stat.number(6, "session")?,
        tty_nr: stat.number(7, "tty_nr")?,
        flags: stat.number(9, "flags")?,
        nice: stat.number(19, "nice")?,
        threads: stat.number(20, "num_threads")?,
        starttime: stat.number(22, "starttime")?,
        start_code: stat.number(26, "startcode")?,
        end_code: stat.number(27, "endcode")?,
        start_stack: stat.number(28, "startstack")?,
        exit_signal: stat.number(38, "exit_signal")?,
        processor: stat.number(39, "processor")?,
        rt_priority: stat.number(40, "rt_priority")?,
        policy: stat.number(41, "policy")?,
        start_data: stat.number(45, "start_data")?,
        end_data: stat.number(46, "end_data")?,
        start_brk: stat.number(47, "start_brk")?,
        arg_start: stat.number(48, "arg_start")?,
        arg_end: stat.number(49, "arg_end")?,
        env_start: stat.number(50, "env_start")?,
        env_end: stat.number(51, "env_end")?,
        exit_code: stat.number(52, "exit_code")?,
    })
}

struct Stat<'a> {
    place: Place,
    /// The fields from number 3 on.
    after: Vec<&'a [u8]>,
}

impl<'a> Stat<'a> {
    fn field(&self, number: usize, name: &'static str) -> Result<&'a [u8]> {
        self.after.get(number - 3).copied().ok_or_else(|| self.place.missing(name))
    }

    fn number<T: Number>(&self, number: usize, name: &'static str) -> Result<T> {
        let text = self.field(number, name)?;
        crate::text::number(text, 10).ok_or_else(|| self.place.malformed(name, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: &[u8] = include_bytes!("../../../tests/fixtures/proc/6.18/subject/stat");

    #[test]
    fn a_name_with_parentheses() {
        let stat = parse(SUBJECT).unwrap();
        assert_eq!(stat.comm, "a) b (c");
        assert_eq!(stat.state, 'R');
        assert_eq!(stat.tty_nr, 0);
        assert_eq!((stat.threads, stat.exit_signal), (3, 17));
        assert!(stat.start_code < stat.end_code && stat.end_data < stat.start_brk);
        assert!(stat.start_stack < stat.arg_start && stat.arg_end == stat.env_start);
        assert!(stat.env_start < stat.env_end);
    }

    #[test]
    fn nothing_makes_it_panic() {
        for end in 0..SUBJECT.len() - 20 {
            assert!(parse(&SUBJECT[..end]).is_err(), "{end}");
        }
        for hostile in [&b")("[..], b"1 (", b"1 )", b"1 () ", b"(a) R 1"] {
            assert!(parse(hostile).is_err());
        }
    }
}
