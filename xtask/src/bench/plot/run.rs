//! A kept run of the services, as far as it is shown.
//!
//! In: a file of `bench/runs`. Out: numbers with names.
//! Invariant: what the file does not have is absent here, never zero; nothing is measured or guessed.
//! Not here: how it is shown (`charts`, `words`).

use crate::failure::{Failure, Result};
use crate::measure::percentile;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) effort: String,
    pub(super) started: String,
    pub(super) command: String,
    pub(super) commit: String,
    /// Kernel, processors, memory.
    pub(super) machine: String,
    /// Before and after.
    pub(super) load: [String; 2],
    pub(super) complete: bool,
    pub(super) failures: u64,
    pub(super) applications: Vec<Application>,
}

/// A service on a JDK.
#[derive(Debug)]
pub(super) struct Application {
    pub(super) title: String,
    pub(super) release: u64,
    kinds: BTreeMap<String, Rises>,
    /// Medians of requests per second over so many first ones, before the checkpoint.
    pub(super) before: BTreeMap<u64, f64>,
    pub(super) at_once: Vec<AtOnce>,
    pub(super) image_bytes: Option<f64>,
    /// Of the first image, the largest first.
    pub(super) image_kinds: Vec<(String, f64)>,
    pub(super) checkpoint_ms: Option<f64>,
    pub(super) frozen_ms: Option<f64>,
}

/// Rises of one kind.
#[derive(Debug, Default)]
pub(super) struct Rises {
    /// Why there are none.
    pub(super) reason: Option<String>,
    pub(super) failures: usize,
    /// From exec to the first correct answer.
    pub(super) answer_ms: Vec<f64>,
    /// As `Application::before`.
    pub(super) rates: BTreeMap<u64, f64>,
    /// Medians of what each took as long as it was parked.
    pub(super) parked_pss_bytes: Option<f64>,
    pub(super) parked_anonymous_bytes: Option<f64>,
}

impl Rises {
    pub(super) fn at(&self, percent: usize) -> Option<f64> {
        percentile(&self.answer_ms, percent)
    }
}

/// Instances that lived at once.
#[derive(Debug)]
pub(super) struct AtOnce {
    pub(super) instances: u64,
    /// Medians: until all had answered, memory of one before and after load.
    pub(super) all_ms: Option<f64>,
    pub(super) pss_bytes: Option<f64>,
    pub(super) loaded_pss_bytes: Option<f64>,
}

impl Run {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|error| Failure::io("read", path, &error))?;
        let value = serde_json::from_str(&text)
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        Self::of(&value).ok_or_else(|| {
            Failure::new(format!("{}: is no run of the services, or too old", path.display()))
                .hint("`cargo xtask bench` makes one")
        })
    }

    pub(super) fn of(value: &Value) -> Option<Self> {
        let words = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
        let machine = &value["machine"];
        if value["bench"] != "services" || value["version"].as_u64()? < 2 {
            return None;
        }
        // One that was stopped in the middle of a service has part of its numbers.
        let applications = value["applications"].as_array()?.iter();
        let applications = applications.filter(|one| one["complete"] == true);
        Some(Self {
            effort: words(&value["effort"]),
            started: words(&value["started"]),
            command: words(&value["command"]),
            commit: words(&machine["commit"]),
            machine: format!(
                "Linux {}, {} × {}, {} of memory",
                words(&machine["kernel"]),
                machine["processors"],
                words(&machine["processor"]),
                words(&machine["memory"]),
            ),
            load: [words(&machine["load_average"]), words(&value["load_average_at_the_end"])],
            complete: value["complete"] == true,
            failures: value["failures"].as_u64()?,
            applications: applications.map(Application::of).collect(),
        })
    }
}

impl Application {
    fn of(value: &Value) -> Self {
        let kinds = value["rises"].as_object().into_iter().flatten();
        let checkpoints = || value["checkpoints"].as_array().into_iter().flatten();
        let wall: Vec<f64> =
            checkpoints().filter_map(|checkpoint| checkpoint["wall_ms"].as_f64()).collect();
        let frozen: Vec<f64> = checkpoints()
            .filter_map(|checkpoint| Some(checkpoint["told"]["frozen_us"].as_f64()? / 1000.0))
            .collect();
        let image = value["image_kinds"][0].as_object().into_iter().flatten();
        let mut image_kinds: Vec<(String, f64)> =
            image.filter_map(|(kind, bytes)| Some((kind.clone(), bytes.as_f64()?))).collect();
        image_kinds.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        Self {
            title: value["title"].as_str().unwrap_or("unknown").to_owned(),
            release: value["release"].as_u64().unwrap_or_default(),
            kinds: kinds.map(|(kind, rises)| (kind.clone(), rises_of(rises))).collect(),
            before: medians(&value["before_the_checkpoint"]["first_rates"]),
            at_once: value["at_once"].as_array().into_iter().flatten().map(at_once_of).collect(),
            image_bytes: median(&value["image_bytes"]),
            image_kinds,
            checkpoint_ms: percentile(&wall, 50),
            frozen_ms: percentile(&frozen, 50),
        }
    }

    /// The service without the JDK's own number, which `title` ends with.
    pub(super) fn service(&self) -> &str {
        self.title.split_once(" on OpenJDK").map_or(self.title.as_str(), |(service, _)| service)
    }

    /// The rises of a kind, if any were to be had.
    pub(super) fn rises(&self, kind: &str) -> Option<&Rises> {
        self.kinds.get(kind)
    }

    pub(super) fn p50(&self, kind: &str) -> Option<f64> {
        self.rises(kind)?.at(50)
    }

    /// First requests per second: of one kind, over those of another.
    pub(super) fn ratio(&self, kind: &str, to: &str, first: u64) -> Option<f64> {
        let rate = |kind| self.rises(kind)?.rates.get(&first).copied();
        Some(rate(kind)? / rate(to)?)
    }
}

fn rises_of(value: &Value) -> Rises {
    Rises {
        reason: value["reason"].as_str().map(str::to_owned),
        failures: value["failures"].as_array().map_or(0, Vec::len),
        answer_ms: numbers(&value["answer_ms"]["raw"]),
        rates: medians(&value["first_rates"]),
        parked_pss_bytes: median(&value["parked_pss_bytes"]),
        parked_anonymous_bytes: median(&value["parked_anonymous_bytes"]),
    }
}

fn at_once_of(value: &Value) -> AtOnce {
    AtOnce {
        instances: value["instances"].as_u64().unwrap_or_default(),
        all_ms: median(&value["all_answered_ms"]["raw"]),
        pss_bytes: median(&value["pss_bytes"]),
        loaded_pss_bytes: median(&value["pss_bytes_after_load"]),
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}

fn median(value: &Value) -> Option<f64> {
    percentile(&numbers(value), 50)
}

/// From `{"200": {"raw": […]}}`: the median of each.
fn medians(value: &Value) -> BTreeMap<u64, f64> {
    let entries = value.as_object().into_iter().flatten();
    entries.filter_map(|(of, rates)| Some((of.parse().ok()?, median(&rates["raw"])?))).collect()
}
