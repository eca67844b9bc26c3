//! Processes, namespaces and threads.

use crate::{Errno, check, own};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use tub_units::{HostPid, NsPid};

/// How a child is to be made by [`fork_with_pid`].
#[repr(C, align(8))]
#[derive(Default)]
pub(crate) struct CloneArgs {
    pub(crate) flags: u64,
    pub(crate) pidfd: u64,
    pub(crate) child_tid: u64,
    pub(crate) parent_tid: u64,
    pub(crate) exit_signal: u64,
    pub(crate) stack: u64,
    pub(crate) stack_size: u64,
    pub(crate) tls: u64,
    pub(crate) set_tid: u64,
    pub(crate) set_tid_size: u64,
    pub(crate) cgroup: u64,
}

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// The new process.
    Child,
    /// The old one, with the id of the new one in its own PID namespace.
    Parent(i32),
}

/// `clone3(SIGCHLD, set_tid = pid)`: a fork whose child has the id `pid` in the PID namespace that
/// children of the caller live in.
///
/// # Safety
///
/// The caller must be single-threaded: the child continues with a copy of all memory but only
/// this thread.
///
/// # Errors
///
/// EEXIST where the id is taken; EPERM without CAP_CHECKPOINT_RESTORE over the namespace
/// (KERNEL(since 5.9): clone(2), "set_tid").
pub unsafe fn fork_with_pid(pid: NsPid) -> Result<Forked, Errno> {
    let wanted = pid.0;
    let args = CloneArgs {
        exit_signal: libc::SIGCHLD as u64,
        set_tid: &raw const wanted as u64,
        set_tid_size: 1,
        ..CloneArgs::default()
    };
    // SAFETY: `args` is a valid struct clone_args of the announced size; with no stack given the
    // child runs on a copy of ours; the caller vouches for being single-threaded.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match check(result)? {
        0 => Ok(Forked::Child),
        child => Ok(Forked::Parent(i32::try_from(child).unwrap_or(-1))),
    }
}

/// `capget(2)` of ourselves: effective, permitted and inheritable, bit n for capability n.
pub fn capabilities() -> Result<[u64; 3], Errno> {
    let header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 writes two elements to `data`.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) };
    check(result)?;
    let wide = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok([
        wide(data[0].effective, data[1].effective),
        wide(data[0].permitted, data[1].permitted),
        wide(data[0].inheritable, data[1].inheritable),
    ])
}

