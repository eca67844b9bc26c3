//! Late attach: has a JVM that was started without us load the agent.
//!
//! In: a process id, the path of the agent. Out: a JVM that takes part in checkpoints.
//! Invariant: a JVM that cannot be asked is not touched; above all it is not sent a SIGQUIT that would
//! end it, or have it print a thread dump.
//! Not here: what the agent does then (`bindings/java/agent`), and what is told to users.
//!
//! JVM(since 9): HotSpot's attach mechanism, as `jcmd` uses it. A file `.attach_pidN` in the temporary
//! directory and SIGQUIT have the JVM listen at `/tmp/.java_pidN`; a request is the version of the
//! protocol, a command and three arguments, each ended by NUL; the answer is a number on a line, and
//! text. Same on 17 and 25.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, chown};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tub_control::{Client, ClientError};
use tub_procfs::status::StatusRecord;
use tub_units::HostPid;

/// How long a JVM may take to listen, to answer, and to open its control socket: each may have to
/// wait for a pause of the collector.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often to look.
const POLL: Duration = Duration::from_millis(10);

/// File name of the agent.
const AGENT: &str = "libtub_java_agent.so";

/// The agent for a JVM that has none.
#[derive(Clone, Debug)]
pub struct LateAgent {
    /// Where it lies.
    pub path: PathBuf,
    /// Called when it has been loaded, before anything else happens to the process.
    pub loaded: fn(HostPid),
}

/// Why the agent could not be loaded. The process goes on as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The JVM was told not to let tools in.
    #[error("its attach mechanism is turned off by -XX:+DisableAttachMechanism")]
    Disabled,
    /// SIGQUIT would end it.
    #[error("it does not listen for tools (-Xrs, or it has only just been started)")]
    Deaf,
    /// The JVM does not see the agent, or says why it does not load it.
    #[error("{}: the JVM does not load it: {text}", agent.display())]
    Refused {
        /// The agent.
        agent: PathBuf,
        /// The JVM's words.
        text: String,
    },
    /// It took too long.
    #[error("the JVM does not {what} within {PATIENCE:?}")]
    NoAnswer {
        /// What was waited for.
        what: &'static str,
    },
    /// A system call failed.
    #[error("{}: cannot {operation}", object.display())]
    Io {
        /// Path of the object.
        object: PathBuf,
        /// What could not be done with it.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
}

fn failed(object: &Path, operation: &'static str) -> impl FnOnce(io::Error) -> AttachError {
    move |source| AttachError::Io { object: object.to_owned(), operation, source }
}

/// Whether a process is a JVM in which our agent is not.
pub(crate) fn is_without_agent(pid: HostPid) -> bool {
    let maps = fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
    let maps = tub_procfs::maps::parse(&maps).unwrap_or_default();
    let has = |name: &str| {
        let names = maps.iter().filter_map(|record| record.path.as_deref());
        names.filter_map(|path| Path::new(path).file_name()).any(|found| found == name)
    };
    has("libjvm.so") && !has(AGENT)
}

/// Loads the agent, and waits until the JVM takes part.
///
/// # Errors
///
/// Any [`AttachError`].
pub(crate) fn attach(pid: HostPid, agent: &LateAgent) -> Result<(), AttachError> {
    let jvm = Jvm::of(pid)?;
    let path = fs::canonicalize(&agent.path).map_err(failed(&agent.path, "find the agent"))?;
    let answer = jvm.ask(&["load", &path.to_string_lossy(), "true", "open=restore"])?;
    // JVM(since 9): the status is that of the request; what the agent returned stands in the text.
    let (status, text) = answer.split_once('\n').unwrap_or((&answer, ""));
    if status.trim() != "0" || text.trim() != "return code: 0" {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = if text.starts_with("return code:") {
            "the agent failed there, and has said why on the JVM's standard error".to_owned()
        } else {
            text
        };
        return Err(AttachError::Refused { agent: path, text });
    }
    (agent.loaded)(pid);
    let listens = || matches!(Client::find(pid), Ok(Some(_)) | Err(ClientError::Refused(_)));
    wait_for("open its control socket", || listens().then_some(()))
}

