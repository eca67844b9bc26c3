//! A task, its signals and its threads; and zombies.

use super::Odd;
use super::memory::FileIdentityRecord;
use serde::{Deserialize, Serialize};
use tub_model::{
    AlternateStack, Controls, Credentials, Discarder, Fd, IntervalTimer, Limit, MmFields,
    PosixTimer, Registers, RemainingWait, Rseq, Scheduling, SigInfo, SignalAction, Task, Thread,
    Vma, Zombie,
};
use tub_units::{NsPid, RemoteAddr};

/// What a task has one of.
#[derive(Serialize, Deserialize)]
pub(crate) struct TaskRecord<'a> {
    pid: i32,
    parent: Option<u64>,
    group: i32,
    session: i32,
    stopped: Option<i32>,
    parent_death_signal: i32,
    #[serde(borrow)]
    exe: FileIdentityRecord<'a>,
    exe_deleted: bool,
    cwd: &'a str,
    umask: u32,
    uids: [u32; 4],
    gids: [u32; 4],
    groups: Vec<u32>,
    capabilities: [u64; 3],
    dumpable: u32,
    no_new_privs: bool,
    thp_disable: bool,
    child_subreaper: bool,
    personality: u32,
    oom_score_adj: i32,
    controls: ControlsRecord,
    limits: Vec<LimitRecord>,
}

#[derive(Serialize, Deserialize)]
struct ControlsRecord {
    secure_bits: u32,
    membarrier: u32,
    memory_failure: u32,
    no_write_execute: u32,
    core_filter: u32,
    tiles: bool,
}

impl ControlsRecord {
    fn new(controls: Controls) -> Self {
        let Controls {
            secure_bits,
            membarrier,
            memory_failure,
            no_write_execute,
            core_filter,
            tiles,
        } = controls;
        Self { secure_bits, membarrier, memory_failure, no_write_execute, core_filter, tiles }
    }

    fn into_model(self) -> Controls {
        let Self { secure_bits, membarrier, memory_failure, no_write_execute, core_filter, tiles } =
            self;
        Controls { secure_bits, membarrier, memory_failure, no_write_execute, core_filter, tiles }
    }
}

#[derive(Serialize, Deserialize)]
struct LimitRecord {
    resource: u32,
    soft: u64,
    hard: u64,
}

/// What a task's other records hold.
pub(crate) struct TaskParts {
    pub(crate) memory: (MmFields, Vec<Vma>, Vec<Discarder>),
    pub(crate) fds: Vec<Fd>,
    pub(crate) signals: Signals,
    pub(crate) threads: Vec<Thread>,
}

impl<'a> TaskRecord<'a> {
    pub(crate) fn new(task: &'a Task) -> Self {
        let Credentials { uids, gids, groups, capabilities } = &task.credentials;
        let limit = |limit: &Limit| {
            let Limit { resource, soft, hard } = *limit;
            LimitRecord { resource, soft, hard }
        };
        Self {
            pid: task.pid.0,
            parent: task.parent.map(|parent| parent as u64),
            group: task.group.0,
            session: task.session.0,
            stopped: task.stopped,
            parent_death_signal: task.parent_death_signal,
            exe: FileIdentityRecord::new(&task.exe),
            exe_deleted: task.exe_deleted,
            cwd: &task.cwd,
            umask: task.umask,
            uids: *uids,
            gids: *gids,
            groups: groups.clone(),
            capabilities: *capabilities,
            dumpable: task.dumpable,
            no_new_privs: task.no_new_privs,
            thp_disable: task.thp_disable,
            child_subreaper: task.child_subreaper,
            personality: task.personality,
            oom_score_adj: task.oom_score_adj,
            controls: ControlsRecord::new(task.controls),
            limits: task.limits.iter().map(limit).collect(),
        }
    }

    pub(crate) fn into_model(self, parts: TaskParts) -> Result<Task, Odd> {
        let TaskParts { memory: (mm, vmas, discarders), fds, signals, threads } = parts;
        let limit = |LimitRecord { resource, soft, hard }| Limit { resource, soft, hard };
        let parent = self.parent.map(usize::try_from).transpose();
        Ok(Task {
            pid: NsPid(self.pid),
            parent: parent.map_err(|_| "a parent lies beyond any index")?,
            group: NsPid(self.group),
            session: NsPid(self.session),
            stopped: self.stopped,
            parent_death_signal: self.parent_death_signal,
            exe: self.exe.into_model(),
            exe_deleted: self.exe_deleted,
            cwd: self.cwd.into(),
            umask: self.umask,
            credentials: Credentials {
                uids: self.uids,
                gids: self.gids,
                groups: self.groups,
                capabilities: self.capabilities,
            },
            dumpable: self.dumpable,
            no_new_privs: self.no_new_privs,
            thp_disable: self.thp_disable,
            child_subreaper: self.child_subreaper,
            personality: self.personality,
            oom_score_adj: self.oom_score_adj,
            controls: self.controls.into_model(),
            limits: self.limits.into_iter().map(limit).collect(),
            mm,
            vmas,
            discarders,
            signal_actions: signals.actions,
            pending_signals: signals.pending,
            interval_timers: signals.interval_timers,
            posix_timers: signals.posix_timers,
            fds,
            threads,
        })
    }
}

