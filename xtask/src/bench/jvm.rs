//! A warm service on a stock JVM: how it gets up, against the floor and against CRIU.
//!
//! In: a JDK. Out: series of rises, checkpoints, instances at once.
//! Invariant: all images of ours are taken of one process; CRIU has one of its own, and each floor,
//! started and warmed in the same way. Rises of all kinds are interleaved, so that a machine that
//! slows down slows down all of them.
//!
//! Why a process for each floor: its connector must be opened for the first time after the warm-up,
//! as in a process that gets up. From the second time on it takes a third of that.
//! Not here: how one of them is measured (`subject`).

use super::effort::Effort;
use super::page_cache::forget;
use super::series::{Series, heading, summary};
use super::start::Start;
use super::subject::{Checkpoint, Engine, Original, Place, Source, Then, remove, train};
use crate::failure::Result;
use crate::layout::{copy_tree, root};
use crate::measure::{Question, disk_bytes, percentile};
use crate::process::{progress, run_quietly, step};
use crate::setup::Jdk;
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const QUESTION: Question<'static> = Question { path: "/", answer: "hello" };
/// A heap like that of the tests; and this server sends head and body of an answer apart, so that
/// without the second word each request on an open connection would wait 40 ms for Nagle's algorithm.
const JVM_OPTIONS: [&str; 2] = ["-Xmx256m", "-Dsun.net.httpserver.nodelay=true"];
/// How long an original may take to answer again after a checkpoint.
const GOES_ON: Duration = Duration::from_secs(60);

/// Everything that was measured on one JDK.
#[derive(Debug)]
pub(super) struct Jvm {
    pub(super) release: u32,
    version: String,
    /// By name, in the order of the table.
    series: Vec<(Kind, Series)>,
    /// By engine.
    checkpoints: Vec<(Engine, Vec<Checkpoint>)>,
    pub(super) image_bytes: u64,
    at_once: Vec<AtOnceSeries>,
    /// Why CRIU took no image.
    criu_failed: Option<String>,
}

/// Several instances at once, a few times over.
#[derive(Debug)]
struct AtOnceSeries {
    kind: Kind,
    count: usize,
    all_ms: Vec<f64>,
    rises: Series,
}

/// What a series is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// No checkpoint at all: a process like it stops and starts its connector.
    Floor,
    Restored,
    /// After `tub train`.
    Trained,
    /// With the image on the disk only.
    ColdCache,
    Criu,
}

impl Kind {
    const fn key(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Restored => "restored",
            Self::Trained => "trained",
            Self::ColdCache => "cold_cache",
            Self::Criu => "criu",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Floor => "floor: never checkpointed",
            Self::Restored => "restored",
            Self::Trained => "restored, trained",
            Self::ColdCache => "restored, image not in memory",
            Self::Criu => "restored by CRIU",
        }
    }
}

/// Measures the service on one JDK.
pub(super) fn measure(place: &Place, effort: &Effort, release: u32, jdk: &Jdk) -> Result<Jvm> {
    progress(&format!("JDK {release}: {}", jdk.version));
    let classes = compile(place, release, jdk)?;
    let mut command: Vec<OsString> = vec![jdk.java().into()];
    command.extend(JVM_OPTIONS.map(OsString::from));
    command.extend(["-cp".into(), classes.into()]);
    command.extend(["Service", "8080", "plain"].map(OsString::from));
    let start =
        Start { command: &command, options: &[], question: QUESTION, warm_up: effort.warm_up };
    let mut jvm = Jvm {
        release,
        version: jdk.version.clone(),
        series: Vec::new(),
        checkpoints: Vec::new(),
        image_bytes: 0,
        at_once: Vec::new(),
        criu_failed: None,
    };
    let mut images = Images::new();
    jvm.images_by(place, effort, Engine::Native, &start, &mut images)?;
    if place.engines().contains(&Engine::Criu) {
        let taken = jvm.images_by(place, effort, Engine::Criu, &start, &mut images);
        if let Err(failure) = taken {
            progress(&format!("CRIU: {failure}"));
            jvm.criu_failed = Some(failure.to_string());
        }
    }
    jvm.get_up(place, effort, &start, &images);
    jvm.all_at_once(place, effort, &images);
    for (_, image) in images {
        remove(&image)?;
    }
    Ok(jvm)
}

