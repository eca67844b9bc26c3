//! Attributes of a process or thread.

use super::{check, check_long};
use std::io;

/// gettid(2).
pub(crate) fn gettid() -> i32 {
    // SAFETY: takes nothing.
    unsafe { libc::gettid() }
}

/// umask(2), unchanged.
pub(crate) fn umask() -> u32 {
    // SAFETY: takes an integer.
    let mask = unsafe { libc::umask(0) };
    // SAFETY: takes an integer.
    unsafe { libc::umask(mask) };
    mask
}

/// umask(2).
pub(crate) fn set_umask(mask: u32) {
    // SAFETY: takes an integer.
    unsafe { libc::umask(mask) };
}

/// getrlimit(2): `(soft, hard)`.
pub(crate) fn limit(resource: u32) -> io::Result<(u64, u64)> {
    let mut found = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes the rlimit. (The type of `resource` differs between libcs.)
    check(unsafe { libc::getrlimit(resource as _, &raw mut found) })?;
    Ok((found.rlim_cur, found.rlim_max))
}

/// setrlimit(2).
pub(crate) fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let wanted = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the kernel reads the rlimit.
    check(unsafe { libc::setrlimit(resource as _, &raw const wanted) }).map(drop)
}

/// prctl(2) with one integer argument.
pub(crate) fn prctl(option: i32, argument: u64) -> io::Result<i32> {
    // SAFETY: the options used here take integers.
    check(unsafe { libc::prctl(option, argument, 0_u64, 0_u64, 0_u64) })
}

/// prctl(2) with an option that writes one int.
pub(crate) fn prctl_int(option: i32) -> io::Result<i32> {
    let mut value = 0;
    // SAFETY: the options used here write one int.
    check(unsafe { libc::prctl(option, &raw mut value) })?;
    Ok(value)
}

/// seccomp(2): a filter of the calling thread that allows everything. An ordinary user's takes
/// no_new_privs first.
pub(crate) fn filter_nothing() -> io::Result<()> {
    const PR_SET_NO_NEW_PRIVS: i32 = 38;
    prctl(PR_SET_NO_NEW_PRIVS, 1)?;
    // BPF_RET | BPF_K, SECCOMP_RET_ALLOW.
    let mut allow = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 }];
    let program = libc::sock_fprog { len: 1, filter: allow.as_mut_ptr() };
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the kernel copies the program of the length announced.
    let set = unsafe { libc::syscall(libc::SYS_seccomp, mode, 0, &raw const program) };
    check_long(set).map(drop)
}

/// personality(2): as it is, or changed to `new`.
pub(crate) fn personality(new: Option<u64>) -> io::Result<i32> {
    // SAFETY: takes an integer; all ones asks.
    check(unsafe { libc::personality(new.unwrap_or(0xffff_ffff)) })
}

/// getpriority(2) of this thread.
pub(crate) fn nice() -> i32 {
    // SAFETY: takes integers. (-1 is a nice value here; an own thread always has one.)
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

/// setpriority(2) of this thread.
pub(crate) fn set_nice(nice: i32) -> io::Result<()> {
    // SAFETY: takes integers.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }).map(drop)
}

/// sched_getscheduler(2) of this thread.
pub(crate) fn scheduler() -> io::Result<i32> {
    // SAFETY: takes an integer; 0 is the calling thread.
    check(unsafe { libc::sched_getscheduler(0) })
}

/// sched_setscheduler(2) of this thread to an ordinary `policy`.
pub(crate) fn set_scheduler(policy: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads the parameters.
    check(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) }).map(drop)
}

/// sched_getaffinity(2) of this thread: the processors that it may run on, up to 1024.
pub(crate) fn affinity() -> io::Result<Vec<usize>> {
    let mut mask = [0u64; 16];
    // SAFETY: the kernel writes at most the announced size.
    check_long(unsafe {
        libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(&mask), mask.as_mut_ptr())
    })?;
    Ok((0..1024).filter(|cpu| mask[cpu / 64] >> (cpu % 64) & 1 == 1).collect())
}

/// sched_setaffinity(2) of this thread.
pub(crate) fn set_affinity(processors: &[usize]) -> io::Result<()> {
    let mut mask = [0u64; 16];
    for cpu in processors {
        mask[cpu / 64] |= 1 << (cpu % 64);
    }
    // SAFETY: the kernel reads the announced size.
    check_long(unsafe {
        libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&mask), mask.as_ptr())
    })
    .map(drop)
}

/// ioprio_get(2) of this thread.
pub(crate) fn io_priority() -> io::Result<i32> {
    // SAFETY: takes integers; 1 is IOPRIO_WHO_PROCESS.
    let priority = check_long(unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) })?;
    i32::try_from(priority).map_err(io::Error::other)
}

/// ioprio_set(2) of this thread.
pub(crate) fn set_io_priority(priority: i32) -> io::Result<()> {
    // SAFETY: takes integers; 1 is IOPRIO_WHO_PROCESS.
    check_long(unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, priority) }).map(drop)
}

/// membarrier(2).
pub(crate) fn membarrier(command: i32) -> io::Result<()> {
    // SAFETY: takes integers.
    check_long(unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }).map(drop)
}

/// prctl(PR_MCE_KILL, PR_MCE_KILL_SET, policy).
pub(crate) fn set_memory_failure_policy(policy: i32) -> io::Result<()> {
    let policy = u64::from(policy.cast_unsigned());
    // SAFETY: takes integers.
    check(unsafe { libc::prctl(libc::PR_MCE_KILL, 1_u64, policy, 0_u64, 0_u64) }).map(drop)
}

/// setsid(2).
pub(crate) fn lead_session() -> io::Result<()> {
    // SAFETY: takes nothing.
    check(unsafe { libc::setsid() }).map(drop)
}

/// getsid(2) of this process.
pub(crate) fn session() -> io::Result<i32> {
    // SAFETY: takes an integer; 0 is the caller.
    check(unsafe { libc::getsid(0) })
}

/// arch_prctl(ARCH_SET_GS): the base that user code may use freely.
pub(crate) fn set_gs_base(base: u64) -> io::Result<()> {
    const ARCH_SET_GS: i32 = 0x1001;
    // SAFETY: nothing on x86-64 Linux uses gs in user space, so nothing can break.
    check_long(unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, base) }).map(drop)
}

/// arch_prctl(ARCH_REQ_XCOMP_PERM): leave to use tiles of AMX, KERNEL(since 5.16).
pub(crate) fn ask_for_tiles() -> io::Result<()> {
    const ARCH_REQ_XCOMP_PERM: i32 = 0x1023;
    const XFEATURE_XTILE_DATA: u64 = 18;
    let (option, tiles) = (ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA);
    // SAFETY: takes integers.
    check_long(unsafe { libc::syscall(libc::SYS_arch_prctl, option, tiles) }).map(drop)
}

/// arch_prctl(ARCH_GET_GS).
pub(crate) fn gs_base() -> io::Result<u64> {
    const ARCH_GET_GS: i32 = 0x1004;
    let mut base = 0_u64;
    // SAFETY: the kernel writes one u64.
    check_long(unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_GET_GS, &raw mut base) })?;
    Ok(base)
}
