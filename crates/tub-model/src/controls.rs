//! What `prctl(2)` and its like set for a process, apart from what [`crate::Task`] names.

/// Switches of a process. Zero is what a process starts with, unless told otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controls {
    /// `prctl(PR_GET_SECUREBITS)`: SECBIT_KEEP_CAPS and its like.
    pub secure_bits: u32,
    /// `membarrier(MEMBARRIER_CMD_GET_REGISTRATIONS)`: one bit for each command registered for.
    pub membarrier: u32,
    /// `prctl(PR_MCE_KILL_GET)`: when it is told of broken memory. PR_MCE_KILL_DEFAULT is 2.
    pub memory_failure: u32,
    /// `prctl(PR_GET_MDWE)`.
    pub no_write_execute: u32,
    /// `/proc/PID/coredump_filter`.
    pub core_filter: u32,
    /// `arch_prctl(ARCH_GET_XCOMP_PERM)`: whether its threads may use tiles of AMX.
    pub tiles: bool,
}
