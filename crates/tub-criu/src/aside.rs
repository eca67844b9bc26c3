//! Where an image is before it is one.
//!
//! In: the place of an image. Out: a directory beside it, which becomes the image, or goes away.
//! Invariant: an image appears under its name by a rename, once it is complete and on the disk, and its
//! marker under its own right before: nobody takes a half one for a whole one. What a living writer has
//! is locked.

use crate::dump::IMAGES_DIR;
use crate::{Error, Marker, is_image};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tub_units::HostPid;

/// A directory that becomes the image, or goes away.
#[derive(Debug)]
pub struct Aside {
    path: PathBuf,
    dir: PathBuf,
    /// Held as long as we live. Where the file system has no locks, ours is as good as any.
    _lock: Option<Flock<File>>,
}

impl Aside {
    /// Looks whether an image could go to `dir`.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`], or the parent is not there.
    pub fn place(dir: &Path, replace: bool) -> Result<(), Error> {
        let parent = parent(dir);
        fs::metadata(parent).map_err(io(parent))?;
        let Ok(metadata) = fs::symlink_metadata(dir) else { return Ok(()) };
        let empty = metadata.is_dir() && fs::read_dir(dir).map_err(io(dir))?.next().is_none();
        if empty || (replace && is_image(dir)) {
            return Ok(());
        }
        Err(Error::Exists { dir: dir.to_owned() })
    }

