//! A checkpoint by CRIU.
//!
//! In: a pid, where the image goes. Out: the image, with our marker in it.
//! Invariant: an image appears under its name by a rename, once it is complete and on the disk.

use crate::find::{cannot_run, said};
use crate::{Coordinated, Criu, Error, Marker, is_image};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tub_units::HostPid;

/// How an image is to be taken.
#[derive(Clone, Debug)]
pub struct DumpOptions<'a> {
    /// The process.
    pub pid: HostPid,
    /// Where the image goes.
    pub dir: &'a Path,
    /// Whether an image that is there is replaced.
    pub replace: bool,
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
    /// Looks whether an image could go to `dir`.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`], or the parent is not there.
    pub fn place(dir: &Path, replace: bool) -> Result<(), Error> {
        let io = |path: &Path, source| Error::Io { path: path.to_owned(), source };
        let parent = parent(dir);
        fs::metadata(parent).map_err(|source| io(parent, source))?;
        let Ok(metadata) = fs::symlink_metadata(dir) else { return Ok(()) };
        let empty = metadata.is_dir()
            && fs::read_dir(dir).map_err(|source| io(dir, source))?.next().is_none();
        if empty || (replace && is_image(dir)) {
            return Ok(());
        }
        Err(Error::Exists { dir: dir.to_owned() })
    }

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
    pub fn dump(&self, options: &DumpOptions<'_>) -> Result<Dumped, Error> {
        Self::place(options.dir, options.replace)?;
        let aside = Aside::new(options.dir)?;
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
        let log = aside.0.join(LOG);
        let mut command = self.command("dump");
        command.arg("--tree").arg(pid.to_string()).arg("--images-dir").arg(&aside.0);
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
        marker.write(&aside.0)?;
        let bytes = aside.keep(options.dir)?;
        Ok(Dumped { marker, bytes, freeze, frozen, write })
    }
}

/// What dump and restore have to agree on: the session may belong to a shell, locks and sockets to
/// others are taken as they are, and control groups are whoever's who runs us.
pub(crate) const BOTH_WAYS: [&str; 4] =
    ["--shell-job", "--file-locks", "--ext-unix-sk", "--manage-cgroups=ignore"];

/// Connections are left out of the image; what comes back in their place is over (criu(8)).
pub(crate) const TCP_CLOSE: &str = "--tcp-close";

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

fn parent(dir: &Path) -> &Path {
    dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A directory that becomes the image, or goes away.
struct Aside(PathBuf);

impl Aside {
    fn new(dir: &Path) -> Result<Self, Error> {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let path = parent(dir).join(format!(".{name}.criu-{}", std::process::id()));
        let mut builder = fs::DirBuilder::new();
        match builder.mode(0o700).create(&path) {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(Error::Io { path, source }),
        }
    }

    /// Syncs it, and gives it its name. Answers its size.
    fn keep(self, dir: &Path) -> Result<u64, Error> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        let mut bytes = 0;
        for entry in fs::read_dir(&self.0).map_err(io(&self.0))? {
            let entry = entry.map_err(io(&self.0))?;
            bytes += entry.metadata().map_or(0, |metadata| metadata.len());
        }
        let opened = File::open(&self.0).map_err(io(&self.0))?;
        nix::unistd::syncfs(&opened).map_err(|errno| io(&self.0)(errno.into()))?;
        // Whoever restores from the old one has it open, and keeps it.
        let old = parent(dir).join(format!(".tub-old-{}", std::process::id()));
        let replaced = is_image(dir) && fs::rename(dir, &old).is_ok();
        let renamed = fs::rename(&self.0, dir).map_err(io(dir));
        if replaced && renamed.is_err() {
            let _ = fs::rename(&old, dir);
        } else if replaced {
            let _ = fs::remove_dir_all(&old);
        }
        renamed.map(|()| bytes)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // Gone under this name if it was kept.
        let _ = fs::remove_dir_all(&self.0);
    }
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

    #[test]
    fn an_image_goes_where_nothing_or_an_empty_directory_is() {
        let dir = std::env::temp_dir().join(format!("tub-criu-place-{}", std::process::id()));
        Criu::place(&dir, false).unwrap();
        fs::create_dir(&dir).unwrap();
        Criu::place(&dir, false).unwrap();
        fs::write(dir.join("x"), "").unwrap();
        assert!(matches!(Criu::place(&dir, true), Err(Error::Exists { .. })));
        fs::remove_dir_all(&dir).unwrap();
        assert!(matches!(Criu::place(&dir.join("y"), true), Err(Error::Io { .. })));
    }
}
