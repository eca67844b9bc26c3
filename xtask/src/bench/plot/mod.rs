//! `cargo xtask bench plot`: the README's summary, a page and plots, from the raw numbers of a run.
//!
//! In: a file of `bench/runs`. Out: a block of `README.md`, `bench/RESULTS.md`, `bench/plots/*.svg`.
//! Invariant: nothing is shown that the file does not have, and the block names the file; what is in
//! the checkout is what the file gives, or `cargo xtask tidy` fails.
//! Not here: measuring.

mod charts;
mod run;
mod svg;
mod words;

use crate::failure::{Failure, Result};
use crate::layout::root;
use crate::process::progress;
use run::Run;
use std::fs;
use std::path::{Path, PathBuf};

/// Which run is shown.
#[derive(clap::Args)]
pub(super) struct Options {
    /// A file of bench/runs; otherwise the newest of a full run of the services.
    run: Option<PathBuf>,
}

/// Around the block in the README. The first is followed by the file's name.
const BEGIN: &str = "<!-- bench: begin ";
const CLOSE: &str = " -->\n";
const END: &str = "<!-- bench: end -->";
/// In place of a file's name as long as there is none.
const NONE: &str = "without numbers";

/// Shows a run.
pub(super) fn run(options: &Options) -> Result<()> {
    let path = match &options.run {
        Some(path) => fs::canonicalize(path).map_err(|error| Failure::io("find", path, &error))?,
        None => newest()?,
    };
    let file = path
        .strip_prefix(root())
        .map_err(|_| Failure::new(format!("{}: is not in this checkout", path.display())))?
        .display()
        .to_string();
    let run = Run::read(&path)?;
    if run.effort != "full" || !run.complete || run.failures > 0 {
        progress(&format!("note: {file} is not a complete, full run without failures"));
    }
    let readme = root().join("README.md");
    let text = read(&readme)?;
    let (before, _, after) =
        parts(&text).ok_or_else(|| Failure::new(format!("README.md: has no {BEGIN}… {END}")))?;
    let block = format!("{BEGIN}{file}{CLOSE}{}", block(&run));
    let mut files = pages(&run, &file);
    files.push((PathBuf::from("README.md"), format!("{before}{block}{after}")));
    for (name, text) in files {
        let path = root().join(&name);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(|error| Failure::io("create", dir, &error))?;
        }
        fs::write(&path, text).map_err(|error| Failure::io("write", &path, &error))?;
        progress(&format!("written: {}", name.display()));
    }
    Ok(())
}

/// What of the checkout is not as its numbers are, for `tidy`.
pub(crate) fn check(root: &Path) -> Result<Vec<(String, String)>> {
    let text = read(&root.join("README.md"))?;
    let finding = |name: &str, what: &str| (name.to_owned(), what.to_owned());
    let Some((_, shown, _)) = parts(&text) else {
        return Ok(vec![finding("README.md", "has no block of numbers")]);
    };
    let Some((file, shown)) = shown.strip_prefix(BEGIN).and_then(|rest| rest.split_once(CLOSE))
    else {
        return Ok(vec![finding("README.md", "names no run of its numbers")]);
    };
    if file == NONE {
        return Ok(Vec::new());
    }
    let path = root.join(file);
    if !path.exists() {
        return Ok(vec![finding(
            "README.md",
            &format!("its numbers are of {file}, which is not here"),
        )]);
    }
    let run = Run::read(&path)?;
    let again = format!("is not what {file} gives; run `cargo xtask bench plot {file}`");
    let mut findings = Vec::new();
    if shown != block(&run) {
        findings.push(finding("README.md", &format!("its numbers: {again}")));
    }
    for (name, text) in pages(&run, file) {
        if fs::read_to_string(root.join(&name)).ok().as_deref() != Some(&text) {
            findings.push(finding(&name.display().to_string(), &again));
        }
    }
    Ok(findings)
}

/// What stands in the README between the lines that name the file and its end.
fn block(run: &Run) -> String {
    format!("{}\n![Each start of each service](bench/plots/start.svg)\n\n", words::summary(run))
}

/// All other files.
fn pages(run: &Run, file: &str) -> Vec<(PathBuf, String)> {
    let plots = charts::all(run).into_iter();
    let mut all: Vec<(PathBuf, String)> =
        plots.map(|(name, text)| (Path::new("bench/plots").join(name), text)).collect();
    all.push((PathBuf::from("bench/RESULTS.md"), words::page(run, file)));
    all
}

