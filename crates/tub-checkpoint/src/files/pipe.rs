//! Pipes, named or not: which ends the process holds, and what lies in them.
//!
//! In: a surveyed descriptor. Out: its description. Invariant: nothing is taken out of a pipe.

use crate::refuse::{has_other_end, shares_with_stdio};
use crate::{Error, Result, Survey, SurveyedFd};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use tub_model::FileKind;
use tub_units::HostPid;

pub(super) fn pipe(survey: &Survey, fd: &SurveyedFd) -> Result<FileKind> {
    let access = fd.info.flags.cast_signed() & libc::O_ACCMODE;
    let write_end = access == libc::O_WRONLY;
    let path = (!fd.link.starts_with("pipe:")).then(|| fd.link.clone());
    // A FIFO is opened again by its path, whoever else has it open.
    let internal = path.is_some() || fd.other_end_closed || has_other_end(survey, fd);
    let both_ends = internal && !shares_with_stdio(survey, fd);
    let (capacity_bytes, content) =
        if both_ends { pipe_content(survey.pid, fd, !write_end)? } else { (0, Vec::new()) };
    Ok(FileKind::Pipe { path, id: fd.ino, write_end, capacity_bytes, content, both_ends })
}

/// Capacity and, if asked for, content of a pipe, which is left as it is: opening the link gives a
/// description of our own on the same pipe, and tee(2) copies without taking. Packets stay packets
/// in the copy, and each is read by itself (pipe(2), O_DIRECT).
fn pipe_content(pid: HostPid, fd: &SurveyedFd, content: bool) -> Result<(u32, Vec<Vec<u8>>)> {
    let path = format!("/proc/{pid}/fd/{}", fd.number);
    let failed = |source| Error::Proc { path: path.clone(), source };
    let errno = |errno: tub_sys::Errno| failed(errno.into());
    let ours = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(&path)
        .map_err(failed)?;
    let capacity = tub_sys::pipe_capacity(ours.as_fd()).map_err(errno)?;
    let lying = tub_sys::readable_bytes(ours.as_fd()).map_err(errno)?;
    let lying = usize::try_from(lying).unwrap_or(0);
    if !content || lying == 0 {
        return Ok((capacity, Vec::new()));
    }
    let (mut copy, sink) = std::io::pipe().map_err(failed)?;
    tub_sys::set_pipe_capacity(sink.as_raw_fd(), capacity).map_err(errno)?;
    let mut left = tub_sys::tee(ours.as_fd(), sink.as_fd(), lying).map_err(errno)?;
    if left < lying {
        return Err(errno(tub_sys::Errno::ENOBUFS));
    }
    let mut chunks = Vec::new();
    while left > 0 {
        let mut bytes = vec![0; left];
        let got = copy.read(&mut bytes).map_err(failed)?;
        bytes.truncate(got);
        chunks.push(bytes);
        left = left.saturating_sub(got.max(1));
    }
    Ok((capacity, chunks))
}
