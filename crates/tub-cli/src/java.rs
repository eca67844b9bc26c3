//! The `java` and `jcmd` of a directory that `tub jdk` has made.
//!
//! In: a command line as a CRaC JDK takes it. Out: `tub run`, `tub restore`, `tub checkpoint` or the
//! stock program, in the place of this process.
//! Invariant: a command line without CRaC's options goes to the stock program as it is; an option
//! that cannot be had is refused with a sentence, never dropped.
//! Not here: how the options are found and read (`java_options`).

use crate::foreign;
use crate::java_options::place::{Start, at_restore, at_start};
use crate::java_options::{
    CommandLine, CpuCheck, LAST_VARIABLE, OptionError, VARIABLES, expand, with_last_variable,
    with_variable,
};
use crate::report::{Code, Failure};
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use tub_host::Mismatch;
use tub_image::Image;

/// Start Java as a CRaC JDK does.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The stock JDK.
    java_home: PathBuf,
    /// What stood behind `java` or `jcmd`.
    #[arg(last = true)]
    words: Vec<OsString>,
}

/// `java`.
pub(crate) fn java(args: &Args) -> Result<ExitCode, Failure> {
    let stock = args.java_home.join("bin/java");
    let (mut words, mut used) = (args.words.clone(), Vec::<&str>::new());
    // Backwards, since each comes before the words that there are.
    for variable in VARIABLES.iter().rev() {
        let (all, is_used) = with_variable(&words, env::var_os(variable));
        words = all;
        used.extend(is_used.then_some(*variable));
    }
    let words = expand(words).map_err(|error| usage(&error))?;
    let (words, is_used) = with_last_variable(words, env::var_os(LAST_VARIABLE));
    used.extend(is_used.then_some(LAST_VARIABLE));
    let line = CommandLine::parse(&words).map_err(|error| usage(&error))?;
    if !line.is_crac() {
        return Err(become_program(Command::new(&stock).args(&args.words)));
    }
    if let Some(text) = line.help() {
        print!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    let mut command = tub()?;
    for variable in used {
        // Its options are on the command line now.
        command.env_remove(variable);
    }
    if let Some(image) = line.restore_from() {
        let settable = line.restore_words();
        let reason =
            settable.as_ref().err().map(settable_only).or_else(|| unavailable(image, &line));
        match (settable, reason) {
            (Ok(words), None) => {
                command.arg("restore").arg(image).args(line.restore_options()).arg("--");
                command.envs(next_image(&line)?);
                return Err(become_program(command.args(words)));
            }
            (_, Some(Unavailable { reason, .. })) if line.may_start_instead() => {
                eprintln!("tub: {reason}; starting anew");
            }
            (Err(error), _) => return Err(Failure { code: Code::Failed, ..usage(&error) }),
            (Ok(_), Some(Unavailable { reason, is_said_here: true })) => {
                return Err(Failure { code: Code::BadImage, ..usage(&OptionError::new(reason)) });
            }
            // `tub restore` has better words for it.
            (Ok(words), Some(_)) => {
                command.arg("restore").arg(image).args(line.restore_options()).arg("--");
                return Err(become_program(command.args(words)));
            }
        }
    }
    let Some(pattern) = line.checkpoint_to() else {
        return Err(become_program(Command::new(&stock).args(line.stock_words())));
    };
    let start = Start {
        pid: std::process::id(),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        boot: crate::checkpoint::now(),
        max_heap: line.max_heap(),
    };
    let (image, is_pattern) =
        at_start(&pattern.to_string_lossy(), start).map_err(|error| usage(&error))?;
    let mut options = line.checkpoint_options();
    options.extend(is_pattern.then(|| "--placeholders".to_owned()));
    command.env("TUB_CHECKPOINT_OPTIONS", options.join(" "));
    command.args(["run", "--image", &image]).args(line.run_options());
    command.arg("--").arg(stock).args(line.stock_words());
    Err(become_program(&mut command))
}

/// What has a copy ask for its own image in the place that the command line of the restore names.
fn next_image(line: &CommandLine) -> Result<Vec<(&'static str, OsString)>, Failure> {
    let Some(pattern) = line.checkpoint_to() else { return Ok(Vec::new()) };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let filled =
        at_restore(&pattern.to_string_lossy(), processors).map_err(|error| usage(&error))?;
    let here = env::current_dir()
        .map_err(|error| Failure::new("cannot find the working directory", &error, Code::Failed))?;
    let here = PathBuf::from(here.to_string_lossy().replace('%', "%%"));
    // The options of its checkpoints, which may be of either kind, stay those of its start.
    Ok(vec![("TUB_IMAGE", here.join(filled).into()), ("TUB_IMAGE_PLACEHOLDERS", "1".into())])
}

/// `jcmd`.
pub(crate) fn jcmd(args: &Args) -> Result<ExitCode, Failure> {
    let stock = args.java_home.join("bin/jcmd");
    let is_checkpoint = args.words.get(1).is_some_and(|word| word == "JDK.checkpoint");
    if !is_checkpoint {
        let mut words = args.words.clone();
        if let Some(first) = words.first_mut() {
            *first = restored_by(first);
        }
        return Err(become_program(Command::new(&stock).args(&words)));
    }
    let kept = args.words[2..].iter().map(|word| kept_with_image(&word.to_string_lossy()));
    let kept: Vec<Vec<String>> = kept.collect::<Result<_, _>>().map_err(|error| usage(&error))?;
    let pid = process(&stock, &restored_by(&args.words[0]))?;
    let mut command = tub()?;
    command.args(["checkpoint", &pid]).args(options_of(&pid)).args(kept.concat());
    Err(become_program(&mut command))
}

/// The JVM, where a word is the id of the `tub restore` that has brought it back: this is what whoever
/// started `java -XX:CRaCRestoreFrom=…` knows. Otherwise the word.
fn restored_by(word: &OsStr) -> OsString {
    let is_ours = |pid: &str| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "tub")
    };
    let mut pid = word.to_string_lossy().into_owned();
    // Below it there is the init of its namespace, which is the same program.
    while pid.bytes().all(|byte| byte.is_ascii_digit()) && is_ours(&pid) {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let Some(child) = children.unwrap_or_default().split_whitespace().next().map(str::to_owned)
        else {
            break;
        };
        pid = child;
    }
    if *word == *pid { word.to_owned() } else { pid.into() }
}

