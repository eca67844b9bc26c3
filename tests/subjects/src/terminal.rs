//! Descriptors of the terminal that the standard streams are, too.

use crate::stage::Stage;
use crate::sys;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;

/// `terminal`: opened by its name and as `/dev/tty`. Its standard input must be one.
pub(crate) fn terminal(stage: &'static Stage) -> io::Result<()> {
    let path = fs::read_link("/proc/self/fd/0")?;
    let mut named = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let mut controlling = File::options().read(true).write(true).open("/dev/tty")?;
    let again = controlling.try_clone()?;
    let flags = |file: &File| sys::fcntl(file, libc::F_GETFL, 0);
    let before = (flags(&named)?, flags(&controlling)?);

    stage.across()?;

    stage.same("flags", &before, &(flags(&named)?, flags(&controlling)?));
    stage.holds("terminals", named.is_terminal() && controlling.is_terminal());
    named.write_all(b"by name\n")?;
    controlling.write_all(b"controlling\n")?;
    // Each has flags of its own, but for the one that is the same description.
    sys::fcntl(&controlling, libc::F_SETFL, libc::O_NONBLOCK)?;
    stage.holds("flags of a duplicate", flags(&again)? & libc::O_NONBLOCK != 0);
    let stdin = sys::fcntl(io::stdin(), libc::F_GETFL, 0)?;
    stage.same("flags of the standard input", &0, &(stdin & libc::O_NONBLOCK));
    sys::fcntl(&controlling, libc::F_SETFL, 0)?;
    Ok(())
}
