//! Several lives: generations, instances at once, the original going on, and how lives end.

use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;
use tub_testkit::{
    Flavour, Instance, Memory, Pids, Process, Restore, Subject, Tub, every, is_root, skipped,
    wait_for,
};

/// A counting original and its image; the original has ended.
fn image_of_a_counter(flavour: Flavour) -> (Instance, std::path::PathBuf) {
    let mut original = Subject::new("counter", flavour.user).start();
    original.goes_on();
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    (original, image)
}

#[test]
fn three_generations_deep() {
    // Memory that came from one image must end up whole in the next.
    let names = ["counter", "memory", "registers", "epoll", "ids", "locks", "paths", "unix"];
    for name in names {
        every(&Flavour::ALL, |flavour| {
            // Memory of both kinds once as either user; the rest would only repeat it.
            if (flavour.memory == Memory::Eager) != (flavour.pids == Pids::New) {
                return;
            }
            let mut life = Subject::new(name, flavour.user).start();
            for generation in 1..=3 {
                let image = life.dir().join(format!("image-{generation}"));
                life.checkpoint_and_end(&image);
                life = Restore::of(&life, &image, flavour).start();
            }
            life.go(&flavour.promises());
            life.verdict();
        });
    }
}

#[test]
fn a_later_generation_may_take_the_place_of_its_own_image() {
    every(&[Flavour::ALL[0], Flavour::USUAL], |flavour| {
        let (original, image) = image_of_a_counter(flavour);
        let mut copy = Restore::of(&original, &image, flavour).start();
        copy.goes_on();
        copy.checkpoint_and_end(&image);
        let again = Restore::of(&copy, &image, flavour).start();
        again.goes_on();
        again.go(&flavour.promises());
        again.verdict();
    });
}

#[test]
fn three_instances_of_one_image_at_once() {
    every(&Flavour::ALL, |flavour| {
        let (original, image) = image_of_a_counter(flavour);
        let restore = Restore::of(&original, &image, flavour);
        let copies = [restore.start(), restore.start(), restore.start()];
        let pids: BTreeSet<_> = copies.iter().map(Instance::pid).collect();
        assert_eq!(pids.len(), 3, "each is a process of its own");
        for copy in &copies {
            copy.goes_on();
        }
        // One's end is not the others'.
        let [first, second, third] = copies;
        first.process().signal(Signal::SIGKILL);
        assert!(first.process().is_gone_within(Duration::from_secs(5)));
        second.goes_on();
        third.goes_on();
        second.go(&flavour.promises());
        second.verdict();
        third.verdict();
    });
}

#[test]
fn an_image_can_be_restored_again_after_its_instance_ended() {
    let flavour = Flavour::USUAL;
    let (original, image) = image_of_a_counter(flavour);
    for _ in 0..3 {
        let copy = Restore::of(&original, &image, flavour).start();
        copy.goes_on();
        copy.go(&flavour.promises());
        copy.verdict();
    }
    Tub::new(flavour.user, "verify").arg(&image).run().succeeds();
}

#[test]
fn the_original_goes_on_if_told_to_be_left_running() {
    every(&[Flavour::ALL[0], Flavour::ALL[3]], |flavour| {
        let original = Subject::new("counter", flavour.user).start();
        let image = original.dir().join("image");
        original.checkpoint(&image, &["--leave-running"]).succeeds();
        original.goes_on();
        let copy = Restore::of(&original, &image, flavour).start();
        copy.goes_on();
        original.goes_on();
        copy.go(&flavour.promises());
        copy.verdict();
        original.verdict();
    });
}

#[test]
fn killing_the_restore_leaves_no_orphan() {
    every(&Flavour::LAZY, |flavour| {
        let (original, image) = image_of_a_counter(flavour);
        let copy = Restore::of(&original, &image, flavour).start();
        copy.goes_on();
        let restore = Process::find(copy.command_pid()).expect("tub restore is in the foreground");
        let family = restore.descendants();
        assert!(family.contains(&copy.process()), "{family:?} lacks {:?}", copy.process());
        restore.signal(Signal::SIGKILL);
        for process in family {
            let gone = process.is_gone_within(Duration::from_secs(5));
            assert!(gone, "orphaned:\n{}", process.describe());
        }
    });
}

#[test]
fn a_detached_instance_outlives_its_restore() {
    every(&Flavour::LAZY, |flavour| {
        let (original, image) = image_of_a_counter(flavour);
        let mut copy = Restore::of(&original, &image, flavour).args(&["--detach"]).start();
        let status = copy.wait();
        assert!(status.success(), "{}", copy.tell());
        copy.goes_on();
        copy.go(&flavour.promises());
        copy.verdict();
    });
}

#[test]
fn stage_times_are_written_as_json() {
    every(&[Flavour::ALL[0], Flavour::ALL[3]], |flavour| {
        let (original, image) = image_of_a_counter(flavour);
        let stats = original.dir().join("stats.json");
        let words = ["--stats", stats.to_str().unwrap()];
        let copy = Restore::of(&original, &image, flavour).args(&words).start();
        let json = wait_for(Duration::from_secs(10), || {
            serde_json::from_str::<Value>(&fs::read_to_string(&stats).ok()?).ok()
        });
        let json = json.unwrap_or_else(|| panic!("no JSON in {}", stats.display()));
        let resumed =
            json["resumed_us"].as_u64().unwrap_or_else(|| panic!("no resumed_us: {json}"));
        assert!(resumed > 0 && resumed < 30_000_000, "{json}");
        drop(copy);
    });
}

#[test]
fn standard_streams_come_from_the_restoring_process_or_from_the_image() {
    let flavour = Flavour::USUAL;
    let (original, image) = image_of_a_counter(flavour);
    let told_before = original.output().len();
    let copy = Restore::of(&original, &image, flavour).start();
    copy.goes_on();
    assert_eq!(original.output().len(), told_before, "the copy wrote to the original's stdout");
    drop(copy);
    let copy = Restore::of(&original, &image, flavour).args(&["--stdio", "image"]).start();
    let more =
        wait_for(Duration::from_secs(10), || (original.output().len() > told_before).then_some(()));
    assert!(more.is_some(), "nothing arrives at the stdout of the image\n{}", copy.tell());
}

#[test]
fn an_image_of_one_user_is_restored_by_nobody_else() {
    if !is_root() {
        return skipped("needs root");
    }
    let (original, image) = image_of_a_counter(Flavour::ALL[0]);
    // Reachable, but root's: an ordinary user must neither read it nor get anywhere with it.
    open_to_all(original.dir().path());
    Tub::new(tub_testkit::User::Ordinary, "restore")
        .arg(&image)
        .run()
        .fails_with(tub_testkit::code::BAD_IMAGE, &["image"]);
}

fn open_to_all(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
