//! How a subject speaks with the harness: it says *ready*, waits for *go*, and prints a verdict.
//!
//! In: a directory of its own, and the files `go` and `life` that appear in it. Out: the file `ready`,
//! lines on stdout, the exit status.
//! Invariant: no descriptor, lock or timer is held for the conversation while a subject waits, so
//! that the only state under test is what the subject has set up itself.
//! Not here: what is checked.
//!
//! A path is the one thing that original and copies surely share; that is why *go* is a file and
//! not a socket. The verdict goes to stdout because each instance is given its own by `tub restore`.

use crate::thread;
use std::fmt::Debug;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// How often a subject looks for `go`.
const POLL: Duration = Duration::from_millis(5);

/// Looks without success after which a subject gives up, so that a subject whose harness has died
/// ends by itself: about two minutes of running time, whatever the clocks do meanwhile. A harness
/// that has begun another life since is not dead.
const MAX_POLLS: u32 = 24_000;

/// What the harness promises about the life that a subject finds itself in at *go*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Process and thread ids are those of before.
    SameIds,
    /// CLOCK_MONOTONIC went on where it stood at the freeze.
    ContinuousClock,
    /// Anonymous memory is anonymous: discarded pages read as zeros.
    ExactMemory,
    /// There was a checkpoint and a restore; absent in the control run.
    Restored,
}

impl Promise {
    const fn word(self) -> &'static str {
        match self {
            Self::SameIds => "same-ids",
            Self::ContinuousClock => "continuous-clock",
            Self::ExactMemory => "exact-memory",
            Self::Restored => "restored",
        }
    }
}

/// One subject's conversation with the harness.
#[derive(Debug)]
pub(crate) struct Stage {
    dir: PathBuf,
    options: Vec<String>,
    go: OnceLock<String>,
    gone: AtomicBool,
    differences: Mutex<Vec<String>>,
}

impl Stage {
    /// A conversation through `dir`, which exists and is empty.
    pub(crate) fn new(dir: PathBuf, options: Vec<String>) -> Self {
        let differences = Mutex::new(Vec::new());
        Self { dir, options, go: OnceLock::new(), gone: AtomicBool::new(false), differences }
    }

    /// The option at `index` of the command line, after name and directory.
    pub(crate) fn option(&self, index: usize) -> Option<&str> {
        self.options.get(index).map(String::as_str)
    }

    /// A path in the subject's own directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Says *ready* and returns once the harness has said *go*: the checkpoint lies in between.
    pub(crate) fn across(&self) -> io::Result<()> {
        self.ready()?;
        self.wait_for_go()
    }

    /// Says *ready*.
    pub(crate) fn ready(&self) -> io::Result<()> {
        // Renamed into place, so that the harness never sees half of it.
        let aside = self.path("ready.new");
        fs::write(&aside, std::process::id().to_string())?;
        fs::rename(&aside, self.path("ready"))
    }

    /// Waits for *go*, a bounded time.
    pub(crate) fn wait_for_go(&self) -> io::Result<()> {
        let path = self.path("go");
        let mut life = self.life();
        loop {
            for _ in 0..MAX_POLLS {
                if let Some(words) = read_if_there(&path)? {
                    self.go.get_or_init(|| words);
                    self.gone.store(true, Ordering::SeqCst);
                    return Ok(());
                }
                thread::sleep(POLL);
            }
            if life == self.life() {
                let path = path.display();
                return Err(io::Error::other(format!("{path}: no go within {MAX_POLLS} looks")));
            }
            life = self.life();
        }
    }

    /// What the harness has called the latest life that it has begun.
    fn life(&self) -> Option<String> {
        read_if_there(&self.path("life")).ok().flatten()
    }

    /// Whether the harness has said *go*; threads of a subject end on it.
    pub(crate) fn is_over(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Whether the harness promised `promise` when it said *go*.
    pub(crate) fn promised(&self, promise: Promise) -> bool {
        let words = self.go.get().map_or("", String::as_str);
        words.split_whitespace().any(|word| word == promise.word())
    }

    /// Notes a difference where `found` is not `expected`.
    pub(crate) fn same<T: PartialEq + Debug + ?Sized>(&self, what: &str, expected: &T, found: &T) {
        if expected != found {
            self.differs(format!("{what}: expected {expected:?}, found {found:?}"));
        }
    }

    /// Notes a difference where `true_now` does not hold.
    pub(crate) fn holds(&self, what: &str, true_now: bool) {
        if !true_now {
            self.differs(format!("{what}: does not hold"));
        }
    }

    /// Notes a difference where `result` is an error, and gives the value otherwise.
    pub(crate) fn works<T>(&self, what: &str, result: io::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.differs(format!("{what}: {error}"));
                None
            }
        }
    }

    /// Notes a difference where `value` lies outside `bounds`.
    pub(crate) fn within<T: PartialOrd + Debug>(
        &self,
        what: &str,
        value: &T,
        bounds: std::ops::RangeInclusive<T>,
    ) {
        if !bounds.contains(value) {
            self.differs(format!("{what}: {value:?} lies outside {bounds:?}"));
        }
    }

    /// Notes a difference.
    pub(crate) fn differs(&self, difference: String) {
        self.differences.lock().unwrap_or_else(PoisonError::into_inner).push(difference);
    }

    /// Everything noted so far, for a descendant to pass on.
    pub(crate) fn differences(&self) -> Vec<String> {
        self.differences.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Prints everything that differs and the verdict; returns whether all was the same.
    pub(crate) fn verdict(&self) -> io::Result<bool> {
        let differences = self.differences.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = io::stdout().lock();
        for difference in differences.iter() {
            writeln!(out, "differs: {difference}")?;
        }
        if differences.is_empty() {
            writeln!(out, "verdict: same")?;
        } else {
            writeln!(out, "verdict: {} differences", differences.len())?;
        }
        out.flush()?;
        Ok(differences.is_empty())
    }
}

/// Prints a line that the harness may read, or a person after a failure.
pub(crate) fn say(line: &str) {
    let mut out = io::stdout().lock();
    // A harness that has gone away is no reason to fall over.
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

fn read_if_there(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // A restored instance may meet a signal here; the kernel documents EINTR for open.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        Err(error) => Err(error),
    }
}
