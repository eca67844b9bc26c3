//! Address spaces.

use crate::round_trip::{restored, round_trips};
use tub_testkit::{Flavour, Memory, Pids, Restore, Subject, Tub, every};

/// The eager halves of [`Flavour::ALL`].
const EAGER: [Flavour; 4] = [Flavour::ALL[4], Flavour::ALL[5], Flavour::ALL[6], Flavour::ALL[7]];

#[test]
fn memory_of_every_kind_survives() {
    round_trips("memory", &Flavour::ALL);
}

#[test]
fn discarded_pages_read_as_zeros_in_exact_memory() {
    round_trips("dontneed", &EAGER);
    // A program of which nothing is known may rely on it.
    round_trips("dontneed", &[Flavour::USUAL]);
}

#[test]
fn wipe_on_fork_memory_is_not_shared_by_copies() {
    round_trips("wipe-on-fork", &[Flavour::USUAL, EAGER[1]]);
}

#[test]
fn thread_local_storage_of_forty_threads_survives() {
    round_trips("memory-tls", &Flavour::ALL);
}

/// Ten copies of one image share its pages; eager ones cannot. This is what `lazy` is for.
#[test]
fn mapped_memory_is_backed_by_the_image_and_eager_memory_is_not() {
    every(&Flavour::ALL, |flavour| {
        if flavour.pids == Pids::New {
            return;
        }
        let copy = restored("memory", flavour);
        let maps = std::fs::read_to_string(copy.process().proc("maps")).unwrap();
        let from_image = maps.lines().filter(|line| line.ends_with("/image/pages.tub")).count();
        match flavour.memory {
            Memory::Lazy => assert!(from_image > 0, "nothing is mapped from the image:\n{maps}"),
            _ => assert_eq!(from_image, 0, "mapped from the image:\n{maps}"),
        }
        copy.go(&flavour.promises());
        copy.verdict();
    });
}

/// No mapping is ever writable and executable unless it was so before.
#[test]
fn nothing_becomes_writable_and_executable() {
    every(&[Flavour::USUAL, EAGER[1]], |flavour| {
        let copy = restored("memory", flavour);
        let maps = std::fs::read_to_string(copy.process().proc("maps")).unwrap();
        let both: Vec<_> = maps.lines().filter(|line| line.contains(" rwxp ")).collect();
        assert!(both.is_empty(), "{both:#?}");
    });
}

/// The survey before the freeze once failed on a JVM whose heap had just grown: `smaps` comes piece
/// by piece, and the pieces did not fit together.
#[test]
fn a_process_that_never_leaves_its_mappings_alone() {
    every(&[Flavour::USUAL], |flavour| {
        let mut life = Subject::new("restless", flavour.user).start();
        for _ in 0..20 {
            let pid = life.command_pid().to_string();
            Tub::new(flavour.user, "status").arg(&pid).run().succeeds();
        }
        let image = life.dir().join("image");
        life.checkpoint_and_end(&image);
        let copy = Restore::of(&life, &image, flavour).start();
        copy.go(&flavour.promises());
        copy.verdict();
    });
}
