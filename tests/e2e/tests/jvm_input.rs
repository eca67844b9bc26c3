//! What a JVM is given at a restore, and what it gives back.

use crate::http::free_port;
use crate::jvm::{Service, on_each_jdk};
use std::fs::{self, File};
use std::process::Command;
use std::time::Duration;
use tub_testkit::{Flavour, Pids, Restore, run_bounded, wait_for};

#[test]
fn a_new_main_class_has_arguments_properties_streams_and_an_exit_status() {
    on_each_jdk(|jdk| {
        let mut original = Service::start(jdk, "plain");
        let image = original.image("image");
        original.instance.checkpoint_and_end(&image);
        let letter = original.image("letter");
        fs::write(&letter, "hello from outside\n").unwrap();
        for pids in [Pids::Keep, Pids::New] {
            let restore =
                Restore::of(&original.instance, &image, Flavour { pids, ..Flavour::USUAL });
            let port = format!("SERVICE_PORT={}", free_port());
            let restore = restore.args(&["--env", "WHERE=here", "--env", &port]);
            let words = ["--", "-Dwhom=the world", "Service$Farewell", "a b", "", "\u{fc}*"];
            let mut command: Command = restore.tub().args(&words).command();
            command.stdin(File::open(&letter).unwrap());
            let finished = run_bounded(command, Duration::from_secs(60));
            assert_eq!(finished.status.code(), Some(7), "{finished}");
            // As the locale of the original writes it.
            let line = finished.stdout.lines().find(|line| line.starts_with("farewell"));
            let line = line.unwrap_or_else(|| panic!("no farewell: {finished}"));
            assert!(line.starts_with("farewell a b||"), "{line}");
            assert!(
                line.ends_with("* to the world from here, who said hello from outside"),
                "{line}"
            );
        }
    });
}

/// `Ctrl-C` reaches the JVM, whose shutdown hooks run.
#[test]
fn signals_reach_the_jvm() {
    on_each_jdk(|jdk| {
        let mut original = Service::start(jdk, "plain");
        let image = original.image("image");
        original.instance.checkpoint_and_end(&image);
        let mut copy = original.restore(&image, Flavour::USUAL);
        copy.is_well();
        let command = copy.instance.command_pid();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(command),
            nix::sys::signal::Signal::SIGTERM,
        )
        .unwrap();
        // As a JVM ends that was never checkpointed: 128 and the signal.
        let status = copy.instance.wait();
        assert_eq!(status.code(), Some(128 + 15), "{}", copy.instance.tell());
        let said = || copy.instance.output().contains("shutdown hook").then_some(());
        wait_for(Duration::from_secs(10), said).expect("the hook has not run");
    });
}
