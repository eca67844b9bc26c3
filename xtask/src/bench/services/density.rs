//! Several instances of one image at once.
//!
//! In: an image, how many. Out: the time until all have answered, the memory of each.
//! Invariant: all live until the last has answered and was looked at; none gets a load before.
//! Not here: one after another (`application`).

use crate::bench::series::{Series, summary};
use crate::bench::subject::{Place, Source};
use crate::process::progress;
use serde_json::{Value, json};
use std::fs;

/// What an instance may come to need under load, beside what it shares with the others.
const AT_MOST_EACH: u64 = 200 << 20;

/// So many at once, a few times over.
#[derive(Debug, Default)]
pub(super) struct AtOnce {
    pub(super) count: usize,
    /// From the first exec until the last had answered.
    pub(super) all_ms: Vec<f64>,
    /// Their memory is that after the first answer.
    pub(super) rises: Series,
    /// Proportional memory of each after load.
    pub(super) loaded_pss_bytes: Vec<u64>,
    /// Why there are none.
    pub(super) skipped: Option<String>,
}

impl AtOnce {
    /// `count` at once, `rounds` times, with `requests` for each afterwards.
    pub(super) fn measure(
        place: &Place,
        source: &Source<'_>,
        key: &str,
        (count, rounds): (usize, usize),
        requests: u32,
    ) -> Self {
        let mut this = Self { count, ..Self::default() };
        this.skipped = too_many(count, available_memory());
        if let Some(why) = &this.skipped {
            progress(&format!("{key}: {why}"));
            return this;
        }
        for round in 0..rounds {
            let name = format!("{key} {count} at once {round}");
            match source.rises(place, &name, count, requests) {
                Ok(all) => {
                    progress(&format!(
                        "{key}: {count} at once: all had answered after {:.0} ms",
                        all.all_ms
                    ));
                    this.all_ms.push(all.all_ms);
                    this.rises.rises.extend(all.rises);
                    let loaded = all.loaded.iter().map(|memory| memory.pss_bytes);
                    this.loaded_pss_bytes.extend(loaded);
                }
                Err(failure) => this.rises.take(&name, Err(failure)),
            }
        }
        this
    }

    /// Proportional memory of each after its first answer.
    pub(super) fn pss_bytes(&self) -> Vec<u64> {
        self.rises.memory().map(|memory| memory.pss_bytes).collect()
    }

    pub(super) fn to_json(&self) -> Value {
        let mut value = self.rises.to_json();
        value["instances"] = json!(self.count);
        value["all_answered_ms"] = summary(&self.all_ms);
        value["pss_bytes_after_load"] = json!(self.loaded_pss_bytes);
        value["skipped"] = json!(self.skipped);
        value
    }
}

/// Why so many are not started.
fn too_many(count: usize, available: Option<u64>) -> Option<String> {
    let available = available?;
    let needed = u64::try_from(count).ok()?.saturating_mul(AT_MOST_EACH);
    (needed > available).then(|| {
        format!(
            "{count} at once may need {} MiB, and {} are available",
            needed >> 20,
            available >> 20
        )
    })
}

fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_started_than_fit() {
        assert_eq!(too_many(10, Some(16 << 30)), None);
        let why = too_many(50, Some(1 << 30)).unwrap();
        assert_eq!(why, "50 at once may need 10000 MiB, and 1024 are available");
        assert_eq!(too_many(50, None), None);
    }
}
