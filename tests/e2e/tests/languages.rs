//! Programs that take part in checkpoints, in each language that there is a binding for: all of them
//! do the same (`examples/subject.rs` of `tubthumping-app`), and are held to the same.
//! Not here: services (`services`), and what one language alone has (`python`).

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tub_testkit::{
    Flavour, Instance, Memory, Pids, Restore, Scratch, Tub, User, app_subject, c_library, code,
    every, node_addon, skipped, wait_for,
};

/// Whose way it is to write such a program.
pub(crate) struct Language {
    pub(crate) name: &'static str,
    /// The words that start it, before and after the directory that it is given.
    pub(crate) before: Vec<String>,
    after: Vec<String>,
    pub(crate) variables: Vec<(&'static str, String)>,
}

impl Language {
    fn rust() -> Self {
        Self::program("Rust", app_subject())
    }

    /// What needs no more than to be started.
    pub(crate) fn program(name: &'static str, path: &Path) -> Self {
        let before = vec![path.display().to_string()];
        Self { name, before, after: Vec::new(), variables: Vec::new() }
    }

    /// From the wheel, as pip makes it without a network.
    pub(crate) fn python(dir: &Scratch, words: &[&str]) -> Option<Self> {
        let Some(python) = pythons().into_iter().next() else {
            skipped("no Python from 3.9 on");
            return None;
        };
        Some(Self::on(&python, dir, words))
    }

    fn on(python: &Path, dir: &Scratch, words: &[&str]) -> Self {
        let site = python_site(python, dir);
        let program = dir.join("subject.py");
        fs::copy(c_dir().with_file_name("python").join("subject.py"), &program).unwrap();
        open_to_all(dir.path());
        let before = vec![python.display().to_string(), program.display().to_string()];
        let after = words.iter().map(|&word| word.to_owned()).collect();
        let variables = vec![("PYTHONPATH", site.display().to_string())];
        Self { name: "Python", before, after, variables }
    }

    /// As a package in `node_modules`.
    pub(crate) fn node(dir: &Scratch) -> Option<Self> {
        let ask = "process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)";
        if !Command::new("node").args(["-e", ask]).status().is_ok_and(|status| status.success()) {
            skipped("no Node.js from 20 on");
            return None;
        }
        let modules = dir.make_dir("node_modules");
        let package = modules.join("tubthumping");
        fs::create_dir(&package).unwrap();
        let root = c_dir().ancestors().nth(3).expect("the root").to_owned();
        for file in ["package.json", "index.js", "index.d.ts"] {
            fs::copy(root.join("bindings/node/package").join(file), package.join(file)).unwrap();
        }
        fs::copy(node_addon(), package.join("tubthumping.node")).unwrap();
        let program = dir.join("subject.mjs");
        fs::copy(c_dir().with_file_name("node").join("subject.mjs"), &program).unwrap();
        for dir in [dir.path(), &modules, &package] {
            open_to_all(dir);
        }
        let before = vec!["node".to_owned(), program.display().to_string()];
        Some(Self { name: "Node.js", before, after: Vec::new(), variables: Vec::new() })
    }

    /// Compiled here, into a directory that is to be kept for as long as the program runs.
    fn c(dir: &Scratch) -> Option<Self> {
        let program = dir.join("subject");
        let root = c_dir().ancestors().nth(3).expect("tests/e2e/c lies three below").to_owned();
        let library = c_library();
        let linked = dir.join("libtubthumping.so");
        fs::copy(library, &linked).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-Wall", "-Wextra", "-Werror", "-O1", "-I"]);
        compiler.arg(root.join("bindings/c/include")).arg(c_dir().join("subject.c"));
        compiler.arg("-o").arg(&program).arg("-L").arg(dir.path());
        compiler.args(["-ltubthumping", "-Wl,-rpath,$ORIGIN"]);
        let status = match compiler.status() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                skipped("no C compiler");
                return None;
            }
            status => status.expect("cc can be run"),
        };
        assert!(status.success(), "subject.c does not compile");
        open_to_all(dir.path());
        Some(Self::program("C", &program))
    }
}

/// Where C's own files lie.
fn c_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("c")
}

/// A directory for PYTHONPATH with the package, unpacked from its wheel.
pub(crate) fn python_site(python: &Path, dir: &Scratch) -> PathBuf {
    let site = dir.join("site");
    let sources = c_dir().ancestors().nth(3).expect("the root").join("bindings/python");
    let mut wheel = Command::new(python);
    wheel.arg("-c").arg(
        "import sys; sys.path.insert(0, sys.argv[1]); import build_backend, zipfile\n\
         name = build_backend.build_wheel(sys.argv[2])\n\
         zipfile.ZipFile(sys.argv[2] + '/' + name).extractall(sys.argv[3])",
    );
    wheel.arg(&sources).arg(dir.path()).arg(&site).arg("");
    wheel.env("TUBTHUMPING_LIBRARY", c_library()).env("PYTHONDONTWRITEBYTECODE", "1");
    assert!(wheel.status().is_ok_and(|status| status.success()), "no wheel");
    site
}

/// Of each version of Python that is here and new enough, what starts it: `python3` and those of pyenv.
fn pythons() -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/usr/bin/python3")];
    let versions = std::env::var_os("HOME").map(|home| Path::new(&home).join(".pyenv/versions"));
    let entries = versions.and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten().flatten();
    found.extend(entries.map(|entry| entry.path().join("bin/python3")));
    found.retain(|python| {
        let ask = "import sys, ssl, ctypes; sys.exit(sys.version_info < (3, 9))";
        Command::new(python).args(["-c", ask]).status().is_ok_and(|status| status.success())
    });
    found
}

