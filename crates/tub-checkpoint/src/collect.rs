//! Turns a frozen process into a [`Checkpoint`].
//!
//! In: a frozen process, its survey. Out: a value. Invariant: the process is left exactly as it
//! was; there is no writer in scope.

use crate::discarders::SeenObjects;
use crate::files::{Descriptions, FilePolicy};
use crate::home::Resting;
use crate::memory::file_identity;
use crate::memory_files::MemoryFiles;
use crate::registers;
use crate::survey::bytes;
use crate::waits::Notes;
use crate::{Error, Result, Survey, SurveyedTree, SurveyedZombie, controls, home, memory, robust};
use std::collections::HashMap;
use std::fs::Metadata;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use tub_model::{
    AlternateStack, Checkpoint, Clocks, Controls, Coordination, Credentials, HostFacts,
    IntervalTimer, Limit, Lock, MmFields, PosixTimer, Provenance, Registers, Rseq, SigInfo,
    SignalAction, Task, Thread, Zombie,
};
use tub_procfs::timens::TimensOffsets;
use tub_sys::{Errno, UnixDiag};
use tub_tracee::{CallSite, Frozen, FrozenTree, RemoteCalls, StoppedThread, WayHome};
use tub_units::{AddrRange, HostPid, NsPid, PAGE_BYTES, RemoteAddr};

/// What is known about a checkpoint before the process is looked at.
#[derive(Clone, Debug)]
pub(crate) struct Beforehand {
    /// Who makes the image.
    pub(crate) provenance: Provenance,
    /// The host.
    pub(crate) host: HostFacts,
    /// How the application takes part.
    pub(crate) coordination: Option<Coordination>,
    /// Since when its threads have been waiting.
    pub(crate) notes: Notes,
    /// The objects that it has mapped, looked into before it stands still.
    pub(crate) objects: SeenObjects,
}

/// Collects everything but the bytes of the pages.
pub(crate) fn collect(
    frozen: &FrozenTree,
    tree: &SurveyedTree,
    policy: FilePolicy,
    mut beforehand: Beforehand,
    memory_files: &mut MemoryFiles,
) -> Result<Checkpoint> {
    let clocks = clocks(tree.main())?;
    let mut descriptions = Descriptions::new(policy);
    let mut tasks = Vec::with_capacity(tree.members.len());
    for (survey, &parent) in tree.members.iter().zip(&tree.parents) {
        let held = frozen.members().iter().find(|member| member.pid() == survey.pid);
        let held = held.ok_or(Error::NoSuchProcess { pid: survey.pid })?;
        let seen = Seen { survey, parent, notes: &beforehand.notes };
        let mut task = task(held, seen, &mut descriptions, memory_files)?;
        task.discarders = beforehand.objects.discarders(held, survey);
        tasks.push(task);
    }
    if let Some(lost) = frozen.members().get(tasks.len()) {
        return Err(Error::NoSuchProcess { pid: lost.pid() });
    }
    Ok(Checkpoint {
        provenance: beforehand.provenance,
        host: beforehand.host,
        clocks,
        coordination: beforehand.coordination,
        files: descriptions.into_files(tree.main().pid)?,
        memory_files: memory_files.to_model()?,
        tasks,
        zombies: tree.zombies.iter().map(zombie).collect(),
    })
}

fn zombie(seen: &SurveyedZombie) -> Zombie {
    let SurveyedZombie { parent, status, stat, .. } = seen;
    Zombie {
        pid: innermost(&status.ns_pid),
        parent: *parent,
        group: innermost(&status.ns_pgid),
        session: innermost(&status.ns_sid),
        name: stat.comm.clone(),
        status: stat.exit_code,
    }
}

/// An id as the process sees it itself.
fn innermost(ids: &[NsPid]) -> NsPid {
    ids.last().copied().unwrap_or(NsPid(0))
}

/// What is known of one process.
#[derive(Clone, Copy)]
struct Seen<'a> {
    survey: &'a Survey,
    parent: Option<usize>,
    notes: &'a Notes,
}

