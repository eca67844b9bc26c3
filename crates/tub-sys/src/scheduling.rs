//! How threads are scheduled.

use crate::{Errno, check};
use tub_units::HostPid;

/// `struct sched_attr` (linux/sched/types.h) up to its first version.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawSchedAttr {
    /// Bytes of this struct.
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Nice value of an ordinary policy.
    pub nice: i32,
    /// Priority of a real-time policy.
    pub priority: u32,
    /// Of SCHED_DEADLINE, in nanoseconds.
    pub runtime_ns: u64,
    /// Of SCHED_DEADLINE, in nanoseconds.
    pub deadline_ns: u64,
    /// Of SCHED_DEADLINE, in nanoseconds.
    pub period_ns: u64,
}

/// `sched_getattr(tid, &attr, size, 0)`: of any thread that we can see.
pub fn sched_attr(tid: HostPid) -> Result<RawSchedAttr, Errno> {
    let mut attr = RawSchedAttr::default();
    let size = size_of::<RawSchedAttr>();
    // SAFETY: the kernel writes at most the announced size to `attr`.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, tid.0, &raw mut attr, size, 0) };
    check(result)?;
    Ok(attr)
}

/// `ioprio_get(IOPRIO_WHO_PROCESS, tid)`: class and level of a thread; 0 for none of its own.
pub fn io_priority(tid: HostPid) -> Result<u32, Errno> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: takes numbers.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, tid.0) };
    Ok(u32::try_from(check(result)?).unwrap_or(0))
}

/// The most processors that a kernel can be built for (CONFIG_NR_CPUS), in words of an affinity mask.
const MASK_WORDS: usize = 8192 / 64;

/// `sched_getaffinity(tid, …)`: the CPUs that a thread may run on (0: ours), bit n of word m for CPU
/// 64 m + n, without zeros at the end.
pub fn affinity(tid: HostPid) -> Result<Vec<u64>, Errno> {
    let mut mask = vec![0u64; MASK_WORDS];
    let bytes = size_of_val(mask.as_slice());
    // SAFETY: the kernel writes at most the announced size to `mask`.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_getaffinity, tid.0, bytes, mask.as_mut_ptr()) };
    check(result)?;
    while mask.last() == Some(&0) {
        mask.pop();
    }
    Ok(mask)
}

/// `sched_setaffinity(0, …)` of the calling thread.
pub fn set_own_affinity(mask: &[u64]) -> Result<(), Errno> {
    // SAFETY: the kernel reads `mask`, of which it is told the size.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) };
    check(result).map(drop)
}

/// `getcpu(2)`: the processor that the calling thread runs on, at the moment.
pub fn processor() -> Option<u32> {
    // SAFETY: no memory is involved.
    u32::try_from(unsafe { libc::sched_getcpu() }).ok()
}
