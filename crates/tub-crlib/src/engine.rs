//! What a JVM asks an engine for: a checkpoint of itself, and to become what an image holds.
//!
//! In: a [`Conf`]. Out: an image, and the return into the original or into a copy; or another program
//! in our place. Invariant: the process that is checkpointed has no child and no descriptor of ours,
//! and whoever waits for an engine that is gone goes on.
//! Not here: CRLib (`lib.rs`).
//!
//! The image is taken by `tub checkpoint`, since nobody can trace itself. It is told that the process has
//! prepared, which is the JVM's business here, and where its mailbox is.

use crate::conf::Conf;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::env;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tub_control::mailbox::Letter;
use tub_control::{OpenRule, Peer, Prepared};
use tubthumping::{Ids, MemoryMode, RestoreOptions, sentence};
use tubthumping_app::engine::{has_ended, start_with};
use tubthumping_app::mailbox::Mailbox;

/// The file in an image's directory by which newer JDKs know whose it is. They write it before they ask
/// for a checkpoint. JVM: openjdk/crac, `crac_engine.cpp`.
const ENGINE_FILE: &str = "engine";

/// How long an engine may take. It is watched meanwhile, so that this bounds nothing but a hang.
const PATIENCE: Duration = Duration::from_secs(3600);

/// How long a guardian may take to write the letter of an engine that was killed.
const GUARDIAN_PATIENCE: Duration = Duration::from_secs(3);

/// Takes an image of this process, and returns in the original if it goes on, and in every copy.
pub(crate) fn checkpoint(conf: &mut Conf) -> Result<(), String> {
    conf.data.clear();
    let image = conf.image.clone().ok_or("no image_location was configured")?;
    let command = command(conf).ok_or("the command tub was not found: configure tub_location")?;
    let mailbox = Mailbox::new().map_err(|error| format!("no memory for a mailbox: {error}"))?;
    let beside = take_engine_file(&image);
    let scores = std::mem::take(&mut conf.scores);
    let request = serde_json::json!({
        "prepared": Prepared {
            mailbox: mailbox.place(),
            private_fds: Vec::new(),
            // The JVM has looked, and knows better which files are its own.
            open: OpenRule::Restore,
            allowed_paths: Vec::new(),
            runtime: "CRaC JDK".to_owned(),
            resources: Vec::new(),
            metrics: Vec::new(),
        },
        "labels": conf.told.labels(),
        "metrics": scores.iter().map(|(name, value)| (name, value.to_string())).collect::<Vec<_>>(),
        "beside": beside.iter().map(|text| (ENGINE_FILE, text)).collect::<Vec<_>>(),
    });
    let result = perform(conf, &command, &image, mailbox, request.to_string().as_bytes());
    if let (Err(_), Some(text)) = (&result, &beside) {
        // As it was found.
        let _ = fs::write(image.join(ENGINE_FILE), text);
    }
    conf.data = result?;
    Ok(())
}

/// Answers what a copy was given.
fn perform(
    conf: &Conf,
    command: &Path,
    image: &Path,
    mailbox: Mailbox,
    request: &[u8],
) -> Result<Vec<u8>, String> {
    tub_control::make_directory(&tub_control::default_directory())
        .map_err(|error| sentence(&error))?;
    let mut words = vec!["--from-inside".to_owned(), "--replace".to_owned()];
    if conf.keep_running {
        words.push("--leave-running".to_owned());
    }
    words.extend(conf.words.iter().cloned());
    let allow = |pid| tubthumping_app::allow_tracing_by(Peer { pid, uid: 0 });
    let engine = start_with(command, image.as_os_str(), &words, request, allow)?;
    let said = || fs::read_to_string(&engine.messages).unwrap_or_default().trim().to_owned();
    let mut gone_since = None;
    let letter = mailbox.wait_while(PATIENCE, || {
        let since = match gone_since {
            None if has_ended(engine.pid) => *gone_since.insert(Instant::now()),
            None => return None,
            Some(since) => since,
        };
        match said() {
            // It was killed, and its guardian may have the last word.
            said if said.is_empty() => (since.elapsed() > GUARDIAN_PATIENCE)
                .then(|| "the engine ended without a word".to_owned()),
            said => Some(said),
        }
    });
    let said = said();
    let _ = fs::remove_file(&engine.messages);
    match letter {
        Letter::Restored { data, .. } => Ok(data),
        Letter::Resumed(_) => Ok(Vec::new()),
        Letter::Failed(failed) => Err(if said.is_empty() { failed.message } else { said }),
        Letter::Waiting => Err("the engine left no letter".to_owned()),
    }
}

