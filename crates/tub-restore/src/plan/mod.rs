//! The plan of a restore: everything decided, nothing done.
//!
//! In: an image's checkpoint and page runs, facts about this host, wishes. Out: [`RestorePlan`].
//! Pure: no system call, no file. Invariant: a plan that comes out can be printed, compared and
//! lowered without any other input.
//! Not here: doing it (see [`crate::launch()`]).

mod checks;
mod display;
mod error;
mod events;
mod family;
mod files;
mod handles;
mod inputs;
mod lazy;
mod locks;
mod lower;
mod memory;
mod op;
mod owners;
mod places;
mod rights;
mod standby;
mod threads;
mod vdso;

pub use error::PlanError;
pub use family::{Birth, Group, Role};
pub use files::{End, FileStep, Placed};
pub use inputs::{Ids, MemoryMode, PlanFacts, PlanWishes, Stdio};
pub use lazy::{MemoryDecision, auto_memory};
pub use lower::{Lowered, lower};
pub use memory::MemoryFacts;
pub use op::{Meeting, PlanOp};
pub use standby::{Awakening, CLOCKS_BYTES};
pub use threads::CredentialChange;

use places::{BLOB_PLACE, TASK_SIZE, VDSO_PLACE, free_place};
use rights::{credentials, limits};
use std::collections::BTreeSet;
use tub_image::PageRun;
use tub_model::{Checkpoint, FileIdentity, Limit, MemoryFile, MmFields, Task, Thread};
use tub_restorer_abi::STUB_BYTES;
use tub_units::{AddrRange, NsPid, PAGE_BYTES};

/// Whether the clocks go on where they stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockPlan {
    /// In a time namespace, which starts at these values (nanoseconds).
    Continue {
        /// CLOCK_MONOTONIC.
        monotonic_ns: u64,
        /// CLOCK_BOOTTIME.
        boottime_ns: u64,
    },
    /// They jump to this host's.
    Jump,
}

/// A file that the process maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MappedFile {
    /// A file that must be there, unchanged.
    Existing {
        /// Which.
        file: FileIdentity,
        /// Whether it is opened for writing, too.
        writable: bool,
    },
    /// A file that is made anew. In the end it has the id of its process for a name.
    Scratch {
        /// Where it is made.
        path: String,
        /// Its process, by its id in the image.
        of: NsPid,
        /// Effective user of that process.
        owner: u32,
        /// Permission bits.
        mode: u32,
        /// Size in bytes.
        size_bytes: u64,
        /// Address of its first byte in the process.
        start: u64,
        /// Its content.
        content: Vec<PageRun>,
    },
    /// A file that the image brings along.
    Memory {
        /// Which.
        file: MemoryFile,
        /// Its content, by offsets in it.
        content: Vec<PageRun>,
        /// For people.
        name: String,
    },
    /// The same as another one, open for reading only: no mapping of it may ever be written to.
    ReadOnly {
        /// Index of the other one.
        of: usize,
        /// For people.
        name: String,
    },
}

impl MappedFile {
    fn existing(file: &FileIdentity, writable: bool) -> Self {
        Self::Existing { file: file.clone(), writable }
    }

    /// Its path.
    pub fn path(&self) -> &str {
        match self {
            Self::Existing { file, .. } => &file.path,
            Self::Scratch { path, .. } => path,
            Self::Memory { name, .. } | Self::ReadOnly { name, .. } => name,
        }
    }

    fn is_writable(&self) -> bool {
        match self {
            Self::Scratch { .. } | Self::Memory { .. } => true,
            Self::Existing { writable, .. } => *writable,
            Self::ReadOnly { .. } => false,
        }
    }
}

/// One thread's operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its id in the image.
    pub tid: NsPid,
    /// Its name.
    pub name: String,
    /// What it does, in order.
    pub ops: Vec<PlanOp>,
}

/// Numbers of the launcher's own descriptors, above all of the image's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpareFds {
    /// A socket: takes the blob's reports, and says go.
    pub handshake: i32,
    /// The page store.
    pub pages: i32,
    /// The executable.
    pub executable: i32,
    /// First of the mapped files.
    pub first_file: i32,
    /// First of those at which open file descriptions wait for several tasks to take them.
    pub first_parked: i32,
    /// A pipe that ends when all tasks have made their mappings, where that matters: its reading
    /// end, and then the other.
    pub mapped: Option<i32>,
    /// For an instance on standby, the offsets of the time namespace that it will enter, and then the
    /// namespace itself.
    pub clocks: Option<i32>,
    /// Last number in use.
    pub last: i32,
}

