//! What is made of the numbers of an application.
//!
//! In: measurements. Out: one object with a fixed set of keys, one with everything, a table.
//! Invariant: the keys of [`object`] are a contract (`bench/README.md`); what was not measured is null
//! or its reason, never a number.
//! Not here: measuring (`application`).

use super::application::Application;
use super::kind::Kind;
use crate::bench::series::{Series, heading, summary};
use crate::measure::{percentile, rounded};
use serde_json::{Map, Value, json};

/// The object of an application.
pub(super) fn object(service: &str, jdk: u32, measured: &Application) -> Value {
    let peer = |kind: Kind| {
        let (_, series) = measured.kinds.iter().find(|(other, _)| *other == kind)?;
        Some(match series {
            Err(reason) => json!(reason),
            Ok(series) => {
                series.p50().map_or_else(|| json!(series.failures.first()), |ms| json!(rounded(ms)))
            }
        })
    };
    let peers: Map<String, Value> = [Kind::Floor, Kind::AotCache, Kind::Criu]
        .into_iter()
        .filter_map(|kind| Some((kind.key().to_owned(), peer(kind)?)))
        .collect();
    let pss: Vec<u64> = measured.at_once.rises.memory().map(|memory| memory.pss_bytes).collect();
    json!({
        "service": service,
        "jdk": jdk,
        "cold_ms": times(measured.series(Kind::Cold)),
        "restored_ms": times(measured.series(Kind::Restored)),
        "peers": peers,
        "standby_ms": { "p50": null, "reason": "not built yet" },
        "first_200_rate_ratio": ratio(measured),
        "image_bytes": middle(&measured.image_bytes),
        "ten_at_once_ms": percentile(&measured.at_once.all_ms, 50).map(rounded),
        "instance_pss_bytes": middle(&pss),
    })
}

/// The median of whole numbers, which is one of them.
fn middle(samples: &[u64]) -> Option<u64> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().div_ceil(2).checked_sub(1)?).copied()
}

fn times(series: Option<&Series>) -> Value {
    let samples = series.map(Series::answer_ms).unwrap_or_default();
    let at = |percent| percentile(&samples, percent).map(rounded);
    let failures = series.map_or(0, |series| series.failures.len());
    json!({ "n": samples.len(), "p50": at(50), "p90": at(90), "max": at(100), "failures": failures })
}

/// Of the medians over the first 200 requests: restored, over the floor.
fn ratio(measured: &Application) -> Option<f64> {
    let median = |kind| percentile(&measured.series(kind)?.rates(0), 50);
    Some(rounded(median(Kind::Restored)? / median(Kind::Floor)?))
}

/// All that was measured of it.
pub(super) fn raw(measured: &Application) -> Value {
    let rises: Map<String, Value> = measured
        .kinds
        .iter()
        .map(|(kind, series)| {
            let value = match series {
                Ok(series) => series.to_json(),
                Err(reason) => json!({ "reason": reason }),
            };
            (kind.key().to_owned(), value)
        })
        .collect();
    let mut at_once = measured.at_once.rises.to_json();
    at_once["all_answered_ms"] = summary(&measured.at_once.all_ms);
    at_once["pss_bytes_after_load"] = json!(measured.at_once.loaded_pss_bytes);
    json!({
        "rises": rises,
        "with_agent_ms": summary(&measured.with_agent_ms),
        "rates_before_the_checkpoint": measured.before_rates,
        "checkpoints": measured.checkpoints.iter().map(|one| json!({
            "wall_ms": one.wall_ms, "told": one.told,
        })).collect::<Vec<_>>(),
        "image_bytes": measured.image_bytes,
        "at_once": at_once,
    })
}

/// For people.
pub(super) fn table(title: &str, measured: &Application) -> String {
    let mut lines = vec![format!("  {title}"), heading("ms from exec to the first answer")];
    for (kind, series) in &measured.kinds {
        lines.push(match series {
            Ok(series) => series.row(kind.title()),
            Err(reason) => {
                format!("  {:<34}none: {}", kind.title(), reason.lines().next().unwrap_or_default())
            }
        });
    }
    lines.push(measured.at_once.rises.row("restored, all at once"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_was_never_built_has_all_keys_and_no_number() {
        let measured = Application::never_built("no Maven");
        let object = object("quarkus", 17, &measured);
        let keys: Vec<&String> = object.as_object().unwrap().keys().collect();
        let mut promised = [
            "service",
            "jdk",
            "cold_ms",
            "restored_ms",
            "peers",
            "standby_ms",
            "first_200_rate_ratio",
            "image_bytes",
            "ten_at_once_ms",
            "instance_pss_bytes",
        ];
        promised.sort_unstable();
        assert_eq!(keys, promised);
        let none = json!({ "n": 0, "p50": null, "p90": null, "max": null, "failures": 1 });
        assert_eq!(object["restored_ms"], none);
        assert_eq!(object["peers"]["floor"], "no Maven");
        assert_eq!(object["image_bytes"], Value::Null);
        assert_eq!(measured.failures(), 1);
    }

    #[test]
    fn the_median_is_one_of_the_numbers() {
        assert_eq!(middle(&[]), None);
        assert_eq!(middle(&[3, 1]), Some(1));
        assert_eq!(middle(&[9, 1, 5]), Some(5));
    }
}
