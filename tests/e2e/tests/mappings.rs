//! Mappings with something special about them.

use crate::round_trip::{gets_up_well, round_trips};
use tub_testkit::{Flavour, Memory, Restore, Subject, every};

/// One of each user, kind of ids and kind of memory.
const FEW: [Flavour; 3] = [Flavour::ALL[1], Flavour::ALL[6], Flavour::USUAL];

#[test]
fn mappings_keep_guards_advice_seals_and_the_way_they_grow() {
    round_trips("odd-memory", &FEW);
}

#[test]
fn shared_memory_is_one_object_through_all_of_its_mappings() {
    round_trips(
        "shared-memory",
        &[Flavour::ALL[0], Flavour::ALL[1], Flavour::ALL[3], Flavour::USUAL],
    );
}

#[test]
fn locked_memory_stays_locked() {
    round_trips("locked", &FEW);
}

#[test]
fn future_memory_stays_locked_as_well() {
    every(&[Flavour::ALL[0], Flavour::USUAL], |flavour| {
        let subject = Subject::new("locked", flavour.user).options(&["future"]);
        gets_up_well(subject.start(), flavour);
    });
}

/// The limits of the restoring side win, and the user is told.
#[test]
fn memory_that_may_not_be_locked_is_not() {
    let flavour = Flavour { memory: Memory::Eager, ..Flavour::USUAL };
    let mut original = Subject::new("locked", flavour.user).start();
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    let copy = Restore::of(&original, &image, flavour).after("ulimit -l 16").start();
    let complaints = copy.complaints();
    assert!(complaints.contains("locked memory"), "{complaints}");
    std::fs::write(original.dir().join("state/unlocked"), "").unwrap();
    copy.go(&flavour.promises());
    copy.verdict();
}
