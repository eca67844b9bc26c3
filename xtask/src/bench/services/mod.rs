//! `cargo xtask bench`: the example services, restored, against the ways to start them without us.
//!
//! In: `examples/services.toml`, JDKs. Out: a table or one array on the last line of stdout, and a file
//! that is kept.
//! Invariant: one service that cannot be built or measured stops no other, and is in the array; only
//! one that runs on none of the JDKs is not, which is said.
//! Not here: the engine alone (`jvm`, `sweep`).

mod application;
mod density;
mod effort;
mod kind;
mod outcome;
mod peers;
pub(super) mod ready;

use super::report::{self, Circumstances};
use super::subject::Place;
use super::{none_failed, set_stage};
use crate::examples::{self, Example};
use crate::failure::Result;
use crate::process::progress;
use crate::setup::{self, Jdk};
use crate::{criu, layout};
use application::{App, Application};
use effort::{Effort, FULL, QUICK};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;

/// How services are measured.
#[derive(clap::Args)]
pub(super) struct Options {
    /// Fewer rounds: about two minutes a service instead of five.
    #[arg(long)]
    quick: bool,
    /// Print one array on the last line of stdout instead of the tables.
    #[arg(long)]
    json: bool,
    /// The JDKs to run the services on; otherwise the newest of examples/services.toml that is
    /// installed, for each.
    #[arg(long, value_name = "JAVA_HOME")]
    jdk: Vec<PathBuf>,
    /// Measure only these services of examples/services.toml.
    #[arg(long, value_name = "NAME")]
    service: Vec<String>,
}

/// Measures.
pub(super) fn run(options: &Options) -> Result<()> {
    setup::need_linker()?;
    let effort = if options.quick { &QUICK } else { &FULL };
    let chosen = if options.service.is_empty() {
        examples::all()?
    } else {
        options.service.iter().map(|name| examples::named(name)).collect::<Result<_>>()?
    };
    let agent = setup::need_jdk(options.jdk.first().map(PathBuf::as_path))?;
    let built = layout::build(Some(&agent.home))?;
    let Some((_scratch, stage)) = set_stage(&built, false)? else { return Ok(()) };
    let criu = criu::need_criu().map_err(|failure| failure.to_string());
    let about = Circumstances::now(effort.name.into(), stage.account(), &criu, &stage.scratch)?;
    let place = Place { stage, criu };

    let path = report::new_file("services", effort.name)?;
    let mut all = Measured::new(about, path, options.json);
    let mut due = Vec::new();
    for example in &chosen {
        let jdks = wanted_jdks(options, effort, example)?;
        if jdks.is_empty() {
            all.skip(&example.name, &format!("needs a JDK of {:?}", example.jdks));
        }
        due.extend(jdks.into_iter().map(|(release, jdk)| (example, release, jdk)));
    }
    let began = Instant::now();
    for (done, (example, release, jdk)) in due.iter().enumerate() {
        progress(&time_left(effort, began, done, due.len()));
        all.add(&place, effort, example, *release, jdk)?;
    }
    all.keep(&[], true)?;

    if options.json {
        println!("{}", Value::Array(all.objects));
    }
    progress(&format!("kept: {}", all.path.display()));
    none_failed(all.failures, "measurements", &all.path)
}

/// How far it has come, and how long the rest takes: as what is done took, or as usual.
fn time_left(effort: &Effort, began: Instant, done: usize, of: usize) -> String {
    let each = match u32::try_from(done) {
        Ok(count @ 1..) => began.elapsed() / count,
        _ => effort.usual,
    };
    let left = each * u32::try_from(of - done).unwrap_or(u32::MAX);
    let minutes = left.as_secs().div_ceil(60);
    format!("{done} of {of} services measured; the rest takes about {minutes} minutes")
}

/// All applications.
struct Measured {
    about: Circumstances,
    /// Where it is kept.
    path: PathBuf,
    objects: Vec<Value>,
    raw: Vec<Value>,
    /// Whether stdout belongs to the array alone.
    json: bool,
    /// Services that run on none of the JDKs.
    skipped: Vec<String>,
    failures: usize,
}

impl Measured {
    const fn new(about: Circumstances, path: PathBuf, json: bool) -> Self {
        Self {
            about,
            path,
            objects: Vec::new(),
            raw: Vec::new(),
            json,
            skipped: Vec::new(),
            failures: 0,
        }
    }

    /// Writes down what there is, and `more` of what is under way.
    fn keep(&self, more: &[Value], complete: bool) -> Result<()> {
        let mut value = self.about.to_json("services");
        value["failures"] = json!(self.failures);
        value["skipped"] = json!(self.skipped);
        value["complete"] = json!(complete);
        value["applications"] = self.raw.iter().chain(more).cloned().collect();
        report::write(&self.path, &value)
    }

    fn skip(&mut self, service: &str, why: &str) {
        progress(&format!("skipped: {service}: {why}"));
        self.skipped.push(format!("{service}: {why}"));
    }

    fn add(
        &mut self,
        place: &Place,
        effort: &Effort,
        example: &Example,
        release: u32,
        jdk: &Jdk,
    ) -> Result<()> {
        progress(&format!("{} on JDK {release}", example.name));
        let set_up = App::new(place, example, release, jdk).and_then(|app| {
            let title = format!("{} on {}", example.title()?, jdk.version);
            Ok((app.installed.sha256()?, title, app))
        });
        let raw_of = |measured: &Application, title: &str, sha256: Option<&str>| {
            let mut raw = outcome::raw(measured);
            raw["service"] = json!(example.name);
            raw["title"] = json!(title);
            raw["jdk"] = json!(jdk.version);
            raw["release"] = json!(release);
            raw["sha256"] = json!(sha256);
            raw
        };
        let (raw, title, measured) = match set_up {
            Ok((sha256, title, app)) => {
                let mut keep = |so_far: &Application| {
                    let raw = raw_of(so_far, &title, Some(&sha256));
                    if let Err(failure) = self.keep(&[raw], false) {
                        progress(&failure.to_string());
                    }
                };
                let measured = Application::measure(place, effort, &app, &mut keep);
                (raw_of(&measured, &title, Some(&sha256)), title, measured)
            }
            Err(failure) => {
                progress(&failure.to_string());
                let why = failure.to_string();
                let measured = Application::never_built(&why);
                (raw_of(&measured, &example.name, None), example.name.clone(), measured)
            }
        };
        self.failures += measured.failures();
        self.objects.push(outcome::object(&example.name, release, &measured));
        self.raw.push(raw);
        let table = outcome::table(&title, &measured);
        if self.json {
            eprintln!("\n{table}\n");
        } else {
            println!("\n{table}\n");
        }
        self.keep(&[], false)
    }
}

/// The JDKs for a service: those named that it runs on, or those installed, the newest first.
fn wanted_jdks(options: &Options, effort: &Effort, example: &Example) -> Result<Vec<(u32, Jdk)>> {
    let mut jdks = jdks_for(&options.jdk, example)?;
    if options.jdk.is_empty() {
        jdks.truncate(effort.jdks_max);
    }
    Ok(jdks)
}

/// The same without a limit.
fn jdks_for(wished: &[PathBuf], example: &Example) -> Result<Vec<(u32, Jdk)>> {
    if !wished.is_empty() {
        let mut named = super::jdks_at(wished)?;
        named.retain(|(release, _)| example.jdks.iter().any(|oldest| oldest <= release));
        return Ok(named);
    }
    let mut jdks = setup::jdks(&example.jdks);
    jdks.sort_by_key(|(release, _)| std::cmp::Reverse(*release));
    Ok(jdks)
}
