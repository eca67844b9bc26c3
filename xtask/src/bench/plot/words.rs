//! The tables.
//!
//! In: a run. Out: Markdown: a block for the README, and the whole page.
//! Invariant: medians (p50) unless a column says otherwise; a number that is not there is a dash.
//! Not here: plots (`charts`).

use super::run::{Application, Rises, Run};
use std::fmt::Write;

/// Kinds of rises, and what they are called in the page.
const KINDS: [(&str, &str); 11] = [
    ("cold", "cold start"),
    ("cold_uncached", "cold start, JDK and application from the disk"),
    ("aot_cache", "cold start with an AOT cache"),
    ("criu", "restored by CRIU"),
    ("untrained", "restored, untrained"),
    ("restored", "**restored**"),
    ("restored_image_uncached", "restored, image from the disk"),
    ("restored_all_uncached", "restored, image, tub, JDK and application from the disk"),
    ("standby", "standby, by `tub release`"),
    ("standby_byte", "standby, by a byte on its socket"),
    ("floor", "floor: never checkpointed"),
];

/// First requests that have a column.
const FIRST: [u64; 6] = [200, 1000, 2000, 5000, 10_000, 20_000];

/// The README's block, without its markers.
pub(super) fn summary(run: &Run) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{words}");
    };
    line("| | cold | AOT cache | CRIU | restored: p50 | p90 | standby | floor | first 200 requests, to the floor's | image | ten at once | memory of each |".to_owned());
    line(format!("|---|{}", "--:|".repeat(11)));
    for app in &run.applications {
        let ms = |kind| dash(app.p50(kind).map(milliseconds));
        let p90 = app.rises("restored").and_then(|rises| rises.at(90)).map(milliseconds);
        let ten = app.at_once.iter().find(|at_once| at_once.instances == 10);
        let cells = [
            ms("cold"),
            ms("aot_cache"),
            ms("criu"),
            format!("**{}**", ms("restored")),
            dash(p90),
            ms("standby"),
            ms("floor"),
            percent(app.ratio("restored", "floor", 200)),
            megabytes(app.image_bytes),
            dash(ten.and_then(|ten| ten.all_ms).map(milliseconds)),
            megabytes(ten.and_then(|ten| ten.pss_bytes)),
        ];
        line(format!("| {}, JDK {} | {} |", app.service(), app.release, cells.join(" | ")));
    }
    text
}

