//! How much is measured: everything, the essential, or just enough to see that it works.
//!
//! In: an option. Out: numbers of rounds and sizes.
//! Invariant: the three differ in numbers only, so that the short one tests the long one.
//! Not here: what is done with them.

/// How often, and how large.
#[derive(Clone, Debug)]
pub(super) struct Effort {
    pub(super) name: &'static str,
    /// JDKs to look for.
    pub(super) jdks: &'static [u32],
    /// How many of those found are used.
    pub(super) jdks_max: usize,
    pub(super) warm_up: u32,
    /// Of the process that goes on, by each engine.
    pub(super) checkpoints: usize,
    /// Rises of each kind.
    pub(super) rounds: usize,
    pub(super) at_once: usize,
    pub(super) at_once_rounds: usize,
    /// MiB, threads and mappings.
    pub(super) memory: &'static [u64],
    pub(super) threads: &'static [u64],
    pub(super) mappings: &'static [u64],
    pub(super) weigh_rounds: usize,
    pub(super) criu_mib_max: u64,
    /// Whether one instance of each weight looks at all its pages, which takes long.
    pub(super) look_at_all: bool,
    pub(super) write_mib: u64,
    pub(super) write_rounds: usize,
}

pub(super) const FULL: Effort = Effort {
    name: "full",
    jdks: &[17, 25],
    jdks_max: 2,
    warm_up: 20_000,
    checkpoints: 10,
    rounds: 30,
    at_once: 10,
    at_once_rounds: 5,
    memory: &[50, 200, 1024, 4096, 8192],
    threads: &[1, 10, 100, 1000],
    mappings: &[100, 1000, 10_000],
    weigh_rounds: 10,
    criu_mib_max: 1024,
    look_at_all: false,
    write_mib: 1024,
    write_rounds: 5,
};

pub(super) const QUICK: Effort = Effort {
    name: "quick",
    warm_up: 5000,
    checkpoints: 3,
    rounds: 8,
    at_once_rounds: 1,
    memory: &[50, 1024],
    threads: &[1, 100],
    mappings: &[100, 1000],
    weigh_rounds: 5,
    criu_mib_max: 50,
    write_mib: 256,
    write_rounds: 3,
    ..FULL
};

pub(super) const CHECK: Effort = Effort {
    name: "check",
    jdks_max: 1,
    warm_up: 500,
    checkpoints: 1,
    rounds: 2,
    at_once: 3,
    at_once_rounds: 1,
    memory: &[32, 256],
    threads: &[1, 50],
    mappings: &[100, 500],
    weigh_rounds: 1,
    criu_mib_max: 32,
    look_at_all: true,
    write_mib: 64,
    write_rounds: 1,
    ..FULL
};
