//! `cargo xtask bench`: the example services, restored, against the ways to start them without us.
//!
//! In: `examples/services.toml`, JDKs. Out: a table or one array on the last line of stdout, and a file
//! that is kept.
//! Invariant: one service that cannot be built or measured stops no other, and is in the array; only
//! one that runs on none of the JDKs is not, which is said.
//! Not here: the engine alone (`jvm`, `sweep`).

mod application;
mod effort;
mod kind;
mod outcome;
mod peers;

use super::report::{self, Circumstances};
use super::subject::Place;
use crate::examples::{self, Example};
use crate::failure::{Failure, Result};
use crate::measure::{Scratch, Stage};
use crate::process::progress;
use crate::setup::{self, Jdk};
use crate::{criu, layout};
use application::{App, Application};
use effort::{Effort, FULL, QUICK};
use serde_json::{Value, json};
use std::path::PathBuf;

/// How services are measured.
#[derive(clap::Args)]
pub(super) struct Options {
    /// Fewer rounds, and each service on its newest JDK only: some minutes a service.
    #[arg(long)]
    quick: bool,
    /// Print one array on the last line of stdout instead of the tables.
    #[arg(long)]
    json: bool,
    /// The JDKs to run the services on; otherwise those of examples/services.toml that are installed.
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
    let scratch = Scratch::new("bench", false)?;
    let stage = Stage::set(&built, &scratch)?;
    if !stage.netns {
        let why = "network namespaces are refused here, and instances need one each";
        return Err(Failure::new(why).hint("run it as root"));
    }
    let criu = criu::need_criu().map_err(|failure| failure.to_string());
    let name = format!("{}{}", effort.name, if options.service.is_empty() { "" } else { "-part" });
    let about = Circumstances::now(name, stage.account(), &criu, &stage.scratch)?;
    let place = Place { stage, criu };

    let mut all = Measured::default();
    for example in &chosen {
        let jdks = wanted_jdks(options, effort, example)?;
        if jdks.is_empty() {
            all.skip(&example.name, &format!("needs a JDK of {:?}", example.jdks));
        }
        for (release, jdk) in jdks {
            all.add(&place, effort, example, release, &jdk);
        }
    }

    let mut value = about.to_json("services");
    value["failures"] = json!(all.failures);
    value["skipped"] = json!(all.skipped);
    value["applications"] = json!(all.raw);
    let path = report::keep(&value)?;
    let tables = all.tables.join("\n\n");
    if options.json {
        eprintln!("\n{tables}\n");
        println!("{}", Value::Array(all.objects));
    } else {
        println!("\n{tables}\n");
    }
    progress(&format!("kept: {}", path.display()));
    match all.failures {
        0 => Ok(()),
        count => {
            Err(Failure::new(format!("{count} measurements failed; {} tells why", path.display())))
        }
    }
}

/// All applications, in three forms.
#[derive(Default)]
struct Measured {
    objects: Vec<Value>,
    raw: Vec<Value>,
    tables: Vec<String>,
    /// Services that run on none of the JDKs.
    skipped: Vec<String>,
    failures: usize,
}

impl Measured {
    fn skip(&mut self, service: &str, why: &str) {
        progress(&format!("skipped: {service}: {why}"));
        self.skipped.push(format!("{service}: {why}"));
        self.tables.push(format!("  skipped: {service}: {why}"));
    }

    fn add(&mut self, place: &Place, effort: &Effort, example: &Example, release: u32, jdk: &Jdk) {
        progress(&format!("{} on JDK {release}", example.name));
        let set_up = App::new(place, example, release, jdk).and_then(|app| {
            let title = format!("{} on {}", example.title()?, jdk.version);
            Ok((app.installed.sha256()?, title, app))
        });
        let (sha256, title, measured) = match set_up {
            Ok((sha256, title, app)) => {
                (json!(sha256), title, Application::measure(place, effort, &app))
            }
            Err(failure) => {
                progress(&failure.to_string());
                let why = failure.to_string();
                (Value::Null, example.name.clone(), Application::never_built(&why))
            }
        };
        self.failures += measured.failures();
        self.objects.push(outcome::object(&example.name, release, &measured));
        let mut raw = outcome::raw(&measured);
        raw["service"] = json!(example.name);
        raw["jdk"] = json!(jdk.version);
        raw["sha256"] = sha256;
        self.raw.push(raw);
        self.tables.push(outcome::table(&title, &measured));
    }
}

/// The JDKs for a service: those named that it runs on, or those installed, the newest first.
fn wanted_jdks(options: &Options, effort: &Effort, example: &Example) -> Result<Vec<(u32, Jdk)>> {
    if !options.jdk.is_empty() {
        let mut named = super::jdks_at(&options.jdk)?;
        named.retain(|(release, _)| example.jdks.iter().any(|oldest| oldest <= release));
        return Ok(named);
    }
    let mut jdks = setup::jdks(&example.jdks);
    jdks.sort_by_key(|(release, _)| std::cmp::Reverse(*release));
    jdks.truncate(effort.jdks_max);
    Ok(jdks)
}