/// linux/capability.h: _LINUX_CAPABILITY_VERSION_3.
pub const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Takes back the registration for restartable sequences that glibc made for this thread, so that
/// the kernel no longer writes to memory that is about to be unmapped.
///
/// # References
///
/// glibc manual 33.2 (since 2.35): `__rseq_offset`, `__rseq_size`; rseq(2) of the kernel's
/// Documentation: RSEQ_FLAG_UNREGISTER = 1. A C library without these symbols registers nothing.
pub fn unregister_own_rseq() -> Result<(), Errno> {
    let Some((address, size)) = own_rseq() else { return Ok(()) };
    // SAFETY: the address is that of this thread's registration; unregistering it only stops the
    // kernel from writing there.
    let result = unsafe { libc::syscall(libc::SYS_rseq, address, size, 1, RSEQ_SIGNATURE) };
    match check(result) {
        // Nothing was registered (GLIBC_TUNABLES=glibc.pthread.rseq=0).
        Err(Errno::EINVAL | Errno::ENOSYS) | Ok(_) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// glibc's signature on x86-64 (sysdeps/unix/sysv/linux/x86/bits/rseq.h).
#[cfg(target_arch = "x86_64")]
const RSEQ_SIGNATURE: u32 = 0x5305_3053;
#[cfg(target_arch = "aarch64")]
const RSEQ_SIGNATURE: u32 = 0xd428_bc00;

#[cfg(target_arch = "x86_64")]
fn own_rseq() -> Option<(u64, u32)> {
    use std::arch::asm;
    let (offset_at, size_at, thread_pointer): (*const isize, *const u32, u64);
    // SAFETY: reads two entries of the global offset table (zero where the weak symbols are
    // missing) and the thread pointer, which x86-64 keeps at %fs:0; changes nothing.
    unsafe {
        asm!(
            ".weak __rseq_offset",
            ".weak __rseq_size",
            "mov {offset}, qword ptr [rip + __rseq_offset@GOTPCREL]",
            "mov {size}, qword ptr [rip + __rseq_size@GOTPCREL]",
            "mov {tp}, qword ptr fs:[0]",
            offset = out(reg) offset_at,
            size = out(reg) size_at,
            tp = out(reg) thread_pointer,
            options(nostack, preserves_flags),
        );
    }
    if offset_at.is_null() || size_at.is_null() {
        return None;
    }
    // SAFETY: glibc defines `__rseq_offset` as a ptrdiff_t that never changes after start.
    let offset = unsafe { *offset_at };
    // SAFETY: glibc defines `__rseq_size` as an unsigned int that never changes after start.
    let size = unsafe { *size_at };
    if size == 0 {
        return None;
    }
    // glibc registers 32 bytes whatever the size of the features it knows.
    Some((thread_pointer.wrapping_add_signed(offset as i64), size.max(32)))
}

#[cfg(not(target_arch = "x86_64"))]
fn own_rseq() -> Option<(u64, u32)> {
    None
}

/// Whether clone3 is there. Default container profiles answer ENOSYS.
pub fn has_clone3() -> bool {
    // SAFETY: a size of 0 is refused (EINVAL) before anything is read or done.
    let result = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::null::<CloneArgs>(), 0usize) };
    check(result) != Err(Errno::ENOSYS)
}

/// Whether `prctl(PR_TIMER_CREATE_RESTORE_IDS, …)` is there (KERNEL(since 6.15)).
pub fn has_timer_restore_ids() -> bool {
    const PR_TIMER_CREATE_RESTORE_IDS: i32 = 77;
    const GET: u64 = 2;
    // SAFETY: only asks for the mode.
    let result = unsafe { libc::prctl(PR_TIMER_CREATE_RESTORE_IDS, GET, 0u64, 0u64, 0u64) };
    check(i64::from(result)).is_ok()
}

/// `getrlimit` of every limit that this kernel has: number, soft, hard; `u64::MAX` for none.
pub fn own_limits() -> Vec<(u32, u64, u64)> {
    (0..16u32)
        .filter_map(|resource| {
            let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
            let null = std::ptr::null::<libc::rlimit64>();
            // SAFETY: no new limit is given; the kernel writes the old one to `limit`.
            let result =
                unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, null, &raw mut limit) };
            check(result).ok()?;
            Some((resource, limit.rlim_cur, limit.rlim_max))
        })
        .collect()
}

/// `setrlimit(resource, soft, hard)` of ourselves.
pub fn set_own_limit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let null = std::ptr::null_mut::<libc::rlimit64>();
    // SAFETY: the kernel reads `limit`; no old one is asked for.
    let result = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, null) };
    check(result).map(drop)
}

/// `prctl(PR_SET_PDEATHSIG, signal)`.
pub fn set_parent_death_signal(signal: i32) -> Result<(), Errno> {
    // SAFETY: takes a number.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
    check(i64::from(result)).map(drop)
}

/// What has become of a child, as `wait(2)` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildChange {
    /// It ended.
    Ended(Ended),
    /// This signal stopped it.
    Stopped(u8),
    /// It was continued.
    Continued,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this status.
    Exited(u8),
    /// By a signal.
    Killed {
        /// Which.
        signal: u8,
        /// Whether it left a core dump.
        core_dumped: bool,
    },
}