/// What is before the block, the block with its first marker, and the rest from the last marker on.
fn parts(text: &str) -> Option<(&str, &str, &str)> {
    let begin = text.find(BEGIN)?;
    let end = begin + text[begin..].find(END)?;
    Some((&text[..begin], &text[begin..end], &text[end..]))
}

fn newest() -> Result<PathBuf> {
    let dir = super::report::runs();
    let entries = fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_full = |path: &PathBuf| path.to_string_lossy().ends_with("-services-full.json");
    // Names begin with the date.
    entries.filter(is_full).max().ok_or_else(|| {
        Failure::new(format!("{}: has no full run of the services", dir.display()))
            .hint("`cargo xtask bench` makes one")
    })
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| Failure::io("read", path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn raw(samples: &[f64]) -> Value {
        json!({ "raw": samples })
    }

    fn some_run() -> Run {
        let rises = |ms: f64| {
            json!({
                "failures": [],
                "answer_ms": raw(&[ms, ms * 1.1, ms * 1.3]),
                "first_rates": { "200": raw(&[2000.0]), "1000": raw(&[5000.0]) },
            })
        };
        let mut standby = rises(21.0);
        standby["parked_pss_bytes"] = json!([30_000_000]);
        standby["parked_anonymous_bytes"] = json!([5_000_000]);
        let value = json!({
            "bench": "services",
            "version": 2,
            "effort": "full",
            "started": "2026-01-01T00:00:00Z",
            "command": "cargo xtask bench",
            "machine": { "kernel": "6.1", "processors": 2, "processor": "X", "memory": "1 kB" },
            "failures": 0,
            "complete": true,
            "applications": [
                {
                    "title": "Fast & small 1.2 on OpenJDK 64-Bit Server VM 25",
                    "release": 25,
                    "complete": true,
                    "rises": {
                        "cold": rises(4000.0),
                        "restored": rises(40.0),
                        "standby": standby,
                        "floor": rises(20.0),
                        "criu": { "reason": "CRIU wants root" },
                    },
                    "before_the_checkpoint": { "first_rates": { "200": raw(&[9000.0]) } },
                    "at_once": [{
                        "instances": 10,
                        "all_answered_ms": raw(&[150.0]),
                        "pss_bytes": [8_000_000, 9_000_000, 9_500_000],
                        "pss_bytes_after_load": [20_000_000],
                    }],
                    "image_bytes": [50_000_000],
                    "image_kinds": [{ "java heap": 30_000_000, "stacks": 20_000_000 }],
                    "checkpoints": [{ "wall_ms": 700.0, "told": { "frozen_us": 45_000 } }],
                },
                { "title": "Stopped in the middle", "complete": false },
            ],
        });
        Run::of(&value).expect("it is a run")
    }

    #[test]
    fn the_summary_has_what_the_run_has_and_no_more() {
        let text = words::summary(&some_run());
        let rows: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| Fast & small 1.2, JDK 25 | 4,400 | – | – | **44.0** | 52.0 | 23.1 | 22.0 | 100 % | 50.0 MB | 150 | 9.0 MB |"
            ]
        );
    }

    #[test]
    fn the_page_gives_reasons() {
        let text = words::page(&some_run(), "bench/runs/x.json");
        assert!(text.contains("| restored by CRIU | 0 | none: CRIU wants root |"), "{text}");
        assert!(text.contains("| parked | – | 30.0 MB (anonymous 5.0 MB) | – |"), "{text}");
        assert!(
            text.contains("| 50.0 MB | 700 | 45.0 | java heap 30.0 MB, stacks 20.0 MB |"),
            "{text}"
        );
    }

    #[test]
    fn plots_are_drawings_without_a_background() {
        for (name, text) in charts::all(&some_run()) {
            assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"), "{name}");
            assert!(text.contains("Fast &amp; small 1.2, JDK 25"), "{name}");
            assert!(!text.contains("NaN") && !text.contains("inf"), "{name}: {text}");
        }
    }

    #[test]
    fn the_block_is_found_again() {
        let text = format!("a\n{BEGIN}x{CLOSE}old\n{END}\nb\n");
        let (before, block, after) = parts(&text).unwrap();
        assert_eq!((before, after), ("a\n", "<!-- bench: end -->\nb\n"));
        assert_eq!(block, "<!-- bench: begin x -->\nold\n");
    }

    #[test]
    fn what_is_shown_is_what_was_measured() {
        assert_eq!(check(&root()).unwrap(), Vec::new());
    }
}
