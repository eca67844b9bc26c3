//! One service on one JDK: its images, its rises, ten of it at once.
//!
//! In: a service of the examples, a JDK. Out: series of rises, checkpoints, memory.
//! Invariant: rises of all kinds take turns in one run, so that a machine that slows down slows down
//! all of them. What cannot be had is told with its reason, and stops nothing else.
//! Not here: what is made of the numbers (`outcome`).

use super::effort::Effort;
use super::kind::Kind;
use super::peers;
use crate::bench::series::Series;
use crate::bench::start::Start;
use crate::bench::subject::{Checkpoint, Engine, Place, Rise, Source, Then, remove, train};
use crate::examples::{Example, Installed};
use crate::failure::{Failure, Result};
use crate::measure::{Question, disk_bytes};
use crate::process::{progress, step};
use crate::setup::Jdk;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// A service, built and copied, on a JDK.
#[derive(Debug)]
pub(super) struct App {
    /// Unique within a run, and fit for a file name.
    pub(super) key: String,
    pub(super) example: Example,
    pub(super) installed: Installed,
    pub(super) release: u32,
    pub(super) jdk: Jdk,
    /// Its command line, which starts with `java`.
    pub(super) command: Vec<OsString>,
}

impl App {
    /// Builds it, and copies it.
    pub(super) fn new(place: &Place, example: &Example, release: u32, jdk: &Jdk) -> Result<Self> {
        example.build()?;
        let key = format!("{}-{release}", example.name);
        let dir = place.path(&format!("{key}.files"));
        fs::create_dir(&dir).map_err(|error| Failure::io("create", &dir, &error))?;
        place.stage.give(&dir)?;
        let installed = example.install(&dir)?;
        Ok(Self {
            key,
            example: example.clone(),
            release,
            jdk: jdk.clone(),
            command: example.command(jdk, &installed),
            installed,
        })
    }

    pub(super) fn question(&self) -> Question<'_> {
        Question { path: "/", answer: &self.example.answer }
    }

    fn source<'a>(&'a self, engine: Engine, image: &'a Path) -> Source<'a> {
        Source { engine, image, question: self.question(), memory: "auto" }
    }
}

/// Everything that was measured of one.
#[derive(Debug, Default)]
pub(super) struct Application {
    /// In the order of [`Kind::ALL`]: the rises, or why there are none.
    pub(super) kinds: Vec<(Kind, std::result::Result<Series, String>)>,
    /// From exec to the first answer of each process that was started with `tub run`.
    pub(super) with_agent_ms: Vec<f64>,
    /// Requests per second of each original before its checkpoint.
    pub(super) before_rates: Vec<f64>,
    pub(super) checkpoints: Vec<Checkpoint>,
    pub(super) image_bytes: Vec<u64>,
    pub(super) at_once: AtOnceSeries,
}

/// Several instances of one image at once, a few times over.
#[derive(Debug, Default)]
pub(super) struct AtOnceSeries {
    /// From the first exec until the last had answered.
    pub(super) all_ms: Vec<f64>,
    pub(super) rises: Series,
    /// Proportional memory of each after load.
    pub(super) loaded_pss_bytes: Vec<u64>,
}

/// What rises come from.
struct Sources {
    images: Vec<PathBuf>,
    criu: std::result::Result<PathBuf, String>,
    aot: std::result::Result<Vec<OsString>, String>,
}

impl Application {
    /// Measures.
    pub(super) fn measure(place: &Place, effort: &Effort, app: &App) -> Self {
        let mut this = Self::default();
        let options = app.example.run_options();
        let start = Start {
            command: &app.command,
            options: &options,
            question: app.question(),
            warm_up: effort.warm_up,
        };
        let mut restored = Series::default();
        let mut images = Vec::new();
        for number in 0..effort.images {
            let name = format!("{} original {number}", app.key);
            match this.image(place, effort, &start, &name) {
                Ok(image) => images.push(image),
                // A service that cannot be checkpointed has failed to be restored.
                Err(failure) => restored.take(&name, Err(failure)),
            }
        }
        let sources = Sources {
            images,
            criu: criu_image(place, app, &start),
            aot: peers::aot_cache(place, app, effort),
        };
        this.kinds = vec![
            (Kind::Cold, Ok(Series::default())),
            (Kind::Floor, Ok(Series::default())),
            (Kind::Restored, Ok(restored)),
            (Kind::AotCache, sources.aot.clone().map(|_| Series::default())),
            (Kind::Criu, sources.criu.clone().map(|_| Series::default())),
        ];
        this.take_turns(place, effort, app, &start, &sources);
        if let Some(image) = sources.images.first() {
            this.all_at_once(place, effort, app, image);
        }
        for image in sources.images.iter().chain(sources.criu.as_ref().ok()) {
            if let Err(failure) = remove(image) {
                progress(&failure.to_string());
            }
        }
        this
    }

