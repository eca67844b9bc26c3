//! Files that the image brings along: made anew for each instance, with their content.
//!
//! In: a [`MemoryFile`] and where its content lies. Out: a descriptor.
//! Invariant: none of them has a name in any directory at any time.
//!
//! Content is copied at once, and not mapped from the image as it is needed: what several mappings
//! and descriptors share has to be one file that they can all write to.

use crate::launch::LaunchError;
use crate::plan::{MappedFile, RestorePlan, SpareFds};
use nix::fcntl::{OFlag, open as open_file};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::sendfile::sendfile64;
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Whence, ftruncate, lseek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tub_image::PageRun;
use tub_model::{MemoryFile, MemoryFileKind};
use tub_sys::Errno;

/// Makes `file`, with `content` from the page store.
pub(super) fn open(
    file: &MemoryFile,
    content: &[PageRun],
    pages: i32,
) -> Result<OwnedFd, LaunchError> {
    make(file, content, pages)
        .map_err(|source| LaunchError::Descriptor { object: file.kind.describe(), source })
}

fn make(file: &MemoryFile, content: &[PageRun], pages: i32) -> Result<OwnedFd, Errno> {
    let fd = match &file.kind {
        MemoryFileKind::Memfd { name } => memfd(name)?,
        // The name by which a later checkpoint knows it for what it stands for.
        MemoryFileKind::SharedAnonymous => memfd("tub-shared")?,
        MemoryFileKind::Deleted { path } => nameless(path)?,
    };
    let size = i64::try_from(file.size_bytes).map_err(|_| Errno::EFBIG)?;
    ftruncate(&fd, size)?;
    // SAFETY: `open_all` has placed the page store there, and keeps it open.
    let store = unsafe { BorrowedFd::borrow_raw(pages) };
    for run in content {
        copy(store, run, &fd)?;
    }
    // The last page may have been longer than the file.
    ftruncate(&fd, size)?;
    lseek(&fd, 0, Whence::SeekSet)?;
    Ok(fd)
}

fn memfd(name: &str) -> Result<OwnedFd, Errno> {
    memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)
}

/// A file without a name on the file system on which the deleted one was, or in memory where that
/// cannot be.
fn nameless(path: &str) -> Result<OwnedFd, Errno> {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let directory = if directory.is_empty() { "/" } else { directory };
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    open_file(directory, flags, Mode::S_IRUSR | Mode::S_IWUSR).or_else(|_| memfd(name))
}

fn copy(store: BorrowedFd<'_>, run: &PageRun, to: &OwnedFd) -> Result<(), Errno> {
    let start = i64::try_from(run.range.start()).map_err(|_| Errno::EFBIG)?;
    lseek(to, start, Whence::SeekSet)?;
    let mut offset = i64::try_from(run.offset_bytes).map_err(|_| Errno::EFBIG)?;
    let mut left = usize::try_from(run.range.len()).map_err(|_| Errno::EFBIG)?;
    while left > 0 {
        match sendfile64(to.as_fd(), store, Some(&mut offset), left) {
            // The store is shorter than the image's reader has seen it.
            Ok(0) => return Err(Errno::EIO),
            Ok(done) => left -= done,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Opens file `index` once more: a description of its own on the same file.
pub(super) fn open_again(spare: SpareFds, index: usize, flags: OFlag) -> Result<OwnedFd, Errno> {
    let number = i32::try_from(index).map_err(|_| Errno::EBADF)? + spare.first_file;
    let flags = (flags - OFlag::O_NOFOLLOW) | OFlag::O_CLOEXEC;
    open_file(format!("/proc/self/fd/{number}").as_str(), flags, Mode::empty())
}

/// Gives each its permission bits.
pub(super) fn set_modes(plan: &RestorePlan) -> Result<(), LaunchError> {
    for (number, file) in (plan.spare.first_file..).zip(&plan.mapped_files) {
        let MappedFile::Memory { file, .. } = file else { continue };
        // SAFETY: `open_all` has placed it there, and keeps it open.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        fchmod(fd, Mode::from_bits_truncate(file.mode))
            .map_err(|source| LaunchError::Descriptor { object: file.kind.describe(), source })?;
    }
    Ok(())
}
