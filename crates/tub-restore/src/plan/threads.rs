//! What each thread does on its way back, in which order.
//!
//! In: a task, the credentials to take on, whether ids are kept. Out: one program per thread.
//! Pure. Invariant: nothing that needs a privilege comes after the privilege is given up; what may
//! fail comes before the process is reported parked (but on standby: see [`standby`]); timers start last, so that none fires inside
//! the blob.
//!
//! The order follows `reference` ordering rules that every engine of this kind obeys: memory, then
//! the address space's bounds (the kernel checks that they lie in mappings), then limits, then
//! timers and pending signals with everything blocked, then credentials (changing them resets
//! dumpable and the parent-death signal), then the registers.
//!
//! Threads are made beside the memory, where there is a second processor: the main one makes the
//! first of the others and then the mappings, and that one makes the rest. Until all is mapped none
//! of them looks at anything but the blob; and what then touches memory, and so has pages made, is
//! done while the main thread closes files:
//!
//! ```text
//!   main      clear, spawn 1, map … set-mm ─┬─ populate, close, timers, limits ─┬─ parked, go ─┬─ resume
//!   thread 1  spawn 2…n, own state ─────────┤  populate, rseq                   │              ├─ resume
//!   thread n  own state ────────────────────┘  rseq                             │              ├─ resume
//!                                        mapped                               ready         all-go
//! ```

use super::{Awakening, Ids, Meeting, PlanOp, Program, SpareFds, standby};
use std::ops::Range;
use tub_model::{
    Credentials, Limit, Measured, PosixTimer, Scheduling, SignalAction, Task, Thread, Vma,
};
use tub_units::{AddrRange, RemoteAddr};

// linux/prctl.h.
const PR_SET_PDEATHSIG: i32 = 1;
const PR_SET_DUMPABLE: i32 = 4;
const PR_SET_KEEPCAPS: i32 = 8;
const PR_SET_SECUREBITS: i32 = 28;
const PR_SET_TIMERSLACK: i32 = 29;
const PR_SET_CHILD_SUBREAPER: i32 = 36;
const PR_SET_NO_NEW_PRIVS: i32 = 38;
const PR_SET_THP_DISABLE: i32 = 41;
const PR_SET_MDWE: i32 = 65;
// asm-generic/siginfo.h.
const SIGEV_NONE: i32 = 1;
const SIGEV_THREAD_ID: i32 = 4;
const PR_TIMER_CREATE_RESTORE_IDS: i32 = 77;

/// What the programs depend on besides the image.
#[derive(Clone, Debug)]
pub(super) struct ThreadWishes<'a> {
    /// Same ids or new ones.
    pub(super) ids: Ids,
    /// What removes the launcher's memory, which comes first.
    pub(super) clearing: &'a [PlanOp],
    /// What makes the process's own.
    pub(super) memory: &'a [PlanOp],
    /// Pages to make the process's own before it runs.
    pub(super) hot: &'a [AddrRange],
    /// Where the engine's message goes, if the application takes part.
    pub(super) mailbox: Option<AddrRange>,
    /// Whether the executable can be set.
    pub(super) executable: bool,
    /// The credentials to take on.
    pub(super) credentials: &'a CredentialChange,
    /// The limits to set.
    pub(super) limits: &'a [Limit],
    /// Whether timers can be made with ids of our choice.
    pub(super) timer_ids: bool,
    /// The signal that the process gets when its parent ends; 0 for none.
    pub(super) parent_death_signal: i32,
    /// What descriptors need once all threads are there and the launcher's own files are closed.
    pub(super) files: &'a [PlanOp],
    /// What it does as who it is in the end.
    pub(super) listens: &'a [PlanOp],
    /// How it comes to life, if it is parked until then.
    pub(super) standby: Option<Awakening>,
    /// What then starts the timers that are descriptors.
    pub(super) timers: &'a [PlanOp],
    /// Whether it has children that have ended already.
    pub(super) has_ended_children: bool,
    /// Descriptors of ours, above all of the image's.
    pub(super) spare: SpareFds,
}

/// How the credentials of the process being reborn change, from the launcher's to their final ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialChange {
    /// Groups and ids to take on; `None` where they are right already.
    pub identity: Option<Credentials>,
    /// Final effective, permitted and inheritable capabilities.
    pub capabilities: [u64; 3],
}

