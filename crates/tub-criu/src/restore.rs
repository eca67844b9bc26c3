//! A restore by CRIU, in a PID namespace of its own, so that there can be several at once.
//!
//! In: an image with our marker. Out: [`Restored`], which runs, or stands still until it is told.
//! Invariant: the image is only read; what fails on the way leaves no process.

use crate::dump::{BOTH_WAYS, TCP_CLOSE};
use crate::find::cannot_run;
use crate::{Criu, Error, Marker, family};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, close};
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tub_restore::{Housed, Running, house};
use tub_units::{HostPid, NsPid};

/// How an image is to be restored.
#[derive(Clone, Debug)]
pub struct RestoreOptions<'a> {
    /// The image.
    pub dir: &'a Path,
    /// Whether the instance outlives us.
    pub detach: bool,
    /// Whether the standard streams are ours, rather than those of the image.
    pub inherit_stdio: bool,
    /// Whether it is to stand still until [`Restored::resume`].
    pub stopped: bool,
    /// More words for CRIU's command line.
    pub words: &'a [OsString],
}

/// A process that CRIU has brought back.
#[derive(Debug)]
pub struct Restored {
    housed: Housed,
    main: HostPid,
    stopped: bool,
}

impl Criu {
    /// Brings an image back.
    ///
    /// The caller must be single-threaded, and finds all signals blocked afterwards.
    ///
    /// # Errors
    ///
    /// In every case there is no process.
    pub fn restore(
        &self,
        marker: &Marker,
        options: &RestoreOptions<'_>,
    ) -> Result<Restored, Error> {
        let work = Work::new()?;
        let log = work.0.join(LOG);
        let mut command = self.restore_command(marker, options, &work.0);
        let made = house(options.detach, || {
            let lent = match lend(&mut command, marker, options.inherit_stdio) {
                Ok(lent) => lent,
                Err(errno) => return Err(format!("standard streams: {errno}").into_bytes()),
            };
            // Why it failed stands in its log, which is read outside.
            let outcome = command.status();
            // What is kept open here, its other end waits for.
            for fd in lent {
                let _ = close(fd);
            }
            match outcome {
                Ok(status) if status.success() => {}
                Ok(_) => return Err(Vec::new()),
                Err(source) => return Err(cannot_run(self.program(), source).to_string().into()),
            }
            Ok(NsPid(marker.pid))
        });
        let housed = match made.map_err(Error::House)? {
            Ok(housed) => housed,
            Err(said) => {
                let verb = format!("restore {}", options.dir.display());
                return Err(self.failed(verb, &log, &String::from_utf8_lossy(&said)));
            }
        };
        let family = family::descendants(housed.init());
        let main = family.iter().find(|(_, inner)| *inner == housed.main);
        let main = main.ok_or(Error::Gone)?.0;
        Ok(Restored { housed, main, stopped: options.stopped })
    }

    fn restore_command(
        &self,
        marker: &Marker,
        options: &RestoreOptions<'_>,
        work: &Path,
    ) -> Command {
        let mut command = self.command("restore");
        command.arg("--restore-detached").arg("--images-dir").arg(options.dir);
        command.arg("--work-dir").arg(work).args(["--log-file", LOG, "-v2"]).args(BOTH_WAYS);
        if options.stopped {
            command.arg("--leave-stopped");
        }
        if marker.tcp_close {
            command.arg(TCP_CLOSE);
        }
        command.args(options.words);
        command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
        command
    }
}

const LOG: &str = "criu-restore.log";

/// Hands CRIU our standard streams in the place of those of the image; under other numbers, since
/// it closes what it has taken and needs its own.
fn lend(command: &mut Command, marker: &Marker, inherit: bool) -> Result<Vec<RawFd>, Errno> {
    let (input, output, errors) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let ours: [BorrowedFd<'_>; 3] = [input.as_fd(), output.as_fd(), errors.as_fd()];
    let mut lent = Vec::new();
    for (fd, stream) in ours.into_iter().zip(&marker.stdio) {
        if let (true, Some(stream)) = (inherit, stream) {
            // Not closed on exec, on purpose.
            let fd = fcntl(fd, FcntlArg::F_DUPFD(100))?;
            lent.push(fd);
            command.arg("--inherit-fd").arg(format!("fd[{fd}]:{stream}"));
        }
    }
    Ok(lent)
}

impl Restored {
    /// The main process, as we see it.
    pub fn main(&self) -> HostPid {
        self.main
    }

    /// Lets it go, if it stands still.
    pub fn resume(self) -> Running {
        if self.stopped {
            for (pid, _) in family::descendants(self.housed.init()) {
                let _ = kill(Pid::from_raw(pid.0), Signal::SIGCONT);
            }
        }
        self.housed.running(self.main)
    }
}

/// Where CRIU puts its log and statistics.
struct Work(PathBuf);

impl Work {
    fn new() -> Result<Self, Error> {
        let path = std::env::temp_dir().join(format!("tub-criu-{}", std::process::id()));
        let mut builder = fs::DirBuilder::new();
        match builder.mode(0o700).create(&path) {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(Error::Io { path, source }),
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