/// A program under way.
struct Life {
    instance: Instance,
    seen: usize,
}

impl Life {
    fn start(language: &Language, user: User) -> Self {
        Self::start_with(language, user, "--leave-running --replace")
    }

    /// With options for checkpoints that it asks for itself.
    fn start_with(language: &Language, user: User, options: &str) -> Self {
        let dir = Arc::new(Scratch::new(user));
        let state = dir.make_dir("state");
        let mut run = Tub::new(user, "run").arg("--image").arg(dir.join("inside")).arg("--");
        for word in &language.before {
            run = run.arg(word);
        }
        run = run.arg(&state);
        for word in &language.after {
            run = run.arg(word);
        }
        let mut command = run.command();
        command.env("TUB_CHECKPOINT_OPTIONS", options);
        command.envs(language.variables.iter().map(|(name, value)| (name, value)));
        let ready = |printed: &str| printed.contains("ready\n").then_some(());
        let instance = Instance::start(language.name, &dir, command, ready);
        Self { instance, seen: 0 }
    }

    fn of(instance: Instance) -> Self {
        Self { instance, seen: 0 }
    }

    /// Gives an order and waits until it has been carried out.
    #[track_caller]
    fn order(&mut self, order: &str) -> Vec<String> {
        self.instance.go(order);
        self.lines_until(&format!("did {order}"))
    }

    /// What it prints from where we last looked up to a line.
    #[track_caller]
    fn lines_until(&mut self, last: &str) -> Vec<String> {
        let new = wait_for(Duration::from_secs(60), || {
            let output = self.instance.output();
            let lines: Vec<_> = output.lines().skip(self.seen).map(str::to_owned).collect();
            let end = lines.iter().position(|line| line == last)?;
            Some(lines[..end].to_vec())
        });
        let new = new.unwrap_or_else(|| panic!("no {last:?}\n{}", self.instance.tell()));
        self.seen += new.len() + 1;
        new
    }

    fn image(&self, name: &str) -> PathBuf {
        self.instance.dir().join(name)
    }
}

/// Lets every user in.
fn open_to_all(dir: &Path) {
    let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o755));
}

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
        let mut life = Life::start(language, flavour.user);
        life.lines_until("ready");
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
        let all = [&BEFORE.map(str::to_owned)[..], &after("resumed 1")].concat();
        assert_eq!(quiet(lines), [&all[..], &["checkpoint resumed 1".to_owned()]].concat());

        // Copies of the image taken from inside return from the call.
        let inside = life.image("inside");
        let copy = Restore::of(&life.instance, &inside, flavour).start();
        let mut copy = Life::of(copy);
        let lines = copy.lines_until("did checkpoint");
        let all = after("restored 1 [] []");
        assert_eq!(quiet(lines), [&all[..], &["checkpoint restored 1 [] []".to_owned()]].concat());
        drop(copy);

        // Two at once, which are told apart, and are given something on their way.
        life.instance.checkpoint_and_end(&second);
        let restore = Restore::of(&life.instance, &second, flavour).args(&["--env", "COLOR=red"]);
        let restore = restore.new_args(&["a", "b c"]);
        let copies = [restore.start(), restore.start()].map(Life::of);
        let random = copies.map(|mut copy| {
            copy.lines_until(&after("restored 1 [red] [a,b c]")[2]);
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
        assert_eq!(lines.last().map(String::as_str), Some("checkpoint resumed 2"), "{lines:?}");
    });
}

/// From outside and from inside, and the same process each time.
fn is_paused(language: &Language) {
    let options = "--engine pause --replace";
    let mut life = Life::start_with(language, User::Ordinary, options);
    life.lines_until("ready");
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
    is_paused(&Language::rust());
}

#[test]
fn python_is_paused() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::python(&dir, &["asyncio"]) else { return };
    is_paused(&language);
}

#[test]
fn c_is_paused() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::c(&dir) else { return };
    is_paused(&language);
}

#[test]
fn node_is_paused() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::node(&dir) else { return };
    is_paused(&language);
}

/// What is open, hooks that fail, hooks that hang.
fn refuses(language: &Language) {
    let mut life = Life::start(language, User::Ordinary);
    life.lines_until("ready");
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
    lives_on(&Language::rust());
}

#[test]
fn rust_refuses() {
    refuses(&Language::rust());
}

#[test]
fn python_with_threads_lives_on() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::python(&dir, &[]) else { return };
    lives_on(&language);
}

#[test]
fn python_with_an_event_loop_lives_on() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::python(&dir, &["asyncio"]) else { return };
    lives_on(&language);
}

/// Those of a user's own are out of another's reach.
#[test]
fn other_pythons_live_on() {
    const ROOT: Flavour = Flavour { user: User::Root, pids: Pids::New, memory: Memory::Auto };
    for python in pythons().iter().skip(1) {
        let dir = Scratch::new(User::Root);
        eprintln!("{}", python.display());
        lives_on_in(&[ROOT], &Language::on(python, &dir, &["asyncio"]));
    }
}

#[test]
fn python_refuses() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::python(&dir, &[]) else { return };
    refuses(&language);
}

#[test]
fn c_lives_on() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::c(&dir) else { return };
    lives_on(&language);
}

#[test]
fn c_refuses() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::c(&dir) else { return };
    refuses(&language);
}

#[test]
fn node_lives_on() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::node(&dir) else { return };
    lives_on(&language);
}

#[test]
fn node_refuses() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::node(&dir) else { return };
    refuses(&language);
}
