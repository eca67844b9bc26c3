//! Runs, checkpoints, restores and compares subjects, with the real `tub` on the real kernel.
//!
//! In: the names of subjects (`tests/subjects`), or any command. Out: panics that tell everything
//! that is needed to understand a failure.
//! Invariant: every wait is bounded, and every process that was started is gone when its value is
//! dropped, the restored ones included; processes are ended by id, and only after it has been made
//! sure that the id still means the same process.
//! Not here: what is tested; that is `tests/e2e`. Nor any stand-in for kernel, engine or JVM.
#![forbid(unsafe_code)]

mod binaries;
mod command;
mod faults;
mod flavour;
mod instance;
mod process;
mod scratch;
mod serial;
mod visible;

pub use binaries::{
    Product, agent, app_left_open, app_subject, axum_service, c_library, containers, crac_engine,
    criu, jdk_21, node_addon, postgres, prober_binary, product, servers, subject_binary, uvicorn,
};
pub use command::{Finished, Started, Tub, as_user, code, run_bounded};
pub use faults::{Call, Fault, Traced, left_over, strace};
pub use flavour::{Container, Flavour, Memory, Pids, User, every, is_root};
pub use instance::{Instance, Restore, Subject};
pub use process::{Process, wait_for};
pub use scratch::Scratch;
pub use serial::{Alone, alone};
pub use visible::VisibleState;

use std::io::Write;

/// Says that a test, or a part of it, cannot run here, and why.
///
/// Written to stderr as it is, because the test harness swallows what `eprintln!` prints in a
/// test that passes; `cargo xtask test` counts these lines.
pub fn skipped(reason: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}
