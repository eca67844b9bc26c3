//! The demo's numbers: collected, summed up, printed.
//!
//! In: raw measurements. Out: a table for people, a JSON object for programs.
//! Invariant: a figure that was not measured is absent, never zero.
//! Not here: measuring.

use super::service::Service;
use crate::measure::{percentile, rounded};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Everything that was measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// Exec to first correct answer, of the service as it is, in milliseconds.
    pub(crate) cold_ms: Vec<f64>,
    /// The same for the start with `tub run` that the image was made from.
    pub(crate) prepared_cold_ms: Option<f64>,
    /// The same for `tub restore`.
    pub(crate) restored_ms: Vec<f64>,
    /// Start of `tub restore` until all threads were released, as it says itself.
    pub(crate) resumed_ms: Vec<f64>,
    /// Both of the image as the checkpoint left it, before `tub train`.
    pub(crate) untrained_ms: Vec<f64>,
    pub(crate) untrained_resumed_ms: Vec<f64>,
    /// When each stage of `tub restore` was over, as it says itself, in microseconds.
    pub(crate) stages_us: BTreeMap<String, Vec<f64>>,
    /// Requests per second over the first 200 after a cold start.
    pub(crate) cold_first_200: Vec<f64>,
    /// The same after a restore.
    pub(crate) restored_first_200: Vec<f64>,
    /// Requests per second of the warm service before the checkpoint.
    pub(crate) warm_rate: f64,
    /// The same for the first 200 of a load run, that is, with a new connection.
    pub(crate) warm_first_200: f64,
    /// Requests answered before the checkpoint.
    pub(crate) warm_requests: u32,
    /// Wall time of `tub checkpoint`.
    pub(crate) checkpoint_ms: f64,
    /// How the original ended.
    pub(crate) original_ended: String,
    /// Disk space of the image.
    pub(crate) image_bytes: u64,
    /// Proportional memory of each of the instances that were alive at once.
    pub(crate) instance_pss: Vec<u64>,
    /// From the first exec until the last of them had answered.
    pub(crate) at_once_ms: Option<f64>,
    /// Why there were not three at once.
    pub(crate) not_at_once: Option<String>,
    /// Whose account everything ran under.
    pub(crate) account: String,
    /// How several instances shared one port.
    pub(crate) sharing: &'static str,
    /// Kernel release and number of processors.
    pub(crate) machine: String,
}

fn summary(samples: &[f64]) -> Value {
    let round = |percent| percentile(samples, percent).map(rounded);
    json!({ "n": samples.len(), "p50": round(50), "p90": round(90), "max": round(100) })
}

impl Figures {
    fn ratio_cold_to_restored(&self) -> Option<f64> {
        Some(percentile(&self.cold_ms, 50)? / percentile(&self.restored_ms, 50)?)
    }

    fn first_200_ratio(&self, to: f64) -> Option<f64> {
        let restored = percentile(&self.restored_first_200, 50)?;
        (to > 0.0).then(|| restored / to)
    }

