//! What a plan is made of, besides the image: wishes, and facts about this host and this caller.

use super::MemoryFacts;
use tub_model::{Limit, VdsoFacts};
use tub_units::{AddrRange, HostPid};

/// Whether the restored process has the ids of the original.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ids {
    /// The same ids, in a PID namespace of its own.
    #[default]
    Keep,
    /// Whatever ids the kernel gives; C library caches are put right.
    New,
}

/// How memory is brought back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryMode {
    /// Lazy for runtimes known to bear it, exact for all others.
    #[default]
    Auto,
    /// Private memory is mapped from the page store: pages on demand, shared between instances.
    /// MADV_DONTNEED then brings back the image's content, not zeros.
    Lazy,
    /// Private memory is read into anonymous memory: exact in every respect.
    Eager,
}

/// Where descriptors 0 to 2 come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stdio {
    /// From the restoring process.
    #[default]
    Inherit,
    /// From the image, like all others.
    Image,
}

/// What was wished for.
#[derive(Clone, Debug, Default)]
pub struct PlanWishes {
    /// Same ids or new ones.
    pub ids: Ids,
    /// How memory is brought back.
    pub memory: MemoryMode,
    /// Where the standard streams come from.
    pub stdio: Stdio,
    /// Whether the instance outlives the restoring process.
    pub detach: bool,
    /// Whether it may go on as soon as it is laid out, without waiting for the word.
    pub at_once: bool,
    /// Whether monotonic clocks may run backwards, where they cannot go on.
    pub clocks_may_go_back: bool,
    /// Whether the instance is parked until somebody wants it.
    pub standby: bool,
    /// Pages known to be written to first: ascending, disjoint.
    pub hot: Vec<AddrRange>,
    /// What the coordinated application finds in its mailbox.
    pub mailbox: Vec<u8>,
    /// Whoever carries the plan out, and exists until then.
    pub restorer: HostPid,
}

/// What this host and this caller allow, as far as the plan depends on it.
#[derive(Clone, Debug)]
pub struct PlanFacts {
    /// Whether the caller gets a user namespace of its own (and is privileged in it).
    pub user_namespace: bool,
    /// Whether a time namespace can be had.
    pub time_namespace: bool,
    /// Whether `/proc/PID/exe` can be set: needs CAP_CHECKPOINT_RESTORE in the user namespace.
    pub set_executable: bool,
    /// Whether clone3 works (default Docker: it does not).
    pub clone3: bool,
    /// Whether the page store's file system forbids executable mappings.
    pub store_is_noexec: bool,
    /// CLOCK_MONOTONIC of this host, in nanoseconds.
    pub monotonic_ns: u64,
    /// CLOCK_BOOTTIME of this host, in nanoseconds.
    pub boottime_ns: u64,
    /// Effective user id of the caller.
    pub uid: u32,
    /// Effective group id of the caller.
    pub gid: u32,
    /// Supplementary groups of the caller, ascending; `None` where nobody may change them.
    pub groups: Option<Vec<u32>>,
    /// Capabilities of the caller, before any user namespace.
    pub capabilities: [u64; 3],
    /// Limits of the caller.
    pub limits: Vec<Limit>,
    /// Whether timers can be made with ids of our choice (KERNEL(since 6.15)).
    pub timer_ids: bool,
    /// This kernel's vdso, where it is not the image's.
    pub other_vdso: Option<VdsoFacts>,
    /// Kinds of memory that this kernel has.
    pub memory: MemoryFacts,
    /// Bytes of the blob's code.
    pub blob_bytes: u64,
    /// Whether standard input is a terminal: who leaves its group cannot read from it.
    pub terminal: bool,
}
