//! The engine inside the default security profiles of Docker and Podman.
//!
//! The profiles are set up by `tub-subject --confined`; both the subject and `tub` live in them.
//! Not here: the engines themselves, and what their own checkpoints need.

use crate::jvm::{Service, WARM_UP, on_each_jdk};
use crate::round_trip::{gets_up_well, round_trip};
use serde_json::Value;
use std::time::Duration;
use tub_testkit::{
    Container, Flavour, Memory, Pids, Restore, Subject, Tub, User, code, every, is_root, skipped,
    wait_for,
};

/// What each profile has to offer: in Docker's other ids, in Podman's the same ones.
const fn flavour(container: Container, root: bool) -> Flavour {
    let user = if root { User::ContainedRoot(container) } else { User::Contained(container) };
    let pids = match container {
        Container::Docker => Pids::New,
        Container::Podman => Pids::Keep,
        Container::Sandbox => panic!("nothing works there"),
    };
    Flavour { user, pids, memory: Memory::Auto }
}

const DOCKER: Flavour = flavour(Container::Docker, false);
const PODMAN: Flavour = flavour(Container::Podman, false);

/// One for each kind of thing that a profile could forbid. Not `attributes`, which sets what both
/// profiles do not let it set, `epoll-odd`, which takes kcmp(2), nor `ids` and `tree` in Podman,
/// which look for their own ids in the /proc of outside.
const SUBJECTS: [&str; 16] = [
    "dontneed",
    "epoll",
    "eventfd",
    "files",
    "identity",
    "inet",
    "kin",
    "locks",
    "memory",
    "memory-tls",
    "pipes",
    "registers",
    "signals",
    "sockets",
    "unix",
    "watches",
];

/// Those whose threads may end while nobody looks, so that nothing of them is compared.
const TIMED: [&str; 3] = ["futexes", "timers", "waits"];

#[test]
fn every_kind_of_state_survives_in_default_docker() {
    every(&[DOCKER], |flavour| {
        for name in SUBJECTS.iter().chain(&["ids", "tree"]) {
            round_trip(name, flavour);
        }
        for name in TIMED {
            gets_up_well(Subject::new(name, flavour.user).start(), flavour);
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
            gets_up_well(Subject::new(name, flavour.user).start(), flavour);
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

/// What `tub check --json` says in `container`; it must end with `code`.
fn checked(container: Container, code: i32) -> Value {
    let said = Tub::new(User::Contained(container), "check").arg("--json").run();
    assert_eq!(said.status.code(), Some(code), "{said}");
    serde_json::from_str(&said.stdout).unwrap()
}

#[test]
fn check_tells_what_a_profile_allows_and_what_follows() {
    if !is_root() {
        return skipped("needs root");
    }
    for (container, keeps) in [(Container::Docker, false), (Container::Podman, true)] {
        let said = checked(container, 0);
        assert_eq!(said["usable"], true, "{said}");
        assert_eq!(said["native"]["restore_new_ids"], true, "{said}");
        assert_eq!(said["native"]["restore_same_ids"], keeps, "{said}");
        let follows = said.to_string();
        assert_eq!(follows.contains("use --pids new"), !keeps, "{said}");
    }
    let said = checked(Container::Sandbox, code::HOST_LACKS);
    assert_eq!(said["native"]["checkpoint"], false, "{said}");
    let page = Tub::new(User::Contained(Container::Sandbox), "check").run();
    page.fails_with(code::HOST_LACKS, &["tracing of a child", "PTRACE_SEIZE"]);
}

/// It asks for the very restore that is possible there, and says so where another one was asked for.
#[test]
fn verify_asks_for_the_restore_that_is_meant() {
    if !is_root() {
        return skipped("needs root");
    }
    let mut original = Subject::new("counter", DOCKER.user).start();
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    let verify = || Tub::new(DOCKER.user, "verify").arg(&image);
    verify().run().fails_with(code::HOST_LACKS, &["no PID namespace", "use --pids new"]);
    let said = verify().args(&["--pids", "new"]).run().succeeds();
    assert!(said.stdout.contains("would restore here"), "{said}");
}

#[test]
fn check_leaves_nobody_behind() {
    let tub = Tub::new(User::Ordinary, "check").arg("--image").arg("/dev/shm");
    let page = tub.run().succeeds().stdout;
    assert!(page.contains("native: checkpoint yes"), "{page}");
    // Helpers are the same program with `--helper`; the one that nobody waits for ends by itself.
    let gone = wait_for(Duration::from_secs(10), || {
        let left = std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            words.windows(8).any(|word| word == b"--helper")
        });
        (!left).then_some(())
    });
    assert!(gone.is_some(), "a helper is left");
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