/// Collects one process.
fn task<'a>(
    frozen: &Frozen,
    Seen { survey, parent, notes }: Seen<'a>,
    descriptions: &mut Descriptions<'a>,
    memory_files: &mut MemoryFiles,
) -> Result<Task> {
    // Before any of them is made to do something for us.
    let waited_ns = notes.waited_ns(frozen);
    let rest = |stopped| Resting::of(frozen, survey, stopped, &waited_ns);
    let pid = frozen.pid();
    let tracee = |source| Error::Tracee { pid, source };
    let site = home::call_site(frozen, survey)?;
    let [main, others @ ..] = frozen.threads() else {
        return Err(Error::NoSuchProcess { pid });
    };
    // The main thread stays borrowed while the others are asked: it holds the scratch page.
    let mut caller = Caller::begin(frozen, survey, *main, site, rest(*main)?)?;
    let (scratch, top) = (caller.scratch, caller.scratch.0 + caller.scratch_bytes);
    let resting = caller.resting;
    let mut threads = vec![thread(survey, *main, &mut caller.calls, resting, scratch)?];
    let process = caller.process(survey)?;
    let lock_future = caller.lock_future(survey)?;
    memory_files.add(survey, &mut caller)?;
    let vmas = memory::collect(frozen, &survey.mappings, memory_files)?;
    let fds = descriptions.collect(survey, &mut caller, memory_files)?;
    for other in others {
        let resting = rest(*other)?;
        let way_home = Some(WayHome { top, registers: resting.at_home });
        let mut calls = frozen.remote(*other, site, way_home).map_err(tracee)?;
        threads.push(thread(survey, *other, &mut calls, resting, scratch)?);
        // The next one's way home lies in the same place.
        calls.end().map_err(tracee)?;
    }
    caller.end()?;
    let status = &survey.status;
    let shared = main.pending_signals(true).map_err(tracee)?;
    let exe_meta = std::fs::metadata(format!("/proc/{pid}/exe"))
        .map_err(|source| Error::Proc { path: survey.exe.clone(), source })?;
    let (exe, exe_deleted) = executable(&survey.exe, &exe_meta);
    Ok(Task {
        pid: threads[0].tid,
        parent,
        group: innermost(&status.ns_pgid),
        session: innermost(&status.ns_sid),
        stopped: frozen.stopped_by(),
        parent_death_signal: process.parent_death_signal,
        exe: file_identity(exe.to_owned(), &exe_meta),
        exe_deleted,
        cwd: survey.cwd.clone(),
        umask: status.umask.unwrap_or(0o022),
        credentials: Credentials {
            uids: status.uids,
            gids: status.gids,
            groups: status.groups.clone(),
            capabilities: [status.cap_eff, status.cap_prm, status.cap_inh],
        },
        dumpable: process.dumpable,
        no_new_privs: status.no_new_privs,
        thp_disable: process.thp_disable,
        child_subreaper: process.child_subreaper,
        personality: survey.personality,
        oom_score_adj: survey.oom_score_adj,
        controls: process.controls,
        limits: survey
            .limits
            .iter()
            .map(|limit| Limit { resource: limit.resource, soft: limit.soft, hard: limit.hard })
            .collect(),
        mm: mm(survey, process.brk, lock_future),
        vmas,
        discarders: Vec::new(),
        signal_actions: process.signal_actions,
        pending_signals: shared.into_iter().map(SigInfo).collect(),
        interval_timers: process.interval_timers,
        posix_timers: process.posix_timers,
        fds,
        threads,
    })
}

/// The path of an executable, and whether the file is there no more: the kernel marks its path by a
/// suffix then, which a live file may also bear (proc_pid_exe(5)).
fn executable<'a>(link: &'a str, file: &Metadata) -> (&'a str, bool) {
    let lives = |path: &str| {
        std::fs::metadata(path).is_ok_and(|at| (at.dev(), at.ino()) == (file.dev(), file.ino()))
    };
    match link.strip_suffix(" (deleted)") {
        Some(path) if !lives(link) => (path, true),
        _ => (link, false),
    }
}

