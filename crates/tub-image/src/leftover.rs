//! Directories of images that were never finished, because whoever wrote them was killed.
//!
//! In: the place of an image. Out: nothing; such directories beside it are gone.
//! Invariant: what somebody is still writing to is left alone: he holds a lock on it, which the
//! kernel takes from him when he dies. Only files that an image has are removed.

use crate::hot::{HOT_ASIDE, HOT_FILE};
use crate::layout::{INVENTORY_FILE, PAGES_FILE};
use crate::writer::Place;
use nix::fcntl::{Flock, FlockArg, OFlag};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a writer that is dying may take until its lock is free.
const DYING: Duration = Duration::from_secs(5);

/// The lock on a directory that is being written to.
#[derive(Debug)]
pub(crate) struct Claim(Option<Flock<File>>);

impl Drop for Claim {
    fn drop(&mut self) {
        // Flock's own end panics where the kernel does not take the lock back.
        if let Some(Err((lock, _))) = self.0.take().map(Flock::unlock) {
            std::mem::forget(lock);
        }
    }
}

/// Takes the lock by which others know that `dir` is being written to. `None` where somebody has
/// it.
pub(crate) fn claim(dir: &Path) -> io::Result<Option<Claim>> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let dir = File::options().read(true).custom_flags(flags.bits()).open(dir)?;
    match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(Claim(Some(lock)))),
        Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

/// What a temporary directory for an image called `name` begins with.
pub(crate) fn prefix(name: &OsStr) -> Vec<u8> {
    [b".", name.as_encoded_bytes(), b".tub-"].concat()
}

/// Removes what writers of an image called `name` in `parent` have left behind. Answers whether
/// others are still being written to.
pub(crate) fn sweep(parent: &Path, name: &OsStr) -> bool {
    let prefix = prefix(name);
    let mut busy = false;
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.as_encoded_bytes().strip_prefix(prefix.as_slice());
        if number.is_some_and(|rest| rest.iter().all(|b| b.is_ascii_digit() || *b == b'-')) {
            busy |= !remove_now(&entry.path());
        }
    }
    busy
}

/// Removes what writers of the image at `dir` have left behind, those included that are dying just
/// now. What cannot be removed stays, under a name that nobody takes for an image.
pub fn remove_leftovers(dir: &Path) {
    let Ok(Place { parent, dir }) = Place::find(dir) else { return };
    let Some(name) = dir.file_name() else { return };
    let deadline = Instant::now() + DYING;
    while sweep(&parent, name) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether nobody writes to it any more.
fn remove_now(dir: &Path) -> bool {
    let ours = fs::symlink_metadata(dir)
        .is_ok_and(|meta| meta.is_dir() && meta.uid() == nix::unistd::geteuid().as_raw());
    if !ours {
        return true;
    }
    match claim(dir) {
        Ok(Some(_lock)) => remove_image(dir),
        Ok(None) => return false,
        // A file system without locks: whether somebody writes to it cannot be known.
        Err(_) => {}
    }
    true
}

/// Removes the files of an image and its directory.
pub(crate) fn remove_image(dir: &Path) {
    for name in [INVENTORY_FILE, PAGES_FILE, HOT_FILE, HOT_ASIDE] {
        let _ = fs::remove_file(dir.join(name));
    }
    let _ = fs::remove_dir(dir);
}
