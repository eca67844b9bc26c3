//! Commands that are run to their end, with everything they said.

use crate::{Process, Scratch, User, product, subject_binary, wait_for};
use nix::sys::signal::Signal;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Exit codes of `tub` (`docs/exit-codes.md`). Repeated here on purpose: scripts rely on the
/// numbers, so a change of them must be noticed.
pub mod code {
    /// Something failed that no other code describes.
    pub const FAILED: i32 = 1;
    /// The command line is wrong.
    pub const USAGE: i32 = 2;
    /// The process holds something that cannot be stored, or a resource objected.
    pub const REFUSED: i32 = 3;
    /// The process does not exist, is not ours, or died.
    pub const NO_SUCH_PROCESS: i32 = 4;
    /// This host lacks something.
    pub const HOST_LACKS: i32 = 5;
    /// The image is missing, damaged, of an unknown version, or does not fit this host.
    pub const BAD_IMAGE: i32 = 6;
    /// The image could not be written.
    pub const CANNOT_WRITE: i32 = 7;
    /// The application did not answer in time.
    pub const TIMED_OUT: i32 = 8;
    /// Another checkpoint of the process is under way.
    pub const BUSY: i32 = 9;
}

/// How long any command of `tub` may take; a debug build on a busy machine included.
const LIMIT: Duration = Duration::from_secs(40);

/// A command of `tub` to be run to its end.
#[derive(Clone, Debug)]
pub struct Tub {
    user: User,
    words: Vec<OsString>,
    limit: Duration,
    shell: Option<String>,
}

impl Tub {
    /// `tub COMMAND` as `user`.
    pub fn new(user: User, command: &str) -> Self {
        Self { user, words: vec![command.into()], limit: LIMIT, shell: None }
    }

    /// Adds a word.
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.words.push(word.as_ref().to_owned());
        self
    }

    /// Adds words.
    pub fn args(mut self, words: &[&str]) -> Self {
        self.words.extend(words.iter().map(OsString::from));
        self
    }

    /// Allows it another time than the usual.
    pub const fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Lets a shell do something first: `ulimit -l 64`.
    pub fn after(mut self, shell: &str) -> Self {
        self.shell = Some(shell.to_owned());
        self
    }

    /// The command, to be started otherwise.
    pub fn command(&self) -> Command {
        let tub = &product().tub;
        let mut command = match &self.shell {
            None => as_user(self.user, tub),
            Some(shell) => {
                let mut command = as_user(self.user, Path::new("/bin/sh"));
                command.args(["-c", &format!("{shell} && exec \"$@\""), "sh"]).arg(tub);
                command
            }
        };
        command.args(&self.words);
        command
    }

    /// Who runs it.
    pub const fn user(&self) -> User {
        self.user
    }

    /// The command, run by `program` with `words` in front.
    pub fn command_under(&self, program: &Path, words: &[&str]) -> Command {
        let mut command = as_user(self.user, program);
        command.args(words).arg("--").arg(&product().tub).args(&self.words);
        command
    }

    /// Starts it with its output going to files in `dir`, and does not wait.
    pub fn start(&self, dir: &Path) -> Started {
        start_in(self.command(), dir, self.limit)
    }

    /// Runs it to its end.
    pub fn run(self) -> Finished {
        run_bounded(self.command(), self.limit)
    }
}

/// `program` as `user`, who has no supplementary groups, with no descriptors but the standard
/// streams (see `tub-subject --exec` and `--confined`).
pub fn as_user(user: User, program: &Path) -> Command {
    let mut command = Command::new(subject_binary());
    command.stdin(Stdio::null());
    if let Some(container) = user.container() {
        let id = user.change_to().unwrap_or(0).to_string();
        command.args([CONFINED, container.word(), &id]).arg(program);
        return command;
    }
    command.arg(EXEC).arg(program);
    if let Some(id) = user.change_to() {
        // std clears the supplementary groups when root sets a uid.
        command.uid(id).gid(id);
    }
    command
}

const EXEC: &str = "--exec";
const CONFINED: &str = "--confined";

