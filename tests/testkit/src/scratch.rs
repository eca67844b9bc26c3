//! A directory for one test, owned by whoever the test runs as.

use crate::User;
use nix::unistd::{Gid, Uid, chown};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that is removed when the value is dropped, unless `TUB_KEEP` is set.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    user: User,
}

impl Scratch {
    /// A fresh directory of `user`.
    pub fn new(user: User) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tub-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // A leftover of an earlier process with our id.
        let _ = fs::remove_dir_all(&path);
        let scratch = Self { path, user };
        scratch.make(&scratch.path);
        scratch
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    pub const fn user(&self) -> User {
        self.user
    }

    /// A path in the directory.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Makes a directory in it, also owned by the user, and gives its path.
    pub fn make_dir(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.join(name);
        self.make(&path);
        path
    }

    fn make(&self, path: &Path) {
        let made = fs::create_dir(path)
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)));
        made.unwrap_or_else(|error| panic!("{}: cannot be made: {error}", path.display()));
        self.give(path);
    }

    /// Gives `path` to the user.
    pub fn give(&self, path: &Path) {
        if let Some(id) = self.user.change_to() {
            chown(path, Some(Uid::from_raw(id)), Some(Gid::from_raw(id))).unwrap_or_else(|error| {
                panic!("{}: cannot be given away: {error}", path.display())
            });
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("TUB_KEEP").is_some() {
            eprintln!("kept: {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
