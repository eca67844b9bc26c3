//! `cargo xtask bench`: numbers, with everything that is needed to judge them.
//!
//! In: a machine. Out: tables, or one JSON object on the last line of stdout, and a file that is
//! kept under `bench/runs`.
//! Invariant: no number is a verdict on a change: `--check` demands only what no busy machine can
//! turn wrong.
//! Not here: how one start is measured (`bench/`, `measure`). The method: `bench/README.md`.

mod effort;
mod jvm;
mod page_cache;
pub(crate) mod plot;
mod report;
mod series;
mod services;
mod start;
mod subject;
mod sweep;
mod targets;
mod write;

use crate::failure::{Failure, Result};
use crate::layout::Layout;
use crate::measure::{Scratch, Stage, remove_leftovers, warm_memory};
use crate::process::{progress, step};
use crate::setup::{self, Jdk};
use crate::{criu, layout};
use effort::{CHECK, Effort, FULL, QUICK};
use report::{Circumstances, Report};
use serde_json::Value;
use std::path::{Path, PathBuf};
use subject::{Engine, Place};
use sweep::Axis;

/// What is measured: the example services, unless something else is named.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Bench {
    #[command(subcommand)]
    part: Option<Subject>,
    #[command(flatten)]
    services: services::Options,
}

#[derive(clap::Subcommand)]
enum Subject {
    /// The engine: how soon instances answer, how long checkpoints take, beside CRIU.
    Engine(Options),
    /// Show a kept run: the README's summary, bench/RESULTS.md and bench/plots are made from it.
    Plot(plot::Options),
    /// What it costs to be ready: starts and throughput with the agent and without.
    Ready(services::ready::Options),
}

/// How the engine is measured.
#[derive(clap::Args)]
struct Options {
    /// Fewer rounds and sizes: a few minutes instead of half an hour.
    #[arg(long, conflicts_with = "check")]
    quick: bool,
    /// Only see that everything works and prints; fails for wrong answers, never for times.
    #[arg(long)]
    check: bool,
    /// Print one JSON object on the last line of stdout instead of the tables.
    #[arg(long)]
    json: bool,
    /// Measure only these parts.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART")]
    only: Vec<Part>,
    /// The JDKs to run the service on; otherwise 17 and 25, where they are installed.
    #[arg(long, value_name = "JAVA_HOME")]
    jdk: Vec<PathBuf>,
    /// Leave CRIU out.
    #[arg(long)]
    no_criu: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Jvm,
    Memory,
    Threads,
    Mappings,
    Write,
}

/// Measures.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    let options = match &bench.part {
        Some(Subject::Engine(options)) => options,
        Some(Subject::Plot(options)) => return plot::run(options),
        Some(Subject::Ready(options)) => return services::ready::run(options),
        None => return services::run(&bench.services),
    };
    let effort = match (options.quick, options.check) {
        (_, true) => &CHECK,
        (true, _) => &QUICK,
        _ => &FULL,
    };
    engine(options, effort)
}

/// The short form that the continuous integration runs.
pub(crate) fn check() -> Result<()> {
    let options = Options {
        quick: false,
        check: true,
        json: false,
        only: Vec::new(),
        jdk: Vec::new(),
        no_criu: false,
    };
    engine(&options, &CHECK)?;
    services::ready::run(&services::ready::Options::check())
}

fn engine(options: &Options, effort: &Effort) -> Result<()> {
    setup::need_linker()?;
    let mut report = Report::default();
    let jdks = wanted_jdks(options, effort, &mut report)?;
    let built = layout::build(jdks.first().map(|(_, jdk)| jdk.home.as_path()))?;
    let Some((_scratch, stage)) = set_stage(&built, options.check)? else { return Ok(()) };
    let criu = if options.no_criu {
        Err("--no-criu".to_owned())
    } else {
        criu::need_criu().map_err(|failure| failure.to_string())
    };
    if let Err(reason) = &criu {
        report.skipped.push(format!("CRIU: {reason}"));
    }
    let part = if options.only.is_empty() { "" } else { "-part" };
    let name = format!("{}{part}", effort.name);
    let about = Circumstances::now(name, stage.account(), &criu, &stage.scratch)?;
    let place = Place { stage, criu };

    let wants = |part| options.only.is_empty() || options.only.contains(&part);
    if wants(Part::Jvm) {
        for (release, jdk) in &jdks {
            let measured = jvm::measure(&place, effort, *release, jdk).map(Some);
            let jvm = report.part(&format!("JDK {release}"), measured);
            report.jvms.extend(jvm);
        }
    }
    let mut sweep = |part, axis: Axis, numbers: &[u64]| {
        if !wants(part) {
            return Vec::new();
        }
        report.part(axis.name(), sweep::measure(&place, effort, axis, numbers))
    };
    let memory = sweep(Part::Memory, Axis::Memory, effort.memory);
    let threads = sweep(Part::Threads, Axis::Threads, effort.threads);
    let mappings = sweep(Part::Mappings, Axis::Mappings, effort.mappings);
    (report.memory, report.threads, report.mappings) = (memory, threads, mappings);
    if wants(Part::Write) {
        report.written = report.part("write", write::measure(&place, effort).map(Some));
    }

    let value = report.to_json(&about);
    let path = report::keep(&value)?;
    tell(options.json, &report.to_table(), &value);
    progress(&format!("kept: {}", path.display()));
    if options.check {
        step("what no busy machine can turn wrong", || demand(&report))?;
    }
    none_failed(report.failures(), "measurements", &path)
}

