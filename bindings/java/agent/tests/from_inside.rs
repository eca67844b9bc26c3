//! Checkpoints that the application asks for itself: `Core.checkpointRestore()`.

mod support;

use std::ffi::OsStr;
use support::{Java, JavaOptions, SOON, jdks, stand_in_engine};

/// A subject whose engine is the stand-in, which ends as said.
fn subject(jdk: &std::path::Path, name: &str, ending: &str) -> Java {
    let engine = stand_in_engine();
    let variables = [
        ("TUB_COMMAND", engine.as_os_str()),
        ("TUB_IMAGE", OsStr::new("/images/inside")),
        ("TUB_TEST_ENGINE", OsStr::new(ending)),
    ];
    Java::subject_with(jdk, &JavaOptions { name, variables: &variables, ..JavaOptions::default() })
}

#[test]
fn the_caller_returns_when_the_round_is_over() {
    for jdk in jdks() {
        let mut java = subject(&jdk, "inside", "resumed");
        assert_eq!(java.status().image.as_deref(), Some("/images/inside"));
        for name in ["a", "b"] {
            java.register(name);
        }
        java.tell("checkpoint one");
        java.expect_all(&["before b", "before a", "after a", "after b", "checkpoint one ok"]);
        assert_eq!(java.status().generation, 1);
        // The engine was not left behind as a child, and neither were its messages.
        let children = format!("/proc/{0}/task/{0}/children", java.pid());
        assert_eq!(std::fs::read_to_string(children).unwrap(), "");
    }
}

#[test]
fn requests_of_several_threads_take_turns() {
    for jdk in jdks() {
        let mut java = subject(&jdk, "turns", "resumed");
        java.register("a nap");
        java.tell("checkpoint one");
        java.tell("checkpoint two");
        let lines: Vec<String> = (0..6).map(|_| java.line()).collect();
        // The first result may come before or after the hooks of the second round.
        let (mut results, hooks): (Vec<&str>, Vec<&str>) =
            lines.iter().map(String::as_str).partition(|line| line.starts_with("checkpoint"));
        results.sort_unstable();
        assert_eq!(results, ["checkpoint one ok", "checkpoint two ok"]);
        assert_eq!(hooks, ["before a", "after a", "before a", "after a"]);
    }
}

#[test]
fn open_descriptors_come_back_as_exceptions() {
    for jdk in jdks() {
        let mut java = subject(&jdk, "refused", "refused");
        java.register("a - throw");
        java.tell("checkpoint one");
        java.expect_all(&["before a", "after a"]);
        java.expect(
            "checkpoint one CheckpointException \
             | CheckpointOpenFileException: FD fd=901 type=file path=/var/log/app.log \
             | CheckpointOpenSocketException: FD fd=902 type=socket path=tcp 127.0.0.1:1 -> 127.0.0.1:2 \
             | CheckpointOpenResourceException: FD fd=903 type=resource path=anon_inode:[io_uring] \
             | IllegalStateException: a objects",
        );
    }
}

#[test]
fn an_engine_that_refuses_before_it_speaks_is_quoted() {
    for jdk in jdks() {
        let mut java = subject(&jdk, "broken", "broken");
        java.register("a");
        java.tell("checkpoint one");
        java.expect(
            "checkpoint one CheckpointException \
             | RuntimeException: stand-in: /images/inside: the image directory exists",
        );
        java.expect_silence();
    }
}

#[test]
fn an_engine_that_is_not_there_is_named() {
    for jdk in jdks() {
        let variables =
            [("TUB_COMMAND", OsStr::new("/no/such/tub")), ("TUB_IMAGE", OsStr::new("/images/x"))];
        let options =
            JavaOptions { name: "absent", variables: &variables, ..JavaOptions::default() };
        let mut java = Java::subject_with(&jdk, &options);
        let answer = java.ask("checkpoint one");
        assert!(
            answer
                .starts_with("checkpoint one CheckpointException | RuntimeException: /no/such/tub"),
            "{answer}"
        );
    }
}

#[test]
fn without_an_engine_the_resources_are_told_all_the_same() {
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "unconfigured");
        java.register("a");
        java.tell("checkpoint one");
        java.expect_all(&["before a", "after a"]);
        java.expect("checkpoint one CheckpointException | RuntimeException: C/R is not configured");
        java.client().prepare(SOON).unwrap();
        java.expect("before a");
    }
}

#[test]
fn a_resource_that_fails_afterwards_makes_a_restore_exception() {
    for jdk in jdks() {
        let mut java = subject(&jdk, "afterwards", "resumed");
        java.register("a - throw");
        java.register("b - interrupt");
        java.tell("checkpoint one");
        java.expect_all(&["before b", "before a", "after a", "after b"]);
        java.expect(
            "checkpoint one RestoreException | IllegalStateException: a objects \
             | InterruptedException: b was interrupted (interrupted)",
        );
    }
}

#[test]
fn a_resource_that_objects_is_quoted_to_the_caller() {
    for jdk in jdks() {
        let mut java = subject(&jdk, "objects", "resumed");
        java.register("a throw");
        java.tell("checkpoint one");
        java.expect_all(&["before a", "after a"]);
        java.expect("checkpoint one CheckpointException | IllegalStateException: a objects");
    }
}

#[test]
fn a_checkpoint_from_within_a_hook_is_refused_and_the_outer_one_goes_on() {
    for jdk in jdks() {
        let mut java = subject(&jdk, "recursive", "resumed");
        java.register("a recurse");
        java.tell("checkpoint one");
        java.expect_all(&[
            "before a",
            "checkpoint recursive CheckpointException \
             | IllegalStateException: Recursive checkpoint is not allowed",
            "after a",
            "checkpoint one ok",
        ]);
    }
}
