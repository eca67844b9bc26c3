//! A task: one process with its threads; and what is left of one that has ended.

use crate::{Controls, Discarder, Fd, FileIdentity, MmFields, Vma};
use alloc::{string::String, vec::Vec};
use tub_units::{NsPid, RemoteAddr};

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its process id, as it sees it itself.
    pub pid: NsPid,
    /// Its parent: index into [`crate::Checkpoint::tasks`], below its own; none for the main task.
    pub parent: Option<usize>,
    /// Its process group, as it sees it itself; 0 where it cannot see its leader.
    pub group: NsPid,
    /// Its session, in the same way.
    pub session: NsPid,
    /// The signal that has stopped it, if one has (SIGSTOP, Ctrl-Z).
    pub stopped: Option<i32>,
    /// Signal that it gets when its parent ends (`prctl(PR_GET_PDEATHSIG)`); 0 for none.
    pub parent_death_signal: i32,
    /// The executable.
    pub exe: FileIdentity,
    /// Whether it had been deleted, or replaced, while it ran: there is no such file any more.
    pub exe_deleted: bool,
    /// Working directory.
    pub cwd: String,
    /// File mode creation mask.
    pub umask: u32,
    /// User, groups and capabilities.
    pub credentials: Credentials,
    /// `prctl(PR_GET_DUMPABLE)`: 0 or 1.
    pub dumpable: u32,
    /// `prctl(PR_GET_NO_NEW_PRIVS)`.
    pub no_new_privs: bool,
    /// `prctl(PR_GET_THP_DISABLE)`.
    pub thp_disable: bool,
    /// `prctl(PR_GET_CHILD_SUBREAPER)`.
    pub child_subreaper: bool,
    /// `personality(2)` bits.
    pub personality: u32,
    /// `/proc/PID/oom_score_adj`.
    pub oom_score_adj: i32,
    /// The rest of what `prctl(2)` sets.
    pub controls: Controls,
    /// Limits that differ from nothing: all of them, by `RLIMIT_*` number.
    pub limits: Vec<Limit>,
    /// The address space's bounds.
    pub mm: MmFields,
    /// Mappings, ascending, disjoint.
    pub vmas: Vec<Vma>,
    /// Mapped programs and libraries that may discard pages, ascending by path.
    pub discarders: Vec<Discarder>,
    /// Signal actions other than the default, ascending by signal.
    pub signal_actions: Vec<SignalAction>,
    /// Signals pending for the process as a whole, as `siginfo_t`.
    pub pending_signals: Vec<SigInfo>,
    /// The three interval timers that run, by `ITIMER_*` number.
    pub interval_timers: Vec<IntervalTimer>,
    /// POSIX timers, ascending by id.
    pub posix_timers: Vec<PosixTimer>,
    /// Descriptors, ascending by number, each naming a description of the checkpoint's.
    pub fds: Vec<Fd>,
    /// Threads, the main one first.
    pub threads: Vec<Thread>,
}

impl Task {
    /// Whether it leads its session.
    pub fn leads_session(&self) -> bool {
        self.session == self.pid
    }
}

/// A process that has ended, and that its parent has not waited for yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zombie {
    /// Its process id, as its parent sees it.
    pub pid: NsPid,
    /// Its parent: index into [`crate::Checkpoint::tasks`].
    pub parent: usize,
    /// Its process group.
    pub group: NsPid,
    /// Its session.
    pub session: NsPid,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// How it ended, as `wait(2)` tells it.
    pub status: i32,
}

/// One thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its id, as it sees it itself.
    pub tid: NsPid,
    /// `/proc/PID/task/TID/comm`, at most 15 bytes.
    pub name: String,
    /// Registers.
    pub registers: Registers,
    /// Blocked signals, bit n-1 for signal n.
    pub signal_mask: u64,
    /// Signals pending for this thread, as `siginfo_t`.
    pub pending_signals: Vec<SigInfo>,
    /// `sigaltstack(2)`.
    pub alternate_stack: AlternateStack,
    /// `set_tid_address(2)`; 0 for none.
    pub clear_child_tid: RemoteAddr,
    /// `set_robust_list(2)`: head, and length in bytes.
    pub robust_list: (RemoteAddr, u64),
    /// How many robust mutexes it holds: futexes of that list with its id in them.
    pub robust_held: u32,
    /// Whether it waits for a futex with the owner's id in it (`FUTEX_LOCK_PI`).
    pub waits_for_owner: bool,
    /// `rseq(2)` registration, if any.
    pub rseq: Option<Rseq>,
    /// Scheduling policy and priority.
    pub scheduling: Scheduling,
    /// `prctl(PR_GET_TIMERSLACK)` in nanoseconds; 0 where it is not known.
    pub timer_slack_ns: u64,
    /// The wait for a time span that it was in, if what is left of it is known.
    pub wait: Option<RemainingWait>,
}

