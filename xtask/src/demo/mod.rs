//! `cargo xtask demo`: a warmed-up service is knocked down, and gets up again, several times.
//!
//! In: a machine. Out: a table, or one JSON object on the last line of stdout.
//! Invariant: cold starts and restores are measured by one prober, in one run, as one ordinary
//! user; nothing here is root's privilege but becoming that user.
//! Not here: the measurement itself (`bench/`), statistics (`figures`).

mod figures;
mod prober;
mod service;

use crate::failure::{Failure, Result};
use crate::layout::{self, Layout, copy_tree};
use crate::process::{progress, run_quietly, step};
use crate::setup::{self, Jdk};
use figures::{Figures, percentile};
use prober::{FirstAnswer, Load, Prober, Stage};
use serde_json::Value;
use service::Service;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

/// The ordinary user when started by root: `nobody`, which every machine has.
const NOBODY: u32 = 65534;
/// Requests that make the service warm, and those that measure how warm it is.
const WARM_UP: u32 = 20_000;
const WARM_RATE: u32 = 5_000;
/// Requests after each start, cold or restored.
const FIRST: u32 = 200;
/// Cold starts, spread over the restores so that a machine that slows down slows down both.
const COLD_STARTS: usize = 3;
/// Restores of the image as the checkpoint left it, before it is trained.
const UNTRAINED: usize = 10;
/// Instances that are alive at once.
const AT_ONCE: usize = 3;

/// What the user of the demo can choose.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Print one JSON object on the last line of stdout instead of the table.
    #[arg(long)]
    json: bool,
    /// The JDK to run the service on; otherwise that of JAVA_HOME, PATH or /usr/lib/jvm.
    #[arg(long, value_name = "JAVA_HOME")]
    jdk: Option<PathBuf>,
    /// How many restores to measure, one after another.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    restores: u16,
    /// Run the bundled native service instead of Spring Boot.
    #[arg(long)]
    native: bool,
    /// Keep image and logs, and say where they are.
    #[arg(long)]
    keep: bool,
}

/// Runs the demo.
pub(crate) fn run(options: &Options) -> Result<()> {
    eprintln!("[1/5] Everything is built, and one ordinary web service");
    setup::need_linker()?;
    let jdk = if options.native { None } else { wanted_jdk(options)? };
    let built = layout::build(jdk.as_ref().map(|jdk| jdk.home.as_path()))?;
    let scratch = Scratch::new(options.keep)?;
    let stage = set_stage(&built, &scratch)?;
    let service = choose_service(options, jdk.as_ref(), &stage)?;
    progress(&format!("the service: {}", service.name));

    let figures = tell_the_story(&service, &stage, usize::from(options.restores))?;
    let table = figures.to_table(&service);
    if options.json {
        eprintln!("\n{table}");
        println!("{}", figures.to_json(&service));
    } else {
        println!("\n{table}");
    }
    Ok(())
}

/// The JDK, or `None` and the reason said where there is none and none was asked for by name.
fn wanted_jdk(options: &Options) -> Result<Option<Jdk>> {
    match setup::need_jdk(options.jdk.as_deref()) {
        Ok(jdk) => Ok(Some(jdk)),
        Err(error) if options.jdk.is_some() => Err(error),
        Err(error) => {
            progress(&format!("no Spring Boot here, the native service stands in: {error}"));
            Ok(None)
        }
    }
}

fn choose_service(options: &Options, jdk: Option<&Jdk>, stage: &Stage) -> Result<Service> {
    let Some(jdk) = jdk else { return service::native(&stage.layout) };
    // A JDK below somebody's home directory cannot be run by another user.
    let mut java = stage.command(&jdk.java());
    if let Some(uid) = stage.uid {
        java.uid(uid).gid(uid);
    }
    run_quietly(java.arg("-version")).map_err(|error| {
        error.hint("the service runs as an ordinary user, who must reach the JDK")
    })?;
    match service::spring_boot(jdk, &stage.scratch) {
        Ok(service) => Ok(service),
        Err(error) if options.jdk.is_some() => Err(error),
        Err(error) => {
            progress(&format!("no Spring Boot here, the native service stands in: {error}"));
            service::native(&stage.layout)
        }
    }
}