/// The programs of all threads, the main one first.
pub(super) fn plan(task: &Task, wishes: &ThreadWishes<'_>) -> Vec<Program> {
    let program = |(index, thread): (usize, &Thread)| {
        let mut ops = Vec::new();
        if index == 0 {
            main_program(&mut ops, task, wishes);
            ops.push(PlanOp::Meet(Meeting::AllGo));
        } else {
            if index == SECOND {
                spawn(&mut ops, task, SECOND + 1..task.threads.len(), wishes.ids);
            }
            own_state(&mut ops, task, thread);
            ops.extend(aim_timers(task, thread, wishes.ids));
            scheduling(&mut ops, thread);
            take_on_credentials(&mut ops, task, wishes.credentials);
            ops.push(PlanOp::Meet(Meeting::Mapped));
            if index == SECOND {
                ops.extend(helpers_share(wishes.hot, task).1.iter().copied().map(PlanOp::Populate));
            }
            ops.extend(store_tid(task, thread, wishes.ids));
            ops.extend(thread.rseq.map(PlanOp::RegisterRseq));
            ops.push(PlanOp::Arrive(Meeting::Ready));
            ops.push(PlanOp::Meet(Meeting::AllGo));
        }
        ops.push(PlanOp::Resume { thread: index, wait: thread.wait });
        Program { tid: thread.tid, name: thread.name.clone(), ops }
    };
    task.threads.iter().enumerate().map(program).collect()
}

/// The thread that makes all others but the main one, which makes it.
const SECOND: usize = 1;

/// Makes the threads of these indices.
fn spawn(ops: &mut Vec<PlanOp>, task: &Task, threads: Range<usize>, ids: Ids) {
    let kept = |thread: usize| (ids == Ids::Keep).then_some(task.threads[thread].tid);
    ops.extend(threads.map(|thread| PlanOp::Spawn { thread, tid: kept(thread) }));
}

fn main_program(ops: &mut Vec<PlanOp>, task: &Task, wishes: &ThreadWishes<'_>) {
    let main = &task.threads[0];
    let second = SECOND..task.threads.len().min(SECOND + 1);
    if task.controls.tiles {
        // Threads have it of the main one. The kernel looks whether alternate stacks have room for a
        // frame with tiles, which those of the image have: the original could not set smaller ones.
        ops.push(PlanOp::AskForTiles);
    }
    ops.extend(wishes.clearing.iter().cloned());
    if wishes.standby.is_none() {
        spawn(ops, task, second.clone(), wishes.ids);
    }
    ops.extend(wishes.memory.iter().cloned());
    ops.push(PlanOp::SetMm { executable: wishes.executable });
    if let Some(mailbox) = wishes.mailbox.filter(|_| wishes.standby.is_none()) {
        ops.push(PlanOp::FillMailbox { at: RemoteAddr(mailbox.start()) });
    }
    if wishes.has_ended_children {
        ops.push(PlanOp::SetSignalAction(FORGET_CHILDREN));
    }
    ops.extend(task.signal_actions.iter().map(|action| PlanOp::SetSignalAction(*action)));
    ops.push(PlanOp::SetThreadPointer(main.registers.general[FS_BASE]));
    if main.clear_child_tid.0 != 0 {
        ops.push(PlanOp::SetClearChildTid(main.clear_child_tid));
    }
    ops.extend(store_tid(task, main, wishes.ids));
    own_state(ops, task, main);
    ops.extend(main.rseq.map(PlanOp::RegisterRseq));
    if let Some(awakening) = wishes.standby {
        standby::park(ops, awakening);
        ops.extend(wishes.timers.iter().cloned());
        spawn(ops, task, second, wishes.ids);
    }
    ops.extend(aim_timers(task, main, wishes.ids));
    scheduling(ops, main);
    ops.push(PlanOp::Meet(Meeting::Mapped));
    ops.extend(helpers_share(wishes.hot, task).0.iter().copied().map(PlanOp::Populate));
    // What is needed no more: page store, executable, mapped files.
    ops.push(PlanOp::Close { first: wishes.spare.pages, last: wishes.spare.last });
    // A standard stream that was closed stays closed, whatever the restoring process has there.
    let closed = (0..=2).filter(|number| task.fds.iter().all(|fd| fd.number.0 != *number));
    ops.extend(closed.map(|number| PlanOp::Close { first: number, last: number }));
    ops.extend(wishes.files.iter().cloned());
    ops.push(PlanOp::SetPersonality(task.personality));
    if task.thp_disable {
        ops.push(prctl("thp-disable", PR_SET_THP_DISABLE, 1, true));
    }
    if task.child_subreaper {
        ops.push(prctl("child-subreaper", PR_SET_CHILD_SUBREAPER, 1, false));
    }
    ops.extend(commands(task.controls.membarrier).map(PlanOp::RegisterMembarrier));
    if task.controls.memory_failure < 2 {
        ops.push(PlanOp::SetMemoryFailure(task.controls.memory_failure));
    }
    if task.controls.no_write_execute != 0 {
        let value = u64::from(task.controls.no_write_execute);
        ops.push(prctl("no-write-execute", PR_SET_MDWE, value, true));
    }
    make_timers(ops, task, wishes.timer_ids);
    ops.extend(task.pending_signals.iter().map(|info| queue(true, info)));
    ops.extend(wishes.limits.iter().map(|limit| PlanOp::SetLimit(*limit)));
    take_on_credentials(ops, task, wishes.credentials);
    ops.extend(wishes.listens.iter().cloned());
    // Both are reset whenever credentials change, those of any thread, so they come last.
    ops.push(prctl("dumpable", PR_SET_DUMPABLE, u64::from(task.dumpable == 1), true));
    if wishes.parent_death_signal != 0 {
        let signal = u64::from(wishes.parent_death_signal.cast_unsigned());
        ops.push(prctl("parent-death-signal", PR_SET_PDEATHSIG, signal, false));
    }
    ops.push(PlanOp::Meet(Meeting::Ready));
    if wishes.standby.is_none() {
        ops.push(PlanOp::ReportParked);
        ops.push(PlanOp::AwaitGo);
    }
    // From here on nothing can fail that was not tried before.
    ops.extend(task.posix_timers.iter().map(|timer| PlanOp::ArmPosixTimer(*timer)));
    ops.extend(task.interval_timers.iter().map(|timer| PlanOp::SetIntervalTimer(*timer)));
    ops.push(PlanOp::Close { first: wishes.spare.handshake, last: wishes.spare.handshake });
    if task.stopped.is_some() {
        ops.push(PlanOp::Stop);
    }
}

