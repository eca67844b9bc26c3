//! Writing an image: aside, complete, synced, and only then renamed into place.
//!
//! In: pages, then a [`Checkpoint`]. Out: a directory under its final name, or nothing.
//! Invariant: the final name always shows what was there before or a complete image. An existing
//! image is exchanged, never changed: processes restored from it keep mapping the old files.
//!
//! ```text
//! create   .NAME.tub-PID-N/            mode 0700, beside NAME
//! pages    .NAME.tub-PID-N/pages.tub   mode 0600
//! finish   .NAME.tub-PID-N/inventory.tub, fsync of both and of the directory
//!          rename to NAME, fsync of the parent
//! ```
//!
//! A crash leaves at most the directory with the dot, which no command takes for `NAME`, and which
//! the next writer of the same name removes.

use crate::error::{Error, ErrorKind, Result};
use crate::hot::{HOT_ASIDE, HOT_FILE};
use crate::image::Image;
use crate::inventory;
use crate::layout::{
    BODY_BYTES_MAX, HEADER_BYTES, Header, INVENTORY_FILE, MACHINE, MAGIC, PAGE, PAGES_FILE,
    VERSION, hash,
};
use crate::leftover::{self, Claim, remove_image};
use crate::pages::{PageWriter, Pages};
use crate::structure;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tub_model::Checkpoint;

/// What to do about an image that is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Refuse.
    Never,
    /// Replace the image with this id, and no other: the one that the process came from.
    ImageWithId([u8; 16]),
    /// Replace any image, but nothing else.
    AnyImage,
}

/// An image that is being written. Dropping it unfinished removes what was written.
#[derive(Debug)]
pub struct ImageWriter {
    /// Final place.
    dir: PathBuf,
    parent: PathBuf,
    /// What is written to, beside the final place.
    temporary: PathBuf,
    pages: PageWriter,
    replace: Replace,
    finished: bool,
    /// Says that the temporary directory is no leftover. `None` where the file system has no locks.
    _lock: Option<Claim>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The image's directory.
    pub dir: PathBuf,
    /// Length of `inventory.tub`.
    pub inventory_bytes: u64,
    /// Length of `pages.tub`, holes included.
    pub pages_bytes: u64,
    /// What `pages.tub` takes on the disk.
    pub stored_bytes: u64,
    /// How many runs there are.
    pub runs: usize,
    /// Pages of zeros that were met and not written.
    pub zero_pages: u64,
}

impl ImageWriter {
    /// Starts an image that will stand at `dir`. Everything that can be refused is refused here,
    /// before anybody is frozen.
    ///
    /// An empty directory at `dir` is replaced.
    ///
    /// # Errors
    /// [`ErrorKind::ExistsImage`], [`ErrorKind::ExistsOther`], [`ErrorKind::ParentMissing`],
    /// [`ErrorKind::NotWritable`], [`ErrorKind::NoSpace`], [`ErrorKind::MountPoint`],
    /// [`ErrorKind::NoName`], [`ErrorKind::System`].
    pub fn create(dir: &Path, replace: Replace) -> Result<Self> {
        let Place { parent, dir } = Place::find(dir)?;
        check_vacant(&dir, replace)?;
        let (temporary, lock) = make_temporary(&parent, &dir)?;
        // From here on a failure has to remove the directory.
        let path = temporary.join(PAGES_FILE);
        let pages = match create_file(&path) {
            Ok(file) => PageWriter::new(file, path),
            Err(error) => {
                let _ = fs::remove_dir_all(&temporary);
                return Err(error);
            }
        };
        Ok(Self { dir, parent, temporary, pages, replace, finished: false, _lock: lock })
    }

    /// The directory that is written to, until it is complete.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Where the image will stand.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Puts a file of somebody else's beside ours: nobody of us will read it.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] where the name is no name of a file, or one of ours;
    /// [`ErrorKind::NoSpace`], [`ErrorKind::System`].
    pub fn add(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.temporary.join(name);
        let is_name = Path::new(name).file_name().is_some_and(|file| file == name);
        if !is_name || [INVENTORY_FILE, PAGES_FILE, HOT_FILE, HOT_ASIDE].contains(&name) {
            let rule = "a file beside ours has a plain name that is none of ours";
            return Err(Error::new(&path, ErrorKind::Misuse { rule }));
        }
        let mut file = create_file(&path)?;
        file.write_all(content)
            .and_then(|()| file.sync_all())
            .map_err(|error| Error::system(&path, "write", error))
    }

    /// Where the pages go.
    pub const fn pages(&mut self) -> &mut PageWriter {
        &mut self.pages
    }