/// Processes that have ended.
#[derive(Serialize, Deserialize)]
pub(crate) struct ZombiesRecord<'a> {
    #[serde(borrow)]
    zombies: Vec<ZombieRecord<'a>>,
}

#[derive(Serialize, Deserialize)]
struct ZombieRecord<'a> {
    pid: i32,
    parent: u64,
    group: i32,
    session: i32,
    name: &'a str,
    status: i32,
}

impl<'a> ZombiesRecord<'a> {
    pub(crate) fn new(zombies: &'a [Zombie]) -> Self {
        let record = |zombie: &'a Zombie| {
            let Zombie { pid, parent, group, session, name, status } = zombie;
            ZombieRecord {
                pid: pid.0,
                parent: *parent as u64,
                group: group.0,
                session: session.0,
                name,
                status: *status,
            }
        };
        Self { zombies: zombies.iter().map(record).collect() }
    }

    pub(crate) fn into_model(self) -> Result<Vec<Zombie>, Odd> {
        let zombie = |record: ZombieRecord<'_>| {
            Some(Zombie {
                pid: NsPid(record.pid),
                parent: usize::try_from(record.parent).ok()?,
                group: NsPid(record.group),
                session: NsPid(record.session),
                name: record.name.into(),
                status: record.status,
            })
        };
        let zombies = self.zombies.into_iter().map(zombie).collect::<Option<_>>();
        zombies.ok_or("a parent lies beyond any index")
    }
}

/// Signals and timers of a task.
#[derive(Serialize, Deserialize)]
pub(crate) struct SignalsRecord<'a> {
    actions: Vec<SignalActionRecord>,
    /// Each a `siginfo_t` of 128 bytes.
    #[serde(borrow)]
    pending: Vec<&'a [u8]>,
    interval_timers: Vec<IntervalTimerRecord>,
    posix_timers: Vec<PosixTimerRecord>,
}

/// The same as values.
pub(crate) struct Signals {
    actions: Vec<SignalAction>,
    pending: Vec<SigInfo>,
    interval_timers: Vec<IntervalTimer>,
    posix_timers: Vec<PosixTimer>,
}

#[derive(Serialize, Deserialize)]
struct SignalActionRecord {
    signal: i32,
    handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

#[derive(Serialize, Deserialize)]
struct IntervalTimerRecord {
    which: i32,
    value_us: u64,
    interval_us: u64,
}

#[derive(Serialize, Deserialize)]
struct PosixTimerRecord {
    id: i32,
    clock: i32,
    notify: i32,
    signal: i32,
    value: u64,
    target: i32,
    value_ns: u64,
    interval_ns: u64,
}

impl<'a> SignalsRecord<'a> {
    pub(crate) fn new(task: &'a Task) -> Self {
        let action = |action: &SignalAction| {
            let SignalAction { signal, handler, flags, restorer, mask } = *action;
            SignalActionRecord { signal, handler, flags, restorer, mask }
        };
        let interval_timer = |timer: &IntervalTimer| {
            let IntervalTimer { which, value_us, interval_us } = *timer;
            IntervalTimerRecord { which, value_us, interval_us }
        };
        let posix_timer = |timer: &PosixTimer| {
            let PosixTimer { id, clock, notify, signal, value, target, value_ns, interval_ns } =
                *timer;
            let target = target.0;
            PosixTimerRecord { id, clock, notify, signal, value, target, value_ns, interval_ns }
        };
        Self {
            actions: task.signal_actions.iter().map(action).collect(),
            pending: pending_bytes(&task.pending_signals),
            interval_timers: task.interval_timers.iter().map(interval_timer).collect(),
            posix_timers: task.posix_timers.iter().map(posix_timer).collect(),
        }
    }

    pub(crate) fn into_model(self) -> Result<Signals, Odd> {
        let action = |record: SignalActionRecord| {
            let SignalActionRecord { signal, handler, flags, restorer, mask } = record;
            SignalAction { signal, handler, flags, restorer, mask }
        };
        let interval_timer = |record: IntervalTimerRecord| {
            let IntervalTimerRecord { which, value_us, interval_us } = record;
            IntervalTimer { which, value_us, interval_us }
        };
        let posix_timer = |record: PosixTimerRecord| PosixTimer {
            id: record.id,
            clock: record.clock,
            notify: record.notify,
            signal: record.signal,
            value: record.value,
            target: NsPid(record.target),
            value_ns: record.value_ns,
            interval_ns: record.interval_ns,
        };
        Ok(Signals {
            actions: self.actions.into_iter().map(action).collect(),
            pending: pending_model(&self.pending)?,
            interval_timers: self.interval_timers.into_iter().map(interval_timer).collect(),
            posix_timers: self.posix_timers.into_iter().map(posix_timer).collect(),
        })
    }
}

fn pending_bytes(pending: &[SigInfo]) -> Vec<&[u8]> {
    pending.iter().map(|info| info.0.as_slice()).collect()
}

fn pending_model(pending: &[&[u8]]) -> Result<Vec<SigInfo>, Odd> {
    let info = |bytes: &&[u8]| <[u8; 128]>::try_from(*bytes).map(SigInfo);
    let infos = pending.iter().map(info).collect::<Result<_, _>>();
    infos.map_err(|_| "a pending signal is not 128 bytes long")
}

/// The threads of one task.
#[derive(Serialize, Deserialize)]
pub(crate) struct ThreadsRecord<'a> {
    #[serde(borrow)]
    threads: Vec<ThreadRecord<'a>>,
}