/// The end of its zombies was announced to the original already, or is among the pending signals.
/// Setting the default action discards what is pending (sigaction(2), POSIX: signals whose default
/// action is to be ignored), and all signals are blocked until then.
const FORGET_CHILDREN: SignalAction =
    SignalAction { signal: 17, handler: 0, flags: 0, restorer: 0, mask: 0 };

/// The hot pages in two parts of the same number of pages: for the main thread, and for the first
/// of the others. Two processors do it in half the time; more brought nothing. All of it happens
/// before any thread runs: afterwards each page costs an interrupt of the other processors, too.
fn helpers_share<'a>(hot: &'a [AddrRange], task: &Task) -> (&'a [AddrRange], &'a [AddrRange]) {
    if task.threads.len() < 2 {
        return (hot, &[]);
    }
    let half = hot.iter().map(|range| range.pages()).sum::<u64>() / 2;
    let mut pages = 0;
    let middle = hot.iter().take_while(|range| {
        pages += range.pages();
        pages <= half
    });
    hot.split_at(middle.count())
}

/// What only a thread itself can set, and needs no memory for.
fn own_state(ops: &mut Vec<PlanOp>, task: &Task, thread: &Thread) {
    if thread.registers.general[GS_BASE] != 0 {
        ops.push(PlanOp::SetGsBase(thread.registers.general[GS_BASE]));
    }
    let (head, bytes) = thread.robust_list;
    if head.0 != 0 {
        ops.push(PlanOp::SetRobustList { head, bytes });
    }
    // A thread starts with the name of the one that made it, and ours is the launcher's.
    ops.push(PlanOp::SetName(thread.name.clone()));
    if task.no_new_privs {
        ops.push(prctl("no-new-privs", PR_SET_NO_NEW_PRIVS, 1, false));
    }
    // Everything is blocked until the registers are loaded.
    ops.extend(thread.pending_signals.iter().map(|info| queue(false, info)));
}

/// The C library caches a thread's id in the word that the kernel clears at its end (glibc and musl: in
/// the thread's descriptor). A program that has given the word back need not mind; who writes there does.
fn store_tid(task: &Task, thread: &Thread, ids: Ids) -> Option<PlanOp> {
    let word = AddrRange::with_len(thread.clear_child_tid.0, 4)?;
    let at = task.vmas.partition_point(|vma| vma.range.end() <= word.start());
    let holds = |vma: &Vma| vma.range.covers(word) && vma.protection.write;
    let stores = ids == Ids::New && task.vmas.get(at).is_some_and(holds);
    stores.then_some(PlanOp::StoreTid(thread.clear_child_tid))
}

/// How a thread is scheduled: what its children inherit, so who makes others takes it on when they are
/// made.
fn scheduling(ops: &mut Vec<PlanOp>, thread: &Thread) {
    if thread.scheduling != Scheduling::default() {
        ops.push(PlanOp::SetScheduling(thread.scheduling.clone()));
    }
    // 50 microseconds is what init, and so everybody, starts with (prctl(2), PR_SET_TIMERSLACK).
    if ![0, 50_000].contains(&thread.timer_slack_ns) {
        ops.push(prctl("timer-slack", PR_SET_TIMERSLACK, thread.timer_slack_ns, false));
    }
}

