//! Faults, injected from outside: a system call of `tub` fails, or `tub` is killed at it.
//!
//! In: a command of `tub`. Out: the calls that it makes when all goes well, and runs of it in which
//! one of them does not.
//! Invariant: nothing in the product knows of it: strace(1) does it, to the real program on the
//! real kernel.

use crate::command::start_in;
use crate::{Finished, Scratch, Tub, skipped};
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// strace makes every call some ten times slower, on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(120);

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not made, and fails with this error.
    Error(&'static str),
    /// The process that makes it is killed instead.
    Kill,
}

/// The `nth` call of that name that a process makes; if there are several, that each of them makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Counted from 1.
    pub nth: usize,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} no. {}", self.name, self.nth)
    }
}

impl Call {
    /// The errors with which it can fail in real life.
    pub fn errors(&self) -> &'static [&'static str] {
        match self.name.as_str() {
            // The first one starts the program, the others end it: nobody could tell.
            "execve" | "exit" | "exit_group" | "rt_sigreturn" | "restart_syscall" => &[],
            // strace puts the error in the place of the call, and so would leave the descriptor
            // open, which Linux never does whatever it returns (close(2)).
            "close" => &[],
            // A wake fails only where there is no memory (futex(2)), and nobody can do without it.
            "futex" => &[],
            // Nothing else than a signal ends it early (clock_nanosleep(2)).
            "clock_nanosleep" => &["EINTR"],
            // Everywhere but on a kernel or under a filter that does not have it (getrandom(2)).
            "getrandom" => &["ENOSYS"],
            "write" | "pwrite64" | "writev" | "fsync" | "fdatasync" | "fallocate" | "ftruncate"
            | "rename" | "renameat2" | "mkdir" => &["ENOSPC", "EIO"],
            "brk" | "mmap" | "mremap" | "munmap" | "clone" | "clone3" | "fork" | "vfork" => {
                &["ENOMEM"]
            }
            "ptrace" | "kill" | "wait4" | "waitid" => &["ESRCH", "EPERM"],
            "openat" | "open" | "socket" | "pipe2" | "socketpair" | "dup" | "fcntl" => {
                &["EMFILE", "EIO"]
            }
            _ => &["EIO"],
        }
    }
}

/// Where strace is, if it is there and may be used; says so otherwise.
pub fn strace() -> Option<PathBuf> {
    let found = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|dir| dir.join("strace")).find(|p| p.exists())
    });
    if found.is_none() {
        skipped("no strace; `cargo xtask setup` installs it");
    }
    found
}

/// A command under strace.
#[derive(Clone, Debug)]
pub struct Traced {
    strace: PathBuf,
    tub: Tub,
    /// Whether the processes that it makes are followed.
    follow: bool,
}

impl Traced {
    /// `tub` alone.
    pub fn new(strace: &Path, tub: Tub) -> Self {
        Self { strace: strace.to_owned(), tub, follow: false }
    }

    /// `tub` and all processes that it makes.
    pub fn with_children(strace: &Path, tub: Tub) -> Self {
        Self { follow: true, ..Self::new(strace, tub) }
    }

    /// Runs it with all going well, and gives the calls made, in their order.
    pub fn calls(&self) -> (Finished, Vec<Call>) {
        let (finished, log) = self.run(&["-e", "trace=all", "-e", "signal=none"]);
        (finished, calls(&log))
    }

    /// Runs it with `fault` at `call`.
    pub fn inject(&self, call: &Call, fault: Fault) -> Finished {
        let (name, nth) = (&call.name, call.nth);
        let what = match fault {
            Fault::Error(errno) => format!("error={errno}"),
            Fault::Kill => "signal=SIGKILL".to_owned(),
        };
        let trace = format!("trace={name}");
        let inject = format!("inject={name}:{what}:when={nth}");
        self.run(&["-e", &trace, "-e", &inject]).0
    }

    fn run(&self, options: &[&str]) -> (Finished, String) {
        let user = self.tub.user();
        let scratch = Scratch::new(user);
        let log = scratch.join("log");
        let mut words = vec!["-qq", "-o", log.to_str().expect("a path of ours is text")];
        // Its threads in any case; the guardian, like all that start another program, goes free.
        words.push("-f");
        if !self.follow {
            words.extend(["-b", "execve"]);
        }
        words.extend(options);
        let command = self.tub.command_under(&self.strace, &words);
        let finished = start_in(command, scratch.path(), LIMIT).finish();
        (finished, fs::read_to_string(log).unwrap_or_default())
    }
}

/// The calls of a log of strace, with or without process ids in front, each once.
fn calls(log: &str) -> Vec<Call> {
    let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
    let mut all: Vec<Call> = Vec::new();
    let mut highest: HashMap<&str, usize> = HashMap::new();
    for line in log.lines() {
        let (pid, line) = match line.split_once(' ') {
            Some((pid, rest)) if pid.bytes().all(|b| b.is_ascii_digit()) => {
                (pid, rest.trim_start())
            }
            _ => ("", line),
        };
        // `<... read resumed>` is the second half of a call that was there before.
        let Some((name, _)) = line.split_once('(') else { continue };
        let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        // One that strace knows no name of, it cannot be told to hit either: `syscall_0x1ce`.
        if !is_name || name.is_empty() || name.starts_with("syscall_") {
            continue;
        }
        let nth = counts.entry((pid, name)).or_default();
        *nth += 1;
        // Another process's tenth call is hit together with the first one's.
        let known = highest.entry(name).or_default();
        if *nth > *known {
            *known = *nth;
            all.push(Call { name: name.to_owned(), nth: *nth });
        }
    }
    all
}

/// Processes other than `except` that have the directory `dir` in their command line: subjects,
/// their restores, and what those are made of.
pub fn left_over(dir: &Path, except: &[i32]) -> Vec<i32> {
    let dir = dir.to_string_lossy().into_owned();
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    numbers
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| !except.contains(pid))
        .filter(|pid| {
            let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&cmdline).contains(&dir)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_for_each_process() {
        let log = "12 openat(AT_FDCWD, \"/x\") = 3\n12 read(3, \"\", 4) = 0\n13 read(3 <unfinished ...>\n\
                   12 read(3) = 0\n13 <... read resumed>) = 0\n13 +++ exited with 0 +++\n\
                   12 --- SIGCHLD {} ---\n13 read(4) = 0\n13 read(4) = 0\n";
        let names: Vec<_> = calls(log).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["openat no. 1", "read no. 1", "read no. 2", "read no. 3"]);
    }
}
