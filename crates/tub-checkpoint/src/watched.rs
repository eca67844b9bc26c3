//! Where what an inotify instance watches lies.
//!
//! In: devices and inode numbers, and hints where to look. Out: paths. Invariant: what is told was
//! seen at that path a moment ago.
//!
//! The kernel tells device, inode and file handle of a watch, and no path (proc_pid_fdinfo(5)).
//! Opening a handle needs CAP_DAC_READ_SEARCH; an ordinary user can only go and look. Near the
//! process's own files it is usually found at once, and then in the rest of its file system.

use crate::SurveyedFd;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use tub_procfs::smaps::SmapsRecord;

/// How many directory entries are looked at before the search is given up: a few seconds' worth.
const ENTRIES_MAX: usize = 400_000;

/// Paths of watched files and directories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched(HashMap<(u64, u64), String>);

impl Watched {
    /// The path of an inode of a device.
    pub fn path(&self, dev: u64, ino: u64) -> Option<&str> {
        self.0.get(&(dev, ino)).map(String::as_str)
    }

    /// Looks for everything that `fds` watch. With `known`, from a search before, only where it was
    /// found then and near the process's own files.
    pub(crate) fn find(
        fds: &[SurveyedFd],
        mappings: &[SmapsRecord],
        cwd: &str,
        known: Option<&Self>,
    ) -> Self {
        let watches = fds.iter().flat_map(|fd| &fd.info.inotify);
        let wanted: HashSet<_> = watches.map(|watch| (watch.dev, watch.ino)).collect();
        let mut search = Search { wanted, found: Self::default(), entries: 0 };
        if search.is_over() {
            return search.found;
        }
        if let Some(known) = known {
            known.0.values().for_each(|path| search.look_at(Path::new(path)));
        }
        let files = fds.iter().map(|fd| fd.link.as_str());
        let mapped = mappings.iter().filter_map(|mapping| mapping.map.path.as_deref());
        let near: Vec<PathBuf> = [cwd, "/etc", "/tmp"]
            .into_iter()
            .chain(files)
            .chain(mapped)
            .filter(|path| path.starts_with('/'))
            .flat_map(|path| Path::new(path).ancestors().map(Path::to_owned))
            .collect();
        near.iter().for_each(|path| search.look_at(path));
        // First the working directory, which is where an application watches its own files.
        search.walk(Path::new(cwd));
        if known.is_none() {
            search.devices().iter().for_each(|mount| search.walk(mount));
        }
        search.found
    }
}

struct Search {
    wanted: HashSet<(u64, u64)>,
    found: Watched,
    entries: usize,
}

impl Search {
    fn is_over(&self) -> bool {
        self.found.0.len() == self.wanted.len() || self.entries > ENTRIES_MAX
    }

    /// Takes a path if it is one of those wanted.
    fn look_at(&mut self, path: &Path) {
        let Ok(meta) = fs::symlink_metadata(path) else { return };
        let key = (meta.dev(), meta.ino());
        if self.wanted.contains(&key)
            && let Some(path) = path.to_str()
        {
            self.found.0.entry(key).or_insert_with(|| path.to_owned());
        }
    }

    /// Where the file systems that hold what is still wanted are mounted.
    fn devices(&self) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let missing: HashSet<u64> =
            self.wanted.iter().filter(|key| !self.found.0.contains_key(key)).map(|k| k.0).collect();
        // 36 35 98:0 / /mnt1 rw,noatime …: the fifth field is the mount point.
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4).map(unescaped));
        let on = |path: &String| fs::metadata(path).is_ok_and(|meta| missing.contains(&meta.dev()));
        points.filter(on).map(PathBuf::from).collect()
    }

    /// Walks through a directory, level by level, without leaving its file system.
    fn walk(&mut self, top: &Path) {
        let Ok(dev) = fs::metadata(top).map(|meta| meta.dev()) else { return };
        let inodes: HashSet<u64> = self.wanted.iter().map(|key| key.1).collect();
        let mut queue = VecDeque::from([top.to_owned()]);
        while let Some(dir) = queue.pop_front() {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                self.entries += 1;
                if inodes.contains(&entry.ino()) {
                    self.look_at(&entry.path());
                }
                if self.is_over() {
                    return;
                }
                let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let same = || entry.metadata().is_ok_and(|meta| meta.dev() == dev);
                if is_dir && same() {
                    queue.push_back(entry.path());
                }
            }
        }
    }
}

/// A path of mountinfo: blanks, tabs, newlines and backslashes in it are three octal digits each
/// (proc_pid_mountinfo(5)).
fn unescaped(path: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(path.to_owned(), |path, (escape, plain)| path.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_with_a_blank_is_found() {
        assert_eq!(unescaped("/media/USB\\040disk"), "/media/USB disk");
        assert_eq!(unescaped("/a\\134040b\\011"), "/a\\040b\t");
        assert_eq!(unescaped("/plain"), "/plain");
    }
}
