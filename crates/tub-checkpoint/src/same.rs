//! Whether two descriptors, of one process or two, share an open file description.
//!
//! In: two descriptors that look alike, and their processes, held. Out: yes or no.
//! Invariant: the description is left as it was found.
//! Not here: which descriptors are worth asking about (`files`).

use crate::caller::Caller;
use crate::{Result, SurveyedFd};
use nix::sys::stat::SFlag;
use tub_sys::Errno;
use tub_units::HostPid;

/// linux/fcntl.h: the signal that announces a description's events, if the process asked for any.
const F_SETSIG: u64 = 10;
const F_GETSIG: u64 = 11;

/// kcmp(2) says it. Default Docker and Podman forbid that, and then the process itself is asked: the
/// signal of one descriptor is changed for a moment, and looked at through the other one. It is
/// kept with the description, can be read by nobody who does not ask for it, and has no effect but
/// on descriptions with O_ASYNC, whose process is held.
pub(crate) fn same_description(
    caller: &mut Caller<'_>,
    a: (HostPid, &SurveyedFd),
    b: (HostPid, &SurveyedFd),
) -> Result<bool> {
    let (one, other) = (a.1.number, b.1.number);
    match tub_sys::same_description((a.0, one), (b.0, other)) {
        Ok(same) => Ok(same),
        Err(_) if a.0 == b.0 => share_signal(caller, one, other),
        // A socket has one description only. Everything else that looks alike in two processes of
        // a tree, under the same number, was inherited.
        Err(_) => Ok(a.1.is(SFlag::S_IFSOCK) || one == other),
    }
}

fn share_signal(caller: &mut Caller<'_>, a: i32, b: i32) -> Result<bool> {
    let (Ok(before), Ok(other)) = (signal(caller, a)?, signal(caller, b)?) else {
        // O_PATH descriptors have none, and nothing else that a process could tell them apart by.
        return Ok(false);
    };
    if before != other {
        return Ok(false);
    }
    let mark = if before == 64 { 63 } else { 64 };
    if set_signal(caller, a, mark)?.is_err() {
        return Ok(false);
    }
    let marked = signal(caller, b)?;
    // What could be set can be set again.
    let _ = set_signal(caller, a, before)?;
    Ok(marked == Ok(mark))
}

type Answer = std::result::Result<u64, Errno>;

fn signal(caller: &mut Caller<'_>, fd: i32) -> Result<Answer> {
    caller.attempt(libc::SYS_fcntl, [u64::from(fd.cast_unsigned()), F_GETSIG, 0, 0, 0, 0])
}

fn set_signal(caller: &mut Caller<'_>, fd: i32, signal: u64) -> Result<Answer> {
    caller.attempt(libc::SYS_fcntl, [u64::from(fd.cast_unsigned()), F_SETSIG, signal, 0, 0, 0])
}
