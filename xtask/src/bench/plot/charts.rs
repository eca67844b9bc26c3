//! The plots.
//!
//! In: a run. Out: SVG files, with their names.
//! Invariant: every plot says what its axes are; a kind has one colour in all of them.
//! Not here: how a shape is written (`svg`).

use super::run::{Application, Run};
use super::svg::{Anchor, Scale, Svg, WORDS, float, round_up};
use super::words::{milliseconds, thousands};

/// A kind of rise, what it is called here, its colour.
struct Way(&'static str, &'static str, &'static str);

const COLD: Way = Way("cold", "cold start", "#8a8f98");
const AOT: Way = Way("aot_cache", "AOT cache", "#c08a1d");
const CRIU: Way = Way("criu", "CRIU", "#c95a94");
const RESTORED: Way = Way("restored", "restored", "#3a86f0");
const STANDBY: Way = Way("standby", "standby", "#9466e6");
const FLOOR: Way = Way("floor", "floor", "#2f9e4f");
const BEFORE: Way = Way("before", "before the checkpoint", "#159aa8");

/// In which order they are shown.
const STARTS: [Way; 6] = [COLD, AOT, CRIU, RESTORED, STANDBY, FLOOR];
const RATES: [Way; 6] = [BEFORE, FLOOR, STANDBY, RESTORED, AOT, COLD];

/// What was to be reached, in milliseconds.
const TARGET_MS: f64 = 50.0;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 24.0;

/// All of them.
pub(super) fn all(run: &Run) -> Vec<(&'static str, String)> {
    vec![
        ("start.svg", start(run)),
        ("rates.svg", rates(run)),
        ("density.svg", density(run)),
        ("image.svg", image(run)),
    ]
}

/// From exec to the first correct answer: every rise is a dot.
fn start(run: &Run) -> String {
    let rows = |app: &Application| -> Vec<Way> {
        let has = |way: &Way| app.p50(way.0).is_some();
        STARTS.into_iter().filter(has).collect()
    };
    let (row, head, top) = (19.0, 30.0, 56.0);
    let count: f64 = run.applications.iter().map(|app| head + row * float(rows(app).len())).sum();
    let bottom = top + count + 6.0;
    let mut svg = Svg::new(WIDTH, bottom + 24.0);
    let scale = Scale::logarithmic((5.0, 20_000.0), (130.0, 770.0));
    svg.title((LEFT, 20.0), "From exec to the first correct answer, logarithmic");
    svg.text((LEFT, 38.0), Anchor::Start, WORDS, "each dot is one start, the bar their median");
    let marks = [(10.0, "10 ms"), (100.0, "100 ms"), (1000.0, "1 s"), (10_000.0, "10 s")];
    for (ms, words) in marks {
        svg.text((scale.at(ms), bottom + 16.0), Anchor::Middle, WORDS, words);
    }
    let target = scale.at(TARGET_MS);
    svg.text((target, bottom + 16.0), Anchor::Middle, RESTORED.2, "50 ms");
    let mut y = top;
    for app in &run.applications {
        svg.title((LEFT, y + 20.0), &heading(app));
        y += head;
        let end = y + row * float(rows(app).len());
        for (ms, _) in marks {
            svg.grid((scale.at(ms), y), (scale.at(ms), end));
        }
        svg.line(&[(target, y), (target, end)], RESTORED.2, 1.0);
        for Way(key, name, colour) in rows(app) {
            let Some((rises, p50)) = app.rises(key).zip(app.p50(key)) else { continue };
            let middle = y + row / 2.0;
            svg.text((120.0, middle + 4.0), Anchor::End, WORDS, name);
            for ms in &rises.answer_ms {
                svg.dot((scale.at(*ms), middle), colour);
            }
            svg.rect((scale.at(p50) - 1.5, middle - 7.0), 3.0, 14.0, colour);
            let words = format!("{} ms", milliseconds(p50));
            svg.text((WIDTH - 12.0, middle + 4.0), Anchor::End, colour, &words);
            y += row;
        }
    }
    svg.finish(
        "Time from exec to the first correct answer of each service, by each way to start it",
    )
}

fn heading(app: &Application) -> String {
    format!("{}, JDK {}", app.service(), app.release)
}

/// Requests per second over the first so many.
fn rates(run: &Run) -> String {
    let (columns, height, top) = (2, 210.0, 66.0);
    let rows = run.applications.len().div_ceil(columns);
    let mut svg = Svg::new(WIDTH, top + height * float(rows) + 10.0);
    svg.title(
        (LEFT, 20.0),
        "Requests per second over the first N requests, one connection (medians)",
    );
    let series = |app: &Application, key: &str| match key {
        "before" => Some(app.before.clone()),
        _ => app.rises(key).map(|rises| rises.rates.clone()),
    };
    let shown = |way: &Way| {
        run.applications.iter().any(|app| series(app, way.0).is_some_and(|all| !all.is_empty()))
    };
    svg.legend((LEFT, 44.0), RATES.into_iter().filter(shown).map(|way| (way.2, way.1)));
    for (index, app) in run.applications.iter().enumerate() {
        let left = 60.0 + 420.0 * float(index % columns);
        let y = top + height * float(index / columns);
        let (right, bottom) = (left + 350.0, y + height - 34.0);
        svg.title((left - 36.0, y + 10.0), &heading(app));
        let ways = RATES.map(|way| (series(app, way.0).unwrap_or_default(), way.2));
        let highest = ways.iter().flat_map(|(all, _)| all.values()).copied().fold(1.0, f64::max);
        let x = Scale::logarithmic((200.0, 20_000.0), (left + 6.0, right - 6.0));
        let up = Scale::linear((0.0, round_up(highest)), (bottom, y + 24.0));
        for share in [0.0, 0.5, 1.0] {
            let rate = share * round_up(highest);
            svg.grid((left, up.at(rate)), (right, up.at(rate)));
            svg.text((left - 5.0, up.at(rate) + 4.0), Anchor::End, WORDS, &thousands(rate));
        }
        for first in [200.0, 1000.0, 5000.0, 20_000.0] {
            svg.text((x.at(first), bottom + 16.0), Anchor::Middle, WORDS, &thousands(first));
        }
        for (all, colour) in ways {
            let points: Vec<(f64, f64)> = all
                .iter()
                .map(|(first, rate)| {
                    // Counts of requests are far below 2^32.
                    let first = f64::from(u32::try_from(*first).unwrap_or(u32::MAX));
                    (x.at(first), up.at(*rate))
                })
                .collect();
            svg.line(&points, colour, 2.0);
            for point in points {
                svg.dot(point, colour);
            }
        }
    }
    svg.finish("Requests per second over the first 200 to 20,000 requests of each service")
}

/// Several at once: until all have answered, and what each of them takes.
fn density(run: &Run) -> String {
    let (row, head, top) = (20.0, 30.0, 60.0);
    let groups = |app: &Application| float(app.at_once.len());
    let count: f64 = run.applications.iter().map(|app| head + row * groups(app)).sum();
    let mut svg = Svg::new(WIDTH, top + count + 16.0);
    svg.title((LEFT, 20.0), "Instances of one image at once");
    svg.text((130.0, 44.0), Anchor::Start, WORDS, "until all have answered");
    svg.legend(
        (490.0, 44.0),
        [(RESTORED.2, "memory of each (Pss), first answer"), (FLOOR.2, "after load")],
    );
    let all = || run.applications.iter().flat_map(|app| &app.at_once);
    let most_ms = all().filter_map(|at_once| at_once.all_ms).fold(1.0, f64::max);
    let most_bytes = all()
        .flat_map(|at_once| [at_once.pss_bytes, at_once.loaded_pss_bytes])
        .flatten()
        .fold(1.0, f64::max);
    let time = Scale::linear((0.0, most_ms), (130.0, 400.0));
    let memory = Scale::linear((0.0, most_bytes), (490.0, 750.0));
    let mut y = top;
    for app in &run.applications {
        svg.title((LEFT, y + 20.0), &heading(app));
        y += head;
        for at_once in &app.at_once {
            let name = at_once.instances.to_string();
            svg.text((120.0, y + 14.0), Anchor::End, WORDS, &name);
            if let Some(ms) = at_once.all_ms {
                svg.rect((130.0, y + 3.0), time.at(ms) - 130.0, row - 6.0, COLD.2);
                let words = format!("{} ms", milliseconds(ms));
                svg.text((time.at(ms) + 6.0, y + 14.0), Anchor::Start, WORDS, &words);
            }
            let mut end = 490.0;
            let mut words = Vec::new();
            let half = (row - 6.0) / 2.0;
            for (bytes, colour, at) in [
                (at_once.pss_bytes, RESTORED.2, y + 3.0),
                (at_once.loaded_pss_bytes, FLOOR.2, y + 3.0 + half),
            ] {
                let Some(bytes) = bytes else { continue };
                svg.rect((490.0, at), memory.at(bytes) - 490.0, half, colour);
                end = memory.at(bytes).max(end);
                words.push(format!("{:.0}", bytes / 1e6));
            }
            let words = format!("{} MB", words.join(" → "));
            svg.text((end + 6.0, y + 14.0), Anchor::Start, WORDS, &words);
            y += row;
        }
    }
    svg.finish("Time until 1, 10 and 50 instances have answered, and the memory of each")
}

/// Colours of what images consist of, the most usual first; what is small is "other".
const PURPOSES: [(&str, &str); 7] = [
    ("java heap", RESTORED.2),
    ("class space", STANDBY.2),
    ("anonymous", AOT.2),
    ("generated code", FLOOR.2),
    ("malloc", CRIU.2),
    ("private file", BEFORE.2),
    ("other", COLD.2),
];

fn image(run: &Run) -> String {
    let (row, top) = (46.0, 60.0);
    let mut svg = Svg::new(WIDTH, top + row * float(run.applications.len()) + 10.0);
    svg.title((LEFT, 20.0), "What an image's bytes on the disk are for");
    svg.legend((LEFT, 44.0), PURPOSES.map(|(name, colour)| (colour, name)));
    let sum = |app: &Application| -> f64 { app.image_kinds.iter().map(|(_, bytes)| bytes).sum() };
    let most = run.applications.iter().map(sum).fold(1.0, f64::max);
    let scale = Scale::linear((0.0, most), (LEFT, 770.0));
    for (index, app) in run.applications.iter().enumerate() {
        let y = top + row * float(index);
        svg.text((LEFT, y + 12.0), Anchor::Start, WORDS, &heading(app));
        let mut so_far = 0.0;
        for (purpose, colour) in PURPOSES {
            let bytes: f64 = app
                .image_kinds
                .iter()
                .filter(|(kind, _)| named(kind) == purpose)
                .map(|(_, bytes)| bytes)
                .sum();
            let from = scale.at(so_far);
            so_far += bytes;
            svg.rect((from, y + 18.0), scale.at(so_far) - from, 16.0, colour);
        }
        let words = format!("{:.1} MB", so_far / 1e6);
        svg.text((scale.at(so_far) + 6.0, y + 31.0), Anchor::Start, WORDS, &words);
    }
    svg.finish("What the bytes of each image are for")
}

/// Under which name of [`PURPOSES`] a kind of memory is shown.
fn named(kind: &str) -> &str {
    if PURPOSES.iter().any(|(purpose, _)| *purpose == kind) { kind } else { "other" }
}
