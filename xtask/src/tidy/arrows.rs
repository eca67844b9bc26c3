//! Which of our crates may use which: the walls of ARCHITECTURE.md, as a table.
//!
//! In: the manifests. Out: every edge that the table does not have.
//! Invariant: an edge that is not in the table is a design change, and wants a decision record.
//! Not here: outside dependencies (`deny.toml`) and what only tests use.

use super::Findings;
use crate::failure::{Failure, Result};
use crate::layout::{cargo, root};
use crate::process::run_quietly;
use serde_json::Value;

/// A crate, and those of ours that it may use.
type Row = (&'static str, &'static [&'static str]);

const ARROWS: &[Row] = &[
    ("tub-units", &[]),
    ("tub-model", &["tub-units"]),
    ("tub-sys", &["tub-units"]),
    ("tub-procfs", &["tub-units"]),
    ("tub-host", &["tub-sys", "tub-procfs", "tub-model", "tub-units"]),
    ("tub-tracee", &["tub-sys", "tub-procfs", "tub-units"]),
    ("tub-image", &["tub-model", "tub-units"]),
    ("tub-control", &["tub-units"]),
    ("tub-restorer-abi", &[]),
    ("tub-restorer", &["tub-restorer-abi", "tub-sys"]),
    (
        "tub-checkpoint",
        &[
            "tub-tracee",
            "tub-procfs",
            "tub-host",
            "tub-image",
            "tub-model",
            // A process that was restored carries the blob, which must be known to be left out.
            "tub-restorer-abi",
            "tub-sys",
            "tub-units",
        ],
    ),
    (
        "tub-restore",
        &["tub-image", "tub-host", "tub-sys", "tub-restorer-abi", "tub-model", "tub-units"],
    ),
    // Another engine lives in the same house as ours: a PID namespace with an init of ours.
    ("tub-criu", &["tub-restore", "tub-procfs", "tub-units"]),
    (
        "tubthumping",
        &[
            "tub-checkpoint",
            "tub-restore",
            "tub-criu",
            "tub-image",
            "tub-host",
            "tub-control",
            "tub-procfs",
            "tub-model",
            "tub-units",
        ],
    ),
    (
        "tub-cli",
        &[
            "tubthumping",
            "tub-control",
            // To show what they hold, never to change it (docs/decisions/0007).
            "tub-checkpoint",
            "tub-host",
            "tub-image",
            "tub-model",
            "tub-units",
        ],
    ),
    // A service carries this, and no engine.
    ("tubthumping-app", &["tub-control"]),
    // Both ends in one process: it waits in its mailbox, and becomes what an image holds.
    ("tub-crlib", &["tubthumping", "tub-control", "tubthumping-app"]),
    ("tubthumping-c", &["tubthumping-app"]),
    ("tubthumping-node", &["tubthumping-app"]),
    ("tub-java-agent", &["tub-control", "tub-units", "tubthumping-app"]),
    ("tub-testkit", &[]),
    ("tub-subjects", &[]),
    // Tests look into images to see what is, and make broken ones.
    ("tub-e2e", &["tub-testkit", "tub-image", "tub-model", "tub-units"]),
    // Fuzzing goes wherever bytes of others are read.
    (
        "tub-fuzz",
        &[
            "tub-control",
            "tub-image",
            "tub-model",
            "tub-procfs",
            "tub-restore",
            "tub-units",
            "tubthumping-app",
        ],
    ),
    ("tub-bench", &[]),
    ("native-service", &[]),
    // An example of an application.
    ("axum-service", &["tubthumping-app"]),
    ("xtask", &[]),
];

/// The blob is no member of the workspace: it is built with flags of its own.
const OUTSIDE_WORKSPACE: &str = "crates/tub-restorer/Cargo.toml";

pub(super) fn check(findings: &mut Findings) -> Result<()> {
    let mut packages = packages(&[])?;
    let outside = root().join(OUTSIDE_WORKSPACE);
    if outside.exists() {
        packages.extend(self::packages(&["--manifest-path", OUTSIDE_WORKSPACE])?);
    }
    for package in &packages {
        check_package(package, findings);
    }
    Ok(())
}

fn packages(more: &[&str]) -> Result<Vec<Value>> {
    let mut command = cargo();
    command.args(["metadata", "--no-deps", "--format-version", "1"]).args(more);
    let text = run_quietly(&mut command)?;
    let metadata: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::new(format!("cargo metadata: not understood: {error}")))?;
    Ok(metadata["packages"].as_array().cloned().unwrap_or_default())
}

fn check_package(package: &Value, findings: &mut Findings) {
    let name = package["name"].as_str().unwrap_or_default();
    let Some((_, allowed)) = ARROWS.iter().find(|(row, _)| *row == name) else {
        findings.error(name, "crate without a row in the table of xtask/src/tidy/arrows.rs");
        return;
    };
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        // A dependency with a path is one of ours; `dev` ones bind nobody who uses the crate.
        if dependency["path"].is_null() || dependency["kind"] == "dev" {
            continue;
        }
        let used = dependency["name"].as_str().unwrap_or_default();
        if !allowed.contains(&used) {
            findings.error(name, format!("may not use {used} (see ARCHITECTURE.md, \"Walls\")"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn errors_of(package: &Value) -> Vec<String> {
        let mut findings = Findings::default();
        check_package(package, &mut findings);
        findings.errors
    }

    #[test]
    fn an_arrow_backwards_is_found() {
        let package = json!({ "name": "tub-image", "dependencies": [
            { "name": "tub-model", "path": "/x", "kind": null },
            { "name": "tub-tracee", "path": "/x", "kind": null },
            { "name": "tub-testkit", "path": "/x", "kind": "dev" },
            { "name": "serde", "path": null, "kind": null },
        ]});
        let errors = errors_of(&package);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with("tub-image: may not use tub-tracee"));
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        assert_eq!(errors_of(&json!({ "name": "tub-new", "dependencies": [] })).len(), 1);
    }

    #[test]
    fn the_table_has_no_cycle() {
        // Rows stand in the order of the flow, so each may only name rows above it.
        for (index, (name, allowed)) in ARROWS.iter().enumerate() {
            for used in *allowed {
                let above = ARROWS[..index].iter().any(|(row, _)| row == used);
                assert!(above, "{name} names {used}, which does not stand above it");
            }
        }
    }
}
