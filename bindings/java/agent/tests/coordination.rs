//! Rounds of notifications as an engine sees and brings them about.
#![expect(clippy::unwrap_used, reason = "the helpers of a test panic as its body does")]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use support::{Java, JavaOptions, SOON, jdks, refusal};
use tub_control::mailbox::{
    Failed, Restored, Resumed, encode_failed, encode_restored, encode_resumed, join_block,
};
use tub_control::{OpenRule, RefusalKind, State};

fn resumed(generation: u64) -> Vec<u8> {
    encode_resumed(&Resumed { image: "/images/x".into(), generation }).unwrap()
}

#[test]
fn before_hooks_run_in_reverse_order_and_after_hooks_in_order() {
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "order");
        for name in ["a", "b", "c"] {
            java.register(name);
        }
        let mut engine = java.client();
        let prepared = engine.prepare(SOON).unwrap();
        java.expect_all(&["before c", "before b", "before a"]);
        java.expect_silence();
        assert_eq!(prepared.resources, ["resource a", "resource b", "resource c"]);
        assert_eq!(prepared.open, OpenRule::Refuse);
        assert!(prepared.runtime.contains("Server VM"), "{}", prepared.runtime);
        assert!(prepared.mailbox.range().is_some());
        // Among them the control socket and this very conversation.
        assert!(prepared.private_fds.len() >= 3, "{:?}", prepared.private_fds);
        let home = jdk.to_string_lossy().into_owned();
        assert!(prepared.allowed_paths.contains(&home), "{:?}", prepared.allowed_paths);
        assert_eq!(java.status().state, State::Prepared);
        engine.abort("not today", &[]).unwrap();
        java.expect_all(&["after a", "after b", "after c"]);
        let status = java.status();
        assert_eq!(status.state, State::Running);
        assert_eq!(status.generation, 0);
    }
}

#[test]
fn the_original_resumes_after_an_image_many_times() {
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "resumed");
        java.register("a");
        for generation in 1..=3 {
            java.checkpoint(&resumed(generation));
            java.expect_all(&["before a", "after a"]);
            assert_eq!(java.status().generation, generation);
            assert_eq!(java.ask("bean"), "bean -1 -1");
        }
    }
}

#[test]
fn a_copy_knows_its_time_and_its_environment() {
    for jdk in jdks() {
        let changed = [("CHANGED", "old".as_ref()), ("KEPT", "kept".as_ref())];
        let options =
            JavaOptions { name: "restored", variables: &changed, ..JavaOptions::default() };
        let mut java = Java::subject_with(&jdk, &options);
        java.register("a");
        assert_eq!(java.ask("env CHANGED"), "env CHANGED=old");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let restored = Restored {
            instance: "ab".repeat(16),
            generation: 1,
            seed: "cd".repeat(32),
            restore_unix_ms: u64::try_from(now.as_millis()).unwrap() - 5_000,
        };
        let variables = ["CHANGED=new", "FRESH=a=b", "UTF8=\u{fc}", "=odd=1", "EMPTY="];
        let letter = encode_restored(&restored, &join_block(variables), &[]).unwrap();
        java.checkpoint(&letter);
        java.expect_all(&["before a", "after a"]);
        for line in ["CHANGED=new", "FRESH=a=b", "KEPT=kept", "EMPTY=", "ABSENT=null"] {
            let name = line.split('=').next().unwrap();
            assert_eq!(java.ask(&format!("env {name}")), format!("env {line}"));
        }
        let bean = java.ask("bean");
        let mut words = bean.split(' ').skip(1);
        let time: u64 = words.next().unwrap().parse().unwrap();
        let uptime: u64 = words.next().unwrap().parse().unwrap();
        assert_eq!(time, restored.restore_unix_ms);
        assert!((5_000..60_000).contains(&uptime), "{uptime}");
        assert_eq!(java.status().generation, 1);
    }
}

#[test]
fn a_failed_image_is_told_through_the_mailbox() {
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "failed");
        java.register("a");
        let failed = Failed { message: "the disk is full".into(), failures: vec![] };
        java.checkpoint(&encode_failed(&failed).unwrap());
        java.expect_all(&["before a", "after a"]);
        assert_eq!(java.status().generation, 0);
    }
}

