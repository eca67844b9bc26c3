//! `tub train`: advice about hot pages is recorded, used, and never needed.

use std::fs;
use std::path::Path;
use tub_image::Image;
use tub_testkit::{Flavour, Instance, Restore, Subject, Tub, every};

fn trained_image(flavour: Flavour) -> (Instance, std::path::PathBuf) {
    let mut original = Subject::new("memory", flavour.user).start();
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    // The subject waits for its word to go on, and has written to its stack and heap by then.
    Tub::new(flavour.user, "train")
        .arg(&image)
        .args(&["--runs", "2", "--", "true"])
        .run()
        .succeeds();
    assert!(fs::metadata(image.join("hot.tub")).unwrap().len() > 32, "nothing was recorded");
    (original, image)
}

fn gets_up(original: &Instance, image: &Path, flavour: Flavour) {
    let copy = Restore::of(original, image, flavour).start();
    copy.go(&flavour.promises());
    copy.verdict();
}

#[test]
fn a_trained_image_gets_up_with_all_its_memory() {
    every(&Flavour::LAZY, |flavour| {
        let (original, image) = trained_image(flavour);
        let plan = Tub::new(flavour.user, "restore")
            .arg(&image)
            .args(&["--memory", "lazy", "--dry-run"])
            .run()
            .succeeds();
        assert!(plan.stdout.contains("  populate "), "{}", plan.stdout);
        gets_up(&original, &image, flavour);
    });
}

/// Or it would only ever learn more: what an earlier training has recorded would be there whether anybody
/// writes to it or not.
#[test]
fn a_training_learns_anew() {
    every(&[Flavour::USUAL], |flavour| {
        let (_original, path) = trained_image(flavour);
        let hot_bytes =
            || Image::open_foreign(&path).unwrap().hot().iter().map(|range| range.len()).sum();
        let learnt: u64 = hot_bytes();
        let image = Image::open_foreign(&path).unwrap();
        let vmas = image.checkpoint.tasks[0].vmas.iter();
        let all: Vec<_> = vmas.filter(|vma| vma.protection.write).map(|vma| vma.range).collect();
        image.record_hot(&all).unwrap();
        let all = hot_bytes();
        assert!(all > learnt + (64 << 10), "{all} bytes, {learnt} learnt");
        Tub::new(flavour.user, "train").arg(&path).args(&["--", "true"]).run().succeeds();
        let again = hot_bytes();
        assert!(again < learnt.midpoint(all), "{again} bytes of {all}, {learnt} at first");
    });
}

/// The second instance once met the first one on its port.
#[test]
fn instances_of_a_training_follow_each_other_with_the_same_port() {
    every(&[Flavour::USUAL], |flavour| {
        let mut original = Subject::new("sockets", flavour.user).start();
        let image = original.dir().join("image");
        original.checkpoint_and_end(&image);
        Tub::new(flavour.user, "train")
            .arg(&image)
            .args(&["--runs", "8", "--", "true"])
            .run()
            .succeeds();
        gets_up(&original, &image, flavour);
    });
}

#[test]
fn damaged_advice_is_ignored() {
    every(&[Flavour::USUAL], |flavour| {
        let (original, image) = trained_image(flavour);
        let hot = image.join("hot.tub");
        let mut bytes = fs::read(&hot).unwrap();
        bytes[30] ^= 0xff;
        fs::write(&hot, bytes).unwrap();
        gets_up(&original, &image, flavour);
    });
}

#[test]
fn a_probe_that_never_succeeds_ends_the_training_and_its_instance() {
    every(&[Flavour::USUAL], |flavour| {
        let mut original = Subject::new("counter", flavour.user).start();
        let image = original.dir().join("image");
        original.checkpoint_and_end(&image);
        Tub::new(flavour.user, "train")
            .arg(&image)
            .args(&["--timeout", "1", "--", "false"])
            .run()
            .fails_with(tub_testkit::code::TIMED_OUT, &["cannot be trained", "did not succeed"]);
        assert!(!image.join("hot.tub").exists());
        gets_up(&original, &image, flavour);
    });
}