    /// Makes one for an image at `dir`, and removes what others have left behind there.
    ///
    /// # Errors
    ///
    /// As [`Self::place`]; or it cannot be made.
    pub fn new(dir: &Path, replace: bool) -> Result<Self, Error> {
        Self::place(dir, replace)?;
        sweep(dir);
        let path = parent(dir).join(format!("{}{}", prefix(dir), std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(io(&path))?;
        let lock = lock(&path);
        Ok(Self { path, dir: dir.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Syncs it, and gives it its name. Answers its size.
    pub(crate) fn keep(self) -> Result<u64, Error> {
        let bytes = finish(&self.path, &self.dir)?;
        // Nothing is left under the old name.
        Ok(bytes)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // Gone under this name if it was kept.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Puts right what is left of a dump whose command was killed: CRIU is ended, whoever it held goes on,
/// and there is no image. Unless it was too late: where CRIU has ended the original already, what it
/// wrote is all there is, and becomes the image.
///
/// The caller's command is dead, and with it whoever could have started another CRIU.
pub fn abandoned(aside: &Path, dir: &Path, original: HostPid) {
    let deadline = Instant::now() + PATIENCE;
    while end_writers(aside) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    if is_complete(aside) && ends_soon(original) && finish(aside, dir).is_ok() {
        return;
    }
    let _ = fs::remove_dir_all(aside);
}

/// How long a killed CRIU may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a process may take to be gone that CRIU has killed.
const DYING: Duration = Duration::from_secs(1);

/// The last that CRIU writes before it ends the original or lets it go.
/// CRIU: `write_img_inventory` at the end of `cr_dump_tasks` (criu/cr-dump.c).
const LAST_FILE: &str = "inventory.img";

fn is_complete(aside: &Path) -> bool {
    aside.join(LAST_FILE).is_file() && Marker::is_ready(aside)
}

/// Whether the process is gone, or on its way.
fn ends_soon(pid: HostPid) -> bool {
    let deadline = Instant::now() + DYING;
    loop {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok();
        let stat = stat.and_then(|text| tub_procfs::stat::parse(&text).ok());
        if stat.is_none_or(|stat| matches!(stat.state, 'Z' | 'X')) {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Kills every CRIU that writes to `aside`. Answers whether there was one.
fn end_writers(aside: &Path) -> bool {
    let writers = writers(aside);
    for pid in &writers {
        let _ = kill(*pid, Signal::SIGKILL);
    }
    !writers.is_empty()
}

/// Who was started with that directory to write to: CRIU, its children, and a script around it.
fn writers(aside: &Path) -> Vec<Pid> {
    let wanted = aside.as_os_str().as_bytes();
    let writes = |pid: i32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
        words.windows(2).any(|pair| pair[0] == IMAGES_DIR.as_bytes() && pair[1] == wanted)
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| writes(*pid)).map(Pid::from_raw).collect()
}

/// Removes what others have left behind beside `dir`. What somebody writes to stays, and so does what
/// CRIU has completed: it may be the only one that there is.
fn sweep(dir: &Path) {
    let prefix = prefix(dir);
    for entry in fs::read_dir(parent(dir)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(&prefix));
        let path = entry.path();
        let ours = fs::symlink_metadata(&path).is_ok_and(|metadata| {
            metadata.is_dir() && metadata.uid() == nix::unistd::geteuid().as_raw()
        });
        let left = number.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
            && ours
            && lock(&path).is_some()
            && !is_complete(&path)
            && writers(&path).is_empty();
        if left {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

fn lock(dir: &Path) -> Option<Flock<File>> {
    Flock::lock(File::open(dir).ok()?, FlockArg::LockExclusiveNonblock).ok()
}

/// Syncs what is complete, and gives it its name. Answers its size.
fn finish(aside: &Path, dir: &Path) -> Result<u64, Error> {
    let mut bytes = 0;
    for entry in fs::read_dir(aside).map_err(io(aside))? {
        let entry = entry.map_err(io(aside))?;
        bytes += entry.metadata().map_or(0, |metadata| metadata.len());
    }
    Marker::confirm(aside)?;
    let opened = File::open(aside).map_err(io(aside))?;
    nix::unistd::syncfs(&opened).map_err(|errno| io(aside)(errno.into()))?;
    // Whoever restores from the old one has it open, and keeps it.
    let old = parent(dir).join(format!(".tub-old-{}", std::process::id()));
    let replaced = is_image(dir) && fs::rename(dir, &old).is_ok();
    let renamed = fs::rename(aside, dir).map_err(io(dir));
    if replaced && renamed.is_err() {
        let _ = fs::rename(&old, dir);
    } else if replaced {
        let _ = fs::remove_dir_all(&old);
    }
    renamed.map(|()| bytes)
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { path, source }
}

fn prefix(dir: &Path) -> String {
    format!(".{}.criu-", dir.file_name().unwrap_or_default().to_string_lossy())
}

fn parent(dir: &Path) -> &Path {
    dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("tub-criu-{name}-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        dir
    }

    #[test]
    fn an_image_goes_where_nothing_or_an_empty_directory_is() {
        let dir = std::env::temp_dir().join(format!("tub-criu-place-{}", std::process::id()));
        Aside::place(&dir, false).unwrap();
        fs::create_dir(&dir).unwrap();
        Aside::place(&dir, false).unwrap();
        fs::write(dir.join("x"), "").unwrap();
        assert!(matches!(Aside::place(&dir, true), Err(Error::Exists { .. })));
        fs::remove_dir_all(&dir).unwrap();
        assert!(matches!(Aside::place(&dir.join("y"), true), Err(Error::Io { .. })));
    }

    #[test]
    fn the_next_one_removes_what_nobody_writes_to_and_keeps_what_is_complete() {
        let dir = scratch("sweep");
        let image = dir.join("image");
        let [half, whole] = [".image.criu-1", ".image.criu-2"].map(|name| dir.join(name));
        for left in [&half, &whole] {
            fs::create_dir(left).unwrap();
            crate::marker::tests::marker().write(left).unwrap();
            assert!(!is_image(left), "nobody takes it for one yet");
        }
        fs::write(whole.join(LAST_FILE), "").unwrap();
        let held = lock(&half).unwrap();
        let aside = Aside::new(&image, false).unwrap();
        assert!(half.exists() && whole.exists());
        drop((held, aside));
        let aside = Aside::new(&image, false).unwrap();
        assert!(!half.exists() && whole.exists() && aside.path().exists());
        drop(aside);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_a_killed_command_leaves_is_an_image_only_where_the_original_has_been_ended() {
        let dir = scratch("abandoned");
        let (aside, image) = (dir.join(".image.criu-1"), dir.join("image"));
        let left = |complete: bool| {
            fs::create_dir(&aside).unwrap();
            crate::marker::tests::marker().write(&aside).unwrap();
            if complete {
                fs::write(aside.join(LAST_FILE), "").unwrap();
            }
        };
        let alive = HostPid(i32::try_from(std::process::id()).unwrap());
        // No process has that id: it is above the largest (proc_sys_kernel(5)).
        let gone = HostPid(i32::MAX);
        for (complete, original) in [(false, alive), (false, gone), (true, alive)] {
            left(complete);
            abandoned(&aside, &image, original);
            assert!(!aside.exists() && !image.exists(), "{complete} {original}");
        }
        left(true);
        abandoned(&aside, &image, gone);
        assert!(is_image(&image) && !aside.exists());
        fs::remove_dir_all(&dir).unwrap();
    }
}
