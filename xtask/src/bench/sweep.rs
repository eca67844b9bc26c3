//! What a restore costs against what the process carries: memory, threads, mappings.
//!
//! In: weights. Out: series of rises for each, by each engine.
//! Invariant: an image is removed before the next one is taken, but for the smallest of our own:
//! rises from it are taken in turns with those of each larger one, so that a machine that slows down
//! in between is not taken for the price of a weight. Where memory or disk would not suffice, nothing
//! is tried, and the reason is kept.
//! Not here: services that people run (`jvm`).

use super::effort::Effort;
use super::series::{Series, heading};
use super::subject::{Checkpoint, Engine, Original, Place, Source, Then, remove};
use crate::failure::{Failure, Result};
use crate::measure::{Question, disk_bytes};
use crate::process::{progress, run_quietly};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `tub-ballast` carries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weight {
    pub(super) mib: u64,
    pub(super) threads: u64,
    pub(super) mappings: u64,
}

impl Weight {
    /// What it answers when all of it is there.
    fn answer(self) -> String {
        format!("{} MiB, {} threads, {} mappings", self.mib, self.threads, self.mappings)
    }

    pub(super) fn command(self, place: &Place) -> Vec<OsString> {
        let mut words = vec![place.stage.layout.ballast().into()];
        for (option, number) in
            [("--mib", self.mib), ("--threads", self.threads), ("--mappings", self.mappings)]
        {
            words.extend([option.into(), number.to_string().into()]);
        }
        words
    }

    /// Starts it.
    pub(super) fn original(self, place: &Place, engine: Engine, name: &str) -> Result<Original> {
        let answer = self.answer();
        let question = Question { path: "/", answer: &answer };
        Original::start(place, engine, name, question, &self.command(place))
    }
}

/// What was measured of one weight by one engine.
#[derive(Debug)]
pub(super) struct Weighed {
    /// Which number is being varied.
    pub(super) axis: Axis,
    pub(super) weight: Weight,
    pub(super) engine: Engine,
    /// Or why there is nothing.
    pub(super) outcome: std::result::Result<Outcome, String>,
}

#[derive(Debug)]
pub(super) struct Outcome {
    checkpoint: Checkpoint,
    /// On the disk.
    pub(super) image_bytes: u64,
    pub(super) series: Series,
    /// Of the smallest weight, in turns with these.
    smallest: Option<Series>,
    /// After a look at every page, where that was asked for.
    looked_at_all: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    Memory,
    Threads,
    Mappings,
}

impl Axis {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Threads => "threads",
            Self::Mappings => "mappings",
        }
    }

    const fn weight(self, number: u64) -> Weight {
        let (mib, threads, mappings) = match self {
            Self::Memory => (number, 0, 0),
            Self::Threads => (10, number, 0),
            Self::Mappings => (10, 0, number),
        };
        Weight { mib, threads, mappings }
    }
}

impl Weighed {
    /// The number that is varied.
    pub(super) const fn number(&self) -> u64 {
        match self.axis {
            Axis::Memory => self.weight.mib,
            Axis::Threads => self.weight.threads,
            Axis::Mappings => self.weight.mappings,
        }
    }

    pub(super) fn p50(&self) -> Option<f64> {
        self.outcome.as_ref().ok()?.series.p50()
    }

    /// Over the median of the smallest weight, which was measured in turns with it.
    pub(super) fn over_the_smallest(&self) -> Option<f64> {
        let outcome = self.outcome.as_ref().ok()?;
        Some(outcome.series.p50()? / outcome.smallest.as_ref()?.p50()?)
    }

    /// Those of our own engine: what CRIU cannot do is told, and no failure of ours.
    pub(super) fn failures(&self) -> usize {
        match (&self.outcome, self.engine) {
            (Ok(outcome), Engine::Native) => {
                let smallest = outcome.smallest.as_ref().map_or(0, |series| series.failures.len());
                outcome.series.failures.len() + smallest
            }
            _ => 0,
        }
    }

    fn to_json(&self) -> Value {
        let weight = self.weight;
        let mut value = json!({
            "engine": self.engine.name(),
            "mib": weight.mib,
            "threads": weight.threads,
            "mappings": weight.mappings,
        });
        match &self.outcome {
            Ok(outcome) => {
                value["image_bytes"] = json!(outcome.image_bytes);
                value["checkpoint_wall_ms"] = json!(outcome.checkpoint.wall_ms);
                value["checkpoint"] = outcome.checkpoint.told.clone();
                value["looked_at_all"] = json!(outcome.looked_at_all);
                value["rises"] = outcome.series.to_json();
                value["smallest_in_turns"] = json!(outcome.smallest.as_ref().map(Series::to_json));
            }
            Err(reason) => value["skipped"] = json!(reason),
        }
        value
    }
}

/// Takes the ballast of each size along one axis through a checkpoint.
pub(super) fn measure(
    place: &Place,
    effort: &Effort,
    axis: Axis,
    numbers: &[u64],
) -> Result<Vec<Weighed>> {
    let mut all = Vec::new();
    let mut smallest = None;
    for &number in numbers {
        for engine in place.engines() {
            let weight = axis.weight(number);
            let smallest = if engine == Engine::Native { &mut smallest } else { &mut None };
            let outcome = match obstacle(place, effort, engine, weight)? {
                Some(reason) => Err(reason),
                None => match weigh(place, effort, axis, engine, weight, smallest) {
                    Ok(outcome) => Ok(outcome),
                    Err(failure) if engine == Engine::Criu => Err(failure.to_string()),
                    Err(failure) => return Err(failure),
                },
            };
            let weighed = Weighed { axis, weight, engine, outcome };
            progress(&format!(
                "{} {number}, {}: {}",
                axis.name(),
                engine.name(),
                match (&weighed.outcome, weighed.p50()) {
                    (Err(reason), _) => format!("skipped: {reason}"),
                    (_, Some(ms)) => format!("answers after {ms:.1} ms (median)"),
                    (_, None) => "no answer".to_owned(),
                }
            ));
            all.push(weighed);
        }
    }
    if let Some((_, image)) = smallest {
        remove(&image)?;
    }
    Ok(all)
}

