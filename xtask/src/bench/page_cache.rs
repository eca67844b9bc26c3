//! What the kernel keeps of files in memory, and that it forgets it.
//!
//! In: files and directories. Out: nothing of them in the page cache, as far as that can be had.
//! Invariant: no privilege is used, and nothing but these files is touched: what others keep mapped
//! stays, and is counted.
//! Not here: dropping all caches of a host, which is not ours to do.

use crate::failure::{Failure, Result};
use crate::process::run_quietly;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Forgotten {
    pub(super) files: usize,
    /// Sizes of all files.
    pub(super) bytes: u64,
    /// What was kept of them all the same, since somebody maps it; `None` where nobody can tell.
    pub(super) left_bytes: Option<u64>,
}

impl Forgotten {
    pub(super) fn to_json(self) -> Value {
        json!({ "files": self.files, "bytes": self.bytes, "left_in_memory_bytes": self.left_bytes })
    }
}

/// Has the kernel forget what it keeps of the files at, and below, `paths`.
pub(super) fn forget(paths: &[&Path]) -> Result<Forgotten> {
    let mut files = Vec::new();
    for path in paths {
        collect(path, &mut files)?;
    }
    let mut bytes = 0;
    for path in &files {
        bytes += forget_one(path).map_err(|error| Failure::io("evict", path, &error))?;
    }
    Ok(Forgotten { files: files.len(), bytes, left_bytes: left(&files) })
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let metadata = fs::symlink_metadata(path).map_err(|error| Failure::io("stat", path, &error))?;
    if metadata.is_file() {
        files.push(path.to_owned());
    } else if metadata.is_dir() {
        let entries = fs::read_dir(path).map_err(|error| Failure::io("list", path, &error))?;
        for entry in entries {
            let entry = entry.map_err(|error| Failure::io("list", path, &error))?;
            collect(&entry.path(), files)?;
        }
    }
    Ok(())
}

fn forget_one(path: &Path) -> io::Result<u64> {
    let file = File::open(path)?;
    // Pages that are not on the disk yet would stay (posix_fadvise(2)).
    file.sync_data()?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(file.metadata()?.len())
}

/// How much of the files is in memory, as util-linux's fincore(1) tells.
fn left(files: &[PathBuf]) -> Option<u64> {
    let mut command = Command::new("fincore");
    command.args(["--bytes", "--noheadings", "--raw", "--output", "RES"]).args(files);
    let text = run_quietly(&mut command).ok()?;
    text.lines().map(|line| line.trim().parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mapped_by_nobody_is_forgotten() {
        let dir = std::env::temp_dir().join(format!("tub-forget-{}", std::process::id()));
        fs::create_dir_all(dir.join("below")).unwrap();
        fs::write(dir.join("below/file"), vec![7; 1 << 20]).unwrap();
        let forgotten = forget(&[&dir]);
        fs::remove_dir_all(&dir).unwrap();
        let forgotten = forgotten.unwrap();
        assert_eq!((forgotten.files, forgotten.bytes), (1, 1 << 20));
        // A temporary directory in memory forgets nothing, of course.
        assert!(matches!(forgotten.left_bytes, None | Some(0 | 0x10_0000)), "{forgotten:?}");
    }
}
