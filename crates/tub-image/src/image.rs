//! Reading an image.
//!
//! In: a directory. Out: an [`Image`], checked in all but its pages.
//! Invariant: nothing is believed before it is checked: whose it is, magic, version, lengths,
//! checksum, decoding, structure, in this order.
//! Not here: reading pages; they are mapped by the process that is being restored.
//!
//! It stands on the restore path: one read, one hash, one pass.

use crate::error::{Error, ErrorKind, Result};
use crate::inventory::{self, Inventory};
use crate::layout::{
    BODY_BYTES_MAX, HEADER_BYTES, Header, INVENTORY_FILE, MACHINE, MAGIC, PAGE, PAGES_FILE,
    VERSION, hash,
};
use crate::pages::{self, PageRun};
use crate::structure;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tub_model::Checkpoint;

/// A complete image.
#[derive(Debug)]
pub struct Image {
    /// What was frozen.
    pub checkpoint: Checkpoint,
    /// Where the pages of each task lie, and then those of each memory file: ascending, disjoint,
    /// each within a saved range of a mapping or of the file.
    pub runs: Vec<Vec<PageRun>>,
    /// `pages.tub`, open for reading.
    pub pages: File,
    /// Length of `pages.tub`.
    pub pages_bytes: u64,
    /// Length of `inventory.tub`.
    pub inventory_bytes: u64,
    /// The directory, as it was given.
    pub dir: PathBuf,
    /// Kind and version of optional records that this release does not know.
    pub unread: Vec<(u32, u32)>,
}

impl Image {
    /// Opens the image in `dir` in order to restore it.
    ///
    /// The directory itself may be reached through a symbolic link (`current -> v12`); the files
    /// in it may not be links, so that an image never leads out of its directory.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::NotAnImage`], [`ErrorKind::NotOurs`] where directory
    /// or files belong to another user than us and root, or others may write to them;
    /// [`ErrorKind::UnknownVersion`], [`ErrorKind::UnknownFlags`], [`ErrorKind::UnknownRecord`],
    /// [`ErrorKind::OtherArchitecture`], [`ErrorKind::OtherPageSize`], [`ErrorKind::Truncated`],
    /// [`ErrorKind::Altered`], [`ErrorKind::Malformed`], [`ErrorKind::System`].
    pub fn open(dir: &Path) -> Result<Self> {
        Self::open_as(dir, Owner::OursOrRoots)
    }

    /// Opens the image in `dir`, whoever it belongs to: to look at, never to restore.
    ///
    /// # Errors
    /// As [`Image::open`], but for [`ErrorKind::NotOurs`].
    pub fn open_foreign(dir: &Path) -> Result<Self> {
        Self::open_as(dir, Owner::Anybodys)
    }

    fn open_as(dir: &Path, owner: Owner) -> Result<Self> {
        let opened = open_dir(dir)?;
        owner.check(dir, &metadata(dir, &opened)?)?;

        let path = dir.join(INVENTORY_FILE);
        let (file, metadata) = open_member(&opened, &path, owner)?;
        let (header, body) = read_inventory(&path, file, metadata.len())?;
        let Inventory { checkpoint, runs, unread } =
            inventory::decode(&body).map_err(|kind| Error::new(&path, kind))?;
        structure::check(&checkpoint, &runs, header.pages_bytes)
            .map_err(|what| Error::malformed(&path, what))?;

        let path = dir.join(PAGES_FILE);
        let (pages, pages_metadata) = open_member(&opened, &path, owner)?;
        check_length(&path, pages_metadata.len(), header.pages_bytes)?;
        Ok(Self {
            checkpoint,
            runs,
            pages,
            pages_bytes: header.pages_bytes,
            inventory_bytes: metadata.len(),
            dir: dir.to_owned(),
            unread,
        })
    }

    /// Reads all pages and compares their checksums.
    ///
    /// # Errors
    /// [`ErrorKind::PagesAltered`] with every run that does not match; [`ErrorKind::System`].
    pub fn verify_pages(&self) -> Result<()> {
        let path = self.dir.join(PAGES_FILE);
        let ranges = pages::altered(&self.pages, self.runs.iter().flatten(), &path)?;
        if ranges.is_empty() {
            Ok(())
        } else {
            Err(Error::new(&path, ErrorKind::PagesAltered { ranges }))
        }
    }
}

/// Whose an image may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// Ours or root's, and nobody else may write to it.
    OursOrRoots,
    /// Anybody's.
    Anybodys,
}