/// Everything decided about a restore.
#[derive(Clone, Debug)]
pub struct RestorePlan {
    /// Id of the image.
    pub image_id: [u8; 16],
    /// How many checkpoints lie behind it.
    pub generation: u64,
    /// Same ids or new ones.
    pub ids: Ids,
    /// What happens to the clocks.
    pub clocks: ClockPlan,
    /// Whether the instance outlives the restoring process.
    pub detach: bool,
    /// Whether it is told to go while it is being laid out, so that it need not wait when it is.
    pub at_once: bool,
    /// How the instance comes to life, if it is to be parked until somebody wants it.
    pub standby: Option<Awakening>,
    /// Bytes of the blob's code and its stubs, in whole pages.
    pub code_bytes: u64,
    /// Files to have open before the memory operations, by index.
    pub mapped_files: Vec<MappedFile>,
    /// How the open file descriptions of all tasks are made, before there is any task but the main
    /// one.
    pub file_steps: Vec<FileStep>,
    /// The launcher's own descriptors.
    pub spare: SpareFds,
    /// Whether threads are made by clone3.
    pub clone3: bool,
    /// How each process comes to be: those of the tasks first, under their indices.
    pub births: Vec<Birth>,
    /// Each task, the main one first.
    pub tasks: Vec<TaskPlan>,
    /// What the user should know: limits of this restore.
    pub warnings: Vec<String>,
}

/// Everything decided about one task.
#[derive(Clone, Debug)]
pub struct TaskPlan {
    /// Its id in the image.
    pub pid: NsPid,
    /// Whether memory is mapped from the page store, and why.
    pub memory: MemoryDecision,
    /// Where the blob goes: code first.
    pub blob: AddrRange,
    /// Address of the first stub, one for each thread whose wait goes on.
    pub stubs_at: u64,
    /// How its descriptor table is made of what [`RestorePlan::file_steps`] have made.
    pub file_steps: Vec<FileStep>,
    /// Working directory.
    pub cwd: String,
    /// File mode creation mask.
    pub umask: u32,
    /// OOM score adjustment.
    pub oom_score_adj: i32,
    /// What a core dump holds.
    pub core_filter: u32,
    /// The executable, if there still is one.
    pub exe: Option<FileIdentity>,
    /// The address space's bounds.
    pub mm: MmFields,
    /// The mailbox's content.
    pub mailbox: Vec<u8>,
    /// Threads, for their registers.
    pub threads: Vec<Thread>,
    /// What each thread does.
    pub programs: Vec<Program>,
}

