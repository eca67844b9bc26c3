//! Where and as whom everything that is measured runs.
//!
//! In: the product as it was built. Out: a copy of it, a directory, a user.
//! Invariant: what is measured runs as an ordinary user; the directory is gone at the end, whatever
//! happened in between.
//! Not here: what runs there.

use crate::failure::{Failure, Result};
use crate::layout::{Layout, copy_tree};
use crate::process::progress;
use crate::setup;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The ordinary user when started by root: `nobody`, which every machine has.
const NOBODY: u32 = 65534;

/// A directory below the temporary one, removed at the end.
pub(crate) struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    /// Makes it; `purpose` is part of its name.
    pub(crate) fn new(purpose: &str, keep: bool) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("tub-{purpose}-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| Failure::io("create", &path, &error))?;
        let scratch = Self { path, keep };
        fs::set_permissions(&scratch.path, fs::Permissions::from_mode(0o755))
            .map_err(|error| Failure::io("change mode of", &scratch.path, &error))?;
        Ok(scratch)
    }
}

/// Removes directories of runs that somebody has stopped: a signal leaves no time for it, and images are
/// large. Only for a purpose that keeps none on request.
pub(crate) fn remove_leftovers(purpose: &str) {
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| pid_of(name, purpose));
        let is_over = pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        // Somebody else's cannot be removed, and is none of our business.
        if is_over && fs::remove_dir_all(entry.path()).is_ok() {
            progress(&format!("{}: of a run that was stopped, removed", entry.path().display()));
        }
    }
}

/// From the name of such a directory.
fn pid_of(name: &str, purpose: &str) -> Option<u32> {
    name.strip_prefix("tub-")?.strip_prefix(purpose)?.strip_prefix('-')?.parse().ok()
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.keep {
            progress(&format!("kept: {}", self.path.display()));
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            progress(&format!("{}: cannot remove: {error}", self.path.display()));
        }
    }
}

/// How and as whom services are run.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// The product.
    pub(crate) layout: Layout,
    /// The ordinary user to run everything as; `None` where we are one.
    pub(crate) uid: Option<u32>,
    /// Whether each instance can have a network namespace of its own.
    pub(crate) netns: bool,
    /// A directory that belongs to that user.
    pub(crate) scratch: PathBuf,
}

impl Stage {
    /// Decides as whom and where everything runs.
    pub(crate) fn set(built: &Layout, scratch: &Scratch) -> Result<Self> {
        // A checkout below /root cannot be reached by the ordinary user, so a copy is used always.
        let layout = Layout { dir: scratch.path.join("tub") };
        copy_tree(&built.dir, &layout.dir)?;
        let uid = setup::is_root()?.then_some(NOBODY);
        let mut stage = Self { layout, uid, netns: true, scratch: scratch.path.clone() };
        stage.give(&stage.scratch)?;
        let mut probe = stage.command(&stage.layout.prober());
        stage.netns = match probe.arg("netns").stdout(Stdio::null()).status() {
            Ok(status) => status.success(),
            Err(error) => return Err(Failure::new(format!("tub-prober: cannot start: {error}"))),
        };
        Ok(stage)
    }

    /// A command with a clean environment: cargo's variables are none of a service's business.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir(&self.scratch);
        for name in ["PATH", "LANG", "LC_ALL", "TZ"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("HOME", &self.scratch);
        command
    }

    /// The same, run by the ordinary user.
    pub(crate) fn command_of_user(&self, program: &Path) -> Command {
        let mut command = self.command(program);
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// Makes a file or directory the ordinary user's.
    pub(crate) fn give(&self, path: &Path) -> Result<()> {
        let Some(uid) = self.uid else { return Ok(()) };
        chown(path, Some(uid), Some(uid)).map_err(|error| Failure::io("give away", path, &error))
    }

    /// Whose account that is, in words.
    pub(crate) fn account(&self) -> String {
        match self.uid {
            Some(uid) => format!("an ordinary user (uid {uid}; started by root)"),
            None => "the user who started it".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_names_are_leftovers() {
        assert_eq!(pid_of("tub-bench-123", "bench"), Some(123));
        assert_eq!(pid_of("tub-bench-12x", "bench"), None);
        assert_eq!(pid_of("tub-test-123", "bench"), None);
    }
}
