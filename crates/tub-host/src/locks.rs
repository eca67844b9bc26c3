//! Whether the file locks of an image can be had here.
//!
//! In: a checkpoint, `/proc/locks`. Out: every lock that somebody else holds now. Invariant: no
//! lock is taken: whether one can be had is certain only for whoever tries.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use tub_model::{Checkpoint, FileKind, FileLock, LockHolder};
use tub_procfs::fdinfo::LockKind;
use tub_procfs::locks::HeldLockRecord;
use tub_units::HostPid;

/// A lock that the image wants and somebody else holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockConflict {
    /// The file.
    pub path: String,
    /// What is wanted.
    pub wanted: FileLock,
    /// Who holds a lock that conflicts, where the kernel says it.
    pub holder: Option<HostPid>,
    /// The holder's name.
    pub name: String,
}

impl fmt::Display for LockConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of file {}: ", self.wanted, self.path.escape_debug())?;
        match self.holder {
            Some(pid) => write!(f, "held by process {pid} ({})", self.name),
            None => f.write_str("held by another open file"),
        }
    }
}

/// Every lock of `checkpoint` that somebody holds now.
pub fn check_locks(checkpoint: &Checkpoint) -> Vec<LockConflict> {
    let held = std::fs::read("/proc/locks").unwrap_or_default();
    let held = tub_procfs::locks::parse(&held).unwrap_or_default();
    let files = &checkpoint.files;
    let mut conflicts = Vec::new();
    for file in files.iter().filter(|file| !file.locks.is_empty()) {
        let (FileKind::Regular { file: tub_model::FileIdentity { path, .. }, .. }
        | FileKind::Directory { path, .. }) = &file.kind
        else {
            continue;
        };
        let Ok(meta) = std::fs::metadata(path) else { continue };
        for wanted in &file.locks {
            let here = held.iter().filter(|held| (held.dev, held.ino) == (meta.dev(), meta.ino()));
            let Some(other) = here.into_iter().find(|held| excludes(held, *wanted)) else {
                continue;
            };
            let name = other.pid.and_then(|pid| {
                Some(std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned())
            });
            conflicts.push(LockConflict {
                path: path.clone(),
                wanted: *wanted,
                holder: other.pid,
                name: name.unwrap_or_default(),
            });
        }
    }
    conflicts
}

/// Whether a lock that is held keeps another one from being taken. `flock(2)` and `fcntl(2)` do not
/// know of each other.
fn excludes(held: &HeldLockRecord, wanted: FileLock) -> bool {
    let flock = held.lock.kind == LockKind::Flock;
    let overlap = held.lock.start <= wanted.end.unwrap_or(u64::MAX)
        && wanted.start <= held.lock.end.unwrap_or(u64::MAX);
    flock == (wanted.holder == LockHolder::Flock)
        && (held.lock.exclusive || wanted.exclusive)
        && overlap
}
