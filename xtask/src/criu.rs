//! A CRIU for the tests.
//!
//! In: the machine. Out: the path of a CRIU that works here, or the reason why there is none.
//! Invariant: nothing is installed: it is unpacked below target/ (`debian`).
//! Not here: what is tested with it (`tests/e2e`).
//!
//! Why so: Debian 12's CRIU 3.17 does not start on Linux 6.18, and 4.1 cannot dump inet sockets on
//! Linux 6.16 or later (SO_PASSCRED is refused there on sockets that are not unix ones).

use crate::debian;
use crate::failure::{Failure, Result};
use crate::layout::target_dir;
use crate::process::{run_quietly, step};
use crate::setup::is_root;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The suite that has it.
pub(crate) const SUITE: &str = "sid";
/// The first version that does what the tests need.
const OLDEST: (u32, u32) = (4, 2);
/// Seconds, longer than the probe can take.
const SLEEPS: &str = "60";

/// The CRIU that `TUB_CRIU` names, or that was unpacked before, or one unpacked now.
pub(crate) fn need_criu() -> Result<PathBuf> {
    if !is_root()? {
        return Err(Failure::new("CRIU wants root"));
    }
    if let Some(named) = env::var_os("TUB_CRIU").map(PathBuf::from) {
        return works(&named).map(|()| named);
    }
    let dir = unpacked();
    let program = dir.join("criu");
    if !program.exists() {
        debian::need()
            .map_err(|error| error.hint("name one of version 4.2 or later in TUB_CRIU"))?;
        step("fetching CRIU (unpacked below target/criu, not installed)", || unpack(&dir))?;
    }
    works(&program).map(|()| program)
}

fn unpacked() -> PathBuf {
    target_dir().join("criu")
}

/// Whether it is new enough, says itself that this host has what it needs, and takes and brings back
/// the simplest of processes without us: where it cannot, nothing can be learned about us.
fn works(program: &Path) -> Result<()> {
    let version = run_quietly(Command::new(program).arg("--version"))?;
    let found = version.lines().find_map(|line| line.strip_prefix("Version: ")).unwrap_or("none");
    if parsed(found).is_none_or(|version| version < OLDEST) {
        let (major, minor) = OLDEST;
        return Err(Failure::new(format!("CRIU {found}: {major}.{minor} or later is needed")));
    }
    run_quietly(Command::new(program).arg("check"))?;
    takes_a_sleeper(program)
}

/// A `sleep` in a session of its own, whom it is to dump and to bring back.
fn takes_a_sleeper(program: &Path) -> Result<()> {
    let images = target_dir().join("criu-probe");
    let _ = fs::remove_dir_all(&images);
    fs::create_dir_all(&images).map_err(|error| Failure::io("make", &images, &error))?;
    let mut sleeper = Command::new("setsid")
        .args(["sleep", SLEEPS])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| Failure::new(format!("setsid: cannot run: {error}")))?;
    let pid = sleeper.id().to_string();
    let criu = |verb: &[&str]| {
        // A dump or restore of one small process takes milliseconds.
        let mut command = Command::new("timeout");
        command.arg("20").arg(program).args(verb).arg("--images-dir").arg(&images);
        run_quietly(&mut command).map(drop)
    };
    let dumped = criu(&["dump", "--tree", &pid]);
    // Dead if it was dumped. If not, it must not outlive us.
    let _ = sleeper.kill();
    let _ = sleeper.wait();
    let outcome = dumped.and_then(|()| {
        let pidfile = images.join("pid");
        let restored =
            criu(&["restore", "--restore-detached", "--pidfile", &pidfile.display().to_string()]);
        if let Ok(pid) = fs::read_to_string(&pidfile) {
            run_quietly(Command::new("kill").args(["-KILL", pid.trim()]))?;
        }
        restored
    });
    let _ = fs::remove_dir_all(&images);
    outcome
}

fn parsed(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim().split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Fetches the package and all it needs, and unpacks them.
fn unpack(dir: &Path) -> Result<()> {
    let aside = dir.with_extension("new");
    let _ = fs::remove_dir_all(&aside);
    debian::unpack(SUITE, &["criu"], &aside.join("root"))?;
    write_wrapper(&aside.join("criu"), "root")?;
    let _ = fs::remove_dir_all(dir);
    fs::rename(&aside, dir).map_err(|error| Failure::io("rename", &aside, &error))
}

/// A script that runs the CRIU unpacked at `root`, beside or below the script, with its own loader and
/// C library, which may be newer than ours.
pub(crate) fn write_wrapper(script: &Path, root: &str) -> Result<()> {
    let text = format!(
        "#!/bin/sh\nroot=$(dirname \"$0\")/{root}\nlib=$root/usr/lib/x86_64-linux-gnu\nexec \
         \"$lib/ld-linux-x86-64.so.2\" --library-path \"$lib\" --argv0 criu \"$root/usr/sbin/criu\" \
         \"$@\"\n"
    );
    fs::write(script, text).map_err(|error| Failure::io("write", script, &error))?;
    fs::set_permissions(script, fs::Permissions::from_mode(0o755))
        .map_err(|error| Failure::io("change", script, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(parsed("4.2.1"), Some((4, 2)));
        assert!(parsed("4.10").unwrap() > OLDEST && parsed("3.17.1").unwrap() < OLDEST);
        assert_eq!(parsed("none"), None);
    }
}
