//! Java programs of `../java` that check themselves: `Life.java` is what they have in common.

use crate::jdk::Jdk;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tub_testkit::{Instance, Scratch, Tub, User, agent, run_bounded};

/// A program to be started in a directory of its own, which it finds as its working directory.
pub(crate) struct Program {
    /// Its directory.
    pub(crate) dir: Arc<Scratch>,
    main: String,
    java: PathBuf,
    user: User,
    run: Vec<String>,
    flags: Vec<String>,
}

impl Program {
    /// The class `main`, compiled for `jdk`.
    pub(crate) fn new(jdk: &Jdk, main: &str) -> Self {
        let dir = Arc::new(Scratch::new(User::Ordinary));
        dir.make_dir("state");
        let copies = dir.make_dir("classes");
        for entry in fs::read_dir(classes(jdk, main)).unwrap().flatten() {
            let copy = copies.join(entry.file_name());
            fs::copy(entry.path(), &copy).unwrap();
            dir.give(&copy);
        }
        let (run, flags) = (Vec::new(), Vec::new());
        let user = User::Ordinary;
        Self { dir, main: main.to_owned(), java: jdk.java(), user, run, flags }
    }

    /// By root: as CRIU wants it.
    pub(crate) fn by_root(self) -> Self {
        Self { user: User::Root, ..self }
    }

    /// Options of `tub run`.
    pub(crate) fn run_options(mut self, options: &[&str]) -> Self {
        self.run.extend(options.iter().map(|&word| word.to_owned()));
        self
    }

    /// Options of the JVM.
    pub(crate) fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|&word| word.to_owned()));
        self
    }

    /// Writes a file into its directory.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.dir.join(name);
        fs::write(&path, text).unwrap();
        self.dir.give(&path);
    }

    /// The command that starts it by `tub run`.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let run: Vec<&str> = self.run.iter().map(String::as_str).collect();
        let tub = Tub::new(self.user, "run").args(&run).arg("--").arg(&self.java);
        let tub = tub.args(&["-Xmx256m"]).args(&flags).args(&["-cp"]);
        let tub = tub.arg(self.dir.join("classes")).arg(&self.main).args(arguments);
        let mut command = tub.command();
        command.env("HOME", self.dir.path()).env("TMPDIR", self.dir.path());
        command.current_dir(self.dir.path());
        if let Some(agent) = agent() {
            command.env("TUB_AGENT", agent);
        }
        command
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(&self, arguments: &[&str]) -> Instance {
        self.start_with(arguments, |_| {})
    }

    /// The same, with something else about the command.
    pub(crate) fn start_with(
        &self,
        arguments: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Instance {
        let is_ready = |text: &str| text.lines().any(|line| line == "ready").then_some(());
        let mut command = self.command(arguments);
        change(&mut command);
        Instance::start(&self.main, &self.dir, command, is_ready)
    }
}

/// The directory with the compiled program: once for each JDK.
fn classes(jdk: &Jdk, main: &str) -> PathBuf {
    static COMPILED: Mutex<BTreeMap<(u32, String), PathBuf>> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (jdk.version, main.to_owned());
    compiled.entry(key).or_insert_with(|| compile(jdk, main)).clone()
}

fn compile(jdk: &Jdk, main: &str) -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let classes = target.join(format!("{main}-{}-{}", jdk.version, std::process::id()));
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("java");
    // Against the API as it is here; the classes of the agent are those that run.
    let shim = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bindings/java/shim/src");
    let mut command = Command::new(jdk.home.join("bin/javac"));
    command.arg("-d").arg(&classes).args(["-nowarn", "-proc:none", "-implicit:none"]);
    command.arg("-sourcepath").arg(&shim).arg(sources.join("Life.java"));
    command.arg(sources.join(format!("{main}.java")));
    run_bounded(command, Duration::from_secs(120)).succeeds();
    classes
}