/// Plans the restore of `checkpoint`.
///
/// # Errors
///
/// The first reason why the image cannot be restored in the way wished for, here, by this caller.
pub fn plan(
    checkpoint: &Checkpoint,
    runs: &[Vec<PageRun>],
    facts: &PlanFacts,
    wishes: PlanWishes,
) -> Result<RestorePlan, PlanError> {
    let mut warnings = Vec::new();
    let births = family::births(checkpoint, facts, wishes.ids, &mut warnings)?;
    owners::warn(checkpoint, wishes.ids, &mut warnings);
    checks::stdio(checkpoint, wishes.stdio)?;
    checks::mailbox(checkpoint, &wishes)?;
    if wishes.standby {
        standby::check(checkpoint)?;
    }
    let clocks = clocks(checkpoint, facts, wishes.clocks_may_go_back, &mut warnings)?;
    if !facts.set_executable {
        warnings.push("/proc/PID/exe will name tub: setting it needs a user namespace".to_owned());
    }
    for deleted in checkpoint.tasks.iter().filter(|task| task.exe_deleted) {
        let path = &deleted.exe.path;
        warnings.push(format!("/proc/PID/exe will name tub: {path} was deleted while it ran"));
    }
    // Mappings first: how many files they need decides where the spare descriptors go.
    let mut mapped = memory::MappedFiles::new(
        &checkpoint.memory_files,
        runs.get(checkpoint.tasks.len()..).unwrap_or_default(),
    );
    let several = checkpoint.tasks.len() > 1;
    let seals_together = several && checkpoint.memory_files.iter().any(|file| file.seals != 0);
    let mut spaces = Vec::with_capacity(checkpoint.tasks.len());
    for (task, runs) in checkpoint.tasks.iter().zip(runs) {
        checks::timers(task, facts)?;
        checks::guards(task, facts)?;
        let bridge = bridge(checkpoint, task, facts)?;
        spaces.push(plan_space(
            task,
            runs,
            facts,
            (&wishes, bridge, seals_together),
            &mut mapped,
            &mut warnings,
        )?);
    }
    let mapped_files = mapped.into_files();
    let standby = wishes.standby.then(|| Awakening {
        mailbox: checkpoint.coordination.as_ref().map(|coordination| coordination.mailbox),
        clocks: matches!(clocks, ClockPlan::Continue { .. }),
    });
    let enters_time = standby.is_some_and(|awakening| awakening.clocks);
    let spare = spare_fds(checkpoint, mapped_files.len(), seals_together, enters_time);
    let files_limit = raised_files_limit(spare, facts)?;
    // Room for as many stubs as any task needs.
    let waits = checkpoint
        .tasks
        .iter()
        .map(|task| task.threads.iter().filter(|thread| thread.wait.is_some()).count() as u64);
    let stubs_offset = facts.blob_bytes.next_multiple_of(STUB_BYTES as u64);
    let stubs_bytes = waits.max().unwrap_or(0) * STUB_BYTES as u64;
    let code_bytes = (stubs_offset + stubs_bytes).next_multiple_of(PAGE_BYTES);
    let file_wishes = files::FileWishes {
        inherit_stdio: wishes.stdio == Stdio::Inherit,
        ids: wishes.ids,
        realtime_ns: checkpoint.clocks.realtime_ns,
        first_parked: spare.first_parked,
    };
    let mut files = files::plan(checkpoint, &file_wishes);
    let mut tasks = Vec::with_capacity(checkpoint.tasks.len());
    for (index, mut space) in spaces.into_iter().enumerate() {
        // What the launcher has raised for itself is what it was before, unless the image has its own.
        let has_own = space.limits.iter().any(|limit| limit.resource == LIMIT_NOFILE);
        space.limits.extend(files_limit.filter(|_| !has_own));
        let file_steps = std::mem::take(&mut files.tasks[index]);
        let has_ended_children = births.iter().any(|birth| birth.ends_as_child_of(index));
        let before = Before {
            spare,
            code_bytes,
            stubs_offset,
            space,
            file_steps,
            has_ended_children,
            standby,
        };
        tasks.push(plan_task(checkpoint, index, facts, &wishes, before, &mut warnings)?);
    }
    // Members of a tree share most of what there is to be said.
    let mut said = BTreeSet::new();
    warnings.retain(|warning| said.insert(warning.clone()));
    Ok(RestorePlan {
        image_id: checkpoint.provenance.image_id,
        generation: checkpoint.provenance.generation,
        ids: wishes.ids,
        clocks,
        detach: wishes.detach,
        at_once: wishes.at_once && may_go_at_once(&wishes, several),
        standby,
        code_bytes,
        mapped_files,
        file_steps: files.shared,
        spare,
        clone3: facts.clone3,
        births,
        tasks,
        warnings,
    })
}

/// Whether an instance can be told to go before it is laid out. It must not live if we are killed
/// meanwhile: its init sees to that from the beginning, where it has one, and it itself only when it is
/// laid out. A tree goes when all of it is there, and who stands by when it is released.
fn may_go_at_once(wishes: &PlanWishes, several: bool) -> bool {
    wishes.ids == Ids::Keep && !wishes.detach && !several && !wishes.standby
}

/// A task's address space.
struct Space {
    decision: MemoryDecision,
    /// Operations that make its mappings.
    ops: Vec<PlanOp>,
    limits: Vec<Limit>,
    /// The limit under which to lock memory, if another is needed.
    locking: Option<Limit>,
}

