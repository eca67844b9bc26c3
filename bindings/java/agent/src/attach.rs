//! The socket file by which `jcmd` and its kin reach this JVM, in a copy.
//!
//! In: the process id of the original. Out: no file that leads nowhere.
//! Invariant: a socket that somebody listens behind stays, and so does what is not ours.
//! Not here: the listening socket itself, which the engine brings back.
//!
//! JVM(since 14): the listener binds to `/tmp/.java_pidN.tmp` and renames the file, so that nobody
//! but the JVM knows its name. The copy's socket has no file then, and the one of the original, which
//! has ended, turns tools away. Without it they send SIGQUIT as to a JVM that nobody has attached
//! to before, and the JVM, which misses the file as well, begins anew; same on 25.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Removes the file that the original has left behind, if nobody listens there.
pub(crate) fn forget_original(pid: u32) {
    // JVM: `os::get_temp_directory` of Linux, whatever TMPDIR says.
    let path = PathBuf::from(format!("/tmp/.java_pid{pid}"));
    // SAFETY: geteuid(2) cannot fail and touches no memory.
    let us = unsafe { libc::geteuid() };
    let is_ours = fs::symlink_metadata(&path)
        .is_ok_and(|found| found.file_type().is_socket() && found.uid() == us);
    let refuses = || {
        UnixStream::connect(&path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    if is_ours && refuses() {
        // Where it cannot be removed the tools go on saying that they were refused.
        let _ = fs::remove_file(&path);
    }
}
