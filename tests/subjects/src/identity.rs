//! What /proc says about who we are: command line, environment, executable, auxiliary vector.

use crate::stage::{Promise, Stage};
use std::fs;
use std::io;

/// Compares the four of them.
pub(crate) fn identity(stage: &'static Stage) -> io::Result<()> {
    let cmdline = fs::read("/proc/self/cmdline")?;
    let environ = fs::read("/proc/self/environ")?;
    let auxv = fs::read("/proc/self/auxv")?;
    let exe = fs::read_link("/proc/self/exe")?;
    let stack = has_stack()?;
    stage.across()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\0', " ");
    let now = fs::read("/proc/self/cmdline")?;
    stage.same("command line", &text(&cmdline), &text(&now));
    let now = fs::read("/proc/self/environ")?;
    stage.same("environment", &text(&environ), &text(&now));
    stage.same("auxiliary vector", &auxv, &fs::read("/proc/self/auxv")?);
    stage.same("mapping named [stack]", &stack, &has_stack()?);
    let now = stage.works("link to the executable", fs::read_link("/proc/self/exe"));
    // Without namespaces the kernel lets nobody but root change the link.
    if stage.promised(Promise::SameIds) || !stage.promised(Promise::Restored) {
        stage.same("executable", &Some(exe), &now);
    }
    Ok(())
}

fn has_stack() -> io::Result<bool> {
    Ok(fs::read_to_string("/proc/self/maps")?.contains("[stack]"))
}