#[test]
fn an_engine_that_never_writes_is_given_up() {
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "silent");
        java.register("a");
        let mut engine = java.client();
        engine.prepare(SOON).unwrap();
        engine.commit(Duration::from_millis(300)).unwrap();
        java.expect_all(&["before a", "after a"]);
        java.await_running();
    }
}

#[test]
fn after_a_commit_no_control_descriptor_is_open() {
    for jdk in jdks() {
        let java = Java::subject(&jdk, "closed");
        let mut bystander = java.client();
        bystander.status().unwrap();
        let mut engine = java.client();
        let prepared = engine.prepare(SOON).unwrap();
        engine.commit(SOON).unwrap();
        assert_eq!(java.sockets(), Vec::<std::path::PathBuf>::new());
        assert!(bystander.status().is_err());
        assert!(tub_control::Client::find(java.pid()).unwrap().is_none());
        java.post(&prepared, &resumed(1));
        java.status();
    }
}

#[test]
fn a_connection_that_ends_has_aborted() {
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "dropped");
        java.register("a");
        let mut engine = java.client();
        engine.prepare(SOON).unwrap();
        drop(engine);
        java.expect_all(&["before a", "after a"]);
    }
}

#[test]
fn a_resource_that_throws_refuses_and_all_are_told() {
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "throws");
        java.register("a");
        java.register("b throw");
        java.register("c nested");
        java.register("d error");
        let refused = refusal(java.client().prepare(SOON));
        assert_eq!(refused.kind, RefusalKind::ResourceFailed);
        let failures: Vec<_> = refused
            .failures
            .iter()
            .map(|f| (f.type_name.as_str(), f.message.as_str(), f.resource.as_deref().unwrap()))
            .collect();
        assert_eq!(
            failures,
            [
                ("java.lang.StackOverflowError", "d overflows", "resource d"),
                ("java.lang.IllegalStateException", "c one", "resource c"),
                ("java.lang.IllegalStateException", "c two", "resource c"),
                ("java.lang.IllegalStateException", "b objects", "resource b"),
            ]
        );
        java.expect_all(&["before d", "before c", "before b", "before a"]);
        java.expect_all(&["after a", "after b", "after c", "after d"]);
        for name in ["b", "c", "d"] {
            java.register(name);
        }
        java.client().prepare(SOON).unwrap();
    }
}

#[test]
fn a_resource_that_hangs_is_named_and_the_others_go_on_at_once() {
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "hangs");
        java.register("a");
        java.register("b hang");
        java.register("c");
        java.register("d");
        let start = Instant::now();
        let refused = refusal(java.client().prepare(Duration::from_secs(2)));
        assert!(start.elapsed() < SOON);
        assert_eq!(refused.kind, RefusalKind::TimedOut);
        assert_eq!(refused.message, "resource b: did not return within 2000 ms");
        java.expect_all(&["before d", "before c", "before b", "after c", "after d"]);
        // Until it returns there can be no other round, and the service answers all the same.
        assert_eq!(java.ask("env NOTHING"), "env NOTHING=null");
        assert_eq!(java.status().state, State::Preparing);
        let refused = refusal(java.client().prepare(SOON));
        assert_eq!(refused.kind, RefusalKind::Busy);
        assert!(refused.message.contains("resource b"), "{}", refused.message);
        java.tell("release");
        java.expect_all(&["released b", "after b"]);
        java.register("b");
        java.await_running();
        java.client().prepare(SOON).unwrap();
        java.expect_all(&["before b", "before d", "before c", "before a"]);
    }
}

#[test]
fn a_resource_that_heeds_its_interrupt_frees_the_round() {
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "dozes");
        java.register("a");
        java.register("b doze");
        let refused = refusal(java.client().prepare(Duration::from_secs(2)));
        assert_eq!(refused.kind, RefusalKind::TimedOut);
        java.expect_all(&["before b", "after b"]);
        java.await_running();
    }
}

#[test]
fn of_two_engines_one_is_told_that_the_other_is_at_work() {
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "two");
        java.register("a nap");
        let (mut first, mut second) = (java.client(), java.client());
        let worker = thread::spawn(move || first.prepare(SOON).map(|_| first));
        java.expect("before a");
        assert_eq!(second.status().unwrap().state, State::Preparing);
        assert_eq!(refusal(second.prepare(SOON)).kind, RefusalKind::Busy);
        let first = worker.join().unwrap().unwrap();
        first.abort("enough", &[]).unwrap();
        java.expect("after a");
        second.prepare(SOON).unwrap();
        java.expect("before a");
    }
}

