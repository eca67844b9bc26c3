//! `cargo xtask tidy`: rules of the house that no compiler knows.
//!
//! In: the checkout. Out: every violation at once, each with its file.
//! Invariant: each rule is one that a reader of ARCHITECTURE.md or CONTRIBUTING.md was told of.
//! Not here: formatting and lints, which rustfmt and clippy do better.

mod arrows;
mod text;

use crate::failure::{Failure, Result};
use crate::layout::root;
use crate::process::progress;
use std::fs;
use std::path::{Path, PathBuf};

/// Directories that hold nothing of ours.
const NOT_OURS: [&str; 4] = [".git", "target", "node_modules", ".venv"];

/// Checks everything.
pub(crate) fn run() -> Result<()> {
    let root = root();
    let mut findings = Findings::default();
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    arrows::check(&mut findings)?;
    text::check(&root, &files, &mut findings)?;
    for (name, what) in crate::bench::plot::check(&root)? {
        findings.error(name, what);
    }
    for warning in &findings.warnings {
        progress(&format!("warning: {warning}"));
    }
    if findings.errors.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "tidy: {} violation(s)\n    {}",
        findings.errors.len(),
        findings.errors.join("\n    ")
    )))
}

/// What was found.
#[derive(Debug, Default)]
struct Findings {
    errors: Vec<String>,
    warnings: Vec<String>,
}

impl Findings {
    fn error(&mut self, place: impl std::fmt::Display, what: impl std::fmt::Display) {
        self.errors.push(format!("{place}: {what}"));
    }

    fn warning(&mut self, place: impl std::fmt::Display, what: impl std::fmt::Display) {
        self.warnings.push(format!("{place}: {what}"));
    }
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(dir).map_err(|error| Failure::io("list", dir, &error))?;
    for entry in entries {
        let path = entry.map_err(|error| Failure::io("list", dir, &error))?.path();
        let name = path.file_name().unwrap_or_default();
        if path.is_symlink() || NOT_OURS.iter().any(|not_ours| name == *not_ours) {
            continue;
        }
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
