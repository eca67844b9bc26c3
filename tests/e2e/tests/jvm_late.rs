//! A JVM that was started without us: `tub checkpoint` brings it the agent.

use crate::jvm::{Service, WARM_UP, ignorant_service, on_each_jdk, on_each_jdk_and_21};
use crate::jvm_random::draws;
use std::time::Duration;
use tub_testkit::{Flavour, Restore, User, code, wait_for};

/// An instance where the original was, as its listening socket came back with it.
fn copy_of(original: &Service, image: &std::path::Path, user: User) -> Service {
    let flavour = Flavour { user, ..Flavour::USUAL };
    let restore = Restore::of(&original.instance, image, flavour);
    let instance = restore.args(&["--env", "GREETING=anew"]).start();
    Service { instance, port: original.port }
}

#[test]
fn a_jvm_started_without_us_is_given_the_agent() {
    on_each_jdk_and_21(|jdk| {
        for user in [User::Root, User::Ordinary] {
            let mut original = ignorant_service(user, jdk, "draws", &[]);
            let has_drawn = || (draws(&original).len() > 20).then_some(());
            wait_for(Duration::from_secs(60), has_drawn).expect("the generators are never ready");
            let image = original.image("image");
            let finished = original.instance.checkpoint(&image, &[]).succeeds();
            for words in ["started without `tub run`", "limit: hooks of whoever", "org.crac"] {
                assert!(finished.stderr.contains(words), "no {words:?}: {finished}");
            }
            original.instance.wait();
            let told = original.instance.output();
            assert!(!told.contains("Full thread dump"), "{told}");
            // From JDK 21 on the JVM itself says what it was made to do.
            let warned = original.instance.complaints().contains("has been loaded dynamically");
            assert_eq!(warned, jdk.version >= 21, "{}", original.instance.tell());
            let drawn = [(); 2].map(|()| {
                let copy = copy_of(&original, &image, user);
                assert_eq!(copy.ask("/count"), (WARM_UP + 1).to_string());
                copy.is_well();
                // What only the agent does; a service that closed nothing answers before that.
                let is_told = || {
                    let told = copy.ask("/env?GREETING") == "anew" && copy.ask("/restored") != "-1";
                    told.then_some(())
                };
                let told = wait_for(Duration::from_secs(60), is_told);
                assert!(told.is_some(), "{}", copy.instance.tell());
                draws(&copy)
            });
            let of_the_jdk =
                |kind: &str| !["fixed Random", "fixed SplittableRandom"].contains(&kind);
            for (kind, value) in drawn[0].iter().filter(|(kind, _)| of_the_jdk(kind)) {
                // It learns from its hooks that it was restored, and they are not called.
                if value != "unused" {
                    assert_ne!(Some(value), drawn[1].get(kind), "{kind} is the same in both");
                }
            }
        }
    });
}

#[test]
fn a_jvm_that_lets_no_tool_in_is_not_touched() {
    on_each_jdk(|jdk| {
        for (options, words) in [
            (&["-XX:+DisableAttachMechanism"][..], "-XX:+DisableAttachMechanism"),
            (&["-XX:+DisableAttachMechanism", "-XX:-UsePerfData"], "-XX:+DisableAttachMechanism"),
            (&["-XX:-EnableDynamicAgentLoading"], "EnableDynamicAgentLoading"),
        ] {
            let service = ignorant_service(User::Ordinary, jdk, "plain", options);
            service.refuses(&[], code::REFUSED, &[words, "--no-attach", "was not stopped"]);
            let told = service.instance.output();
            assert!(!told.contains("Full thread dump"), "{options:?}: {told}");
            let complaints = service.instance.complaints();
            assert!(!complaints.contains("tub:"), "{options:?}: {complaints}");
        }
    });
}
