//! Once through checkpoint and restore: the road that all subjects take.

use tub_testkit::{Flavour, Instance, Pids, Restore, Subject, every};

/// Starts `name`, checkpoints it, restores it in the way of `flavour`, compares what is visible,
/// and asks the subject itself.
pub(crate) fn round_trip(name: &str, flavour: Flavour) {
    let copy = restored(name, flavour);
    copy.go(&flavour.promises());
    copy.verdict();
}

/// The rest of the road of a subject that was started already, and that nobody compares.
pub(crate) fn gets_up_well(mut original: Instance, flavour: Flavour) {
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    let copy = Restore::of(&original, &image, flavour).start();
    copy.go(&flavour.promises());
    copy.verdict();
}

/// The road up to the restored instance, with what is visible compared.
pub(crate) fn restored(name: &str, flavour: Flavour) -> Instance {
    let mut original = Subject::new(name, flavour.user).start();
    let before = original.visible();
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    let copy = Restore::of(&original, &image, flavour).start();
    let differences = before.differences(&copy.visible(), flavour.pids == Pids::Keep);
    assert!(differences.is_empty(), "visible from outside: {differences:#?}\n{}", copy.tell());
    copy
}

/// Round trips of `name` in each of `flavours`.
pub(crate) fn round_trips(name: &str, flavours: &[Flavour]) {
    every(flavours, |flavour| round_trip(name, flavour));
}
