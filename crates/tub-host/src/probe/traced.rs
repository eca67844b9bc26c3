//! What may be done with other processes of the same user.
//!
//! In: helpers that wait. Out: probes. Invariant: whoever was stopped goes on, and ends.

use super::helper::{self, Helper};
use super::{CHECKPOINT, NOTHING, Probe, said, tried};
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use tub_units::{AddrRange, HostPid, PAGE_BYTES, RemoteAddr};

const NOT_STOPPED: &str = "no process could be stopped";

/// Everything that takes another process.
pub(super) fn probes(helper: &Helper<'_>) -> Vec<Probe> {
    let mut inside = Inside::default();
    let child = helper.with_waiting(|pid| stopped(pid, || inside = Inside::look(pid)));
    let child = child.and_then(|traced| traced);
    let stranger = helper.with_orphan(|pid| stopped(pid, || ())).and_then(|traced| traced);
    let mut found = vec![
        tried(
            "tracing of a child",
            child,
            "no checkpoint can be taken (PTRACE_SEIZE); restores need no tracing",
            CHECKPOINT,
        ),
        tried(
            "tracing of other processes of this user",
            stranger,
            "only processes that allow it can be checkpointed, as those of `tub run` do \
             (PR_SET_PTRACER, Yama), or by root",
            NOTHING,
        ),
    ];
    found.extend(inside.probes());
    found
}

/// Stops `pid`, acts, and lets it go.
fn stopped(pid: Pid, act: impl FnOnce()) -> Result<(), String> {
    let failed = |call: &'static str| move |errno: Errno| format!("{call}: {errno}");
    ptrace::seize(pid, ptrace::Options::empty()).map_err(failed("PTRACE_SEIZE"))?;
    ptrace::interrupt(pid).map_err(failed("PTRACE_INTERRUPT"))?;
    waitpid(pid, Some(WaitPidFlag::__WALL)).map_err(failed("waitpid"))?;
    act();
    ptrace::detach(pid, None).map_err(failed("PTRACE_DETACH"))
}

type Outcome = Result<(), String>;

/// What a stopped process let itself be asked.
struct Inside {
    xstate: Outcome,
    rseq: Outcome,
    robust_list: Outcome,
    vm_read: Outcome,
    memory_read: Outcome,
    memory_written: Outcome,
    page_scan: Outcome,
    kcmp: Outcome,
    getfd: Outcome,
    links: Outcome,
}

impl Default for Inside {
    fn default() -> Self {
        let not = || Err(NOT_STOPPED.to_owned());
        Self {
            xstate: not(),
            rseq: not(),
            robust_list: not(),
            vm_read: not(),
            memory_read: not(),
            memory_written: not(),
            page_scan: not(),
            kcmp: not(),
            getfd: not(),
            links: not(),
        }
    }
}

impl Inside {
    fn look(pid: Pid) -> Self {
        let tid = HostPid(pid.as_raw());
        let stack = stack_of(tid);
        let page = |at: &Result<AddrRange, String>| at.clone().map(AddrRange::start);
        let memory = |write: bool| {
            let path = format!("/proc/{tid}/mem");
            File::options().read(true).write(write).open(path).map_err(|error| error.to_string())
        };
        let mut word = [0u8; 8];
        Self {
            xstate: said(tub_sys::ptrace_xstate(tid)),
            rseq: said(tub_sys::ptrace_rseq(tid)),
            robust_list: said(tub_sys::get_robust_list(tid)),
            vm_read: page(&stack)
                .and_then(|at| said(tub_sys::process_vm_read(tid, RemoteAddr(at), &mut [0u8; 8]))),
            memory_read: page(&stack).and_then(|at| {
                let read = memory(false)?.read_exact_at(&mut word, at);
                read.map_err(|error| error.to_string())
            }),
            // The same bytes again: the process would not notice.
            memory_written: page(&stack).and_then(|at| {
                let memory = memory(true)?;
                let mut word = [0u8; 8];
                let copied = memory.read_exact_at(&mut word, at);
                let copied = copied.and_then(|()| memory.write_all_at(&word, at));
                copied.map_err(|error| error.to_string())
            }),
            page_scan: stack.and_then(|range| {
                let pagemap = File::open(format!("/proc/{tid}/pagemap"));
                let pagemap = pagemap.map_err(|error| error.to_string())?;
                said(tub_sys::pagemap_scan(pagemap.as_fd(), range, tub_sys::PAGE_IS_FILE))
            }),
            kcmp: said(tub_sys::same_description((tid, 0), (tid, 0))),
            getfd: said(tub_sys::duplicate_of(tid, 0)),
            links: std::fs::read_link(format!("/proc/{tid}/fd/0"))
                .map(drop)
                .map_err(|error| error.to_string()),
        }
    }

    fn probes(self) -> [Probe; 10] {
        [
            tried(
                "registers with extended state",
                self.xstate,
                "no checkpoint can be taken (NT_X86_XSTATE)",
                CHECKPOINT,
            ),
            tried(
                "restartable sequences",
                self.rseq,
                "programs with glibc 2.35 or later cannot be checkpointed (Linux 5.13 or later)",
                CHECKPOINT,
            ),
            tried(
                "robust futex lists",
                self.robust_list,
                "no checkpoint can be taken (get_robust_list)",
                CHECKPOINT,
            ),
            tried(
                "reading memory by process_vm_readv",
                self.vm_read,
                "memory is read through /proc/PID/mem, which is slower",
                NOTHING,
            ),
            tried(
                "reading memory by /proc/PID/mem",
                self.memory_read,
                "no checkpoint can be taken: pages without the right to read cannot be had",
                CHECKPOINT,
            ),
            tried(
                "writing memory by /proc/PID/mem",
                self.memory_written,
                "no checkpoint can be taken: the application cannot be told what came of it",
                CHECKPOINT,
            ),
            tried(
                "scan of page tables",
                self.page_scan,
                "no checkpoint can be taken: Linux 6.7 or later is needed (PAGEMAP_SCAN)",
                CHECKPOINT,
            ),
            tried(
                "links of descriptors",
                self.links,
                "no checkpoint can be taken: open files cannot be told",
                CHECKPOINT,
            ),
            tried(
                "comparison of descriptors",
                self.kcmp,
                "descriptors that share an open file are told apart by asking the process itself \
                 (kcmp)",
                NOTHING,
            ),
            tried(
                "duplicates of descriptors",
                self.getfd,
                "what only a duplicate would tell of a descriptor is asked of the process itself \
                 (pidfd_getfd)",
                NOTHING,
            ),
        ]
    }
}

/// The page that a process's stack pointer was in when it started.
fn stack_of(pid: HostPid) -> Result<AddrRange, String> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read(&path).map_err(|error| format!("{path}: {error}"))?;
    let stat = tub_procfs::stat::parse(&stat).map_err(|error| format!("{path}: {error}"))?;
    let start = stat.start_stack / PAGE_BYTES * PAGE_BYTES;
    AddrRange::with_len(start, PAGE_BYTES).ok_or_else(|| helper::NO_STACK.to_owned())
}