/// `waitpid(pid, &status, flags)`: a child and what has become of it; `None` with WNOHANG where there
/// is nothing to tell. Unlike the safe wrappers it knows real-time signals.
pub fn wait_for_child(pid: i32, flags: i32) -> Result<Option<(i32, ChildChange)>, Errno> {
    let mut status = 0;
    // SAFETY: the kernel writes `status`.
    let child = check(i64::from(unsafe { libc::waitpid(pid, &raw mut status, flags) }))?;
    let child = i32::try_from(child).unwrap_or(-1);
    if child == 0 {
        return Ok(None);
    }
    let change = match Ended::of_status(status) {
        Some(ended) => ChildChange::Ended(ended),
        None if libc::WIFSTOPPED(status) => ChildChange::Stopped(byte(libc::WSTOPSIG(status))),
        None => ChildChange::Continued,
    };
    Ok(Some((child, change)))
}

/// `waitid(P_PID, pid, &info, WEXITED | WNOWAIT?)`: waits for the end of a child, however it ends, and with
/// `leave` leaves it as a zombie.
pub fn await_end(pid: i32, leave: bool) -> Result<(), Errno> {
    let id = libc::id_t::try_from(pid).map_err(|_| Errno::ECHILD)?;
    let flags = libc::WEXITED | if leave { libc::WNOWAIT } else { 0 };
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::uninit();
    // SAFETY: the kernel writes `info`, which nobody reads.
    check(i64::from(unsafe { libc::waitid(libc::P_PID, id, info.as_mut_ptr(), flags) })).map(drop)
}

/// `waitid(P_ALL, &info, WEXITED | WNOHANG | WNOWAIT)`: the id of a child that has ended, which is left as
/// it is; `None` where none has.
///
/// # Errors
///
/// ECHILD where there is no child at all.
pub fn ended_child() -> Result<Option<i32>, Errno> {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the kernel writes `info`, or leaves it as it is.
    check(i64::from(unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), flags) }))?;
    // SAFETY: zeros are a value of this struct of numbers, and so is what the kernel writes.
    let info = unsafe { info.assume_init() };
    // SAFETY: of a child's change, and of zeros, the field is there.
    let pid = unsafe { info.si_pid() };
    Ok((pid != 0).then_some(pid))
}

fn byte(number: i32) -> u8 {
    number.to_le_bytes()[0]
}

impl Ended {
    /// What a status as `wait(2)` gives it tells of an end; `None` where it tells of none.
    pub fn of_status(status: i32) -> Option<Self> {
        if libc::WIFEXITED(status) {
            Some(Self::Exited(byte(libc::WEXITSTATUS(status))))
        } else if libc::WIFSIGNALED(status) {
            let core_dumped = libc::WCOREDUMP(status);
            Some(Self::Killed { signal: byte(libc::WTERMSIG(status)), core_dumped })
        } else {
            None
        }
    }
}

/// `kill(pid, signal)`, real-time signals included.
pub fn send_signal(pid: HostPid, signal: i32) -> Result<(), Errno> {
    // SAFETY: takes numbers.
    check(i64::from(unsafe { libc::kill(pid.0, signal) })).map(drop)
}

/// `sigqueue(pid, signal, value)`.
pub fn queue_signal(pid: HostPid, signal: i32, value: u64) -> Result<(), Errno> {
    let value = usize::try_from(value).unwrap_or(0);
    let value = libc::sigval { sival_ptr: std::ptr::without_provenance_mut(value) };
    // SAFETY: takes numbers; the pointer is a number to the kernel.
    check(i64::from(unsafe { libc::sigqueue(pid.0, signal, value) })).map(drop)
}

/// `pidfd_getfd(pidfd_open(pid), fd)`: a duplicate of another process's descriptor.
///
/// # References
///
/// KERNEL(since 5.6): pidfd_getfd(2). Default Docker forbids it.
pub fn duplicate_of(pid: HostPid, fd: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: pidfd_open takes numbers.
    let pidfd = own(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.0, 0) })?;
    // SAFETY: pidfd_getfd takes numbers.
    own(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) })
}

/// `pidfd_open(pid, flags)`: a descriptor that names the process, and no later one with its id.
///
/// # Errors
///
/// ESRCH where there is none (KERNEL(since 5.3): pidfd_open(2)).
pub fn pidfd_open(pid: HostPid, flags: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: pidfd_open takes two numbers and no pointer.
    own(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.0, flags) })
}