impl<'a> ThreadsRecord<'a> {
    pub(crate) fn new(threads: &'a [Thread]) -> Self {
        Self { threads: threads.iter().map(ThreadRecord::new).collect() }
    }

    pub(crate) fn into_model(self) -> Result<Vec<Thread>, Odd> {
        self.threads.into_iter().map(ThreadRecord::into_model).collect()
    }
}

#[derive(Serialize, Deserialize)]
struct ThreadRecord<'a> {
    tid: i32,
    name: &'a str,
    /// `struct user_regs_struct`: 27 words on x86-64.
    general: [u64; 27],
    xsave: &'a [u8],
    signal_mask: u64,
    #[serde(borrow)]
    pending: Vec<&'a [u8]>,
    altstack_address: u64,
    altstack_flags: i32,
    altstack_size_bytes: u64,
    clear_child_tid: u64,
    robust_list_head: u64,
    robust_list_bytes: u64,
    robust_held: u32,
    waits_for_owner: bool,
    rseq: Option<RseqRecord>,
    policy: u32,
    nice: i32,
    priority: u32,
    reset_on_fork: bool,
    io_priority: u32,
    affinity: Vec<u64>,
    timer_slack_ns: u64,
    wait: Option<WaitRecord>,
}

#[derive(Serialize, Deserialize)]
struct WaitRecord {
    register: u32,
    remaining_ns: u64,
    milliseconds: bool,
}

#[derive(Serialize, Deserialize)]
struct RseqRecord {
    address: u64,
    size_bytes: u32,
    signature: u32,
}

impl<'a> ThreadRecord<'a> {
    fn new(thread: &'a Thread) -> Self {
        let Thread {
            tid,
            name,
            registers: Registers { general, xsave },
            signal_mask,
            pending_signals,
            alternate_stack: AlternateStack { address, flags, size_bytes },
            clear_child_tid,
            robust_list: (head, length),
            robust_held,
            waits_for_owner,
            rseq,
            scheduling: Scheduling { policy, nice, priority, reset_on_fork, io_priority, affinity },
            timer_slack_ns,
            wait,
        } = thread;
        Self {
            tid: tid.0,
            name,
            general: *general,
            xsave,
            signal_mask: *signal_mask,
            pending: pending_bytes(pending_signals),
            altstack_address: *address,
            altstack_flags: *flags,
            altstack_size_bytes: *size_bytes,
            clear_child_tid: clear_child_tid.0,
            robust_list_head: head.0,
            robust_list_bytes: *length,
            robust_held: *robust_held,
            waits_for_owner: *waits_for_owner,
            rseq: rseq.map(|Rseq { address, size_bytes, signature }| RseqRecord {
                address: address.0,
                size_bytes,
                signature,
            }),
            policy: *policy,
            nice: *nice,
            priority: *priority,
            reset_on_fork: *reset_on_fork,
            io_priority: *io_priority,
            affinity: affinity.clone(),
            timer_slack_ns: *timer_slack_ns,
            wait: wait.map(|RemainingWait { register, remaining_ns, milliseconds }| WaitRecord {
                register,
                remaining_ns,
                milliseconds,
            }),
        }
    }

    fn into_model(self) -> Result<Thread, Odd> {
        Ok(Thread {
            tid: NsPid(self.tid),
            name: self.name.into(),
            registers: Registers { general: self.general, xsave: self.xsave.to_vec() },
            signal_mask: self.signal_mask,
            pending_signals: pending_model(&self.pending)?,
            alternate_stack: AlternateStack {
                address: self.altstack_address,
                flags: self.altstack_flags,
                size_bytes: self.altstack_size_bytes,
            },
            clear_child_tid: RemoteAddr(self.clear_child_tid),
            robust_list: (RemoteAddr(self.robust_list_head), self.robust_list_bytes),
            robust_held: self.robust_held,
            waits_for_owner: self.waits_for_owner,
            rseq: self.rseq.map(|RseqRecord { address, size_bytes, signature }| Rseq {
                address: RemoteAddr(address),
                size_bytes,
                signature,
            }),
            scheduling: Scheduling {
                policy: self.policy,
                nice: self.nice,
                priority: self.priority,
                reset_on_fork: self.reset_on_fork,
                io_priority: self.io_priority,
                affinity: self.affinity,
            },
            timer_slack_ns: self.timer_slack_ns,
            wait: self.wait.map(|WaitRecord { register, remaining_ns, milliseconds }| {
                RemainingWait { register, remaining_ns, milliseconds }
            }),
        })
    }
}