/// Options of `tub checkpoint` for `metrics=` and `labels=` of `JDK.checkpoint`: pairs parted by commas,
/// or a file of them after `@`, one on a line.
fn kept_with_image(word: &str) -> Result<Vec<String>, OptionError> {
    let failed = |why: &str| OptionError::new(format!("JDK.checkpoint: {word}: {why}"));
    let (option, list) = match word.split_once('=') {
        Some(("metrics", list)) => ("--metric", list),
        Some(("labels", list)) => ("--label", list),
        _ => return Err(failed("there are metrics= and labels=")),
    };
    let content = match list.strip_prefix('@') {
        Some(file) => fs::read_to_string(file)
            .map_err(|error| failed(&format!("the file cannot be read: {error}")))?,
        None => list.to_owned(),
    };
    let pairs = content.split([',', '\n']).map(str::trim).filter(|pair| !pair.is_empty());
    Ok(pairs.map(|pair| format!("{option}={pair}")).collect())
}

/// What the launcher has said about checkpoints of a process when it started it.
fn options_of(pid: &str) -> Vec<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment
        .split(|&byte| byte == 0)
        .find_map(|line| line.strip_prefix(b"TUB_CHECKPOINT_OPTIONS="))
        .map(|options| String::from_utf8_lossy(options).into_owned())
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// A process id, or that of the one JVM whose main class is named so.
fn process(stock: &Path, word: &OsStr) -> Result<String, Failure> {
    let name = word.to_string_lossy().into_owned();
    if name.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() {
        return Ok(name);
    }
    let listed = Command::new(stock).arg("-l").output().map_err(|error| {
        Failure::new(format!("{}: cannot run", stock.display()), &error, Code::Failed)
    })?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let of_name = |line: &str| {
        let (pid, command) = line.split_once(' ')?;
        let main = command.split_whitespace().next()?;
        // As jcmd does it: a part of the main class's name, or of the jar's.
        (main.contains(&name) && main != "jdk.jcmd/sun.tools.jcmd.JCmd").then(|| pid.to_owned())
    };
    let mut found: Vec<String> = listed.lines().filter_map(of_name).collect();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Failure {
            code: Code::NoSuchProcess,
            ..usage(&OptionError::new(format!("{name}: no JVM has such a main class")))
        }),
        _ => Err(usage(&OptionError::new(format!(
            "{name}: more than one JVM has such a main class: {}",
            found.join(", ")
        )))),
    }
}

