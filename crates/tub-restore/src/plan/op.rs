//! The operations of a plan: what the process being reborn does to itself.
//!
//! In: nothing. Out: [`PlanOp`], printable, comparable. Invariant: an operation says everything;
//! the blob adds nothing to it. Not here: how it becomes a system call (see [`super::lower()`]).

use std::fmt;
use tub_model::{
    FileLock, FileOwner, IntervalTimer, Limit, PosixTimer, Protection, RemainingWait, Rseq,
    Scheduling, SigInfo, SignalAction,
};
use tub_units::{AddrRange, NsPid, RemoteAddr};

/// One operation of the process being reborn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanOp {
    /// Removes every mapping in a range.
    Unmap(AddrRange),
    /// Asks the kernel for its vdso, `[vvar]` first, at an address.
    MapVdso(RemoteAddr),
    /// Fails unless all of the range is mapped.
    CheckMapped(AddrRange),
    /// Maps private zeros.
    MapAnonymous {
        /// Where.
        range: AddrRange,
        /// With which rights.
        protection: Protection,
        /// MAP_NORESERVE.
        no_reserve: bool,
        /// MAP_GROWSDOWN.
        grows_down: bool,
        /// MAP_DROPPABLE instead of MAP_PRIVATE.
        droppable: bool,
    },
    /// Maps pages of the image, privately: they arrive when they are touched.
    MapPages {
        /// Where.
        range: AddrRange,
        /// With which rights.
        protection: Protection,
        /// From which offset of the page store, in bytes.
        offset_bytes: u64,
        /// MAP_NORESERVE.
        no_reserve: bool,
    },
    /// Reads pages of the image into memory that is mapped already.
    ReadPages {
        /// Where to.
        range: AddrRange,
        /// From which offset of the page store, in bytes.
        offset_bytes: u64,
    },
    /// Maps one of [`super::RestorePlan::mapped_files`].
    MapFile {
        /// Where.
        range: AddrRange,
        /// With which rights.
        protection: Protection,
        /// MAP_SHARED instead of MAP_PRIVATE.
        shared: bool,
        /// Index of the file.
        file: usize,
        /// From which offset in bytes.
        offset_bytes: u64,
    },
    /// Changes rights.
    Protect {
        /// Where.
        range: AddrRange,
        /// To which rights.
        protection: Protection,
    },
    /// Gives advice (`MADV_*`).
    Advise {
        /// Where.
        range: AddrRange,
        /// Which.
        advice: i32,
    },
    /// Makes touching pages an error (`MADV_GUARD_INSTALL`).
    Guard(AddrRange),
    /// Locks pages into memory.
    Lock {
        /// Which.
        range: AddrRange,
        /// Only from their first touch on.
        on_fault: bool,
        /// Whether some of them cannot be touched, which the kernel reports as an error although
        /// it has done what it was asked for.
        untouchable: bool,
    },
    /// Locks all mappings made from now on.
    LockFuture {
        /// Only from the first touch of a page on.
        on_fault: bool,
    },
    /// Adds seals to one of [`super::RestorePlan::mapped_files`] (`F_ADD_SEALS`).
    SealFile {
        /// Index of the file.
        file: usize,
        /// `F_SEAL_*`.
        seals: u32,
    },
    /// Makes a mapping unchangeable (`mseal`).
    Seal(AddrRange),
    /// Sets the address space's bounds, auxiliary vector and, if wanted, executable, all at once.
    SetMm {
        /// Whether `/proc/PID/exe` is set, too.
        executable: bool,
    },
    /// Makes pages the process's own, as the first write to each would.
    Populate(AddrRange),
    /// Maps pages that are there, as the first reading of each would.
    Touch(AddrRange),
    /// Writes a few bytes.
    Write {
        /// Where.
        at: RemoteAddr,
        /// Which.
        bytes: Vec<u8>,
    },
    /// Leaves the engine's message in the application's mailbox.
    FillMailbox {
        /// Where.
        at: RemoteAddr,
    },
    /// Sets a signal action.
    SetSignalAction(SignalAction),
    /// Sets the thread pointer (x86-64: FS base).
    SetThreadPointer(u64),
    /// Sets the GS base.
    SetGsBase(u64),
    /// Says where to clear the thread's id when it ends, and whom to wake.
    SetClearChildTid(RemoteAddr),
    /// Stores the thread's new id, for a C library that caches it.
    StoreTid(RemoteAddr),
    /// Sets the robust futex list.
    SetRobustList {
        /// Head.
        head: RemoteAddr,
        /// Length in bytes.
        bytes: u64,
    },
    /// Registers restartable sequences.
    RegisterRseq(Rseq),
    /// Names the thread.
    SetName(String),
    /// Sets policy and priority.
    SetScheduling(Scheduling),
    /// Starts another thread's program.
    Spawn {
        /// Index of the thread, which is that of its program.
        thread: usize,
        /// The id it must have, if ids are kept.
        tid: Option<NsPid>,
    },
    /// Waits for all who take part.
    Meet(Meeting),
    /// Takes part in a meeting without waiting for it.
    Arrive(Meeting),
    /// Tells the main task that this one has made its mappings.
    HaveMapped,
    /// Waits until all tasks have made theirs.
    AwaitMapped,
    /// Tells the launcher that all threads exist.
    ReportParked,
    /// Waits until the launcher says go; its end of the pipe closing ends the process.
    AwaitGo,
    /// Waits for the engine's message, and leaves it in the application's mailbox; the launcher's end
    /// of the pipe closing ends the process.
    AwaitLetter {
        /// Where.
        at: RemoteAddr,
        /// How many bytes it may have.
        bytes: u64,
    },
    /// Waits until the launcher lets a parked instance go.
    AwaitRelease {
        /// Whether it then enters the time namespace that the launcher has made.
        clocks: bool,
    },
    /// Stops the process, until somebody lets it go on (SIGSTOP).
    Stop,
    /// `prctl(option, value)` of the few that are one number.
    Prctl {
        /// For people.
        name: &'static str,
        /// `PR_*`.
        option: i32,
        /// Its value.
        value: u64,
        /// Whether an error is no failure.
        may_fail: bool,
    },
    /// `membarrier(2)`: one command of registration.
    RegisterMembarrier(u32),
    /// `prctl(PR_MCE_KILL, PR_MCE_KILL_SET, …)`.
    SetMemoryFailure(u32),
    /// `arch_prctl(ARCH_REQ_XCOMP_PERM)`: leave to use tiles of AMX.
    AskForTiles,
    /// `personality(2)`.
    SetPersonality(u32),
    /// Sets a resource limit, as far as allowed.
    SetLimit(Limit),
    /// Starts an interval timer.
    SetIntervalTimer(IntervalTimer),
    /// Starts a timer that is a descriptor, with the expirations that were not read yet.
    ArmTimerFd {
        /// Its number.
        number: i32,
        /// `TFD_TIMER_ABSTIME`, or 0.
        settime_flags: i32,
        /// Until when, or for how long; 0 where it is not armed.
        value_ns: u64,
        /// How often after that.
        interval_ns: u64,
        /// Expirations not read yet.
        ticks: u64,
    },
    /// Says which thread the POSIX timer that is about to be made signals: the calling one.
    AimPosixTimer(PosixTimer),
    /// Has a timer that is made later measure the processor time of the calling thread, or of its process.
    AimTimerClock(PosixTimer),
    /// Deletes a POSIX timer.
    DeletePosixTimer(i32),
    /// Makes a POSIX timer with its id.
    CreatePosixTimer(PosixTimer),
    /// Arms the POSIX timer made last, or disarms it.
    ArmPosixTimer(PosixTimer),
    /// Queues a signal to the process, or to the calling thread.
    QueueSignal {
        /// To the process as a whole.
        shared: bool,
        /// What.
        info: SigInfo,
    },
    /// Closes a range of descriptors, both ends included.
    Close {
        /// First.
        first: i32,
        /// Last.
        last: i32,
    },
    /// Takes a lock of a file for the process.
    LockFile {
        /// A descriptor of the file.
        number: i32,
        /// The lock.
        lock: FileLock,
    },
    /// Says who is told of what happens to a description.
    SetOwner {
        /// A descriptor.
        number: i32,
        /// Who.
        owner: FileOwner,
    },
    /// Listens at a unix socket once more: whoever connects is told who has done so last (`SO_PEERCRED`).
    Listen {
        /// Its number.
        number: i32,
        /// Length of the accept queue.
        backlog: u32,
    },
    /// Sets the supplementary groups.
    SetGroups(Vec<u32>),
    /// Sets real, effective and saved group.
    SetGids([u32; 3]),
    /// Sets real, effective and saved user.
    SetUids([u32; 3]),
    /// Sets effective, permitted and inheritable capabilities.
    SetCapabilities([u64; 3]),
    /// Loads the registers and goes on where the thread was. Ends the program.
    Resume {
        /// Index of the thread.
        thread: usize,
        /// The wait that it goes on with.
        wait: Option<RemainingWait>,
    },
}

