//! The `tub-prober` command: starts a service, says when it answered, and puts load on it.
//!
//! In: a command line; then one order per line on stdin: `load N`, `get`, `floor DIR`, `stop`
//! (and `go` before them, with `--hold`).
//! Out: one JSON object per line on stdout, the last of which is `stopped` or `failed`.
//! Invariant: the service does not outlive the prober.
//! Not here: what the numbers are for.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use std::error::Error;
use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;
use tub_bench::clock::milliseconds;
use tub_bench::http::Question;
use tub_bench::standby::{Keeper, Way};
use tub_bench::start::{RETRY_EVERY, Service, ServiceOptions, describe, describe_answer};
use tub_bench::{floor, load, netns};

/// Measure how long a command takes to become a service that answers, and how fast it is then.
#[derive(Parser)]
#[command(name = "tub-prober", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start CMD, wait for its first correct answer, then obey orders on stdin.
    Run(RunOptions),
    /// Ask once: exit status 0 for the correct answer, 1 for anything else.
    Ask(QuestionOptions),
    /// Run CMD in a network namespace of its own, in which only loopback is there.
    Inside(InsideOptions),
    /// Say whether network namespaces can be had here: exit status 0, or 1 and the reason.
    Netns,
}

#[derive(clap::Args)]
struct RunOptions {
    /// Start it in a network namespace of its own, so that many instances can share a port.
    #[arg(long)]
    netns: bool,
    /// Start it as this user (and as the group of the same number, without other groups).
    #[arg(long, value_name = "UID")]
    uid: Option<u32>,
    #[command(flatten)]
    question: QuestionOptions,
    /// Give up after this many seconds without a correct answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    deadline: u64,
    /// Ask every so many microseconds, instead of every 100: where many probers ask at once, their
    /// questions would be most of the work.
    #[arg(long, value_name = "MICROSECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    every: Option<u64>,
    /// Let CMD have this many seconds to end after SIGTERM, before it is killed.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    grace: u64,
    /// Print `ready` when everything is prepared, and start CMD only at the order `go`, so that
    /// several probers can start at the same moment.
    #[arg(long)]
    hold: bool,
    /// CMD is a keeper, `tub restore … --standby N`, with this socket: it is started at once, and what
    /// is measured is the first answer of an instance that it releases. `ready` is printed when all are
    /// parked, with its status.
    #[arg(long, value_name = "SOCKET", requires = "hold")]
    released_from: Option<PathBuf>,
    /// Have it released by a byte on that socket, instead of by `tub release`.
    #[arg(long, requires = "released_from")]
    by_byte: bool,
    /// Append the output of CMD to this file instead of our stderr.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[derive(clap::Args)]
struct QuestionOptions {
    /// The port on which it will listen.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// The path to ask for.
    #[arg(long, default_value = "/")]
    path: String,
    /// The body that a correct answer has, exactly.
    #[arg(long, value_name = "TEXT")]
    expect: String,
}

impl QuestionOptions {
    fn question(&self) -> Question {
        Question::new(self.port, &self.path, &self.expect)
    }
}

#[derive(clap::Args)]
struct InsideOptions {
    /// Run it as this user (and as the group of the same number, without other groups).
    #[arg(long, value_name = "UID")]
    uid: Option<u32>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// How long one request may take once the service has answered before.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(options) => run(options),
        Command::Ask(options) => ask(&options.question()),
        Command::Inside(options) => inside(&options),
        Command::Netns => netns::enter().map_err(Box::from),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(inner) = source {
                text = format!("{text}: {inner}");
                source = inner.source();
            }
            report(&json!({ "event": "failed", "error": text }));
            ExitCode::FAILURE
        }
    }
}