    /// Completes the image and puts it in its place.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] where `checkpoint` and the pages do not fit together;
    /// [`ErrorKind::NoSpace`], [`ErrorKind::System`]; and as [`ImageWriter::create`], where its
    /// place was taken in the meantime. There is no image then, but for one case: when only the
    /// last sync of the parent directory failed, it is in place and may not survive a crash.
    pub fn finish(mut self, checkpoint: &Checkpoint) -> Result<Summary> {
        let Pages { runs, pages_bytes, stored_bytes, zero_pages } = self.pages.finish()?;
        let path = self.temporary.join(INVENTORY_FILE);
        structure::check(checkpoint, &runs, pages_bytes)
            .map_err(|what| Error::malformed(&path, what))?;
        let body = inventory::encode(checkpoint, &runs);
        if body.len() as u64 > BODY_BYTES_MAX {
            return Err(Error::malformed(&path, format!("{} bytes of records", body.len())));
        }
        let header = Header {
            version: VERSION,
            machine: MACHINE,
            page_bytes: PAGE,
            flags: 0,
            body_bytes: body.len() as u64,
            body_hash: hash(&body),
            pages_bytes,
        };
        let mut file = create_file(&path)?;
        file.write_all(&header.encode())
            .and_then(|()| file.write_all(&body))
            .map_err(|error| Error::system(&path, "write", error))?;
        file.sync_all().map_err(|error| Error::system(&path, "fsync", error))?;
        sync_dir(&self.temporary)?;
        self.put_in_place()?;
        self.finished = true;
        sync_dir(&self.parent)?;
        Ok(Summary {
            dir: self.dir.clone(),
            inventory_bytes: (HEADER_BYTES + body.len()) as u64,
            pages_bytes,
            stored_bytes,
            runs: runs.iter().map(Vec::len).sum(),
            zero_pages,
        })
    }

    /// Renames the complete directory to its final name.
    fn put_in_place(&self) -> Result<()> {
        // The kernel lets a directory take the place of an empty one only, so nothing can be lost.
        match fs::rename(&self.temporary, &self.dir) {
            Ok(()) => return Ok(()),
            Err(error) if is_taken(&error) => {}
            Err(error) => return Err(Error::system(&self.dir, "rename", error)),
        }
        check_vacant(&self.dir, self.replace)?;
        match renameat2(
            AT_FDCWD,
            &self.temporary,
            AT_FDCWD,
            &self.dir,
            RenameFlags::RENAME_EXCHANGE,
        ) {
            // What bears our temporary name now is the old image. What of it cannot be removed is
            // not worth an error.
            Ok(()) => {
                remove_image(&self.temporary);
                Ok(())
            }
            Err(Errno::EINVAL | Errno::ENOSYS) => self.put_in_place_in_two_steps(),
            Err(errno) => Err(Error::system(&self.dir, "renameat2", errno.into())),
        }
    }

    /// Where the file system cannot exchange: for an instant there is no image at the place.
    fn put_in_place_in_two_steps(&self) -> Result<()> {
        let mut aside = self.temporary.clone().into_os_string();
        aside.push("-old");
        let aside = PathBuf::from(aside);
        let rename = |from: &Path, to: &Path| {
            fs::rename(from, to).map_err(|error| Error::system(to, "rename", error))
        };
        rename(&self.dir, &aside)?;
        if let Err(error) = rename(&self.temporary, &self.dir) {
            let _ = rename(&aside, &self.dir);
            return Err(error);
        }
        remove_image(&aside);
        Ok(())
    }
}

impl Drop for ImageWriter {
    fn drop(&mut self) {
        if !self.finished {
            // There is nobody left to tell; the name says what a leftover is.
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::ENOTEMPTY | Errno::EEXIST))
}

/// Where the image is to stand, with links on the way resolved.
pub(crate) struct Place {
    pub(crate) parent: PathBuf,
    pub(crate) dir: PathBuf,
}

impl Place {
    pub(crate) fn find(dir: &Path) -> Result<Self> {
        // What is there may be a link to an image elsewhere: that one is meant.
        let dir = match fs::canonicalize(dir) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::find_vacant(dir)?,
            Err(error) => return Err(Error::system(dir, "realpath", error)),
        };
        match dir.parent() {
            Some(parent) => Ok(Self { parent: parent.to_owned(), dir }),
            None => Err(Error::new(&dir, ErrorKind::NoName)),
        }
    }

    fn find_vacant(dir: &Path) -> Result<PathBuf> {
        let Some(name) = dir.file_name() else {
            return Err(Error::new(dir, ErrorKind::NoName));
        };
        let parent = match dir.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        match fs::canonicalize(parent) {
            Ok(parent) => Ok(parent.join(name)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::with_source(parent, ErrorKind::ParentMissing, error))
            }
            Err(error) => Err(Error::system(parent, "realpath", error)),
        }
    }
}