/// Measures one weight; `smallest` are weight and image of the first one of that engine.
fn weigh(
    place: &Place,
    effort: &Effort,
    axis: Axis,
    engine: Engine,
    weight: Weight,
    smallest: &mut Option<(Weight, PathBuf)>,
) -> Result<Outcome> {
    let name = format!("{} {} {}", axis.name(), axis_number(axis, weight), engine.name());
    let image = place.path(&name.replace(' ', "-"));
    let original = weight.original(place, engine, &format!("{name} original"))?;
    let checkpoint = original.checkpoint(place, &image, Then::End)?;
    original.stop()?;
    let answer = weight.answer();
    let small_answer = smallest.as_ref().map(|(weight, _)| weight.answer()).unwrap_or_default();
    let source = |image, answer| Source {
        engine,
        image,
        question: Question { path: "/", answer },
        memory: if engine == Engine::Native { "lazy" } else { "auto" },
    };
    let mut series = Series::default();
    let mut of_smallest = smallest.as_ref().map(|_| Series::default());
    for round in 0..effort.weigh_rounds {
        let name = format!("{name} {round}");
        series.take(&name, source(&image, &answer).rise(place, &name));
        if let (Some((_, image)), Some(series)) = (smallest.as_ref(), &mut of_smallest) {
            let name = format!("{name} smallest");
            series.take(&name, source(image, &small_answer).rise(place, &name));
        }
    }
    if effort.look_at_all {
        let question = Question { path: "/all", answer: &answer };
        let source = Source { question, ..source(&image, &answer) };
        source.rise(place, &format!("{name} all"))?;
    }
    let image_bytes = disk_bytes(&image)?;
    if smallest.is_none() && engine == Engine::Native {
        *smallest = Some((weight, image));
    } else {
        remove(&image)?;
    }
    let looked_at_all = effort.look_at_all;
    Ok(Outcome { checkpoint, image_bytes, series, smallest: of_smallest, looked_at_all })
}

const fn axis_number(axis: Axis, weight: Weight) -> u64 {
    match axis {
        Axis::Memory => weight.mib,
        Axis::Threads => weight.threads,
        Axis::Mappings => weight.mappings,
    }
}

/// Why a weight is not tried.
fn obstacle(
    place: &Place,
    effort: &Effort,
    engine: Engine,
    weight: Weight,
) -> Result<Option<String>> {
    if engine == Engine::Criu && weight.mib > effort.criu_mib_max {
        let most = effort.criu_mib_max;
        return Ok(Some(format!("CRIU reads all of it, so it is measured up to {most} MiB")));
    }
    // The original, and the image in the page cache; CRIU's copy comes after the original.
    let (memory, wanted) = (available_mib()?, weight.mib * 2 + 1024);
    if memory < wanted {
        return Ok(Some(format!("{wanted} MiB of memory wanted, {memory} available")));
    }
    let (disk, wanted) = (free_mib(&place.stage.scratch)?, weight.mib + 2048);
    if disk < wanted {
        return Ok(Some(format!("{wanted} MiB of disk wanted, {disk} free")));
    }
    Ok(None)
}

/// `MemAvailable` (proc_meminfo(5)).
fn available_mib() -> Result<u64> {
    let path = Path::new("/proc/meminfo");
    let text = fs::read_to_string(path).map_err(|error| Failure::io("read", path, &error))?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .map(|kib| kib / 1024)
        .ok_or_else(|| Failure::new("/proc/meminfo: has no MemAvailable"))
}

/// Free space of the file system of `dir`.
pub(super) fn free_mib(dir: &Path) -> Result<u64> {
    let mut df = Command::new("df");
    let text = run_quietly(df.args(["--output=avail", "--block-size=1M"]).arg(dir))?;
    text.lines()
        .nth(1)
        .and_then(|line| line.trim().parse().ok())
        .ok_or_else(|| Failure::new(format!("df {}: not understood: {text}", dir.display())))
}

/// All of one axis.
pub(super) fn to_json(all: &[Weighed]) -> Value {
    all.iter().map(Weighed::to_json).collect()
}

pub(super) fn to_table(axis: Axis, all: &[Weighed]) -> String {
    let unit = match axis {
        Axis::Memory => "MiB of private memory",
        Axis::Threads => "threads",
        Axis::Mappings => "mappings",
    };
    let mut lines = vec![heading(&format!("{unit}: ms to the answer"))];
    for weighed in all {
        let title = format!("{}, {}", weighed.number(), weighed.engine.name());
        lines.push(match &weighed.outcome {
            Ok(outcome) => {
                let row = outcome.series.row(&title);
                match weighed.over_the_smallest() {
                    Some(ratio) => format!("{row}   {ratio:.2} times the smallest, in turns"),
                    None => row,
                }
            }
            Err(reason) => format!("  {title:<34} skipped: {reason}"),
        });
    }
    lines.join("\n")
}
