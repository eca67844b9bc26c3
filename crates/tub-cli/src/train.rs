//! `tub train`: teach an image which pages its instances need first.
//!
//! In: an image, a command that succeeds when an instance answers. Out: a file beside the image.
//! Each run restores an instance, waits for the command to succeed, looks at what the instance has
//! written to, and ends it.

use crate::report::{Code, Failure};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use tubthumping::{HostPid, Training};

/// How long an instance may take to end once its `tub restore` is gone.
const GRACE: Duration = Duration::from_secs(10);

/// Restore an image a few times, use each instance by PROBE, and remember which pages it needed, so
/// that later restores have them in place.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The image. Its directory is written to.
    dir: PathBuf,
    /// How many instances are used; what most of them agree on is kept.
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: u32,
    /// How long an instance may take until PROBE succeeds, in seconds.
    #[arg(long, value_name = "S", default_value_t = 30)]
    timeout: u64,
    /// A command that succeeds once the instance has given its first answer; it is run until it
    /// does.
    #[arg(last = true, required = true, value_name = "PROBE")]
    probe: Vec<OsString>,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    let what = || format!("image {} cannot be trained", args.dir.display());
    let failed = |error: &dyn std::error::Error, code| {
        Failure::new(what(), error, code).state("the image is as it was")
    };
    let mut training = Training::new(&args.dir).map_err(|error| failed(&error, Code::BadImage))?;
    let patience = Duration::from_secs(args.timeout);
    for run in 1..=args.runs.max(1) {
        let instance =
            Instance::start(&args.dir, patience).map_err(|error| failed(&error, Code::Failed))?;
        probe(args, patience).map_err(|error| failed(&error, Code::TimedOut))?;
        training.record(instance.main).map_err(|error| failed(&error, Code::Failed))?;
        drop(instance);
        eprintln!("tub: instance {run} of {} recorded", args.runs.max(1));
    }
    let pages = training.keep().map_err(|error| failed(&error, Code::CannotWrite))?;
    println!("{}: {pages} pages will be in place before an instance runs", args.dir.display());
    Ok(ExitCode::SUCCESS)
}

/// An instance in the care of a `tub restore`, ended when dropped.
struct Instance {
    restore: Child,
    main: HostPid,
}

impl Instance {
    fn start(dir: &Path, patience: Duration) -> std::io::Result<Self> {
        let pidfile = std::env::temp_dir().join(format!("tub-train-{}.pid", std::process::id()));
        let _ = std::fs::remove_file(&pidfile);
        let restore = Command::new(std::env::current_exe()?)
            .arg("restore")
            .arg(dir)
            // All pages of an earlier training would be the instance's own from the start.
            .arg("--untrained")
            .arg("--pidfile")
            .arg(&pidfile)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let mut instance = Self { restore, main: HostPid(0) };
        let start = Instant::now();
        loop {
            let main = std::fs::read_to_string(&pidfile).ok();
            if let Some(main) = main.and_then(|text| text.trim().parse().ok()) {
                let _ = std::fs::remove_file(&pidfile);
                instance.main = HostPid(main);
                return Ok(instance);
            }
            if let Some(status) = instance.restore.try_wait()? {
                return Err(std::io::Error::other(format!("an instance ended with {status}")));
            }
            if start.elapsed() > patience {
                return Err(std::io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Its namespace ends with it. It has answered and nobody knows it: no need to be polite.
        let _ = self.restore.kill();
        let _ = self.restore.wait();
        // The process itself ends a moment later, and the next instance wants its port.
        let main = PathBuf::from(format!("/proc/{}", self.main));
        let start = Instant::now();
        while self.main.0 != 0 && main.exists() && start.elapsed() < GRACE {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn probe(args: &Args, patience: Duration) -> std::io::Result<()> {
    let start = Instant::now();
    let [program, arguments @ ..] = args.probe.as_slice() else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    loop {
        let status = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if status.success() {
            return Ok(());
        }
        if start.elapsed() > patience {
            let message = format!("the probe did not succeed within {patience:?}: {status}");
            return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, message));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
