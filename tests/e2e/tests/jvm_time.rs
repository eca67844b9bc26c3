//! Clocks in a copy of a JVM: later, on a host that has been up for longer, and on one that has not.

use crate::jvm::on_each_jdk;
use crate::jvm_program::Program;
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use tub_testkit::{Flavour, Restore};

/// Seconds that another host's monotonic clock is ahead of ours, or behind it: nobody has run for less
/// than a minute here.
const OTHER_HOSTS: [i64; 2] = [1_000_000, -60];

/// Says in a failure whether somebody has set the clock of the wall, by which a `java.util.Timer` goes.
struct WallClock {
    since: Instant,
    wall: SystemTime,
}

impl WallClock {
    fn watch() -> Self {
        Self { since: Instant::now(), wall: SystemTime::now() }
    }
}

impl Drop for WallClock {
    fn drop(&mut self) {
        if thread::panicking() {
            let now = SystemTime::now();
            let expected = self.wall + self.since.elapsed();
            let ahead = now.duration_since(expected).unwrap_or_default();
            let behind = expected.duration_since(now).unwrap_or_default();
            eprintln!("the clock of the wall was set forward by {ahead:?}, and back by {behind:?}");
        }
    }
}

#[test]
fn clocks_waits_and_schedules_go_on_where_they_stood() {
    on_each_jdk(|jdk| {
        let _wall = WallClock::watch();
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
