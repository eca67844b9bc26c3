//! `cargo xtask dist`: one archive that runs on any x86-64 Linux.
//!
//! In: what `build` laid out. Out: `target/dist/tubthumping-VERSION-x86_64-linux.tar.gz` and its sum.
//! Invariant: the same inputs give the same archive, so that others can check it.
//! Not here: publishing.

use crate::failure::{Failure, Result};
use crate::layout::{Layout, copy_tree, root, target_dir};
use crate::process::{run_quietly, step};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Files of the checkout that belong into the archive.
const DOCUMENTS: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"];
/// What `build` makes for the demo and for benchmarks only.
const NOT_FOR_USERS: [&str; 3] = ["bin/tub-prober", "bin/tub-ballast", "bin/native-service"];

/// Packs the product; gives the archive.
pub(crate) fn run(layout: &Layout) -> Result<PathBuf> {
    let name = format!("tubthumping-{}-x86_64-linux", env!("CARGO_PKG_VERSION"));
    let dist = target_dir().join("dist");
    let tree = dist.join(&name);
    if tree.exists() {
        fs::remove_dir_all(&tree).map_err(|error| Failure::io("remove", &tree, &error))?;
    }
    copy_tree(&layout.dir, &tree)?;
    for file in NOT_FOR_USERS.map(|file| tree.join(file)) {
        fs::remove_file(&file).map_err(|error| Failure::io("remove", &file, &error))?;
    }
    for file in DOCUMENTS {
        let source = root().join(file);
        fs::copy(&source, tree.join(file)).map_err(|error| Failure::io("copy", &source, &error))?;
    }
    let archive = dist.join(format!("{name}.tar.gz"));
    step("packing", || {
        let mut tar = Command::new("tar");
        tar.args([
            "--create",
            "--gzip",
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
        ]);
        tar.args(["--mtime=@0", "--file"]).arg(&archive).arg("--directory").arg(&dist).arg(&name);
        run_quietly(tar.env("GZIP", "-n"))?;
        let sum = run_quietly(Command::new("sha256sum").arg(&archive))?;
        let digest = sum.split_whitespace().next().unwrap_or_default();
        let line = format!("{digest}  {name}.tar.gz\n");
        let file = dist.join(format!("{name}.tar.gz.sha256"));
        fs::write(&file, line).map_err(|error| Failure::io("write", &file, &error))
    })?;
    Ok(archive)
}