/// The whole page. `file` is what it was made from.
pub(super) fn page(run: &Run, file: &str) -> String {
    let mut text = format!(
        "<!-- Made by `cargo xtask bench plot` from {file}; changes by hand do not last. -->\n\
         # What was measured\n\n\
         `{}`, {}, {} services; {} failed measurements{}. Every number: [{file}](../{file}). How: [README.md](README.md).\n\n\
         {}. Load average {} before, {} after. Commit {}.\n\n\
         Times are milliseconds, medians (p50) unless said otherwise; ratios within a run are worth more than times of different runs.\n\n",
        run.command,
        run.started,
        run.applications.len(),
        run.failures,
        if run.complete { "" } else { "; stopped before its end" },
        run.machine,
        run.load[0],
        run.load[1],
        run.commit,
    );
    section(&mut text, "From exec to the first correct answer", "start.svg", |text| {
        for app in &run.applications {
            heading(text, app);
            table(text, &["", "n", "failed", "p50", "p90", "max"]);
            for (kind, name) in KINDS {
                let Some(rises) = app.rises(kind) else { continue };
                row(text, name, &start_cells(rises));
            }
        }
    });
    section(&mut text, "Requests per second over the first N", "rates.svg", |text| {
        let columns = FIRST.map(thousands_of);
        let columns: Vec<&str> =
            std::iter::once("").chain(columns.iter().map(String::as_str)).collect();
        for app in &run.applications {
            heading(text, app);
            table(text, &columns);
            row(text, "before the checkpoint", &FIRST.map(|of| rate(app.before.get(&of))));
            for (kind, name) in KINDS {
                let Some(rises) = app.rises(kind).filter(|rises| !rises.rates.is_empty()) else {
                    continue;
                };
                row(text, name, &FIRST.map(|of| rate(rises.rates.get(&of))));
            }
            let ratios = FIRST.map(|of| percent(app.ratio("restored", "floor", of)));
            row(text, "restored to the floor", &ratios);
            if app.p50("standby").is_some() {
                let ratios = FIRST.map(|of| percent(app.ratio("standby", "floor", of)));
                row(text, "standby to the floor", &ratios);
            }
        }
    });
    section(&mut text, "Several at once", "density.svg", |text| {
        table(text, &["", "instances", "all have answered", "Pss of each", "after load"]);
        for app in &run.applications {
            for at_once in &app.at_once {
                row(
                    text,
                    &name_of(app),
                    &[
                        at_once.instances.to_string(),
                        dash(at_once.all_ms.map(milliseconds)),
                        megabytes(at_once.pss_bytes),
                        megabytes(at_once.loaded_pss_bytes),
                    ],
                );
            }
            if let Some(pss) = app.rises("standby").and_then(|rises| rises.parked_pss_bytes) {
                let anonymous = app.rises("standby").and_then(|rises| rises.parked_anonymous_bytes);
                let own = format!("{} (anonymous {})", megabytes(Some(pss)), megabytes(anonymous));
                let cells = ["parked".to_owned(), dash(None), own, dash(None)];
                row(text, &name_of(app), &cells);
            }
        }
    });
    section(&mut text, "Images and checkpoints", "image.svg", |text| {
        table(text, &["", "image", "checkpoint", "of which frozen", "what takes the room"]);
        for app in &run.applications {
            let kinds: Vec<String> = app
                .image_kinds
                .iter()
                .map(|(kind, bytes)| format!("{kind} {}", megabytes(Some(*bytes))))
                .collect();
            row(
                text,
                &name_of(app),
                &[
                    megabytes(app.image_bytes),
                    dash(app.checkpoint_ms.map(milliseconds)),
                    dash(app.frozen_ms.map(milliseconds)),
                    kinds.join(", "),
                ],
            );
        }
    });
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn section(text: &mut String, title: &str, plot: &str, tables: impl FnOnce(&mut String)) {
    // Writing to a String cannot fail.
    let _ = write!(text, "## {title}\n\n![{title}](plots/{plot})\n\n");
    tables(text);
    text.push('\n');
}

fn heading(text: &mut String, app: &Application) {
    let _ = write!(text, "\n### {}\n\n", name_of(app));
}

fn name_of(app: &Application) -> String {
    format!("{}, JDK {}", app.service(), app.release)
}

fn table(text: &mut String, columns: &[&str]) {
    let _ = writeln!(text, "| {} |", columns.join(" | "));
    let _ = writeln!(text, "|---|{}", "--:|".repeat(columns.len() - 1));
}

fn row(text: &mut String, name: &str, cells: &[String]) {
    let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
}

fn start_cells(rises: &Rises) -> [String; 5] {
    if let Some(reason) = &rises.reason {
        let why = reason.lines().next().unwrap_or_default().replace('|', "\\|");
        return ["0".into(), format!("none: {why}"), dash(None), dash(None), dash(None)];
    }
    let at = |percent| dash(rises.at(percent).map(milliseconds));
    [rises.answer_ms.len().to_string(), rises.failures.to_string(), at(50), at(90), at(100)]
}

fn dash(words: Option<String>) -> String {
    words.unwrap_or_else(|| "–".to_owned())
}

fn rate(rate: Option<&f64>) -> String {
    dash(rate.map(|rate| thousands(*rate)))
}

fn percent(ratio: Option<f64>) -> String {
    dash(ratio.map(|ratio| format!("{:.0} %", ratio * 100.0)))
}

fn megabytes(bytes: Option<f64>) -> String {
    dash(bytes.map(|bytes| format!("{:.1} MB", bytes / 1e6)))
}

/// Three digits are enough.
pub(super) fn milliseconds(ms: f64) -> String {
    if ms < 100.0 { format!("{ms:.1}") } else { thousands(ms) }
}

/// Whole, with a comma before each three digits.
pub(super) fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let (sign, digits) = digits.strip_prefix('-').map_or(("", &digits[..]), |rest| ("-", rest));
    let mut text = sign.to_owned();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn thousands_of(number: u64) -> String {
    // Counts of requests are far below 2^32.
    thousands(f64::from(u32::try_from(number).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(milliseconds(41.74), "41.7");
        assert_eq!(milliseconds(4801.2), "4,801");
        assert_eq!(thousands(1_234_567.4), "1,234,567");
        assert_eq!((thousands(999.0), thousands(0.2)), ("999".to_owned(), "0".to_owned()));
    }
}
