//! An instance on standby: parked by a keeper, released at the word.
//!
//! In: the command line of a keeper, its socket. Out: an instance that has answered, and when.
//! Invariant: the clock is read before the release: before `tub release` is executed, or before its
//! socket is connected to; all that was to be parked is parked before that.
//! Not here: the protocol (`docs/standby.md`), of which this speaks two messages. An instance that was
//! released is nobody's child: it is ended by its id, and outlives a prober that is killed.

use crate::clock::monotonic_ns;
use crate::http::Question;
use crate::start::{FirstAnswer, Service, ServiceOptions, StartError, first_answer};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

/// How long the keeper may take for one answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is asked whether all are parked.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Why nothing was released.
#[derive(Debug, thiserror::Error)]
pub enum StandbyError {
    /// The keeper does not start, has ended, or its instance does not answer.
    #[error("standby")]
    Start(#[from] StartError),
    /// Nothing was parked in time.
    #[error("keeper: not all of its instances are parked after {} s", after.as_secs())]
    NotParked {
        /// How long was waited.
        after: Duration,
    },
    /// The keeper was not to be talked with.
    #[error("keeper at {}: does not answer", socket.display())]
    Talk {
        /// Where.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It released nothing.
    #[error("keeper: released nothing: {answer}")]
    Refused {
        /// What it said instead.
        answer: String,
    },
}

/// How an instance is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By the command, `tub release`.
    Command,
    /// By a byte on the keeper's socket.
    Socket,
}

/// A keeper, and the instance that it has released. Dropping it ends both.
#[derive(Debug)]
pub struct Keeper {
    service: Service,
    options: ServiceOptions,
    socket: PathBuf,
    released: Option<Pid>,
}

/// A release: when the clock began, and the first answer.
#[derive(Clone, Copy, Debug)]
pub struct Released {
    /// The main process of the instance.
    pub pid: Pid,
    /// CLOCK_MONOTONIC just before the release.
    pub asked_ns: u64,
    /// Its first answer.
    pub answer: FirstAnswer,
}

impl Keeper {
    /// Starts it, and waits until all that it keeps is parked: gives its status, too.
    ///
    /// # Errors
    /// It does not start, ends, or has not parked all within `deadline`.
    pub fn start(
        options: ServiceOptions,
        socket: &Path,
        deadline: Duration,
    ) -> Result<(Self, Value), StandbyError> {
        let service = Service::start(&options)?;
        let mut keeper = Self { service, options, socket: socket.to_owned(), released: None };
        let began = Instant::now();
        while began.elapsed() < deadline {
            keeper.service.must_live()?;
            // Until it listens there is nobody to answer.
            if let Ok(status) = keeper.ask("{\"op\":\"status\"}") {
                let parked = status["parked"].as_array().map(Vec::len);
                let wanted = status["standby"].as_u64().and_then(|count| count.try_into().ok());
                if parked.is_some() && parked == wanted {
                    return Ok((keeper, status));
                }
            }
            thread::sleep(LOOK_EVERY);
        }
        Err(StandbyError::NotParked { after: deadline })
    }

    /// Releases one, and asks `every` so often until it answers.
    ///
    /// # Errors
    /// Nothing was released, or it has not answered within `deadline`.
    pub fn release(
        &mut self,
        way: Way,
        question: &Question,
        deadline: Duration,
        every: Duration,
    ) -> Result<Released, StandbyError> {
        match way {
            Way::Command => self.release_by_command(question, deadline, every),
            Way::Socket => self.release_by_socket(question, deadline, every),
        }
    }

    fn release_by_command(
        &mut self,
        question: &Question,
        deadline: Duration,
        every: Duration,
    ) -> Result<Released, StandbyError> {
        let mut pidfile = self.socket.clone().into_os_string();
        pidfile.push(".pid");
        let tub = self.options.command.first().cloned().unwrap_or_default();
        let words = ["release".into(), self.socket.clone().into(), "--pidfile".into()];
        let command = std::iter::once(tub).chain(words).chain([pidfile.clone()]).collect();
        let mut order = Service::start(&ServiceOptions { command, ..self.options.clone() })?;
        let asked_ns = order.started_ns;
        let answer = first_answer(question, asked_ns, deadline, every, || {
            // It ends well before its instance answers, as a rule.
            order.must_not_have_failed()?;
            self.service.must_live()
        })?;
        let status = order.wait()?;
        let said = fs::read_to_string(&pidfile).unwrap_or_default();
        // Where it is not removed, the next release writes it anew.
        let _ = fs::remove_file(&pidfile);
        let pid = said.trim().parse().ok().filter(|_| status.success());
        let pid = pid.map(Pid::from_raw).ok_or_else(|| StandbyError::Refused {
            answer: format!("tub release ended with {status}"),
        })?;
        self.released = Some(pid);
        Ok(Released { pid, asked_ns, answer })
    }