/// Removes the JDK's own file from where our image goes, so that this is empty or an image; it is to
/// lie in the image.
fn take_engine_file(image: &Path) -> Option<String> {
    let path = image.join(ENGINE_FILE);
    let text = fs::read_to_string(&path).ok()?;
    fs::remove_file(&path).ok().map(|()| text)
}

/// Becomes the process of an image. Returns only if that cannot be.
pub(crate) fn restore(conf: &mut Conf) -> String {
    let Some(image) = conf.image.clone() else {
        return "no image_location was configured".to_owned();
    };
    let Some(command) = command(conf) else {
        return "the command tub was not found: configure tub_location".to_owned();
    };
    let options = RestoreOptions { dir: image.clone(), ..RestoreOptions::default() };
    let labels = match labels(&options) {
        Ok(labels) => labels,
        Err(why) => return format!("image {}: {why}", image.display()),
    };
    let failed = conf.required.judge(&labels);
    if !failed.is_empty() {
        let all: Vec<_> = failed.iter().map(|failed| failed.why.as_str()).collect();
        return format!("image {}: {}", image.display(), all.join("; "));
    }
    match become_it(conf, &command, &image) {
        Ok(never) => match never {},
        Err(error) => format!("{}: cannot run: {error}", command.display()),
    }
}

/// What the image says of itself, if it could be restored here.
pub(crate) fn labels(options: &RestoreOptions) -> Result<Vec<(String, String)>, String> {
    let told = |error: tubthumping::RestoreError| match &error {
        tubthumping::RestoreError::Host(all) => join(all),
        error => sentence(error),
    };
    tubthumping::fits(options).map_err(told)?;
    let engine = tubthumping::engine(tubthumping::engine_of(&options.dir), &options.criu);
    engine.inspect(&options.dir).map(|inspection| inspection.labels).map_err(told)
}

fn join(all: &[impl Display]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn become_it(
    conf: &Conf,
    command: &Path,
    image: &Path,
) -> std::io::Result<std::convert::Infallible> {
    let mut restore = Command::new(command);
    restore.arg("restore").arg(image);
    if conf.memory == MemoryMode::Eager {
        restore.args(["--memory", "eager"]);
    }
    if conf.ids == Ids::New {
        restore.args(["--pids", "new"]);
    }
    // Open until the command has read it. It outlives an exec on purpose: there is nobody to hold it.
    let mut held = None;
    if !conf.data.is_empty() {
        let mut file = File::from(memfd_create(c"tub restore data", MFdFlags::empty())?);
        file.write_all(&conf.data)?;
        restore.arg("--data").arg(format!("/proc/self/fd/{}", file.as_raw_fd()));
        held = Some(file);
    }
    let error = restore.args(&conf.words).exec();
    drop(held);
    Err(error)
}

/// Where `tub` is.
pub(crate) fn command(conf: &Conf) -> Option<PathBuf> {
    if let Some(command) = &conf.command {
        return Some(command.clone());
    }
    let set = env::var_os("TUB_COMMAND").filter(|command| !command.is_empty());
    let beside = crate::library().and_then(|library| {
        Some(fs::canonicalize(library).ok()?.parent()?.parent()?.join("bin/tub"))
    });
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|dir| dir.join(OsStr::new("tub")));
    set.map(PathBuf::from).into_iter().chain(beside).chain(on_path).find(|path| path.is_file())
}
