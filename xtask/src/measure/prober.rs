//! A conversation with `tub-prober`.
//!
//! In: a command line to measure. Out: its events, one by one.
//! Invariant: every wait has an end; a prober that is dropped ends its service.
//! Not here: what the prober measures and how (`bench/`).

use super::stage::Stage;
use crate::failure::{Failure, Result};
use crate::process::last_lines;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than the prober's own deadline, so that it has the first word on what went wrong.
const FIRST_ANSWER: Duration = Duration::from_secs(150);
/// A load of tens of thousands of requests, on a slow machine.
const ORDER: Duration = Duration::from_secs(300);

/// How a service is treated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// How long it may take to end.
    pub(crate) grace: Duration,
    /// How often it is asked until it answers; the prober's own rhythm if `None`.
    pub(crate) every: Option<Duration>,
}

impl Default for Manner {
    fn default() -> Self {
        Self { grace: Duration::from_secs(20), every: None }
    }
}

impl Manner {
    /// For one of `count` services that are asked at the same time: all probers together ask as often
    /// as one alone would.
    pub(crate) fn of_one_among(count: usize) -> Self {
        let micros = u64::try_from(count).unwrap_or(u64::MAX).saturating_mul(ALONE_EVERY_US);
        let every = (count > 1).then(|| Duration::from_micros(micros));
        Self { every, ..Self::default() }
    }
}

/// The prober's own rhythm (`bench/src/start.rs`).
const ALONE_EVERY_US: u64 = 100;

/// What a service is asked, and what it must answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) path: &'a str,
    /// The whole body.
    pub(crate) answer: &'a str,
}

/// The first answer of a service, as the prober saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FirstAnswer {
    /// From just before exec until the correct answer was complete.
    pub(crate) ms: f64,
    /// The same two instants on CLOCK_MONOTONIC.
    pub(crate) started_ns: u64,
    pub(crate) correct_ns: u64,
    /// The process that the prober started.
    pub(crate) pid: u32,
}

/// A load run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Correct answers per second over the whole run.
    pub(crate) rate: f64,
    /// The same over the first 200.
    pub(crate) first_200_rate: f64,
    /// The same over as many first requests as [`Load::FIRST_OF`] says, where there were so many.
    pub(crate) first_rates: [Option<f64>; Load::FIRST_OF.len()],
}

impl Load {
    pub(crate) const FIRST_OF: [u32; 6] = [200, 1000, 2000, 5000, 10_000, 20_000];
}

/// A prober and the service that it keeps.
#[derive(Debug)]
pub(crate) struct Prober {
    child: Child,
    events: Receiver<Value>,
    log: PathBuf,
    what: String,
    /// What it said when everything was prepared.
    ready: Value,
}

/// A keeper, one of whose instances is measured from its release on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standby<'a> {
    pub(crate) socket: &'a Path,
    /// By a byte on the socket, instead of by `tub release`.
    pub(crate) by_byte: bool,
}

/// Memory of a parked instance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parked {
    /// Its own.
    pub(crate) anonymous_bytes: u64,
    /// With its part of what it shares with others.
    pub(crate) pss_bytes: u64,
}

impl Prober {
    /// Prepares to measure `command`; nothing runs before [`Prober::go`]. `what` names it in errors.
    pub(crate) fn prepare(
        stage: &Stage,
        what: &str,
        question: Question<'_>,
        command: &[impl AsRef<OsStr>],
    ) -> Result<Self> {
        Self::prepare_in(Manner::default(), stage, what, question, command)
    }

    /// The same, in a manner that is not the usual one.
    pub(crate) fn prepare_in(
        manner: Manner,
        stage: &Stage,
        what: &str,
        question: Question<'_>,
        command: &[impl AsRef<OsStr>],
    ) -> Result<Self> {
        Self::start(manner, None, stage, what, question, command)
    }

    /// Prepares to measure an instance on standby: `command` is its keeper, and runs already when this
    /// returns.
    pub(crate) fn prepare_standby(
        standby: Standby<'_>,
        stage: &Stage,
        what: &str,
        question: Question<'_>,
        command: &[impl AsRef<OsStr>],
    ) -> Result<Self> {
        Self::start(Manner::default(), Some(standby), stage, what, question, command)
    }