    fn release_by_socket(
        &mut self,
        question: &Question,
        deadline: Duration,
        every: Duration,
    ) -> Result<Released, StandbyError> {
        let asked_ns = monotonic_ns();
        let mut stream = self.connect()?;
        stream.write_all(b"\n").map_err(|source| self.silent(source))?;
        let answer =
            first_answer(question, asked_ns, deadline, every, || self.service.must_live())?;
        let said = self.line(stream)?;
        let pid = said["pid"].as_i64().and_then(|pid| pid.try_into().ok());
        let pid = pid
            .map(Pid::from_raw)
            .ok_or_else(|| StandbyError::Refused { answer: said.to_string() })?;
        self.released = Some(pid);
        Ok(Released { pid, asked_ns, answer })
    }

    /// Ends what was released, then the keeper with what it keeps; says how the keeper ended.
    ///
    /// # Errors
    /// The keeper cannot be waited for.
    pub fn stop(&mut self, grace: Duration) -> Result<ExitStatus, StandbyError> {
        self.end_released(grace);
        Ok(self.service.stop(grace)?)
    }

    fn end_released(&mut self, grace: Duration) {
        let Some(pid) = self.released.take() else { return };
        let began = Instant::now();
        // One that has ended needs no signal.
        let _ = kill(pid, Signal::SIGTERM);
        while lives(pid) && began.elapsed() < grace {
            thread::sleep(Duration::from_millis(2));
        }
        if lives(pid) {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }

    fn ask(&self, request: &str) -> Result<Value, StandbyError> {
        let mut stream = self.connect()?;
        stream
            .write_all(format!("{request}\n").as_bytes())
            .map_err(|source| self.silent(source))?;
        self.line(stream)
    }

    fn connect(&self) -> Result<UnixStream, StandbyError> {
        let stream = UnixStream::connect(&self.socket).map_err(|source| self.silent(source))?;
        for set in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
            set(&stream, Some(PATIENCE)).map_err(|source| self.silent(source))?;
        }
        Ok(stream)
    }

    fn line(&self, stream: UnixStream) -> Result<Value, StandbyError> {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).map_err(|source| self.silent(source))?;
        serde_json::from_str(&line).map_err(|_| StandbyError::Refused { answer: line })
    }

    fn silent(&self, source: io::Error) -> StandbyError {
        StandbyError::Talk { socket: self.socket.clone(), source }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end_released(Duration::from_secs(2));
    }
}

/// Whether there is such a process that still does something: who is to wait for its end is not ours
/// to say.
fn lives(pid: Pid) -> bool {
    if kill(pid, None) == Err(Errno::ESRCH) {
        return false;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::io::Read;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    /// A keeper as the page describes it: its instances are parked after a while, and the one that it
    /// releases, a process of its own, has its listener some time later.
    #[test]
    fn the_clock_starts_at_the_release() {
        let dir = std::env::temp_dir().join(format!("tub-released-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let socket = dir.join("socket");
        let control = UnixListener::bind(&socket).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut instance = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = instance.id();
        let keeper = thread::spawn(move || {
            let answers = [
                r#"{"event":"status","standby":1,"parked":[]}"#.to_owned(),
                r#"{"event":"status","standby":1,"parked":[{"pid":7}]}"#.to_owned(),
                format!(r#"{{"event":"released","pid":{pid},"running_us":800}}"#),
            ];
            for answer in answers {
                let (mut stream, _) = control.accept().unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                assert_eq!(line == "\n", answer.contains("released"), "{line:?} {answer}");
                stream.write_all(format!("{answer}\n").as_bytes()).unwrap();
            }
            thread::sleep(Duration::from_millis(30));
            let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            let _ = peer.read(&mut [0; 1024]).unwrap();
            peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").unwrap();
        });
        let options = ServiceOptions {
            command: ["sleep", "60"].map(OsString::from).into(),
            user: None,
            log: None,
        };
        let deadline = Duration::from_secs(20);
        let (mut kept, status) = Keeper::start(options, &socket, deadline).unwrap();
        assert_eq!(status["parked"][0]["pid"], 7);
        thread::sleep(Duration::from_millis(100));
        let question = Question::new(port, "/", "hello");
        let every = crate::start::RETRY_EVERY;
        let released = kept.release(Way::Socket, &question, deadline, every).unwrap();
        keeper.join().unwrap();
        let took = Duration::from_nanos(released.answer.correct_ns - released.asked_ns);
        assert!(took >= Duration::from_millis(30) && took < deadline, "{took:?}");
        assert!(lives(released.pid));
        kept.stop(Duration::from_secs(5)).unwrap();
        assert!(!lives(released.pid));
        instance.wait().unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }
}
