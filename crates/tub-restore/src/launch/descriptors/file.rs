//! Files at their paths, checked.
//!
//! In: what the image says of a file. Out: a descriptor. Invariant: no link is followed; a file
//! that must be unchanged is; nobody is waited for, whatever lies at a path by now.

use crate::launch::LaunchError;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, fstat};
use std::os::fd::{AsRawFd, OwnedFd};
use tub_model::FileIdentity;
use tub_sys::Errno;

/// Opens a file that must be the one that the image knows.
pub(super) fn open_existing(file: &FileIdentity, writable: bool) -> Result<OwnedFd, LaunchError> {
    let access = if writable { OFlag::O_RDWR } else { OFlag::O_RDONLY };
    let fd = open_path(&file.path, access | OFlag::O_NONBLOCK)?;
    check_kind(&fd, &file.path, libc::S_IFREG)?;
    check_identity(&fd, file)?;
    Ok(fd)
}

/// Opens what must be of that kind (`S_IF…`). Opening does not wait: the path may be that of a FIFO by now.
pub(super) fn open_kind(path: &str, flags: OFlag, kind: u32) -> Result<OwnedFd, LaunchError> {
    let fd = open_path(path, flags | OFlag::O_NONBLOCK)?;
    check_kind(&fd, path, kind)?;
    if !flags.contains(OFlag::O_NONBLOCK) {
        tub_sys::set_status_flags(fd.as_raw_fd(), flags.bits())
            .map_err(|source| LaunchError::Descriptor { object: format!("file {path}"), source })?;
    }
    Ok(fd)
}

/// Opens a file or directory of the kernel's by its path in `/proc` or `/sys`, in which `self` stands for us.
/// Others of its links lead anywhere: `/proc/self/root` is one.
pub(super) fn open_kernel(path: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
    let inside = path.strip_prefix("/proc/self");
    let own =
        inside.filter(|inside| inside.is_empty() || inside.starts_with('/')).and_then(|inside| {
            // As that /proc knows us, which need not show our namespace.
            Some(format!("/proc/{}{inside}", std::fs::read_link("/proc/self").ok()?.to_str()?))
        });
    let fd = open_unfollowed(own.as_deref().unwrap_or(path), flags | OFlag::O_NONBLOCK)?;
    if flags.contains(OFlag::O_PATH) {
        return Ok(fd);
    }
    // Where links are followed after all (see `open_unfollowed`), it may be a FIFO or a terminal.
    if !matches!(fstat(&fd)?.st_mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR) {
        return Err(Errno::EINVAL);
    }
    if !flags.contains(OFlag::O_NONBLOCK) {
        tub_sys::set_status_flags(fd.as_raw_fd(), flags.bits())?;
    }
    Ok(fd)
}

pub(super) fn check_kind(fd: &OwnedFd, path: &str, kind: u32) -> Result<(), LaunchError> {
    let stat = fstat(fd)
        .map_err(|source| LaunchError::Descriptor { object: format!("file {path}"), source })?;
    if stat.st_mode & libc::S_IFMT == kind {
        return Ok(());
    }
    Err(not_of_kind(path, kind))
}

fn not_of_kind(path: &str, kind: u32) -> LaunchError {
    let what = match kind {
        libc::S_IFDIR => "directory",
        libc::S_IFCHR => "device",
        libc::S_IFIFO => "FIFO",
        _ => "regular file",
    };
    LaunchError::FileChanged { path: path.to_owned(), problem: format!("is no {what} any more") }
}

pub(super) fn open_path(path: &str, flags: OFlag) -> Result<OwnedFd, LaunchError> {
    open_unfollowed(path, flags).map_err(|source| match source {
        Errno::ENOENT => {
            LaunchError::FileChanged { path: path.to_owned(), problem: "is gone".to_owned() }
        }
        Errno::ELOOP => LaunchError::FileChanged {
            path: path.to_owned(),
            problem: "leads through a link now, which is not followed".to_owned(),
        },
        // What a FIFO without a reader says to a writer who does not wait (open(2)).
        Errno::ENXIO if flags.contains(OFlag::O_NONBLOCK) => not_of_kind(path, libc::S_IFREG),
        source => LaunchError::Descriptor { object: format!("file {path}"), source },
    })
}

fn open_unfollowed(path: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
    // With O_PATH, openat2(2) takes these flags and no others.
    let flags = if flags.contains(OFlag::O_PATH) {
        flags & (OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW) | OFlag::O_CLOEXEC
    } else {
        flags | OFlag::O_NOCTTY | OFlag::O_CLOEXEC
    };
    // Not O_NOFOLLOW: the kernel keeps it among the flags that the process sees. The path is one
    // that the kernel gave, in which nothing was a link.
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(AT_FDCWD, path, how) {
        // Linux before 5.6, or a container profile that does not know it.
        Err(Errno::ENOSYS | Errno::EPERM) => open(path, flags | OFlag::O_NOFOLLOW, Mode::empty()),
        opened => opened,
    }
}

/// Size and time of modification: what survives the copy of a file into a container image. Layers
/// keep whole seconds only.
pub(super) fn check_identity(fd: &OwnedFd, file: &FileIdentity) -> Result<(), LaunchError> {
    let object = || format!("file {}", file.path);
    let stat = fstat(fd).map_err(|source| LaunchError::Descriptor { object: object(), source })?;
    let changed = |problem: String| LaunchError::FileChanged { path: file.path.clone(), problem };
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size != file.size_bytes {
        return Err(changed(format!("has {size} bytes, not {} any more", file.size_bytes)));
    }
    let saved = (file.mtime_ns.div_euclid(1_000_000_000), file.mtime_ns.rem_euclid(1_000_000_000));
    let exact = stat.st_mtime_nsec == saved.1 || stat.st_mtime_nsec == 0 || saved.1 == 0;
    if stat.st_mtime != saved.0 || !exact {
        return Err(changed("was modified after the checkpoint".to_owned()));
    }
    Ok(())
}