    /// One that could not even be built.
    pub(super) fn never_built(why: &str) -> Self {
        let mut restored = Series::default();
        restored.failures.push(why.to_owned());
        let kinds = Kind::ALL.map(|kind| match kind {
            Kind::Restored => (kind, Ok(std::mem::take(&mut restored))),
            _ => (kind, Err(why.to_owned())),
        });
        Self { kinds: kinds.into(), ..Self::default() }
    }

    /// Starts and warms a service, and takes the image with which it ends.
    fn image(
        &mut self,
        place: &Place,
        effort: &Effort,
        start: &Start<'_>,
        name: &str,
    ) -> Result<PathBuf> {
        let (mut original, _) =
            step(&format!("{name}: warming it with {} requests", effort.warm_up), || {
                start.warm(place, Engine::Native, name)
            })?;
        self.with_agent_ms.push(original.answer_ms);
        self.before_rates.push(original.prober().load(effort.load)?.rate);
        let image = place.path(&format!("{}.image", name.replace(' ', "-")));
        self.checkpoints.push(original.checkpoint(place, &image, Then::End)?);
        original.stop()?;
        step("training", || train(place, start.question, &image))?;
        self.image_bytes.push(disk_bytes(&image)?);
        Ok(image)
    }

    /// Rises by turns; each round begins with another kind.
    fn take_turns(
        &mut self,
        place: &Place,
        effort: &Effort,
        app: &App,
        start: &Start<'_>,
        sources: &Sources,
    ) {
        progress(&format!("{}: {} rounds", app.key, effort.rounds));
        for round in 0..effort.rounds {
            for turn in 0..self.kinds.len() {
                let index = (round + turn) % self.kinds.len();
                let (kind, series) = &mut self.kinds[index];
                let Ok(series) = series else { continue };
                if !effort.is_due(*kind, round) {
                    continue;
                }
                let name = format!("{} {} {round}", app.key, kind.key());
                let cold =
                    |command| peers::cold(place, app.question(), command, &name, effort.load);
                let restored = |engine, image: &Path| -> Result<Rise> {
                    app.source(engine, image).rise_and_load(place, &name, effort.load)
                };
                let outcome = match (kind, &sources.aot, &sources.criu) {
                    (Kind::Cold, ..) => cold(&app.command),
                    (Kind::Floor, ..) => start.floor(place, &name, effort.load),
                    (Kind::AotCache, Ok(command), _) => cold(command),
                    (Kind::Criu, _, Ok(image)) => restored(Engine::Criu, image),
                    (Kind::Restored, ..) if !sources.images.is_empty() => {
                        restored(Engine::Native, &sources.images[round % sources.images.len()])
                    }
                    _ => continue,
                };
                series.take(&name, outcome);
            }
        }
    }

    fn all_at_once(&mut self, place: &Place, effort: &Effort, app: &App, image: &Path) {
        for round in 0..effort.at_once_rounds {
            let name = format!("{} {} at once {round}", app.key, effort.at_once);
            let source = app.source(Engine::Native, image);
            match source.rises(place, &name, effort.at_once, effort.load) {
                Ok(all) => {
                    self.at_once.all_ms.push(all.all_ms);
                    self.at_once.rises.rises.extend(all.rises);
                    let loaded = all.loaded.iter().map(|memory| memory.pss_bytes);
                    self.at_once.loaded_pss_bytes.extend(loaded);
                }
                Err(failure) => self.at_once.rises.take(&name, Err(failure)),
            }
        }
    }

    pub(super) fn series(&self, kind: Kind) -> Option<&Series> {
        let (_, series) = self.kinds.iter().find(|(other, _)| *other == kind)?;
        series.as_ref().ok()
    }

    /// What went wrong with what is ours.
    pub(super) fn failures(&self) -> usize {
        let ours = self.kinds.iter().filter(|(kind, _)| kind.is_ours());
        let rises = ours.filter_map(|(_, series)| series.as_ref().ok());
        rises.chain([&self.at_once.rises]).map(|series| series.failures.len()).sum()
    }
}

/// An image of CRIU's, or why there is none.
fn criu_image(place: &Place, app: &App, start: &Start<'_>) -> std::result::Result<PathBuf, String> {
    place.criu.clone()?;
    let name = format!("{} original of CRIU", app.key);
    let image = place.path(&format!("{}.criu", app.key));
    let taken = step(&format!("{name}: warming it"), || {
        let (original, _) = start.warm(place, Engine::Criu, &name)?;
        original.checkpoint(place, &image, Then::End)?;
        original.stop()
    });
    taken.map(|()| image).map_err(|failure| {
        progress(&format!("CRIU: {failure}"));
        failure.to_string()
    })
}
