//! A PostgreSQL server for the tests.
//!
//! In: the machine. Out: a root directory that has one, or the reason why there is none.
//! Invariant: nothing is installed: a server that is not there is unpacked below target/ (`debian`), and
//! none is started here.
//! Not here: what is tested with it (`tests/e2e/tests/databases.rs`).

use crate::debian;
use crate::failure::{Failure, Result};
use crate::layout::target_dir;
use crate::process::step;
use std::fs;
use std::path::{Path, PathBuf};

/// Where Debian's packages have servers, below a root directory: one for each major release.
const SERVERS: &str = "usr/lib/postgresql";

/// The host's, or one unpacked before, or one unpacked now: `/`, or a directory in its place.
pub(crate) fn need_postgres() -> Result<PathBuf> {
    let host = PathBuf::from("/");
    if has_server(&host) {
        return Ok(host);
    }
    let dir = target_dir().join("postgresql");
    if !has_server(&dir) {
        debian::need()?;
        let suite = debian::own_suite()?;
        step("fetching PostgreSQL (unpacked below target/postgresql, not installed)", || {
            unpack(&suite, &dir)
        })?;
    }
    if has_server(&dir) {
        return Ok(dir);
    }
    Err(Failure::new(format!("{}: has no {SERVERS}/*/bin/initdb", dir.display())))
}

fn has_server(root: &Path) -> bool {
    let releases = fs::read_dir(root.join(SERVERS)).into_iter().flatten().flatten();
    releases.map(|release| release.path()).any(|release| release.join("bin/initdb").exists())
}

fn unpack(suite: &str, dir: &Path) -> Result<()> {
    let aside = dir.with_extension("new");
    let _ = fs::remove_dir_all(&aside);
    debian::unpack(suite, &["postgresql"], &aside)?;
    let _ = fs::remove_dir_all(dir);
    fs::rename(&aside, dir).map_err(|error| Failure::io("rename", &aside, &error))
}
