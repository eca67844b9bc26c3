//! Turns a frozen process into a [`Checkpoint`].
//!
//! In: a frozen process, its survey. Out: a value. Invariant: the process is left exactly as it
//! was; there is no writer in scope.

use crate::caller::{Caller, OwnAnswers, Place};
use crate::discarders::SeenObjects;
use crate::files::{Descriptions, FilePolicy};
use crate::home::Resting;
use crate::memory::file_identity;
use crate::memory_files::MemoryFiles;
use crate::registers;
use crate::state::ProcessState;
use crate::survey::{bytes, side_by_side};
use crate::waits::Notes;
use crate::{
    Error, Refusal, RefusalKind, Result, Survey, SurveyedTree, SurveyedZombie, controls, home,
    memory, robust,
};
use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use tub_model::{
    Checkpoint, Clocks, Coordination, Credentials, Fd, HostFacts, Limit, Lock, MmFields,
    Provenance, Registers, Rseq, SigInfo, Task, Thread, Vma, Zombie,
};
use tub_procfs::timens::TimensOffsets;
use tub_sys::Errno;
use tub_tracee::{CallSite, Frozen, FrozenTree, RemoteCalls, StoppedThread, WayHome};
use tub_units::{HostPid, NsPid, RemoteAddr};

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
    /// Where each process can make system calls for us, most likely.
    pub(crate) sites: HashMap<HostPid, CallSite>,
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
        let seen = Seen { survey, parent, beforehand: &beforehand };
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
struct Seen<'a, 'b> {
    survey: &'a Survey,
    parent: Option<usize>,
    beforehand: &'b Beforehand,
}

