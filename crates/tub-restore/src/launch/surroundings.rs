//! The namespaces that the restored process will live in.
//!
//! In: whether ids are kept. Out: [`Surroundings`], entered by this process or, for PIDs and time,
//! by its future children. Invariant: whatever is refused is known before anything is planned.
//!
//! As root in the initial user namespace, PID and time namespaces need no user namespace. For
//! everybody else one comes with them, in which the caller is mapped to itself: same numbers, and
//! no power over anything outside.

use crate::launch::LaunchError;
use crate::plan::Ids;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use std::fs;
use tub_sys::Errno;

/// linux/sched.h; nix and libc do not name it on every C library.
pub(super) const CLONE_NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// What this process has entered.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Whether a user namespace of our own.
    pub user_namespace: bool,
    /// Whether our children get a time namespace of their own.
    pub time_namespace: bool,
    /// Effective user id, which is the same inside and outside.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Effective, permitted, inheritable capabilities before any user namespace.
    pub capabilities: [u64; 3],
}

impl Surroundings {
    /// Enters what `ids` needs.
    ///
    /// # Errors
    ///
    /// Where ids are to be kept and no PID namespace can be had. New ids need nothing.
    pub fn enter(ids: Ids) -> Result<Self, LaunchError> {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let capabilities = tub_sys::capabilities().unwrap_or_default();
        let needed = match ids {
            Ids::Keep => CloneFlags::CLONE_NEWPID,
            Ids::New => CloneFlags::empty(),
        };
        let user = CloneFlags::CLONE_NEWUSER;
        // In the order of preference: least first, then with a user namespace, then without the
        // continuing clock.
        let attempts =
            [needed | CLONE_NEWTIME, needed | CLONE_NEWTIME | user, needed, needed | user];
        let mut last = Errno::EPERM;
        for flags in attempts {
            if flags.contains(user) && ids == Ids::New && !flags.contains(CLONE_NEWTIME) {
                continue;
            }
            // Default Docker refuses unshare(2) as such, even for nothing.
            let entered = if flags.is_empty() { Ok(()) } else { unshare(flags) };
            match entered {
                Ok(()) => {
                    let user_namespace = flags.contains(user);
                    if user_namespace {
                        map_ids(uid, gid)?;
                    }
                    let time_namespace = flags.contains(CLONE_NEWTIME);
                    return Ok(Self { user_namespace, time_namespace, uid, gid, capabilities });
                }
                Err(errno) => last = errno,
            }
        }
        Err(LaunchError::NoPidNamespace { source: last })
    }
}

/// Maps the caller's ids to themselves (user_namespaces(7)).
fn map_ids(uid: u32, gid: u32) -> Result<(), LaunchError> {
    let write = |path: &str, content: String| {
        fs::write(path, content)
            .map_err(|source| LaunchError::Proc { path: path.to_owned(), source })
    };
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}