/// A system call that waits for a relative time, and what was left of it at the freeze.
///
/// The registers are those of the call about to be made again, with its argument as the program gave
/// it, which is the whole time. What is left stands in for that argument, in the copy, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemainingWait {
    /// The register that holds the time, as an index into [`Registers::general`].
    pub register: u32,
    /// What is left, in nanoseconds.
    pub remaining_ns: u64,
    /// Whether the argument is a number of milliseconds rather than a pointer to a `timespec`.
    pub milliseconds: bool,
}

/// User registers of an x86-64 thread, ready to go on: interrupted system calls are already settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers {
    /// `struct user_regs_struct` of `sys/user.h`, 27 words in its order.
    pub general: [u64; 27],
    /// NT_X86_XSTATE as PTRACE_GETREGSET gives it: an uncompacted xsave area.
    pub xsave: Vec<u8>,
}

/// An alternate signal stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlternateStack {
    /// Lowest address.
    pub address: u64,
    /// `SS_*` flags as the kernel reports them.
    pub flags: i32,
    /// Size in bytes.
    pub size_bytes: u64,
}

/// A registration for restartable sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rseq {
    /// Address of `struct rseq`.
    pub address: RemoteAddr,
    /// Its size in bytes, as registered.
    pub size_bytes: u32,
    /// The signature before each abort handler.
    pub signature: u32,
}

/// How a thread is scheduled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// `SCHED_*`.
    pub policy: u32,
    /// Nice value.
    pub nice: i32,
    /// Real-time priority; 0 for ordinary policies.
    pub priority: u32,
    /// SCHED_RESET_ON_FORK.
    pub reset_on_fork: bool,
    /// `ioprio_get(2)`: class and level; 0 for none of its own.
    pub io_priority: u32,
    /// The CPUs that it may run on, bit n of word m for CPU 64 m + n; empty where it was left to the
    /// host.
    pub affinity: Vec<u64>,
}

/// A signal action, as `rt_sigaction(2)` stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalAction {
    /// Signal number.
    pub signal: i32,
    /// Handler address, or SIG_IGN (1).
    pub handler: u64,
    /// `SA_*` flags.
    pub flags: u64,
    /// Address of the trampoline.
    pub restorer: u64,
    /// Signals blocked while it runs.
    pub mask: u64,
}

/// A `siginfo_t`, verbatim.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SigInfo(pub [u8; 128]);

impl core::fmt::Debug for SigInfo {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let word = |at: usize| {
            i32::from_ne_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
        };
        write!(f, "SigInfo {{ signo: {}, code: {} }}", word(0), word(8))
    }
}

/// One of the three `setitimer(2)` timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntervalTimer {
    /// `ITIMER_REAL` 0, `ITIMER_VIRTUAL` 1, `ITIMER_PROF` 2.
    pub which: i32,
    /// Microseconds until it next fires.
    pub value_us: u64,
    /// Period in microseconds, 0 for once.
    pub interval_us: u64,
}

/// A `timer_create(2)` timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PosixTimer {
    /// The kernel's id.
    pub id: i32,
    /// `CLOCK_*`.
    pub clock: i32,
    /// `SIGEV_*`, with SIGEV_THREAD_ID already folded in.
    pub notify: i32,
    /// Signal sent.
    pub signal: i32,
    /// `sigev_value`.
    pub value: u64,
    /// Thread signalled where `notify` says so.
    pub target: NsPid,
    /// Nanoseconds until it next fires; 0 when disarmed.
    pub value_ns: u64,
    /// Period in nanoseconds.
    pub interval_ns: u64,
}

impl PosixTimer {
    /// Whose processor time its clock is, if it is that of anybody's by name.
    pub fn measures(&self) -> Option<Measured> {
        Measured::of(self.clock)
    }
}

/// Whose processor time a clock is (KERNEL: linux/posix-timers_types.h, `CPUCLOCK_PID` and its likes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// The process's with that id; 0 is the one that asks.
    Process(NsPid),
    /// The thread's with that id; 0 is the one that asks.
    Thread(NsPid),
}

impl Measured {
    /// Of a `clockid_t`: negative ones measure processor time, and have the complement of an id above three
    /// bits, of which the highest tells threads from processes.
    pub fn of(clock: i32) -> Option<Self> {
        const PER_THREAD: i32 = 4;
        let id = NsPid(!(clock >> 3));
        let make = if clock & PER_THREAD == 0 { Self::Process } else { Self::Thread };
        (clock < 0).then(|| make(id))
    }
}

/// User, groups and capabilities of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Real, effective, saved and file-system user id.
    pub uids: [u32; 4],
    /// Real, effective, saved and file-system group id.
    pub gids: [u32; 4],
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Effective, permitted and inheritable capabilities, bit n for capability n.
    pub capabilities: [u64; 3],
}

/// A resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// `RLIMIT_*` number.
    pub resource: u32,
    /// Soft limit; `u64::MAX` for none.
    pub soft: u64,
    /// Hard limit; `u64::MAX` for none.
    pub hard: u64,
}