/// Where and as whom things are measured, once memory is warm. The directory goes with its value. `None`,
/// said so, where a check cannot run.
fn set_stage(built: &Layout, check: bool) -> Result<Option<(Scratch, Stage)>> {
    remove_leftovers("bench");
    let scratch = Scratch::new("bench", false)?;
    let stage = Stage::set(built, &scratch)?;
    if !stage.netns {
        let why = "network namespaces are refused here, and instances need one each";
        if check {
            progress(&format!("skipped: {why}"));
            return Ok(None);
        }
        return Err(Failure::new(why).hint("run it as root"));
    }
    if !check {
        warm_memory();
    }
    Ok(Some((scratch, stage)))
}

/// The table, or the object with the table beside it.
fn tell(json: bool, table: &str, value: &Value) {
    if json {
        eprintln!("\n{table}\n");
        println!("{value}");
    } else {
        println!("\n{table}\n");
    }
}

fn none_failed(failures: usize, what: &str, kept: &Path) -> Result<()> {
    if failures == 0 {
        return Ok(());
    }
    Err(Failure::new(format!("{failures} {what} failed; {} tells why", kept.display())))
}

fn wanted_jdks(options: &Options, effort: &Effort, report: &mut Report) -> Result<Vec<(u32, Jdk)>> {
    if !options.jdk.is_empty() {
        return jdks_at(&options.jdk);
    }
    let mut jdks = setup::jdks(effort.jdks);
    if jdks.is_empty() {
        match setup::need_jdk(None) {
            Ok(_) => jdks = setup::jdks(effort.jdks),
            Err(failure) => progress(&format!("no JVM is measured: {failure}")),
        }
    }
    for release in effort.jdks {
        if jdks.iter().all(|(found, _)| found != release) {
            report.skipped.push(format!("JDK {release}: not installed"));
        }
    }
    jdks.truncate(effort.jdks_max);
    Ok(jdks)
}

/// The JDKs that lie there, with their feature releases.
fn jdks_at(homes: &[PathBuf]) -> Result<Vec<(u32, Jdk)>> {
    let named = homes.iter().map(|home| {
        let release = Jdk::release(home)
            .ok_or_else(|| Failure::new(format!("JDK {}: has no release file", home.display())))?;
        Ok((release, Jdk::at(home)?))
    });
    named.collect()
}

/// Holds on any machine that works: everything answered (a failure is one already), and a lazy
/// restore has not mapped in what it was not asked for.
fn demand(report: &Report) -> Result<()> {
    for weighed in report.memory.iter().filter(|weighed| weighed.engine == Engine::Native) {
        let Ok(outcome) = &weighed.outcome else { continue };
        for memory in outcome.series.rises.iter().filter_map(|rise| rise.memory) {
            // Beside the pages of the answer there are those of the program itself.
            let allowed = outcome.image_bytes / 4 + (8 << 20);
            if memory.rss_bytes > allowed {
                return Err(Failure::new(format!(
                    "{} MiB restored lazily: {} bytes are mapped in after one answer, of {} saved",
                    weighed.number(),
                    memory.rss_bytes,
                    outcome.image_bytes,
                )));
            }
        }
    }
    let measured = report.memory.iter().filter(|weighed| weighed.p50().is_some()).count();
    if !report.memory.is_empty() && measured == 0 {
        return Err(Failure::new("nothing was measured of memory"));
    }
    Ok(())
}
