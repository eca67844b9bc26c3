//! A process by its id, and the certainty that it is still the same one.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// A process that was seen alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pid: i32,
    /// Field 22 of `/proc/PID/stat`: together with the id it is unique for one boot.
    start_time: u64,
}

impl Process {
    /// The process `pid`, if there is one and it is not a zombie.
    pub fn find(pid: i32) -> Option<Self> {
        let (state, start_time) = stat(pid)?;
        (state != 'Z' && state != 'X').then_some(Self { pid, start_time })
    }

    /// Its id.
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// When it was started, counted from the boot of the machine, in whole ticks of a hundredth of a
    /// second (proc_pid_stat(5); `USER_HZ` is 100 on x86-64).
    pub const fn started(&self) -> Duration {
        Duration::from_millis(self.start_time * 10)
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        Self::find(self.pid) == Some(*self)
    }

    /// Sends `signal`, if it still runs.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive() {
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Waits until it is gone; `false` after `time`.
    pub fn is_gone_within(&self, time: Duration) -> bool {
        wait_for(time, || (!self.is_alive()).then_some(())).is_some()
    }

    /// A file of its directory in /proc.
    pub fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }

    /// All of its descendants.
    pub fn descendants(&self) -> Vec<Self> {
        let mut found = Vec::new();
        let mut todo = vec![self.pid];
        while let Some(pid) = todo.pop() {
            let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for task in tasks.flatten() {
                let children = fs::read_to_string(task.path().join("children"));
                let children = children.unwrap_or_default();
                for child in children.split_whitespace().filter_map(|word| word.parse().ok()) {
                    found.extend(Self::find(child));
                    todo.push(child);
                }
            }
        }
        found
    }

    /// What /proc tells about it, for a person who looks into a failure.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let status = fs::read_to_string(self.proc("status")).unwrap_or_default();
        let wanted = ["Name:", "State:", "Pid:", "PPid:", "NSpid:", "TracerPid:", "Uid:"];
        let wanted =
            [&wanted[..], &["Threads:", "SigPnd:", "ShdPnd:", "SigBlk:", "CapEff:"]].concat();
        for line in status.lines().filter(|line| wanted.iter().any(|w| line.starts_with(w))) {
            let _ = writeln!(text, "  {line}");
        }
        let Ok(tasks) = fs::read_dir(self.proc("task")) else {
            let _ = writeln!(text, "  process {} is gone", self.pid);
            return text;
        };
        for task in tasks.flatten().take(12) {
            let read = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let id = task.file_name();
            let (comm, wchan, syscall) = (read("comm"), read("wchan"), read("syscall"));
            let state = stat(id.to_string_lossy().parse().unwrap_or(0)).map_or('?', |s| s.0);
            let _ = writeln!(
                text,
                "  task {} {} {state} in {} syscall {}",
                id.to_string_lossy(),
                comm.trim(),
                wchan.trim(),
                syscall.trim()
            );
        }
        text
    }
}

/// State and start time of a process.
fn stat(pid: i32) -> Option<(char, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, parentheses included; what follows the last one is numbers.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Asks `found` again and again until it gives something; `None` after `time`.
pub fn wait_for<T>(time: Duration, mut found: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + time;
    loop {
        if let Some(value) = found() {
            return Some(value);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(3));
    }
}
