//! What programs in Rust, C, Python and Node.js leave open follows the rules of a file, as it does on a
//! JVM (`jvm_policies`): each language has a program that does the same
//! (`examples/left_open.rs` of `tubthumping-app`), and is held to the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tub_testkit::{
    Flavour, Instance, Restore, Scratch, Tub, User, app_left_open, c_library, code, node_addon,
    skipped, wait_for,
};

/// Whose program it is: the words that start it, before the directory that it is given.
pub(crate) struct Language {
    name: &'static str,
    pub(crate) words: Vec<PathBuf>,
    variables: Vec<(&'static str, PathBuf)>,
}

impl Language {
    pub(crate) fn rust() -> Self {
        let words = vec![app_left_open().to_owned()];
        Self { name: "Rust", words, variables: Vec::new() }
    }

    pub(crate) fn python(dir: &Scratch) -> Option<Self> {
        let python = PathBuf::from("/usr/bin/python3");
        if !python.exists() {
            skipped("no Python");
            return None;
        }
        let site = crate::languages::python_site(&python, dir);
        let program = dir.join("left_open.py");
        fs::copy(e2e().join("python/left_open.py"), &program).unwrap();
        open_to_all(dir.path());
        let variables = vec![("PYTHONPATH", site)];
        Some(Self { name: "Python", words: vec![python, program], variables })
    }
}

impl Language {
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
        for file in ["package.json", "index.js", "index.d.ts"] {
            fs::copy(root().join("bindings/node/package").join(file), package.join(file)).unwrap();
        }
        fs::copy(node_addon(), package.join("tubthumping.node")).unwrap();
        let program = dir.join("left_open.mjs");
        fs::copy(e2e().join("node/left_open.mjs"), &program).unwrap();
        for dir in [dir.path(), &modules, &package] {
            open_to_all(dir);
        }
        let words = vec!["node".into(), program];
        Some(Self { name: "Node.js", words, variables: Vec::new() })
    }

    /// Compiled here, into a directory that is to be kept for as long as the program runs.
    pub(crate) fn c(dir: &Scratch) -> Option<Self> {
        let program = dir.join("left_open");
        fs::copy(c_library(), dir.join("libtubthumping.so")).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-Wall", "-Wextra", "-Werror", "-O1", "-I"]);
        compiler.arg(root().join("bindings/c/include")).arg(e2e().join("c/left_open.c"));
        compiler.arg("-o").arg(&program).arg("-L").arg(dir.path());
        compiler.args(["-ltubthumping", "-Wl,-rpath,$ORIGIN"]);
        let status = match compiler.status() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                skipped("no C compiler");
                return None;
            }
            status => status.expect("cc can be run"),
        };
        assert!(status.success(), "left_open.c does not compile");
        open_to_all(dir.path());
        Some(Self { name: "C", words: vec![program], variables: Vec::new() })
    }
}

fn root() -> &'static Path {
    e2e().ancestors().nth(2).expect("tests/e2e lies two below")
}

fn e2e() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Lets every user in.
fn open_to_all(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o755));
}

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

/// A program under way.
pub(crate) struct Life {
    pub(crate) instance: Instance,
    pub(crate) seen: usize,
}

impl Life {
    pub(crate) fn start(language: &Language, user: User, options: &[&str]) -> Self {
        let dir = Arc::new(Scratch::new(user));
        let state = dir.make_dir("state");
        let policy = dir.join("policy");
        fs::write(&policy, "").unwrap();
        let run = Tub::new(user, "run").arg("--image").arg(dir.join("inside"));
        let mut run = run.arg("--policy").arg(&policy).args(options).arg("--");
        for word in &language.words {
            run = run.arg(word);
        }
        let mut command = run.arg(&state).command();
        command.env("TUB_CHECKPOINT_OPTIONS", "--leave-running --replace");
        command.envs(language.variables.iter().map(|(name, value)| (name, value)));
        let ready = |printed: &str| printed.contains("ready\n").then_some(());
        let instance = Instance::start(language.name, &dir, command, ready);
        let mut life = Self { instance, seen: 0 };
        life.lines_until("ready");
        life
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.instance.dir().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Gives an order and waits until it has been carried out.
    #[track_caller]
    pub(crate) fn order(&mut self, order: &str) -> Vec<String> {
        self.instance.go(order);
        self.lines_until(&format!("did {order}"))
    }

    #[track_caller]
    pub(crate) fn lines_until(&mut self, last: &str) -> Vec<String> {
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

    /// What it complains of, once that is so.
    #[track_caller]
    pub(crate) fn complains(&self, of: &[&str]) {
        let told = wait_for(Duration::from_secs(60), || {
            let told = self.instance.complaints();
            of.iter().all(|word| told.contains(word)).then_some(())
        });
        told.unwrap_or_else(|| panic!("no {of:?}\n{}", self.instance.tell()));
    }
}

fn follows_the_rules(language: &Language) {
    let mut life = Life::start(language, User::Ordinary, &[]);
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
    follows_the_rules(&Language::rust());
}

#[test]
fn what_python_leaves_open_follows_the_rules() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::python(&dir) else { return };
    follows_the_rules(&language);
}

#[test]
fn what_c_leaves_open_follows_the_rules() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::c(&dir) else { return };
    follows_the_rules(&language);
}

#[test]
fn what_node_leaves_open_follows_the_rules() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::node(&dir) else { return };
    follows_the_rules(&language);
}

/// Rules that forbid hold where the engine may bring back everything else, too.
#[test]
fn a_rule_forbids_what_would_be_restored_otherwise() {
    let mut life = Life::start(&Language::rust(), User::Ordinary, &["--open", "restore"]);
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
