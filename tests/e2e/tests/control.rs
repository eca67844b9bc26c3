//! The control run: every subject passes its own check without checkpoint and restore. Where one
//! fails here, its verdict about the engine means nothing.

use tub_testkit::{Flavour, Subject, User, alone, every};

/// Subjects that look at the clock, which want the machine to themselves.
const TIMED: [&str; 3] = ["futexes", "timers", "waits"];

/// All others that end by *go* alone (`exit` ends with a code of its own).
const UNTIMED: [&str; 34] = [
    "allocator",
    "attributes",
    "commons",
    "counter",
    "dontneed",
    "epoll",
    "epoll-odd",
    "eventfd",
    "files",
    "identity",
    "ids",
    "inet",
    "kin",
    "locks",
    "memory",
    "memory-tls",
    "owners",
    "paths",
    "pidfd-of-nobody",
    "pidfds",
    "pipe-eof",
    "pipes",
    "refused",
    "registers",
    "rseq",
    "signal-echo",
    "signals",
    "sockets",
    "tcp-closed",
    "threads-200",
    "tiles",
    "unix",
    "watches",
    "wipe-on-fork",
];

/// Runs `names` at once as `user`.
fn all_pass(names: &[&str], user: User) {
    let subjects: Vec<_> = names.iter().map(|name| Subject::new(name, user).start()).collect();
    for subject in &subjects {
        subject.go("");
    }
    for subject in subjects {
        subject.verdict();
    }
}

#[test]
fn every_subject_passes_without_a_checkpoint() {
    every(&Flavour::LAZY[..2], |flavour| {
        // A few at once: some of them spin on purpose.
        for names in UNTIMED.chunks(4) {
            all_pass(names, flavour.user);
        }
    });
}

#[test]
fn every_timed_subject_passes_without_a_checkpoint() {
    let _alone = alone("time");
    every(&Flavour::LAZY[..2], |flavour| all_pass(&TIMED, flavour.user));
}
