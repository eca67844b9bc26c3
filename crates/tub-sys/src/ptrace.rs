//! The ptrace requests that nix lacks, and those for which it knows no real-time signals.

use crate::{Ended, Errno, check};
use libc::{c_void, pid_t};
use std::cmp::Ordering;
use tub_units::HostPid;

/// What `wait(2)` tells of a thread that is traced (ptrace(2), "Stopped states"). Signals are numbers:
/// any may come, and nix turns those of real time into an error, when the kernel has told of them already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceeChange {
    /// It ended.
    Ended(Ended),
    /// It is at the beginning or the end of a system call; only with PTRACE_O_TRACESYSGOOD.
    SyscallStop,
    /// It stands in the stop of an event.
    EventStop {
        /// `PTRACE_EVENT_*`.
        event: i32,
        /// What the stop is said to be for.
        signal: i32,
    },
    /// A signal is about to be delivered to it.
    SignalStop(i32),
    /// Anything else.
    Other,
}

impl TraceeChange {
    fn of_status(status: i32) -> Self {
        if let Some(ended) = Ended::of_status(status) {
            return Self::Ended(ended);
        }
        if !libc::WIFSTOPPED(status) {
            return Self::Other;
        }
        let signal = libc::WSTOPSIG(status);
        match (signal, status >> 16) {
            (signal, 0) if signal == libc::SIGTRAP | 0x80 => Self::SyscallStop,
            (signal, 0) => Self::SignalStop(signal),
            (signal, event) => Self::EventStop { event, signal },
        }
    }
}

/// `waitpid(tid, &status, __WALL | flags)`: what has become of a thread that is traced; `None` with
/// WNOHANG where there is nothing to tell.
pub fn wait_for_tracee(tid: HostPid, flags: i32) -> Result<Option<TraceeChange>, Errno> {
    let mut status = 0;
    // SAFETY: the kernel writes `status`.
    let told = unsafe { libc::waitpid(tid.0, &raw mut status, libc::__WALL | flags) };
    Ok((check(i64::from(told))? != 0).then(|| TraceeChange::of_status(status)))
}

/// `waitid(P_PID, tid, &info, __WALL | WEXITED | WNOHANG | WNOWAIT)`: whether a thread that is traced has
/// ended. It is left to be waited for.
///
/// KERNEL: a stop that nobody has waited for yet is told as well where there is one, though nobody asked for
/// stops (wait_task_stopped, kernel/exit.c).
///
/// # Errors
///
/// ECHILD where it has been waited for already.
pub fn tracee_has_ended(tid: HostPid) -> Result<bool, Errno> {
    let id = libc::id_t::try_from(tid.0).map_err(|_| Errno::ECHILD)?;
    let flags = libc::__WALL | libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: all of a siginfo_t are numbers, for which zeros will do.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes `info`, or leaves its zeros where there is nothing to tell.
    check(i64::from(unsafe { libc::waitid(libc::P_PID, id, &raw mut info, flags) }))?;
    let ends = [libc::CLD_EXITED, libc::CLD_KILLED, libc::CLD_DUMPED];
    Ok(info.si_signo != 0 && ends.contains(&info.si_code))
}

/// How a stopped thread goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoOn {
    /// PTRACE_CONT.
    Traced,
    /// PTRACE_SYSCALL: up to its next system call, or to the end of the one that it is in.
    ToSystemCall,
    /// PTRACE_DETACH.
    Alone,
}

/// `ptrace(PTRACE_CONT | PTRACE_SYSCALL | PTRACE_DETACH, tid, 0, signal)`: lets a stopped thread go on,
/// with the signal that it was about to get, or with 0 for none.
///
/// # Errors
///
/// ESRCH where it is not stopped, too.
pub fn ptrace_go_on(tid: HostPid, how: GoOn, signal: i32) -> Result<(), Errno> {
    let request = match how {
        GoOn::Traced => libc::PTRACE_CONT,
        GoOn::ToSystemCall => libc::PTRACE_SYSCALL,
        GoOn::Alone => libc::PTRACE_DETACH,
    };
    let none = std::ptr::null_mut::<c_void>();
    // SAFETY: these requests take numbers; nothing of ours is written to.
    check(unsafe { libc::ptrace(request, tid.0, none, i64::from(signal)) }).map(drop)
}

/// Length that no xsave area exceeds: holds every component up to AMX tile data (8 KiB).
pub const XSTATE_BYTES_MAX: usize = 16 * 1024;

