//! Programs that take part in checkpoints, in each language that there is a binding for: all of them
//! do the same (`examples/subject.rs` of `tubthumping-app`), and are held to the same.
//! Not here: services (`services`), and what one language alone has (`python`).

use crate::language::{Language, Life, Which, pythons};
use std::fs;
use std::time::Duration;
use tub_testkit::{Flavour, Memory, Pids, Restore, Scratch, Tub, User, code, every, wait_for};

const BEFORE: [&str; 3] = ["before three", "before two", "before one"];

fn after(how: &str) -> Vec<String> {
    ["one", "two", "three"].iter().map(|name| format!("after {name} {how}")).collect()
}

/// Without what `lucky` tells.
fn quiet(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().filter(|line| !line.starts_with("random ")).collect()
}

const WAYS: [Flavour; 3] = [
    Flavour::USUAL,
    Flavour { user: User::Root, pids: Pids::Keep, memory: Memory::Lazy },
    Flavour { user: User::Ordinary, pids: Pids::New, memory: Memory::Eager },
];

/// From outside and from inside, in the original and in two copies at once, over two generations.
fn lives_on(language: &Language) {
    lives_on_in(&WAYS, language);
}

fn lives_on_in(ways: &[Flavour], language: &Language) {
    every(ways, |flavour| {
        let mut life = Life::start(language, flavour.user, Which::Subject, &[]);
        let (first, second) = (life.image("first"), life.image("second"));
        let status = Tub::new(flavour.user, "status").arg(life.instance.pid().to_string());
        let status = status.arg("--json").run().succeeds().stdout;
        for word in ["one", "two", "three", language.name] {
            assert!(status.contains(word), "no {word:?} in {status}");
        }

        // From outside; the original goes on, and knows it.
        life.instance.checkpoint(&first, &["--leave-running"]).succeeds();
        let told = after("resumed 1");
        let lines = life.lines_until(&told[2]);
        assert_eq!(quiet(lines), [&BEFORE.map(str::to_owned)[..], &told[..2]].concat());

        // From inside, likewise.
        let lines = life.order("checkpoint");
        let all = [&BEFORE.map(str::to_owned)[..], &after("resumed 2")].concat();
        assert_eq!(quiet(lines), [&all[..], &["checkpoint resumed 2".to_owned()]].concat());

        // Copies of the image taken from inside return from the call.
        let inside = life.image("inside");
        let copy = Restore::of(&life.instance, &inside, flavour).start();
        let mut copy = Life::of(copy);
        let lines = copy.lines_until("did checkpoint");
        let all = after("restored 2 [] []");
        assert_eq!(quiet(lines), [&all[..], &["checkpoint restored 2 [] []".to_owned()]].concat());
        drop(copy);

        // Two at once, which are told apart, and are given something on their way.
        life.instance.checkpoint_and_end(&second);
        let restore = Restore::of(&life.instance, &second, flavour).args(&["--env", "COLOR=red"]);
        let restore = restore.new_args(&["a", "b c"]);
        let copies = [restore.start(), restore.start()].map(Life::of);
        let random = copies.map(|mut copy| {
            copy.lines_until(&after("restored 3 [red] [a,b c]")[2]);
            let is_drawn = |line: &&str| line.starts_with("random ");
            let drawn = wait_for(Duration::from_secs(30), || {
                copy.instance.output().lines().find(is_drawn).map(str::to_owned)
            });
            assert!(!copy.instance.output().contains("before "), "{}", copy.instance.tell());
            (drawn.expect("a line that begins with random"), copy)
        });
        let [(first, mut copy), (second, other)] = random;
        assert_ne!(first, second);
        drop(other);
        // A copy can be asked again, from inside.
        let lines = copy.order("checkpoint");
        assert_eq!(lines.last().map(String::as_str), Some("checkpoint resumed 4"), "{lines:?}");
    });
}

/// From outside and from inside, and the same process each time.
fn is_paused(language: &Language) {
    let options = "--engine pause --replace";
    let mut life = Life::start_with(language, User::Ordinary, Which::Subject, &[], options);
    let pid = life.instance.pid();
    let image = life.image("paused");
    life.instance.checkpoint(&image, &["--engine", "pause"]).succeeds();
    assert_eq!(quiet(life.lines_until("before one")), BEFORE[..2]);
    let restore = Restore::of(&life.instance, &image, Flavour::USUAL).args(&["--env", "COLOR=red"]);
    let waits = restore.new_args(&["a", "b c"]).start();
    assert_eq!(waits.pid(), pid, "it is the same process");
    let told = after("restored 1 [red] [a,b c]");
    assert_eq!(quiet(life.lines_until(&told[2])), told[..2]);
    let drawn = wait_for(Duration::from_secs(30), || {
        life.instance.output().contains("\nrandom ").then_some(())
    });
    drawn.unwrap_or_else(|| panic!("nothing drawn\n{}", life.instance.tell()));

    life.instance.go("checkpoint");
    let inside = life.image("inside");
    let paused = wait_for(Duration::from_secs(60), || {
        let verify = Tub::new(User::Ordinary, "verify").arg(&inside).run();
        verify.status.success().then_some(())
    });
    paused.unwrap_or_else(|| panic!("it is not paused\n{}", life.instance.tell()));
    let restore = Tub::new(User::Ordinary, "restore").arg(&inside);
    restore.args(&["--detach", "--", "x"]).run().succeeds();
    let lines = quiet(life.lines_until("did checkpoint"));
    let all = [&BEFORE.map(str::to_owned)[..], &after("restored 2 [] [x]")].concat();
    let expected = [&all[..], &["checkpoint restored 2 [] [x]".to_owned()]].concat();
    assert_eq!(lines, expected);
    drop(waits);
}

