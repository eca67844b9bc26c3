//! Which mapped files could not be mapped again.
//!
//! In: mappings, and the process's root. Out: paths. Invariant: a path is named only where something else
//! lies there for certain, or nothing; what nobody lets us look at is taken for what it was.
//! Not here: open files, of which the kernel tells more (`survey`).

use crate::survey::bytes;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use tub_procfs::maps::MapsRecord;
use tub_procfs::smaps::SmapsRecord;
use tub_units::HostPid;

/// Why what is mapped under a path cannot be mapped from there again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmappable {
    /// The path leads to something else, or nowhere.
    Astray,
    /// It is no regular file.
    Device,
}

/// The paths of `mappings` that a restore could not map again.
pub(crate) fn unmappable(pid: HostPid, mappings: &[SmapsRecord]) -> BTreeMap<String, Unmappable> {
    let mut files: BTreeMap<&str, &MapsRecord> = BTreeMap::new();
    for SmapsRecord { map, .. } in mappings {
        if let Some(path) = map.path.as_deref().filter(|_| is_opened_again(map)) {
            files.entry(path).or_insert(map);
        }
    }
    let why = |(path, map): (&str, &MapsRecord)| Some((path.to_owned(), obstacle(pid, path, map)?));
    files.into_iter().filter_map(why).collect()
}

/// The kernel marks the path of a deleted file by a suffix that a live one may also bear: such a one lies
/// there under its whole name.
pub(crate) fn tell_live_from_deleted(pid: HostPid, map: &mut MapsRecord) {
    // Objects without a name, of which there may be thousands of mappings.
    let nameless = |path: &str| path.starts_with("/memfd:") || path == "/dev/zero";
    let Some(path) = map.path.as_ref().filter(|path| map.deleted && !nameless(path)) else {
        return;
    };
    let whole = format!("{path} (deleted)");
    let at = format!("/proc/{pid}/root{whole}");
    let is_it = |there: &fs::Metadata| {
        there.is_file()
            && ((there.dev(), there.ino()) == (map.dev, map.inode)
                || is_mapped_alike(&at, map) == Some(true))
    };
    if fs::symlink_metadata(&at).is_ok_and(|there| is_it(&there)) {
        (map.path, map.deleted) = (Some(whole), false);
    }
}

/// Whether a restore opens the file of a mapping. That of a deleted one, and of an image, is content; so are
/// the zeros of `/dev/zero`.
fn is_opened_again(map: &MapsRecord) -> bool {
    let path = map.path.as_deref().unwrap_or_default();
    let is_image = path.rsplit('/').next() == Some(tub_image::PAGES_FILE);
    map.inode != 0 && path.starts_with('/') && !map.deleted && !is_image && path != "/dev/zero"
}

/// What is wrong with a path as that of `map`.
fn obstacle(pid: HostPid, path: &str, map: &MapsRecord) -> Option<Unmappable> {
    let at = format!("/proc/{pid}/root{path}");
    match fs::symlink_metadata(&at) {
        Err(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
            .then_some(Unmappable::Astray),
        Ok(there) if !there.is_file() => {
            Some(if there.ino() == map.inode { Unmappable::Device } else { Unmappable::Astray })
        }
        Ok(there) if (there.dev(), there.ino()) == (map.dev, map.inode) => None,
        // A file system may show another device or number to stat(2) than in /proc (btrfs, overlayfs).
        Ok(_) => (is_mapped_alike(&at, map) == Some(false)).then_some(Unmappable::Astray),
    }
}

/// Whether the kernel shows a mapping of the file at `path` as it shows `map`; `None` where we may not
/// map it, or it is not told.
fn is_mapped_alike(path: &str, map: &MapsRecord) -> Option<bool> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    let shown = tub_sys::while_mapped(file.as_fd(), |at| {
        let maps = tub_procfs::maps::parse(&bytes("/proc/self/maps").ok()?).ok()?;
        let ours = maps.into_iter().find(|ours| ours.range.contains(at))?;
        Some((ours.dev, ours.inode) == (map.dev, map.inode))
    });
    shown.ok().flatten()
}
