//! What an epoll set watches.
//!
//! In: the set's lines in fdinfo, the descriptors of the process. Out: the description behind each
//! line. Invariant: a number that means another description by now is not taken for the old one.
//!
//! A set knows a description and the number under which it was added (epoll(7), question 6): the
//! number may have been closed since, or reused, while a duplicate keeps the description alive.

use crate::SurveyedFd;
use tub_procfs::fdinfo::EpollRecord;
use tub_units::HostPid;

/// The descriptor through which the process still has what `targets[index]` watches.
pub(super) fn watched<'a>(
    pid: HostPid,
    fds: &'a [SurveyedFd],
    epoll: i32,
    targets: &[EpollRecord],
    index: usize,
) -> Option<&'a SurveyedFd> {
    let target = &targets[index];
    let offset = targets[..index].iter().filter(|before| before.tfd == target.tfd).count();
    let offset = u32::try_from(offset).unwrap_or(u32::MAX);
    // Anonymous inodes are all the same one, so that number and inode are no proof. kcmp is, where
    // it is allowed.
    let is_it = |fd: &&SurveyedFd| {
        let same = tub_sys::epoll_watches(pid, fd.number, epoll, target.tfd, offset);
        same.unwrap_or(fd.number == target.tfd)
    };
    let candidates = || fds.iter().filter(|fd| fd.ino == target.ino);
    let first = candidates().find(|fd| fd.number == target.tfd).filter(&is_it);
    first.or_else(|| candidates().find(is_it))
}