    fn start(
        manner: Manner,
        standby: Option<Standby<'_>>,
        stage: &Stage,
        what: &str,
        question: Question<'_>,
        command: &[impl AsRef<OsStr>],
    ) -> Result<Self> {
        let log = stage.scratch.join(format!("{}.log", what.replace(' ', "-")));
        let mut prober = stage.command(&stage.layout.prober());
        prober.args(["run", "--hold", "--path", question.path, "--expect", question.answer]);
        prober.arg("--grace").arg(manner.grace.as_secs().to_string()).arg("--log").arg(&log);
        if let Some(every) = manner.every {
            prober.arg("--every").arg(every.as_micros().to_string());
        }
        if let Some(standby) = standby {
            prober.arg("--released-from").arg(standby.socket);
            prober.args(standby.by_byte.then_some("--by-byte"));
        }
        if stage.netns {
            prober.arg("--netns");
        }
        if let Some(uid) = stage.uid {
            prober.args(["--uid", &uid.to_string()]);
        }
        prober.arg("--").args(command).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = prober
            .spawn()
            .map_err(|error| Failure::new(format!("tub-prober: cannot start: {error}")))?;
        let out = child.stdout.take().expect("stdout was asked to be a pipe");
        let (sender, events) = channel();
        // Ends with the pipe, that is with the prober.
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(std::result::Result::ok) {
                let Ok(event) = serde_json::from_str(&line) else { continue };
                if sender.send(event).is_err() {
                    break;
                }
            }
        });
        let mut prober = Self { child, events, log, what: what.to_owned(), ready: Value::Null };
        prober.ready = prober.event("ready", FIRST_ANSWER)?;
        Ok(prober)
    }

    /// What its keeper had parked before anything was released.
    pub(crate) fn parked(&self) -> Vec<Parked> {
        let parked = self.ready["standby"]["parked"].as_array().into_iter().flatten();
        let parked = parked.map(|one| &one["memory"]);
        let memory = parked.filter_map(|memory| {
            Some(Parked {
                anonymous_bytes: memory["anonymous_bytes"].as_u64()?,
                pss_bytes: memory["pss_bytes"].as_u64()?,
            })
        });
        memory.collect()
    }

    /// Executes the command; here the clock starts.
    pub(crate) fn go(&mut self) -> Result<()> {
        self.order("go")
    }

    /// Waits for the first correct answer.
    pub(crate) fn first_answer(&mut self) -> Result<FirstAnswer> {
        let started = self.event("started", FIRST_ANSWER)?;
        let answered = self.event("answered", FIRST_ANSWER)?;
        Ok(FirstAnswer {
            ms: self.number(&answered, "first_correct_ms")?,
            started_ns: self.integer(&answered, "started_ns")?,
            correct_ns: self.integer(&answered, "first_correct_ns")?,
            pid: u32::try_from(self.integer(&started, "pid")?)
                .map_err(|_| self.failure("the prober gave no process id"))?,
        })
    }

    /// Puts load on the service; a single wrong or missing answer is a failure.
    pub(crate) fn load(&mut self, requests: u32) -> Result<Load> {
        self.order(&format!("load {requests}"))?;
        let report = self.event("load", ORDER)?;
        let failures = self.integer(&report, "failures")?;
        if failures > 0 {
            return Err(self.failure(&format!("{failures} of {requests} requests failed")));
        }
        Ok(Load {
            rate: self.number(&report, "rate")?,
            first_200_rate: self.number(&report, "first_200_rate")?,
            first_rates: Load::FIRST_OF.map(|of| report["first_rates"][of.to_string()].as_f64()),
        })
    }

    /// Has a service that takes part in checkpoints prepare for one, and tells it that there is none:
    /// milliseconds from then until its first correct answer. `dir` holds its control socket.
    pub(crate) fn floor(&mut self, dir: &Path) -> Result<f64> {
        self.order(&format!("floor {}", dir.display()))?;
        let answered = self.event("floor", ORDER)?;
        self.number(&answered, "first_correct_ms")
    }

    /// One more request, which must be answered correctly.
    pub(crate) fn must_answer(&mut self) -> Result<()> {
        self.must_answer_within(Duration::ZERO)
    }

    /// Requests until one is answered correctly, as after a checkpoint of a process that goes on.
    pub(crate) fn must_answer_within(&mut self, patience: Duration) -> Result<()> {
        let give_up = Instant::now() + patience;
        loop {
            self.order("get")?;
            let report = self.event("get", ORDER)?;
            if report["correct"] == true {
                return Ok(());
            }
            if Instant::now() >= give_up {
                return Err(self.failure(&format!("wrong answer: {report}")));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends the service, or finds that it has ended; says how.
    pub(crate) fn stop(mut self) -> Result<String> {
        self.order("stop")?;
        let stopped = self.event("stopped", ORDER)?;
        // The prober has nothing left to do but to return.
        let _ = self.child.wait();
        Ok(match (stopped["code"].as_i64(), stopped["signal"].as_i64()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "unknown".to_owned(),
        })
    }

    fn order(&mut self, order: &str) -> Result<()> {
        let pipe = self.child.stdin.as_mut().expect("stdin was asked to be a pipe");
        let sent = writeln!(pipe, "{order}").and_then(|()| pipe.flush());
        sent.map_err(|error| self.failure(&format!("the prober is gone: {error}")))
    }

    fn event(&self, name: &str, patience: Duration) -> Result<Value> {
        let give_up = Instant::now() + patience;
        loop {
            let left = give_up.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) if event["event"] == name => return Ok(event),
                Ok(event) if event["event"] == "failed" => {
                    return Err(self.failure(event["error"].as_str().unwrap_or("failed")));
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.failure(&format!("no {name} within {} s", patience.as_secs())));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.failure("the prober ended without a word"));
                }
            }
        }
    }

    fn number(&self, event: &Value, key: &str) -> Result<f64> {
        event[key].as_f64().ok_or_else(|| self.failure(&format!("{key} is missing in {event}")))
    }

    fn integer(&self, event: &Value, key: &str) -> Result<u64> {
        event[key].as_u64().ok_or_else(|| self.failure(&format!("{key} is missing in {event}")))
    }

    fn failure(&self, why: &str) -> Failure {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let mut text = format!("{}: {why}", self.what);
        if !said.trim().is_empty() {
            text = format!("{text}\n  its last words:\n{}", last_lines(&said, 20));
        }
        Failure::new(text)
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        // The end of its stdin is the order to stop. It has 20 s for the service, then insists.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