fn run(options: RunOptions) -> Result<(), Box<dyn Error>> {
    if options.netns {
        netns::enter()?;
    }
    let question = options.question.question();
    let every = options.every.map_or(RETRY_EVERY, Duration::from_micros);
    let deadline = Duration::from_secs(options.deadline);
    let service = ServiceOptions {
        command: options.command,
        user: options.uid.map(|uid| (uid, uid)),
        log: options.log,
    };
    let mut orders = io::stdin().lock().lines();
    let mut measured = if let Some(socket) = &options.released_from {
        let (mut keeper, status) = Keeper::start(service, socket, deadline)?;
        if !goes(&json!({ "event": "ready", "standby": status }), &mut orders)? {
            return Ok(());
        }
        let way = if options.by_byte { Way::Socket } else { Way::Command };
        let released = keeper.release(way, &question, deadline, every)?;
        report(&json!({ "event": "started", "pid": released.pid.as_raw() }));
        report(&describe_answer("answered", released.asked_ns, &released.answer));
        Measured::Released(keeper)
    } else {
        if options.hold && !goes(&json!({ "event": "ready" }), &mut orders)? {
            return Ok(());
        }
        let mut service = Service::start(&service)?;
        let answer = service.wait_for_answer(&question, deadline, every)?;
        report(&json!({ "event": "started", "pid": service.pid().as_raw() }));
        report(&describe_answer("answered", service.started_ns, &answer));
        Measured::Started(service)
    };

    for line in orders {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [] => {}
            ["get"] => report(&get(&question)),
            ["load", requests] => {
                let requests =
                    requests.parse().map_err(|_| format!("order {line:?}: no number"))?;
                report(&load::run(&question, requests, PATIENCE).to_json());
            }
            ["exchange", ..] => report(&exchange(&question, line.trim_start())?),
            // A path may hold blanks.
            ["floor", ..] => {
                let dir = line.trim_start().trim_start_matches("floor").trim();
                let floor = floor::measure(Path::new(dir), &question)?;
                report(&describe_answer("floor", floor.told_ns, &floor.answer));
            }
            ["stop"] => break,
            _ => return Err(format!("order {line:?}: unknown").into()),
        }
    }
    report(&describe(measured.stop(Duration::from_secs(options.grace))?));
    Ok(())
}

/// What answers.
enum Measured {
    Started(Service),
    Released(Keeper),
}

impl Measured {
    fn stop(&mut self, grace: Duration) -> Result<ExitStatus, Box<dyn Error>> {
        Ok(match self {
            Self::Started(service) => service.stop(grace)?,
            Self::Released(keeper) => keeper.stop(grace)?,
        })
    }
}

/// Says that everything is prepared, and waits for the word; without one there is nothing to do.
fn goes(
    ready: &Value,
    orders: &mut impl Iterator<Item = io::Result<String>>,
) -> Result<bool, Box<dyn Error>> {
    report(ready);
    match orders.next().transpose()?.as_deref().map(str::trim) {
        Some("go") => Ok(true),
        Some(other) => Err(format!("order {other:?}: not expected before go").into()),
        // Whoever held us back has gone, or has changed its mind.
        None => Ok(false),
    }
}

fn ask(question: &Question) -> Result<(), Box<dyn Error>> {
    let answer = question.connect(PATIENCE)?.ask(question)?;
    if question.is_answered_by(&answer) {
        Ok(())
    } else {
        Err(format!("answer with status {} is not the one expected", answer.status).into())
    }
}

/// Becomes the command; comes back only on failure.
fn inside(options: &InsideOptions) -> Result<(), Box<dyn Error>> {
    netns::enter()?;
    let [program, arguments @ ..] = options.command.as_slice() else {
        return Err("no command".into());
    };
    let mut command = std::process::Command::new(program);
    command.args(arguments);
    if let Some(uid) = options.uid {
        command.uid(uid).gid(uid);
    }
    Err(command.exec().into())
}

/// One request on a connection of its own.
fn get(question: &Question) -> Value {
    let asked_ns = tub_bench::clock::monotonic_ns();
    match question.connect(PATIENCE).and_then(|mut connection| connection.ask(question)) {
        Ok(answer) => json!({
            "event": "get",
            "status": answer.status,
            "correct": question.is_answered_by(&answer),
            "ms": milliseconds(asked_ns, answer.complete_ns),
        }),
        Err(error) => json!({ "event": "get", "correct": false, "error": error.to_string() }),
    }
}

/// Sends what the order has as a JSON string, and says what came back.
fn exchange(question: &Question, order: &str) -> Result<Value, Box<dyn Error>> {
    let request: String = serde_json::from_str(order.trim_start_matches("exchange"))?;
    let answer = question.exchange(request.as_bytes(), PATIENCE)?;
    Ok(json!({ "event": "exchanged", "answer": String::from_utf8_lossy(&answer) }))
}

/// Prints one line at once: whoever listens waits for it.
fn report(value: &Value) {
    let mut out = io::stdout().lock();
    // Nobody reads any more: the end of stdin will tell us the same.
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}