fn plan_space(
    task: &Task,
    runs: &[PageRun],
    facts: &PlanFacts,
    (wishes, bridge, seals_together): (&PlanWishes, Option<vdso::Bridge<'_>>, bool),
    mapped: &mut memory::MappedFiles,
    warnings: &mut Vec<String>,
) -> Result<Space, PlanError> {
    let decision = lazy::decide(wishes.memory, task, facts.store_is_noexec);
    let mut limits = limits(task, facts, warnings);
    let locking = locks::plan(task, facts, &mut limits, warnings);
    let wishes = memory::MemoryWishes {
        lazy: decision.lazy,
        store_is_noexec: facts.store_is_noexec,
        bridge,
        lock: locking.is_some(),
        kernel: facts.memory,
        seals_together,
        restorer: wishes.restorer,
    };
    let ops = memory::plan(task, runs, wishes, mapped)?;
    Ok(Space { decision, ops, limits, locking: locking.flatten() })
}

/// How the vdso of the image leads to this kernel's, if that is another one.
fn bridge<'a>(
    checkpoint: &'a Checkpoint,
    task: &Task,
    facts: &'a PlanFacts,
) -> Result<Option<vdso::Bridge<'a>>, PlanError> {
    let Some(here) = &facts.other_vdso else { return Ok(None) };
    let place = free_place(task, VDSO_PLACE, here.span_bytes)?;
    Ok(Some(vdso::Bridge { image: &checkpoint.host.vdso, here, place }))
}

/// What is decided about a task before the rest.
struct Before {
    spare: SpareFds,
    code_bytes: u64,
    stubs_offset: u64,
    space: Space,
    file_steps: Vec<FileStep>,
    has_ended_children: bool,
    standby: Option<Awakening>,
}

fn plan_task(
    checkpoint: &Checkpoint,
    index: usize,
    facts: &PlanFacts,
    wishes: &PlanWishes,
    before: Before,
    warnings: &mut Vec<String>,
) -> Result<TaskPlan, PlanError> {
    let task = &checkpoint.tasks[index];
    let Before { spare, code_bytes, stubs_offset, file_steps, standby, .. } = before;
    let Space { decision, mut ops, limits, locking } = before.space;
    // The application that takes part is the main task.
    let coordination = checkpoint.coordination.as_ref().filter(|_| index == 0);
    let mailbox = if index == 0 { wishes.mailbox.clone() } else { Vec::new() };
    let credentials = credentials(task, facts, warnings)?;
    // In the exact modes the pages are the process's own already.
    let mut hot =
        if decision.lazy && index == 0 { memory::hot(task, &wishes.hot) } else { Vec::new() };
    if standby.is_some() {
        // There are no other threads yet that could have a part of it.
        standby::warm(&mut ops, std::mem::take(&mut hot));
    }
    // What an operation writes is far smaller than an operation.
    let writes = ops.iter().filter(|op| matches!(op, PlanOp::Write { .. })).count();
    let count = ops.len() + writes + hot.len();
    let file_ops = files::ops(checkpoint, index, wishes.ids, warnings);
    // The main task has listened itself, and as who it will be, unless it becomes another user.
    let listens = if credentials.identity.is_some() || index > 0 {
        files::listens(checkpoint, index)
    } else {
        Vec::new()
    };
    let mut timers = Vec::new();
    if standby.is_some() {
        standby::timers(&mut timers, checkpoint, task);
    }
    let data_bytes = lower::data_bytes_bound(
        task,
        count + timers.len() + listens.len(),
        file_ops.len(),
        mailbox.len(),
    );
    let blob = free_place(task, BLOB_PLACE, code_bytes + data_bytes)?;
    let around = [AddrRange::new(0, blob.start()), AddrRange::new(blob.end(), TASK_SIZE)];
    let clearing: Vec<_> = around.into_iter().flatten().map(PlanOp::Unmap).collect();
    ops.splice(0..0, locking.map(PlanOp::SetLimit));
    let programs = threads::plan(
        task,
        &threads::ThreadWishes {
            ids: wishes.ids,
            clearing: &clearing,
            memory: &ops,
            hot: &hot,
            mailbox: coordination.map(|coordination| coordination.mailbox),
            files: &file_ops,
            listens: &listens,
            executable: facts.set_executable && !task.exe_deleted,
            credentials: &credentials,
            limits: &limits,
            timer_ids: facts.timer_ids,
            parent_death_signal: parent_death_signal(task, wishes),
            has_ended_children: before.has_ended_children,
            standby,
            timers: &timers,
            spare,
        },
    );
    Ok(TaskPlan {
        pid: task.pid,
        memory: decision,
        blob,
        stubs_at: blob.start() + stubs_offset,
        file_steps,
        cwd: task.cwd.clone(),
        umask: task.umask,
        oom_score_adj: task.oom_score_adj,
        core_filter: task.controls.core_filter,
        exe: (!task.exe_deleted).then(|| task.exe.clone()),
        mm: task.mm.clone(),
        mailbox,
        threads: task.threads.clone(),
        programs,
    })
}

