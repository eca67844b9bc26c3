//! Starts a service and waits for its first correct answer.
//!
//! In: a command line, whom to run it as, the question. Out: a running service and three times.
//! Invariant: the clock is read before fork; everything that exec costs is in the result.
//! Not here: what "cold" or "restored" means: that is only another command line.

use crate::clock::{milliseconds, monotonic_ns};
use crate::http::Question;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, getppid};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

/// Time between two attempts to connect: well below what is measured, well above a busy loop.
pub const RETRY_EVERY: Duration = Duration::from_micros(100);

/// Why a service could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log file cannot be written.
    #[error("log {}: cannot open", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// What opening it said.
        #[source]
        source: io::Error,
    },
    /// The command cannot be executed.
    #[error("command {program:?}: cannot execute")]
    Exec {
        /// The first word of the command.
        program: OsString,
        /// What exec said.
        #[source]
        source: io::Error,
    },
    /// The service ended before it answered.
    #[error("service: ended before its first correct answer, {status}")]
    Ended {
        /// How.
        status: ExitStatus,
    },
    /// The service lives but does not answer.
    #[error("service: no correct answer within {} s{}", deadline.as_secs(), seen.as_deref().map(|text| format!(" (last: {text})")).unwrap_or_default())]
    Silent {
        /// How long was waited.
        deadline: Duration,
        /// The last thing that was seen instead.
        seen: Option<String>,
    },
    /// The operating system failed us.
    #[error("service: cannot be watched")]
    Watch(#[source] io::Error),
}

/// What to start.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// The command line.
    pub command: Vec<OsString>,
    /// The user and group to run it as, instead of one's own.
    pub user: Option<(u32, u32)>,
    /// Where its output goes; our stderr otherwise, because our stdout is the report.
    pub log: Option<PathBuf>,
}

/// A service that was started. Dropping it ends it.
#[derive(Debug)]
pub struct Service {
    child: Child,
    /// CLOCK_MONOTONIC just before the command was executed.
    pub started_ns: u64,
}

/// When a service first answered, on CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug)]
pub struct FirstAnswer {
    /// A connection was accepted.
    pub connected_ns: u64,
    /// The first byte of the correct answer was there.
    pub first_byte_ns: u64,
    /// The correct answer was complete.
    pub correct_ns: u64,
}

/// Asks `every` so often until the answer is correct, as long as `lives` has no objection.
///
/// # Errors
/// What `lives` says; [`StartError::Silent`] when `deadline` has passed since `started_ns`.
pub(crate) fn first_answer(
    question: &Question,
    started_ns: u64,
    deadline: Duration,
    every: Duration,
    mut lives: impl FnMut() -> Result<(), StartError>,
) -> Result<FirstAnswer, StartError> {
    // Without this the kernel may round each pause up by 50 µs. A refusal costs only precision.
    let _ = prctl::set_timerslack(1);
    let give_up_ns =
        started_ns + u64::try_from(deadline.as_nanos()).expect("deadlines are far below 584 years");
    let mut first_connected_ns = None;
    let mut seen = None;
    let mut attempts = 0_u32;
    loop {
        let now = monotonic_ns();
        if now >= give_up_ns {
            return Err(StartError::Silent { deadline, seen });
        }
        // Every attempt would cost a system call more; a death noticed 2 ms late costs nothing.
        attempts = attempts.wrapping_add(1);
        if attempts.is_multiple_of(16) {
            lives()?;
        }
        let patience = Duration::from_nanos(give_up_ns - now);
        let Ok(mut connection) = question.connect(patience) else {
            thread::sleep(every);
            continue;
        };
        let connected_ns = *first_connected_ns.get_or_insert_with(monotonic_ns);
        match connection.ask(question) {
            Ok(answer) if question.is_answered_by(&answer) => {
                return Ok(FirstAnswer {
                    connected_ns,
                    first_byte_ns: answer.first_byte_ns,
                    correct_ns: answer.complete_ns,
                });
            }
            Ok(answer) => seen = Some(format!("status {}", answer.status)),
            Err(error) => seen = Some(error.to_string()),
        }
        thread::sleep(every);
    }
}

impl Service {
    /// Starts the command.
    ///
    /// # Errors
    /// [`StartError::Log`], [`StartError::Exec`].
    pub fn start(options: &ServiceOptions) -> Result<Self, StartError> {
        let (program, arguments) =
            options.command.split_first().expect("the command line has at least one word");
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        let log = options.log.as_ref().map(|path| {
            let open = File::options().create(true).append(true).open(path);
            open.map_err(|source| StartError::Log { path: path.clone(), source })
        });
        let (out, err) = match log.transpose()? {
            Some(file) => {
                let twin = file.try_clone().map_err(StartError::Watch)?;
                (Stdio::from(file), Stdio::from(twin))
            }
            None => (Stdio::from(io::stderr()), Stdio::inherit()),
        };
        command.stdout(out).stderr(err);
        if let Some((uid, gid)) = options.user {
            // std empties the supplementary groups when root becomes somebody else.
            command.uid(uid).gid(gid);
        }
        prepare_child(&mut command);
        let started_ns = monotonic_ns();
        let child = command
            .spawn()
            .map_err(|source| StartError::Exec { program: program.clone(), source })?;
        Ok(Self { child, started_ns })
    }

    /// The process id of what was started.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("process ids are positive i32"))
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus, StartError> {
        self.child.wait().map_err(StartError::Watch)
    }

    /// Whether it still runs.
    pub(crate) fn must_live(&mut self) -> Result<(), StartError> {
        match self.child.try_wait().map_err(StartError::Watch)? {
            Some(status) => Err(StartError::Ended { status }),
            None => Ok(()),
        }
    }