/// A JVM that listens for tools, or can be made to.
struct Jvm {
    pid: HostPid,
    status: StatusRecord,
    /// Its `/tmp`, whatever `TMPDIR` says, as it sees it.
    tmp: PathBuf,
    /// Its number where it lives.
    number: i32,
}

impl Jvm {
    fn of(pid: HostPid) -> Result<Self, AttachError> {
        let path = PathBuf::from(format!("/proc/{pid}/status"));
        let bytes = fs::read(&path).map_err(failed(&path, "read"))?;
        let status = tub_procfs::status::parse(&bytes)
            .map_err(|error| failed(&path, "understand")(io::Error::other(error)))?;
        let number = status.ns_tgid.last().map_or(pid.0, |number| number.0);
        let tmp = PathBuf::from(format!("/proc/{pid}/root/tmp"));
        let jvm = Self { pid, status, tmp, number };
        if jvm.is_disabled() {
            return Err(AttachError::Disabled);
        }
        Ok(jvm)
    }

    /// What the JVM says of itself where it has perf data, and what it was started with otherwise:
    /// with the mechanism off it answers SIGQUIT with a thread dump.
    fn is_disabled(&self) -> bool {
        let mut data =
            fs::read_dir(&self.tmp).into_iter().flatten().flatten().filter_map(|entry| {
                let name = entry.file_name();
                let is_user = name.as_bytes().starts_with(b"hsperfdata_");
                let path = entry.path().join(self.number.to_string());
                let is_ours = is_user && fs::metadata(&path).ok()?.uid() == self.status.uids[1];
                is_ours.then(|| fs::read(path).ok())?
            });
        if let Some(can_attach) = data.find_map(|bytes| can_attach(&bytes)) {
            return !can_attach;
        }
        let option = b"-XX:+DisableAttachMechanism";
        ["cmdline", "environ"].iter().any(|name| {
            let bytes = fs::read(format!("/proc/{}/{name}", self.pid)).unwrap_or_default();
            bytes.windows(option.len()).any(|window| window == option)
        })
    }

    fn socket(&self) -> PathBuf {
        self.tmp.join(format!(".java_pid{}", self.number))
    }

    /// Sends a request, and has the answer.
    fn ask(&self, words: &[&str]) -> Result<String, AttachError> {
        let socket = self.socket();
        let mut stream = match self.connect() {
            Some(stream) => stream,
            None => self.call()?,
        };
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed(&socket, "listen"))?;
        let mut request = b"1\0".to_vec();
        for word in words {
            request.extend_from_slice(word.as_bytes());
            request.push(0);
        }
        stream.write_all(&request).map_err(failed(&socket, "write"))?;
        let mut answer = Vec::new();
        match stream.take(1 << 16).read_to_end(&mut answer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(AttachError::NoAnswer { what: "answer" })
            }
            Err(error) => Err(failed(&socket, "read")(error)),
            Ok(_) => Ok(String::from_utf8_lossy(&answer).into_owned()),
        }
    }

    /// Connects to the JVM, if it listens and the socket is its own.
    fn connect(&self) -> Option<UnixStream> {
        let path = self.socket();
        let found = fs::symlink_metadata(&path).ok()?;
        if !found.file_type().is_socket() || found.uid() != self.status.uids[1] {
            return None;
        }
        let stream = UnixStream::connect(&path);
        if stream.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            // Left by another life: the JVM begins anew only where there is none.
            let _ = fs::remove_file(&path);
        }
        stream.ok()
    }

    /// Has the JVM listen.
    fn call(&self) -> Result<UnixStream, AttachError> {
        // Who does not catch it is ended by it.
        let is_caught = self.status.sig_cgt & (1 << (Signal::SIGQUIT as u64 - 1)) != 0;
        if !is_caught {
            return Err(AttachError::Deaf);
        }
        let call = self.make_call()?;
        let signalled = kill(Pid::from_raw(self.pid.0), Signal::SIGQUIT);
        let answered = match signalled {
            Ok(()) => wait_for("listen for tools", || self.connect()),
            Err(errno) => Err(failed(&call, "signal the JVM")(errno.into())),
        };
        // The JVM does not remove it.
        let _ = fs::remove_file(&call);
        answered
    }

    /// The file that tells the JVM that a signal is no wish for a thread dump. It must belong to the
    /// JVM's user or to root.
    fn make_call(&self) -> Result<PathBuf, AttachError> {
        let name = format!(".attach_pid{}", self.number);
        // JVM: looked for in the working directory first.
        let places = [self.tmp.join(&name), format!("/proc/{}/cwd/{name}", self.pid).into()];
        let mut outcome = Err(io::Error::from(Errno::ENOENT));
        for place in &places {
            outcome = OpenOptions::new().write(true).create_new(true).mode(0o600).open(place);
            // Where somebody else is asking at this moment, their file does.
            let is_there =
                outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists);
            if outcome.is_ok() || is_there {
                // Root only; anybody else is the JVM's user.
                let (uid, gid) = (self.status.uids[1].into(), self.status.gids[1].into());
                let _ = chown(place, Some(uid), Some(gid));
                return Ok(place.clone());
            }
        }
        outcome.map(|_| places[0].clone()).map_err(failed(&places[0], "make"))
    }
}

