//! What a JVM would have removed at its end, had it been given the time: its performance data, by
//! which tools go on listing it.
//!
//! In: a tree that has been ended. Out: nothing. Invariant: only the file that a member had mapped is
//! removed, and no link is followed.

use crate::SurveyedTree;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::fstatat;
use nix::unistd::{UnlinkatFlags, unlinkat};
use tub_procfs::maps::MapsRecord;
use tub_sys::Errno;

/// Removes what the members of `tree` have left behind. What cannot be removed stays, as after any
/// other SIGKILL; the next JVM of that user removes it.
pub(crate) fn remove(tree: &SurveyedTree) {
    for member in &tree.members {
        let maps = member.mappings.iter().map(|record| &record.map);
        for map in maps.filter(|map| map.perms.shared && !map.deleted) {
            let _ = remove_performance_data(map);
        }
    }
}

fn remove_performance_data(map: &MapsRecord) -> Result<(), Errno> {
    let parts = map.path.as_deref().and_then(|path| path.rsplit_once('/'));
    let Some((directory, name)) = parts.filter(|parts| parts.0.contains("/hsperfdata_")) else {
        return Ok(());
    };
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let directory = openat2(AT_FDCWD, directory, how)?;
    let found = fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if found.st_ino == map.inode {
        unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir)?;
    }
    Ok(())
}
