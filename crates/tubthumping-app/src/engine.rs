//! Starts the engine from inside, for an application that asks for its own checkpoint.
//!
//! In: `TUB_COMMAND`, `TUB_IMAGE` and `TUB_CHECKPOINT_OPTIONS`. Out: a `tub checkpoint` of this
//! process, and where it leaves its messages.
//! Invariant: the engine is no child of this process, which could not be restored with one; and
//! no descriptor of this process leads to it.
//! Not here: waiting for it.

use std::env;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// An engine that has been started.
#[derive(Debug)]
pub struct Started {
    /// Its process id.
    pub pid: i32,
    /// The file that its messages go to.
    pub messages: PathBuf,
}

/// Starts the engine; `None` where it is not said which, or where the image should go.
///
/// The error says what could not be run, and why.
pub fn start() -> Option<Result<Started, String>> {
    let command = set("TUB_COMMAND")?;
    let image = set("TUB_IMAGE")?;
    let name = PathBuf::from(&command);
    Some(run(command, image).map_err(|error| format!("{}: cannot run: {error}", name.display())))
}

fn set(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// More options of the command: those that whoever started this process wishes for.
fn options() -> Vec<String> {
    let options = env::var("TUB_CHECKPOINT_OPTIONS").unwrap_or_default();
    options.split_whitespace().map(str::to_owned).collect()
}

fn run(command: OsString, image: OsString) -> io::Result<Started> {
    let (mut pid_end, child_end) = io::pipe()?;
    let messages = messages_path()?;
    let log = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&messages)?;
    let report_to = child_end.as_raw_fd();
    let mut command = Command::new(command);
    command
        .arg("checkpoint")
        .arg(std::process::id().to_string())
        .arg("--image")
        .arg(image)
        .args(options())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    // SAFETY: `adopt_out` runs between fork and exec and calls only what signal-safety(7) lists;
    // it allocates nothing and takes no lock.
    unsafe { command.pre_exec(move || adopt_out(report_to)) };
    // Returns when the grandchild has executed the program, or could not. The child itself has
    // ended by then, or is about to.
    let mut child = command.spawn()?;
    child.wait()?;
    drop(child_end);
    let mut pid = [0; 4];
    pid_end.read_exact(&mut pid)?;
    Ok(Started { pid: i32::from_ne_bytes(pid), messages })
}

/// In the child: leaves the session, and has a child of its own go on, which is then nobody's.
fn adopt_out(report_to: i32) -> io::Result<()> {
    // SAFETY: setsid(2) touches no memory. Fails for a group leader only, which a child is not.
    unsafe { libc::setsid() };
    // SAFETY: fork(2) in the only thread of this process.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(()),
        pid => {
            let bytes = pid.to_ne_bytes();
            // SAFETY: write(2) of four bytes of ours to the pipe made by `run`. A pipe takes that
            // few at once, and where it fails `run` misses them.
            unsafe { libc::write(report_to, bytes.as_ptr().cast(), bytes.len()) };
            // SAFETY: _exit(2) ends this process without running anything of the program's.
            unsafe { libc::_exit(0) }
        }
    }
}

/// A name for the messages in the directory of the control sockets, which is ours alone.
fn messages_path() -> io::Result<PathBuf> {
    let mut random = [0; 8];
    fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let name = format!("{:016x}.log", u64::from_ne_bytes(random));
    Ok(tub_control::default_directory().join(name))
}
