//! Whose process it is, and nobody else's.
//!
//! In: a pid. Out: a user. Invariant: a user is named only where what the user could do to the process,
//! the process could do by itself: all its ids are the user's, and it has no right beyond.

use crate::survey::parsed;
use std::fs;
use std::os::unix::fs::MetadataExt;
use tub_units::HostPid;

/// The user whose process it is alone; `None` where it has rights of somebody else's, or is gone.
pub fn only_owner(pid: HostPid) -> Option<u32> {
    let status = parsed(&format!("/proc/{pid}/status"), tub_procfs::status::parse).ok()?;
    let user = status.uids[0];
    let is_plain = status.uids.iter().all(|uid| *uid == user) && (user == 0 || status.cap_prm == 0);
    // KERNEL: of one that must not be looked into (PR_SET_DUMPABLE of prctl(2)) this is root's.
    let shown = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    (is_plain && shown == user).then_some(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_ours_is_ours() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = HostPid(i32::try_from(child.id()).unwrap());
        let owner = only_owner(pid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(owner, Some(fs::metadata("/proc/self").unwrap().uid()));
        assert_eq!(only_owner(HostPid(i32::MAX)), None);
    }
}
