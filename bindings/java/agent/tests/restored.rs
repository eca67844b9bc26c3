//! What a copy is told, and what it makes of it.
#![expect(clippy::unwrap_used, reason = "the helpers of a test panic as its body does")]

mod support;

use std::ffi::OsStr;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};
use support::{Java, JavaOptions, SOON, Scratch, jdks, refusal, stand_in_engine};
use tub_control::mailbox::{Restored, encode_restored, join_block};

/// The letter of a copy whose restore was asked for five seconds ago.
fn letter(variables: &[&str], arguments: &[&[u8]]) -> (Vec<u8>, u64) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let restored = Restored {
        instance: "ab".repeat(16),
        generation: 1,
        seed: "cd".repeat(32),
        restore_unix_ms: u64::try_from(now.as_millis()).unwrap() - 5_000,
    };
    let letter = encode_restored(&restored, &join_block(variables), &join_block(arguments));
    (letter.unwrap(), restored.restore_unix_ms)
}

#[test]
fn arguments_are_properties_and_a_new_main_class() {
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "newmain");
        java.register("a");
        let arguments: [&[u8]; 8] = [
            b"-Dfresh=a=b c",
            b"-Dbare",
            b"Subject$Other",
            b"two words",
            "\u{fc}".as_bytes(),
            b"",
            b"-Dx=y",
            b"\xfe\xff",
        ];
        java.checkpoint(&letter(&[], &arguments).0);
        java.expect_all(&["before a", "after a"]);
        let other = java.line();
        // Whatever the last one is in the encoding of this JVM, it is one word.
        assert!(other.starts_with("other user [two words, \u{fc}, , -Dx=y, "), "{other}");
        assert_eq!(java.ask("property fresh"), "property fresh=a=b c");
        assert_eq!(java.ask("property bare"), "property bare=");
        assert_eq!(java.ask("property x"), "property x=null");
    }
}

#[test]
fn a_new_main_class_runs_on_the_thread_that_asked() {
    for jdk in jdks() {
        let engine = stand_in_engine();
        for (arguments, expected) in [
            ("Subject$Other one", &["other daemon [one]", "checkpoint x ok"][..]),
            (
                "No$Such",
                &[
                    "checkpoint x RestoreException | Exception: Failed to execute the new main entry: \
                   new main class = 'No$Such', new main arguments = []. Do not specify these if you \
                   just wish to continue the checkpointed execution.",
                ][..],
            ),
            (
                "-Xmx1g",
                &[
                    "checkpoint x RestoreException | IllegalArgumentException: -Xmx1g: a restored JVM \
                   takes -Dname=value, -XX:StartFlightRecording, or a class and its arguments",
                ][..],
            ),
        ] {
            let variables = [
                ("TUB_COMMAND", engine.as_os_str()),
                ("TUB_IMAGE", OsStr::new("/images/inside")),
                ("TUB_TEST_ENGINE", OsStr::new("restored")),
                ("TUB_TEST_ARGUMENTS", OsStr::new(arguments)),
            ];
            let options =
                JavaOptions { name: "asked", variables: &variables, ..JavaOptions::default() };
            let mut java = Java::subject_with(&jdk, &options);
            java.tell("checkpoint x");
            java.expect_all(expected);
        }
    }
}

#[test]
fn uptime_counts_from_the_restore() {
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "uptime");
        // Twice: a copy can be checkpointed again.
        for _ in 0..2 {
            let (letter, restored_at) = letter(&[], &[]);
            java.checkpoint(&letter);
            java.await_running();
            let line = java.ask("uptime");
            let mut words = line.split(' ').skip(1).map(|word| word.parse::<u64>().unwrap());
            assert_eq!(words.next(), Some(restored_at));
            assert!((5_000..60_000).contains(&words.next().unwrap()), "{line}");
        }
    }
}

#[test]
fn the_time_zone_follows_the_environment_unless_it_was_set() {
    for jdk in jdks() {
        for (flags, expected) in [
            (&[][..], "zone Asia/Tokyo"),
            (&["-Duser.timezone=Europe/Berlin"][..], "zone Europe/Berlin"),
        ] {
            let variables = [("TZ", OsStr::new("America/New_York"))];
            let options = JavaOptions {
                name: "zone",
                flags,
                variables: &variables,
                ..JavaOptions::default()
            };
            let mut java = Java::subject_with(&jdk, &options);
            assert_ne!(java.ask("zone"), "zone Asia/Tokyo");
            java.checkpoint(&letter(&["TZ=Asia/Tokyo"], &[]).0);
            java.await_running();
            assert_eq!(java.ask("zone"), expected);
        }
    }
}