impl Owner {
    fn check(self, path: &Path, metadata: &Metadata) -> Result<()> {
        let (uid, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        let ours = uid == 0 || uid == nix::unistd::geteuid().as_raw();
        if self == Self::OursOrRoots && (!ours || mode & 0o022 != 0) {
            return Err(Error::new(path, ErrorKind::NotOurs { uid, mode }));
        }
        Ok(())
    }
}

fn open_dir(dir: &Path) -> Result<File> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    match openat(nix::fcntl::AT_FDCWD, dir, flags, Mode::empty()) {
        Ok(opened) => Ok(File::from(opened)),
        Err(nix::errno::Errno::ENOENT) => Err(Error::new(dir, ErrorKind::NotFound)),
        Err(nix::errno::Errno::ENOTDIR) => Err(not_an_image(dir, "it is not a directory")),
        Err(errno) => Err(Error::system(dir, "open", errno.into())),
    }
}

/// Opens the file at `path`, whose directory is `dir`, and never what a link there points to.
fn open_member(dir: &File, path: &Path, owner: Owner) -> Result<(File, Metadata)> {
    let name = path.file_name().expect("a member of an image has a name");
    // Not blocking: the file may have been replaced by a FIFO, which is refused below.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let file = match openat(dir.as_fd(), name, flags, Mode::empty()) {
        Ok(opened) => File::from(opened),
        Err(nix::errno::Errno::ENOENT) => return Err(not_an_image(path, "it is missing")),
        Err(nix::errno::Errno::ELOOP) => {
            return Err(not_an_image(path, "it is a symbolic link, which is not followed"));
        }
        Err(errno) => return Err(Error::system(path, "open", errno.into())),
    };
    let metadata = metadata(path, &file)?;
    if !metadata.is_file() {
        return Err(not_an_image(path, "it is not a regular file"));
    }
    owner.check(path, &metadata)?;
    Ok((file, metadata))
}

fn metadata(path: &Path, file: &File) -> Result<Metadata> {
    file.metadata().map_err(|error| Error::system(path, "fstat", error))
}

fn not_an_image(path: &Path, why: &str) -> Error {
    Error::new(path, ErrorKind::NotAnImage { why: why.into() })
}

/// Reads and checks the header, and the body as far as its checksum.
fn read_inventory(path: &Path, mut file: File, file_bytes: u64) -> Result<(Header, Vec<u8>)> {
    let error = |kind| Error::new(path, kind);
    let mut bytes = [0; HEADER_BYTES];
    match file.read_exact(&mut bytes) {
        Ok(()) => {}
        Err(failed) if failed.kind() == io::ErrorKind::UnexpectedEof => {
            let expected_bytes = HEADER_BYTES as u64;
            let found_bytes = file_bytes.min(expected_bytes);
            return Err(error(ErrorKind::Truncated { found_bytes, expected_bytes }));
        }
        Err(failed) => return Err(Error::system(path, "read", failed)),
    }
    if bytes[..MAGIC.len()] != MAGIC {
        return Err(not_an_image(path, "it does not start with the format's magic"));
    }
    let header = Header::decode(&bytes);
    if header.version.major != VERSION.major {
        let found = header.version;
        return Err(error(ErrorKind::UnknownVersion { found, understood: VERSION }));
    }
    if !Header::is_intact(&bytes) {
        return Err(error(ErrorKind::Altered { part: "header" }));
    }
    if header.machine != MACHINE {
        let found = header.machine;
        return Err(error(ErrorKind::OtherArchitecture { found, here: MACHINE }));
    }
    if header.page_bytes != PAGE {
        let found_bytes = header.page_bytes;
        return Err(error(ErrorKind::OtherPageSize { found_bytes, here_bytes: PAGE }));
    }
    if header.flags != 0 {
        return Err(error(ErrorKind::UnknownFlags { flags: header.flags }));
    }
    if header.body_bytes > BODY_BYTES_MAX {
        return Err(Error::malformed(path, format!("{} bytes of records", header.body_bytes)));
    }
    check_length(path, file_bytes, HEADER_BYTES as u64 + header.body_bytes)?;
    let length = usize::try_from(header.body_bytes).expect("below the limit checked above");
    let mut body = vec![0; length];
    file.read_exact(&mut body).map_err(|failed| Error::system(path, "read", failed))?;
    if hash(&body) != header.body_hash {
        return Err(error(ErrorKind::Altered { part: "list of records" }));
    }
    Ok((header, body))
}

/// Refuses a file that is shorter or longer than it was written.
fn check_length(path: &Path, found_bytes: u64, expected_bytes: u64) -> Result<()> {
    match found_bytes.cmp(&expected_bytes) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => {
            Err(Error::new(path, ErrorKind::Truncated { found_bytes, expected_bytes }))
        }
        std::cmp::Ordering::Greater => {
            let more = found_bytes - expected_bytes;
            Err(Error::malformed(path, format!("{more} bytes follow where the file should end")))
        }
    }
}
