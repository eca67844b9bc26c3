//! `cargo xtask bench ready`: what it costs to be ready for a checkpoint that never comes.
//!
//! In: a service of the examples, JDKs. Out: times to the first answer and rates, with the agent and without,
//! their ratios, and a file that is kept.
//! Invariant: the two take turns, so that a machine that slows down slows down both; archives of
//! classes are made as their documentation asks, without us.
//! Not here: checkpoints.

use super::application::App;
use super::peers::{self, Archive};
use crate::bench::report::{self, Circumstances};
use crate::bench::series::{median_bounds, summary};
use crate::bench::subject::Place;
use crate::bench::{none_failed, set_stage, tell};
use crate::examples;
use crate::failure::Result;
use crate::layout;
use crate::measure::{Prober, percentile, rounded};
use crate::process::progress;
use crate::setup::{self, Jdk};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::PathBuf;

/// How the cost is measured.
#[derive(clap::Args)]
pub(in crate::bench) struct Options {
    /// Fewer starts and requests: some minutes.
    #[arg(long, conflicts_with = "check")]
    quick: bool,
    /// Only see that everything works and prints; fails for wrong answers, never for times.
    #[arg(long)]
    check: bool,
    /// So many starts of each kind and no load: for a narrower answer to what a start costs.
    #[arg(long, value_name = "N", conflicts_with_all = ["quick", "check"])]
    starts: Option<usize>,
    /// Print one JSON object on the last line of stdout instead of the table.
    #[arg(long)]
    json: bool,
    /// The JDKs to run on; otherwise those of examples/services.toml that are installed.
    #[arg(long, value_name = "JAVA_HOME")]
    jdk: Vec<PathBuf>,
    /// The service of examples/services.toml.
    #[arg(long, value_name = "NAME", default_value = "spring-boot")]
    service: String,
}

impl Options {
    /// The short form that the continuous integration runs.
    pub(in crate::bench) fn check() -> Self {
        let service = "spring-boot".to_owned();
        Self { quick: false, check: true, starts: None, json: false, jdk: Vec::new(), service }
    }

    fn wish(&self) -> Wish {
        if let Some(rounds) = self.starts {
            return Wish { name: "starts", rounds, load: 0, with_archives: true };
        }
        match (self.quick, self.check) {
            (_, true) => Wish { name: "check", rounds: 2, load: 500, with_archives: false },
            (true, _) => Wish { name: "quick", rounds: 10, load: 10_000, with_archives: true },
            _ => Wish { name: "full", rounds: 30, load: 40_000, with_archives: true },
        }
    }
}

/// Requests of the run that makes an archive.
const WARM_UP: u32 = 1000;

/// How often, and how much.
struct Wish {
    name: &'static str,
    /// Starts of each kind.
    rounds: usize,
    /// Requests after each; 0 for none, and no rate.
    load: u32,
    with_archives: bool,
}

/// One start.
struct Sample {
    answer_ms: f64,
    /// Requests per second over the second half of the load, when most is compiled.
    rate: Option<f64>,
}

impl Sample {
    fn answer_ms(&self) -> Option<f64> {
        Some(self.answer_ms)
    }

    fn rate(&self) -> Option<f64> {
        self.rate
    }
}

/// A command line, started with us and without.
struct Pair {
    kind: &'static str,
    release: u32,
    jdk: String,
    command: Vec<OsString>,
    without: Vec<Sample>,
    with: Vec<Sample>,
    failures: Vec<String>,
}