    /// The object for programs. Its keys are a contract.
    pub(crate) fn to_json(&self, service: &Service) -> Value {
        let cold_first_200 = percentile(&self.cold_first_200, 50);
        json!({
            "service": service.name,
            "jdk": service.jdk.as_ref().map(|jdk| jdk.version.as_str()),
            "cold_ms": percentile(&self.cold_ms, 50).map(rounded),
            "restored_ms": summary(&self.restored_ms),
            "resumed_ms": summary(&self.resumed_ms),
            "untrained": {
                "restored_ms": summary(&self.untrained_ms),
                "resumed_ms": summary(&self.untrained_resumed_ms),
            },
            "first_200_rate_ratio":
                cold_first_200.and_then(|cold| self.first_200_ratio(cold)).map(rounded),
            "stages_us": self
                .stages_us
                .iter()
                .map(|(stage, samples)| (stage.clone(), json!(percentile(samples, 50))))
                .collect::<serde_json::Map<_, _>>(),
            "image_bytes": self.image_bytes,
            "instances": self.instance_pss.len(),
            "instance_pss_bytes": self.instance_pss,
            "ratio_cold_to_restored": self.ratio_cold_to_restored().map(rounded),
            "three_at_once_ms": self.at_once_ms.map(rounded),
            "three_at_once_skipped": self.not_at_once,
            "cold": summary(&self.cold_ms),
            "cold_with_tub_run_ms": self.prepared_cold_ms.map(rounded),
            "cold_first_200_rate": cold_first_200.map(rounded),
            "restored_first_200_rate": percentile(&self.restored_first_200, 50).map(rounded),
            "warm_rate": rounded(self.warm_rate),
            "warm_first_200_rate": rounded(self.warm_first_200),
            "first_200_rate_ratio_to_warm": self.first_200_ratio(self.warm_rate).map(rounded),
            "warm_requests": self.warm_requests,
            "checkpoint_ms": rounded(self.checkpoint_ms),
            "original_ended": self.original_ended,
            "application_sha256": service.sha256,
            "account": self.account,
            "one_port_many_instances": self.sharing,
            "machine": self.machine,
            "page_cache": "warm",
            "raw_cold_ms": self.cold_ms.iter().copied().map(rounded).collect::<Vec<_>>(),
            "raw_restored_ms": self.restored_ms.iter().copied().map(rounded).collect::<Vec<_>>(),
        })
    }

    /// The table for people.
    pub(crate) fn to_table(&self, service: &Service) -> String {
        let mut text = String::new();
        let mut line = |words: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", words.trim_end());
        };
        line(format!("  {}", service.name));
        if let Some(jdk) = &service.jdk {
            line(format!("  on a stock {} ({})", jdk.version, jdk.home.display()));
        }
        line(format!("  application unmodified, SHA-256 {}", &service.sha256));
        line(format!("  run by {}; {}", self.account, self.sharing));
        line(format!("  {}, files in the page cache", self.machine));
        line(String::new());
        line(row("ms from exec to …", ["n", "p50", "p90", "max"].map(str::to_owned)));
        for (title, samples) in [
            ("first correct answer, cold start", &self.cold_ms),
            ("first correct answer, restored", &self.untrained_ms),
            ("all threads running, restored", &self.untrained_resumed_ms),
            ("first correct answer, trained", &self.restored_ms),
            ("all threads running, trained", &self.resumed_ms),
        ] {
            if !samples.is_empty() {
                let cell = |percent| percentile(samples, percent).map_or_else(String::new, figure);
                line(row(title, [samples.len().to_string(), cell(50), cell(90), cell(100)]));
            }
        }
        if let Some(ratio) = self.ratio_cold_to_restored() {
            line(format!("  gets up {ratio:.0} times faster than it starts"));
            line("  trained: after `tub train` of three instances, which recorded the pages they need".to_owned());
        }
        line(String::new());
        let warm = figure(self.warm_rate);
        if let (Some(cold), Some(restored)) =
            (percentile(&self.cold_first_200, 50), percentile(&self.restored_first_200, 50))
        {
            line(format!(
                "  first 200 requests     {} /s restored, {} /s after a cold start: {:.1} times; \
                 {:.0} % of the {warm} /s when warm",
                figure(restored),
                figure(cold),
                restored / cold,
                100.0 * restored / self.warm_rate.max(1.0),
            ));
        }
        line(format!(
            "  checkpoint             {} ms after {} requests; the original ended with {}",
            figure(self.checkpoint_ms),
            self.warm_requests,
            self.original_ended
        ));
        line(format!("  image                  {}", megabytes(self.image_bytes)));
        if let Some(ms) = self.at_once_ms {
            let memory: Vec<String> = self.instance_pss.iter().copied().map(megabytes).collect();
            line(format!(
                "  {} instances at once    all had answered after {} ms",
                self.instance_pss.len(),
                figure(ms)
            ));
            line(format!("  memory of each (Pss)   {}", memory.join(", ")));
        }
        if let Some(reason) = &self.not_at_once {
            line(format!("  three at once          skipped: {reason}"));
        }
        text
    }
}

