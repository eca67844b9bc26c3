//! Writing an image, against `dd` writing the same bytes to the same disk.
//!
//! In: a process with memory. Out: seconds of both, by turns.
//! Invariant: both end with the bytes on the disk: `tub` syncs file and directory before it renames,
//! `dd` runs with conv=fsync; and both write what is in memory already, a process's or the page
//! cache's.
//! Not here: restores.

use super::effort::Effort;
use super::series::summary;
use super::subject::{Engine, Place, Then, remove};
use super::sweep::Weight;
use crate::failure::{Failure, Result};
use crate::measure::{disk_bytes, percentile};
use crate::process::{progress, run_quietly};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Instant;

/// Both series.
#[derive(Debug)]
pub(super) struct Written {
    mib: u64,
    bytes: u64,
    /// From the first page read until the image stands in its place.
    tub_ms: Vec<f64>,
    /// Of that: until the last page was handed to the kernel.
    handed_ms: Vec<f64>,
    dd_ms: Vec<f64>,
}

/// Takes turns.
pub(super) fn measure(place: &Place, effort: &Effort) -> Result<Written> {
    let weight = Weight { mib: effort.write_mib, threads: 0, mappings: 0 };
    let mib = weight.mib;
    let original = weight.original(place, Engine::Native, "original to be written")?;
    let reference = place.path("written");
    original.checkpoint(place, &reference, Then::GoOn)?;
    let bytes = disk_bytes(&reference)?;
    let mut written =
        Written { mib, bytes, tub_ms: Vec::new(), handed_ms: Vec::new(), dd_ms: Vec::new() };
    for round in 0..effort.write_rounds {
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                let image = place.path("written-again");
                let one = original.checkpoint(place, &image, Then::GoOn)?;
                written.tub_ms.push(one.ms("write_us") + one.ms("finish_us"));
                written.handed_ms.push(one.ms("write_us"));
                remove(&image)?;
            } else {
                written.dd_ms.push(dd(place, &reference.join("pages.tub"))?);
            }
        }
    }
    original.stop()?;
    remove(&reference)?;
    if let Some(ratio) = written.ratio() {
        progress(&format!("writing {mib} MiB: {ratio:.2} of dd's speed"));
    }
    Ok(written)
}

fn dd(place: &Place, source: &Path) -> Result<f64> {
    let copy = place.path("written-by-dd");
    let word = |name: &str, path: &Path| {
        let mut word = OsString::from(name);
        word.push(path);
        word
    };
    let mut command = place.stage.command_of_user(Path::new("dd"));
    command.arg(word("if=", source)).arg(word("of=", &copy));
    command.args(["bs=1M", "conv=fsync", "status=none"]);
    let start = Instant::now();
    run_quietly(&mut command)?;
    let ms = start.elapsed().as_secs_f64() * 1000.0;
    fs::remove_file(&copy).map_err(|error| Failure::io("remove", &copy, &error))?;
    Ok(ms)
}

impl Written {
    /// Our speed over that of dd: of the medians.
    pub(super) fn ratio(&self) -> Option<f64> {
        Some(percentile(&self.dd_ms, 50)? / percentile(&self.tub_ms, 50)?)
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "mib": self.mib,
            "bytes": self.bytes,
            "tub_ms": summary(&self.tub_ms),
            "tub_until_handed_to_the_kernel_ms": summary(&self.handed_ms),
            "dd_ms": summary(&self.dd_ms),
            "speed_over_dd": self.ratio().map(crate::measure::rounded),
        })
    }

    pub(super) fn to_table(&self) -> String {
        #[expect(clippy::cast_precision_loss, reason = "images are far below 2^53 bytes")]
        let megabytes = self.bytes as f64 / 1e6;
        let rate = |samples| percentile(samples, 50).map_or(0.0, |ms| megabytes / ms * 1000.0);
        format!(
            "  writing {megabytes:.0} MB to the disk    tub {:.0} MB/s, dd {:.0} MB/s (medians of {}): {:.2} \
             of dd's speed",
            rate(&self.tub_ms),
            rate(&self.dd_ms),
            self.tub_ms.len(),
            self.ratio().unwrap_or_default(),
        )
    }
}
