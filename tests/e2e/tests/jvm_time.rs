//! Clocks in a copy of a JVM: later, on a host that has been up for longer, and on one that has not.

use crate::jvm::on_each_jdk;
use crate::jvm_program::Program;
use std::thread;
use std::time::Duration;
use tub_testkit::{Flavour, Restore};

/// Seconds that another host's monotonic clock is ahead of ours, or behind it: nobody has run for less
/// than a minute here.
const OTHER_HOSTS: [i64; 2] = [1_000_000, -60];

#[test]
fn clocks_waits_and_schedules_go_on_where_they_stood() {
    on_each_jdk(|jdk| {
        let program = Program::new(jdk, "Clocks");
        let mut original = program.start(&[]);
        let image = program.dir.join("image");
        original.checkpoint_and_end(&image);
        // In which 250 runs of each schedule are missed.
        thread::sleep(Duration::from_secs(5));
        let here = Restore::of(&original, &image, Flavour::USUAL);
        let elsewhere = OTHER_HOSTS.map(|seconds| {
            let as_us = "--user --map-user=$(id -u) --map-group=$(id -g) --time";
            let clocks = format!("--monotonic={seconds} --boottime={seconds}");
            here.clone().after(&format!("exec unshare {as_us} {clocks} \"$@\"; true"))
        });
        let copies: Vec<_> = elsewhere.iter().chain([&here]).map(Restore::start).collect();
        copies[0].go("go");
        for copy in copies {
            copy.verdict();
        }
    });
}
