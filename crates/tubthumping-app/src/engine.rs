//! Starts the engine from inside, for an application that asks for its own checkpoint.
//!
//! In: `TUB_COMMAND`, `TUB_IMAGE`, `TUB_IMAGE_PLACEHOLDERS` and `TUB_CHECKPOINT_OPTIONS`, or the same by name.
//! Out: a `tub checkpoint` of this process, and where it leaves its messages.
//! Invariant: the engine is no child of this process, which could not be restored with one; and
//! no descriptor of this process leads to it.
//! Not here: waiting for it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
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
    let started = run(&command, &image, &options(), Stdio::null());
    Some(started.map_err(|error| cannot_run(&name, &error)))
}

/// Starts `command` as the engine, with more words for it, and tells it `request` on its standard
/// input: when it has read that, no descriptor of this process leads to it any more. `allow` is told
/// who will trace this process, before the engine knows what to do.
///
/// # Errors
/// What could not be run, and why.
pub fn start_with(
    command: &Path,
    image: &OsStr,
    words: &[String],
    request: &[u8],
    allow: impl FnOnce(i32),
) -> Result<Started, String> {
    let tell = || -> io::Result<Started> {
        let (ours, theirs) = UnixStream::pair()?;
        let stdin = Stdio::from(OwnedFd::from(theirs));
        let started = run(command.as_os_str(), image, words, stdin)?;
        allow(started.pid);
        // It may have ended already; what it said tells why.
        let _ = send(&ours, request);
        Ok(started)
    };
    tell().map_err(|error| cannot_run(command, &error))
}

/// All of `bytes`, without a SIGPIPE where nobody reads: this may be anybody's process.
fn send(to: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let (start, length) = (bytes.as_ptr().cast(), bytes.len());
        // SAFETY: send(2) of that many bytes, which are borrowed, to a socket that is.
        let sent = unsafe { libc::send(to.as_raw_fd(), start, length, libc::MSG_NOSIGNAL) };
        match usize::try_from(sent) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
    Ok(())
}

fn cannot_run(command: &Path, error: &io::Error) -> String {
    format!("{}: cannot run: {error}", command.display())
}

/// Whether a process is gone. One that nobody reaps counts, as in a container without init.
pub fn has_ended(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")) else {
        return true;
    };
    // "pid (name) state …"; the name may hold anything.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    matches!(state, Some('Z' | 'X'))
}

fn set(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Where the image goes that this process asks for, if it does; and whether that is a name to be filled
/// in when it is taken.
pub fn wished_image() -> (Option<String>, bool) {
    let image = set("TUB_IMAGE").and_then(|image| image.into_string().ok());
    (image, set("TUB_IMAGE_PLACEHOLDERS").is_some())
}

/// More options of the command: those that whoever started this process wishes for.
fn options() -> Vec<String> {
    const PLACEHOLDERS: &str = "--placeholders";
    let options = env::var("TUB_CHECKPOINT_OPTIONS").unwrap_or_default();
    let mut options: Vec<String> = options.split_whitespace().map(str::to_owned).collect();
    if wished_image().1 && !options.iter().any(|option| option == PLACEHOLDERS) {
        options.push(PLACEHOLDERS.to_owned());
    }
    options
}

fn run(command: &OsStr, image: &OsStr, words: &[String], stdin: Stdio) -> io::Result<Started> {
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
        .args(words)
        .stdin(stdin)
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
