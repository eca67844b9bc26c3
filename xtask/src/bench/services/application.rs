//! One service on one JDK: its images, its rises, ten of it at once.
//!
//! In: a service of the examples, a JDK. Out: series of rises, checkpoints, memory.
//! Invariant: rises of all kinds take turns in one run, so that a machine that slows down slows down
//! all of them. What cannot be had is told with its reason, and stops nothing else.
//! Not here: what is made of the numbers (`outcome`).

use super::density::AtOnce;
use super::effort::Effort;
use super::kind::Kind;
use super::peers;
use crate::bench::page_cache::{Forgotten, forget};
use crate::bench::series::Series;
use crate::bench::start::Start;
use crate::bench::subject::{Checkpoint, Engine, Place, Rise, Source, Then, remove, train};
use crate::examples::{Example, Installed};
use crate::failure::{Failure, Result};
use crate::measure::{Load, Question, disk_bytes};
use crate::process::{progress, run_quietly, step};
use crate::setup::Jdk;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::Instant;

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
    /// A load on a new connection to each original, when it was warm, before its checkpoint.
    pub(super) before: Vec<Load>,
    pub(super) checkpoints: Vec<Checkpoint>,
    /// Of each image: what it takes on the disk, and what of that is for what.
    pub(super) image_bytes: Vec<u64>,
    pub(super) image_kinds: Vec<BTreeMap<String, u64>>,
    pub(super) at_once: Vec<AtOnce>,
    /// What was forgotten before each rise with files from the disk.
    pub(super) forgotten: Vec<(Kind, Forgotten)>,
    /// Rounds that are over; turns that the machine was too busy for.
    pub(super) rounds: usize,
    pub(super) spared_turns: usize,
    /// Whether everything was measured that was to be.
    pub(super) complete: bool,
}

/// An image, and the same before it was trained.
#[derive(Debug)]
struct Image {
    trained: PathBuf,
    untrained: PathBuf,
}

/// What rises come from.
struct Sources {
    images: Vec<Image>,
    criu: std::result::Result<PathBuf, String>,
    aot: std::result::Result<Vec<OsString>, String>,
}

/// One measurement under way.
struct Run<'a> {
    place: &'a Place,
    effort: &'a Effort,
    app: &'a App,
    start: Start<'a>,
    began: Instant,
}