    /// Whether it still runs, or has ended well.
    pub(crate) fn must_not_have_failed(&mut self) -> Result<(), StartError> {
        match self.child.try_wait().map_err(StartError::Watch)? {
            Some(status) if !status.success() => Err(StartError::Ended { status }),
            _ => Ok(()),
        }
    }

    /// Asks `every` so often until the answer is correct.
    ///
    /// # Errors
    /// [`StartError::Ended`] where the service died, [`StartError::Silent`] after `deadline`.
    pub fn wait_for_answer(
        &mut self,
        question: &Question,
        deadline: Duration,
        every: Duration,
    ) -> Result<FirstAnswer, StartError> {
        let started_ns = self.started_ns;
        first_answer(question, started_ns, deadline, every, || self.must_live())
    }

    /// Asks the service to end, insists after `grace`, and says how it ended.
    ///
    /// # Errors
    /// [`StartError::Watch`] where it cannot be waited for.
    pub fn stop(&mut self, grace: Duration) -> Result<ExitStatus, StartError> {
        if let Some(status) = self.child.try_wait().map_err(StartError::Watch)? {
            return Ok(status);
        }
        // A failure means that it ended in between, which the loop finds out.
        let _ = kill(self.pid(), Signal::SIGTERM);
        let give_up_ns = monotonic_ns()
            + u64::try_from(grace.as_nanos()).expect("deadlines are far below 584 years");
        while monotonic_ns() < give_up_ns {
            if let Some(status) = self.child.try_wait().map_err(StartError::Watch)? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.child.kill().map_err(StartError::Watch)?;
        self.child.wait().map_err(StartError::Watch)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure; the parent-death signal is the second net.
        let _ = self.stop(Duration::from_secs(2));
    }
}

/// How a process ended, in the prober's words.
#[must_use]
pub fn describe(status: ExitStatus) -> serde_json::Value {
    serde_json::json!({ "event": "stopped", "code": status.code(), "signal": status.signal() })
}

/// The first answer, in the prober's words.
#[must_use]
pub fn describe_answer(event: &str, started_ns: u64, answer: &FirstAnswer) -> serde_json::Value {
    serde_json::json!({
        "event": event,
        "connected_ms": milliseconds(started_ns, answer.connected_ns),
        "first_byte_ms": milliseconds(started_ns, answer.first_byte_ns),
        "first_correct_ms": milliseconds(started_ns, answer.correct_ns),
        "started_ns": started_ns,
        "first_correct_ns": answer.correct_ns,
    })
}

/// Has the kernel end the command when the prober dies, however it dies, and leaves the command
/// nothing but its standard descriptors.
///
/// A service manager does the same. Without it, a pipe that some shell forgot to close would reach
/// the service, and a checkpoint of it would rightly be refused.
#[expect(unsafe_code, reason = "std offers no safe way to act between fork and exec")]
fn prepare_child(command: &mut Command) {
    let parent = getpid();
    let in_child = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the line above; nobody would send the signal then.
        if getppid() != parent {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        let on_exec = i32::try_from(libc::CLOSE_RANGE_CLOEXEC).expect("the flag is 4");
        // KERNEL(since 5.11): older ones refuse the flag, and the command keeps what it inherits.
        // SAFETY: close_range(2) demands nothing of its caller's memory; marking descriptors to be
        // closed at exec takes none from std, which needs one of them until then.
        let _ = unsafe { libc::close_range(3, libc::c_uint::MAX, on_exec) };
        Ok(())
    };
    // SAFETY: pre_exec demands that the closure only does what is async-signal-safe in a forked
    // child: it makes three system calls (prctl, getppid, close_range) and allocates nothing;
    // neither conversion of an errno nor that of an ErrorKind into an io::Error allocates.
    unsafe { command.pre_exec(in_child) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(command: &[&str]) -> Service {
        Service::start(&ServiceOptions {
            command: command.iter().map(OsString::from).collect(),
            user: None,
            log: None,
        })
        .unwrap()
    }

    fn free_port() -> u16 {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.local_addr().unwrap().port()
    }

    #[test]
    fn a_service_that_ends_is_noticed() {
        let mut service = service(&["sh", "-c", "exit 7"]);
        let question = Question::new(free_port(), "/", "hello");
        let deadline = Duration::from_secs(20);
        let error = service.wait_for_answer(&question, deadline, RETRY_EVERY).unwrap_err();
        assert!(
            matches!(error, StartError::Ended { status } if status.code() == Some(7)),
            "{error}"
        );
    }

    #[test]
    fn a_silent_service_is_given_up() {
        let mut service = service(&["sleep", "60"]);
        let question = Question::new(free_port(), "/", "hello");
        let deadline = Duration::from_millis(50);
        let error = service.wait_for_answer(&question, deadline, RETRY_EVERY).unwrap_err();
        assert!(matches!(error, StartError::Silent { seen: None, .. }), "{error}");
        let status = service.stop(Duration::from_secs(5)).unwrap();
        assert_eq!(status.signal(), Some(15));
    }

    #[test]
    fn a_stubborn_service_is_killed() {
        let mut service = service(&["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"]);
        thread::sleep(Duration::from_millis(200));
        let status = service.stop(Duration::from_millis(200)).unwrap();
        assert_eq!(status.signal(), Some(9));
    }

    #[test]
    fn a_missing_command_is_named() {
        let options =
            ServiceOptions { command: vec!["/no/such/command".into()], user: None, log: None };
        let error = Service::start(&options).unwrap_err();
        assert_eq!(error.to_string(), "command \"/no/such/command\": cannot execute");
    }
}