/// The clocks as the process sees them: ours, less our namespace's offset, plus its own
/// (time_namespaces(7)).
fn clocks(survey: &Survey) -> Result<Clocks> {
    let own = match bytes("/proc/self/timens_offsets") {
        Ok(bytes) => tub_procfs::timens::parse_offsets(&bytes).unwrap_or_default(),
        Err(_) => TimensOffsets::default(),
    };
    let theirs = survey.clock_offsets;
    let read = |clock| {
        let now = nix::time::clock_gettime(nix::time::ClockId::from_raw(clock));
        let now = now.map_or(Duration::ZERO, Duration::from);
        i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
    };
    let seen = |clock, own: i64, theirs: i64| (read(clock) - own + theirs).max(0).cast_unsigned();
    Ok(Clocks {
        monotonic_ns: seen(libc::CLOCK_MONOTONIC, own.monotonic_ns, theirs.monotonic_ns),
        boottime_ns: seen(libc::CLOCK_BOOTTIME, own.boottime_ns, theirs.boottime_ns),
        realtime_ns: seen(libc::CLOCK_REALTIME, 0, 0),
    })
}

fn mm(survey: &Survey, brk: u64, lock_future: Lock) -> MmFields {
    let stat = &survey.stat;
    MmFields {
        start_code: stat.start_code,
        end_code: stat.end_code,
        start_data: stat.start_data,
        end_data: stat.end_data,
        start_brk: stat.start_brk,
        brk,
        start_stack: stat.start_stack,
        arg_start: stat.arg_start,
        arg_end: stat.arg_end,
        env_start: stat.env_start,
        env_end: stat.env_end,
        auxv: survey.auxv.clone(),
        lock_future,
    }
}

fn thread(
    survey: &Survey,
    stopped: StoppedThread,
    calls: &mut RemoteCalls<'_>,
    Resting { registers: general, wait, waits_for_owner, .. }: Resting,
    scratch: RemoteAddr,
) -> Result<Thread> {
    let pid = survey.pid;
    let tracee = |source| Error::Tracee { pid, source };
    let known = survey.threads.iter().find(|thread| thread.tid == stopped.tid());
    let known = known.ok_or(Error::NoSuchProcess { pid: stopped.tid() })?;
    if general[registers::CS] & 0xffff != 0x33 {
        let what = "64-bit state".to_owned();
        return Err(Error::Remote { what, pid, source: Errno::EOPNOTSUPP });
    }
    let rseq = stopped.rseq().map_err(tracee)?;
    let mask = calls.saved_signal_mask();
    let clear_child_tid = RemoteAddr(tid_address(calls, scratch, pid)?);
    let alternate_stack = alternate_stack(calls, scratch, pid)?;
    let timer_slack_ns = controls::timer_slack_ns(calls, pid)?;
    let (head, bytes) = stopped.robust_list().map_err(tracee)?;
    let pending = stopped.pending_signals(false).map_err(tracee)?;
    let tid = known.status.ns_pid.last().copied().unwrap_or(NsPid(stopped.tid().0));
    Ok(Thread {
        tid,
        name: known.stat.comm.clone(),
        registers: Registers { general, xsave: stopped.xsave().map_err(tracee)? },
        signal_mask: mask,
        pending_signals: pending.into_iter().map(SigInfo).collect(),
        alternate_stack,
        clear_child_tid,
        robust_list: (RemoteAddr(head), bytes),
        robust_held: robust::held(calls.process(), head, tid),
        waits_for_owner,
        rseq: rseq.map(|rseq| Rseq {
            address: RemoteAddr(rseq.address),
            size_bytes: rseq.size_bytes,
            signature: rseq.signature,
        }),
        scheduling: controls::scheduling(known),
        timer_slack_ns,
        wait,
    })
}

