//! PID 1 of the restored process's PID namespace.
//!
//! In: the plan. Out: never returns. Invariant: it ends when the main process ends, and then the
//! kernel ends everything else in the namespace; it ends when the restoring process ends, unless
//! detached.

use super::{LaunchError, rebirth};
use crate::plan::{Lowered, RestorePlan};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{Pid, write};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use tub_sys::{Errno, Forked};

/// Runs init: makes the main process, reaps, and tells through `teller` how the main one ended.
pub(super) fn run(
    plan: &RestorePlan,
    lowered: &Lowered,
    pages: &File,
    handshake: OwnedFd,
    teller: OwnedFd,
) -> ! {
    if !plan.detach {
        die_with_parent(&teller);
    }
    mount_proc();
    let wanted = plan.tasks[0].pid;
    // SAFETY: this process is single-threaded: it was forked from a single-threaded one.
    let main = match unsafe { tub_sys::fork_with_pid(wanted) } {
        Ok(Forked::Child) => {
            drop(teller);
            rebirth::run(plan, lowered, pages, handshake)
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
        let (pid, verdict) = match wait() {
            Ok(WaitStatus::Exited(pid, code)) => (pid, [0, code.to_le_bytes()[0]]),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, [1, signal as u8]),
            Err(Errno::EINTR) | Ok(_) => continue,
            Err(_) => std::process::exit(1),
        };
        if pid == main {
            let _ = write(teller, &verdict);
            // The kernel ends everything else in the namespace with us.
            std::process::exit(0);
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

/// Mounts a /proc that shows the new PID namespace. Default Podman forbids it; the process then
/// sees its host's /proc, where `/proc/self` is right all the same.
pub(super) fn mount_proc() {
    if unshare(CloneFlags::CLONE_NEWNS).is_err() {
        return;
    }
    // Mounts made outside still arrive; ours stay ours.
    let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    if mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).is_err() {
        return;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let _ = mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>);
}
