//! A subject's lives: the original, and every instance that got up from an image of it.

use crate::command::{as_user, end, pid_of, shown};
use crate::{
    Finished, Flavour, Process, Scratch, Tub, User, VisibleState, subject_binary, wait_for,
};
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long a subject may take to set itself up, and an instance to get up.
const START: Duration = Duration::from_secs(60);

/// How long a subject may take from *go* to its verdict.
const VERDICT: Duration = Duration::from_secs(60);

/// Number of the next life: names its output files.
static NEXT_LIFE: AtomicU32 = AtomicU32::new(0);

/// A subject to be started.
#[derive(Clone, Debug)]
pub struct Subject {
    name: String,
    user: User,
    options: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Subject {
    /// The subject `name` of `tests/subjects`, as `user`.
    pub fn new(name: &str, user: User) -> Self {
        Self { name: name.to_owned(), user, options: Vec::new(), environment: Vec::new() }
    }

    /// Options of the subject.
    pub fn options(mut self, options: &[&str]) -> Self {
        self.options = options.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// A variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    ///
    /// If it does not say *ready* in time.
    pub fn start(&self) -> Instance {
        let dir = Arc::new(Scratch::new(self.user));
        let state = dir.make_dir("state");
        let mut command = as_user(self.user, subject_binary());
        command.arg(&self.name).arg(&state).args(&self.options);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let ready = state.join("ready");
        Instance::start(&self.name, &dir, command, |_| ready.exists().then_some(()))
    }
}

/// A restore to be done.
#[derive(Clone, Debug)]
pub struct Restore {
    image: PathBuf,
    dir: Arc<Scratch>,
    name: String,
    flavour: Flavour,
    words: Vec<String>,
    new_args: Vec<String>,
    shell: Option<String>,
    own_group: bool,
}

impl Restore {
    /// A restore of `image`, which was taken of `instance`, in the way that `flavour` tells.
    pub fn of(instance: &Instance, image: &Path, flavour: Flavour) -> Self {
        Self {
            image: image.to_owned(),
            dir: Arc::clone(&instance.life.dir),
            name: instance.life.name.clone(),
            flavour,
            words: Vec::new(),
            new_args: Vec::new(),
            shell: None,
            own_group: false,
        }
    }

    /// More options of `tub restore`.
    pub fn args(mut self, words: &[&str]) -> Self {
        self.words.extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// What the instance itself is given: the words after `--`.
    pub fn new_args(mut self, words: &[&str]) -> Self {
        self.new_args.extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// Lets a shell do something first: `ulimit -l 64`.
    pub fn after(mut self, shell: &str) -> Self {
        self.shell = Some(shell.to_owned());
        self
    }

    /// Starts the command as the leader of a process group, as shells with job control do.
    pub fn in_group_of_its_own(mut self) -> Self {
        self.own_group = true;
        self
    }

    /// The command with all its options, but for `--pidfile`.
    pub fn tub(&self) -> Tub {
        self.tub_with(None)
    }

    fn tub_with(&self, pidfile: Option<&Path>) -> Tub {
        let mut tub = Tub::new(self.flavour.user, "restore")
            .arg(&self.image)
            .args(&["--pids", self.flavour.pids.word()])
            .args(&["--memory", self.flavour.memory.word()]);
        for word in &self.words {
            tub = tub.arg(word);
        }
        if let Some(shell) = &self.shell {
            tub = tub.after(shell);
        }
        if let Some(pidfile) = pidfile {
            tub = tub.arg("--pidfile").arg(pidfile);
        }
        if !self.new_args.is_empty() {
            tub = tub.arg("--");
        }
        self.new_args.iter().fold(tub, Tub::arg)
    }

    /// Restores, and waits until the instance runs.
    ///
    /// # Panics
    ///
    /// If it does not get up.
    #[track_caller]
    pub fn start(&self) -> Instance {
        self.try_start().unwrap_or_else(|told| panic!("{}: did not get up\n{told}", self.name))
    }

    /// The same, where it may well not get up: then with everything that is known about it.
    ///
    /// # Errors
    ///
    /// It ended, or did not get up in time.
    pub fn try_start(&self) -> Result<Instance, String> {
        // What an earlier life was told is not meant for this one.
        put_by(&self.dir.join("state"));
        let number = NEXT_LIFE.fetch_add(1, Ordering::Relaxed);
        show_life(&self.dir, number);
        let pidfile = self.dir.join(format!("pid.{number}"));
        let mut command = self.tub_with(Some(&pidfile)).command();
        command.env("RUST_BACKTRACE", "0");
        if self.own_group {
            command.process_group(0);
        }
        let mut life = Life::start(command, &self.dir, &self.name);
        life.detached = self.words.iter().any(|word| word == "--detach");
        let found = life.find(START, || {
            let text = fs::read_to_string(&pidfile).ok()?;
            // Half a number would be some other process.
            text.strip_suffix('\n')?.parse().ok()
        });
        let Some(found) = found else {
            let told = life.tell();
            end(&mut life.child);
            return Err(told);
        };
        let Some(main) = Process::find(found) else {
            let told = life.tell();
            end(&mut life.child);
            return Err(format!("process {found} ended at once\n{told}"));
        };
        if life.detached {
            life.watched = found;
        }
        Ok(Instance { main, life })
    }
}

/// A command under way with its output, and everything needed to tell about it.
#[derive(Debug)]
struct Life {
    name: String,
    words: String,
    dir: Arc<Scratch>,
    child: Child,
    /// The process that must live for anything to happen: the command, or the instance that a
    /// detached restore has left alone.
    watched: i32,
    detached: bool,
    out: PathBuf,
    err: PathBuf,
}

impl Life {
    fn start(mut command: Command, dir: &Arc<Scratch>, name: &str) -> Self {
        let number = NEXT_LIFE.fetch_add(1, Ordering::Relaxed);
        let (out, err) = (dir.join(format!("out.{number}")), dir.join(format!("err.{number}")));
        let file = |path: &Path| {
            // Appending, since more than one process may write to it.
            let file = File::options().create(true).append(true).open(path);
            dir.give(path);
            file.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        command.stdout(file(&out)).stderr(file(&err));
        let words = shown(&command);
        let child = command.spawn();
        let child = child.unwrap_or_else(|error| panic!("{words}: cannot start: {error}"));
        let (name, dir) = (name.to_owned(), Arc::clone(dir));
        let watched = pid_of(&child);
        Self { name, words, dir, child, watched, detached: false, out, err }
    }

    /// Waits for `found`, as long as the command runs; panics with everything known otherwise.
    #[track_caller]
    fn wait_for<T>(&self, time: Duration, what: &str, found: impl FnMut() -> Option<T>) -> T {
        self.find(time, found).unwrap_or_else(|| {
            panic!("{}: waited in vain for it {what} (up to {time:?})\n{}", self.name, self.tell())
        })
    }

    /// Waits for `found`, as long as the command runs.
    fn find<T>(&self, time: Duration, mut found: impl FnMut() -> Option<T>) -> Option<T> {
        let pid = self.watched;
        let value = wait_for(time, || match found() {
            Some(value) => Some(Some(value)),
            // A process that has ended will not say anything any more, but may have just before.
            None if Process::find(pid).is_none() => Some(found()),
            None => None,
        });
        value.flatten()
    }

    /// The process `pid`, which was just reported to run.
    #[track_caller]
    fn process(&self, pid: i32) -> Process {
        Process::find(pid)
            .unwrap_or_else(|| panic!("process {pid} is gone already\n{}", self.tell()))
    }

    fn tell(&self) -> String {
        let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        let out = read(&self.out);
        let quiet: Vec<_> = out.lines().filter(|line| !line.starts_with("count ")).collect();
        let state = Process::find(pid_of(&self.child)).map(|p| p.describe()).unwrap_or_default();
        let (words, err) = (&self.words, read(&self.err));
        format!("command: {words}\nstdout:\n{}\nstderr:\n{err}\nstate:\n{state}", quiet.join("\n"))
    }
}

/// A subject that runs: the original, or one that got up from an image.
#[derive(Debug)]
pub struct Instance {
    main: Process,
    life: Life,
}

impl Instance {
    /// Starts `command`, which is called `name` and owns `dir`, and waits until it `is_ready`,
    /// which is given what it has printed.
    ///
    /// # Panics
    ///
    /// If it does not get ready in time.
    pub fn start(
        name: &str,
        dir: &Arc<Scratch>,
        command: Command,
        mut is_ready: impl FnMut(&str) -> Option<()>,
    ) -> Self {
        let life = Life::start(command, dir, name);
        let printed = || fs::read_to_string(&life.out).unwrap_or_default();
        life.wait_for(START, "to get ready", || is_ready(&printed()));
        Self { main: life.process(pid_of(&life.child)), life }
    }

    /// The id of the subject's process, as we see it.
    pub const fn pid(&self) -> i32 {
        self.main.pid()
    }

    /// The subject's process.
    pub const fn process(&self) -> Process {
        self.main
    }

    /// The id of what we started: `tub restore`, or the original itself.
    pub fn command_pid(&self) -> i32 {
        pid_of(&self.life.child)
    }

    /// The directory that all lives of the subject share.
    pub fn dir(&self) -> &Scratch {
        &self.life.dir
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.life.out).unwrap_or_default()
    }

    /// What it, or its `tub restore`, has complained so far.
    pub fn complaints(&self) -> String {
        fs::read_to_string(&self.life.err).unwrap_or_default()
    }

    /// The last `count N` that it printed; 0 before the first.
    pub fn count(&self) -> u64 {
        let out = self.output();
        // Only whole lines: the last may be half written.
        let whole = out.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let counts = whole.lines().filter_map(|line| line.strip_prefix("count "));
        counts.filter_map(|number| number.parse().ok()).next_back().unwrap_or(0)
    }

    /// Demands that it goes on counting.
    ///
    /// # Panics
    ///
    /// If it does not.
    #[track_caller]
    pub fn goes_on(&self) {
        let before = self.count();
        self.life
            .wait_for(START, "to go on counting", || (self.count() > before + 3).then_some(()));
    }

    /// Waits until it has printed `line`.
    ///
    /// # Panics
    ///
    /// If it does not in time.
    #[track_caller]
    pub fn prints(&self, line: &str) {
        self.life.wait_for(START, &format!("to print {line:?}"), || {
            self.output().lines().any(|printed| printed == line).then_some(())
        });
    }

    /// Takes an image of it, with more options of `tub checkpoint`.
    pub fn checkpoint(&self, image: &Path, options: &[&str]) -> Finished {
        let pid = self.pid().to_string();
        let tub = Tub::new(self.dir().user(), "checkpoint").arg(pid).arg("--image").arg(image);
        tub.args(options).run()
    }

    /// Takes an image of it and demands that it has ended.
    ///
    /// # Panics
    ///
    /// If there is no image, or the process still runs.
    #[track_caller]
    pub fn checkpoint_and_end(&mut self, image: &Path) {
        let finished = self.checkpoint(image, &[]);
        assert!(finished.status.success(), "should have succeeded: {finished}\n{}", self.tell());
        assert!(self.main.is_gone_within(START), "still runs after {finished}");
        assert!(image.is_dir(), "no image after {finished}");
        let _ = wait_for(START, || self.life.child.try_wait().ok().flatten());
    }

    /// Has it wait for *go* for some minutes more.
    pub fn wait_on(&self) {
        show_life(self.dir(), NEXT_LIFE.fetch_add(1, Ordering::Relaxed));
    }

    /// What is visible of it from outside.
    pub fn visible(&self) -> VisibleState {
        VisibleState::of(&self.main)
    }

    /// Says *go*, with what the life that it is in promises; every life that shares the
    /// directory hears it.
    pub fn go(&self, promises: &str) {
        let (aside, go) = (self.dir().join("state/go.new"), self.dir().join("state/go"));
        let written = fs::write(&aside, promises);
        self.dir().give(&aside);
        put_by(&self.dir().join("state"));
        let said = written.and_then(|()| fs::rename(&aside, &go));
        said.unwrap_or_else(|error| panic!("{}: cannot be written: {error}", go.display()));
    }

    /// Waits for the end of what we started, a bounded time.
    ///
    /// # Panics
    ///
    /// If it does not end in time, or something of it is left over.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let status = self.ends_within(VERDICT);
        let status = status.unwrap_or_else(|| {
            let state = self.main.describe();
            panic!("no end within {VERDICT:?}\n{}\nsubject:\n{state}", self.life.tell())
        });
        if !self.life.detached {
            let gone = self.main.is_gone_within(Duration::from_secs(5));
            assert!(gone, "left over: {}{}", self.main.describe(), self.life.tell());
        }
        status
    }

    /// How what we started ended, if it does in that time.
    pub fn ends_within(&mut self, time: Duration) -> Option<ExitStatus> {
        wait_for(time, || self.life.child.try_wait().ok().flatten())
    }

    /// Demands that the subject finds everything as it was.
    ///
    /// # Panics
    ///
    /// If it found a difference, or ended otherwise.
    #[track_caller]
    pub fn verdict(mut self) {
        let status = self.wait();
        if self.life.detached {
            assert!(self.main.is_gone_within(VERDICT), "no end\n{}", self.life.tell());
        }
        let same = self.output().lines().any(|line| line == "verdict: same");
        assert!(
            same && status.success(),
            "{} ended with {status}\n{}",
            self.life.name,
            self.life.tell()
        );
        for line in self.output().lines().filter(|line| line.starts_with("skipped: ")) {
            crate::skipped(&line["skipped: ".len()..]);
        }
    }

    /// Everything known about it, for the text of a failure.
    pub fn tell(&self) -> String {
        format!("{}subject:\n{}", self.life.tell(), self.main.describe())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // First the subject, so that its `tub restore` can put its own house in order.
        self.main.signal(Signal::SIGKILL);
        let _ = wait_for(Duration::from_secs(2), || self.life.child.try_wait().ok().flatten());
        end(&mut self.life.child);
        let _ = self.main.is_gone_within(Duration::from_secs(2));
    }
}

/// A subject that waits long for *go* learns from it that we are still there.
fn show_life(dir: &Scratch, number: u32) {
    let life = dir.join("state/life");
    if fs::write(&life, number.to_string()).is_ok() {
        dir.give(&life);
    }
}

/// Takes the last *go* out of sight, and leaves it there: a subject knows a new one by its inode, also of
/// a life that its image has seen and nobody else, and the number of one that is removed is soon another's.
fn put_by(state: &Path) {
    let go = state.join("go");
    if let Ok(said) = fs::metadata(&go) {
        let _ = fs::rename(&go, state.join(format!("said.{}", said.ino())));
    }
}
