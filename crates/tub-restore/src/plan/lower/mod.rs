//! From planned operations to the bytes that the blob runs.
//!
//! In: a task of a [`RestorePlan`]. Out: the content of the blob's data range. Pure.
//! Invariant: every address in the result lies in the blob's range, or is one that the plan names.
//! Not here: any decision; what an operation means for the kernel, and nothing else.

mod arena;
mod standby;
mod threads;

use super::{Meeting, PlanOp, Program, RestorePlan, TaskPlan};
use arena::{Arena, number, words};
use std::collections::BTreeMap;
use threads::signal_frame;
use tub_model::{PosixTimer, Task};
use tub_restorer_abi as abi;
use tub_restorer_abi::{RawOp, RawReport};
use tub_sys::{Errno, PageBuffer, SIGNAL_FRAME_ALIGN, SignalFrame};

/// Bytes of stack for each thread while it runs the blob: its deepest call needs about 300.
const STACK_BYTES: u64 = 2048;
const OP_BYTES: u64 = size_of::<RawOp>() as u64;
/// `arch_prctl` exists on x86 only (arch/x86/entry/syscalls/syscall_64.tbl).
const SYS_ARCH_PRCTL: i64 = 158;
const ARCH_SET_GS: u64 = 0x1001;
const ARCH_SET_FS: u64 = 0x1002;
const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
const XFEATURE_XTILE_DATA: u64 = 18;
const ARCH_MAP_VDSO_64: u64 = 0x2003;
/// Offset of `sigev_notify_thread_id` in `struct sigevent` (asm-generic/siginfo.h), which has 64 bytes.
const EVENT_THREAD: u64 = 16;

/// A plan in the form in which the blob runs it.
#[derive(Debug)]
pub struct Lowered {
    /// Content of the data range, from its first byte. What it does not reach is for stacks.
    pub data: PageBuffer,
    /// The stubs in which threads go on waiting, to be placed at [`TaskPlan::stubs_at`].
    pub stubs: Vec<u8>,
    /// Address of the first of them.
    pub stubs_at: u64,
    /// Address of the header.
    pub header: u64,
    /// Top of the main thread's stack.
    pub stack: u64,
    /// For each program and operation of the blob, the planned operation it came from.
    origins: Vec<Vec<u32>>,
}

impl Lowered {
    /// The planned operation that operation `op` of `program` came from.
    pub fn origin<'a>(&self, task: &'a TaskPlan, program: u32, op: u32) -> Option<&'a PlanOp> {
        let index = *self.origins.get(program as usize)?.get(op as usize)?;
        task.programs.get(program as usize)?.ops.get(index as usize)
    }
}

/// More bytes than the data range will need, before the programs are made.
pub(super) fn data_bytes_bound(
    task: &Task,
    memory_ops: usize,
    file_ops: usize,
    mailbox: usize,
) -> u64 {
    let threads = task.threads.len() as u64;
    let pending: usize = task.threads.iter().map(|thread| thread.pending_signals.len()).sum();
    let pending = (pending + task.pending_signals.len()) as u64;
    // With everything that a kernel before 6.15 has to make and to delete in between.
    let timers = task.posix_timers.iter().map(|timer| timer.id.unsigned_abs() + 1).max();
    let timers = u64::from(timers.unwrap_or(0)).min(super::TIMER_ID_MAX.unsigned_abs().into())
        + task.posix_timers.len() as u64;
    let xsave = task.threads.iter().map(|thread| thread.registers.xsave.len()).max().unwrap_or(0);
    let groups = task.credentials.groups.len() as u64 * 4 + 64;
    let cpus = task.threads.iter().map(|thread| thread.scheduling.affinity.len()).max();
    let cpus = cpus.unwrap_or(0) as u64 * 8;
    let ops = memory_ops as u64 + file_ops as u64 * 2 + 256 + threads * 32 + pending + timers * 7;
    let per_thread = SignalFrame::bytes(xsave) as u64
        + SIGNAL_FRAME_ALIGN as u64
        + STACK_BYTES
        + 512
        + groups
        + cpus;
    let small = 16 * 1024 + task.mm.auxv.len() as u64 + pending * 128 + timers * 128;
    let small = small + file_ops as u64 * 64;
    4096 + ops * OP_BYTES + threads * per_thread + small + mailbox as u64
}

