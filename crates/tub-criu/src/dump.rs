//! A checkpoint by CRIU.
//!
//! In: a pid, a directory aside. Out: what CRIU put there, with our marker.
//! Not here: where the image goes (`aside`).

use crate::find::{cannot_run, said};
use crate::{Aside, Coordinated, Criu, Error, Marker};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tub_units::HostPid;

/// How an image is to be taken.
#[derive(Clone, Debug)]
pub struct DumpOptions<'a> {
    /// The process.
    pub pid: HostPid,
    /// Whether the original goes on.
    pub leave_running: bool,
    /// Whether TCP connections end, rather than stand in the way.
    pub tcp_close: bool,
    /// How many checkpoints lie behind the process, this one included.
    pub generation: u64,
    /// How the application takes part, if it does.
    pub coordination: Option<Coordinated>,
    /// More words for CRIU's command line.
    pub words: &'a [OsString],
}

/// An image taken.
#[derive(Clone, Debug)]
pub struct Dumped {
    /// What is known about it.
    pub marker: Marker,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Until all threads stood still.
    pub freeze: Duration,
    /// How long they stood still, for us.
    pub frozen: Duration,
    /// How long the memory took.
    pub write: Duration,
}

impl Criu {
    /// Looks whether the process is one that CRIU can take at all.
    ///
    /// # Errors
    ///
    /// [`Error::ForeignSession`].
    pub fn takes(pid: HostPid) -> Result<(), Error> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok();
        match stat.and_then(|text| tub_procfs::stat::parse(&text).ok()) {
            Some(stat) if stat.session == 0 => Err(Error::ForeignSession { pid }),
            // A process that is gone is told of by whoever wants to look into it.
            _ => Ok(()),
        }
    }

    /// Takes an image of a process and its descendants.
    ///
    /// # Errors
    ///
    /// There is no image; the process goes on, unless it ended by itself.
    pub fn dump(&self, aside: Aside, options: &DumpOptions<'_>) -> Result<Dumped, Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let pid = options.pid;
        let marker = Marker {
            v: 1,
            engine: "criu".into(),
            engine_version: self.version().to_owned(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            created_unix_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
            generation: options.generation,
            pid: inner_pid(pid),
            threads: fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count),
            stdio: [0, 1, 2].map(|number| stream(pid, number)),
            tcp_close: options.tcp_close,
            coordination: options.coordination.clone(),
        };
        // Whoever finds what we could not finish needs nothing else of us.
        marker.write(aside.path())?;
        let log = aside.path().join(LOG);
        let mut command = self.command("dump");
        command.arg("--tree").arg(pid.to_string()).arg(IMAGES_DIR).arg(aside.path());
        command.args(["--log-file", LOG, "-v2", "--display-stats"]).args(BOTH_WAYS);
        if options.leave_running {
            command.arg("--leave-running");
        }
        if options.tcp_close {
            command.arg(TCP_CLOSE);
        }
        command.args(options.words).stdin(Stdio::null());
        let output = command.output().map_err(|source| cannot_run(self.program(), source))?;
        if !output.status.success() {
            let verb = format!("dump process {pid}");
            return Err(match output.status.signal().and_then(|s| Signal::try_from(s).ok()) {
                // What it last logged has nothing to do with it.
                Some(signal) => self.was_ended(verb, signal),
                None => self.failed(verb, &log, &said(&output)),
            });
        }
        let told = said(&output);
        let time = |name| Duration::from_micros(number_after(&told, name));
        let (freeze, frozen) = (time("Freezing time: "), time("Frozen time: "));
        let write = time("Memory dump time: ") + time("Memory write time: ");
        let bytes = aside.keep()?;
        Ok(Dumped { marker, bytes, freeze, frozen, write })
    }
}

/// What dump and restore have to agree on: the session may belong to a shell, locks and sockets to
/// others are taken as they are, and control groups are whoever's who runs us.
pub(crate) const BOTH_WAYS: [&str; 4] =
    ["--shell-job", "--file-locks", "--ext-unix-sk", "--manage-cgroups=ignore"];

/// Connections are left out of the image; what comes back in their place is over (criu(8)).
pub(crate) const TCP_CLOSE: &str = "--tcp-close";

/// The option before the directory that CRIU writes to; by the two of them a run of it is known.
pub(crate) const IMAGES_DIR: &str = "--images-dir";

const LOG: &str = "criu-dump.log";

/// The id of a process in its own PID namespace.
fn inner_pid(pid: HostPid) -> i32 {
    let status = fs::read(format!("/proc/{pid}/status")).ok();
    let status = status.and_then(|text| tub_procfs::status::parse(&text).ok());
    status.and_then(|status| status.ns_tgid.last().copied()).map_or(pid.0, |pid| pid.0)
}

/// What a standard stream is, as `--inherit-fd` names it (criu(8)). A terminal is left to
/// `--shell-job`, which takes that of the restoring side; other devices stay what they are, since the
/// name means every descriptor of that device, and not the stream alone.
fn stream(pid: HostPid, number: i32) -> Option<String> {
    let link = fs::read_link(format!("/proc/{pid}/fd/{number}")).ok()?;
    let link = link.to_str()?;
    if link.starts_with("/dev/") {
        return None;
    }
    Some(link.strip_prefix('/').unwrap_or(link).to_owned())
}

fn number_after(text: &str, name: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.trim().strip_prefix(name));
    rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_what_criu_displays() {
        let said = "Displaying dump stats:\nFreezing time: 103 us\nFrozen time: 11565 us\n";
        assert_eq!(number_after(said, "Frozen time: "), 11565);
        assert_eq!(number_after(said, "Memory write time: "), 0);
    }
}
