//! Whether a process that could not be looked into has ended meanwhile.
//!
//! In: a pid. Out: the answer. Invariant: a process of which this says that it has ended never runs
//! again. What the kernel says about one that is ending may be anything: files of `/proc` that are
//! not there, are empty or may not be read, calls that fail with ESRCH, EIO or EFAULT.

use crate::survey::{numbers, parsed};
use std::path::Path;
use std::time::Duration;
use tub_units::HostPid;

/// KERNEL: linux/sched.h, shown in `/proc/PID/stat`.
const PF_EXITING: u32 = 0x4;
/// SIGKILL in a set of signals.
const KILLED: u64 = 1 << 8;

/// How often one that is about to end is looked at until it has, and the pause in between.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(2);

/// Whether the process has ended, or is about to.
pub fn has_ended(pid: HostPid) -> bool {
    for _ in 0..ATTEMPTS {
        let stat = parsed(&format!("/proc/{pid}/stat"), tub_procfs::stat::parse);
        let Ok(stat) = stat else { return !Path::new(&format!("/proc/{pid}")).exists() };
        if "ZX".contains(stat.state) && stat.threads <= 1 {
            return true;
        }
        // The main one may have ended without the others.
        let threads = numbers(&format!("/proc/{pid}/task")).unwrap_or_default();
        if threads.iter().any(|tid| goes_on(pid, *tid)) {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
    true
}

/// Whether a thread is there that neither ends nor is going to.
fn goes_on(pid: HostPid, tid: i32) -> bool {
    let at = |name: &str| format!("/proc/{pid}/task/{tid}/{name}");
    let stat = parsed(&at("stat"), tub_procfs::stat::parse);
    let status = parsed(&at("status"), tub_procfs::status::parse);
    let (Ok(stat), Ok(status)) = (stat, status) else { return false };
    let killed = (status.sig_pnd | status.shd_pnd) & KILLED != 0;
    !killed && !"ZX".contains(stat.state) && stat.flags & PF_EXITING == 0
}