/// A point at which threads wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// Of all threads: each exists, and the memory is mapped.
    Mapped,
    /// Of all threads, though only the main one waits for it: each is what it was but for its
    /// registers.
    Ready,
    /// Of all threads: they may go.
    AllGo,
}

impl fmt::Display for Meeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mapped => "mapped",
            Self::Ready => "ready",
            Self::AllGo => "all-go",
        })
    }
}

impl fmt::Display for PlanOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmap(range) => write!(f, "unmap          {range}"),
            Self::MapVdso(at) => write!(f, "map-vdso       {:x}", at.0),
            Self::CheckMapped(range) => write!(f, "check-mapped   {range}"),
            Self::MapAnonymous { range, protection, no_reserve, grows_down, droppable } => {
                write!(f, "map-anonymous  {range} {}", rights(*protection))?;
                if *no_reserve {
                    f.write_str(" no-reserve")?;
                }
                if *grows_down {
                    f.write_str(" grows-down")?;
                }
                if *droppable {
                    f.write_str(" droppable")?;
                }
                Ok(())
            }
            Self::MapPages { range, protection, offset_bytes, no_reserve } => {
                let reserve = if *no_reserve { " no-reserve" } else { "" };
                let rights = rights(*protection);
                write!(f, "map-pages      {range} {rights} @{offset_bytes:#x}{reserve}")
            }
            Self::ReadPages { range, offset_bytes } => {
                write!(f, "read-pages     {range} @{offset_bytes:#x}")
            }
            Self::MapFile { range, protection, shared, file, offset_bytes } => {
                let how = if *shared { "shared" } else { "private" };
                let rights = rights(*protection);
                write!(f, "map-file       {range} {rights} {how} file {file} @{offset_bytes:#x}")
            }
            Self::Protect { range, protection } => {
                write!(f, "protect        {range} {}", rights(*protection))
            }
            Self::Advise { range, advice } => write!(f, "advise         {range} {advice}"),
            Self::Guard(range) => write!(f, "guard          {range}"),
            Self::Lock { range, on_fault, .. } => {
                write!(f, "lock           {range}{}", if *on_fault { " on-fault" } else { "" })
            }
            Self::LockFuture { on_fault } => {
                write!(f, "lock-future{}", if *on_fault { "    on-fault" } else { "" })
            }
            Self::SealFile { file, seals } => write!(f, "seal-file      file {file} {seals:#x}"),
            Self::Seal(range) => write!(f, "seal           {range}"),
            Self::Populate(range) => write!(f, "populate       {range}"),
            Self::Touch(range) => write!(f, "touch          {range}"),
            Self::SetMm { executable } => write!(f, "set-mm         executable={executable}"),
            Self::Write { at, bytes } => write!(f, "write          {:x} {bytes:02x?}", at.0),
            Self::FillMailbox { at } => write!(f, "fill-mailbox   {:x}", at.0),
            Self::SetSignalAction(a) => {
                write!(f, "signal-action  {} handler {:x} flags {:x}", a.signal, a.handler, a.flags)
            }
            Self::SetThreadPointer(at) => write!(f, "thread-pointer {at:x}"),
            Self::SetGsBase(at) => write!(f, "gs-base        {at:x}"),
            Self::SetClearChildTid(at) => write!(f, "clear-tid      {:x}", at.0),
            Self::StoreTid(at) => write!(f, "store-tid      {:x}", at.0),
            Self::SetRobustList { head, bytes } => {
                write!(f, "robust-list    {:x} {bytes}", head.0)
            }
            Self::RegisterRseq(r) => write!(f, "rseq           {:x} {}", r.address.0, r.size_bytes),
            Self::SetName(name) => write!(f, "name           {name:?}"),
            Self::SetScheduling(s) => {
                write!(f, "scheduling     {} {} {}", s.policy, s.nice, s.priority)?;
                if s.reset_on_fork {
                    f.write_str(" reset-on-fork")?;
                }
                if s.io_priority != 0 {
                    write!(f, " io {:#x}", s.io_priority)?;
                }
                if !s.affinity.is_empty() {
                    write!(f, " cpus {:x?}", s.affinity)?;
                }
                Ok(())
            }
            Self::Spawn { thread, tid: Some(tid) } => {
                write!(f, "spawn          {thread} tid {tid}")
            }
            Self::Spawn { thread, tid: None } => write!(f, "spawn          {thread}"),
            Self::Meet(meeting) => write!(f, "meet           {meeting}"),
            Self::Arrive(meeting) => write!(f, "arrive         {meeting}"),
            Self::HaveMapped => f.write_str("have-mapped"),
            Self::AwaitMapped => f.write_str("await-mapped"),
            Self::ReportParked => f.write_str("report-parked"),
            Self::AwaitGo => f.write_str("await-go"),
            Self::AwaitLetter { at, bytes } => write!(f, "await-letter   {:x} {bytes}", at.0),
            Self::AwaitRelease { clocks } => {
                write!(f, "await-release{}", if *clocks { "  clocks" } else { "" })
            }
            Self::Stop => f.write_str("stop"),
            Self::Prctl { name, value, .. } => write!(f, "prctl          {name} {value}"),
            Self::RegisterMembarrier(command) => write!(f, "membarrier     {command:#x}"),
            Self::SetMemoryFailure(value) => write!(f, "memory-failure {value}"),
            Self::AskForTiles => write!(f, "tiles"),
            Self::SetPersonality(p) => write!(f, "personality    {p:x}"),
            Self::SetLimit(l) => write!(f, "limit          {} {} {}", l.resource, l.soft, l.hard),
            Self::SetIntervalTimer(t) => {
                write!(
                    f,
                    "itimer         {} in {} us every {} us",
                    t.which, t.value_us, t.interval_us
                )
            }
            Self::CreatePosixTimer(t) => {
                write!(f, "timer-create   {} clock {} signal {}", t.id, t.clock, t.signal)
            }
            Self::ArmTimerFd { number, value_ns, interval_ns, .. } => {
                write!(f, "timerfd-arm    {number} in {value_ns} ns every {interval_ns} ns")
            }
            Self::AimPosixTimer(t) => write!(f, "timer-aim      {}", t.id),
            Self::AimTimerClock(t) => write!(f, "timer-clock    {}", t.id),
            Self::DeletePosixTimer(id) => write!(f, "timer-delete   {id}"),
            Self::ArmPosixTimer(t) => {
                write!(f, "timer-arm      {} in {} ns every {} ns", t.id, t.value_ns, t.interval_ns)
            }
            Self::QueueSignal { shared, info } => {
                let whom = if *shared { "process" } else { "thread" };
                write!(f, "queue-signal   {whom} {info:?}")
            }
            Self::Close { first, last } => write!(f, "close          {first}-{last}"),
            Self::LockFile { number, lock } => write!(f, "lock-file      {number} {lock}"),
            Self::SetOwner { number, owner: o } => {
                write!(f, "owner          {number} kind {} id {} signal {}", o.kind, o.id, o.signal)
            }
            Self::Listen { number, backlog } => write!(f, "listen         {number} {backlog}"),
            Self::SetGroups(groups) => write!(f, "groups         {groups:?}"),
            Self::SetGids(gids) => write!(f, "gids           {gids:?}"),
            Self::SetUids(uids) => write!(f, "uids           {uids:?}"),
            Self::SetCapabilities([e, p, i]) => write!(f, "capabilities   {e:x} {p:x} {i:x}"),
            Self::Resume { thread, wait: None } => write!(f, "resume         {thread}"),
            Self::Resume { thread, wait: Some(wait) } => {
                write!(f, "resume         {thread} waiting {} ns more", wait.remaining_ns)
            }
        }
    }
}

fn rights(p: Protection) -> String {
    [(p.read, 'r'), (p.write, 'w'), (p.execute, 'x')]
        .into_iter()
        .map(|(has, letter)| if has { letter } else { '-' })
        .collect()
}
