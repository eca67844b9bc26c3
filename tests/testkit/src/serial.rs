//! Tests that need the machine to themselves, or as good as.

use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

/// Held by a test that must not run beside others of its kind.
#[derive(Debug)]
pub struct Alone {
    _lock: Flock<File>,
}

/// Waits until no other test holds `name`. A lock on a file, because tests may be processes.
pub fn alone(name: &str) -> Alone {
    let user = nix::unistd::geteuid();
    let path = std::env::temp_dir().join(format!("tub-test-{user}-{name}.lock"));
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    match Flock::lock(file, FlockArg::LockExclusive) {
        Ok(lock) => Alone { _lock: lock },
        Err((_, error)) => panic!("{}: cannot be locked: {error}", path.display()),
    }
}
