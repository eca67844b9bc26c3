//! `cargo xtask demo`: a warmed-up service is knocked down, and gets up again, several times.
//!
//! In: a machine. Out: a table, or one JSON object on the last line of stdout.
//! Invariant: cold starts and restores are measured by one prober, in one run, as one ordinary
//! user; nothing here is root's privilege but becoming that user.
//! Not here: the measurement itself (`bench/`), statistics (`figures`).

mod figures;
mod service;

use crate::examples::{self, Example};
use crate::failure::Result;
use crate::layout;
use crate::measure::{
    FirstAnswer, Load, Manner, Prober, Question, Restore, Scratch, Stage, disk_bytes, machine,
    percentile, warm_memory,
};
use crate::process::{progress, run_quietly, step};
use crate::setup::{self, Jdk};
use figures::Figures;
use service::Service;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

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
    /// The service of examples/services.toml to run.
    #[arg(long, value_name = "NAME", default_value = "spring-boot", conflicts_with = "native")]
    service: String,
    /// Run the bundled native service instead.
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
    let example = examples::named(&options.service)?;
    let jdk = if options.native { None } else { wanted_jdk(options, &example)? };
    let built = layout::build(jdk.as_ref().map(|jdk| jdk.home.as_path()))?;
    let scratch = Scratch::new("demo", options.keep)?;
    let stage = Stage::set(&built, &scratch)?;
    let service = choose_service(options, &example, jdk.as_ref(), &stage)?;
    progress(&format!("the service: {}", service.name));
    warm_memory();

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

impl Options {
    /// Whether something was asked for by name that no other service can stand in for.
    fn insist(&self) -> bool {
        self.jdk.is_some() || self.service != "spring-boot"
    }
}

/// The JDK, or `None` and the reason said where there is none and the native service may stand in.
fn wanted_jdk(options: &Options, example: &Example) -> Result<Option<Jdk>> {
    match example.jdk(options.jdk.as_deref()) {
        Ok(jdk) => Ok(Some(jdk)),
        Err(error) if options.insist() => Err(error),
        Err(error) => {
            progress(&format!("no Spring Boot here, the native service stands in: {error}"));
            Ok(None)
        }
    }
}

fn choose_service(
    options: &Options,
    example: &Example,
    jdk: Option<&Jdk>,
    stage: &Stage,
) -> Result<Service> {
    let Some(jdk) = jdk else { return service::native(&stage.layout) };
    // A JDK below somebody's home directory cannot be run by another user.
    run_quietly(stage.command_of_user(&jdk.java()).arg("-version")).map_err(|error| {
        error.hint("the service runs as an ordinary user, who must reach the JDK")
    })?;
    match service::example(example, jdk, &stage.scratch) {
        Ok(service) => Ok(service),
        Err(error) if options.insist() => Err(error),
        Err(error) => {
            progress(&format!("no Spring Boot here, the native service stands in: {error}"));
            service::native(&stage.layout)
        }
    }
}

fn tell_the_story(service: &Service, stage: &Stage, restores: usize) -> Result<Figures> {
    let mut figures = Figures {
        account: stage.account(),
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

/// Starts the service as anybody would, measures it, and ends it.
fn cold_start(service: &Service, stage: &Stage, figures: &mut Figures) -> Result<()> {
    let number = figures.cold_ms.len() + 1;
    let what = format!("cold start {number}");
    let mut prober = Prober::prepare(stage, &what, question(service), &service.command)?;
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
    if let Some(options) = &service.run {
        command.extend([stage.layout.tub().into(), "run".into()]);
        command.extend(options.iter().cloned());
        command.push("--".into());
    }
    command.extend(service.command.iter().cloned());
    let mut prober = Prober::prepare(stage, "the original", question(service), &command)?;
    prober.go()?;
    let answer = prober.first_answer()?;
    if service.run.is_some() {
        figures.prepared_cold_ms = Some(answer.ms);
        progress(&format!("tub run -- java -jar …: answered after {:.0} ms", answer.ms));
    }
    let Load { rate, first_200_rate, .. } =
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
    let mut command = stage.command_of_user(&stage.layout.tub());
    command.arg("checkpoint").arg(pid.to_string()).arg("--image").arg(image);
    let start = Instant::now();
    run_quietly(&mut command)?;
    Ok(start.elapsed().as_secs_f64() * 1000.0)
}

fn question(service: &Service) -> Question<'_> {
    Question { path: "/", answer: &service.expect }
}

/// A restore of `image`, which holds `service`.
fn restore_of<'a>(service: &'a Service, image: &'a Path) -> Restore<'a> {
    let manner = Manner::default();
    Restore { question: question(service), image, options: Vec::new(), manner }
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
    let (mut prober, instance) = restore_of(service, image).prepare(stage, name)?;
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
        command = stage.command_of_user(&stage.layout.tub());
    }
    command.arg("train").arg(image).arg("--").arg(&prober);
    run_quietly(command.args(["ask", "--expect", &service.expect])).map(drop)
}

fn at_once(service: &Service, stage: &Stage, image: &Path, figures: &mut Figures) -> Result<()> {
    let mut running = Vec::new();
    for number in 1..=AT_ONCE {
        running.push(restore_of(service, image).prepare(stage, &format!("instance {number}"))?);
    }
    for (prober, _) in &mut running {
        prober.go()?;
    }
    let mut answers = Vec::new();
    for (prober, _) in &mut running {
        answers.push(prober.first_answer()?);
    }
    for (_, instance) in &running {
        figures.instance_pss.push(instance.memory()?.pss_bytes);
    }
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
