//! `tub checkpoint`: coordinate, take the image, end the original.

use crate::criu;
use crate::java_options::place::{Moment, at_checkpoint};
use crate::pause;
use crate::report::{Code, Failure, counted};
use crate::restore::pair;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tub_checkpoint::Unfrozen;
use tubthumping::{
    AttachError, CheckpointError, CheckpointOptions, ClientError, EngineError, EngineKind, HostPid,
    LateAgent, Prepared, ProcessState, Refusal, TcpPolicy,
};

/// Freeze a process into an image, and end it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The process.
    pid: i32,
    /// Where the image goes: a directory that does not exist yet, or is empty.
    #[arg(long, value_name = "DIR")]
    image: Option<PathBuf>,
    /// Let the original go on afterwards.
    #[arg(long)]
    leave_running: bool,
    /// What becomes of TCP connections: `close` lets them come back as if the peer had gone.
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = Tcp::Refuse)]
    tcp: Tcp,
    /// Let the application leave files open whose path starts so, whatever its contract says. May be
    /// repeated.
    #[arg(long, value_name = "PREFIX")]
    allow_open: Vec<String>,
    /// Replace an image that is there. Instances that are alive keep the old one's pages.
    #[arg(long)]
    replace: bool,
    /// A label of the image, which a restore may require. May be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// A number that was measured, to be kept with the image. May be repeated.
    #[arg(long, value_name = "NAME=NUMBER", value_parser = metric)]
    metric: Vec<(String, String)>,
    /// How long the application may take to prepare, in seconds.
    #[arg(long, value_name = "S", default_value_t = 60.0)]
    timeout: f64,
    /// Print the outcome as one JSON object.
    #[arg(long)]
    json: bool,
    /// Who takes the image.
    #[arg(long, value_enum, default_value_t = EngineArg::Native)]
    engine: EngineArg,
    /// Fill in CRaC's placeholders in the image's path.
    #[arg(long, hide = true)]
    placeholders: bool,
    /// Load nothing into a JVM that was started without `tub run`: take it as it is, without telling it.
    #[arg(long)]
    no_attach: bool,
    /// The process has prepared, and waits in its mailbox: one JSON object on standard input tells where,
    /// and more about the image (the engine for CRaC JDKs does this).
    #[arg(long, hide = true)]
    from_inside: bool,
    #[command(flatten)]
    criu: criu::CriuArgs,
}