/// Lowers the programs of `task`, which is one of `plan`'s.
///
/// # Errors
///
/// Where there is no memory for them.
///
/// # Panics
///
/// Never for a plan of [`super::plan`]: its range was sized by the same counts.
pub fn lower(plan: &RestorePlan, task: &TaskPlan) -> Result<Lowered, Errno> {
    let base = task.blob.start() + plan.code_bytes;
    let threads = task.programs.len() as u64;
    let data_bytes = task.blob.end() - base;
    // Nobody fills them, so they need no place in what is copied.
    let stacks_at = task.blob.end() - threads * STACK_BYTES;
    let room = usize::try_from(stacks_at - base).expect("the data are smaller than memory");
    let mut arena = Arena::new(base, room)?;
    arena.reserve(size_of::<abi::RawHeader>() as u64, 1);
    let programs_at = arena.reserve(threads * 16, 16);
    let counters = arena.reserve(64, 64);
    // Threads write there what the main one, whose program comes first, reads.
    let clocks = task.programs.iter().flat_map(|program| &program.ops).filter_map(|op| match op {
        PlanOp::AimTimerClock(timer) => Some((timer.id, arena.put(&[0; 8], 8))),
        _ => None,
    });
    let clocks = clocks.collect();
    let mut context = Lowering {
        plan,
        task,
        arena,
        counters,
        stacks_at,
        stubs: Vec::new(),
        events: BTreeMap::new(),
        clocks,
        ops: Vec::new(),
        origins: Vec::new(),
    };
    let mut programs = Vec::new();
    let mut origins = Vec::new();
    for (index, program) in task.programs.iter().enumerate() {
        context.ops.clear();
        context.program(program);
        programs.push(context.arena.put_ops(&context.ops));
        programs.push(context.ops.len() as u64);
        origins.push(std::mem::take(&mut context.origins));
        debug_assert_eq!(index * 2 + 2, programs.len());
    }
    let stubs = context.stubs;
    let mut arena = context.arena;
    arena.write(programs_at, &words(&programs));
    let mut header = abi::DATA_MAGIC.to_vec();
    let rest = [abi::ABI_VERSION, data_bytes, number(plan.spare.handshake), programs_at, threads];
    header.extend(words(&rest));
    header.extend(plan.image_id);
    header.extend(words(&[plan.generation]));
    arena.write(base, &header);
    let data = arena.into_bytes();
    assert!(data.len() <= room, "the bound counts everything put here");
    Ok(Lowered {
        data,
        stubs,
        stubs_at: task.stubs_at,
        header: base,
        stack: stacks_at + STACK_BYTES,
        origins,
    })
}

struct Lowering<'a> {
    plan: &'a RestorePlan,
    task: &'a TaskPlan,
    arena: Arena,
    counters: u64,
    stacks_at: u64,
    stubs: Vec<u8>,
    events: BTreeMap<i32, u64>,
    /// Where the clocks are that threads put their ids into, by timer.
    clocks: BTreeMap<i32, u64>,
    ops: Vec<RawOp>,
    origins: Vec<u32>,
}

