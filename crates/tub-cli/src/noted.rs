//! What `tub prepare` has noted of a process, for `tub status` and `tub resume`.
//!
//! In: a pid. Out: a [`Preparation`]. Invariant: a note counts only where it lies in a directory that is its
//! writer's alone, and its writer is ourselves, or the one user whose process it is, who could do to it
//! whatever a note can lead us to.
//! Not here: what is done with it (`prepare`).

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tubthumping::{HostPid, Preparation};

/// A note is far shorter.
const BYTES_MAX: u64 = 4096;

/// A [`Preparation`] between two commands.
#[derive(Serialize, Deserialize)]
struct Record {
    v: u32,
    start: u64,
    mailbox: u64,
    generation: u64,
}

/// Where we note that a process was prepared.
pub(crate) fn record(pid: HostPid) -> PathBuf {
    tub_control::default_directory().join(name(pid))
}

fn name(pid: HostPid) -> String {
    format!("{pid}.prepared")
}

/// The latest note of a process, whoever may have written it.
pub(crate) fn noted(pid: HostPid) -> Option<Preparation> {
    let notes = places(pid).into_iter().filter_map(|(place, user)| read(&place, user, pid));
    notes.max_by_key(|(written, _)| *written).map(|(_, preparation)| preparation)
}

pub(crate) fn note(path: &Path, prepared: &Preparation) -> std::io::Result<()> {
    let Preparation { start, mailbox, generation, .. } = *prepared;
    let text = serde_json::to_vec(&Record { v: 1, start, mailbox, generation })?;
    // One that was left behind is of no use to anybody.
    let _ = fs::remove_file(path);
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600).open(path)?.write_all(&text)
}

/// Directories in which a note may lie, and whose they must be. Variables of a process of ours tell where
/// `tub prepare` is likely to have been called; those of others lead us nowhere.
fn places(pid: HostPid) -> Vec<(PathBuf, u32)> {
    let us = nix::unistd::Uid::effective().as_raw();
    let mut places = vec![(tub_control::default_directory(), us)];
    if let Some(owner) = tub_checkpoint::only_owner(pid) {
        let name = format!("tub-{owner}");
        let theirs = if owner == us { temporary_of(pid) } else { None };
        let ours = std::env::var_os("TMPDIR").map(PathBuf::from);
        let parents = [theirs, ours, Some("/tmp".into())].into_iter().flatten();
        places.extend(parents.filter(|dir| dir.is_absolute()).map(|dir| (dir.join(&name), owner)));
    }
    places
}

/// `TMPDIR` of a process.
fn temporary_of(pid: HostPid) -> Option<PathBuf> {
    let variables = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value =
        variables.split(|&byte| byte == 0).find_map(|line| line.strip_prefix(b"TMPDIR="))?;
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(value)))
}

/// A note in a directory of `user`'s alone, and when it was written.
fn read(place: &Path, user: u32, pid: HostPid) -> Option<(SystemTime, Preparation)> {
    let open = |path: &Path, flags: OFlag| {
        File::options().read(true).custom_flags((flags | OFlag::O_NOFOLLOW).bits()).open(path).ok()
    };
    let directory = open(place, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    let found = directory.metadata().ok()?;
    if found.uid() != user || found.mode() & 0o077 != 0 {
        return None;
    }
    let path = format!("/proc/self/fd/{}/{}", directory.as_raw_fd(), name(pid));
    let file = open(Path::new(&path), OFlag::O_NONBLOCK)?;
    let found = file.metadata().ok()?;
    if !found.is_file() || found.uid() != user {
        return None;
    }
    let mut text = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut text).ok()?;
    let record: Record = serde_json::from_slice(&text).ok()?;
    let Record { v: 1, start, mailbox, generation } = record else { return None };
    Some((found.modified().ok()?, Preparation { pid, start, mailbox, generation }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_what_lies_in_a_directory_of_its_users_alone_is_a_note() {
        let base = std::env::temp_dir().join(format!("tub-noted-{}", std::process::id()));
        let place = base.join("tub-7");
        fs::create_dir_all(&place).unwrap();
        let close = |mode| fs::set_permissions(&place, PermissionsExt::from_mode(mode)).unwrap();
        close(0o700);
        let pid = HostPid(4711);
        let us = fs::metadata(&place).unwrap().uid();
        let prepared = Preparation { pid, start: 5, mailbox: 0x1000, generation: 2 };
        let path = place.join(name(pid));
        note(&path, &prepared).unwrap();
        let found = |place: &Path, user| read(place, user, pid).map(|(_, found)| found);
        assert_eq!(found(&place, us), Some(prepared));
        assert_eq!(found(&place, us + 1), None, "somebody else's");
        std::os::unix::fs::symlink(&place, base.join("link")).unwrap();
        assert_eq!(found(&base.join("link"), us), None, "led elsewhere");
        close(0o701);
        assert_eq!(found(&place, us), None, "open to others");
        close(0o700);
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(found(&place, us), None, "a FIFO, which is not waited for");
        fs::remove_dir_all(&base).unwrap();
    }
}
