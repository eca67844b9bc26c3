//! A directory for one test, owned by whoever the test runs as.

use crate::User;
use nix::unistd::{Gid, Uid, chown};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, io};

/// A directory that is removed when the value is dropped, unless `TUB_KEEP` is set.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    user: User,
}

impl Scratch {
    /// A fresh directory of `user`.
    pub fn new(user: User) -> Self {
        // A process id tells whose it is, but not it alone: another PID namespace may have the same
        // one over the same /tmp. Hence never what is there already, be it a leftover or in use.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("tub-test-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Ok(()) => break path,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: cannot be made: {error}", path.display()),
            }
        };
        let scratch = Self { path, user };
        scratch.shut(&scratch.path);
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
        fs::create_dir(path)
            .unwrap_or_else(|error| panic!("{}: cannot be made: {error}", path.display()));
        self.shut(path);
    }

    /// Makes a directory the user's alone.
    fn shut(&self, path: &Path) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .unwrap_or_else(|error| panic!("{}: cannot be shut: {error}", path.display()));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A run in another PID namespace may have our process id, and the same /tmp.
    #[test]
    fn what_another_process_of_this_id_has_there_is_left_alone() {
        let ours = Scratch::new(User::Root);
        let name = ours.path().to_str().unwrap();
        let (stem, number) = name.rsplit_once('-').unwrap();
        let number: u32 = number.parse().unwrap();
        let others = (number + 1..number + 9).map(|number| format!("{stem}-{number}"));
        let others: Vec<_> = others.filter(|path| fs::create_dir(path).is_ok()).collect();
        assert!(!others.is_empty());
        for path in &others {
            fs::write(format!("{path}/theirs"), "x").unwrap();
        }
        let mut made = vec![ours];
        made.extend((0..9).map(|_| Scratch::new(User::Root)));
        drop(made);
        for path in &others {
            assert!(fs::exists(format!("{path}/theirs")).unwrap(), "{path}");
            fs::remove_dir_all(path).unwrap();
        }
    }
}