/// `prctl(PR_GET_TID_ADDRESS)`: KERNEL(since 3.5, with CONFIG_CHECKPOINT_RESTORE).
fn tid_address(calls: &mut RemoteCalls<'_>, scratch: RemoteAddr, pid: HostPid) -> Result<u64> {
    const PR_GET_TID_ADDRESS: u64 = 40;
    let args = [PR_GET_TID_ADDRESS, scratch.0, 0, 0, 0, 0];
    ask(calls, "address of the thread id", libc::SYS_prctl, args, pid)?;
    calls.process().read_u64(scratch).map_err(|source| Error::Tracee { pid, source })
}

fn alternate_stack(
    calls: &mut RemoteCalls<'_>,
    scratch: RemoteAddr,
    pid: HostPid,
) -> Result<AlternateStack> {
    ask(calls, "alternate stack", libc::SYS_sigaltstack, [0, scratch.0, 0, 0, 0, 0], pid)?;
    let [address, flags, size_bytes] = read_words(calls.process(), scratch)?;
    Ok(AlternateStack { address, flags: low_half(flags).cast_signed(), size_bytes })
}

/// A C int that the kernel has written to the start of a word.
fn low_half(word: u64) -> u32 {
    let [a, b, c, d, ..] = word.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

pub(crate) fn ask(
    calls: &mut RemoteCalls<'_>,
    what: &str,
    number: i64,
    args: [u64; 6],
    pid: HostPid,
) -> Result<u64> {
    calls
        .call(number, args)
        .map_err(|source| Error::Tracee { pid, source })?
        .map_err(|source| Error::Remote { what: what.to_owned(), pid, source })
}

pub(crate) fn read_words<const N: usize>(frozen: &Frozen, at: RemoteAddr) -> Result<[u64; N]> {
    let mut words = [0; N];
    for (index, word) in words.iter_mut().enumerate() {
        *word = frozen
            .read_u64(RemoteAddr(at.0 + index as u64 * 8))
            .map_err(|source| Error::Tracee { pid: frozen.pid(), source })?;
    }
    Ok(words)
}

/// The main thread, borrowed to ask about the process, with a scratch page of its memory.
pub(crate) struct Caller<'a> {
    calls: RemoteCalls<'a>,
    /// What the thread goes on with.
    resting: Resting,
    scratch: RemoteAddr,
    scratch_bytes: u64,
    pid: HostPid,
    diag: Option<HashMap<u64, UnixDiag>>,
}

/// What only the process itself can tell.
struct ProcessState {
    dumpable: u32,
    thp_disable: bool,
    child_subreaper: bool,
    controls: Controls,
    parent_death_signal: i32,
    brk: u64,
    signal_actions: Vec<SignalAction>,
    interval_timers: Vec<IntervalTimer>,
    posix_timers: Vec<PosixTimer>,
}

impl<'a> Caller<'a> {
    fn begin(
        frozen: &'a Frozen,
        survey: &Survey,
        main: StoppedThread,
        site: CallSite,
        resting: Resting,
    ) -> Result<Self> {
        let pid = frozen.pid();
        let tracee = |source| Error::Tracee { pid, source };
        let frame_bytes = WayHome::bytes(main.xsave().map_err(tracee)?.len());
        let way_home = home::on_the_main_stack(frozen, survey, resting.at_home, frame_bytes);
        let mut calls = frozen.remote(main, site, way_home).map_err(tracee)?;
        // A page to answer in, and room for the ways home of the other threads.
        let scratch_bytes = PAGE_BYTES + WayHome::BYTES_MAX.next_multiple_of(PAGE_BYTES);
        let rights = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let args = [0, scratch_bytes, rights, flags, u64::MAX, 0];
        let scratch = RemoteAddr(ask(&mut calls, "a scratch page", libc::SYS_mmap, args, pid)?);
        Ok(Self { calls, resting, scratch, scratch_bytes, pid, diag: None })
    }