#[test]
fn host_names_are_looked_up_anew() {
    for jdk in jdks() {
        let scratch = Scratch::new("hosts");
        let hosts = scratch.0.join("hosts");
        std::fs::write(&hosts, "10.0.0.1 peer.test\n").unwrap();
        let flag = format!("-Djdk.net.hosts.file={}", hosts.display());
        let flags = [flag.as_str()];
        let options = JavaOptions { name: "names", flags: &flags, ..JavaOptions::default() };
        let mut java = Java::subject_with(&jdk, &options);
        assert_eq!(java.ask("resolve peer.test"), "resolve 10.0.0.1");
        std::fs::write(&hosts, "10.0.0.2 peer.test\n").unwrap();
        assert_eq!(java.ask("resolve peer.test"), "resolve 10.0.0.1");
        java.checkpoint(&letter(&[], &[]).0);
        java.await_running();
        assert_eq!(java.ask("resolve peer.test"), "resolve 10.0.0.2");
    }
}

#[test]
fn recordings_are_ended_for_the_image_and_go_on_afterwards() {
    let is_chunk = |path: &Path| path.extension() == Some(OsStr::new("jfr"));
    let open_chunks = |java: &Java| {
        let open = std::fs::read_dir(format!("/proc/{}/fd", java.pid())).unwrap();
        open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
            .filter(|path| is_chunk(path))
            .count()
    };
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "jfr");
        assert_eq!(java.ask("record mine"), "recording mine");
        assert_ne!(open_chunks(&java), 0);
        let mut engine = java.client();
        engine.prepare(SOON).unwrap();
        assert_eq!(open_chunks(&java), 0);
        engine.abort("seen", &[]).unwrap();
        java.await_running();
        assert_eq!(java.ask("recordings"), "recordings mine RUNNING");
        java.checkpoint(&letter(&[], &[]).0);
        java.await_running();
        assert_eq!(java.ask("recordings"), "recordings mine RUNNING");
    }
}

/// It was started a second time, beside itself.
#[test]
fn a_recording_that_cannot_be_written_down_refuses_and_goes_on_as_it_was() {
    for jdk in jdks() {
        let scratch = Scratch::new("records");
        let dir = scratch.0.join("dir");
        std::fs::create_dir(&dir).unwrap();
        let file = dir.join("mine.jfr");
        let mut java = Java::subject(&jdk, "unwritten");
        assert_eq!(java.ask(&format!("record mine {}", file.display())), "recording mine");
        std::fs::remove_dir_all(&dir).unwrap();
        let refused = refusal(java.client().prepare(SOON));
        let texts: Vec<_> = refused.failures.iter().map(|failure| &*failure.message).collect();
        let expected =
            "flight recording mine cannot be written down: java.nio.file.NoSuchFileException: ";
        assert!(texts.len() == 1 && texts[0].starts_with(expected), "{texts:?}");
        java.await_running();
        assert_eq!(java.ask("recordings"), "recordings mine RUNNING");
        std::fs::create_dir(&dir).unwrap();
        java.checkpoint(&letter(&[], &[]).0);
        java.await_running();
        assert_eq!(java.ask("recordings"), "recordings mine RUNNING");
        assert!(file.metadata().unwrap().len() > 0);
    }
}

/// It ended with its recording on JDK 17 when a checkpoint was refused, as it is a file left open.
#[test]
fn a_stream_of_events_goes_on_after_a_refusal_and_in_a_copy() {
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "stream");
        assert_eq!(java.ask("stream"), "streaming");
        assert_eq!(java.ask("streamed"), "streamed true");
        for _ in 0..2 {
            let mut engine = java.client();
            engine.prepare(SOON).unwrap();
            engine.abort("a file is left open", &[]).unwrap();
            java.await_running();
            assert_eq!(java.ask("streamed"), "streamed true", "{jdk:?}");
        }
        java.checkpoint(&letter(&[], &[]).0);
        java.await_running();
        assert_eq!(java.ask("streamed"), "streamed true", "{jdk:?}");
    }
}

#[test]
fn remote_management_can_be_asked_for_at_a_restore() {
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "jmx");
        java.register("a");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let port_argument = format!("-Dcom.sun.management.jmxremote.port={port}");
        let arguments: [&[u8]; 3] = [
            port_argument.as_bytes(),
            b"-Dcom.sun.management.jmxremote.authenticate=false",
            b"-Dcom.sun.management.jmxremote.ssl=false",
        ];
        java.checkpoint(&letter(&[], &arguments).0);
        java.expect_all(&["before a", "after a"]);
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(start.elapsed() < SOON, "nobody listens on {port}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
