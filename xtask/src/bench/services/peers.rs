//! Starts without an image: as anybody would, and with the JDK's ahead-of-time cache.
//!
//! In: a command line. Out: a rise, or a command line with a cache.
//! Invariant: the cache is made as its documentation asks, from a run that was used like the original.
//! Not here: CRIU, which is an engine like ours (`subject`).

use super::application::App;
use super::effort::Effort;
use crate::bench::subject::{Place, Rise};
use crate::failure::{Failure, Result};
use crate::measure::{Manner, Prober, Question};
use crate::process::{progress, run_quietly, step};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// The first JDK whose cache is made by one option (JEP 514) and holds profiles of methods (JEP 515).
pub(super) const AOT_SINCE: u32 = 25;
/// At its end the training run starts another JVM, which writes the cache.
const TO_WRITE_IT: Duration = Duration::from_secs(120);
/// Seconds that taking a jar apart may need.
const TO_TAKE_APART: &str = "120";

/// Starts it, measures it, puts load on it, and ends it.
pub(super) fn cold(
    place: &Place,
    question: Question<'_>,
    command: &[OsString],
    name: &str,
    requests: u32,
) -> Result<Rise> {
    let mut prober = Prober::prepare(&place.stage, name, question, command)?;
    prober.go()?;
    let mut rise = Rise::after(prober.first_answer()?.ms);
    if requests > 0 {
        rise.load = Some(prober.load(requests)?);
    }
    prober.stop()?;
    Ok(rise)
}

/// The command line with a cache, or why there is none.
pub(super) fn aot_cache(
    place: &Place,
    app: &App,
    effort: &Effort,
) -> std::result::Result<Vec<OsString>, String> {
    if app.release < AOT_SINCE {
        return Err(format!("JDK {}: the one-step AOT cache came with {AOT_SINCE}", app.release));
    }
    with_archive(place, app, effort.warm_up, Archive::Aot).map_err(|failure| {
        progress(&format!("AOT cache: {failure}"));
        failure.to_string()
    })
}

/// What a JVM keeps classes in from one start to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Archive {
    /// An ahead-of-time cache.
    Aot,
    /// A dynamic archive of class data (JEP 350).
    Dynamic,
}

impl Archive {
    /// The option that makes it, the one that uses it, the end of its name.
    const fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Aot => ("-XX:AOTCacheOutput=", "-XX:AOTCache=", "aot"),
            Self::Dynamic => ("-XX:ArchiveClassesAtExit=", "-XX:SharedArchiveFile=", "jsa"),
        }
    }
}

/// The command line with an archive, which a run that was used makes at its end.
pub(super) fn with_archive(
    place: &Place,
    app: &App,
    warm_up: u32,
    archive: Archive,
) -> Result<Vec<OsString>> {
    let what = format!("{}: training for {archive:?}", app.key);
    step(&what, || train(place, app, warm_up, archive))
}

fn train(place: &Place, app: &App, warm_up: u32, archive: Archive) -> Result<Vec<OsString>> {
    let (make, utilize, ending) = archive.words();
    let unpacked = place.path(&format!("{}.unpacked", app.key));
    let (java, rest) = match app.example.taken_apart(&app.installed, &unpacked) {
        None => (app.jdk.java(), app.command[1..].to_vec()),
        Some((arguments, parts)) => {
            let mut command = place.stage.command_of_user(Path::new("timeout"));
            run_quietly(command.arg(TO_TAKE_APART).arg(app.jdk.java()).args(arguments))?;
            (app.jdk.java(), app.example.command(&app.jdk, &parts)[1..].to_vec())
        }
    };
    let cache = place.path(&format!("{}.{ending}", app.key));
    let with = |option: &str| {
        let mut word = OsString::from(option);
        word.push(&cache);
        let mut words = vec![java.clone().into(), word];
        words.extend_from_slice(&rest);
        words
    };
    let mut prober = Prober::prepare_in(
        Manner { grace: TO_WRITE_IT, ..Manner::default() },
        &place.stage,
        &format!("{} training", app.key),
        app.question(),
        &with(make),
    )?;
    prober.go()?;
    prober.first_answer()?;
    prober.load(warm_up)?;
    let ended = prober.stop()?;
    if !cache.exists() {
        return Err(Failure::new(format!(
            "the training run wrote no cache; it ended with {ended}"
        )));
    }
    Ok(with(utilize))
}
