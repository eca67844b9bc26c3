//! Whether the parts of an image fit together.
//!
//! In: a checkpoint, its runs, and the length of `pages.tub`. Out: nothing, or what cannot be.
//! Invariant: what passes here can be planned without a second look at indices, order or bounds.
//! The same check guards both ends: the writer refuses to finish what the reader would refuse.
//! Not here: whether single values can be (`bounds`), and whether the host fits (`tub-host`).

use crate::bounds;
use crate::pages::PageRun;
use std::collections::BTreeSet;
use tub_model::{
    Backing, Checkpoint, FileKind, FileLock, MemoryFile, MemoryFileKind, OpenFile, Task, Thread,
    Vma,
};
use tub_units::{AddrRange, NsPid, PAGE_BYTES};

/// Checks everything; the first thing that cannot be comes back as a sentence.
pub(crate) fn check(
    checkpoint: &Checkpoint,
    runs: &[Vec<PageRun>],
    pages_bytes: u64,
) -> Result<(), String> {
    check_tree(checkpoint)?;
    let spaces = checkpoint.tasks.len() + checkpoint.memory_files.len();
    if runs.len() != spaces {
        return Err(format!("{spaces} tasks and memory files, and pages of {}", runs.len()));
    }
    if let Some(coordination) = &checkpoint.coordination {
        let mailbox = coordination.mailbox;
        if !mailbox.is_page_aligned() || mailbox.is_empty() {
            return Err(format!("mailbox {mailbox} is not made of pages"));
        }
    }
    check_files(&checkpoint.files, checkpoint.memory_files.len())?;
    let (task_runs, file_runs) = runs.split_at(checkpoint.tasks.len());
    for (file, runs) in checkpoint.memory_files.iter().zip(file_runs) {
        check_memory_file(file, runs, pages_bytes)?;
    }
    let mut tids = BTreeSet::new();
    for (task, runs) in checkpoint.tasks.iter().zip(task_runs) {
        check_threads(&task.threads, task.pid.0, &mut tids)?;
        check_fds(task, checkpoint.files.len())?;
        check_vmas(&task.vmas, checkpoint.memory_files.len())?;
        check_runs(task.vmas.iter().flat_map(|vma| &vma.saved), runs, pages_bytes)?;
        check_files_are_covered(&task.vmas, runs)?;
    }
    for zombie in &checkpoint.zombies {
        check_tid(zombie.pid.0, &mut tids)?;
        check_name(zombie.pid.0, &zombie.name)?;
    }
    check_pidfds(checkpoint)?;
    bounds::check(checkpoint)
}

fn check_pidfds(checkpoint: &Checkpoint) -> Result<(), String> {
    let tasks = checkpoint.tasks.iter().map(|task| task.pid);
    let pids: Vec<NsPid> = tasks.chain(checkpoint.zombies.iter().map(|one| one.pid)).collect();
    let mut named = checkpoint.files.iter().filter_map(|file| match file.kind {
        FileKind::PidFd { of } => of,
        _ => None,
    });
    match named.find(|pid| !pids.contains(pid)) {
        Some(pid) => Err(format!("a pidfd names process {pid}, which there is not")),
        None => Ok(()),
    }
}

/// Each task after its parent, and one that has none: what comes first is the main task.
fn check_tree(checkpoint: &Checkpoint) -> Result<(), String> {
    let Some(main) = checkpoint.tasks.first() else {
        return Err("there is no task".into());
    };
    if main.parent.is_some() {
        return Err("the main task has a parent".into());
    }
    for (index, task) in checkpoint.tasks.iter().enumerate().skip(1) {
        if task.parent.is_none_or(|parent| parent >= index) {
            return Err(format!("process {} does not come after a parent", task.pid));
        }
    }
    match checkpoint.zombies.iter().find(|zombie| zombie.parent >= checkpoint.tasks.len()) {
        Some(zombie) => Err(format!("zombie {} has no parent", zombie.pid)),
        None => Ok(()),
    }
}