fn wait_for<T>(what: &'static str, mut fact: impl FnMut() -> Option<T>) -> Result<T, AttachError> {
    let start = Instant::now();
    loop {
        if let Some(found) = fact() {
            return Ok(found);
        }
        if start.elapsed() > PATIENCE {
            return Err(AttachError::NoAnswer { what });
        }
        sleep(POLL);
    }
}

/// Whether a JVM lets tools attach, by its perf data.
///
/// JVM(since 6): the first character of `sun.rt.jvmCapabilities`. The file starts with a prologue of
/// 32 bytes, whose last two words are the offset of the first entry and the number of entries; an
/// entry starts with its length, the offset of its name, two more fields, and at 16 the offset of its
/// data. Version 2.0, in the byte order of the machine; same on 25.
fn can_attach(data: &[u8]) -> Option<bool> {
    let word = |at: usize| -> Option<usize> {
        let bytes = data.get(at..at.checked_add(4)?)?.try_into().ok()?;
        usize::try_from(u32::from_ne_bytes(bytes)).ok()
    };
    let name = b"sun.rt.jvmCapabilities\0";
    let (mut entry, count) = (word(24)?, word(28)?);
    for _ in 0..count {
        let name_at = entry.checked_add(word(entry + 4)?)?;
        if data.get(name_at..)?.starts_with(name) {
            let value_at = entry.checked_add(word(entry + 16)?)?;
            return Some(*data.get(value_at)? == b'1');
        }
        // A length of zero would have no end.
        entry = entry.checked_add(word(entry)?.max(1))?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn perf_data(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut data = vec![0; 24];
        let count = u32::try_from(entries.len()).unwrap();
        data.extend([32_u32.to_ne_bytes(), count.to_ne_bytes()].concat());
        for (name, value) in entries {
            let value_at = u32::try_from(20 + name.len() + 1).unwrap();
            let length = value_at + u32::try_from(value.len()).unwrap();
            for number in [length, 20, 0, 0, value_at] {
                data.extend(number.to_ne_bytes());
            }
            data.extend(name.bytes().chain([0]).chain(value.bytes()));
        }
        data
    }

    #[test]
    fn perf_data_tells_whether_tools_may_attach() {
        let other = ("sun.rt.javaCommand", "Service 80");
        for (value, expected) in [("1100", true), ("0100", false)] {
            let data = perf_data(&[other, ("sun.rt.jvmCapabilities", value)]);
            assert_eq!(can_attach(&data), Some(expected));
            for end in 0..data.len() - value.len() {
                assert_eq!(can_attach(&data[..end]), None, "cut at {end}");
            }
        }
        assert_eq!(can_attach(&perf_data(&[other])), None);
        assert_eq!(can_attach(&[0xff; 64]), None);
    }
}
