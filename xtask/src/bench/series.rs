//! Numbers of one kind, and what is said about them.
//!
//! In: measurements, failures. Out: their summary, and all of them.
//! Invariant: nothing is dropped: a failure is counted where a number would have been.
//! Not here: which numbers there are.

use super::subject::Rise;
use crate::failure::Result;
use crate::measure::{Load, Memory, Parked, percentile, rounded};
use crate::process::progress;
use serde_json::{Map, Value, json};

/// Restores, or floors, of one kind.
#[derive(Debug, Default)]
pub(super) struct Series {
    pub(super) rises: Vec<Rise>,
    pub(super) failures: Vec<String>,
}

impl Series {
    /// Takes one measurement, or the reason why there is none.
    pub(super) fn take(&mut self, name: &str, outcome: Result<Rise>) {
        match outcome {
            Ok(rise) => self.rises.push(rise),
            Err(failure) => {
                progress(&format!("{name}: failed: {failure}"));
                self.failures.push(failure.to_string());
            }
        }
    }

    /// From exec until the first correct answer.
    pub(super) fn answer_ms(&self) -> Vec<f64> {
        self.rises.iter().map(|rise| rise.answer_ms).collect()
    }

    /// From exec until all threads run.
    pub(super) fn resumed_ms(&self) -> Vec<f64> {
        self.rises.iter().filter_map(|rise| rise.resumed_ms).collect()
    }

    /// Median of the answers.
    pub(super) fn p50(&self) -> Option<f64> {
        percentile(&self.answer_ms(), 50)
    }

    /// Memory of each, as far as it is known.
    pub(super) fn memory(&self) -> impl Iterator<Item = &Memory> {
        self.rises.iter().filter_map(|rise| rise.memory.as_ref())
    }

    /// Memory of what was parked before each release.
    pub(super) fn parked(&self, field: fn(&Parked) -> u64) -> Vec<u64> {
        self.rises.iter().flat_map(|rise| &rise.parked).map(field).collect()
    }

    /// All of it.
    pub(super) fn to_json(&self) -> Value {
        let memory = |field: fn(&Memory) -> u64| self.memory().map(field).collect::<Vec<u64>>();
        // Two halves of one series: what differs between them is noise.
        let halves = [0, 1].map(|from| {
            let half: Vec<f64> = self.answer_ms().into_iter().skip(from).step_by(2).collect();
            percentile(&half, 50).map(rounded)
        });
        json!({
            "failures": self.failures,
            "answer_ms": summary(&self.answer_ms()),
            "answer_ms_p50_of_halves": halves,
            "resumed_ms": summary(&self.resumed_ms()),
            "stages_us": self.stages(),
            "first_rates": first_rates(&self.loads().collect::<Vec<_>>()),
            "pss_bytes": memory(|memory| memory.pss_bytes),
            "rss_bytes": memory(|memory| memory.rss_bytes),
            "parked_anonymous_bytes": self.parked(|parked| parked.anonymous_bytes),
            "parked_pss_bytes": self.parked(|parked| parked.pss_bytes),
            "minor_faults": self.rises.iter().filter_map(|rise| rise.minor_faults).collect::<Vec<_>>(),
        })
    }

    /// Requests per second over as many first requests as `index` says of [`Load::FIRST_OF`].
    pub(super) fn rates(&self, index: usize) -> Vec<f64> {
        first(self.loads(), index)
    }

    fn loads(&self) -> impl Iterator<Item = &Load> + Clone {
        self.rises.iter().filter_map(|rise| rise.load.as_ref())
    }

    /// Each stage with the times at which it was over, in the order of the rises.
    fn stages(&self) -> Value {
        let mut stages: Map<String, Value> = Map::new();
        for (stage, us) in self.rises.iter().flat_map(|rise| &rise.stages_us) {
            if let Value::Array(all) = stages.entry(stage).or_insert_with(|| json!([])) {
                all.push(json!(us));
            }
        }
        Value::Object(stages)
    }

    /// One row of a table: `title  n  failed  p50 p90 max` of the answers, p50 of the resumptions.
    pub(super) fn row(&self, title: &str) -> String {
        let answers = self.answer_ms();
        let cell = |samples: &[f64], percent| {
            percentile(samples, percent).map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"))
        };
        format!(
            "  {title:<34}{:>4}{:>7}{:>9}{:>9}{:>9}{:>11}",
            answers.len(),
            self.failures.len(),
            cell(&answers, 50),
            cell(&answers, 90),
            cell(&answers, 100),
            cell(&self.resumed_ms(), 50),
        )
    }
}

