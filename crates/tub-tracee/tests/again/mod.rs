//! This program once more, frozen again and again.
//!
//! In: which of its tests is the program, and a variable that tells it so. Out: every freeze that failed, and
//! the line with which it ends.
//! Not here: what the program does.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use tub_tracee::Frozen;
use tub_units::HostPid;

/// Starts `program`, freezes it so many times, and has it end. Gives what failed, and the line that it says
/// then that begins with `last`, if it says one.
pub(crate) fn freeze_again_and_again(
    program: &str,
    (variable, value): (&str, &str),
    freezes: usize,
    last: &str,
) -> (Vec<String>, Option<String>) {
    let mut command = Command::new(std::env::current_exe().expect("we have a program"));
    command.args(["--exact", program, "--nocapture"]);
    command.env(variable, value).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut program = command.spawn().expect("it starts");
    let mut answers =
        BufReader::new(program.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
    answers.find(|line| line == "ready").expect("it says so");

    let pid = HostPid(program.id().cast_signed());
    let mut failures = Vec::new();
    for number in 0..freezes {
        match Frozen::freeze(pid) {
            Ok(frozen) => frozen.thaw(),
            Err(error) => failures.push(format!("freeze {number}: {error:?}")),
        }
    }
    drop(program.stdin.take());
    let said = answers.find(|line| line.starts_with(last));
    program.wait().expect("it has ended");
    (failures, said)
}