fn take_on_credentials(ops: &mut Vec<PlanOp>, task: &Task, change: &CredentialChange) {
    // linux/securebits.h. Only this one of them can be had without CAP_SETPCAP, which is gone when ids are
    // set.
    const SECBIT_KEEP_CAPS: u32 = 1 << 4;
    let bits = task.controls.secure_bits;
    if bits & !SECBIT_KEEP_CAPS != 0 {
        ops.push(prctl("secure-bits", PR_SET_SECUREBITS, u64::from(bits), true));
    }
    let keeps = bits & SECBIT_KEEP_CAPS != 0;
    let mut kept = false;
    if let Some(identity) = &change.identity {
        let [r, e, s, _] = identity.gids;
        ops.push(PlanOp::SetGroups(identity.groups.clone()));
        ops.push(PlanOp::SetGids([r, e, s]));
        let [r, e, s, _] = identity.uids;
        // KERNEL: whoever has no id of user 0 any more has no permitted capability either, unless he
        // has asked to keep them (capabilities(7)). Those in effect are gone in any case.
        kept = change.capabilities[1] != 0;
        if kept {
            ops.push(prctl("keep-caps", PR_SET_KEEPCAPS, 1, true));
        }
        ops.push(PlanOp::SetUids([r, e, s]));
    }
    if kept != keeps {
        ops.push(prctl("keep-caps", PR_SET_KEEPCAPS, u64::from(keeps), true));
    }
    ops.push(PlanOp::SetCapabilities(change.capabilities));
}

/// Makes the POSIX timers with their ids.
fn make_timers(ops: &mut Vec<PlanOp>, task: &Task, timer_ids: bool) {
    let alive = |tid| task.threads.iter().any(|thread| thread.tid == tid);
    let timers = task.posix_timers.iter().map(|timer| match (timer.notify, timer.measures()) {
        // It measured a thread that has ended since: it never fires.
        (_, Some(Measured::Thread(tid))) if !alive(tid) => {
            let (clock, notify) = (libc::CLOCK_MONOTONIC, SIGEV_NONE);
            PosixTimer { clock, notify, ..*timer }
        }
        // It was to signal a thread that has ended since: it signals nobody.
        (SIGEV_THREAD_ID, _) if !alive(timer.target) => PosixTimer { notify: SIGEV_NONE, ..*timer },
        _ => *timer,
    });
    if timer_ids {
        for timer in timers {
            // KERNEL(since 6.15): while this mode is on, timer_create takes the id from its result
            // argument.
            ops.push(prctl("timer-restore-ids", PR_TIMER_CREATE_RESTORE_IDS, 1, false));
            ops.push(PlanOp::CreatePosixTimer(timer));
            ops.push(prctl("timer-restore-ids", PR_TIMER_CREATE_RESTORE_IDS, 0, false));
        }
        return;
    }
    // KERNEL: older ones hand out ids in order from 0 and never go back (posix_timer_add,
    // kernel/time/posix-timers.c): what lies between is made and deleted.
    let mut next = 0;
    for timer in timers {
        for id in next..timer.id {
            let (clock, notify) = (libc::CLOCK_MONOTONIC, SIGEV_NONE);
            let filler = PosixTimer { id, clock, notify, ..timer };
            ops.push(PlanOp::CreatePosixTimer(filler));
            ops.push(PlanOp::DeletePosixTimer(id));
        }
        ops.push(PlanOp::CreatePosixTimer(timer));
        next = timer.id + 1;
    }
}

/// The timers that signal `thread` or measure it, whose new id they must be made with.
fn aim_timers<'a>(task: &'a Task, thread: &Thread, ids: Ids) -> impl Iterator<Item = PlanOp> + 'a {
    let tid = thread.tid;
    // The process has the id of its main thread.
    let measured = [Measured::Thread(tid), Measured::Process(tid)];
    let timers = task.posix_timers.iter().filter(move |_| ids == Ids::New);
    timers.flat_map(move |timer| {
        let signals = timer.notify == SIGEV_THREAD_ID && timer.target == tid;
        let measures = timer.measures().is_some_and(|whom| measured.contains(&whom));
        let aim = signals.then_some(PlanOp::AimPosixTimer(*timer));
        aim.into_iter().chain(measures.then_some(PlanOp::AimTimerClock(*timer)))
    })
}

/// The bits of a set of membarrier commands, each a command.
fn commands(set: u32) -> impl Iterator<Item = u32> {
    (0..u32::BITS).map(|bit| 1 << bit).filter(move |command| set & command != 0)
}

fn queue(shared: bool, info: &tub_model::SigInfo) -> PlanOp {
    PlanOp::QueueSignal { shared, info: *info }
}

fn prctl(name: &'static str, option: i32, value: u64, may_fail: bool) -> PlanOp {
    PlanOp::Prctl { name, option, value, may_fail }
}

/// Index of `fs_base` in `struct user_regs_struct` (sys/user.h).
pub(crate) const FS_BASE: usize = 21;
/// Index of `gs_base`.
pub(crate) const GS_BASE: usize = 22;