/// Requests per second over as many first requests as `index` says of [`Load::FIRST_OF`].
pub(super) fn first<'a>(loads: impl Iterator<Item = &'a Load>, index: usize) -> Vec<f64> {
    loads.filter_map(|load| load.first_rates.get(index).copied().flatten()).collect()
}

/// All of these, as far as there were so many requests.
pub(super) fn first_rates(loads: &[&Load]) -> Value {
    let all = Load::FIRST_OF.iter().enumerate();
    let all = all.map(|(at, of)| (of, first(loads.iter().copied(), at)));
    let known = all.filter(|(_, rates)| !rates.is_empty());
    Value::Object(known.map(|(of, rates)| (of.to_string(), summary(&rates))).collect())
}

/// The heading over [`Series::row`]s.
pub(super) fn heading(title: &str) -> String {
    format!(
        "  {title:<34}{:>4}{:>7}{:>9}{:>9}{:>9}{:>11}",
        "n", "failed", "p50", "p90", "max", "resumed"
    )
}

/// Median, ninth decile, maximum, and all the samples in their order.
pub(super) fn summary(samples: &[f64]) -> Value {
    let round = |percent| percentile(samples, percent).map(rounded);
    json!({
        "n": samples.len(),
        "p50": round(50),
        "p90": round(90),
        "max": round(100),
        "raw": samples.iter().copied().map(rounded).collect::<Vec<_>>(),
    })
}

/// Between which samples the median of what they were drawn from lies, but for one time in twenty: the order
/// statistics by the sign test, which supposes nothing about how they scatter. `None` for fewer than six.
pub(super) fn median_bounds(samples: &[f64]) -> Option<[f64; 2]> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = i32::try_from(sorted.len()).ok()?;
    // The probability that exactly, and at most, `rank` samples lie below the median.
    let (mut exactly, mut rank) = (0.5f64.powi(n), 0);
    let mut at_most = exactly;
    while 2.0 * at_most <= 0.05 {
        rank += 1;
        exactly *= f64::from(n - rank + 1) / f64::from(rank);
        at_most += exactly;
    }
    let rank = usize::try_from(rank).ok()?.checked_sub(1)?;
    Some([*sorted.get(rank)?, *sorted.get(sorted.len() - 1 - rank)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    #[test]
    fn the_bounds_of_a_median_are_order_statistics() {
        let first = |n: u32| (1..=n).rev().map(f64::from).collect::<Vec<_>>();
        // As tables of the sign test have them: of 30, the tenth from either end.
        assert_eq!(median_bounds(&first(30)), Some([10.0, 21.0]));
        assert_eq!(median_bounds(&first(10)), Some([2.0, 9.0]));
        assert_eq!(median_bounds(&first(6)), Some([1.0, 6.0]));
        assert_eq!(median_bounds(&first(5)), None);
        assert_eq!(median_bounds(&[]), None);
    }

    #[test]
    fn failures_are_counted_and_told() {
        let mut series = Series::default();
        for ms in [3.0, 1.0, 2.0, 9.0] {
            let stages_us = vec![("opened_us".to_owned(), ms * 10.0)];
            let rise = Rise { resumed_ms: Some(1.0), stages_us, ..Rise::after(ms) };
            series.take("restore", Ok(rise));
        }
        series.take("restore", Err(Failure::new("did not get up")));
        let value = series.to_json();
        assert_eq!(value["failures"], json!(["did not get up"]));
        assert_eq!(value["answer_ms"]["p50"], 2.0);
        assert_eq!(value["answer_ms"]["raw"], json!([3.0, 1.0, 2.0, 9.0]));
        assert_eq!(value["answer_ms_p50_of_halves"], json!([2.0, 1.0]));
        assert_eq!(value["stages_us"]["opened_us"], json!([30.0, 10.0, 20.0, 90.0]));
        let row = series.row("a row");
        assert_eq!(
            row.split_whitespace().collect::<Vec<_>>()[2..],
            ["4", "1", "2.0", "9.0", "9.0", "1.0"]
        );
    }
}
