//! What is made of the numbers of an application.
//!
//! In: measurements. Out: one object with a fixed set of keys, one with everything, a table.
//! Invariant: the keys of [`object`] are a contract (`bench/README.md`); what was not measured is null
//! or its reason, never a number.
//! Not here: measuring (`application`).

use super::application::Application;
use super::density::AtOnce;
use super::kind::Kind;
use crate::bench::series::{Series, first, first_rates, heading, summary};
use crate::measure::{Load, Parked, percentile, rounded};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

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
    let ten = measured.at_once.iter().find(|at_once| at_once.count == 10);
    json!({
        "service": service,
        "jdk": jdk,
        "cold_ms": times(measured.series(Kind::Cold)),
        "restored_ms": times(measured.series(Kind::Restored)),
        "peers": peers,
        "standby_ms": standby(measured),
        "standby_bytes": {
            "anonymous": parked(measured, |parked| parked.anonymous_bytes),
            "pss": parked(measured, |parked| parked.pss_bytes),
        },
        "first_200_rate_ratio": ratio(measured),
        "image_bytes": middle(&measured.image_bytes),
        "ten_at_once_ms": ten.and_then(|ten| percentile(&ten.all_ms, 50)).map(rounded),
        "instance_pss_bytes": ten.and_then(|ten| middle(&ten.pss_bytes())),
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

/// From the release by `tub release`; `byte_p50` by a byte on the socket. Why there are none, if so.
fn standby(measured: &Application) -> Value {
    let mut value = times(measured.series(Kind::Standby));
    let byte = measured.series(Kind::StandbyByte).and_then(Series::p50).map(rounded);
    value["byte_p50"] = json!(byte);
    if let Some((_, Err(reason))) = measured.kinds.iter().find(|(kind, _)| *kind == Kind::Standby) {
        value["reason"] = json!(reason);
    }
    value
}

/// The median of the memory of what was parked.
fn parked(measured: &Application, field: fn(&Parked) -> u64) -> Option<u64> {
    middle(&measured.series(Kind::Standby)?.parked(field))
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
    let before: Vec<_> = measured.before.iter().collect();
    json!({
        "rises": rises,
        "with_agent_ms": summary(&measured.with_agent_ms),
        "before_the_checkpoint": {
            "rates": before.iter().map(|load| rounded(load.rate)).collect::<Vec<_>>(),
            "first_rates": first_rates(&before),
        },
        "checkpoints": measured.checkpoints.iter().map(|one| json!({
            "wall_ms": one.wall_ms, "told": one.told,
        })).collect::<Vec<_>>(),
        "image_bytes": measured.image_bytes,
        "image_kinds": measured.image_kinds,
        "at_once": measured.at_once.iter().map(AtOnce::to_json).collect::<Vec<_>>(),
        "forgotten": measured.forgotten.iter().map(|(kind, forgotten)| {
            let mut value = forgotten.to_json();
            value["before"] = json!(kind.key());
            value
        }).collect::<Vec<_>>(),
        "rounds": measured.rounds,
        "spared_turns": measured.spared_turns,
        "complete": measured.complete,
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
    for at_once in &measured.at_once {
        lines.push(at_once.rises.row(&format!("restored, each of {} at once", at_once.count)));
    }
    lines.extend(rates_table(measured));
    lines.extend(density_table(measured));
    lines.extend(image_lines(measured));
    lines.join("\n")
}

/// How the rate goes on: a row for each way, a column for each number of first requests.
fn rates_table(measured: &Application) -> Vec<String> {
    let row = |title: &str, rates: &dyn Fn(usize) -> Vec<f64>| {
        let cells: String = (0..Load::FIRST_OF.len())
            .map(|index| {
                let cell = percentile(&rates(index), 50);
                format!("{:>9}", cell.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}")))
            })
            .collect();
        format!("  {title:<34}{cells}")
    };
    let columns: String = Load::FIRST_OF.iter().map(|of| format!("{of:>9}")).collect();
    let mut lines = vec![
        String::new(),
        format!("  {:<34}{columns}", "requests/s over the first …, median"),
        row("before the checkpoint", &|index| first(measured.before.iter(), index)),
    ];
    let kinds = [Kind::Floor, Kind::Standby, Kind::Restored];
    for kind in kinds.into_iter().chain([Kind::Untrained, Kind::Cold, Kind::AotCache]) {
        if let Some(series) = measured.series(kind) {
            lines.push(row(kind.title(), &|index| series.rates(index)));
        }
    }
    lines
}

fn density_table(measured: &Application) -> Vec<String> {
    let mut lines = vec![
        String::new(),
        format!("  {:<34}{:>13}{:>13}{:>13}", "at once", "all answered", "Pss, MB", "after load"),
    ];
    for at_once in &measured.at_once {
        let title = format!("{} instances", at_once.count);
        let ms = percentile(&at_once.all_ms, 50);
        let ms = ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0} ms"));
        let pss = megabytes(middle(&at_once.pss_bytes()));
        let loaded = megabytes(middle(&at_once.loaded_pss_bytes));
        lines.push(format!("  {title:<34}{ms:>13}{pss:>13}{loaded:>13}"));
    }
    if let Some(anonymous) = parked(measured, |parked| parked.anonymous_bytes) {
        let pss = parked(measured, |parked| parked.pss_bytes);
        lines.push(format!(
            "  {:<34}{:>13}{:>13}, of which anonymous {}",
            "each of those parked",
            "",
            megabytes(pss),
            megabytes(Some(anonymous)),
        ));
    }
    lines
}

fn image_lines(measured: &Application) -> Vec<String> {
    let mut lines = vec![String::new()];
    let of = |name: &str| {
        let all: Vec<f64> = measured.checkpoints.iter().map(|one| one.ms(name)).collect();
        percentile(&all, 50).map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0}"))
    };
    let wall: Vec<f64> = measured.checkpoints.iter().map(|one| one.wall_ms).collect();
    let wall = percentile(&wall, 50).map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0}"));
    let frozen = of("frozen_us");
    lines.push(format!("  checkpoint: {wall} ms, of which frozen {frozen} ms"));
    let mut kinds: Vec<(&String, &u64)> = measured.image_kinds.iter().flatten().collect();
    kinds.truncate(measured.image_kinds.first().map_or(0, BTreeMap::len));
    kinds.sort_by_key(|(_, bytes)| std::cmp::Reverse(**bytes));
    let kinds: Vec<String> = kinds
        .into_iter()
        .map(|(kind, bytes)| format!("{kind} {}", megabytes(Some(*bytes))))
        .collect();
    let image = megabytes(middle(&measured.image_bytes));
    lines.push(format!("  image: {image} MB: {}", kinds.join(", ")));
    lines
}

#[expect(clippy::cast_precision_loss, reason = "images are far below 2^53 bytes")]
fn megabytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{:.1}", bytes as f64 / 1e6))
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
            "standby_bytes",
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
        assert_eq!(object["standby_ms"]["p50"], Value::Null);
        assert_eq!(object["standby_ms"]["reason"], "no Maven");
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
