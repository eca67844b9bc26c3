//! uvicorn for the tests.
//!
//! In: a Python with pip. Out: a directory for PYTHONPATH that has it, or the reason why there is none.
//! Invariant: nothing is installed: it lies below target/, and whatever Python the tests take can use it,
//! since it consists of modules in Python alone.
//! Not here: what is tested with it (`tests/e2e/tests/services.rs`).

use crate::failure::{Failure, Result};
use crate::layout::target_dir;
use crate::process::{run_quietly, step};
use crate::setup;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// What was fetched before, or is fetched now.
pub(crate) fn need_uvicorn() -> Result<PathBuf> {
    let dir = target_dir().join("uvicorn");
    if dir.join("uvicorn").exists() {
        return Ok(dir);
    }
    let python = setup::need_python()?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "--version"]);
    if run_quietly(&mut pip).is_err() {
        return Err(Failure::new(format!("{}: has no pip", python.display())));
    }
    step("fetching uvicorn (below target/uvicorn, not installed)", || {
        let aside = dir.with_extension("new");
        let _ = fs::remove_dir_all(&aside);
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        pip.args(["--no-compile", "--only-binary", ":all:", "--retries", "1", "--target"]);
        pip.arg(&aside).arg("uvicorn<1");
        run_quietly(&mut pip)?;
        fs::rename(&aside, &dir).map_err(|error| Failure::io("rename", &aside, &error))
    })?;
    Ok(dir)
}
