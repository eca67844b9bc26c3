//! Whether the original can be ended once there is an image of it.
//!
//! In: a tree. Out: refusals. Invariant: nobody is sent anything.
//!
//! Whoever may trace a process may end it, with few exceptions: CAP_SYS_PTRACE without CAP_KILL is
//! one (capabilities(7)), a security module another. An original that lives on beside its copies
//! would share its files and ports with them, so it is asked beforehand.

use crate::{Refusal, RefusalKind, SurveyedTree};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tub_sys::Errno;

/// The processes that we may not end.
pub fn cannot_end(tree: &SurveyedTree) -> Vec<Refusal> {
    let refused = |pid: i32| kill(Pid::from_raw(pid), None) == Err(Errno::EPERM);
    let members = tree.members.iter().filter(|member| refused(member.pid.0));
    let refusal = |member: &crate::Survey| Refusal {
        kind: RefusalKind::Process,
        fd: None,
        object: format!("process {} ({})", member.pid, member.stat.comm),
        reason: "may be looked into, but not ended (kill(2): EPERM)".to_owned(),
        remedy: "use --leave-running, or run tub as its user or with CAP_KILL".to_owned(),
    };
    members.map(refusal).collect()
}