impl Application {
    /// Measures. `keep` is told now and then what there is so far.
    pub(super) fn measure(
        place: &Place,
        effort: &Effort,
        app: &App,
        keep: &mut dyn FnMut(&Self),
    ) -> Self {
        let mut this = Self::default();
        let options = app.example.run_options();
        let start = Start {
            command: &app.command,
            options: &options,
            question: app.question(),
            warm_up: effort.warm_up,
        };
        let run = Run { place, effort, app, start, began: Instant::now() };
        let mut restored = Series::default();
        let mut images = Vec::new();
        for number in 0..effort.images {
            let name = format!("{} original {number}", app.key);
            match this.image(&run, &name) {
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
        let mut restored = Some(restored);
        this.kinds = Kind::ALL
            .into_iter()
            .map(|kind| {
                let series = match kind {
                    Kind::AotCache => sources.aot.clone().map(|_| Series::default()),
                    Kind::Criu => sources.criu.clone().map(|_| Series::default()),
                    Kind::Standby | Kind::StandbyByte => {
                        app.example.can_stand_by().map(|()| Series::default())
                    }
                    Kind::Restored => Ok(restored.take().unwrap_or_default()),
                    _ => Ok(Series::default()),
                };
                (kind, series)
            })
            .collect();
        keep(&this);
        this.take_turns(&run, &sources, keep);
        if let Some(image) = sources.images.first() {
            let source = app.source(Engine::Native, &image.trained);
            for &often in effort.at_once {
                let at_once = AtOnce::measure(place, &source, &app.key, often, effort.load);
                this.at_once.push(at_once);
                keep(&this);
            }
        }
        let images = sources.images.iter().flat_map(|image| [&image.trained, &image.untrained]);
        for image in images.chain(sources.criu.as_ref().ok()) {
            if let Err(failure) = remove(image) {
                progress(&failure.to_string());
            }
        }
        this.complete = true;
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
        Self { kinds: kinds.into(), complete: true, ..Self::default() }
    }

    /// Starts and warms a service, and takes the image with which it ends.
    fn image(&mut self, run: &Run<'_>, name: &str) -> Result<Image> {
        let Run { place, effort, start, .. } = run;
        let (mut original, _) =
            step(&format!("{name}: warming it with {} requests", effort.warm_up), || {
                start.warm(place, Engine::Native, name)
            })?;
        self.with_agent_ms.push(original.answer_ms);
        self.before.push(original.prober().load(effort.long_load)?);
        let trained = place.path(&format!("{}.image", name.replace(' ', "-")));
        self.checkpoints.push(original.checkpoint(place, &trained, Then::End)?);
        original.stop()?;
        let untrained = trained.with_extension("untrained");
        twin(&trained, &untrained)?;
        step("training", || train(place, start.question, &trained))?;
        self.image_bytes.push(disk_bytes(&trained)?);
        self.image_kinds.push(kinds_of(place, &trained)?);
        Ok(Image { trained, untrained })
    }

    /// Rises by turns; each round begins with another kind.
    fn take_turns(&mut self, run: &Run<'_>, sources: &Sources, keep: &mut dyn FnMut(&Self)) {
        let Run { effort, app, .. } = run;
        progress(&format!("{}: {} rounds", app.key, effort.rounds));
        for round in 0..effort.rounds {
            let mut told = String::new();
            for turn in 0..self.kinds.len() {
                let index = (round + turn) % self.kinds.len();
                let (kind, Ok(_)) = &self.kinds[index] else { continue };
                let kind = *kind;
                if !effort.is_due(kind, round) {
                    continue;
                }
                if Effort::is_slow(kind) && run.began.elapsed() > effort.patience {
                    self.spared_turns += 1;
                    continue;
                }
                let name = format!("{} {} {round}", app.key, kind.key());
                let Some(outcome) = self.turn(run, sources, kind, round, &name) else { continue };
                let ms = outcome
                    .as_ref()
                    .map_or("failed".to_owned(), |rise| format!("{:.1}", rise.answer_ms));
                // Writing to a String cannot fail.
                let _ = write!(told, ", {} {ms}", kind.key());
                if let (_, Ok(series)) = &mut self.kinds[index] {
                    series.take(&name, outcome);
                }
            }
            self.rounds = round + 1;
            progress(&format!("{}: round {}{told}", app.key, round + 1));
            keep(self);
        }
        if self.spared_turns > 0 {
            progress(&format!(
                "{}: {} of the slow rises were left out, since the machine is busy",
                app.key, self.spared_turns
            ));
        }
    }

    /// One rise of a kind, where there is something to rise from.
    fn turn(
        &mut self,
        run: &Run<'_>,
        sources: &Sources,
        kind: Kind,
        round: usize,
        name: &str,
    ) -> Option<Result<Rise>> {
        let Run { place, app, start, .. } = run;
        let load = run.effort.load_after(kind, round);
        let cold = |command: &[OsString]| peers::cold(place, app.question(), command, name, load);
        let restored =
            |engine, image: &Path| app.source(engine, image).rise_and_load(place, name, load);
        let native = |image: &Path| restored(Engine::Native, image);
        let image = round.checked_rem(sources.images.len()).map(|at| &sources.images[at]);
        Some(match kind {
            Kind::Cold => cold(&app.command),
            Kind::Floor => start.floor(place, name, load),
            Kind::AotCache => cold(sources.aot.as_deref().ok()?),
            Kind::Criu => restored(Engine::Criu, sources.criu.as_deref().ok()?),
            Kind::Restored => native(&image?.trained),
            Kind::Standby | Kind::StandbyByte => {
                let source = app.source(Engine::Native, &image?.trained);
                source.released(place, name, kind == Kind::StandbyByte, load)
            }
            Kind::Untrained => native(&image?.untrained),
            Kind::ColdUncached => {
                let paths = [app.jdk.home.as_path(), app.installed.files()];
                self.forget(kind, &paths).and_then(|()| cold(&app.command))
            }
            Kind::Uncached => {
                let image = &image?.trained;
                self.forget(kind, &[image]).and_then(|()| native(image))
            }
            Kind::AllUncached => {
                let image = &image?.trained;
                let tub = &place.stage.layout.dir;
                let paths = [image, tub, app.jdk.home.as_path(), app.installed.files()];
                self.forget(kind, &paths).and_then(|()| native(image))
            }
        })
    }

    fn forget(&mut self, kind: Kind, paths: &[&Path]) -> Result<()> {
        self.forgotten.push((kind, forget(paths)?));
        Ok(())
    }

    pub(super) fn series(&self, kind: Kind) -> Option<&Series> {
        let (_, series) = self.kinds.iter().find(|(other, _)| *other == kind)?;
        series.as_ref().ok()
    }

    /// What went wrong with what is ours.
    pub(super) fn failures(&self) -> usize {
        let ours = self.kinds.iter().filter(|(kind, _)| kind.is_ours());
        let rises = ours.filter_map(|(_, series)| series.as_ref().ok());
        rises
            .chain(self.at_once.iter().map(|at_once| &at_once.rises))
            .map(|series| series.failures.len())
            .sum()
    }
}

/// The files of an image under a second name. They are the same on the disk and in memory; what
/// `tub train` adds to the one is not in the other.
fn twin(image: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to).map_err(|error| Failure::io("create", to, &error))?;
    let own = fs::metadata(image).map_err(|error| Failure::io("stat", image, &error))?;
    fs::set_permissions(to, own.permissions())
        .map_err(|error| Failure::io("change mode of", to, &error))?;
    chown(to, Some(own.uid()), Some(own.gid()))
        .map_err(|error| Failure::io("give away", to, &error))?;
    let entries = fs::read_dir(image).map_err(|error| Failure::io("list", image, &error))?;
    for entry in entries.flatten() {
        let path = entry.path();
        fs::hard_link(&path, to.join(entry.file_name()))
            .map_err(|error| Failure::io("link", &path, &error))?;
    }
    Ok(())
}

/// What takes room in an image, by what it is for, as `tub inspect` tells.
fn kinds_of(place: &Place, image: &Path) -> Result<BTreeMap<String, u64>> {
    let mut command = place.stage.command_of_user(&place.stage.layout.tub());
    let text = run_quietly(command.arg("inspect").arg(image).arg("--json"))?;
    let told: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::new(format!("tub inspect --json: {error}")))?;
    let mut kinds = BTreeMap::new();
    for task in told["tasks"].as_array().into_iter().flatten() {
        for (kind, sum) in task["memory"].as_object().into_iter().flatten() {
            let stored = sum["stored_bytes"].as_u64().unwrap_or_default();
            *kinds.entry(kind.clone()).or_default() += stored;
        }
    }
    kinds.retain(|_, bytes| *bytes > 0);
    Ok(kinds)
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