/// A command under way.
#[derive(Debug)]
pub struct Started {
    child: Child,
    words: String,
    limit: Duration,
    since: Instant,
    out: std::path::PathBuf,
    err: std::path::PathBuf,
}

impl Started {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        pid_of(&self.child)
    }

    /// Waits for its end, a bounded time.
    ///
    /// # Panics
    ///
    /// If it does not end in time; it is killed then.
    pub fn finish(mut self) -> Finished {
        let status = wait_for(self.limit, || self.child.try_wait().ok().flatten());
        let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        let (stdout, stderr) = (read(&self.out), read(&self.err));
        let status = status.unwrap_or_else(|| {
            let state = Process::find(self.pid()).map(|p| p.describe()).unwrap_or_default();
            end(&mut self.child);
            panic!(
                "no end within {:?}: {}\nstate:\n{state}stdout:\n{stdout}stderr:\n{stderr}",
                self.limit, self.words
            )
        });
        let time = self.since.elapsed();
        Finished { words: std::mem::take(&mut self.words), status, stdout, stderr, time }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Kills a child that is still there, and takes its status.
pub(crate) fn end(child: &mut Child) {
    if matches!(child.try_wait(), Ok(None)) {
        let _ = child.kill();
        let _ = child.wait();
    }
}

pub(crate) fn pid_of(child: &Child) -> i32 {
    i32::try_from(child.id()).expect("a pid is an int")
}

/// Starts `command` with its output going to files in `dir`: pipes would be held open by what it
/// leaves running.
pub(crate) fn start_in(mut command: Command, dir: &Path, limit: Duration) -> Started {
    let (out, err) = (dir.join("stdout"), dir.join("stderr"));
    let file = |path: &Path| {
        File::create(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let words = shown(&command);
    command.stdout(file(&out)).stderr(file(&err));
    let since = Instant::now();
    let child = command.spawn().unwrap_or_else(|error| panic!("{words}: cannot start: {error}"));
    Started { child, words, limit, since, out, err }
}

/// Runs `command` to its end, a bounded time.
///
/// # Panics
///
/// If it cannot be started or does not end in time.
pub fn run_bounded(command: Command, limit: Duration) -> Finished {
    let scratch = Scratch::new(User::Root);
    start_in(command, scratch.path(), limit).finish()
}

/// A command line for people.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    // What the subject binary is only the way in for is what people want to see.
    let way_in = match command.get_args().next() {
        Some(word) if word == EXEC => 2,
        Some(word) if word == CONFINED => 4,
        _ => 0,
    };
    words.skip(way_in).map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A command that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its command line.
    pub words: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
    /// How long it took.
    pub time: Duration,
}

impl Finished {
    /// Demands success.
    ///
    /// # Panics
    ///
    /// If it failed.
    #[track_caller]
    pub fn succeeds(self) -> Self {
        assert!(self.status.success(), "should have succeeded: {self}");
        self
    }

    /// Demands the exit code `code`, and each of `words` on stderr.
    ///
    /// # Panics
    ///
    /// If it ended otherwise or said something else.
    #[track_caller]
    pub fn fails_with(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.status.code(), Some(code), "wrong exit code: {self}");
        assert!(self.stderr.starts_with("tub: "), "stderr must start with `tub: `: {self}");
        for word in words {
            assert!(self.stderr.contains(word), "stderr lacks {word:?}: {self}");
        }
        // A failure that shows Rust's own debugging output was never meant for a person.
        for leak in ["panicked at", "Os {", "Error {", "RUST_BACKTRACE"] {
            assert!(!self.stderr.contains(leak), "stderr shows {leak:?}: {self}");
        }
        self
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.words)?;
        match (self.status.code(), self.status.signal().map(Signal::try_from)) {
            (Some(code), _) => writeln!(f, "exit code {code} after {:?}", self.time)?,
            (None, Some(Ok(signal))) => writeln!(f, "ended by {signal} after {:?}", self.time)?,
            (None, _) => writeln!(f, "{} after {:?}", self.status, self.time)?,
        }
        writeln!(f, "stdout:\n{}stderr:\n{}", self.stdout, self.stderr)
    }
}