impl Lowering<'_> {
    fn program(&mut self, program: &Program) {
        for (index, op) in program.ops.iter().enumerate() {
            self.op(op);
            let index = u32::try_from(index).expect("programs are short");
            self.origins.resize(self.ops.len(), index);
        }
    }

    fn call(&mut self, number: i64, args: &[u64]) {
        self.flagged(number, args, 0);
    }

    fn may_fail(&mut self, number: i64, args: &[u64]) {
        self.flagged(number, args, abi::FLAG_MAY_FAIL);
    }

    fn flagged(&mut self, number: i64, args: &[u64], flags: u32) {
        let mut all = [0; 7];
        all[0] = number.cast_unsigned();
        all[1..=args.len()].copy_from_slice(args);
        self.ops.push(RawOp { code: abi::SYSCALL, flags, args: all });
    }

    fn raw(&mut self, code: u32, args: &[u64]) {
        let mut all = [0; 7];
        all[..args.len()].copy_from_slice(args);
        self.ops.push(RawOp { code, flags: 0, args: all });
    }

    fn map(&mut self, at: tub_units::AddrRange, rights: i32, flags: i32, fd: i32, offset: u64) {
        let args = [at.start(), at.len(), number(rights), number(flags), number(fd), offset];
        self.call(libc::SYS_mmap, &args);
    }

    fn op(&mut self, op: &PlanOp) {
        let spare = self.plan.spare;
        match op {
            PlanOp::Unmap(range) => self.call(libc::SYS_munmap, &[range.start(), range.len()]),
            PlanOp::MapVdso(at) => self.call(SYS_ARCH_PRCTL, &[ARCH_MAP_VDSO_64, at.0]),
            // msync(MS_ASYNC) does nothing but check that the range is mapped (msync(2), ENOMEM).
            PlanOp::CheckMapped(range) => {
                self.call(libc::SYS_msync, &[range.start(), range.len(), 1]);
            }
            PlanOp::MapAnonymous { range, protection, no_reserve, grows_down, droppable } => {
                let how = if *droppable { tub_sys::MAP_DROPPABLE } else { libc::MAP_PRIVATE };
                let mut flags = how | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
                if *no_reserve {
                    flags |= libc::MAP_NORESERVE;
                }
                if *grows_down {
                    flags |= libc::MAP_GROWSDOWN;
                }
                self.map(*range, protection.bits(), flags, -1, 0);
            }
            PlanOp::MapPages { range, protection, offset_bytes, no_reserve } => {
                let mut flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
                if *no_reserve {
                    flags |= libc::MAP_NORESERVE;
                }
                self.map(*range, protection.bits(), flags, spare.pages, *offset_bytes);
            }
            PlanOp::ReadPages { range, offset_bytes } => {
                let args = [number(spare.pages), range.start(), range.len(), *offset_bytes];
                self.raw(abi::READ, &args);
            }
            PlanOp::MapFile { range, protection, shared, file, offset_bytes } => {
                let how = if *shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
                let fd = spare.first_file + i32::try_from(*file).expect("as many as descriptors");
                self.map(*range, protection.bits(), how | libc::MAP_FIXED, fd, *offset_bytes);
            }
            PlanOp::Protect { range, protection } => {
                let args = [range.start(), range.len(), number(protection.bits())];
                self.call(libc::SYS_mprotect, &args);
            }
            PlanOp::Advise { range, advice } => {
                // Advice that this kernel was built without (EINVAL) changes no result.
                self.may_fail(libc::SYS_madvise, &[range.start(), range.len(), number(*advice)]);
            }
            PlanOp::Guard(range) => {
                let advice = number(tub_sys::MADV_GUARD_INSTALL);
                self.call(libc::SYS_madvise, &[range.start(), range.len(), advice]);
            }
            PlanOp::Lock { range, on_fault, untouchable } => {
                let flags = if *on_fault { u64::from(libc::MLOCK_ONFAULT) } else { 0 };
                let args = [range.start(), range.len(), flags];
                let may_fail = if *untouchable { abi::FLAG_MAY_FAIL } else { 0 };
                self.flagged(libc::SYS_mlock2, &args, may_fail);
            }
            PlanOp::LockFuture { on_fault } => {
                let on_fault = if *on_fault { libc::MCL_ONFAULT } else { 0 };
                self.call(libc::SYS_mlockall, &[number(libc::MCL_FUTURE | on_fault)]);
            }
            PlanOp::SealFile { file, seals } => {
                let fd = spare.first_file + i32::try_from(*file).expect("as many as descriptors");
                let args = [number(fd), number(libc::F_ADD_SEALS), u64::from(*seals)];
                self.call(libc::SYS_fcntl, &args);
            }
            PlanOp::Seal(range) => {
                self.call(tub_sys::SYS_MSEAL, &[range.start(), range.len(), 0]);
            }
            PlanOp::Populate(range) => {
                // KERNEL(since 5.14): madvise(2), MADV_POPULATE_WRITE. Older kernels refuse it, and
                // the pages come one by one.
                let args = [range.start(), range.len(), number(libc::MADV_POPULATE_WRITE)];
                self.may_fail(libc::SYS_madvise, &args);
            }
            PlanOp::Touch(range) => {
                let args = [range.start(), range.len(), number(libc::MADV_POPULATE_READ)];
                self.may_fail(libc::SYS_madvise, &args);
            }
            PlanOp::SetMm { executable } => self.set_mm(*executable),
            PlanOp::Write { at, bytes } => {
                let from = self.arena.put(bytes, 16);
                self.raw(abi::COPY, &[at.0, from, bytes.len() as u64]);
            }
            PlanOp::FillMailbox { at } => {
                let bytes = self.arena.put(&self.task.mailbox, 16);
                self.raw(abi::COPY, &[at.0, bytes, self.task.mailbox.len() as u64]);
            }
            PlanOp::SetSignalAction(action) => {
                let value = [action.handler, action.flags, action.restorer, action.mask];
                let at = self.arena.put(&words(&value), 8);
                self.call(libc::SYS_rt_sigaction, &[number(action.signal), at, 0, 8]);
            }
            PlanOp::SetThreadPointer(at) => self.call(SYS_ARCH_PRCTL, &[ARCH_SET_FS, *at]),
            PlanOp::SetGsBase(at) => self.call(SYS_ARCH_PRCTL, &[ARCH_SET_GS, *at]),
            PlanOp::SetClearChildTid(at) => self.call(libc::SYS_set_tid_address, &[at.0]),
            PlanOp::StoreTid(at) => self.raw(abi::STORE_TID, &[at.0]),
            PlanOp::SetRobustList { head, bytes } => {
                self.call(libc::SYS_set_robust_list, &[head.0, *bytes]);
            }
            PlanOp::RegisterRseq(r) => {
                let args = [r.address.0, u64::from(r.size_bytes), 0, u64::from(r.signature)];
                self.call(libc::SYS_rseq, &args);
            }
            PlanOp::SetName(name) => {
                let mut bytes = [0u8; 16];
                let len = name.len().min(15);
                bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
                let at = self.arena.put(&bytes, 8);
                self.call(libc::SYS_prctl, &[number(libc::PR_SET_NAME), at]);
            }
            PlanOp::SetScheduling(s) => {
                let at = self.arena.put(&s.priority.to_ne_bytes(), 8);
                // linux/sched.h, linux/ioprio.h.
                const SCHED_RESET_ON_FORK: u64 = 0x4000_0000;
                const IOPRIO_WHO_PROCESS: u64 = 1;
                let reset = if s.reset_on_fork { SCHED_RESET_ON_FORK } else { 0 };
                let policy = u64::from(s.policy) | reset;
                self.may_fail(libc::SYS_sched_setscheduler, &[0, policy, at]);
                self.may_fail(libc::SYS_setpriority, &[0, 0, number(s.nice)]);
                if s.io_priority != 0 {
                    let args = [IOPRIO_WHO_PROCESS, 0, u64::from(s.io_priority)];
                    self.may_fail(libc::SYS_ioprio_set, &args);
                }
                if !s.affinity.is_empty() {
                    // The kernel takes of it what there is here (sched_setaffinity(2)), and refuses
                    // what would leave nothing.
                    let at = self.arena.put(&words(&s.affinity), 8);
                    let bytes = s.affinity.len() as u64 * 8;
                    self.may_fail(libc::SYS_sched_setaffinity, &[0, bytes, at]);
                }
            }
            PlanOp::Spawn { thread, tid } => self.spawn(*thread, tid.map(|tid| tid.0)),
            PlanOp::Meet(meeting) => self.meet(abi::BARRIER, *meeting),
            PlanOp::Arrive(meeting) => self.meet(abi::ARRIVE, *meeting),
            // A pipe that nobody writes to: it ends when the last one has closed it.
            PlanOp::HaveMapped => {
                let mapped = spare.mapped.expect("planned together");
                self.call(libc::SYS_close, &[number(mapped + 1)]);
            }
            PlanOp::AwaitMapped => {
                let mapped = spare.mapped.expect("planned together");
                let at = self.arena.reserve(8, 8);
                self.call(libc::SYS_read, &[number(mapped), at, 1]);
            }
            PlanOp::ReportParked => {
                let mut report = abi::REPORT_PARKED.to_ne_bytes().to_vec();
                report.resize(size_of::<RawReport>(), 0);
                let at = self.arena.put(&report, 8);
                let bytes = size_of::<RawReport>() as u64;
                self.call(libc::SYS_write, &[number(spare.handshake), at, bytes]);
            }
            PlanOp::AwaitGo => {
                let at = self.arena.reserve(8, 8);
                let args = [number(spare.handshake), at, 1];
                self.flagged(libc::SYS_read, &args, abi::FLAG_NOT_ZERO);
            }
            PlanOp::AwaitLetter { at, bytes } => self.await_letter(at.0, *bytes),
            PlanOp::AwaitRelease { clocks } => self.await_release(*clocks),
            PlanOp::Stop => {
                let args = [0, number(libc::SIGSTOP)];
                self.flagged(libc::SYS_kill, &args, abi::FLAG_PID_FIRST);
            }
            PlanOp::Prctl { option, value, may_fail, .. } => {
                let args = [number(*option), *value];
                let flags = if *may_fail { abi::FLAG_MAY_FAIL } else { 0 };
                self.flagged(libc::SYS_prctl, &args, flags);
            }
            PlanOp::RegisterMembarrier(command) => {
                self.may_fail(libc::SYS_membarrier, &[u64::from(*command), 0, 0]);
            }
            PlanOp::SetMemoryFailure(value) => {
                let args = [number(libc::PR_MCE_KILL), 1, u64::from(*value), 0, 0];
                self.may_fail(libc::SYS_prctl, &args);
            }
            PlanOp::AskForTiles => {
                self.call(SYS_ARCH_PRCTL, &[ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA]);
            }
            PlanOp::SetPersonality(p) => self.call(libc::SYS_personality, &[u64::from(*p)]),
            PlanOp::SetLimit(l) => {
                let at = self.arena.put(&words(&[l.soft, l.hard]), 8);
                self.may_fail(libc::SYS_prlimit64, &[0, u64::from(l.resource), at, 0]);
            }
            PlanOp::SetIntervalTimer(t) => {
                let split = |us: u64| [us / 1_000_000, us % 1_000_000];
                let value = [split(t.interval_us), split(t.value_us)].concat();
                let at = self.arena.put(&words(&value), 8);
                self.call(libc::SYS_setitimer, &[number(t.which), at, 0]);
            }
            PlanOp::ArmTimerFd { number, settime_flags, value_ns, interval_ns, ticks } => {
                self.arm_timerfd(*number, *settime_flags, [*interval_ns, *value_ns], *ticks);
            }
            PlanOp::AimPosixTimer(timer) => {
                let at = self.event(timer) + EVENT_THREAD;
                self.raw(abi::STORE_TID, &[at]);
            }
            PlanOp::AimTimerClock(timer) => {
                let at = self.clocks[&timer.id];
                self.raw(abi::STORE_CLOCK, &[at, number(timer.clock)]);
            }
            PlanOp::DeletePosixTimer(id) => self.call(libc::SYS_timer_delete, &[number(*id)]),
            PlanOp::CreatePosixTimer(timer) => self.create_timer(timer),
            PlanOp::ArmPosixTimer(t) => {
                let split = |ns: u64| [ns / 1_000_000_000, ns % 1_000_000_000];
                let value = [split(t.interval_ns), split(t.value_ns)].concat();
                let at = self.arena.put(&words(&value), 8);
                self.call(libc::SYS_timer_settime, &[number(t.id), 0, at, 0]);
            }
            PlanOp::QueueSignal { shared, info } => {
                let at = self.arena.put(&info.0, 16);
                let signal = i32::from_ne_bytes([info.0[0], info.0[1], info.0[2], info.0[3]]);
                if *shared {
                    let args = [0, number(signal), at];
                    self.flagged(libc::SYS_rt_sigqueueinfo, &args, abi::FLAG_PID_FIRST);
                } else {
                    let flags = abi::FLAG_PID_FIRST | abi::FLAG_TID_SECOND;
                    let args = [0, 0, number(signal), at];
                    self.flagged(libc::SYS_rt_tgsigqueueinfo, &args, flags);
                }
            }
            PlanOp::Close { first, last } => {
                self.call(libc::SYS_close_range, &[number(*first), number(*last), 0]);
            }
            PlanOp::LockFile { number: fd, lock } => {
                // struct flock on 64 bits: type, whence, start, length, pid.
                let request = tub_sys::lock_request(lock.exclusive, (lock.start, lock.end));
                let request = request.expect("the image's reader limits it");
                let start = request.l_start.cast_unsigned();
                let length = request.l_len.cast_unsigned();
                let kind = u64::from(request.l_type.cast_unsigned());
                let at = self.arena.put(&words(&[kind, start, length, 0]), 8);
                self.call(libc::SYS_fcntl, &[number(*fd), number(libc::F_SETLK), at]);
            }
            PlanOp::SetOwner { number: fd, owner } => {
                const F_SETSIG: i32 = 10;
                const F_SETOWN_EX: i32 = 15;
                let mut who = owner.kind.to_ne_bytes().to_vec();
                who.extend(owner.id.0.to_ne_bytes());
                let at = self.arena.put(&who, 8);
                self.call(libc::SYS_fcntl, &[number(*fd), number(F_SETOWN_EX), at]);
                let signal = number(owner.signal);
                self.call(libc::SYS_fcntl, &[number(*fd), number(F_SETSIG), signal]);
            }
            PlanOp::Listen { number: fd, backlog } => {
                self.may_fail(libc::SYS_listen, &[number(*fd), u64::from(*backlog)]);
            }
            PlanOp::SetGroups(groups) => {
                let bytes: Vec<u8> = groups.iter().flat_map(|gid| gid.to_ne_bytes()).collect();
                let at = self.arena.put(&bytes, 8);
                self.call(libc::SYS_setgroups, &[groups.len() as u64, at]);
            }
            PlanOp::SetGids(ids) => self.call(libc::SYS_setresgid, &ids.map(u64::from)),
            PlanOp::SetUids(ids) => self.call(libc::SYS_setresuid, &ids.map(u64::from)),
            PlanOp::SetCapabilities([effective, permitted, inheritable]) => {
                let header = self.arena.put(&capability_header(), 8);
                let half = |set: &u64, high: bool| {
                    let [a, b, c, d, e, f, g, h] = set.to_le_bytes();
                    u32::from_le_bytes(if high { [e, f, g, h] } else { [a, b, c, d] })
                };
                let mut data = Vec::new();
                for high in [false, true] {
                    for set in [effective, permitted, inheritable] {
                        data.extend(half(set, high).to_ne_bytes());
                    }
                }
                let data = self.arena.put(&data, 8);
                self.call(libc::SYS_capset, &[header, data]);
            }
            PlanOp::Resume { thread, wait } => {
                let general = self.resumed_registers(&self.task.threads[*thread], *wait);
                let at = self.arena.next(SIGNAL_FRAME_ALIGN);
                let frame = signal_frame(&self.task.threads[*thread], general).at(at);
                self.arena.put(&frame, SIGNAL_FRAME_ALIGN);
                self.raw(abi::SIGRETURN, &[at + 8]);
            }
        }
    }

    fn meet(&mut self, how: u32, meeting: Meeting) {
        let counter = match meeting {
            Meeting::Mapped => self.counters,
            Meeting::Ready => self.counters + 8,
            Meeting::AllGo => self.counters + 16,
        };
        self.raw(how, &[counter, self.task.programs.len() as u64]);
    }

    /// `struct prctl_mm_map` (linux/prctl.h).
    fn set_mm(&mut self, executable: bool) {
        const PR_SET_MM_MAP: i32 = 14;
        let mm = &self.task.mm;
        let auxv = self.arena.put(&mm.auxv, 8);
        let mut map = words(&[
            mm.start_code,
            mm.end_code,
            mm.start_data,
            mm.end_data,
            mm.start_brk,
            mm.brk,
            mm.start_stack,
            mm.arg_start,
            mm.arg_end,
            mm.env_start,
            mm.env_end,
            auxv,
        ]);
        let auxv_bytes = u32::try_from(mm.auxv.len()).expect("the image's reader limits it");
        map.extend(auxv_bytes.to_ne_bytes());
        let exe = if executable { self.plan.spare.executable } else { -1 };
        map.extend(exe.to_ne_bytes());
        let at = self.arena.put(&map, 8);
        let args = [number(libc::PR_SET_MM), number(PR_SET_MM_MAP), at, map.len() as u64, 0];
        self.call(libc::SYS_prctl, &args);
    }

    /// Makes a timer with the id wished for.
    fn create_timer(&mut self, timer: &PosixTimer) {
        let event = self.event(timer);
        let id = self.arena.put(&timer.id.to_ne_bytes(), 8);
        match self.clocks.get(&timer.id).copied() {
            Some(at) => {
                self.flagged(libc::SYS_timer_create, &[at, event, id], abi::FLAG_FIRST_AT);
            }
            None => self.call(libc::SYS_timer_create, &[number(timer.clock), event, id]),
        }
        // Fails unless that is the id which it got.
        self.call(libc::SYS_timer_getoverrun, &[number(timer.id)]);
    }

    /// Address of a timer's `struct sigevent`, which a thread may have to put its id into.
    fn event(&mut self, timer: &PosixTimer) -> u64 {
        if let Some(at) = self.events.get(&timer.id) {
            return *at;
        }
        let mut event = timer.value.to_ne_bytes().to_vec();
        event.extend(timer.signal.to_ne_bytes());
        event.extend(timer.notify.to_ne_bytes());
        event.extend(timer.target.0.to_ne_bytes());
        event.resize(64, 0);
        let at = self.arena.put(&event, 8);
        self.events.insert(timer.id, at);
        at
    }
}

fn capability_header() -> Vec<u8> {
    let mut header = tub_sys::CAPABILITY_VERSION_3.to_ne_bytes().to_vec();
    header.extend(0i32.to_ne_bytes());
    header
}