fn row(title: &str, cells: [String; 4]) -> String {
    let [n, p50, p90, max] = cells;
    format!("  {title:<34}{n:>4}{p50:>10}{p90:>10}{max:>10}")
}

/// Three significant digits, more or less.
fn figure(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

#[expect(clippy::cast_precision_loss, reason = "images are far below 2^53 bytes")]
fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        Service {
            name: "a service".to_owned(),
            jdk: None,
            command: vec![],
            run: None,
            expect: "hello".to_owned(),
            sha256: "00".to_owned(),
        }
    }

    #[test]
    fn json_has_what_was_promised() {
        let figures = Figures {
            cold_ms: vec![900.0, 1000.0, 1100.0],
            restored_ms: vec![20.0, 25.0],
            resumed_ms: vec![3.0],
            stages_us: BTreeMap::from([("opened_us".to_owned(), vec![300.0, 310.0, 900.0])]),
            cold_first_200: vec![500.0],
            restored_first_200: vec![2000.0],
            instance_pss: vec![1, 2, 3],
            image_bytes: 4,
            ..Figures::default()
        };
        let value = figures.to_json(&service());
        assert_eq!(value["cold_ms"], 1000.0);
        assert_eq!(value["restored_ms"], json!({"n": 2, "p50": 20.0, "p90": 25.0, "max": 25.0}));
        assert_eq!(value["resumed_ms"]["p50"], 3.0);
        assert_eq!(value["stages_us"], json!({ "opened_us": 310.0 }));
        assert_eq!(value["first_200_rate_ratio"], 4.0);
        assert_eq!(value["instances"], 3);
        assert_eq!(value["instance_pss_bytes"], json!([1, 2, 3]));
        assert_eq!(value["ratio_cold_to_restored"], 50.0);
        assert!(value["jdk"].is_null());
    }

    #[test]
    fn what_was_not_measured_is_absent() {
        let value = Figures::default().to_json(&service());
        assert!(value["cold_ms"].is_null());
        assert!(value["resumed_ms"]["p50"].is_null());
        assert!(!Figures::default().to_table(&service()).contains("NaN"));
    }

    #[test]
    fn the_table_is_for_strangers() {
        let figures = Figures {
            cold_ms: vec![1900.0, 2000.0, 2100.0],
            restored_ms: vec![25.04, 30.06, 40.0],
            resumed_ms: vec![3.1, 3.2, 4.0],
            untrained_ms: vec![41.0],
            untrained_resumed_ms: vec![5.5],
            cold_first_200: vec![500.0],
            restored_first_200: vec![2000.0],
            warm_rate: 4000.0,
            warm_requests: 25_000,
            checkpoint_ms: 812.3,
            original_ended: "signal 9".to_owned(),
            image_bytes: 45_123_456,
            instance_pss: vec![11_000_000, 12_000_000, 13_000_000],
            at_once_ms: Some(81.0),
            account: "an ordinary user".to_owned(),
            sharing: "each in a network namespace of its own",
            machine: "Linux 6.18, 2 processors".to_owned(),
            ..Figures::default()
        };
        let expected = "  \
  a service
  application unmodified, SHA-256 00
  run by an ordinary user; each in a network namespace of its own
  Linux 6.18, 2 processors, files in the page cache

  ms from exec to …                    n       p50       p90       max
  first correct answer, cold start     3      2000      2100      2100
  first correct answer, restored       1      41.0      41.0      41.0
  all threads running, restored        1       5.5       5.5       5.5
  first correct answer, trained        3      30.1      40.0      40.0
  all threads running, trained         3       3.2       4.0       4.0
  gets up 67 times faster than it starts
  trained: after `tub train` of three instances, which recorded the pages they need

  first 200 requests     2000 /s restored, 500 /s after a cold start: 4.0 times; 50 % of the 4000 /s when warm
  checkpoint             812 ms after 25000 requests; the original ended with signal 9
  image                  45.1 MB
  3 instances at once    all had answered after 81.0 ms
  memory of each (Pss)   11.0 MB, 12.0 MB, 13.0 MB
";
        assert_eq!(figures.to_table(&service()), expected);
    }
}
