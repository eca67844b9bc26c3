//! A process whose threads come and go while it is being stopped.
//!
//! In: this program once more, which starts and ends threads as fast as it can. Out: whether every freeze
//! succeeded.

mod again;

use again::freeze_again_and_again;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

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
    let program = "program_whose_threads_come_and_go";
    let (failures, _) = freeze_again_and_again(program, (CHURNS, ""), FREEZES, "test result");
    assert_eq!(failures, Vec::<String>::new());
}
