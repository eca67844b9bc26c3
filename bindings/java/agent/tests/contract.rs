//! The corners of the API that applications and their tests rely on.

mod support;

use std::ffi::OsStr;
use std::time::Duration;
use support::{Java, JavaOptions, SOON, jdks, stand_in_engine};
use tub_control::RefusalKind;

#[test]
fn nobody_registers_nothing() {
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "null");
        assert_eq!(java.ask("register-null"), "refused");
    }
}

#[test]
fn equal_resources_are_told_apart() {
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "equal");
        assert_eq!(java.ask("register-equal a b c"), "registered");
        let mut engine = java.client();
        engine.prepare(SOON).unwrap();
        java.expect_all(&["before c", "before b", "before a"]);
        engine.abort("seen", &[]).unwrap();
        java.expect_all(&["after a", "after b", "after c"]);
    }
}

#[test]
fn a_resource_registered_by_an_after_hook_takes_part_in_the_next_round() {
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "afterwards");
        java.register("a - register");
        let mut engine = java.client();
        engine.prepare(SOON).unwrap();
        engine.abort("once", &[]).unwrap();
        java.expect_all(&["before a", "after a"]);
        java.register("a");
        java.client().prepare(SOON).unwrap();
        java.expect_all(&["before a", "before late", "after late", "after a"]);
    }
}

/// As a property makes it, and as CRaC JDKs of 17 and 21 do without one.
#[test]
fn a_blocking_context_lets_threads_wait_that_register_meanwhile() {
    for jdk in jdks() {
        for (impl_name, blocks) in [("BlockingOrderedContext", true), ("OrderedContext", false)] {
            let flag = format!("-Djdk.crac.globalContext.impl={impl_name}");
            let flags = [flag.as_str()];
            let options = JavaOptions { name: "blocking", flags: &flags, ..JavaOptions::default() };
            let mut java = Java::subject_with(&jdk, &options);
            // Registers by itself as well, which must not make it wait for itself.
            java.register("a register");
            let mut engine = java.client();
            engine.prepare(SOON).unwrap();
            java.expect("before a");
            java.tell("register-aside b");
            if blocks {
                java.expect_silence();
                engine.abort("enough", &[]).unwrap();
                let mut lines = [java.line(), java.line()];
                lines.sort_unstable();
                assert_eq!(lines, ["after a", "registered aside"]);
            } else {
                java.expect("registered aside");
            }
        }
    }
}

#[test]
fn the_first_name_of_the_api_works_beside_the_second() {
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "javax");
        java.register("a");
        assert_eq!(java.ask("register-javax b"), "registered b");
        java.register("c");
        let mut engine = java.client();
        let prepared = engine.prepare(SOON).unwrap();
        java.expect_all(&["before c", "before b true", "before a"]);
        assert_eq!(prepared.resources[1], "Old[name=b, objects=false]");
        engine.abort("seen", &[]).unwrap();
        java.expect_all(&["after a", "after b", "after c"]);
        assert_eq!(java.ask("register-javax d objects"), "registered d");
        let refused = support::refusal(java.client().prepare(Duration::from_secs(20)));
        assert_eq!(refused.kind, RefusalKind::ResourceFailed);
        assert_eq!(refused.failures[0].message, "d objects");
        java.expect_all(&["before d true", "before c", "before b true", "before a"]);
        java.expect_all(&["after a", "after b", "after c", "after d"]);
        java.await_running();
        java.tell("checkpoint-javax");
        java.expect_all(&["before d true", "before c", "before b true", "before a"]);
        java.expect_all(&["after a", "after b", "after c", "after d"]);
        java.expect("javax [java.lang.IllegalStateException: d objects]");
    }
}

/// With the property each exception leads to where its descriptor was opened.
#[test]
fn what_is_left_open_is_traced_to_its_source() {
    for jdk in jdks() {
        let engine = stand_in_engine();
        let scratch = support::Scratch::new("traced");
        for traced in [true, false] {
            let flag = format!("-Djdk.crac.collect-fd-stacktraces={traced}");
            let flags = [flag.as_str()];
            let variables = [
                ("TUB_COMMAND", engine.as_os_str()),
                ("TUB_IMAGE", OsStr::new("/images/inside")),
                ("TUB_TEST_ENGINE", OsStr::new("left-open")),
            ];
            let options = JavaOptions {
                name: "traced",
                flags: &flags,
                variables: &variables,
                ..JavaOptions::default()
            };
            let mut java = Java::subject_with(&jdk, &options);
            let kinds = ["Stream", "Channel", "Server", "ServerChannel", "Datagram"];
            for kind in kinds {
                let path = scratch.0.join(kind);
                assert_eq!(java.ask(&format!("leave {kind} {}", path.display())), "left");
            }
            let answer = java.ask("checkpoint x");
            let open: Vec<&str> = answer.split(" | ").skip(1).collect();
            assert_eq!(open.len(), kinds.len(), "{answer}");
            for (kind, open) in kinds.iter().zip(open) {
                let is_file = matches!(*kind, "Stream" | "Channel");
                let start = if is_file {
                    format!("CheckpointOpenFileException: {}", scratch.0.join(kind).display())
                } else {
                    "CheckpointOpenSocketException: ".to_owned()
                };
                assert!(open.starts_with(&start), "{open}");
                let source = format!("here, in Subject.leave{kind}");
                assert_eq!(open.ends_with(&source), traced, "{open}");
                let by = "<- This file descriptor was created by main at epoch:";
                assert_eq!(open.contains(by), traced, "{open}");
            }
        }
    }
}

#[test]
fn a_property_names_the_rules_for_open_descriptors() {
    for jdk in jdks() {
        let scratch = support::Scratch::new("property");
        let (policy, log) = (scratch.0.join("policy"), scratch.0.join("app.log"));
        let flag = format!("-Djdk.crac.resource-policies={}", policy.display());
        let flags = [flag.as_str()];
        let options = JavaOptions { name: "property", flags: &flags, ..JavaOptions::default() };
        let mut java = Java::subject_with(&jdk, &options);
        assert_eq!(java.ask(&format!("open {}", log.display())), "opened");
        let refused = support::refusal(java.client().prepare(SOON));
        assert!(refused.message.contains("property jdk.crac.resource-policies does not exist"));
        let text = format!("type: file\npath: {}\naction: reopen\n", log.display());
        std::fs::write(&policy, text).unwrap();
        let prepared = java.client().prepare(SOON).unwrap();
        let is_log = |fd: &&i32| {
            let link = format!("/proc/{}/fd/{fd}", java.pid());
            std::fs::read_link(link).is_ok_and(|target| target == log)
        };
        assert_eq!(prepared.private_fds.iter().filter(is_log).count(), 1);
    }
}
