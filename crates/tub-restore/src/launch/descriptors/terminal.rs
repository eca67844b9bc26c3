//! The terminal of the restoring side, opened once more.
//!
//! In: the standard stream that was the same terminal as a description of the image. Out: a
//! description of its own. Invariant: it is one of the standard streams' terminal, or the
//! controlling one, and never becomes the controlling one by being opened.

use super::LaunchError;
use nix::fcntl::{OFlag, open as open_file};
use nix::sys::stat::Mode;
use nix::unistd::isatty;
use std::os::fd::{BorrowedFd, OwnedFd};

pub(super) fn open(like: i32, number: i32, flags: i32, path: &str) -> Result<OwnedFd, LaunchError> {
    let dropped = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_TRUNC;
    let flags = (OFlag::from_bits_retain(flags) - dropped) | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let is_terminal = |stream: &i32| {
        // SAFETY: one of the standard streams; whether it is open, is what is asked.
        isatty(unsafe { BorrowedFd::borrow_raw(*stream) }) == Ok(true)
    };
    let streams = [like, 0, 1, 2].into_iter().filter(is_terminal);
    let names = streams.map(|stream| format!("/proc/self/fd/{stream}"));
    // Somebody else's terminal may only be opened under this name, by those whose session has it.
    let mut names = names.chain(["/dev/tty".to_owned()]);
    names
        .find_map(|name| open_file(name.as_str(), flags, Mode::empty()).ok())
        .ok_or_else(|| LaunchError::NoTerminal { number, path: path.to_owned() })
}
