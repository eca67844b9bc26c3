//! Where a keeper can be asked: its socket.
//!
//! In: a path. Out: a listening socket. Invariant: only its owner and root can connect, and nobody else
//! can put another in its place; it goes with the keeper.

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::stat::{Mode, umask};
use nix::unistd::geteuid;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tub_control::connect_within;

/// How long a keeper that is alive may take until it is known to be.
const KNOCK: Duration = Duration::from_secs(1);

/// Why there can be no socket there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// Somebody answers there already.
    #[error("{} is the socket of a keeper that is alive", path.display())]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{} exists and is no socket", path.display())]
    NoSocket {
        /// Where.
        path: PathBuf,
    },
    /// Others could put a socket of theirs in its place.
    #[error("directory {} belongs to user {owner} with mode {mode:03o}: others could take the socket's place", path.display())]
    Directory {
        /// Where.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// The kernel says no.
    #[error("socket {} cannot be made", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// Where the keeper of an image is asked, unless it was told another place: beside the image.
/// Anything but a directory is the place itself.
pub fn control_socket(target: &Path) -> PathBuf {
    if !target.is_dir() {
        return target.to_owned();
    }
    // `image/` is `image`; `.` has a name, too.
    let dir = target.canonicalize().unwrap_or_else(|_| target.to_owned());
    let mut place = dir.into_os_string();
    place.push(".standby");
    place.into()
}

/// A socket that is asked at.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
}

impl Place {
    pub(super) fn take(path: &Path) -> Result<Self, PlaceError> {
        let failed = |source| PlaceError::Io { path: path.to_owned(), source };
        check_directory(path)?;
        // One after the other: what another one has bound is not listened to for a moment.
        let _turn = turn(path);
        if let Ok(there) = fs::symlink_metadata(path) {
            if !there.file_type().is_socket() {
                return Err(PlaceError::NoSocket { path: path.to_owned() });
            }
            match connect_within(path, KNOCK) {
                // Its keeper was killed.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(path).map_err(failed)?;
                }
                // Removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Its queue is full.
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Err(PlaceError::InUse { path: path.to_owned() });
                }
                Ok(_) => return Err(PlaceError::InUse { path: path.to_owned() }),
                // Of another kind, or not ours to connect to: whoever has it has it still.
                Err(error) => return Err(failed(error)),
            }
        }
        // From its first moment on, not from some time after.
        let before = umask(Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(path);
        umask(before);
        let listener = listener.map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let made = fs::symlink_metadata(path).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned(), inode: inode(&made) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Another keeper may have taken the place of a socket that somebody removed.
        if fs::symlink_metadata(&self.path).is_ok_and(|there| inode(&there) == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The lock of a directory.
struct Turn(Option<Flock<File>>);

impl Drop for Turn {
    fn drop(&mut self) {
        // Flock's own end panics where the kernel does not take the lock back.
        if let Some(Err((lock, _))) = self.0.take().map(Flock::unlock) {
            std::mem::forget(lock);
        }
    }
}

/// Waits until no other keeper takes a place in the directory, but not for ever; where there can be no lock of
/// it, not at all.
fn turn(path: &Path) -> Option<Turn> {
    let flags = OFlag::O_DIRECTORY.bits();
    let mut dir = File::options().read(true).custom_flags(flags).open(directory(path)).ok()?;
    let deadline = Instant::now() + 2 * KNOCK;
    loop {
        match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Some(Turn(Some(lock))),
            Err((back, Errno::EWOULDBLOCK)) if Instant::now() < deadline => dir = back,
            Err(_) => return None,
        }
        sleep(Duration::from_millis(1));
    }
}

fn directory(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

fn inode(of: &Metadata) -> (u64, u64) {
    (of.dev(), of.ino())
}

fn check_directory(path: &Path) -> Result<(), PlaceError> {
    const OTHERS_WRITE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let parent = directory(path);
    let failed = |source| PlaceError::Io { path: path.to_owned(), source };
    let there = fs::metadata(parent).map_err(failed)?;
    let (owner, mode) = (there.uid(), there.mode() & 0o7777);
    let ours = owner == 0 || owner == geteuid().as_raw();
    if ours && (mode & OTHERS_WRITE == 0 || mode & STICKY != 0) {
        return Ok(());
    }
    Err(PlaceError::Directory { path: parent.to_owned(), owner, mode })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn only_a_socket_that_nobody_listens_at_is_replaced() {
        let dir = std::env::temp_dir().join(format!("tub-place-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("keeper.sock");
        let log = UnixDatagram::bind(&path).unwrap();
        assert!(matches!(Place::take(&path), Err(PlaceError::Io { .. })));
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"still there", &path).unwrap();
        drop(log);

        let first = Place::take(&path).unwrap();
        assert!(matches!(Place::take(&path), Err(PlaceError::InUse { .. })));
        // A keeper that stands still is one all the same, however many knock.
        nix::sys::socket::listen(&first.listener, nix::sys::socket::Backlog::new(1).unwrap())
            .unwrap();
        for _ in 0..4 {
            assert!(matches!(Place::take(&path), Err(PlaceError::InUse { .. })));
        }
        drop(first);
        drop(UnixListener::bind(&path).unwrap());
        drop(Place::take(&path).unwrap());
        assert!(!path.exists());
        fs::remove_dir(&dir).unwrap();
    }

    /// Of several that find the socket of one who was killed, one takes its place.
    #[test]
    fn of_keepers_that_start_together_one_is_asked() {
        let dir = std::env::temp_dir().join(format!("tub-places-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("keeper.sock");
        for _ in 0..200 {
            drop(UnixListener::bind(&path).unwrap());
            let start = std::sync::Barrier::new(4);
            let take = || {
                start.wait();
                Place::take(&path)
            };
            let taken: Vec<_> = std::thread::scope(|scope| {
                let all: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
                all.into_iter().map(|one| one.join().unwrap()).collect()
            });
            let (places, errors): (Vec<_>, Vec<_>) = taken.into_iter().partition(Result::is_ok);
            assert_eq!(places.len(), 1, "{errors:?}");
            for error in errors {
                assert!(matches!(error, Err(PlaceError::InUse { .. })), "{error:?}");
            }
            drop(places);
        }
        fs::remove_dir(&dir).unwrap();
    }
}