/// Collects one process.
fn task<'a>(
    frozen: &Frozen,
    Seen { survey, parent, beforehand }: Seen<'a, '_>,
    descriptions: &mut Descriptions<'a>,
    memory_files: &mut MemoryFiles,
) -> Result<Task> {
    // Before any of them is made to do something for us.
    let waited_ns = beforehand.notes.waited_ns(frozen, survey);
    let rest = |stopped| Resting::of(frozen, survey, stopped, &waited_ns);
    let pid = frozen.pid();
    let tracee = |source| Error::Tracee { pid, source };
    let refusals = dispatching(frozen, survey)?;
    if !refusals.is_empty() {
        return Err(Error::Refused { pid, refusals, frozen: true });
    }
    let likely = beforehand.sites.get(&pid).copied();
    let site = home::call_site(frozen, survey, likely)?;
    let main = frozen.threads().first().ok_or(Error::NoSuchProcess { pid })?;
    // The main thread stays borrowed while the others are asked: it holds the scratch page.
    let mut caller = Caller::begin(frozen, survey, *main, site, rest(*main)?)?;
    let mut all_home = true;
    let objects = (descriptions, memory_files);
    let asked = ask_all(frozen, survey, &mut caller, objects, &rest, site, &mut all_home);
    let Answers { threads, process, lock_future, vmas, fds } = match asked {
        Ok(answers) => {
            caller.end()?;
            answers
        }
        Err(error) => {
            // The process goes on without our page, unless somebody may need it to go home.
            if all_home {
                let _ = caller.end();
            }
            return Err(error);
        }
    };
    let refusals = tiles_in_use(frozen.threads(), &threads);
    if !refusals.is_empty() {
        return Err(Error::Refused { pid, refusals, frozen: true });
    }
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

/// What a process tells of itself through its threads, and what is found out meanwhile.
struct Answers {
    threads: Vec<Thread>,
    process: ProcessState,
    lock_future: Lock,
    vmas: Vec<Vma>,
    fds: Vec<Fd>,
}

/// Asks the main thread, which `caller` has borrowed, and then all others. `all_home` says whether each of
/// these is known to be back where it was: the way of any other leads through the scratch page.
fn ask_all<'a>(
    frozen: &Frozen,
    survey: &'a Survey,
    caller: &mut Caller<'_>,
    (descriptions, memory_files): (&mut Descriptions<'a>, &mut MemoryFiles),
    rest: &dyn Fn(StoppedThread) -> Result<Resting>,
    site: CallSite,
    all_home: &mut bool,
) -> Result<Answers> {
    let (main, others) = (frozen.threads()[0], &frozen.threads()[1..]);
    let borrowed = std::slice::from_mut(&mut caller.calls);
    let own = OwnAnswers::of_each(borrowed, &[caller.scratch], survey.pid)?;
    let mut threads = vec![thread(frozen, survey, main, caller.resting, own[0])?];
    let process = caller.process(survey)?;
    let lock_future = caller.lock_future(survey)?;
    memory_files.add(survey, caller)?;
    let fds = descriptions.collect(survey, caller, memory_files)?;
    // Which pages there are takes the kernel about as long as all threads take to answer.
    let memory = || memory::collect(frozen, survey, memory_files);
    let ask_others = || -> Result<()> {
        let places: Vec<Place> = caller.places().collect();
        for others in others.chunks(places.len().max(1)) {
            threads.extend(ask_some(frozen, survey, others, (site, &places), rest, all_home)?);
        }
        Ok(())
    };
    let (vmas, asked) = side_by_side(memory, ask_others);
    asked?;
    let vmas = vmas?;
    Ok(Answers { threads, process, lock_future, vmas, fds })
}

/// Asks threads side by side, each in its place.
fn ask_some(
    frozen: &Frozen,
    survey: &Survey,
    stopped: &[StoppedThread],
    (site, places): (CallSite, &[Place]),
    rest: &dyn Fn(StoppedThread) -> Result<Resting>,
    all_home: &mut bool,
) -> Result<Vec<Thread>> {
    let tracee = |source| Error::Tracee { pid: frozen.pid(), source };
    let resting: Vec<Resting> = stopped.iter().map(|one| rest(*one)).collect::<Result<_>>()?;
    *all_home = false;
    let borrow = |((one, resting), place): ((&StoppedThread, &Resting), &Place)| {
        let way_home = WayHome { top: place.top, registers: resting.at_home };
        frozen.remote(*one, site, Some(way_home)).map_err(tracee)
    };
    let borrowed = stopped.iter().zip(&resting).zip(places).map(borrow);
    let mut borrowed: Vec<RemoteCalls<'_>> = borrowed.collect::<Result<_>>()?;
    let answers: Vec<RemoteAddr> = places.iter().map(|place| place.answers).collect();
    let own = OwnAnswers::of_each(&mut borrowed, &answers, survey.pid);
    // The next ones' ways home lie in the same places.
    RemoteCalls::end_each(borrowed).map_err(tracee)?;
    *all_home = true;
    let told = stopped.iter().zip(resting).zip(own?);
    told.map(|((one, resting), own)| thread(frozen, survey, *one, resting, own)).collect()
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

/// Threads that are given their own system calls, ours among them. `/proc` does not tell.
fn dispatching(frozen: &Frozen, survey: &Survey) -> Result<Vec<Refusal>> {
    let mut all = Vec::new();
    for stopped in frozen.threads() {
        let asked = stopped.has_user_dispatch();
        if asked.map_err(|source| Error::Tracee { pid: survey.pid, source })? {
            let known = survey.threads.iter().find(|thread| thread.tid == stopped.tid());
            let name = known.map_or("", |thread| &thread.stat.comm);
            all.push(Refusal {
                kind: RefusalKind::Process,
                fd: None,
                object: format!("thread {} ({name})", stopped.tid()),
                reason: "is given its own system calls, which is not supported yet".to_owned(),
                remedy: "switch PR_SET_SYSCALL_USER_DISPATCH off before the checkpoint (prctl(2))"
                    .to_owned(),
            });
        }
    }
    Ok(all)
}

/// Threads with tiles of AMX in use. `/proc` does not tell, and a copy could be given none: the kernel
/// makes room for them only when a thread itself uses them (Documentation/arch/x86/xstate.rst).
fn tiles_in_use(stopped: &[StoppedThread], threads: &[Thread]) -> Vec<Refusal> {
    let all = stopped.iter().zip(threads);
    let using = all.filter(|(_, thread)| tub_sys::holds_tiles(&thread.registers.xsave));
    let refusal = |(stopped, thread): (&StoppedThread, &Thread)| Refusal {
        kind: RefusalKind::Process,
        fd: None,
        object: format!("thread {} ({})", stopped.tid(), thread.name),
        reason: "has AMX tiles in use".to_owned(),
        remedy: "TILERELEASE before the checkpoint gives them back".to_owned(),
    };
    using.map(refusal).collect()
}

fn thread(
    frozen: &Frozen,
    survey: &Survey,
    stopped: StoppedThread,
    Resting { registers: general, wait, waits_for_owner, .. }: Resting,
    own: OwnAnswers,
) -> Result<Thread> {
    let pid = survey.pid;
    let tracee = |source| Error::Tracee { pid, source };
    let known = survey.threads.iter().find(|thread| thread.tid == stopped.tid());
    let known = known.ok_or(Error::NoSuchProcess { pid: stopped.tid() })?;
    if general[registers::CS] & 0xffff != 0x33 {
        let what = "64-bit state".to_owned();
        return Err(Error::Remote { what, pid, source: Errno::EOPNOTSUPP });
    }
    let mut xsave = stopped.xsave().map_err(tracee)?;
    xsave.truncate(tub_sys::without_room_for_tiles(&xsave).len());
    let rseq = stopped.rseq().map_err(tracee)?;
    let (head, bytes) = stopped.robust_list().map_err(tracee)?;
    let pending = stopped.pending_signals(false).map_err(tracee)?;
    let tid = known.status.ns_pid.last().copied().unwrap_or(NsPid(stopped.tid().0));
    Ok(Thread {
        tid,
        name: thread_name(&known.stat.comm),
        registers: Registers { general, xsave },
        signal_mask: own.signal_mask,
        pending_signals: pending.into_iter().map(SigInfo).collect(),
        alternate_stack: own.alternate_stack,
        clear_child_tid: own.clear_child_tid,
        robust_list: (RemoteAddr(head), bytes),
        robust_held: robust::held(frozen, head, tid),
        waits_for_owner,
        rseq: rseq.map(|rseq| Rseq {
            address: RemoteAddr(rseq.address),
            size_bytes: rseq.size_bytes,
            signature: rseq.signature,
        }),
        scheduling: controls::scheduling(known),
        timer_slack_ns: own.timer_slack_ns,
        wait,
    })
}

/// The name of a thread, no longer than it was: what a name is cut off to may be no letter.
fn thread_name(comm: &str) -> String {
    comm.replace(char::REPLACEMENT_CHARACTER, "?")
}
