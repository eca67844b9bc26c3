//! `cargo xtask faults`, `heaps` and `soak`: tests that are worth their time now and then, but not each time.
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

/// Every collector with every heap, not a few.
pub(crate) fn heaps() -> Result<()> {
    run(e2e("jvm_heaps::")?.env("TUB_ALL_HEAPS", "1"))
}

/// How long it is to go on.
#[derive(clap::Args)]
pub(crate) struct Soak {
    /// Cycles of checkpoint and restore.
    #[arg(long, value_name = "N", default_value_t = 300)]
    cycles: u32,
}

/// Many cycles of one busy program; many instances of one image.
pub(crate) fn soak(options: &Soak) -> Result<()> {
    run(e2e("soak::")?.env("TUB_SOAK_CYCLES", options.cycles.to_string()))
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