/// `pidfd_send_signal(pidfd, SIGKILL)`.
///
/// # Errors
///
/// ESRCH where it has ended.
pub fn kill_by_pidfd(pidfd: BorrowedFd<'_>) -> Result<(), Errno> {
    signal_by_pidfd(pidfd, libc::SIGKILL)
}

/// `pidfd_send_signal(pidfd, signal)`.
///
/// # Errors
///
/// ESRCH where it has ended, EPERM where it is another user's.
pub fn signal_by_pidfd(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let fd = pidfd.as_raw_fd();
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: without a siginfo the kernel makes one itself.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, none, 0) };
    check(sent).map(drop)
}

/// `ioctl(pidfd, PIDFD_GET_INFO)`: how a process ended that has been waited for, by whomever; `None`
/// where it has not been.
///
/// # Errors
///
/// ENOTTY or EINVAL where the kernel does not tell (KERNEL(since 6.15): linux/pidfd.h,
/// PIDFD_INFO_EXIT).
pub fn end_by_pidfd(pidfd: BorrowedFd<'_>) -> Result<Option<Ended>, Errno> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    let fd = pidfd.as_raw_fd();
    // SAFETY: the number announces a struct of this size, which the kernel reads and writes.
    let asked = unsafe { libc::ioctl(fd, PIDFD_GET_INFO, &raw mut info) };
    check(i64::from(asked))?;
    let told = info.mask & PIDFD_INFO_EXIT != 0;
    Ok(told.then_some(info.exit_code).and_then(Ended::of_status))
}

/// linux/pidfd.h: its first published size.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;

const PIDFD_GET_INFO: libc::Ioctl = libc::_IOWR::<PidfdInfo>(0xff, 11);

/// Words that this process and all its future children share, zero at first. They stay for good.
///
/// # Errors
///
/// ENOMEM.
pub fn shared_words(count: usize) -> Result<&'static [std::sync::atomic::AtomicI32], Errno> {
    let bytes = count.max(1) * size_of::<i32>();
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: a mapping where the kernel wants it touches nothing of ours.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, rights, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: the mapping is page-aligned, at least that long, zero, never unmapped by us, and
    // changed through atomics only, by whomever it is shared with.
    Ok(unsafe { std::slice::from_raw_parts(at.cast(), count) })
}

/// `prctl(PR_SET_NAME)`: the calling thread's name, of which the kernel takes 15 bytes.
///
/// # Errors
///
/// EINVAL where the name holds a NUL.
pub fn set_own_name(name: &str) -> Result<(), Errno> {
    let name = std::ffi::CString::new(name).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the name ends with a NUL and outlives the call.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) }.into()).map(drop)
}

/// `rt_sigaction(signal, SIG_DFL)`, without any flag. What is pending and ignored by default is forgotten.
///
/// # Errors
///
/// EINVAL for SIGKILL and SIGSTOP, whose action is always the default.
pub fn reset_signal_action(signal: i32) -> Result<(), Errno> {
    // The kernel's struct sigaction: handler, flags, restorer, mask.
    let default = [0_u64; 4];
    let null = std::ptr::null_mut::<u64>();
    // SAFETY: the kernel reads the 32 bytes of `default`, and the default action calls no code of ours.
    let result =
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, null, 8) };
    check(result).map(drop)
}

/// `rt_sigprocmask(SIG_UNBLOCK, {signal})` of the calling thread, real-time signals included.
///
/// # Errors
///
/// EINVAL where there is no such signal.
pub fn unblock_signal(signal: i32) -> Result<(), Errno> {
    let bit = u32::try_from(signal - 1).ok().and_then(|bit| 1_u64.checked_shl(bit));
    let set = bit.ok_or(Errno::EINVAL)?;
    let null = std::ptr::null_mut::<u64>();
    let how = libc::SIG_UNBLOCK;
    // SAFETY: the kernel reads the 8 bytes of `set`; no old set is asked for.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const set, null, 8) };
    check(result).map(drop)
}
