//! What was to be reached, and whether it was.
//!
//! In: the measurements. Out: a line for each target.
//! Invariant: a target whose number was not measured is neither met nor missed.
//! Not here: any consequence. A busy machine misses targets, too.

use super::jvm::{Jvm, Kind};
use super::report::Report;
use super::subject::Engine;
use super::sweep::Weighed;
use crate::measure::percentile;
use serde_json::{Value, json};

/// One target.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target {
    pub(super) what: String,
    pub(super) target: &'static str,
    pub(super) found: String,
    pub(super) met: bool,
}

impl Target {
    fn new(what: String, target: &'static str, found: String, met: bool) -> Self {
        Self { what, target, found, met }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "what": self.what, "target": self.target, "found": self.found, "met": self.met })
    }

    pub(super) fn row(&self) -> String {
        let verdict = if self.met { "met   " } else { "MISSED" };
        format!("  {verdict}  {}: {} (target: {})", self.what, self.found, self.target)
    }
}

/// All of which something is known.
pub(super) fn all(report: &Report) -> Vec<Target> {
    let mut targets: Vec<Target> = report.jvms.iter().flat_map(of_jvm).collect();
    targets.extend(of_memory(&report.memory));
    if let Some(ratio) = report.written.as_ref().and_then(|written| written.ratio()) {
        targets.push(Target::new(
            "writing an image".to_owned(),
            "at least half as fast as dd",
            format!("{ratio:.2} of dd's speed"),
            ratio >= 0.5,
        ));
    }
    targets
}

#[expect(clippy::cast_precision_loss, reason = "images are far below 2^53 bytes")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn of_jvm(jvm: &Jvm) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut add = |what: &str, target, found, met| {
        targets.push(Target::new(format!("JDK {}, {what}", jvm.release), target, found, met));
    };
    let p50 = |kind| jvm.series(kind).and_then(|series| series.p50());
    let resumed = |kind| percentile(&jvm.series(kind)?.resumed_ms(), 50);
    if let Some(ms) = resumed(Kind::Restored) {
        add("exec to all threads running", "<= 4 ms", format!("{ms:.1} ms"), ms <= 4.0);
    }
    for (kind, name) in [(Kind::Restored, "restored"), (Kind::Trained, "trained")] {
        let Some(ms) = p50(kind) else { continue };
        if let Some(floor) = p50(Kind::Floor) {
            let (found, met) = (format!("{:.2} times", ms / floor), ms <= 2.0 * floor);
            add(&format!("first answer, {name}, over the floor"), "<= 2 times", found, met);
        }
        if let Some(criu) = p50(Kind::Criu) {
            let (found, met) = (format!("{:.1} times faster", criu / ms), criu >= 5.0 * ms);
            add(&format!("first answer, {name}, against CRIU"), ">= 5 times faster", found, met);
        }
        if let Some((count, ms, pss)) = jvm.at_once(kind) {
            let pss = megabytes(pss);
            let met = ms < 200.0 && pss <= 12.0;
            let found = format!("{ms:.0} ms, {pss:.1} MB");
            let target = "all answer in < 200 ms, <= 12 MB each";
            add(&format!("{count} at once, {name}"), target, found, met);
        }
    }
    let image = megabytes(jvm.image_bytes);
    add("image of a warm service", "<= 50 MB", format!("{image:.1} MB"), image <= 50.0);
    let frozen = jvm.frozen();
    let over: Vec<f64> =
        frozen.iter().map(|&(ms, bytes)| ms - (10.0 + 0.2 * megabytes(bytes))).collect();
    if let Some(over) = percentile(&over, 50) {
        let ms: Vec<f64> = frozen.iter().map(|(ms, _)| *ms).collect();
        let found = format!("{:.1} ms", percentile(&ms, 50).unwrap_or_default());
        add("time frozen", "<= 2 ms for each 10 MB written, and 10 ms", found, over <= 0.0);
    }
    targets
}

/// The largest memory answers as soon as the smallest, more or less.
fn of_memory(memory: &[Weighed]) -> Option<Target> {
    let mut native = memory.iter().filter(|weighed| weighed.engine == Engine::Native);
    let first = native.next()?;
    let last = native.rfind(|weighed| weighed.over_the_smallest().is_some())?;
    let ratio = last.over_the_smallest()?;
    Some(Target::new(
        format!("first answer of {} MiB over that of {} MiB", last.number(), first.number()),
        "<= 1.5 times",
        format!("{ratio:.2} times"),
        ratio <= 1.5,
    ))
}