    pub(crate) fn ask(&mut self, what: &str, number: i64, args: [u64; 6]) -> Result<u64> {
        ask(&mut self.calls, what, number, args, self.pid)
    }

    /// A call whose refusal is an answer.
    pub(crate) fn attempt(
        &mut self,
        number: i64,
        args: [u64; 6],
    ) -> Result<std::result::Result<u64, tub_sys::Errno>> {
        let pid = self.pid;
        self.calls.call(number, args).map_err(|source| Error::Tracee { pid, source })
    }

    /// Asks for a number that is the call's result; `None` where the kernel does not know the
    /// question.
    pub(crate) fn ask_if_known(&mut self, number: i64, args: [u64; 6]) -> Result<Option<u32>> {
        Ok(self.attempt(number, args)?.ok().and_then(|answer| u32::try_from(answer).ok()))
    }

    fn words<const N: usize>(&self) -> Result<[u64; N]> {
        read_words(self.calls.process(), self.scratch)
    }

    /// Whether the process locks every new mapping: the kernel shows it nowhere, but the scratch
    /// page is such a mapping.
    fn lock_future(&self, survey: &Survey) -> Result<Lock> {
        let path = format!("/proc/{}/status", self.pid);
        let malformed = |source| Error::Malformed { path: path.clone(), source };
        let now = tub_procfs::status::parse(&bytes(&path)?).map_err(malformed)?;
        if now.vm_lck_bytes <= survey.status.vm_lck_bytes {
            return Ok(Lock::None);
        }
        let mappings = crate::survey::mappings(self.pid)?;
        let scratch = mappings.iter().find(|record| record.map.range.contains(self.scratch.0));
        Ok(scratch.map_or(Lock::None, memory::lock))
    }

    /// The pages of a mapping of shared memory that are there, whoever has touched them
    /// (mincore(2)).
    pub(crate) fn resident(&mut self, range: AddrRange) -> Result<Vec<AddrRange>> {
        let mut found = Vec::new();
        let mut answers = [0u8; 2048];
        let mut at = range.start();
        while at < range.end() {
            let pages = (range.end() - at).div_ceil(PAGE_BYTES).min(answers.len() as u64);
            let args = [at, pages * PAGE_BYTES, self.scratch.0, 0, 0, 0];
            self.ask("pages of shared memory", libc::SYS_mincore, args)?;
            let process = self.calls.process();
            let tracee = |source| Error::Tracee { pid: self.pid, source };
            process.read(self.scratch, &mut answers).map_err(tracee)?;
            let pages_here = usize::try_from(pages).unwrap_or(0);
            for (page, _) in
                (0..).zip(&answers[..pages_here]).filter(|(_, answer)| *answer & 1 == 1)
            {
                found.extend(AddrRange::with_len(at + page * PAGE_BYTES, PAGE_BYTES));
            }
            at += pages * PAGE_BYTES;
        }
        Ok(memory::join(found.into_iter()))
    }

    /// Gives the scratch page and the thread back.
    fn end(mut self) -> Result<()> {
        let args = [self.scratch.0, self.scratch_bytes, 0, 0, 0, 0];
        self.ask("end of the scratch page", libc::SYS_munmap, args)?;
        let pid = self.pid;
        self.calls.end().map_err(|source| Error::Tracee { pid, source })
    }

