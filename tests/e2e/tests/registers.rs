//! Registers.

use crate::round_trip::round_trips;
use tub_image::Image;
use tub_testkit::{Flavour, Restore, Subject, every, skipped};

/// The kernel aborts it on its way back to user mode, which a copy has never left.
#[test]
fn a_restartable_sequence_is_started_anew() {
    every(&[Flavour::LAZY[0], Flavour::LAZY[1]], |flavour| {
        let mut original = Subject::new("rseq", flavour.user).start();
        let Ok(text) = std::fs::read_to_string(original.dir().join("state/sequence")) else {
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

#[test]
fn registers_of_every_kind_survive() {
    round_trips("registers", &Flavour::ALL);
}
