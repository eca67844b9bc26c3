//! `cargo xtask faults`: tests that are worth their time now and then, but not each time.
//!
//! In: the checkout. Out: success, or the failed test's own words.
//! Invariant: these are tests of `tests/e2e`, of which a sample runs each time; here they run in full.
//! Not here: what is tested.

use crate::failure::Result;
use crate::layout::{self, cargo};
use crate::process::run;
use crate::setup;
use std::process::Command;

/// A fault at every call, not at a few.
pub(crate) fn faults() -> Result<()> {
    setup::need_strace()?;
    run(e2e("faults::a_fault")?.env("TUB_FAULTS", "all"))
}

/// The end-to-end tests whose names begin with `filter`, one after another, with all they say.
fn e2e(filter: &str) -> Result<Command> {
    setup::need_linker()?;
    let layout = layout::build(None)?;
    let mut command = cargo();
    command.args(["test", "--quiet", "--package", "tub-e2e", "--test", "e2e", "--"]);
    command.args(["--nocapture", "--test-threads", "1", filter]);
    command.env("TUB_BIN", layout.tub()).env("TUB_PROBER", layout.prober());
    command.env("TUB_LAYOUT", &layout.dir);
    Ok(command)
}
