//! A drawing, and the scales that numbers are drawn on.
//!
//! In: shapes. Out: the text of an SVG file.
//! Invariant: nothing depends on the background: none is drawn, and every colour reads on white and on
//! black alike. The same shapes give the same bytes.
//! Not here: what is drawn (`charts`).
//!
//! By hand, since four shapes are all that is needed, and a plotting library brings fonts and
//! backgrounds that are harder to get rid of.

use std::fmt::Write;

/// Of words and axes: contrast above 4 to white and to GitHub's dark grey.
pub(super) const WORDS: &str = "#727d88";
/// Of lines that one need not see.
const GRID: &str = "#8b949e";

/// Where a text stands in relation to its point.
#[derive(Clone, Copy, Debug)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A drawing.
#[derive(Debug)]
pub(super) struct Svg {
    width: f64,
    height: f64,
    body: String,
}

impl Svg {
    pub(super) const fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    fn add(&mut self, shape: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.body, "{shape}");
    }

    pub(super) fn rect(&mut self, (x, y): (f64, f64), width: f64, height: f64, fill: &str) {
        let width = width.max(0.5);
        self.add(format_args!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{fill}"/>"#
        ));
    }

    /// A sample: they may lie upon each other.
    pub(super) fn dot(&mut self, (x, y): (f64, f64), fill: &str) {
        self.add(format_args!(
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{fill}" fill-opacity="0.45"/>"#
        ));
    }

    pub(super) fn line(&mut self, points: &[(f64, f64)], stroke: &str, width: f64) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.add(format_args!(
            r#"<polyline points="{}" fill="none" stroke="{stroke}" stroke-width="{width}" stroke-linejoin="round"/>"#,
            points.join(" ")
        ));
    }

    /// A line of the grid.
    pub(super) fn grid(&mut self, from: (f64, f64), to: (f64, f64)) {
        self.add(format_args!(
            r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="{GRID}" stroke-opacity="0.35"/>"#,
            from.0, from.1, to.0, to.1
        ));
    }

    pub(super) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, fill: &str, words: &str) {
        self.words((x, y), anchor, fill, 12.0, "normal", words);
    }

    pub(super) fn title(&mut self, (x, y): (f64, f64), words: &str) {
        self.words((x, y), Anchor::Start, WORDS, 14.0, "bold", words);
    }

    fn words(
        &mut self,
        (x, y): (f64, f64),
        anchor: Anchor,
        fill: &str,
        size: f64,
        weight: &str,
        words: &str,
    ) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let words = escaped(words);
        self.add(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{fill}" font-size="{size}" font-weight="{weight}">{words}</text>"#
        ));
    }

    /// Squares of these colours, with what they mean, in one line.
    pub(super) fn legend<'a>(
        &mut self,
        (x, y): (f64, f64),
        entries: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) {
        let mut x = x;
        for (fill, words) in entries {
            self.rect((x, y - 9.0), 10.0, 10.0, fill);
            self.text((x + 15.0, y), Anchor::Start, WORDS, words);
            x += 32.0 + 6.6 * float(words.chars().count());
        }
    }

    /// The file. `about` is for those who cannot see it.
    pub(super) fn finish(self, about: &str) -> String {
        let Self { width, height, body } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\" font-family=\"-apple-system, \
             'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif\">\n<title>{}</title>\n{body}</svg>\n",
            escaped(about)
        )
    }
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// How many, for multiplying.
#[expect(clippy::cast_precision_loss, reason = "counts of what is drawn are small")]
pub(super) const fn float(count: usize) -> f64 {
    count as f64
}

/// From numbers to places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
    logarithmic: bool,
}

impl Scale {
    /// `from` is at the place `start`, `to` at `end`.
    pub(super) const fn linear((from, to): (f64, f64), (start, end): (f64, f64)) -> Self {
        Self { from, to, start, end, logarithmic: false }
    }

    /// The same, with equal ratios at equal distances.
    pub(super) const fn logarithmic((from, to): (f64, f64), (start, end): (f64, f64)) -> Self {
        Self { from, to, start, end, logarithmic: true }
    }

    /// Where a number is; those beyond an end are there.
    pub(super) fn at(&self, number: f64) -> f64 {
        let share = if self.logarithmic {
            (number / self.from).ln() / (self.to / self.from).ln()
        } else {
            (number - self.from) / (self.to - self.from)
        };
        self.start + share.clamp(0.0, 1.0) * (self.end - self.start)
    }
}

/// The next number above with one digit that is not zero, of 1, 2 and 5.
pub(super) fn round_up(number: f64) -> f64 {
    let power = 10_f64.powf(number.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|digit| digit * power)
        .into_iter()
        .find(|up| *up >= number)
        .unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_places() {
        let linear = Scale::linear((0.0, 10.0), (100.0, 200.0));
        assert!((linear.at(5.0) - 150.0).abs() < 1e-9 && (linear.at(99.0) - 200.0).abs() < 1e-9);
        let logarithmic = Scale::logarithmic((1.0, 100.0), (0.0, 10.0));
        assert!((logarithmic.at(10.0) - 5.0).abs() < 1e-9);
        assert!((round_up(37.0) - 50.0).abs() < 1e-9 && (round_up(7.0) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn words_are_no_markup() {
        let mut svg = Svg::new(10.0, 10.0);
        svg.text((0.0, 0.0), Anchor::Start, WORDS, "a < b & c");
        assert!(svg.finish("x").contains("a &lt; b &amp; c"));
    }
}