fn settable_only(error: &OptionError) -> Unavailable {
    Unavailable { reason: error.to_string(), is_said_here: true }
}

/// Why an image cannot be used.
struct Unavailable {
    reason: String,
    /// Whether only this command line says so, or says it in its own words: else `tub restore` tells
    /// more.
    is_said_here: bool,
}

/// Why an image cannot be used, as far as that is known before anything is done.
fn unavailable(image: &OsStr, line: &CommandLine) -> Option<Unavailable> {
    let reason = |text: String, is_said_here| {
        let reason = format!("image {} cannot be used: {text}", Path::new(image).display());
        Some(Unavailable { reason, is_said_here })
    };
    if foreign::is_image(Path::new(image)) {
        return match foreign::labels(Path::new(image)) {
            Err(error) => reason(tubthumping::sentence(&error), false),
            Ok(labels) => tubthumping::missing_labels(&labels, line.required_labels())
                .first()
                .and_then(|first| reason(first.to_string(), true)),
        };
    }
    let opened = match Image::open(Path::new(image)) {
        Ok(opened) => opened,
        Err(error) => return reason(error.to_string(), false),
    };
    if let Some(first) =
        tubthumping::missing_labels(&opened.checkpoint.provenance.labels, line.required_labels())
            .first()
    {
        return reason(first.to_string(), true);
    }
    let opened = opened.checkpoint.host;
    let here = match tub_host::facts() {
        Ok(here) => here,
        Err(error) => return reason(error.to_string(), false),
    };
    // What is said about the processor, where the command line has words of its own for it.
    let own_words = || {
        let stored = &opened.cpu_features;
        let common = stored.iter().filter(|name| here.cpu_features.contains(name)).cloned();
        let message = line
            .cpu_message()?
            .replace("%c", &here.cpu_features.join(","))
            .replace("%s", &stored.join(","))
            .replace("%m", &common.collect::<Vec<_>>().join(","));
        Some(Unavailable { reason: message, is_said_here: true })
    };
    match tub_host::compare(&opened, &here).into_iter().next() {
        Some(first @ Mismatch::CpuFeatures { .. }) => {
            own_words().or_else(|| reason(first.to_string(), false))
        }
        Some(first) => reason(first.to_string(), false),
        None if line.cpu_check() == CpuCheck::Exact => {
            let more = tub_host::unknown_to_image(&opened, &here);
            if more.is_empty() {
                return None;
            }
            let text = format!(
                "the processor here has {} as well (CheckCPUFeatures=exact)",
                more.join(", ")
            );
            own_words().or_else(|| reason(text, true))
        }
        None => None,
    }
}

fn tub() -> Result<Command, Failure> {
    let ourselves = env::current_exe().map_err(|error| {
        Failure::new("cannot find the path of tub itself", &error, Code::Failed)
    })?;
    Ok(Command::new(ourselves))
}

/// Returns only if that fails.
fn become_program(command: &mut Command) -> Failure {
    let error: io::Error = command.exec();
    let program = Path::new(command.get_program()).display().to_string();
    Failure::new(format!("{program}: cannot run"), &error, Code::Failed)
}

fn usage(error: &OptionError) -> Failure {
    Failure {
        what: error.to_string(),
        causes: Vec::new(),
        state: String::new(),
        hint: "docs/java.md lists what can be had".into(),
        code: Code::Failed,
    }
}