#[test]
fn another_version_of_the_protocol_is_refused() {
    for jdk in jdks() {
        let java = Java::subject(&jdk, "version");
        java.status();
        let mut stream = UnixStream::connect(&java.sockets()[0]).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(b"{\"v\":2,\"op\":\"prepare\"}\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("\"kind\":\"version\""), "{answer}");
    }
}

#[test]
fn resources_are_held_weakly_and_by_identity() {
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "weak");
        for name in ["a", "b", "c"] {
            java.register(name);
        }
        // Registered twice it has the later place.
        java.register("a");
        java.tell("drop b");
        java.expect("dropped b");
        java.checkpoint(&resumed(1));
        java.expect_all(&["before a", "before c", "after c", "after a"]);
    }
}

#[test]
fn a_resource_registered_during_a_round_waits_for_the_next() {
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "late");
        java.register("a register");
        java.checkpoint(&resumed(1));
        java.expect_all(&["before a", "after a"]);
        java.status();
        java.register("a");
        java.checkpoint(&resumed(2));
        java.expect_all(&["before a", "before late", "after late", "after a"]);
    }
}

#[test]
fn the_jvm_lives_on_between_the_hooks_without_a_thread_of_the_application() {
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "alive");
        java.register("a");
        let mut engine = java.client();
        let prepared = engine.prepare(SOON).unwrap();
        java.expect("before a");
        java.tell("end-main");
        java.expect("main ends");
        engine.commit(SOON).unwrap();
        thread::sleep(Duration::from_millis(200));
        java.post(&prepared, &resumed(1));
        java.expect("after a");
        assert_eq!(java.wait().0, Some(0));
    }
}

#[test]
fn the_heap_is_small_for_the_image_and_free_again_afterwards() {
    for jdk in jdks() {
        for collector in ["-XX:+UseG1GC", "-XX:+UseSerialGC", "-XX:+UseParallelGC"] {
            let flags = [collector];
            let options = JavaOptions { name: "heap", flags: &flags, ..JavaOptions::default() };
            let mut java = Java::subject_with(&jdk, &options);
            assert_eq!(java.ask("garbage"), "garbage 100");
            let ratio = java.ask("flag MaxHeapFreeRatio");
            let before = java.stored_mib();
            let mut engine = java.client();
            engine.prepare(SOON).unwrap();
            let during = java.stored_mib();
            println!("{} {collector}: {before} MiB, {during} MiB prepared", jdk.display());
            assert!(during < 60, "{collector}: {before} MiB, then {during} MiB");
            engine.abort("measured", &[]).unwrap();
            assert_eq!(java.ask("flag MaxHeapFreeRatio"), ratio);
        }
    }
}

#[test]
fn a_policy_leaves_descriptors_to_the_engine() {
    for jdk in jdks() {
        let scratch = support::Scratch::new("policy");
        let (policy, log) = (scratch.0.join("policy"), scratch.0.join("app.log"));
        let text = format!("type: file\npath: {}/*.log\naction: reopen\n", scratch.0.display());
        std::fs::write(&policy, text).unwrap();
        let variables = [("TUB_POLICY", policy.as_os_str()), ("TUB_OPEN", "restore".as_ref())];
        let options =
            JavaOptions { name: "policies", variables: &variables, ..JavaOptions::default() };
        let mut java = Java::subject_with(&jdk, &options);
        let opened = java.ask(&format!("open {}", log.display()));
        assert_eq!(opened, "opened");
        let mut engine = java.client();
        let prepared = engine.prepare(SOON).unwrap();
        assert_eq!(prepared.open, OpenRule::Restore);
        let is_log = |fd: &&i32| {
            let link = format!("/proc/{}/fd/{fd}", java.pid());
            std::fs::read_link(link).is_ok_and(|target| target == log)
        };
        assert_eq!(prepared.private_fds.iter().filter(is_log).count(), 1);
        engine.abort("seen", &[]).unwrap();
        std::fs::write(&policy, "type: file\naction: shut\n").unwrap();
        let refused = refusal(java.client().prepare(SOON));
        assert_eq!(refused.kind, RefusalKind::Runtime);
        assert!(refused.message.ends_with("line 2: action 'shut' is not known"));
    }
}
