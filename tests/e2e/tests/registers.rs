//! Registers.

use crate::round_trip::{gets_up_well, round_trips};
use std::fs;
use tub_image::Image;
use tub_testkit::{Flavour, Instance, Restore, Subject, User, code, every, skipped};

/// The kernel aborts it on its way back to user mode, which a copy has never left.
#[test]
fn a_restartable_sequence_is_started_anew() {
    every(&[Flavour::LAZY[0], Flavour::LAZY[1]], |flavour| {
        let mut original = Subject::new("rseq", flavour.user).start();
        let Ok(text) = fs::read_to_string(original.dir().join("state/sequence")) else {
            return skipped("the C library has not registered rseq");
        };
        let places: Vec<u64> = text.split(' ').map(|word| word.parse().unwrap()).collect();
        let [start, end, abort] = places[..] else { panic!("{text}") };
        let image = original.dir().join("image");
        original.checkpoint_and_end(&image);
        let opened = Image::open_foreign(&image).unwrap();
        let threads = &opened.checkpoint.tasks[0].threads;
        // rip in struct user_regs_struct.
        let at: Vec<u64> = threads.iter().map(|thread| thread.registers.general[16]).collect();
        assert!(!at.iter().any(|at| (start..end).contains(at)), "{at:x?} in {places:x?}");
        assert!(at.contains(&abort), "{at:x?}, not {abort:x}");
        let copy = Restore::of(&original, &image, flavour).start();
        copy.go(&flavour.promises());
        copy.verdict();
    });
}

/// The subject `tiles` with these options, ready; `None` where no processor has any.
fn with_tiles(user: User, options: &[&str]) -> Option<Instance> {
    let original = Subject::new("tiles", user).options(options).start();
    let lacking = fs::read_to_string(original.dir().join("state/lacking"));
    if let Ok(lacking) = &lacking {
        skipped(lacking);
        original.go("");
        original.verdict();
        return None;
    }
    Some(original)
}

/// `/proc` does not tell of them, so the process has been frozen by then; whatever was copied out of
/// its threads, and however they were borrowed, the tiles hold what they held.
#[test]
fn tiles_in_use_are_named_and_stay_as_they_are() {
    every(&[Flavour::LAZY[0], Flavour::LAZY[1]], |flavour| {
        let Some(original) = with_tiles(flavour.user, &[]) else { return };
        let image = original.dir().join("image");
        for options in [&[][..], &["--leave-running"]] {
            let refused = original.checkpoint(&image, options);
            let words = ["has AMX tiles in use", "TILERELEASE", "thawed and goes on"];
            let refused = refused.fails_with(code::REFUSED, &words);
            // Both of its threads at once.
            assert_eq!(refused.stderr.matches("AMX tiles").count(), 2, "{refused}");
            assert!(!image.exists(), "{refused}");
        }
        original.go("");
        original.verdict();
    });
}

#[test]
fn whoever_has_released_its_tiles_may_use_them_again() {
    every(&Flavour::ALL, |flavour| {
        let Some(original) = with_tiles(flavour.user, &["released"]) else { return };
        gets_up_well(original, flavour);
    });
    // The original that goes on has lost nothing either.
    let Some(original) = with_tiles(User::Ordinary, &["released"]) else { return };
    let image = original.dir().join("image");
    original.checkpoint(&image, &["--leave-running"]).succeeds();
    original.go("");
    original.verdict();
}

#[test]
fn registers_of_every_kind_survive() {
    round_trips("registers", &Flavour::ALL);
}
