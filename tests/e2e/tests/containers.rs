//! The engine inside the default security profiles of Docker and Podman.
//!
//! The profiles are set up by `tub-subject --confined`; both the subject and `tub` live in them.
//! Not here: the engines themselves, and what their own checkpoints need.

use crate::jvm::{Service, WARM_UP, on_each_jdk};
use crate::round_trip::round_trip;
use tub_testkit::{
    Container, Flavour, Memory, Pids, Restore, Subject, User, code, every, is_root, skipped,
};

/// What each profile has to offer: in Docker's other ids, in Podman's the same ones.
const fn flavour(container: Container, root: bool) -> Flavour {
    let user = if root { User::ContainedRoot(container) } else { User::Contained(container) };
    let pids = match container {
        Container::Docker => Pids::New,
        Container::Podman => Pids::Keep,
    };
    Flavour { user, pids, memory: Memory::Auto }
}

const DOCKER: Flavour = flavour(Container::Docker, false);
const PODMAN: Flavour = flavour(Container::Podman, false);

/// One for each kind of thing that a profile could forbid. Not `attributes`, which sets what both
/// profiles do not let it set, nor `ids` in Podman, which looks at its own ids in the /proc of
/// outside.
const SUBJECTS: [&str; 11] = [
    "dontneed",
    "epoll",
    "eventfd",
    "files",
    "identity",
    "memory",
    "memory-tls",
    "pipes",
    "registers",
    "signals",
    "sockets",
];

/// Those whose threads may end while nobody looks.
const TIMED: [&str; 3] = ["futexes", "timers", "waits"];

fn timed_round_trip(name: &str, flavour: Flavour) {
    let mut original = Subject::new(name, flavour.user).start();
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    let copy = Restore::of(&original, &image, flavour).start();
    copy.go(&flavour.promises());
    copy.verdict();
}

#[test]
fn every_kind_of_state_survives_in_default_docker() {
    every(&[DOCKER], |flavour| {
        for name in SUBJECTS.iter().chain(&["ids"]) {
            round_trip(name, flavour);
        }
        for name in TIMED {
            timed_round_trip(name, flavour);
        }
    });
}

#[test]
fn every_kind_of_state_survives_in_default_podman() {
    every(&[PODMAN], |flavour| {
        for name in SUBJECTS {
            round_trip(name, flavour);
        }
        for name in TIMED {
            timed_round_trip(name, flavour);
        }
    });
}

#[test]
fn root_of_a_default_container_can_do_the_same() {
    every(&[flavour(Container::Docker, true), flavour(Container::Podman, true)], |flavour| {
        for name in ["files", "memory", "registers"] {
            round_trip(name, flavour);
        }
    });
}

#[test]
fn where_ids_cannot_be_kept_the_way_out_is_named() {
    if !is_root() {
        return skipped("needs root");
    }
    let mut original = Subject::new("counter", DOCKER.user).start();
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    let kept = Flavour { pids: Pids::Keep, ..DOCKER };
    let restore = Restore::of(&original, &image, kept);
    restore.tub().run().fails_with(code::HOST_LACKS, &["PID namespace", "--pids new"]);
}

#[test]
fn a_jvm_is_warmed_up_once_and_gets_up_several_times_in_both_profiles() {
    if !is_root() {
        return skipped("needs root");
    }
    on_each_jdk(|jdk| {
        for flavour in [DOCKER, PODMAN] {
            let mut original = Service::start_as(flavour.user, jdk, "plain", &[]);
            let image = original.image("image");
            original.instance.checkpoint_and_end(&image);
            let copies = [(); 3].map(|()| original.restore(&image, flavour));
            for copy in &copies {
                assert_eq!(copy.ask("/count"), (WARM_UP + 1).to_string());
                copy.is_well();
                assert_eq!(copy.ask("/told"), "before server\nafter server\n");
            }
        }
    });
}
