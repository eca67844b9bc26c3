//! The same subjects under another engine: what differs is known, or fails.
//!
//! `cargo xtask test` takes a sample; `cargo xtask conformance` takes every subject.
//! Invariant: the ledger (`tests/e2e/ledger.toml`) is exact: an unexpected failure fails, and so does
//! an unexpected success.

use crate::allocators::{self, Allocator, JEMALLOC, MIMALLOC};
use serde::Deserialize;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tub_testkit::{
    Flavour, Instance, Memory, Pids, Restore, Subject, User, criu, run_bounded, subject_binary,
};

/// One of each kind that is quick, and one that differs.
const SAMPLE: [&str; 6] = ["epoll", "eventfd", "files", "memory", "signals", "sockets"];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Ledger {
    difference: Vec<Difference>,
    left_out: Vec<LeftOut>,
}

/// Something that is expected not to work.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    engine: String,
    subject: String,
    at: Stage,
    says: String,
    reason: String,
}

/// How far a subject comes.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Stage {
    Checkpoint,
    Restore,
    Verdict,
}

/// A subject that is no round trip.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeftOut {
    subject: String,
    reason: String,
}

fn ledger() -> Ledger {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ledger.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A subject once more, on an allocator other than the C library's.
const ON_ALLOCATORS: [(&str, Allocator); 2] =
    [("allocator on jemalloc", JEMALLOC), ("allocator on mimalloc", MIMALLOC)];

/// The names that `tub-subject` knows, and those on allocators.
fn subjects() -> Vec<String> {
    let usage = run_bounded(Command::new(subject_binary()), Duration::from_secs(10)).stderr;
    let names = usage.lines().filter_map(|line| line.strip_prefix("  "));
    let names = names.filter(|name| !name.contains(' '));
    names.chain(ON_ALLOCATORS.map(|(name, _)| name)).map(str::to_owned).collect()
}

#[test]
fn the_ledger_speaks_of_subjects_that_there_are_and_says_why() {
    let (ledger, subjects) = (ledger(), subjects());
    assert!(subjects.len() > 20, "{subjects:?}");
    for Difference { subject, reason, .. } in &ledger.difference {
        assert!(subjects.contains(subject), "{subject} is no subject");
        assert!(reason.len() > 20, "{subject}: that is no reason: {reason}");
    }
    for LeftOut { subject, reason } in &ledger.left_out {
        assert!(subjects.contains(subject), "{subject} is no subject");
        assert!(reason.len() > 10, "{subject}: that is no reason: {reason}");
    }
}

#[test]
fn subjects_under_criu_differ_only_as_the_ledger_says() {
    let Some(criu) = criu() else { return };
    let ledger = ledger();
    let all = std::env::var("TUB_CONFORMANCE").is_ok_and(|which| which == "all");
    let names = if all { subjects() } else { SAMPLE.map(str::to_owned).to_vec() };
    let left_out = |name: &String| ledger.left_out.iter().any(|left| left.subject == *name);
    let mut surprises = Vec::new();
    for name in names.iter().filter(|name| !left_out(name)) {
        let known =
            ledger.difference.iter().find(|known| known.engine == "criu" && known.subject == *name);
        let found = under_criu(name, &criu);
        if all {
            eprintln!("{name}: {}", found.as_ref().err().map_or("same", |(_, said)| said.trim()));
        }
        match (found, known) {
            (Ok(()), None) => {}
            (Err((stage, said)), Some(known))
                if stage == known.at && said.contains(&known.says) => {}
            (Ok(()), Some(known)) => {
                surprises.push(format!(
                    "{name} came back the same, but the ledger says: {}",
                    known.says
                ));
            }
            (Err((stage, said)), _) => surprises.push(format!("{name} at {stage:?}: {said}")),
        }
    }
    assert!(surprises.is_empty(), "not as in the ledger:\n{}", surprises.join("\n"));
}

/// A round trip under CRIU; how far it came and what was said, where it went wrong.
fn under_criu(name: &str, criu: &Path) -> Result<(), (Stage, String)> {
    let flavour = Flavour { user: User::Root, pids: Pids::Keep, memory: Memory::Auto };
    let on_allocator = ON_ALLOCATORS.iter().find(|(known, _)| *known == name);
    let subject = match on_allocator {
        Some((_, allocator)) => match allocators::subject(*allocator, flavour.user) {
            Some(subject) => subject,
            // It says itself what is lacking.
            None => return Ok(()),
        },
        None => Subject::new(name, flavour.user),
    };
    let mut original = subject.start();
    let image = original.dir().join("image");
    let engine = ["--engine", "criu", "--criu", criu.to_str().unwrap()];
    let mut options = engine.to_vec();
    // It is about what becomes of connections by that policy; our own engine's tests ask for it, too.
    if name == "tcp-closed" {
        options.extend(["--tcp", "close"]);
    }
    let taken = original.checkpoint(&image, &options);
    if !taken.status.success() {
        return Err((Stage::Checkpoint, taken.stderr));
    }
    original.wait();
    let restore = Restore::of(&original, &image, flavour).args(&engine[2..]);
    let mut copy: Instance = restore.try_start().map_err(|said| (Stage::Restore, said))?;
    copy.go(&flavour.promises());
    // Several of the subjects take ten seconds of their own.
    let Some(status) = copy.ends_within(Duration::from_secs(40)) else {
        return Err((Stage::Verdict, format!("no end\n{}", copy.tell())));
    };
    let said = copy.output();
    let same = said.lines().any(|line| line == "verdict: same");
    if same && status.success() { Ok(()) } else { Err((Stage::Verdict, said)) }
}
