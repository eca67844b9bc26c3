//! Rules about the text of files.
//!
//! In: the files of the checkout. Out: violations and warnings.
//! Invariant: a rule that looks for words is not triggered by the line that states it.
//! Not here: the meaning of any text.

use super::Findings;
use crate::failure::{Failure, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// More lines than this are too many; a file this long has two subjects.
const TOO_LONG: usize = 1000;
/// From here on it is time to look for the second subject.
const LONG: usize = 600;

/// Crates in which `unsafe` is allowed, and where; all others forbid it in their root.
const MAY_BE_UNSAFE: [&str; 12] = [
    "crates/tub-sys/",
    "crates/tub-tracee/",
    "crates/tub-restorer/",
    "crates/tub-restore/",
    // The mailbox, descriptors, and the fork that starts an engine.
    "crates/tub-crlib/",
    "crates/tubthumping-app/",
    "bindings/c/",
    "bindings/java/agent/",
    // One function of OpenSSL's.
    "bindings/node/",
    // One pre_exec.
    "bench/src/lib.rs",
    // libFuzzer's macros export C functions.
    "tests/fuzz/engine/",
    // Subjects imitate any program, also careless ones.
    "tests/subjects/",
];

/// Hosts of package registries, in two parts: files name packages, never where they come from.
const REGISTRIES: [(&str, &str); 6] = [
    ("crates", "io"),
    ("maven", "org"),
    ("repo.maven.apache", "org"),
    ("pypi", "org"),
    ("npmjs", "org"),
    ("npmjs", "com"),
];

pub(super) fn check(root: &Path, files: &[PathBuf], findings: &mut Findings) -> Result<()> {
    for path in files {
        let name = path.strip_prefix(root).unwrap_or(path);
        let name = name.to_string_lossy();
        // Fixtures and other data need not be text.
        let bytes = fs::read(path).map_err(|error| Failure::io("read", path, &error))?;
        let Ok(text) = String::from_utf8(bytes) else { continue };
        check_words(&name, &text, findings);
        if name.ends_with(".rs") {
            check_rust(&name, &text, findings);
        }
        if name.ends_with(".md") {
            check_links(path, &name, &text, findings);
        }
    }
    check_changelog(root, findings);
    check_exit_codes(root, findings);
    check_quoted_errors(root, files, findings);
    Ok(())
}

fn check_words(name: &str, text: &str, findings: &mut Findings) {
    // cargo writes the index's name into the lock file, and only there.
    if !name.ends_with("Cargo.lock") {
        for (host, domain) in REGISTRIES {
            if text.contains(&format!("{host}.{domain}")) {
                findings.error(name, format!("names the package registry {host} (.{domain})"));
            }
        }
    }
}

fn check_rust(name: &str, text: &str, findings: &mut Findings) {
    if !text.starts_with("//!") {
        findings.error(name, "does not start with a module header (//! what it does)");
    }
    let lines = text.lines().count();
    if lines > TOO_LONG {
        findings.error(name, format!("{lines} lines; more than {TOO_LONG} are too many"));
    } else if lines > LONG {
        findings.warning(name, format!("{lines} lines; look for the second subject in it"));
    }
    let is_root = name.ends_with("src/lib.rs") || name.ends_with("src/main.rs");
    let forbids = text.contains("#![forbid(unsafe_code)]");
    if is_root && !forbids && !MAY_BE_UNSAFE.iter().any(|place| name.starts_with(place)) {
        findings.error(name, "crate root without #![forbid(unsafe_code)]");
    }
    for (number, line) in (1..).zip(text.lines()) {
        let Some(comment) = comment_of(line) else { continue };
        let todo = comment.trim_start().strip_prefix("TODO");
        if todo.is_some_and(|rest| !rest.starts_with("(#")) {
            findings.error(format!("{name}:{number}"), "TODO without an issue: write TODO(#n)");
        }
        if comment.contains("SAFETY:") && comment.contains("valid parameters") {
            findings.error(format!("{name}:{number}"), "SAFETY comment that says nothing");
        }
    }
}

/// The comment of a line that is nothing but a comment, or follows code after two blanks.
fn comment_of(line: &str) -> Option<&str> {
    let trimmed = line.trim_start();
    trimmed.strip_prefix("//").or_else(|| line.split_once("  // ").map(|(_, comment)| comment))
}

fn check_links(path: &Path, name: &str, text: &str, findings: &mut Findings) {
    let dir = path.parent().expect("a file lies in a directory");
    for link in links(text) {
        let file = link.split('#').next().unwrap_or_default();
        if file.is_empty() || file.contains("://") || file.starts_with("mailto:") {
            continue;
        }
        if !dir.join(file).exists() {
            findings.error(name, format!("link to {file}, which does not exist"));
        }
    }
}

/// The targets of `[text](target)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| {
        let (target, _) = rest.split_once(')')?;
        (!target.contains(char::is_whitespace)).then_some(target)
    })
}