/// A directory below the temporary one, removed at the end.
struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    fn new(keep: bool) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("tub-demo-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| Failure::io("create", &path, &error))?;
        let scratch = Self { path, keep };
        fs::set_permissions(&scratch.path, fs::Permissions::from_mode(0o755))
            .map_err(|error| Failure::io("change mode of", &scratch.path, &error))?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.keep {
            progress(&format!("kept: {}", self.path.display()));
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            progress(&format!("{}: cannot remove: {error}", self.path.display()));
        }
    }
}

/// Decides as whom and where everything runs.
fn set_stage(built: &Layout, scratch: &Scratch) -> Result<Stage> {
    // A checkout below /root cannot be reached by the ordinary user, so a copy is used always.
    let layout = Layout { dir: scratch.path.join("tub") };
    copy_tree(&built.dir, &layout.dir)?;
    let uid = setup::is_root()?.then_some(NOBODY);
    if let Some(uid) = uid {
        chown(&scratch.path, Some(uid), Some(uid))
            .map_err(|error| Failure::io("give away", &scratch.path, &error))?;
    }
    let mut stage = Stage { layout, uid, netns: true, scratch: scratch.path.clone() };
    let mut probe = stage.command(&stage.layout.prober());
    stage.netns = match probe.arg("netns").stdout(Stdio::null()).status() {
        Ok(status) => status.success(),
        Err(error) => return Err(Failure::new(format!("tub-prober: cannot start: {error}"))),
    };
    Ok(stage)
}

fn tell_the_story(service: &Service, stage: &Stage, restores: usize) -> Result<Figures> {
    let mut figures = Figures {
        account: match stage.uid {
            Some(uid) => format!("an ordinary user (uid {uid}; started by root)"),
            None => "the user who started the demo".to_owned(),
        },
        sharing: if stage.netns {
            "each instance in a network namespace of its own, all on port 8080"
        } else {
            "network namespaces are refused here: one instance at a time on port 8080"
        },
        machine: machine(),
        ..Figures::default()
    };

    eprintln!("[2/5] It is started and warmed up");
    cold_start(service, stage, &mut figures)?;
    let mut original = start_original(service, stage, &mut figures)?;

    eprintln!("[3/5] It gets knocked down");
    let image = stage.scratch.join("image");
    let pid = original.pid;
    figures.checkpoint_ms =
        step(&format!("tub checkpoint {pid} --image {}", image.display()), || {
            checkpoint(stage, pid, &image)
        })?;
    figures.original_ended = original.take_prober().stop()?;
    figures.image_bytes = disk_bytes(&image)?;

    eprintln!("[4/5] It gets up again: {UNTRAINED} times as it is, {restores} times trained");
    for round in 1..=UNTRAINED {
        let rise = restore(service, stage, &image, &format!("untrained restore {round}"))?;
        figures.untrained_ms.push(rise.ms);
        figures.untrained_resumed_ms.extend(rise.resumed_ms());
    }
    if let Some(ms) = percentile(&figures.untrained_ms, 50) {
        progress(&format!("tub restore {}: {ms:.1} ms (median)", image.display()));
    }
    step("tub train: three instances show which pages they need", || {
        train(service, stage, &image)
    })?;
    for round in 1..=restores {
        // After a third and after two thirds of the restores.
        while figures.cold_ms.len() < COLD_STARTS
            && round > restores * figures.cold_ms.len() / COLD_STARTS
        {
            cold_start(service, stage, &mut figures)?;
        }
        let rise = restore(service, stage, &image, &format!("restore {round}"))?;
        figures.restored_ms.push(rise.ms);
        figures.restored_first_200.push(rise.first_200_rate);
        figures.resumed_ms.extend(rise.resumed_ms());
        for (stage, us) in rise.stages_us {
            figures.stages_us.entry(stage).or_default().push(us);
        }
        if round == 1 || round % 10 == 0 || round == restores {
            let last = figures.restored_ms.last().copied().unwrap_or_default();
            progress(&format!(
                "tub restore {}: no. {round} answered after {last:.1} ms",
                image.display()
            ));
        }
    }

    eprintln!("[5/5] Three of them stand at once");
    if stage.netns {
        at_once(service, stage, &image, &mut figures)?;
    } else {
        figures.not_at_once = Some("network namespaces are refused here".to_owned());
        progress("skipped: network namespaces are refused here");
    }
    Ok(figures)
}

/// Kernel and processors, without which a time means little.
fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    format!("Linux {}, {processors} processors", kernel.trim())
}