#[test]
fn rust_is_paused() {
    is_paused(&Language::rust(Which::Subject));
}

#[test]
fn python_is_paused() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::python(&dir, Which::Subject, &["asyncio"]) else { return };
    is_paused(&language);
}

#[test]
fn c_is_paused() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::c(&dir, Which::Subject) else { return };
    is_paused(&language);
}

#[test]
fn node_is_paused() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::node(&dir, Which::Subject) else { return };
    is_paused(&language);
}

/// What is open, hooks that fail, hooks that hang.
fn refuses(language: &Language) {
    let mut life = Life::start(language, User::Ordinary, Which::Subject, &[]);
    let (image, log) = (life.image("refused"), life.image("state/log"));
    fs::write(&log, "text").unwrap();
    life.instance.dir().give(&log);
    let checkpoint = |life: &Life, options: &[&str]| life.instance.checkpoint(&image, options);

    life.order(&format!("open {}", log.display()));
    checkpoint(&life, &[]).fails_with(code::REFUSED, &[&log.display().to_string()]);
    let lines = quiet(life.order("checkpoint"));
    let expected = format!("CheckpointException CheckpointOpenFileException: {}", log.display());
    assert_eq!(lines.last(), Some(&expected), "{lines:?}");
    let told = [&BEFORE.map(str::to_owned)[..], &after("failed")].concat();
    assert_eq!(lines[lines.len() - 7..lines.len() - 1], told, "{lines:?}");

    life.order("listen");
    let lines = life.order("checkpoint");
    let of =
        |name: &str| lines.iter().any(|l| l.starts_with(&format!("CheckpointException {name}: ")));
    assert!(of("CheckpointOpenFileException") && of("CheckpointOpenSocketException"), "{lines:?}");
    life.order("close");

    life.order("register bad");
    life.order("register worse");
    let lines = quiet(life.order("checkpoint"));
    let expected = [
        "before worse",
        "before bad",
        "before three",
        "before two",
        "before one",
        "after one failed",
        "after two failed",
        "after three failed",
        "after bad failed",
        "after worse failed",
        "CheckpointException worse: Tired: worse is tired",
        "CheckpointException bad: Tired: bad is tired",
    ];
    assert_eq!(lines, expected);
    checkpoint(&life, &[]).fails_with(code::REFUSED, &["worse is tired", "bad is tired"]);
    life.order("unregister bad");
    life.order("unregister worse");

    life.order("register slow");
    checkpoint(&life, &["--timeout", "1"]).fails_with(code::TIMED_OUT, &["slow"]);
    life.lines_until("after slow failed");
    life.order("unregister slow");

    let lines = life.order("checkpoint");
    assert!(lines.last().unwrap().starts_with("checkpoint resumed 1"), "{lines:?}");
    life.instance.go("end");
    assert!(life.instance.wait().success());
}

#[test]
fn rust_lives_on() {
    lives_on(&Language::rust(Which::Subject));
}

#[test]
fn rust_refuses() {
    refuses(&Language::rust(Which::Subject));
}

#[test]
fn python_with_threads_lives_on() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::python(&dir, Which::Subject, &[]) else { return };
    lives_on(&language);
}

#[test]
fn python_with_an_event_loop_lives_on() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::python(&dir, Which::Subject, &["asyncio"]) else { return };
    lives_on(&language);
}

/// Those of a user's own are out of another's reach.
#[test]
fn other_pythons_live_on() {
    const ROOT: Flavour = Flavour { user: User::Root, pids: Pids::New, memory: Memory::Auto };
    for python in pythons().iter().skip(1) {
        let dir = Scratch::new(User::Root);
        eprintln!("{}", python.display());
        lives_on_in(&[ROOT], &Language::on(python, &dir, Which::Subject, &["asyncio"]));
    }
}

#[test]
fn python_refuses() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::python(&dir, Which::Subject, &[]) else { return };
    refuses(&language);
}

#[test]
fn c_lives_on() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::c(&dir, Which::Subject) else { return };
    lives_on(&language);
}

#[test]
fn c_refuses() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::c(&dir, Which::Subject) else { return };
    refuses(&language);
}

#[test]
fn node_lives_on() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::node(&dir, Which::Subject) else { return };
    lives_on(&language);
}

#[test]
fn node_refuses() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::node(&dir, Which::Subject) else { return };
    refuses(&language);
}