/// Measures.
pub(in crate::bench) fn run(options: &Options) -> Result<()> {
    setup::need_linker()?;
    let wish = options.wish();
    let example = examples::named(&options.service)?;
    let first = setup::need_jdk(options.jdk.first().map(PathBuf::as_path))?;
    let built = layout::build(Some(&first.home))?;
    let Some((_scratch, stage)) = set_stage(&built, options.check)? else { return Ok(()) };
    let criu = Err("not measured".to_owned());
    let about = Circumstances::now(wish.name.to_owned(), stage.account(), &criu, &stage.scratch)?;
    let place = Place { stage, criu };
    let mut pairs = Vec::new();
    for (release, jdk) in super::jdks_for(&options.jdk, &example)? {
        let app = match App::new(&place, &example, release, &jdk) {
            Ok(app) => app,
            Err(failure) if options.check => {
                progress(&format!("skipped: {}: {failure}", example.name));
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        let mut of_jdk = command_lines(&place, &app, &jdk, &wish);
        let options: Vec<OsString> = app.example.run_options();
        for round in 0..wish.rounds {
            for pair in &mut of_jdk {
                pair.round(&place, &app, &options, round, wish.load);
            }
        }
        pairs.extend(of_jdk);
    }
    let failures: usize = pairs.iter().map(|pair| pair.failures.len()).sum();
    let mut value = about.to_json("ready");
    value["service"] = json!(example.name);
    value["failures"] = json!(failures);
    value["pairs"] = pairs.iter().map(Pair::to_json).collect();
    let path = report::keep(&value)?;
    let rows: Vec<String> = pairs.iter().map(Pair::row).collect();
    let table = format!("{}\n{}", heading(), rows.join("\n"));
    tell(options.json, &table, &value);
    progress(&format!("kept: {}", path.display()));
    none_failed(failures, "starts", &path)
}

/// As anybody would start it, and with the archive of classes that the JDK has for it.
fn command_lines(place: &Place, app: &App, jdk: &Jdk, wish: &Wish) -> Vec<Pair> {
    let pair = |kind, command| Pair {
        kind,
        release: app.release,
        jdk: jdk.version.clone(),
        command,
        without: Vec::new(),
        with: Vec::new(),
        failures: Vec::new(),
    };
    let mut pairs = vec![pair("as it is", app.command.clone())];
    if wish.with_archives {
        let (kind, archive) = if app.release < peers::AOT_SINCE {
            ("CDS archive", Archive::Dynamic)
        } else {
            ("AOT cache", Archive::Aot)
        };
        match peers::with_archive(place, app, WARM_UP, archive) {
            Ok(command) => pairs.push(pair(kind, command)),
            Err(failure) => progress(&format!("{kind}: none: {failure}")),
        }
    }
    pairs
}

impl Pair {
    /// A start of each, the one that comes first changing from round to round.
    fn round(&mut self, place: &Place, app: &App, options: &[OsString], round: usize, load: u32) {
        for turn in 0..2 {
            let with = (round + turn) % 2 == 1;
            let name = format!("{} {} {round} {with}", app.key, self.kind);
            let mut words: Vec<OsString> = Vec::new();
            if with {
                words.extend([place.stage.layout.tub().into(), "run".into()]);
                words.extend_from_slice(options);
                words.push("--".into());
            }
            words.extend_from_slice(&self.command);
            match start(place, app, &name, &words, load) {
                Ok(sample) if with => self.with.push(sample),
                Ok(sample) => self.without.push(sample),
                Err(failure) => {
                    progress(&format!("{name}: failed: {failure}"));
                    self.failures.push(failure.to_string());
                }
            }
        }
    }

    fn ratio(&self, of: fn(&Sample) -> Option<f64>) -> Option<f64> {
        let median =
            |samples: &[Sample]| percentile(&samples.iter().filter_map(of).collect::<Vec<_>>(), 50);
        Some(rounded(median(&self.with)? / median(&self.without)?))
    }

    /// The median of each round's ratio, since what slows a machine down for a while slows both starts of a
    /// round, and its bounds: it lies outside of them in one of twenty runs. `None` where a start has failed,
    /// so that it is not known which belong together.
    fn ratio_of_pairs(&self, of: fn(&Sample) -> Option<f64>) -> Option<(f64, [f64; 2])> {
        let pairs = self.with.iter().zip(&self.without).filter(|_| self.failures.is_empty());
        let ratios = pairs.filter_map(|(with, without)| Some(of(with)? / of(without)?));
        let ratios: Vec<f64> = ratios.collect();
        let [low, high] = median_bounds(&ratios)?;
        Some((rounded(percentile(&ratios, 50)?), [rounded(low), rounded(high)]))
    }

    fn to_json(&self) -> Value {
        let of = |samples: &[Sample], of: fn(&Sample) -> Option<f64>| {
            summary(&samples.iter().filter_map(of).collect::<Vec<_>>())
        };
        let both = |value: fn(&Sample) -> Option<f64>| {
            json!({
                "without": of(&self.without, value),
                "with": of(&self.with, value),
                "ratio_of_medians": self.ratio(value),
                "ratio_of_pairs": self.ratio_of_pairs(value).map(
                    |(median, bounds)| json!({ "median": median, "bounds": bounds }),
                ),
            })
        };
        json!({
            "kind": self.kind,
            "jdk": self.jdk,
            "answer_ms": both(Sample::answer_ms),
            "rate": both(Sample::rate),
            "failures": self.failures,
        })
    }

    fn row(&self) -> String {
        let middle = |samples: &[Sample], of: fn(&Sample) -> Option<f64>| {
            let all: Vec<f64> = samples.iter().filter_map(of).collect();
            percentile(&all, 50).map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"))
        };
        let ratio = |of| match (self.ratio_of_pairs(of), self.ratio(of)) {
            (Some((median, [low, high])), _) => format!("{median:.3} ({low:.2} to {high:.2})"),
            (None, Some(ratio)) => format!("{ratio:.3}"),
            (None, None) => "-".to_owned(),
        };
        let [ms, rate]: [fn(&Sample) -> Option<f64>; 2] = [Sample::answer_ms, Sample::rate];
        format!(
            "  {:<28}{:>4}{:>7}{:>10}{:>10}{:>23}{:>10}{:>10}{:>23}",
            format!("JDK {}, {}", self.release, self.kind),
            self.with.len(),
            self.failures.len(),
            middle(&self.without, ms),
            middle(&self.with, ms),
            ratio(ms),
            middle(&self.without, rate),
            middle(&self.with, rate),
            ratio(rate),
        )
    }
}

fn heading() -> String {
    format!(
        "  {:<28}{:>4}{:>7}{:>10}{:>10}{:>23}{:>10}{:>10}{:>23}\n  {:<28}{:>4}{:>7}{:>10}{:>10}{:>23}{:>10}{:>10}{:>23}",
        "",
        "",
        "",
        "ms to the",
        "answer",
        "",
        "requests",
        "per s",
        "",
        "medians",
        "n",
        "failed",
        "without",
        "with",
        "ratio",
        "without",
        "with",
        "ratio",
    )
}

fn start(place: &Place, app: &App, name: &str, command: &[OsString], load: u32) -> Result<Sample> {
    let mut prober = Prober::prepare(&place.stage, name, app.question(), command)?;
    prober.go()?;
    let answer_ms = prober.first_answer()?.ms;
    let rate = if load == 0 {
        None
    } else {
        prober.load(load / 2)?;
        Some(prober.load(load / 2)?.rate)
    };
    prober.stop()?;
    Ok(Sample { answer_ms, rate })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_medians() {
        let samples = |all: &[f64]| {
            all.iter().map(|&answer_ms| Sample { answer_ms, rate: Some(100.0) }).collect::<Vec<_>>()
        };
        let pair = Pair {
            kind: "as it is",
            release: 17,
            jdk: "OpenJDK 64-Bit Server VM 17.0.1+2-a-very-long-name".into(),
            command: Vec::new(),
            without: samples(&[100.0, 900.0, 50.0]),
            with: samples(&[105.0, 104.0, 200.0]),
            failures: Vec::new(),
        };
        let value = pair.to_json();
        assert_eq!(value["answer_ms"]["ratio_of_medians"], 1.05);
        assert_eq!(value["rate"]["ratio_of_medians"], 1.0);
        let row = pair.row();
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(row.find("3").unwrap(), heading().lines().nth(1).unwrap().find("n ").unwrap());
        assert_eq!(words[5..], ["3", "0", "100", "105", "1.050", "100", "100", "1.000"]);
        let pair = Pair {
            without: samples(&[100.0, 200.0, 400.0, 100.0, 200.0, 400.0]),
            with: samples(&[110.0, 210.0, 404.0, 102.0, 206.0, 416.0]),
            ..pair
        };
        let of_pairs = &pair.to_json()["answer_ms"]["ratio_of_pairs"];
        assert_eq!(of_pairs["bounds"], json!([1.01, 1.1]));
        assert!(pair.row().contains("1.030 (1.01 to 1.10)"), "{}", pair.row());
    }
}