/// `ptrace(PTRACE_GETREGSET, tid, NT_X86_XSTATE, …)`: the uncompacted xsave area.
///
/// # References
///
/// ptrace(2); Intel SDM vol. 1, 13.4.
pub fn ptrace_xstate(tid: HostPid) -> Result<Vec<u8>, Errno> {
    // elf.h: NT_X86_XSTATE.
    const NT_X86_XSTATE: usize = 0x202;
    let mut area = vec![0u8; XSTATE_BYTES_MAX];
    let mut io = libc::iovec { iov_base: area.as_mut_ptr().cast(), iov_len: area.len() };
    // SAFETY: `io` describes `area`, which the kernel fills with at most `iov_len` bytes.
    let result = unsafe {
        libc::ptrace(libc::PTRACE_GETREGSET, tid.0, NT_X86_XSTATE as *mut c_void, &raw mut io)
    };
    check(result)?;
    area.truncate(io.iov_len);
    Ok(area)
}

/// `ptrace(PTRACE_GETSIGMASK, tid, 8, &mask)`: blocked signals, bit n-1 for signal n.
pub fn ptrace_signal_mask(tid: HostPid) -> Result<u64, Errno> {
    let mut mask = 0u64;
    // SAFETY: the kernel writes the 8 bytes that `addr` announces to `mask`.
    let result = unsafe {
        libc::ptrace(libc::PTRACE_GETSIGMASK, tid.0, 8usize as *mut c_void, &raw mut mask)
    };
    check(result)?;
    Ok(mask)
}

/// `ptrace(PTRACE_SETSIGMASK, tid, 8, &mask)`.
pub fn ptrace_set_signal_mask(tid: HostPid, mask: u64) -> Result<(), Errno> {
    // SAFETY: the kernel reads the 8 bytes that `addr` announces from `mask`.
    let result = unsafe {
        libc::ptrace(libc::PTRACE_SETSIGMASK, tid.0, 8usize as *mut c_void, &raw const mask)
    };
    check(result)?;
    Ok(())
}

/// `ptrace(PTRACE_PEEKSIGINFO, tid, …)`: the pending signals of a thread, or of its process.
pub fn ptrace_pending_signals(tid: HostPid, shared: bool) -> Result<Vec<[u8; 128]>, Errno> {
    const BATCH: usize = 32;
    const BATCH_I32: i32 = 32;
    // linux/ptrace.h: struct ptrace_peeksiginfo_args, PTRACE_PEEKSIGINFO_SHARED.
    #[repr(C)]
    struct Args {
        off: u64,
        flags: u32,
        nr: i32,
    }
    let mut all = Vec::new();
    loop {
        let args = Args { off: all.len() as u64, flags: u32::from(shared), nr: BATCH_I32 };
        let mut batch = [[0u8; 128]; BATCH];
        // SAFETY: the kernel reads `args` and writes at most `nr` siginfo_t of 128 bytes to `batch`.
        let result = unsafe {
            libc::ptrace(
                libc::PTRACE_PEEKSIGINFO,
                tid.0,
                (&raw const args).cast::<c_void>(),
                batch.as_mut_ptr(),
            )
        };
        let got = usize::try_from(check(result)?).unwrap_or(0);
        all.extend_from_slice(&batch[..got.min(BATCH)]);
        if got < BATCH {
            return Ok(all);
        }
    }
}

/// `ptrace(PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, tid, size, &config)`: whether the thread's system calls
/// are given to itself (PR_SET_SYSCALL_USER_DISPATCH of prctl(2)), at least some and now and then.
///
/// # References
///
/// KERNEL(since 6.4): linux/ptrace.h; EIO before.
pub fn ptrace_has_user_dispatch(tid: HostPid) -> Result<bool, Errno> {
    const PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG: libc::c_uint = 0x4211;
    // struct ptrace_sud_config: mode, selector, offset, length. Mode 0 is PR_SYS_DISPATCH_OFF.
    let mut config = [0_u64; 4];
    let bytes = size_of_val(&config) as *mut c_void;
    // SAFETY: the kernel writes exactly the announced size, that of `config`.
    let result = unsafe {
        libc::ptrace(PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, tid.0, bytes, config.as_mut_ptr())
    };
    check(result)?;
    Ok(config[0] != 0)
}

/// A thread's registration for restartable sequences, as the kernel reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RawRseqConfiguration {
    /// Address of the thread's `struct rseq`; 0 for none.
    pub address: u64,
    /// Registered size in bytes.
    pub size_bytes: u32,
    /// Signature before abort handlers.
    pub signature: u32,
    /// `RSEQ_FLAG_*`.
    pub flags: u32,
    pad: u32,
}

