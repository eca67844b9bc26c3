//! A process that becomes another program again and again while it is looked at.
//!
//! In: this program once more, one thread of which executes it anew all the time. Out: whether every look at
//! it succeeded.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;
use tub_checkpoint::survey_running;
use tub_units::HostPid;

const LOOKS: usize = 150;
/// Says to the program that it is the one to be looked at.
const BECOMES_ANOTHER: &str = "TUB_TEST_BECOMES_ANOTHER";

fn this_program() -> Command {
    let mut program = Command::new(std::env::current_exe().expect("we have a program"));
    program.args(["--exact", "program_that_becomes_another", "--nocapture"]);
    program.env(BECOMES_ANOTHER, "").stdin(Stdio::null()).stdout(Stdio::null());
    program
}

/// What the program does that is looked at; by itself it is no test. Tests run on threads, so that the main
/// one ends first (execve(2)).
#[test]
fn program_that_becomes_another() {
    if std::env::var_os(BECOMES_ANOTHER).is_some() {
        std::thread::sleep(Duration::from_millis(1));
        panic!("{}", this_program().exec());
    }
}

#[test]
fn what_becomes_another_program_at_this_moment_can_be_looked_at() {
    let mut program = this_program().spawn().expect("it starts");
    let pid = HostPid(program.id().cast_signed());
    let looks = (0..LOOKS).filter_map(|_| survey_running(pid, |_| Vec::new()).err());
    let failures: Vec<_> = looks.map(|error| format!("{error:?}")).collect();
    program.kill().expect("it is ours");
    program.wait().expect("it is ours");
    assert_eq!(failures, Vec::<String>::new());
}
