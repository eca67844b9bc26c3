//! File locks: of the description, of the process, of ranges; and who is told of events.

use crate::stage::{Promise, Stage};
use crate::sys;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;

/// `locks`: one of every kind. Others are asked through descriptions of their own, to which even a
/// lock of this very process is somebody else's (fcntl_locking(2), open file description locks).
pub(crate) fn locks(stage: &'static Stage) -> io::Result<()> {
    let open = |name: &str| {
        fs::write(stage.path(name), [7; 4096])?;
        OpenOptions::new().read(true).write(true).open(stage.path(name))
    };
    let whole = open("flock")?;
    let shared = open("flock-shared")?;
    let ranges = open("posix")?;
    let described = open("ofd")?;
    // A database maps the very file that it locks, and closing any descriptor of it gives the
    // process's locks up: so must the engine not.
    let map = sys::Mapping::file(&ranges, 1, libc::PROT_READ, libc::MAP_SHARED)?;
    let second = whole.try_clone()?;

    sys::flock(&whole, libc::LOCK_EX)?;
    sys::flock(&shared, libc::LOCK_SH)?;
    sys::record_lock(&ranges, libc::F_SETLK, libc::F_WRLCK, 10, 100)?;
    sys::record_lock(&ranges, libc::F_SETLK, libc::F_RDLCK, 1000, 0)?;
    sys::record_lock(&described, libc::F_OFD_SETLK, libc::F_WRLCK, 5, 6)?;

    stage.across()?;

    let other = |name: &str| OpenOptions::new().read(true).write(true).open(stage.path(name));
    let refused = |result: io::Result<()>| result.map_err(|error| error.kind());
    let busy = Err(io::ErrorKind::WouldBlock);
    stage.same("flock, exclusive", &busy, &refused(sys::flock(other("flock")?, libc::LOCK_SH)));
    stage.same("flock, shared", &busy, &refused(sys::flock(other("flock-shared")?, libc::LOCK_EX)));
    stage.same(
        "flock, shared once more",
        &Ok(()),
        &refused(sys::flock(other("flock-shared")?, libc::LOCK_SH)),
    );
    let asked = |file: &File, start, bytes| {
        let command = libc::F_OFD_GETLK;
        sys::record_lock(file, command, libc::F_WRLCK, start, bytes).map_err(|e| e.kind())
    };
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    let posix = other("posix")?;
    stage.same("range of the process", &Ok((libc::F_WRLCK, me)), &asked(&posix, 109, 1));
    stage.same("before it", &Ok((libc::F_UNLCK, 0)), &asked(&posix, 0, 10));
    stage.same("after it", &Ok((libc::F_UNLCK, 0)), &asked(&posix, 110, 890));
    stage.same("to the end", &Ok((libc::F_RDLCK, me)), &asked(&posix, 1 << 40, 1));
    let ofd = other("ofd")?;
    stage.same("range of the description", &Ok((libc::F_WRLCK, -1)), &asked(&ofd, 10, 1));
    stage.same("after it", &Ok((libc::F_UNLCK, 0)), &asked(&ofd, 11, 1));

    // They can be given up, through a duplicate, too.
    sys::flock(&second, libc::LOCK_UN)?;
    stage.same("given up", &Ok(()), &refused(sys::flock(other("flock")?, libc::LOCK_EX)));
    sys::record_lock(&described, libc::F_OFD_SETLK, libc::F_UNLCK, 0, 0)?;
    stage.same("given up", &Ok((libc::F_UNLCK, 0)), &asked(&ofd, 10, 1));
    drop((whole, map));
    Ok(())
}

/// `owners`: signals of descriptions go to whom they went.
pub(crate) fn owners(stage: &'static Stage) -> io::Result<()> {
    let signal = libc::SIGRTMIN() + 3;
    sys::block(&[signal, libc::SIGIO]);
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    let (reading, writing): (OwnedFd, OwnedFd) = sys::socketpair(libc::SOCK_STREAM)?;
    let (by_process, by_thread) = (reading, writing);
    sys::owner(&by_process, Some((1, me)))?;
    sys::fcntl(&by_process, F_SETSIG, signal)?;
    sys::fcntl(&by_process, libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK)?;
    sys::owner(&by_thread, Some((0, sys::gettid())))?;
    let flags = sys::fcntl(&by_process, libc::F_GETFL, 0)?;

    stage.across()?;

    let me = i32::try_from(std::process::id()).unwrap_or(0);
    stage.same("owning process", &Some((1, me)), &sys::owner(&by_process, None).ok());
    stage.same("its signal", &Some(signal), &sys::fcntl(&by_process, F_GETSIG, 0).ok());
    stage.same("flags", &Some(flags), &sys::fcntl(&by_process, libc::F_GETFL, 0).ok());
    if stage.promised(Promise::SameIds) || !stage.promised(Promise::Restored) {
        stage.same("owning thread", &Some((0, me)), &sys::owner(&by_thread, None).ok());
    }
    let mut writer = File::from(by_thread);
    io::Write::write_all(&mut writer, b"x")?;
    let taken = sys::take(&[signal], std::time::Duration::from_secs(5))?;
    stage.same("signal of an event", &Some(signal), &taken.map(|taken| taken.signal));
    Ok(())
}

const F_SETSIG: i32 = 10;
const F_GETSIG: i32 = 11;