/// `ptrace(PTRACE_GET_RSEQ_CONFIGURATION, tid, size, &conf)`.
///
/// # References
///
/// KERNEL(since 5.13): linux/ptrace.h.
pub fn ptrace_rseq(tid: HostPid) -> Result<RawRseqConfiguration, Errno> {
    const PTRACE_GET_RSEQ_CONFIGURATION: libc::c_uint = 0x420f;
    let mut conf = RawRseqConfiguration::default();
    // SAFETY: the kernel writes at most the announced size of `conf`.
    let result = unsafe {
        libc::ptrace(
            PTRACE_GET_RSEQ_CONFIGURATION,
            tid.0,
            size_of::<RawRseqConfiguration>() as *mut c_void,
            &raw mut conf,
        )
    };
    check(result)?;
    Ok(conf)
}

/// `get_robust_list(tid, &head, &len)`.
pub fn get_robust_list(tid: HostPid) -> Result<(u64, u64), Errno> {
    let (mut head, mut len) = (0u64, 0u64);
    // SAFETY: both out-parameters point to words of ours.
    let result =
        unsafe { libc::syscall(libc::SYS_get_robust_list, tid.0, &raw mut head, &raw mut len) };
    check(result)?;
    Ok((head, len))
}

/// `kcmp(a, b, KCMP_FILE, fd_a, fd_b)`: whether two descriptors, each of a process, share a
/// description.
pub fn same_description(a: (HostPid, i32), b: (HostPid, i32)) -> Result<bool, Errno> {
    Ok(compare_descriptions(a, b)?.is_eq())
}

/// The same, and which comes first in an order that stays as long as the kernel runs (kcmp(2)).
pub fn compare_descriptions(a: (HostPid, i32), b: (HostPid, i32)) -> Result<Ordering, Errno> {
    const KCMP_FILE: pid_t = 0;
    // SAFETY: kcmp takes five numbers and no pointer.
    let result = unsafe { libc::syscall(libc::SYS_kcmp, a.0.0, b.0.0, KCMP_FILE, a.1, b.1) };
    Ok(match check(result)? {
        0 => Ordering::Equal,
        1 => Ordering::Less,
        _ => Ordering::Greater,
    })
}

/// What two threads may have in common (clone(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Common {
    /// CLONE_VM.
    Memory,
    /// CLONE_FILES.
    Descriptors,
    /// CLONE_FS: root, working directory and umask.
    Directories,
}

/// `kcmp(a, b, KCMP_VM | KCMP_FILES | KCMP_FS)`: whether two threads have `what` in common.
///
/// # References
///
/// kcmp(2); KERNEL(since 3.5): linux/kcmp.h.
pub fn in_common(a: HostPid, b: HostPid, what: Common) -> Result<bool, Errno> {
    let kind: pid_t = match what {
        Common::Memory => 1,
        Common::Descriptors => 2,
        Common::Directories => 3,
    };
    // SAFETY: kcmp takes five numbers and no pointer; the last two are not looked at here.
    let result = unsafe { libc::syscall(libc::SYS_kcmp, a.0, b.0, kind, 0, 0) };
    Ok(check(result)? == 0)
}

/// `kcmp(pid, pid, KCMP_EPOLL_TFD, fd, {epoll, target, offset})`: whether `fd` is the description
/// that an epoll set knows by the number `target`, the `offset`th of those with that number.
///
/// # References
///
/// KERNEL(since 4.13): kcmp(2).
pub fn epoll_watches(
    pid: HostPid,
    fd: i32,
    epoll: i32,
    target: i32,
    offset: u32,
) -> Result<bool, Errno> {
    const KCMP_EPOLL_TFD: i32 = 7;
    let slot = [epoll.cast_unsigned(), target.cast_unsigned(), offset];
    // SAFETY: the kernel reads the three words of `slot` (struct kcmp_epoll_slot).
    let result =
        unsafe { libc::syscall(libc::SYS_kcmp, pid.0, pid.0, KCMP_EPOLL_TFD, fd, slot.as_ptr()) };
    Ok(check(result)? == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stop_is_told_from_the_others() {
        let stopped = |signal: i32, event: i32| event << 16 | signal << 8 | 0x7f;
        for (status, change) in [
            (stopped(libc::SIGTRAP, 0), TraceeChange::SignalStop(libc::SIGTRAP)),
            (stopped(libc::SIGTRAP | 0x80, 0), TraceeChange::SyscallStop),
            (stopped(64, 0), TraceeChange::SignalStop(64)),
            (
                stopped(libc::SIGTRAP, 128),
                TraceeChange::EventStop { event: 128, signal: libc::SIGTRAP },
            ),
            (
                stopped(libc::SIGSTOP, 128),
                TraceeChange::EventStop { event: 128, signal: libc::SIGSTOP },
            ),
            (7 << 8, TraceeChange::Ended(Ended::Exited(7))),
            (40, TraceeChange::Ended(Ended::Killed { signal: 40, core_dumped: false })),
            (0xffff, TraceeChange::Other),
        ] {
            assert_eq!(TraceeChange::of_status(status), change, "{status:#x}");
        }
    }
}