    fn process(&mut self, survey: &Survey) -> Result<ProcessState> {
        // linux/prctl.h.
        const PR_GET_PDEATHSIG: u64 = 2;
        const PR_GET_DUMPABLE: u64 = 3;
        const PR_GET_CHILD_SUBREAPER: u64 = 37;
        const PR_GET_THP_DISABLE: u64 = 42;
        let scratch = self.scratch.0;
        let prctl = libc::SYS_prctl;
        let dumpable = self.ask("dumpable", prctl, [PR_GET_DUMPABLE, 0, 0, 0, 0, 0])?;
        let thp_disable = self.ask("THP", prctl, [PR_GET_THP_DISABLE, 0, 0, 0, 0, 0])? != 0;
        let args = [PR_GET_CHILD_SUBREAPER, scratch, 0, 0, 0, 0];
        self.ask("child subreaper", prctl, args)?;
        let [subreaper] = self.words()?;
        let args = [PR_GET_PDEATHSIG, scratch, 0, 0, 0, 0];
        self.ask("parent-death signal", prctl, args)?;
        let [parent_death_signal] = self.words()?;
        Ok(ProcessState {
            dumpable: u32::try_from(dumpable).unwrap_or(0),
            thp_disable,
            child_subreaper: low_half(subreaper) != 0,
            controls: controls::collect(self, survey)?,
            parent_death_signal: low_half(parent_death_signal).cast_signed(),
            brk: self.ask("end of the heap", libc::SYS_brk, [0; 6])?,
            signal_actions: self.signal_actions(survey)?,
            interval_timers: self.interval_timers()?,
            posix_timers: self.posix_timers(survey)?,
        })
    }

    fn signal_actions(&mut self, survey: &Survey) -> Result<Vec<SignalAction>> {
        // /proc says which ones are worth asking about: those that are ignored or caught. With the default
        // action, flags mean something for SIGCHLD only (SA_NOCLDWAIT: children leave no zombies).
        let set = survey.status.sig_ign | survey.status.sig_cgt | 1 << (libc::SIGCHLD - 1);
        let mut actions = Vec::new();
        for signal in (1..=64).filter(|signal| set >> (signal - 1) & 1 == 1) {
            let args = [signal, 0, self.scratch.0, 8, 0, 0];
            self.ask("signal action", libc::SYS_rt_sigaction, args)?;
            let [handler, flags, restorer, mask] = self.words()?;
            let signal = i32::try_from(signal).expect("at most 64");
            if (handler, flags) == (0, 0) {
                continue;
            }
            actions.push(SignalAction { signal, handler, flags, restorer, mask });
        }
        Ok(actions)
    }

    fn interval_timers(&mut self) -> Result<Vec<IntervalTimer>> {
        let mut timers = Vec::new();
        for which in 0..3 {
            let args = [which, self.scratch.0, 0, 0, 0, 0];
            self.ask("interval timer", libc::SYS_getitimer, args)?;
            let [every_s, every_us, in_s, in_us] = self.words()?;
            let value_us = in_s * 1_000_000 + in_us;
            if value_us > 0 {
                let interval_us = every_s * 1_000_000 + every_us;
                let which = i32::try_from(which).expect("at most 2");
                timers.push(IntervalTimer { which, value_us, interval_us });
            }
        }
        Ok(timers)
    }

    fn posix_timers(&mut self, survey: &Survey) -> Result<Vec<PosixTimer>> {
        let mut timers = Vec::new();
        for record in &survey.timers {
            let id = u64::from(record.id.cast_unsigned());
            let args = [id, self.scratch.0, 0, 0, 0, 0];
            self.ask("timer", libc::SYS_timer_gettime, args)?;
            let [every_s, every_ns, in_s, in_ns] = self.words()?;
            timers.push(PosixTimer {
                id: record.id,
                clock: record.clock,
                notify: record.notify,
                signal: record.signal,
                value: record.value,
                target: survey.inner_id(HostPid(record.target)),
                value_ns: in_s * 1_000_000_000 + in_ns,
                interval_ns: every_s * 1_000_000_000 + every_ns,
            });
        }
        timers.sort_by_key(|timer| timer.id);
        Ok(timers)
    }

    /// `timerfd_gettime`: nanoseconds until it next fires, and its period.
    pub(crate) fn timerfd_time(&mut self, fd: i32) -> Result<(u64, u64)> {
        let args = [u64::from(fd.cast_unsigned()), self.scratch.0, 0, 0, 0, 0];
        self.ask("timer", libc::SYS_timerfd_gettime, args)?;
        let [every_s, every_ns, in_s, in_ns] = self.words()?;
        Ok((in_s * 1_000_000_000 + in_ns, every_s * 1_000_000_000 + every_ns))
    }

