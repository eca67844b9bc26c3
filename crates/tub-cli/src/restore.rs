//! `tub restore`: an image gets up again.

use crate::criu;
use crate::inspect::image_advice;
use crate::pause;
use crate::report::{Code, Failure};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tubthumping::{
    CriuError, Ids, LaunchError, MemoryMode, Outcome, PlanError, RestoreError, RestoreOptions,
    Stats, Stdio,
};

/// Make a running process of an image. In the foreground: signals are passed on, and the exit
/// status is the process's own.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The image.
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Map memory on demand where the runtime is known to bear it (auto), always (lazy), or read it
    /// all (eager).
    #[arg(long, value_enum, default_value_t = MemoryArg::Auto)]
    memory: MemoryArg,
    /// Take the standard streams from here, or from the image.
    #[arg(long, value_enum, default_value_t = StdioArg::Inherit)]
    stdio: StdioArg,
    /// Set a variable that the application sees after the restore. May be repeated.
    #[arg(long, value_name = "K=V", value_parser = variable)]
    env: Vec<(OsString, OsString)>,
    /// Restore only an image that has this label. May be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    require_label: Vec<(String, String)>,
    /// Do without what `tub train` has recorded.
    #[arg(long)]
    untrained: bool,
    /// Write the process's id to this file once it runs.
    #[arg(long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Return once it runs, and let it outlive this command.
    #[arg(long)]
    detach: bool,
    /// Write the times of the stages to this file, as JSON, in microseconds.
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
    /// Keep N instances parked, with their hot pages in place, until `tub release` lets one go.
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=1024),
        conflicts_with_all = ["detach", "pidfile", "stats", "dry_run"]
    )]
    pub(crate) standby: Option<u16>,
    /// Where to ask for one of them: a socket, `DIR.standby` if not given.
    #[arg(long, value_name = "SOCKET", requires = "standby")]
    pub(crate) control: Option<PathBuf>,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Hand the content of this file to the application, as it is (the engine for CRaC JDKs does).
    #[arg(long, value_name = "FILE", hide = true)]
    data: Option<PathBuf>,
    #[command(flatten)]
    criu: criu::CriuArgs,
    /// New arguments for the application.
    #[arg(last = true, value_name = "NEW-ARGS")]
    arguments: Vec<OsString>,
}

/// What a host may not give, and what is to be done without it.
#[derive(clap::Args)]
pub(crate) struct PlaceArgs {
    /// Keep process and thread ids, in a PID namespace of their own; or take new ones.
    #[arg(long, value_enum, default_value_t = IdsArg::Keep)]
    pids: IdsArg,
    /// What to do where monotonic clocks cannot go on from where they stood, since no time namespace can
    /// be had: let them jump forward alone, or back as well (what waits may wait as much longer).
    #[arg(long, value_enum, default_value_t = ClocksArg::Forward)]
    clocks: ClocksArg,
}