fn check_files(files: &[OpenFile], memory_files: usize) -> Result<(), String> {
    // Positions are signed in every call that takes a lock.
    let fits = |lock: &FileLock| {
        let last = lock.end.unwrap_or(lock.start);
        lock.start <= last && last < i64::MAX.cast_unsigned()
    };
    for file in files {
        if !file.locks.iter().all(fits) {
            return Err("a file lock has an impossible range".to_owned());
        }
        match &file.kind {
            FileKind::Memory { file, .. } if *file >= memory_files => {
                return Err(format!("a description is of memory file {file} of {memory_files}"));
            }
            FileKind::Epoll { targets } => {
                if let Some(target) = targets.iter().find(|target| target.file >= files.len()) {
                    let (index, count) = (target.file, files.len());
                    return Err(format!("an epoll set watches file {index} of {count}"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_threads(threads: &[Thread], pid: i32, tids: &mut BTreeSet<i32>) -> Result<(), String> {
    match threads.first() {
        None => return Err("there is no thread".into()),
        Some(main) if main.tid.0 != pid => {
            return Err(format!("the main thread is {}, and the process {pid}", main.tid));
        }
        Some(_) => {}
    }
    for thread in threads {
        check_tid(thread.tid.0, tids)?;
        check_name(thread.tid.0, &thread.name)?;
        let length = thread.registers.xsave.len();
        if !(XSAVE_BYTES_MIN..=XSAVE_BYTES_MAX).contains(&length) {
            return Err(format!("xsave area of thread {} has {length} bytes", thread.tid));
        }
        if thread.wait.is_some_and(|wait| wait.register as usize >= thread.registers.general.len())
        {
            return Err(format!("thread {} waits by a register that there is not", thread.tid));
        }
        if thread.scheduling.affinity.len() > AFFINITY_WORDS_MAX {
            return Err(format!("thread {} has an affinity to too many processors", thread.tid));
        }
    }
    Ok(())
}

/// KERNEL(since 2.6): `linux/threads.h`, PID_MAX_LIMIT.
const PID_MAX: i32 = 4 << 20;

/// Ids of threads differ across processes, too.
fn check_tid(tid: i32, tids: &mut BTreeSet<i32>) -> Result<(), String> {
    if !(1..=PID_MAX).contains(&tid) {
        return Err(format!("{tid} is no thread id"));
    }
    if tids.insert(tid) { Ok(()) } else { Err(format!("two threads have the id {tid}")) }
}

fn check_name(tid: i32, name: &str) -> Result<(), String> {
    if name.len() > COMM_BYTES_MAX || name.contains('\0') {
        return Err(format!("thread {tid} has the impossible name {name:?}"));
    }
    Ok(())
}

/// The legacy area and the header: Intel SDM vol. 1, 13.4.
const XSAVE_BYTES_MIN: usize = 512 + 64;

/// Far above what any processor has (AMX: about 11 KB), far below what would harm.
const XSAVE_BYTES_MAX: usize = 64 << 10;

/// KERNEL(since 2.6): `linux/sched.h`, TASK_COMM_LEN, without the final NUL.
const COMM_BYTES_MAX: usize = 15;

/// KERNEL: CONFIG_NR_CPUS is at most 8192 on every architecture.
const AFFINITY_WORDS_MAX: usize = 128;
/// No limit allows this many (KERNEL: fs/file.c, `sysctl_nr_open`, 2^20 by default), and the
/// launcher needs some numbers above.
const FD_MAX: i32 = 1 << 30;

fn check_fds(task: &Task, files: usize) -> Result<(), String> {
    let mut previous = -1;
    for fd in &task.fds {
        if fd.number.0 <= previous {
            return Err(format!("descriptor {} follows {previous}", fd.number));
        }
        previous = fd.number.0;
        if previous >= FD_MAX {
            return Err(format!("descriptor {} is beyond any table", fd.number));
        }
        if fd.file >= files {
            return Err(format!("descriptor {} is file {} of {files}", fd.number, fd.file));
        }
    }
    Ok(())
}

/// `memfd_create(2)`: 249 bytes, and a path has fewer than 4096 (`PATH_MAX`).
const MEMFD_NAME_BYTES_MAX: usize = 249;

fn check_memory_file(file: &MemoryFile, runs: &[PageRun], pages_bytes: u64) -> Result<(), String> {
    match &file.kind {
        MemoryFileKind::Memfd { name }
            if name.len() > MEMFD_NAME_BYTES_MAX || name.contains('\0') =>
        {
            return Err(format!("memory file has the impossible name {name:?}"));
        }
        MemoryFileKind::Deleted { path } => bounds::check_path(path)?,
        MemoryFileKind::Memfd { .. } | MemoryFileKind::SharedAnonymous => {}
    }
    let what = || file.kind.describe();
    if i64::try_from(file.size_bytes).is_err() || file.mode > 0o7777 {
        return Err(format!("{} has {} bytes and mode {:o}", what(), file.size_bytes, file.mode));
    }
    let mut end = 0;
    for pages in &file.saved {
        check_next("saved range", *pages, end)?;
        end = pages.end();
    }
    if end > file.size_bytes.next_multiple_of(PAGE_BYTES) {
        return Err(format!("saved range up to {end:x} leaves {}", what()));
    }
    check_runs(file.saved.iter(), runs, pages_bytes)
}

fn check_vmas(vmas: &[Vma], memory_files: usize) -> Result<(), String> {
    let mut end = 0;
    for Vma { range, saved, guards, backing, .. } in vmas {
        check_next("mapping", *range, end)?;
        if range.end() > bounds::USER_END {
            return Err(format!("mapping {range} lies beyond user addresses"));
        }
        end = range.end();
        let mut saved_end = range.start();
        for pages in saved {
            check_next("saved range", *pages, saved_end)?;
            saved_end = pages.end();
        }
        if saved_end > range.end() {
            return Err(format!("saved range up to {saved_end:x} leaves its mapping {range}"));
        }
        let mut guards_end = range.start();
        for pages in guards {
            check_next("guard", *pages, guards_end)?;
            guards_end = pages.end();
            // Guards are few where saved ranges are many, and the reverse.
            if saved.iter().any(|saved| saved.overlaps(*pages)) {
                return Err(format!("guard {pages} is saved"));
            }
        }
        if guards_end > range.end() {
            return Err(format!("guard up to {guards_end:x} leaves its mapping {range}"));
        }
        if let Backing::MemoryFile { file, .. } = backing
            && *file >= memory_files
        {
            return Err(format!("mapping {range} is of memory file {file} of {memory_files}"));
        }
        if let Backing::PrivateFile { offset_bytes, .. }
        | Backing::SharedFile { offset_bytes, .. }
        | Backing::MemoryFile { offset_bytes, .. } = backing
        {
            // `mmap` takes whole pages, and a file ends where a signed offset does.
            let file_end = offset_bytes.checked_add(range.len());
            if !offset_bytes.is_multiple_of(PAGE_BYTES)
                || file_end.is_none_or(|end| end > i64::MAX.cast_unsigned())
            {
                return Err(format!(
                    "mapping {range} starts at the impossible offset {offset_bytes}"
                ));
            }
        }
    }
    Ok(())
}

fn check_next(what: &str, range: AddrRange, end: u64) -> Result<(), String> {
    if !range.is_page_aligned() || range.is_empty() {
        return Err(format!("{what} {range} is not made of pages"));
    }
    if range.start() < end {
        return Err(format!("{what} {range} is out of order: the one before ends at {end:x}"));
    }
    Ok(())
}

fn check_runs<'a>(
    saved: impl Iterator<Item = &'a AddrRange>,
    runs: &[PageRun],
    pages_bytes: u64,
) -> Result<(), String> {
    let mut end = 0;
    let mut saved = saved.peekable();
    for run in runs {
        let range = run.range;
        check_next("run", range, end)?;
        end = range.end();
        let run_end = run.offset_bytes.checked_add(range.len());
        if !run.offset_bytes.is_multiple_of(PAGE_BYTES)
            || run_end.is_none_or(|run_end| run_end > pages_bytes)
        {
            let offset = run.offset_bytes;
            return Err(format!("run {range} at offset {offset} leaves the {pages_bytes} bytes"));
        }
        // Both lists ascend, so one pass over the saved ranges serves all runs.
        while saved.next_if(|pages| pages.end() <= range.start()).is_some() {}
        if !saved.peek().is_some_and(|pages| pages.covers(range)) {
            return Err(format!("run {range} is not within a saved range"));
        }
    }
    Ok(())
}

/// A saved page of a private file mapping that is in no run would silently be the file's again;
/// of anonymous memory it is a zero, which is how zeros are stored.
fn check_files_are_covered(vmas: &[Vma], runs: &[PageRun]) -> Result<(), String> {
    let mut runs = runs.iter().peekable();
    for vma in vmas {
        for pages in &vma.saved {
            while runs.next_if(|run| run.range.end() <= pages.start()).is_some() {}
            let mut covered = pages.start();
            while let Some(run) = runs.peek().filter(|run| run.range.start() == covered) {
                covered = run.range.end();
                if covered >= pages.end() {
                    break;
                }
                runs.next();
            }
            let of_file = match vma.backing {
                Backing::PrivateFile { .. } => true,
                Backing::MemoryFile { shared, .. } => !shared,
                _ => false,
            };
            if covered < pages.end() && of_file {
                return Err(format!("saved pages {pages} of a private file mapping are missing"));
            }
        }
    }
    Ok(())
}
