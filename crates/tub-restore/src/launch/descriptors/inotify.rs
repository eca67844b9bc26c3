//! Inotify instances with their watches.
//!
//! In: watches by number. Out: a descriptor. Invariant: every watch has its number again, and no
//! event is queued that the process did not ask for.

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use tub_model::InotifyWatch;
use tub_sys::Errno;

/// The kernel hands out watch numbers in ascending order from 1, never one again: numbers in
/// between are used up with a watch that is removed at once.
pub(super) fn inotify(watches: &[InotifyWatch]) -> Result<OwnedFd, Errno> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
    for watch in watches {
        // The path is that of the very file: a link that was watched itself is not followed.
        let mask = AddWatchFlags::from_bits_retain(watch.mask) | AddWatchFlags::IN_DONT_FOLLOW;
        loop {
            let got = inotify.add_watch(watch.path.as_str(), mask)?;
            let number = watch_number(got);
            if number >= watch.number {
                break;
            }
            inotify.rm_watch(got)?;
        }
    }
    // SAFETY: the number is that of `inotify`, which is forgotten in the next line.
    let fd = unsafe { OwnedFd::from_raw_fd(inotify.as_fd().as_raw_fd()) };
    std::mem::forget(inotify);
    // Removing watches has queued IN_IGNORED events that the process never asked for.
    let mut rubbish = [0u8; 4096];
    let flags = libc::O_NONBLOCK;
    tub_sys::set_status_flags(fd.as_raw_fd(), flags)?;
    while nix::unistd::read(&fd, &mut rubbish).is_ok_and(|bytes| bytes > 0) {}
    Ok(fd)
}

fn watch_number(watch: nix::sys::inotify::WatchDescriptor) -> i32 {
    // nix keeps the number to itself, but for Debug.
    format!("{watch:?}")
        .chars()
        .filter(char::is_ascii_digit)
        .collect::<String>()
        .parse()
        .unwrap_or(i32::MAX)
}
