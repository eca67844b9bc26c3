//! Regular files without a name, made anew.
//!
//! In: content, access rights, where it was. Out: a descriptor. Invariant: the file has no name at
//! any time, and goes away with its last descriptor, as the original would.

use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fchmod};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tub_sys::Errno;

/// Makes the file beside where it was, so that it counts to the same file system, or in memory
/// where that cannot be.
pub(super) fn open(path: &str, mode: u32, content: &[u8], flags: i32) -> Result<OwnedFd, Errno> {
    let unnamed = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let parent = Path::new(path).parent().unwrap_or(Path::new("/"));
    let made = nix::fcntl::open(parent, unnamed, Mode::S_IRUSR | Mode::S_IWUSR);
    let name = std::ffi::CString::new(path).map_err(|_| Errno::EINVAL)?;
    let fd = made.or_else(|_| memfd_create(name.as_c_str(), MFdFlags::MFD_CLOEXEC))?;
    let mut file = File::from(fd);
    file.write_all(content)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    // Opened anew for the access that the original had, before its rights may forbid it.
    let opened = reopen(file.as_raw_fd(), flags)?;
    fchmod(&opened, Mode::from_bits_truncate(mode))?;
    Ok(opened)
}

/// Another description of a file that is open as `of`.
pub(super) fn reopen(of: i32, flags: i32) -> Result<OwnedFd, Errno> {
    let dropped = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_TRUNC | OFlag::O_NOFOLLOW;
    // O_TMPFILE is two bits, one of which is O_DIRECTORY.
    let flags = OFlag::from_bits_retain(flags) - dropped - OFlag::O_TMPFILE;
    let flags = flags | OFlag::O_CLOEXEC;
    let path = format!("/proc/self/fd/{of}");
    let open = || nix::fcntl::open(path.as_str(), flags, Mode::empty());
    match open() {
        Err(Errno::EACCES) => with_rights(&path, open).unwrap_or(Err(Errno::EACCES)),
        opened => opened,
    }
}

/// Opens a file of ours whose rights forbid it: it was open before they did. `None` where it is not ours.
fn with_rights<T>(path: &str, open: impl FnOnce() -> T) -> Option<T> {
    let rights = fs::metadata(path).ok()?.permissions();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).ok()?;
    let opened = open();
    fs::set_permissions(path, rights).ok()?;
    Some(opened)
}