/// Starts the service as anybody would, measures it, and ends it.
fn cold_start(service: &Service, stage: &Stage, figures: &mut Figures) -> Result<()> {
    let number = figures.cold_ms.len() + 1;
    let what = format!("cold start {number}");
    let mut prober = Prober::prepare(stage, &what, service.expect, &service.command)?;
    prober.go()?;
    let answer = prober.first_answer()?;
    let load = prober.load(FIRST)?;
    prober.stop()?;
    progress(&format!("cold start no. {number} answered after {:.0} ms", answer.ms));
    figures.cold_ms.push(answer.ms);
    figures.cold_first_200.push(load.first_200_rate);
    Ok(())
}

/// The warm service that will be checkpointed.
struct Original {
    prober: Option<Prober>,
    pid: u32,
}

impl Original {
    fn take_prober(&mut self) -> Prober {
        self.prober.take().expect("the original is taken once")
    }
}

fn start_original(service: &Service, stage: &Stage, figures: &mut Figures) -> Result<Original> {
    let mut command: Vec<OsString> = Vec::new();
    if service.coordinated {
        command.extend([stage.layout.tub().into(), "run".into(), "--".into()]);
    }
    command.extend(service.command.iter().cloned());
    let mut prober = Prober::prepare(stage, "the original", service.expect, &command)?;
    prober.go()?;
    let answer = prober.first_answer()?;
    if service.coordinated {
        figures.prepared_cold_ms = Some(answer.ms);
        progress(&format!("tub run -- java -jar …: answered after {:.0} ms", answer.ms));
    }
    let Load { rate, first_200_rate } =
        step(&format!("warming it with {} requests", WARM_UP + WARM_RATE), || {
            prober.load(WARM_UP)?;
            prober.load(WARM_RATE)
        })?;
    progress(&format!("warm: {rate:.0} requests/s"));
    figures.warm_rate = rate;
    figures.warm_first_200 = first_200_rate;
    figures.warm_requests = WARM_UP + WARM_RATE;
    Ok(Original { prober: Some(prober), pid: answer.pid })
}

/// Takes the image; gives the wall time in milliseconds.
fn checkpoint(stage: &Stage, pid: u32, image: &Path) -> Result<f64> {
    let mut command = stage.command(&stage.layout.tub());
    command.arg("checkpoint").arg(pid.to_string()).arg("--image").arg(image);
    if let Some(uid) = stage.uid {
        command.uid(uid).gid(uid);
    }
    let start = Instant::now();
    run_quietly(&mut command)?;
    Ok(start.elapsed().as_secs_f64() * 1000.0)
}

/// Prepares one instance; the caller says go.
fn prepare_instance(
    service: &Service,
    stage: &Stage,
    image: &Path,
    name: &str,
) -> Result<(Prober, Instance)> {
    let file = |kind: &str| stage.scratch.join(format!("{}.{kind}", name.replace(' ', "-")));
    let instance = Instance { pidfile: file("pid"), stats: file("stats") };
    let command: [OsString; 7] = [
        stage.layout.tub().into(),
        "restore".into(),
        image.into(),
        "--pidfile".into(),
        instance.pidfile.clone().into(),
        "--stats".into(),
        instance.stats.clone().into(),
    ];
    Ok((Prober::prepare(stage, name, service.expect, &command)?, instance))
}

/// The files that `tub restore` writes about an instance.
struct Instance {
    pidfile: PathBuf,
    stats: PathBuf,
}

