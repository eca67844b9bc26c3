//! Servers that many people run, for the tests.
//!
//! In: the machine. Out: a root directory that has them, or the reason why there is none.
//! Invariant: nothing is installed: they are unpacked below target/ (`debian`), and none is started here.
//! Not here: what is tested with them (`tests/e2e/tests/servers.rs`).

use crate::debian;
use crate::failure::{Failure, Result};
use crate::layout::target_dir;
use crate::process::step;
use std::fs;
use std::path::PathBuf;

/// Servers of as many kinds as can be: one process and many, threads, several languages' runtimes.
const PACKAGES: [&str; 8] = [
    "erlang-base",
    "gunicorn",
    "haproxy",
    "lighttpd",
    "memcached",
    "nginx",
    "redis-server",
    "ruby",
];

/// The one unpacked before, or one unpacked now.
pub(crate) fn need_servers() -> Result<PathBuf> {
    let dir = target_dir().join("servers");
    if !dir.exists() {
        debian::need()?;
        let suite = debian::own_suite()?;
        let aside = dir.with_extension("new");
        let _ = fs::remove_dir_all(&aside);
        step(
            "fetching servers to be tested (unpacked below target/servers, not installed)",
            || debian::unpack(&suite, &PACKAGES, &aside),
        )?;
        fs::rename(&aside, &dir).map_err(|error| Failure::io("rename", &aside, &error))?;
    }
    Ok(dir)
}
