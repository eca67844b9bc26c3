//! A process whose threads come and go while it is being stopped.
//!
//! In: this program once more, which starts and ends threads as fast as it can. Out: whether every freeze
//! succeeded.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use tub_tracee::Frozen;
use tub_units::HostPid;

const FREEZES: usize = 3000;
/// Says to the program that it is the one to be frozen.
const CHURNS: &str = "TUB_TEST_CHURNS";

/// What the program does that is frozen; by itself it is no test.
#[test]
fn program_whose_threads_come_and_go() {
    if std::env::var_os(CHURNS).is_none() {
        return;
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let _ = std::thread::spawn(|| ()).join();
                }
            });
        }
        println!("\nready");
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        over.store(true, Ordering::SeqCst);
    });
}

#[test]
fn threads_that_end_at_this_moment_fail_no_freeze() {
    let mut program = Command::new(std::env::current_exe().expect("we have a program"));
    program.args(["--exact", "program_whose_threads_come_and_go", "--nocapture"]);
    program.env(CHURNS, "").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut program = program.spawn().expect("it starts");
    let mut answers =
        BufReader::new(program.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
    answers.find(|line| line == "ready").expect("it says so");

    let pid = HostPid(program.id().cast_signed());
    let mut failures = Vec::new();
    for number in 0..FREEZES {
        match Frozen::freeze(pid) {
            Ok(frozen) => frozen.thaw(),
            Err(error) => failures.push(format!("freeze {number}: {error:?}")),
        }
    }
    drop(program.stdin.take());
    program.wait().expect("it has ended");
    assert_eq!(failures, Vec::<String>::new());
}
