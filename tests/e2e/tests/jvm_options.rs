//! Options of the JVM that a checkpoint must get along with.

use crate::jvm::{Service, ignorant_service, on_each_jdk};
use std::fs;
use std::path::Path;
use tub_testkit::{Flavour, User};

/// What a JVM does at the first `OutOfMemoryError`, whoever gets it.
const ENDS: [&str; 4] = [
    "-XX:+HeapDumpOnOutOfMemoryError",
    "-XX:OnOutOfMemoryError=touch out-of-memory",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:+CrashOnOutOfMemoryError",
];

#[test]
fn what_a_jvm_does_when_it_runs_out_of_memory_is_not_set_off() {
    let traces = |dir: &Path| {
        let names = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.file_name());
        let names = names.filter_map(|name| name.into_string().ok());
        let is_trace = |name: &String| {
            name.contains("hprof") || name.contains("hs_err") || name.contains("out-of")
        };
        names.filter(is_trace).collect::<Vec<_>>()
    };
    on_each_jdk(|jdk| {
        for (collector, options) in [
            ("-XX:+UseZGC", &ENDS[..2]),
            ("-XX:+UseSerialGC", &ENDS[..]),
            ("-XX:+UseZGC", &ENDS[2..]),
        ] {
            // All of the heap is in use already, so that there is no room for anything.
            let mut of_jvm = vec![collector, "-Xms96m", "-Xmx96m"];
            of_jvm.extend(options);
            let mut original = Service::start_on(User::Ordinary, jdk, "plain", (&[], &of_jvm, &[]));
            let image = original.image("image");
            original.instance.checkpoint(&image, &["--leave-running"]).succeeds();
            original.is_well();
            fs::remove_dir_all(&image).unwrap();
            original.instance.checkpoint_and_end(&image);
            let copy = original.restore(&image, Flavour::USUAL);
            copy.is_well();
            let found = traces(copy.instance.dir().path());
            assert!(found.is_empty(), "{of_jvm:?}: {found:?}\n{}", copy.instance.tell());
        }
    });
}

/// A JVM with `-Xrs` leaves signals alone: SIGQUIT, by which tools announce themselves, would end it.
#[test]
fn a_jvm_that_leaves_signals_alone_gets_up_and_is_not_ended_by_us() {
    on_each_jdk(|jdk| {
        let mut original = Service::start_on(User::Ordinary, jdk, "plain", (&[], &["-Xrs"], &[]));
        let image = original.image("image");
        original.instance.checkpoint_and_end(&image);
        let mut copy = original.restore(&image, Flavour::USUAL);
        copy.is_well();
        let second = copy.image("second");
        copy.instance.checkpoint_and_end(&second);
        copy.restore(&second, Flavour::USUAL).is_well();
        // JVM(since 17): such a JVM listens for tools from its start, so that no signal is needed.
        let mut late = ignorant_service(User::Ordinary, jdk, "plain", &["-Xrs"]);
        let image = late.image("image");
        late.instance.checkpoint_and_end(&image);
    });
}

/// `-XX:CRaCIgnoredFileDescriptors` is this option. Java sees them with no object, and they refuse nothing.
#[test]
fn inherited_descriptors_are_closed_at_the_start_unless_they_are_to_be_kept() {
    on_each_jdk(|jdk| {
        for (options, kept) in [(&["--keep-fds=9"][..], true), (&[], false)] {
            let mut original = Service::start_inheriting(jdk, 9, options);
            // The JVM may have another file under that number.
            let has_it = |service: &Service| {
                let path = fs::read_link(service.instance.process().proc("fd/9"));
                path.is_ok_and(|path| path.ends_with("inherited"))
            };
            assert_eq!(has_it(&original), kept, "{options:?}");
            let image = original.image("image");
            original.instance.checkpoint_and_end(&image);
            let copy = original.restore(&image, Flavour::USUAL);
            copy.is_well();
            assert_eq!(has_it(&copy), kept, "{options:?}\n{}", copy.instance.tell());
        }
    });
}