/// What `--from-inside` reads.
#[derive(serde::Deserialize)]
struct Request {
    prepared: Prepared,
    labels: Vec<(String, String)>,
    metrics: Vec<(String, String)>,
    /// Files to lie beside ours in the image.
    beside: Vec<(String, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum EngineArg {
    /// Our own.
    Native,
    /// CRIU.
    Criu,
    /// Nobody: the application is told before and after, and there is no image.
    Sim,
    /// Nobody: the process stops where it is, and `tub restore` has it go on.
    Pause,
}

/// `--tcp`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Tcp {
    /// They stand in the way of the checkpoint.
    Refuse,
    /// They end.
    Close,
}

impl From<Tcp> for TcpPolicy {
    fn from(tcp: Tcp) -> Self {
        match tcp {
            Tcp::Refuse => Self::Refuse,
            Tcp::Close => Self::Close,
        }
    }
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    let pid = HostPid(args.pid);
    let mut options = CheckpointOptions {
        dir: directory(args, pid)?,
        replace: args.replace,
        leave_running: args.leave_running,
        tcp: args.tcp.into(),
        allowed_prefixes: args.allow_open.clone(),
        labels: args.label.clone(),
        metrics: args.metric.clone(),
        timeout: seconds("timeout", args.timeout)?,
        engine: match args.engine {
            EngineArg::Native => EngineKind::Native,
            EngineArg::Criu => EngineKind::Criu,
            EngineArg::Sim => EngineKind::Sim,
            EngineArg::Pause => EngineKind::Pause,
        },
        criu: args.criu.options(),
        guardian: Some(vec!["/proc/self/exe".into(), "guard".into()]),
        late_agent: late_agent(args.no_attach)?,
        prepared: None,
        beside: Vec::new(),
    };
    if args.from_inside {
        let Request { prepared, labels, metrics, beside } = request()?;
        options.prepared = Some(prepared);
        options.labels.extend(labels);
        options.metrics.extend(metrics);
        options.beside = beside.into_iter().map(|(name, text)| (name, text.into())).collect();
    }
    let report = tubthumping::checkpoint(pid, &options)
        .map_err(|error| failure(pid, &options.dir, &error))?;
    let times = report.times;
    if let Some((survivor, source)) = report.not_ended {
        let what = format!("process {survivor} cannot be ended");
        let state = "the image is complete; the process was thawed and goes on beside it";
        let hint = "end it before you restore: both would use the same files and ports";
        return Err(Failure::new(what, &source, Code::Failed).state(state).hint(hint));
    }
    if args.json {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let object = serde_json::json!({
            "engine": report.engine.to_string(),
            "image": report.dir,
            "pid": args.pid,
            "processes": report.processes,
            "threads": report.threads,
            "image_bytes": report.image_bytes,
            "left_running": args.leave_running || report.engine == EngineKind::Sim,
            "freeze_us": us(times.freeze),
            "collect_us": us(times.collect),
            "write_us": us(times.write),
            "finish_us": us(times.finish),
            "frozen_us": us(times.frozen),
        });
        println!("{object}");
    } else if report.engine == EngineKind::Sim {
        println!("process {pid} was told, and goes on; there is no image (engine sim)");
    } else if report.engine == EngineKind::Pause {
        let dir = report.dir.display();
        println!("{dir}: process {pid} is paused; `tub restore {dir}` has it go on (engine pause)");
    } else {
        let end = if args.leave_running { "it goes on" } else { "it has ended" };
        let children = match report.processes {
            1 => String::new(),
            processes => format!("{} and ", counted(processes - 1, "descendant", "descendants")),
        };
        println!(
            "{}: process {pid} with {children}{}, {:.1} MB, frozen for {:.0} ms; {end}",
            report.dir.display(),
            counted(report.threads, "thread", "threads"),
            report.image_bytes as f64 / 1e6,
            times.frozen.as_secs_f64() * 1e3,
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn request() -> Result<Request, Failure> {
    serde_json::from_reader(io::stdin().lock())
        .map_err(|error| Failure::new("the request cannot be read", &error, Code::Usage))
}

fn metric(text: &str) -> Result<(String, String), String> {
    let (name, value) = pair(text)?;
    let number: Result<f64, _> = value.parse();
    number.map(|_| (name, value)).map_err(|_| "it is NAME=NUMBER".to_owned())
}

/// The agent for a JVM that was started without us, unless it is declined.
pub(crate) fn late_agent(declined: bool) -> Result<Option<LateAgent>, Failure> {
    if declined {
        return Ok(None);
    }
    let path = crate::run::expected_agent()?;
    Ok(Some(LateAgent { path, loaded: tell_limits }))
}

/// What a JVM that was started without us does not have.
fn tell_limits(pid: HostPid) {
    eprintln!(
        "tub: process {pid} was started without `tub run`: its JVM has loaded the agent now, with limits"
    );
    for limit in [
        "hooks of whoever looked for jdk.crac before (org.crac) are not called",
        "the management bean is there only if nothing has used JMX before",
        "generators of random numbers made before are reseeded even if the application chose their seed",
        "files and sockets left open are the engine's to restore, as with `tub run --open restore`",
        "Core.checkpointRestore() is not configured; CRaC's -XX options had no part in the start",
    ] {
        eprintln!("tub: limit: {limit}");
    }
}

/// A duration as it was typed.
pub(crate) fn seconds(name: &str, seconds: f64) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(seconds).map_err(|error| {
        Failure::new(format!("{name} of {seconds} s cannot be used"), &error, Code::Usage)
    })
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Where the image goes, with what is known now in the place of placeholders.
fn directory(args: &Args, pid: HostPid) -> Result<PathBuf, Failure> {
    // Asked for nothing where the path is whole.
    let is_asked = args.image.is_none() || args.placeholders;
    let client = is_asked.then(|| tubthumping::Client::find(pid).ok().flatten()).flatten();
    let status = client.and_then(|mut client| client.status().ok());
    let wished = status.as_ref().filter(|_| args.image.is_none());
    let has_placeholders = args.placeholders || wished.is_some_and(|status| status.placeholders);
    let generation = status.as_ref().map(|status| status.generation);
    let wish = status.and_then(|status| status.image).filter(|_| args.image.is_none());
    let writes = args.engine != EngineArg::Sim;
    if let Some(wish) = wish.as_ref().filter(|_| writes && is_anothers_wish(pid)) {
        let causes = vec![format!("it asks for {wish}, and is another user's process")];
        let what = format!("process {pid} cannot be checkpointed: nobody has said where to");
        let state = "the process goes on and was not stopped; there is no image".to_owned();
        let hint = "say where its image goes by --image DIR".to_owned();
        return Err(Failure { what, causes, state, hint, code: Code::Usage });
    }
    let dir = pattern(args, pid, wish);
    if !has_placeholders {
        return Ok(dir);
    }
    let mut uuid = [0; 16];
    let random = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut uuid));
    random.map_err(|error| Failure::new("/dev/urandom cannot be read", &error, Code::Failed))?;
    let moment = Moment {
        now: now(),
        restored: started(pid).unwrap_or_else(now),
        generation: generation.unwrap_or(0) + 1,
        uuid,
    };
    let filled = at_checkpoint(&dir.to_string_lossy(), &moment);
    filled.map(PathBuf::from).map_err(|error| {
        let what = format!("image {} cannot be named", dir.display());
        Failure::new(what, &error, Code::Usage)
    })
}

/// Whether a process may lead us where its user could not go.
fn is_anothers_wish(pid: HostPid) -> bool {
    nix::unistd::Uid::effective().is_root() && tub_checkpoint::only_owner(pid) != Some(0)
}

/// When a process was started, which of a copy is when it was restored, in seconds since 1970.
fn started(pid: HostPid) -> Option<u64> {
    let started = tub_checkpoint::survey_tree(pid).ok()?.main().stat.starttime;
    let host = fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 =
        host.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    // KERNEL: USER_HZ is 100 on every architecture that we know (proc_pid_stat(5)).
    Some(boot + started / 100)
}

/// Without `--image`: where `tub run --image` said, else a fresh name here.
fn pattern(args: &Args, pid: HostPid, wished: Option<String>) -> PathBuf {
    let wished = args.image.clone().or(wished.map(PathBuf::from));
    wished.unwrap_or_else(|| format!("tub-{pid}-{}", now()).into())
}

/// Why a checkpoint that would have gone to `dir` was not taken.
pub(crate) fn failure(pid: HostPid, dir: &Path, error: &CheckpointError) -> Failure {
    let what = match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("process {pid} ({}) cannot be checkpointed", name.trim()),
        Err(_) => format!("process {pid} cannot be checkpointed"),
    };
    let state = match error.process() {
        ProcessState::Untouched => "the process goes on and was not stopped; there is no image",
        ProcessState::Thawed => "the process was thawed and goes on; there is no image",
        ProcessState::Gone => "there is no such process, and no image",
    };
    let (code, hint) = advice(dir, error);
    let mut failure = Failure::new(what, error, code).state(state).hint(hint);
    match error {
        CheckpointError::Refused { refusals, .. } => {
            failure.causes = refusals.iter().map(Refusal::to_string).collect();
        }
        CheckpointError::Coordination(ClientError::Refused(refusal)) => {
            failure.causes.extend(refusal.failures.iter().map(|resource| {
                let of = resource.resource.iter().map(|of| format!("{of}: ")).collect::<String>();
                format!("{of}{}: {}", resource.type_name, resource.message)
            }));
        }
        _ => {}
    }
    failure
}

const WITHOUT_AGENT: &str =
    "start it by `tub run`, or take it as it is, without telling it: --no-attach";

fn advice(dir: &Path, error: &CheckpointError) -> (Code, String) {
    use tub_control::RefusalKind;
    let plain = |code, hint: &str| (code, hint.to_owned());
    match error {
        CheckpointError::Refused { .. } => plain(
            Code::Refused,
            "every object above stands in the way; mend them all, then try again",
        ),
        CheckpointError::Coordination(ClientError::Refused(refusal)) => match refusal.kind {
            RefusalKind::Busy => plain(Code::Busy, "wait for the other checkpoint to end"),
            RefusalKind::TimedOut => plain(Code::TimedOut, "give it more time with --timeout"),
            RefusalKind::NotAllowed => plain(Code::NoSuchProcess, "run tub as the same user"),
            RefusalKind::ResourceFailed => {
                plain(Code::Refused, "the application's own log says more")
            }
            _ => plain(Code::Failed, ""),
        },
        CheckpointError::Coordination(ClientError::TimedOut { .. }) => plain(
            Code::TimedOut,
            "the application does not answer on its control socket; give it more time with --timeout",
        ),
        CheckpointError::Coordination(_) => plain(Code::Failed, ""),
        CheckpointError::NoLabels => plain(Code::Usage, "leave them out, or use the native engine"),
        CheckpointError::NobodyToTell => plain(Code::Usage, "start it by `tub run`"),
        CheckpointError::Attach(error) => match error {
            AttachError::NoAnswer { .. } => plain(Code::TimedOut, WITHOUT_AGENT),
            AttachError::Io { .. } => plain(Code::Failed, WITHOUT_AGENT),
            _ => plain(Code::Refused, WITHOUT_AGENT),
        },
        CheckpointError::Ended(_) => plain(Code::NoSuchProcess, ""),
        CheckpointError::Pause { source, .. } => {
            let (code, hint) = pause::advice(source);
            plain(code, hint)
        }
        CheckpointError::Criu(error) => {
            let (code, hint) = criu::advice(error);
            plain(code, hint)
        }
        CheckpointError::Engine { source, .. } => match source {
            EngineError::NoSuchProcess { .. } => plain(Code::NoSuchProcess, "check the process id"),
            EngineError::NotOurs { .. } => {
                plain(Code::NoSuchProcess, "run tub as the user whose process it is")
            }
            EngineError::Traced { name, .. } if name == "tub" => {
                plain(Code::Busy, "wait for the other checkpoint to end")
            }
            EngineError::Traced { .. } => plain(Code::Refused, "detach the debugger first"),
            EngineError::Tracee { .. } => match source.unfrozen() {
                Some(Unfrozen::Stopped) => plain(Code::Refused, "send it SIGCONT, then try again"),
                Some(Unfrozen::Busy) => plain(
                    Code::TimedOut,
                    "that thread waits for a disk or a network file system: try again when it answers",
                ),
                None => plain(
                    Code::NoSuchProcess,
                    "another tracer may hold it, or the host forbids tracing: see `tub check`",
                ),
            },
            EngineError::Image(_) => (
                Code::CannotWrite,
                format!(
                    "choose another --image than {}, or --replace to replace an image",
                    dir.display()
                ),
            ),
            _ => plain(Code::Failed, ""),
        },
        _ => plain(Code::Failed, ""),
    }
}