fn check_changelog(root: &Path, findings: &mut Findings) {
    let text = fs::read_to_string(root.join("CHANGELOG.md")).unwrap_or_default();
    if !text.contains("## [Unreleased]") {
        findings.error("CHANGELOG.md", "has no section [Unreleased]");
    }
}

/// Who searches for the text of an error finds it only if it is the text that is printed.
fn check_quoted_errors(root: &Path, files: &[PathBuf], findings: &mut Findings) {
    const PAGE: &str = "docs/troubleshooting.md";
    let is_source = |path: &&PathBuf| path.extension().is_some_and(|it| it == "rs" || it == "java");
    let sources = files.iter().filter(is_source).filter_map(|path| fs::read_to_string(path).ok());
    // A text that goes on in the next line of the source is one text.
    let on_one_line = |text: String| {
        let mut parts = text.split("\\\n");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |all, part| all + part.trim_start())
    };
    let sources: Vec<String> = sources.map(on_one_line).collect();
    let page = fs::read_to_string(root.join(PAGE)).unwrap_or_default();
    for quoted in page.lines().filter_map(quoted_error) {
        let is_in = |source: &String| quoted.split('…').all(|part| source.contains(part));
        if !sources.iter().any(is_in) {
            findings.error(PAGE, format!("no source has the text: {quoted}"));
        }
    }
}

/// The first quotation of a row of a table.
fn quoted_error(row: &str) -> Option<&str> {
    row.strip_prefix("| `")?.split('`').next()
}

/// The exit codes are a contract, so the page that states them must state all of them.
fn check_exit_codes(root: &Path, findings: &mut Findings) {
    let source = root.join("crates/tub-cli/src/report.rs");
    let code = fs::read_to_string(source).unwrap_or_default();
    let page = fs::read_to_string(root.join("docs/exit-codes.md")).unwrap_or_default();
    for (name, number) in exit_codes(&code) {
        if !page.contains(&format!("| {number} |")) {
            findings.error("docs/exit-codes.md", format!("has no row for {number} ({name})"));
        }
    }
}

fn exit_codes(code: &str) -> impl Iterator<Item = (&str, u8)> {
    let body = code.split_once("enum Code {").map_or("", |(_, rest)| rest);
    let body = body.split_once('}').map_or("", |(body, _)| body);
    body.lines().filter_map(|line| {
        let (name, number) = line.trim().strip_suffix(',')?.split_once(" = ")?;
        Some((name, number.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors_in(name: &str, text: &str) -> Vec<String> {
        let mut findings = Findings::default();
        check_words(name, text, &mut findings);
        check_rust(name, text, &mut findings);
        findings.errors
    }

    #[test]
    fn good_file() {
        let text = "//! Good.\n#![forbid(unsafe_code)]\nfn f() {}  // TODO(#3): more\n";
        assert_eq!(errors_in("crates/x/src/lib.rs", text), Vec::<String>::new());
    }

    #[test]
    fn bad_files() {
        assert_eq!(errors_in("crates/x/src/a.rs", "fn f() {}\n").len(), 1);
        assert_eq!(errors_in("crates/x/src/lib.rs", "//! X.\n").len(), 1);
        assert_eq!(errors_in("crates/x/src/a.rs", "//! X.\n// TODO: some day\n").len(), 1);
        let empty_words = format!("//! X.\n// SAFETY: {} parameters\n", "valid");
        assert_eq!(errors_in("crates/x/src/a.rs", &empty_words).len(), 1);
        let long = format!("//! X.\n{}", "//\n".repeat(TOO_LONG));
        assert_eq!(errors_in("crates/x/src/a.rs", &long).len(), 1);
        let host = format!("//! See https://{}.{}\n", REGISTRIES[0].0, REGISTRIES[0].1);
        assert_eq!(errors_in("crates/x/src/a.rs", &host).len(), 1);
    }

    #[test]
    fn links_are_found() {
        let text = "[a](b.md#c) [d](https://e.f) x](not a link) [g](#h)";
        assert_eq!(links(text).collect::<Vec<_>>(), ["b.md#c", "https://e.f", "#h"]);
    }

    #[test]
    fn quoted_errors_are_found() {
        let page = "| text | what |\n|---|---|\n| `a … b` with `c` | d |\n| e | `f` |\n";
        let quoted: Vec<_> = page.lines().filter_map(quoted_error).collect();
        assert_eq!(quoted, ["a … b"]);
    }

    #[test]
    fn exit_codes_are_found() {
        let code = "enum Code {\n    /// Doc.\n    Failed = 1,\n    Usage = 2,\n}\nx = 3,";
        assert_eq!(exit_codes(code).collect::<Vec<_>>(), [("Failed", 1), ("Usage", 2)]);
    }
}
