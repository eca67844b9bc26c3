//! Timers, sleeps and clocks. These tests need processor time when they need it: one at a time.

use std::thread;
use std::time::Duration;
use tub_testkit::{Flavour, Restore, Subject, alone, every};

/// A round trip with a pause in the middle, which a continuous clock must not show.
fn round_trip_with_pause(name: &str) {
    let _alone = alone("time");
    every(&Flavour::LAZY, |flavour| {
        let mut original = Subject::new(name, flavour.user).start();
        let image = original.dir().join("image");
        original.checkpoint_and_end(&image);
        thread::sleep(Duration::from_secs(2));
        let copy = Restore::of(&original, &image, flavour).start();
        copy.go(&flavour.promises());
        copy.verdict();
    });
}

#[test]
fn timers_fire_neither_early_nor_late() {
    round_trip_with_pause("timers");
}

#[test]
fn system_calls_blocked_at_the_checkpoint_go_on() {
    round_trip_with_pause("waits");
}

#[test]
fn futex_waiters_and_held_locks_survive() {
    round_trip_with_pause("futexes");
}

/// The copy waits in a stub of ours; what is taken of it must show its own call, and only the rest.
#[test]
fn a_wait_goes_on_through_three_lives() {
    let _alone = alone("time");
    every(&[Flavour::LAZY[1], Flavour::LAZY[2]], |flavour| {
        let mut life = Subject::new("waits", flavour.user).start();
        for generation in 1..=2 {
            let image = life.dir().join(format!("image-{generation}"));
            life.checkpoint_and_end(&image);
            life = Restore::of(&life, &image, flavour).start();
        }
        life.go(&flavour.promises());
        life.verdict();
    });
}