/// Refuses a place that is taken by something which may not be replaced.
fn check_vacant(dir: &Path, replace: Replace) -> Result<()> {
    let other = |what: &str| Error::new(dir, ErrorKind::ExistsOther { what: what.into() });
    let metadata = match fs::symlink_metadata(dir) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::system(dir, "lstat", error)),
    };
    if metadata.is_symlink() {
        return Err(other("a symbolic link to nowhere"));
    }
    if !metadata.is_dir() {
        return Err(other("a file"));
    }
    if is_mount_point(dir) {
        return Err(Error::new(dir, ErrorKind::MountPoint));
    }
    let mut empty = true;
    for entry in fs::read_dir(dir).map_err(|error| Error::system(dir, "readdir", error))? {
        let name = entry.map_err(|error| Error::system(dir, "readdir", error))?.file_name();
        if ![INVENTORY_FILE, PAGES_FILE, HOT_FILE, HOT_ASIDE].iter().any(|known| name == *known) {
            let name = name.display();
            return Err(other(&format!("a directory that holds {name}")));
        }
        empty = false;
    }
    if empty {
        return Ok(());
    }
    if !starts_with_magic(&dir.join(INVENTORY_FILE)) {
        return Err(other("a directory whose inventory.tub is none of ours"));
    }
    let image_id =
        || Image::open_foreign(dir).ok().map(|image| image.checkpoint.provenance.image_id);
    match replace {
        Replace::AnyImage => Ok(()),
        Replace::ImageWithId(id) if image_id() == Some(id) => Ok(()),
        Replace::ImageWithId(_) | Replace::Never => {
            Err(Error::new(dir, ErrorKind::ExistsImage { image_id: image_id() }))
        }
    }
}

fn starts_with_magic(path: &Path) -> bool {
    let mut magic = [0; MAGIC.len()];
    // Not blocking: it may be a FIFO, and the original may stand still.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let opened = File::options().read(true).custom_flags(flags.bits()).open(path);
    opened.is_ok_and(|mut file| {
        file.metadata().is_ok_and(|metadata| metadata.is_file())
            && file.read_exact(&mut magic).is_ok()
            && magic == MAGIC
    })
}

/// KERNEL(since 2.6.26): the fifth field of `mountinfo` is the mount point, with blank, tab, newline
/// and backslash as octal escapes (`proc_pid_mountinfo(5)`). Comparing device numbers instead would
/// miss bind mounts. Where there is no such file, the rename will tell.
fn is_mount_point(dir: &Path) -> bool {
    let Ok(mounts) = fs::read_to_string("/proc/thread-self/mountinfo") else { return false };
    let mut escaped = String::new();
    for character in dir.to_string_lossy().chars() {
        match character {
            ' ' => escaped.push_str("\\040"),
            '\t' => escaped.push_str("\\011"),
            '\n' => escaped.push_str("\\012"),
            '\\' => escaped.push_str("\\134"),
            _ => escaped.push(character),
        }
    }
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(&escaped))
}

fn make_temporary(parent: &Path, dir: &Path) -> Result<(PathBuf, Option<Claim>)> {
    let name = dir.file_name().ok_or_else(|| Error::new(dir, ErrorKind::NoName))?;
    let _ = leftover::sweep(parent, name);
    for attempt in 0_u32.. {
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".tub-{}-{attempt}", std::process::id()));
        let temporary = parent.join(temporary);
        match DirBuilder::new().mode(0o700).create(&temporary) {
            Ok(()) => match leftover::claim(&temporary) {
                // Unless it is known to be gone: another writer took it for a leftover, in the instant
                // before it was locked.
                Ok(Some(lock)) if temporary.try_exists().unwrap_or(true) => {
                    return Ok((temporary, Some(lock)));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => return Ok((temporary, None)),
            },
            // Somebody else's, or the leftover of a crash that could not be removed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 1000 => {}
            Err(error) => {
                return Err(match error.kind() {
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                        Error::with_source(parent, ErrorKind::NotWritable, error)
                    }
                    _ => Error::system(&temporary, "mkdir", error),
                });
            }
        }
    }
    unreachable!("the last attempt returns")
}

fn create_file(path: &Path) -> Result<File> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    created.map_err(|error| Error::system(path, "open", error))
}

fn sync_dir(dir: &Path) -> Result<()> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| Error::system(dir, "fsync", error))
}