/// What a process is sent when its parent ends. With new ids the main one's parent is the restoring
/// command, which it does not outlive; or, detached, it outlives it, and its own wish must wait for
/// another parent.
fn parent_death_signal(task: &Task, wishes: &PlanWishes) -> i32 {
    const SIGKILL: i32 = 9;
    match (wishes.ids, wishes.detach) {
        (Ids::New, false) if task.parent.is_none() => SIGKILL,
        (Ids::New, true) if task.parent.is_none() => 0,
        _ => task.parent_death_signal,
    }
}

fn spare_fds(checkpoint: &Checkpoint, files: usize, meeting: bool, clocks: bool) -> SpareFds {
    let highest = checkpoint.tasks.iter().filter_map(|task| task.fds.last());
    let above = highest.map(|fd| fd.number.0).max().unwrap_or(2).max(2) + 1;
    let files = i32::try_from(files).unwrap_or(i32::MAX / 4);
    // A single task takes each description where it is opened.
    let several = checkpoint.tasks.len() > 1;
    let parked = if several { checkpoint.files.len() } else { 0 };
    let parked = i32::try_from(parked).unwrap_or(i32::MAX / 4);
    SpareFds {
        handshake: above,
        pages: above + 1,
        executable: above + 2,
        first_file: above + 3,
        first_parked: above + 3 + files,
        mapped: meeting.then_some(above + 3 + files + parked),
        // Only one task can be on standby, and one task meets nobody.
        clocks: clocks.then_some(above + 3 + files + parked),
        last: above + 2 + files + parked + if meeting || clocks { 2 } else { 0 },
    }
}

/// linux/resource.h: RLIMIT_NOFILE.
const LIMIT_NOFILE: u32 = 7;

/// Numbers above the spare ones that the launcher needs for moments, at least; and those that it had better have.
const NUMBERS_ABOVE_MIN: u64 = 5;
pub(crate) const NUMBERS_ABOVE: u64 = 16;

/// The limit of open files as it is here, where the launcher needs more.
fn raised_files_limit(spare: SpareFds, facts: &PlanFacts) -> Result<Option<Limit>, PlanError> {
    // linux/capability.h: CAP_SYS_RESOURCE.
    const SYS_RESOURCE: u64 = 1 << 24;
    let Some(here) = facts.limits.iter().find(|limit| limit.resource == LIMIT_NOFILE) else {
        return Ok(None);
    };
    let last = u64::try_from(spare.last).unwrap_or(0);
    let may_raise = !facts.user_namespace && facts.capabilities[0] & SYS_RESOURCE != 0;
    let needed = last + NUMBERS_ABOVE_MIN;
    if here.hard < needed && !may_raise {
        return Err(PlanError::Descriptors { needed, limit: here.hard });
    }
    Ok((here.soft < last + NUMBERS_ABOVE).then_some(*here))
}

fn clocks(
    checkpoint: &Checkpoint,
    facts: &PlanFacts,
    may_go_back: bool,
    warnings: &mut Vec<String>,
) -> Result<ClockPlan, PlanError> {
    let saved = checkpoint.clocks;
    if facts.time_namespace {
        return Ok(ClockPlan::Continue {
            monotonic_ns: saved.monotonic_ns,
            boottime_ns: saved.boottime_ns,
        });
    }
    let back_ns = (saved.monotonic_ns.saturating_sub(facts.monotonic_ns))
        .max(saved.boottime_ns.saturating_sub(facts.boottime_ns));
    let back_s = back_ns.div_ceil(1_000_000_000);
    warnings.push(match back_s {
        0 => "clocks jump forward: no time namespace can be had here".to_owned(),
        _ if may_go_back => {
            format!("clocks go back by {back_s} s: what waits may wait as much longer")
        }
        _ => return Err(PlanError::ClockBackwards { seconds: back_s }),
    });
    Ok(ClockPlan::Jump)
}

/// As many timers are made in a few milliseconds.
const TIMER_ID_MAX: i32 = 4096;