/// Compiles the service.
fn compile(place: &Place, release: u32, jdk: &Jdk) -> Result<PathBuf> {
    let compiled = place.path(&format!("compiled-{release}"));
    let sources = root().join("tests/e2e/java");
    let mut javac = Command::new(jdk.home.join("bin/javac"));
    javac.arg("-d").arg(&compiled).arg("-sourcepath").arg(&sources);
    run_quietly(javac.arg(sources.join("Service.java")))?;
    // Open to the ordinary user, whatever our umask.
    let classes = place.path(&format!("classes-{release}"));
    copy_tree(&compiled, &classes)?;
    Ok(classes)
}

type Images = Vec<(Kind, PathBuf)>;

impl Jvm {
    /// Starts a service, warms it, takes images of it, and ends it.
    fn images_by(
        &mut self,
        place: &Place,
        effort: &Effort,
        engine: Engine,
        start: &Start<'_>,
        images: &mut Images,
    ) -> Result<()> {
        let name = format!("{} original on {}", engine.name(), self.release);
        let (mut original, _) =
            step(&format!("warming a service with {} requests", effort.warm_up), || {
                start.warm(place, engine, &name)
            })?;
        self.checkpoint(place, effort, engine, &mut original, images)?;
        original.stop()
    }

    /// Takes checkpoints of the process that goes on; keeps an image for each kind of rise.
    fn checkpoint(
        &mut self,
        place: &Place,
        effort: &Effort,
        engine: Engine,
        original: &mut Original,
        images: &mut Images,
    ) -> Result<()> {
        let kept: &[Kind] = match engine {
            Engine::Native => &[Kind::Restored, Kind::Trained, Kind::ColdCache],
            Engine::Criu => &[Kind::Criu],
        };
        let mut taken = Vec::new();
        for number in 0..effort.checkpoints.max(kept.len()) {
            let image = place.path(&format!("{}-{}-{number}", engine.name(), self.release));
            taken.push(original.checkpoint(place, &image, Then::GoOn)?);
            original.prober().must_answer_within(GOES_ON)?;
            let kind = kept.get(number);
            match kind {
                Some(Kind::Restored) => self.image_bytes = disk_bytes(&image)?,
                Some(Kind::Trained) => step("training", || train(place, QUESTION, &image))?,
                Some(_) => {}
                None => remove(&image)?,
            }
            images.extend(kind.map(|kind| (*kind, image)));
        }
        let frozen: Vec<f64> = taken.iter().map(|one| one.ms("frozen_us")).collect();
        progress(&format!(
            "{} checkpoints by {}: frozen for {:.1} ms (median)",
            taken.len(),
            engine.name(),
            percentile(&frozen, 50).unwrap_or_default()
        ));
        self.checkpoints.push((engine, taken));
        Ok(())
    }

    /// One rise of each kind a round; each round begins with another kind.
    fn get_up(&mut self, place: &Place, effort: &Effort, start: &Start<'_>, images: &Images) {
        let kinds: Vec<Kind> =
            std::iter::once(Kind::Floor).chain(images.iter().map(|(kind, _)| *kind)).collect();
        self.series = kinds.iter().map(|kind| (*kind, Series::default())).collect();
        progress(&format!("{} rounds of {} rises", effort.rounds, kinds.len()));
        for round in 0..effort.rounds {
            for turn in 0..kinds.len() {
                let index = (round + turn) % kinds.len();
                let (kind, series) = &mut self.series[index];
                let name = format!("{} {round} on {}", kind.key(), self.release);
                let outcome = match index.checked_sub(1).map(|at| &images[at].1) {
                    None => start.floor(place, &name, 0),
                    Some(image) if *kind == Kind::ColdCache => {
                        forget(&[image]).and_then(|_| source(*kind, image).rise(place, &name))
                    }
                    Some(image) => source(*kind, image).rise(place, &name),
                };
                series.take(&name, outcome);
            }
        }
    }

    fn all_at_once(&mut self, place: &Place, effort: &Effort, images: &Images) {
        let count = effort.at_once;
        for (kind, image) in images.iter().filter(|(kind, _)| *kind != Kind::ColdCache) {
            let mut all_ms = Vec::new();
            let mut rises = Series::default();
            for round in 0..effort.at_once_rounds {
                let name = format!("{} {count} at once {round}", kind.key());
                match source(*kind, image).rises(place, &name, count, 0) {
                    Ok(all) => {
                        all_ms.push(all.all_ms);
                        rises.rises.extend(all.rises);
                    }
                    Err(failure) => rises.take(&name, Err(failure)),
                }
            }
            self.at_once.push(AtOnceSeries { kind: *kind, count, all_ms, rises });
        }
    }