    /// Makes a call that works on `memory`: it gets the address of a copy, which is read back.
    pub(crate) fn call_on(
        &mut self,
        number: i64,
        memory: &mut [u8],
        args: impl FnOnce(u64) -> [u64; 6],
    ) -> Result<std::result::Result<u64, Errno>> {
        let pid = self.pid;
        let tracee = |source| Error::Tracee { pid, source };
        debug_assert!(memory.len() as u64 <= PAGE_BYTES, "the scratch page is all there is");
        self.calls.process().write(self.scratch, memory).map_err(tracee)?;
        let result = self.calls.call(number, args(self.scratch.0)).map_err(tracee)?;
        self.calls.process().read(self.scratch, memory).map_err(tracee)?;
        Ok(result)
    }

    /// Maps memory of its own for a call that needs more than a page, lets `use_it`, and unmaps it.
    pub(crate) fn with_memory<T>(
        &mut self,
        bytes: u64,
        use_it: impl FnOnce(&mut Self, RemoteAddr) -> Result<T>,
    ) -> Result<T> {
        let rights = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let args = [0, bytes, rights, flags, u64::MAX, 0];
        let at = RemoteAddr(self.ask("memory", libc::SYS_mmap, args)?);
        let result = use_it(self, at);
        self.ask("end of memory", libc::SYS_munmap, [at.0, bytes, 0, 0, 0, 0])?;
        result
    }

    /// Reads its memory.
    pub(crate) fn read(&self, at: RemoteAddr, bytes: &mut [u8]) -> Result<()> {
        let tracee = |source| Error::Tracee { pid: self.pid, source };
        self.calls.process().read(at, bytes).map_err(tracee)
    }

    /// Where the memory of [`Self::call_on`] lies.
    pub(crate) fn scratch_address(&self) -> u64 {
        self.scratch.0
    }

    /// The process.
    pub(crate) fn pid(&self) -> HostPid {
        self.pid
    }

    /// What the kernel's diagnosis says of one of its unix sockets.
    pub(crate) fn unix_diag(&mut self, ino: u64) -> Result<UnixDiag> {
        if self.diag.is_none() {
            let socket = self.sock_diag_socket()?;
            let sockets = tub_sys::unix_sockets(socket.as_fd()).map_err(|e| self.no_peers(e))?;
            self.diag = Some(sockets.into_iter().collect());
        }
        let known = self.diag.as_ref().and_then(|diag| diag.get(&ino).cloned());
        known.ok_or_else(|| self.no_peers(Errno::EXDEV))
    }

    /// A socket to ask about sockets, in the network namespace of the process: only its own are
    /// listed there. Where that is not ours, the process makes the socket and we take a copy.
    fn sock_diag_socket(&mut self) -> Result<OwnedFd> {
        let namespace = |who: String| std::fs::read_link(format!("/proc/{who}/ns/net")).ok();
        if namespace("self".to_owned()) == namespace(self.pid.to_string()) {
            return tub_sys::sock_diag_socket().map_err(|e| self.no_peers(e));
        }
        let [family, kind, protocol] =
            tub_sys::SOCK_DIAG_SOCKET.map(|number| u64::from(number.cast_unsigned()));
        let args = [family, kind, protocol, 0, 0, 0];
        let fd = self.ask("a socket to ask about sockets", libc::SYS_socket, args)?;
        let copy = tub_sys::duplicate_of(self.pid, i32::try_from(fd).unwrap_or(-1));
        self.ask("its end", libc::SYS_close, [fd, 0, 0, 0, 0, 0])?;
        copy.map_err(|e| self.no_peers(e))
    }

    fn no_peers(&self, source: Errno) -> Error {
        Error::Remote { what: "peers of unix sockets".to_owned(), pid: self.pid, source }
    }
}
