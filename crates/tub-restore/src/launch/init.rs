//! PID 1 of the restored process's PID namespace.
//!
//! In: the plan. Out: never returns. Invariant: it ends when the main process ends, and then the
//! kernel ends everything else in the namespace; it ends when the restoring process ends, unless
//! detached.

use super::{LaunchError, Outcome, rebirth};
use crate::plan::{Lowered, RestorePlan};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, write};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use tub_sys::{ChildChange, Errno, Forked};

/// Runs init: makes the main process, reaps, and tells through `teller` how the main one ended.
pub(super) fn run(
    plan: &RestorePlan,
    lowered: &[Lowered],
    pages: &File,
    handshake: OwnedFd,
    teller: OwnedFd,
) -> ! {
    if !plan.detach {
        die_with_parent(&teller);
    }
    let own_mounts = mount_proc();
    let wanted = plan.tasks[0].pid;
    // SAFETY: this process is single-threaded: it was forked from a single-threaded one.
    let main = match unsafe { tub_sys::fork_with_pid(wanted) } {
        Ok(Forked::Child) => {
            drop(teller);
            rebirth::run(plan, lowered, pages, handshake, own_mounts)
        }
        Ok(Forked::Parent(main)) => Pid::from_raw(main),
        Err(source) => {
            let failure = LaunchError::Pid { pid: wanted.0, source };
            let _ = write(&handshake, &failure.to_message());
            std::process::exit(1)
        }
    };
    drop(handshake);
    watch(main, &teller)
}

/// Reaps until the main process ends, and tells how it did.
pub(super) fn watch(main: Pid, teller: &OwnedFd) -> ! {
    // Nothing here may keep a pipe or a terminal of the restoring process open for longer than the
    // main process does, except for the teller.
    loop {
        let (pid, change) = match tub_sys::wait_for_child(-1, libc::WUNTRACED) {
            Ok(Some((pid, change))) => (Pid::from_raw(pid), change),
            Err(Errno::EINTR) | Ok(None) => continue,
            Err(_) => std::process::exit(1),
        };
        // Whoever lost its parent is our child now: it is reaped, and that is all.
        if pid != main {
            continue;
        }
        match change {
            ChildChange::Ended(ended) => {
                let _ = write(teller, &Change::Ended(ended.into()).to_bytes());
                // The kernel ends everything else in the namespace with us.
                std::process::exit(0);
            }
            ChildChange::Stopped(signal) => {
                let _ = write(teller, &Change::Stopped(i32::from(signal)).to_bytes());
            }
            ChildChange::Continued => {}
        }
    }
}

/// Ends when the restoring process, which holds the other end of `teller`, does.
pub(super) fn die_with_parent(teller: &OwnedFd) {
    let _ = tub_sys::set_parent_death_signal(libc::SIGKILL);
    // It may have ended before the line above.
    let mut gone = [PollFd::new(teller.as_fd(), PollFlags::empty())];
    if poll(&mut gone, PollTimeout::ZERO) == Ok(1) {
        std::process::exit(0);
    }
}

/// What init tells about the main process: two bytes, written and read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It ended.
    Ended(Outcome),
    /// A signal stopped it.
    Stopped(i32),
}

impl Change {
    fn to_bytes(self) -> [u8; 2] {
        match self {
            Self::Ended(Outcome::Exited(code)) => [0, code],
            Self::Ended(Outcome::Killed { signal, core_dumped: false }) => [1, low(signal)],
            Self::Ended(Outcome::Killed { signal, core_dumped: true }) => [2, low(signal)],
            Self::Stopped(signal) => [3, low(signal)],
        }
    }

    pub(super) fn from_bytes(bytes: [u8; 2]) -> Option<Self> {
        let signal = i32::from(bytes[1]);
        match bytes[0] {
            0 => Some(Self::Ended(Outcome::Exited(bytes[1]))),
            1 => Some(Self::Ended(Outcome::Killed { signal, core_dumped: false })),
            2 => Some(Self::Ended(Outcome::Killed { signal, core_dumped: true })),
            3 => Some(Self::Stopped(signal)),
            _ => None,
        }
    }
}

/// Signals are small numbers.
fn low(signal: i32) -> u8 {
    signal.to_le_bytes()[0]
}

/// Mounts a /proc that shows the new PID namespace. Default Podman forbids it; the process then
/// sees its host's /proc, where `/proc/self` is right all the same. Answers whether mounts of ours
/// stay ours.
pub(super) fn mount_proc() -> bool {
    if unshare(CloneFlags::CLONE_NEWNS).is_err() {
        return false;
    }
    // Mounts made outside still arrive; ours stay ours.
    let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    if mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).is_err() {
        return false;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let _ = mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_init_tells_is_what_is_understood() {
        let killed = |core_dumped| Outcome::Killed { signal: 64, core_dumped };
        for change in [
            Change::Ended(Outcome::Exited(255)),
            Change::Ended(killed(false)),
            Change::Ended(killed(true)),
            Change::Stopped(libc::SIGTSTP),
        ] {
            assert_eq!(Change::from_bytes(change.to_bytes()), Some(change));
        }
        assert_eq!(Change::from_bytes([4, 0]), None);
    }
}