    pub(super) fn series(&self, kind: Kind) -> Option<&Series> {
        self.series.iter().find(|(other, _)| *other == kind).map(|(_, series)| series)
    }

    /// Median until all had answered, and the median and the largest proportional memory of one.
    pub(super) fn at_once(&self, kind: Kind) -> Option<(usize, f64, u64)> {
        let series = self.at_once.iter().find(|series| series.kind == kind)?;
        let memory = series.rises.rises.iter().filter_map(|rise| rise.memory.as_ref());
        let pss = memory.map(|memory| memory.pss_bytes).max()?;
        Some((series.count, percentile(&series.all_ms, 50)?, pss))
    }

    /// Frozen time and bytes written of each checkpoint by our own engine.
    pub(super) fn frozen(&self) -> Vec<(f64, u64)> {
        let native = self.checkpoints.iter().filter(|(engine, _)| *engine == Engine::Native);
        native
            .flat_map(|(_, taken)| taken)
            .map(|one| (one.ms("frozen_us"), one.told["image_bytes"].as_u64().unwrap_or(0)))
            .collect()
    }

    /// Those of our own engine: what CRIU cannot do is told, and no failure of ours.
    pub(super) fn failures(&self) -> usize {
        let one = self.series.iter().map(|(kind, series)| (*kind, series));
        let many = self.at_once.iter().map(|all| (all.kind, &all.rises));
        let ours = one.chain(many).filter(|(kind, _)| *kind != Kind::Criu);
        ours.map(|(_, series)| series.failures.len()).sum()
    }

    pub(super) fn to_json(&self) -> Value {
        let series: Map<String, Value> =
            self.series.iter().map(|(kind, one)| (kind.key().to_owned(), one.to_json())).collect();
        let checkpoints: Map<String, Value> = self
            .checkpoints
            .iter()
            .map(|(engine, taken)| (engine.name().to_owned(), checkpoints_to_json(taken)))
            .collect();
        let at_once: Map<String, Value> = self
            .at_once
            .iter()
            .map(|all| {
                let mut value = all.rises.to_json();
                value["instances"] = json!(all.count);
                value["all_answered_ms"] = summary(&all.all_ms);
                (all.kind.key().to_owned(), value)
            })
            .collect();
        json!({
            "jdk": self.release,
            "version": self.version,
            "options": JVM_OPTIONS,
            "criu_failed": self.criu_failed,
            "image_bytes": self.image_bytes,
            "rises": series,
            "checkpoints": checkpoints,
            "at_once": at_once,
        })
    }

    pub(super) fn to_table(&self) -> String {
        let mut lines =
            vec![format!("  JDK {}: {} {}", self.release, self.version, JVM_OPTIONS.join(" "))];
        lines.push(heading("ms from exec to the first answer"));
        lines.extend(self.series.iter().map(|(kind, series)| series.row(kind.title())));
        for all in &self.at_once {
            lines.push(all.rises.row(&format!("{} at once, {}", all.count, all.kind.title())));
        }
        for (engine, taken) in &self.checkpoints {
            let median = |name| {
                let all: Vec<f64> = taken.iter().map(|one| one.ms(name)).collect();
                percentile(&all, 50).unwrap_or_default()
            };
            let wall: Vec<f64> = taken.iter().map(|one| one.wall_ms).collect();
            lines.push(format!(
                "  checkpoint by {:<20} {:.0} ms in all; frozen {:.1}: freeze {:.1}, collect {:.1}, \
                 write {:.1} (medians of {})",
                engine.name(),
                percentile(&wall, 50).unwrap_or_default(),
                median("frozen_us"),
                median("freeze_us"),
                median("collect_us"),
                median("write_us"),
                taken.len(),
            ));
        }
        lines.join("\n")
    }
}

fn checkpoints_to_json(taken: &[Checkpoint]) -> Value {
    let told: Vec<&Value> = taken.iter().map(|one| &one.told).collect();
    let wall: Vec<f64> = taken.iter().map(|one| one.wall_ms).collect();
    let frozen: Vec<f64> = taken.iter().map(|one| one.ms("frozen_us")).collect();
    json!({ "wall_ms": summary(&wall), "frozen_ms": summary(&frozen), "told": told })
}

fn source(kind: Kind, image: &Path) -> Source<'_> {
    let engine = if kind == Kind::Criu { Engine::Criu } else { Engine::Native };
    Source { engine, image, question: QUESTION, memory: "auto" }
}
