//! A checkpoint of a JVM whose command is killed: its resources are told, whoever does it.

use crate::faults::{SOON, checkpoint, chosen, runs_freely, whole_or_nothing};
use crate::jdk::jdks;
use crate::jvm::Service;
use std::fs;
use tub_testkit::{Fault, Flavour, alone, strace, wait_for};

/// Before the application is asked to prepare, it has nothing to be told; while it prepares, it notices
/// the end of the conversation; and once it waits in its mailbox, the guardian writes to it.
#[test]
fn a_command_that_is_killed_leaves_no_resource_waiting() {
    let Some(strace) = strace() else { return };
    let _alone = alone("jvm");
    let Some(jdk) = jdks().pop() else { return };
    let mut service = Service::start(&jdk, "plain");
    let image = service.image("image");
    let traced = checkpoint(&strace, &service.instance, &image, &["--leave-running"]);
    let (finished, calls) = traced.calls();
    finished.succeeds();
    fs::remove_dir_all(&image).unwrap();
    let connected = calls.iter().position(|call| call.name == "connect").unwrap();
    for call in chosen(calls[connected..].to_vec()) {
        let finished = traced.inject(&call, Fault::Kill);
        let what = format!("killed at {call}: {finished}");
        if whole_or_nothing(&image, &what) {
            fs::remove_dir_all(&image).unwrap();
        }
        runs_freely(&service.instance, &what);
        service.is_well();
        let told = || service.ask("/told");
        let all_told = || told().ends_with("after server\n").then_some(());
        assert!(wait_for(SOON, all_told).is_some(), "{what}: {}", told());
        let [before, after] = ["before", "after"].map(|word| told().matches(word).count());
        assert_eq!(before, after, "{what}");
    }
    // It takes part still.
    service.instance.checkpoint_and_end(&image);
    let copy = service.restore(&image, Flavour::USUAL);
    copy.is_well();
}
