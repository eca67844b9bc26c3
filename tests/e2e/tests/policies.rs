//! What programs in Rust, C, Python and Node.js leave open follows the rules of a file, as it does on a
//! JVM (`jvm_policies`): each language has a program that does the same
//! (`examples/left_open.rs` of `tubthumping-app`), and is held to the same.

use crate::language::{Language, Life, Which};
use std::fs;
use std::sync::Arc;
use tub_testkit::{Flavour, Restore, Scratch, User, code};

/// For all that the program leaves open but `data.bin`.
pub(crate) const MOST: &str = "\
# What the program leaves open
type: FILE
path: **/app.log
action: reopen
---
type: file
path: **/input.txt
action: reopen
warn: false
---
type: file
path: **/closed.txt
action: close
---
type: socket
listening: true
localPort: *
action: reopen
---
type: socket
remoteAddress: localhost
action: close
";

pub(crate) const IGNORED: &str =
    "---\ntype: filedescriptor\nregex: .*/data\\.bin\naction: ignore\n";

fn follows_the_rules(language: &Language) {
    let mut life = Life::start(language, User::Ordinary, Which::LeftOpen, &[]);
    let dir = Arc::new(life.instance.dir().path().to_owned());
    let at = |name: &str| dir.join("state").join(name);
    let image = dir.join("image");

    // What is not understood, before any hook runs.
    life.write("policy", "type: file\n");
    let finished = life.instance.checkpoint(&image, &[]);
    let policy = dir.join("policy");
    let problem =
        format!("Invalid rule in policies file {} on lines 1-2: no 'action'", policy.display());
    finished.fails_with(code::FAILED, &[&problem]);
    assert!(!life.instance.output().contains("before"), "{}", life.instance.tell());

    // What a rule forbids, by its name and that of the rule; nothing has been closed then.
    let forbids = "type: file\npath: **/closed.txt\naction: error\n---\n";
    life.write("policy", &format!("{forbids}{MOST}{IGNORED}"));
    let closed =
        format!("CheckpointOpenFileException: {} (descriptor ", at("closed.txt").display());
    let rule = format!("; rule on lines 1-3 of {})", policy.display());
    life.instance.checkpoint(&image, &[]).fails_with(code::REFUSED, &[&closed, &rule]);
    let lines = life.order("checkpoint");
    let last = lines.last().unwrap();
    assert!(last.starts_with(&format!("CheckpointException {closed}")), "{lines:?}");
    assert!(last.ends_with(&rule), "{lines:?}");
    assert_eq!(life.order("peek 1"), ["input 3", "closed 0"]);

    // What is nobody's rule refuses as ever. What was to be opened again is, by then.
    life.write("policy", MOST);
    let data = at("data.bin").display().to_string();
    life.instance.checkpoint(&image, &[]).fails_with(code::REFUSED, &[&data, "was left open"]);
    assert_eq!(life.order("peek 2")[2..], ["input 4", "closed EBADF"]);
    life.complains(&["app.log was not closed by the application.", "add 'warn: false'"]);
    assert!(!life.instance.complaints().contains("input.txt was not"), "{}", life.instance.tell());

    // From inside; the process goes on with what it had.
    life.write("policy", &format!("{MOST}{IGNORED}"));
    let lines = life.order("checkpoint again");
    assert_eq!(lines, ["before", "after", "checkpoint"]);
    assert_eq!(life.order("peek 3"), ["input 5", "closed EBADF"]);

    // In copies everything is as the rules say. What was only read is another file by now.
    life.instance.checkpoint_and_end(&image);
    fs::write(at("input.txt"), "abcdefghij").unwrap();
    let log = fs::read_to_string(at("app.log")).unwrap();
    let restore = Restore::of(&life.instance, &image, Flavour::USUAL);
    let expected = ["input ghij", "closed EBADF", "log ok", "data 8", "server true", "client true"];
    let mut copy = Life { instance: restore.start(), seen: 0 };
    copy.lines_until("after");
    assert_eq!(copy.order("look"), expected, "{}", copy.instance.tell());
    assert_eq!(fs::read_to_string(at("app.log")).unwrap(), format!("{log}after\n"));
    // It can be asked again, with what is closed still closed.
    let again = dir.join("again");
    copy.instance.checkpoint(&again, &["--leave-running"]).succeeds();
    copy.lines_until("after");
    assert_eq!(copy.order("peek 4")[1], "closed EBADF");
    drop(copy);

    // The rules of the restore come first.
    let other = "type: file\npath: **/data.bin\naction: error\n---\n\
                 type: file\npath: **/input.txt\naction: close\n";
    let other = format!("TUB_POLICY={}", life.write("other", other).display());
    let mut copy = Life { instance: restore.clone().args(&["--env", &other]).start(), seen: 0 };
    copy.lines_until("after");
    let looked = copy.order("look other");
    assert_eq!(looked[0], "input EBADF", "{looked:?}");
    assert_eq!(looked[3], "data EBADF", "{looked:?}");
    copy.complains(&["failed to go on", "CheckpointOpenFileException: ", "data.bin (descriptor "]);
    drop(copy);

    // What cannot be opened again is told of.
    fs::remove_file(at("input.txt")).unwrap();
    let mut copy = Life { instance: restore.start(), seen: 0 };
    copy.lines_until("after");
    assert_eq!(copy.order("look gone")[0], "input EBADF");
    copy.complains(&["failed to go on", "Cannot reopen", "input.txt: "]);
    copy.instance.go("end");
    assert!(copy.instance.wait().success());
}

#[test]
fn what_rust_leaves_open_follows_the_rules() {
    follows_the_rules(&Language::rust(Which::LeftOpen));
}

#[test]
fn what_python_leaves_open_follows_the_rules() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::python(&dir, Which::LeftOpen, &[]) else { return };
    follows_the_rules(&language);
}

#[test]
fn what_c_leaves_open_follows_the_rules() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::c(&dir, Which::LeftOpen) else { return };
    follows_the_rules(&language);
}

#[test]
fn what_node_leaves_open_follows_the_rules() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::node(&dir, Which::LeftOpen) else { return };
    follows_the_rules(&language);
}

/// Rules that forbid hold where the engine may bring back everything else, too.
#[test]
fn a_rule_forbids_what_would_be_restored_otherwise() {
    let mut life = Life::start(
        &Language::rust(Which::LeftOpen),
        User::Ordinary,
        Which::LeftOpen,
        &["--open", "restore"],
    );
    life.write("policy", "type: file\npath: **/data.bin\naction: error\n");
    let image = life.instance.dir().join("image");
    let data = "data.bin (descriptor ";
    life.instance.checkpoint(&image, &[]).fails_with(code::REFUSED, &[data, "rule on lines 1-4"]);
    life.write("policy", "type: socket\nremotePort: *\nlistening: false\naction: close\n");
    life.instance.checkpoint_and_end(&image);
    let copy = Restore::of(&life.instance, &image, Flavour::USUAL).start();
    let mut copy = Life { instance: copy, seen: 0 };
    copy.lines_until("after");
    let expected = ["input 3456789", "closed 0", "log ok", "data 8", "server true", "client true"];
    assert_eq!(copy.order("look"), expected, "{}", copy.instance.tell());
}