impl PlaceArgs {
    /// Those of a restore of `dir` with nothing else said.
    pub(crate) fn options(&self, dir: &Path) -> RestoreOptions {
        RestoreOptions {
            dir: dir.to_owned(),
            ids: match self.pids {
                IdsArg::Keep => Ids::Keep,
                IdsArg::New => Ids::New,
            },
            clocks_may_go_back: self.clocks == ClocksArg::Any,
            ..RestoreOptions::default()
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum IdsArg {
    Keep,
    New,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum MemoryArg {
    Auto,
    Lazy,
    Eager,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ClocksArg {
    Forward,
    Any,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum StdioArg {
    Inherit,
    Image,
}

pub(crate) fn variable(text: &str) -> Result<(OsString, OsString), String> {
    let bytes = text.as_bytes();
    let at = bytes.iter().position(|&byte| byte == b'=').filter(|&at| at > 0);
    let at = at.ok_or("a variable is NAME=VALUE")?;
    let part = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    Ok((part(&bytes[..at]), part(&bytes[at + 1..])))
}

/// A name and a value.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it is NAME=VALUE".to_owned()),
    }
}

/// What the arguments wish for.
pub(crate) fn options(args: &Args) -> Result<RestoreOptions, Failure> {
    Ok(RestoreOptions {
        memory: match args.memory {
            MemoryArg::Auto => MemoryMode::Auto,
            MemoryArg::Lazy => MemoryMode::Lazy,
            MemoryArg::Eager => MemoryMode::Eager,
        },
        stdio: match args.stdio {
            StdioArg::Inherit => Stdio::Inherit,
            StdioArg::Image => Stdio::Image,
        },
        environment: args.env.clone(),
        arguments: args.arguments.clone(),
        data: args.data.as_deref().map_or(Ok(Vec::new()), data)?,
        detach: args.detach,
        at_once: true,
        required_labels: args.require_label.clone(),
        untrained: args.untrained,
        criu: args.criu.options(),
        ..args.place.options(&args.dir)
    })
}

pub(crate) fn main(args: &Args, mut stats: Stats) -> Result<ExitCode, Failure> {
    if let Some(standby) = args.standby {
        return crate::standby::keep(args, standby.into());
    }
    let options = options(args)?;
    let failed = |error| failure(&args.dir, &error);
    if args.dry_run {
        print!("{}", tubthumping::dry_run(&options, &mut stats).map_err(failed)?);
        return Ok(ExitCode::SUCCESS);
    }
    let restoring = tubthumping::restore(&options, &mut stats).map_err(failed)?;
    let warnings = restoring.warnings.clone();
    let (running, spent) = restoring.resume().map_err(failed)?;
    stats.mark("resumed_us");
    // Everything from here on costs the restored process nothing.
    drop(spent);
    for warning in warnings {
        eprintln!("tub: warning: {warning}");
    }
    let written = |what: &str, path: &Path, content: String| {
        write_whole(path, &content).unwrap_or_else(|error| {
            eprintln!("tub: warning: {what} {} cannot be written: {error}", path.display());
        });
    };
    if let Some(path) = &args.pidfile {
        written("pidfile", path, format!("{}\n", running.main()));
    }
    if let Some(path) = &args.stats {
        let stages = stats.stages().map(|(name, us)| (name.to_owned(), us.into()));
        let start = ("start_monotonic_ns".to_owned(), stats.start_monotonic_ns().into());
        let object: serde_json::Map<String, serde_json::Value> = stages.chain([start]).collect();
        written("statistics", path, format!("{}\n", serde_json::Value::Object(object)));
    }
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    let pid = running.main();
    let outcome =
        running.wait().map_err(|error| failure(&args.dir, &RestoreError::Launch(error)))?;
    Ok(match outcome {
        Some(Outcome::Exited(code)) => ExitCode::from(code),
        None => {
            eprintln!("tub: process {pid} has ended; how, only its parent was told");
            ExitCode::from(Code::Failed as u8)
        }
        // As shells tell it.
        Some(Outcome::Killed { signal, core_dumped }) => {
            if core_dumped {
                eprintln!("tub: process {pid} was ended by signal {signal} (core dumped)");
            }
            ExitCode::from(u8::try_from(128 + signal).unwrap_or(255))
        }
    })
}

fn data(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| {
        let what = format!("{} cannot be read", path.display());
        Failure::new(what, &error, Code::Usage).state("nothing was started")
    })
}

/// A reader sees the whole content or none.
pub(crate) fn write_whole(path: &Path, content: &str) -> std::io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    std::fs::write(&aside, content)?;
    std::fs::rename(&aside, path)
}

pub(crate) fn failure(dir: &Path, error: &RestoreError) -> Failure {
    let what = format!("image {} cannot be restored", dir.display());
    let (code, hint) = advice(error);
    let mut failure = Failure::new(what, error, code)
        .state("no process was left behind; the image is as it was")
        .hint(hint);
    match error {
        RestoreError::Pause(error) => failure = failure.state(pause::state(error)),
        RestoreError::Host(all) => failure.causes.extend(all.iter().map(ToString::to_string)),
        RestoreError::Labels(all) => failure.causes.extend(all.iter().map(ToString::to_string)),
        RestoreError::Files(all) => failure.causes.extend(all.iter().map(ToString::to_string)),
        RestoreError::Locked(all) => failure.causes.extend(all.iter().map(ToString::to_string)),
        _ => {}
    }
    failure
}

const LOCKED: &str = "end whoever holds them: another instance, or the original";
const FILE_CHANGED: &str = "bring the file back as it was, or take a new checkpoint";

fn launch_advice(error: &LaunchError) -> (Code, &'static str) {
    match error {
        LaunchError::Member { source, .. } => launch_advice(source),
        LaunchError::NoPidNamespace { .. } => (
            Code::HostLacks,
            "use --pids new, which needs no namespace; `tub check` tells what this host allows",
        ),
        LaunchError::Pid { .. } => (
            Code::HostLacks,
            "use --pids new, which takes the ids that there are; `tub check` tells why it has to",
        ),
        LaunchError::FileChanged { .. } => (Code::BadImage, FILE_CHANGED),
        LaunchError::Locked { .. } => (Code::HostLacks, LOCKED),
        LaunchError::NoTerminal { .. } => (
            Code::HostLacks,
            "restore on a terminal, or have the process close that descriptor before the checkpoint",
        ),
        LaunchError::Descriptor { .. } => {
            (Code::HostLacks, "something that the process had open cannot be had here")
        }
        _ => (Code::Failed, ""),
    }
}

pub(crate) fn advice(error: &RestoreError) -> (Code, &'static str) {
    match error {
        RestoreError::Image(error) => {
            let hint = Some(image_advice(error)).filter(|hint| !hint.is_empty());
            (Code::BadImage, hint.unwrap_or("`tub verify` tells all that is wrong with it"))
        }
        RestoreError::Host(_) => {
            (Code::BadImage, "take the checkpoint on a host like this one, or restore on the other")
        }
        RestoreError::Launch(error) => launch_advice(error),
        RestoreError::Labels(_) => (Code::BadImage, "`tub inspect` tells which labels it has"),
        RestoreError::Files(_) => (Code::BadImage, FILE_CHANGED),
        RestoreError::Locked(_) => (Code::HostLacks, LOCKED),
        RestoreError::Plan(PlanError::ClockBackwards { .. }) => (
            Code::HostLacks,
            "restore where time namespaces can be had, or with --clocks any, if nothing in it waits for \
             long",
        ),
        RestoreError::Plan(_) => (Code::HostLacks, "`tub check` tells what this host allows"),
        RestoreError::NoArguments => (Code::Usage, ""),
        RestoreError::Unsupported { .. } => (Code::Usage, "leave it out"),
        RestoreError::Criu(CriuError::Io { .. }) => (Code::BadImage, ""),
        RestoreError::Criu(error) => criu::advice(error),
        RestoreError::Pause(error) => pause::advice(error),
        _ => (Code::Failed, ""),
    }
}
