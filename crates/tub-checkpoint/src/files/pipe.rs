//! Pipes: which ends the process holds, and what lies in them.
//!
//! In: a surveyed descriptor. Out: its description. Invariant: nothing is taken out of a pipe.

use crate::refuse::{other_end, shares_with_stdio};
use crate::{Error, Result, Survey, SurveyedFd};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use tub_model::FileKind;
use tub_units::HostPid;

pub(super) fn pipe(survey: &Survey, fd: &SurveyedFd) -> Result<FileKind> {
    let write_end = fd.info.flags.cast_signed() & libc::O_ACCMODE == libc::O_WRONLY;
    let internal = fd.other_end_closed || other_end(survey, fd).is_some();
    let both_ends = internal && !shares_with_stdio(survey, fd);
    let (capacity_bytes, content) =
        if both_ends { pipe_content(survey.pid, fd, !write_end)? } else { (0, Vec::new()) };
    Ok(FileKind::Pipe { id: fd.ino, write_end, capacity_bytes, content, both_ends })
}

/// Capacity and, if asked for, content of a pipe, which is left as it is: opening the link gives a
/// description of our own on the same pipe, and tee(2) copies without taking.
fn pipe_content(pid: HostPid, fd: &SurveyedFd, content: bool) -> Result<(u32, Vec<u8>)> {
    let path = format!("/proc/{pid}/fd/{}", fd.number);
    let failed = |source| Error::Proc { path: path.clone(), source };
    let ours = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(&path)
        .map_err(failed)?;
    let capacity = tub_sys::pipe_capacity(ours.as_fd()).map_err(|errno| failed(errno.into()))?;
    if !content {
        return Ok((capacity, Vec::new()));
    }
    let (mut copy, sink) = std::io::pipe().map_err(failed)?;
    let _ = tub_sys::set_pipe_capacity(sink.as_raw_fd(), capacity);
    let mut bytes = Vec::new();
    match tub_sys::tee(ours.as_fd(), sink.as_fd(), capacity as usize) {
        Ok(got) => {
            bytes.resize(got, 0);
            copy.read_exact(&mut bytes).map_err(failed)?;
        }
        Err(tub_sys::Errno::EAGAIN) => {}
        Err(errno) => return Err(failed(errno.into())),
    }
    Ok((capacity, bytes))
}