impl Instance {
    /// When each stage of the restore was over, in microseconds, as the engine says. Keys may come
    /// and go; `resumed_us`, when all threads were released, stays.
    fn stages_us(&self) -> Vec<(String, f64)> {
        let text = fs::read_to_string(&self.stats).unwrap_or_default();
        match serde_json::from_str(&text) {
            Ok(Value::Object(stages)) => stages
                .into_iter()
                .filter_map(|(stage, value)| Some((stage, value.as_f64()?)))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Proportional set size of the main process.
    fn pss_bytes(&self) -> Result<u64> {
        let path = &self.pidfile;
        let text = fs::read_to_string(path).map_err(|error| Failure::io("read", path, &error))?;
        let rollup = PathBuf::from(format!("/proc/{}/smaps_rollup", text.trim()));
        let text =
            fs::read_to_string(&rollup).map_err(|error| Failure::io("read", &rollup, &error))?;
        pss_of(&text).ok_or_else(|| Failure::new(format!("{}: has no Pss line", rollup.display())))
    }
}

fn pss_of(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// One restore, measured.
struct Rise {
    ms: f64,
    first_200_rate: f64,
    stages_us: Vec<(String, f64)>,
}

impl Rise {
    fn resumed_ms(&self) -> Option<f64> {
        let resumed = self.stages_us.iter().find(|(stage, _)| stage == "resumed_us");
        resumed.map(|(_, us)| us / 1000.0)
    }
}

fn restore(service: &Service, stage: &Stage, image: &Path, name: &str) -> Result<Rise> {
    let (mut prober, instance) = prepare_instance(service, stage, image, name)?;
    prober.go()?;
    let FirstAnswer { ms, .. } = prober.first_answer()?;
    let load = prober.load(FIRST)?;
    prober.stop()?;
    Ok(Rise { ms, first_200_rate: load.first_200_rate, stages_us: instance.stages_us() })
}

/// Teaches the image which pages its instances need first. They have the service's port, so they
/// live in a network namespace of their own, too.
fn train(service: &Service, stage: &Stage, image: &Path) -> Result<()> {
    let prober = stage.layout.prober();
    let mut command;
    if stage.netns {
        command = stage.command(&prober);
        command.arg("inside");
        if let Some(uid) = stage.uid {
            command.arg("--uid").arg(uid.to_string());
        }
        command.arg("--").arg(stage.layout.tub());
    } else {
        command = stage.command(&stage.layout.tub());
        if let Some(uid) = stage.uid {
            command.uid(uid).gid(uid);
        }
    }
    command.arg("train").arg(image).arg("--").arg(&prober);
    run_quietly(command.args(["ask", "--expect", service.expect])).map(drop)
}

fn at_once(service: &Service, stage: &Stage, image: &Path, figures: &mut Figures) -> Result<()> {
    let mut running = Vec::new();
    for number in 1..=AT_ONCE {
        running.push(prepare_instance(service, stage, image, &format!("instance {number}"))?);
    }
    for (prober, _) in &mut running {
        prober.go()?;
    }
    let mut answers = Vec::new();
    for (prober, _) in &mut running {
        answers.push(prober.first_answer()?);
    }
    let pss: Result<Vec<u64>> = running.iter().map(|(_, instance)| instance.pss_bytes()).collect();
    figures.instance_pss = pss?;
    // Each must still answer when all are known to be up; none may have replaced another.
    for (prober, _) in &mut running {
        prober.must_answer()?;
    }
    for (prober, _) in running {
        prober.stop()?;
    }
    let first_ns = answers.iter().map(|answer| answer.started_ns).min();
    let last_ns = answers.iter().map(|answer| answer.correct_ns).max();
    if let (Some(first), Some(last)) = (first_ns, last_ns) {
        let ms = std::time::Duration::from_nanos(last - first).as_secs_f64() * 1000.0;
        figures.at_once_ms = Some(ms);
        let each: Vec<f64> = answers.iter().map(|answer| answer.ms).collect();
        progress(&format!(
            "{AT_ONCE} instances alive and answering, the last after {ms:.1} ms (median {:.1})",
            percentile(&each, 50).unwrap_or_default()
        ));
    }
    Ok(())
}

/// What the image occupies on disk. Its files may have holes, which cost nothing.
fn disk_bytes(dir: &Path) -> Result<u64> {
    let entries = fs::read_dir(dir).map_err(|error| Failure::io("list", dir, &error))?;
    let mut sum = 0;
    for entry in entries {
        let path = entry.map_err(|error| Failure::io("list", dir, &error))?.path();
        let metadata =
            fs::symlink_metadata(&path).map_err(|error| Failure::io("stat", &path, &error))?;
        // st_blocks counts units of 512 bytes whatever the file system's block size is.
        sum += if metadata.is_dir() { disk_bytes(&path)? } else { metadata.blocks() * 512 };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pss_is_read_from_a_rollup() {
        let rollup =
            "55d0-7ffc ---p 0 00:00 0 [rollup]\nRss:  200 kB\nPss:    12 kB\nPss_Anon: 3 kB\n";
        assert_eq!(pss_of(rollup), Some(12 * 1024));
        assert_eq!(pss_of("Rss: 1 kB"), None);
    }
}
