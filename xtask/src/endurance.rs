//! `cargo xtask faults`, `heaps`, `soak` and `jvm-soak`: tests that are worth their time now and then, but not each time.
//!
//! In: the checkout. Out: success, or the failed test's own words.
//! Invariant: these are tests of `tests/e2e`, of which a sample runs each time; here they run in full.
//! Not here: what is tested.

use crate::failure::Result;
use crate::layout::{self, cargo};
use crate::process::run;
use crate::setup;
use std::process::Command;

/// How many of the calls.
#[derive(clap::Args)]
pub(crate) struct Faults {
    /// One of so many parts, all of which together are all calls.
    #[arg(long, value_name = "K/N", default_value = "all")]
    part: String,
}

/// A fault at every call, not at a few.
pub(crate) fn faults(options: &Faults) -> Result<()> {
    setup::need_strace()?;
    run(e2e("faults::a_fault")?.env("TUB_FAULTS", &options.part))
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

/// How many checkpoints in the middle of load.
#[derive(clap::Args)]
pub(crate) struct JvmSoak {
    /// Rounds on each JDK with each collector.
    #[arg(long, value_name = "N", default_value_t = 100)]
    rounds: u32,
}

/// Checkpoints of JVMs that eight connections keep at work, on G1 and ZGC.
pub(crate) fn jvm_soak(options: &JvmSoak) -> Result<()> {
    setup::need_jdk(None)?;
    run(e2e("jvm_soak::")?.env("TUB_JVM_SOAK_ROUNDS", options.rounds.to_string()))
}

/// The end-to-end tests whose names begin with `filter`, one after another, with all they say.
fn e2e(filter: &str) -> Result<Command> {
    setup::need_linker()?;
    let jdk = setup::need_jdk(None).ok();
    let layout = layout::build(jdk.as_ref().map(|jdk| jdk.home.as_path()))?;
    let mut command = cargo();
    command.args(["test", "--quiet", "--package", "tub-e2e", "--test", "e2e", "--"]);
    command.args(["--nocapture", "--test-threads", "1", filter]);
    command.env("TUB_BIN", layout.tub()).env("TUB_PROBER", layout.prober());
    command.env("TUB_LAYOUT", &layout.dir);
    Ok(command)
}
