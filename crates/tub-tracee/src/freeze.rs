//! Stopping every thread of a process at once.
//!
//! In: a pid. Out: [`Frozen`]. Invariant: a thread in `threads` is in a ptrace stop from which
//! detaching lets it continue exactly where it was, interrupted system calls included.
//! Not here: calls made by the held process itself (see [`crate::RemoteCalls`]).

use crate::wait::{has_died, settle};
use crate::{CallSite, Error, RemoteCalls, Result, WayHome};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};
use tub_sys::{Errno, RawRseqConfiguration};
use tub_units::{HostPid, RemoteAddr};

/// `linux/ptrace.h`: the event of a stop that PTRACE_INTERRUPT asked for.
pub(crate) const PTRACE_EVENT_STOP: i32 = 128;

/// How long a thread may take to stop. Threads in disk sleep stop when their I/O is done.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long threads that were asked to stop may take until they can be let go.
const LET_GO_TIMEOUT: Duration = Duration::from_secs(1);

/// A process all of whose threads are stopped.
#[derive(Debug)]
pub struct Frozen {
    pid: HostPid,
    threads: Vec<StoppedThread>,
    /// The signal of job control that had stopped it before.
    stopped_by: Option<i32>,
    memory: File,
}

/// A thread in a ptrace stop.
#[derive(Clone, Copy, Debug)]
pub struct StoppedThread {
    tid: HostPid,
}

impl Frozen {
    /// Stops all threads of `pid`, those included that appear meanwhile.
    ///
    /// All are asked to stop first and waited for then: one by one, a busy process of 300 threads
    /// takes a hundred times as long.
    ///
    /// # Errors
    ///
    /// In every case the threads stopped so far are let go again.
    pub fn freeze(pid: HostPid) -> Result<Self> {
        let path = format!("/proc/{pid}/mem");
        let memory = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|source| Error::Proc { path, source })?;
        let mut frozen = Self { pid, threads: Vec::new(), stopped_by: None, memory };
        let mut known = BTreeSet::new();
        loop {
            let fresh: Vec<HostPid> =
                thread_ids(pid)?.into_iter().filter(|tid| !known.contains(tid)).collect();
            if fresh.is_empty() {
                break;
            }
            let mut waiting = Vec::new();
            for tid in fresh {
                known.insert(tid);
                match ptrace::seize(raw(tid), ptrace::Options::PTRACE_O_TRACESYSGOOD) {
                    Ok(()) => {}
                    // It ended between the listing and now.
                    Err(Errno::ESRCH) if tid != pid => continue,
                    Err(source) => return Err(Error::Attach { tid, source }),
                }
                frozen.threads.push(StoppedThread { tid });
                match ptrace::interrupt(raw(tid)) {
                    Ok(()) | Err(Errno::ESRCH) => waiting.push(tid),
                    Err(source) => return Err(Error::Attach { tid, source }),
                }
            }
            frozen.wait_for_stops(waiting)?;
        }
        frozen.threads.sort_by_key(|thread| (thread.tid != pid, thread.tid));
        Ok(frozen)
    }

    fn wait_for_stops(&mut self, mut waiting: Vec<HostPid>) -> Result<()> {
        let start = Instant::now();
        while !waiting.is_empty() {
            let mut still = Vec::new();
            for tid in waiting {
                if !self.stopped_now(tid)? {
                    still.push(tid);
                }
            }
            waiting = still;
            if let Some(&tid) = waiting.first() {
                if start.elapsed() > STOP_TIMEOUT {
                    return Err(Error::NotStopping { tid, waited: STOP_TIMEOUT });
                }
                // None that stands still can end but by SIGKILL, which ends all.
                let stopped = self.threads.iter().find(|thread| !waiting.contains(&thread.tid));
                if stopped.is_some_and(|thread| has_died(*thread)) {
                    return Err(Error::Died { pid: self.pid });
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        Ok(())
    }

    /// Whether `tid` is no longer to be waited for: stopped, or gone.
    fn stopped_now(&mut self, tid: HostPid) -> Result<bool> {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
        match waitpid(raw(tid), Some(flags)) {
            Ok(WaitStatus::StillAlive) => Ok(false),
            Ok(WaitStatus::PtraceEvent(_, Signal::SIGTRAP, PTRACE_EVENT_STOP)) => Ok(true),
            // KERNEL(since 3.4): the same stop, with the signal that has stopped the process
            // (do_jobctl_trap, kernel/signal.c). When we let go, it stays stopped.
            Ok(WaitStatus::PtraceEvent(_, signal, PTRACE_EVENT_STOP)) => {
                self.stopped_by = Some(signal as i32);
                Ok(true)
            }
            // A signal came first: let it be delivered; the stop asked for follows before the
            // handler's first instruction.
            Ok(WaitStatus::Stopped(_, signal)) => {
                let _ = ptrace::cont(raw(tid), signal);
                Ok(false)
            }
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(Errno::ECHILD) => {
                self.threads.retain(|thread| thread.tid != tid);
                if tid == self.pid { Err(Error::Died { pid: self.pid }) } else { Ok(true) }
            }
            Ok(_) => {
                let _ = ptrace::cont(raw(tid), None);
                Ok(false)
            }
            Err(source) => Err(Error::Attach { tid, source }),
        }
    }

    /// The process.
    pub fn pid(&self) -> HostPid {
        self.pid
    }

    /// The signal that had stopped it before (SIGSTOP, Ctrl-Z), if one had.
    pub fn stopped_by(&self) -> Option<i32> {
        self.stopped_by
    }

    /// Its threads, the main one first, the others by id.
    pub fn threads(&self) -> &[StoppedThread] {
        &self.threads
    }

    /// Copies memory of the process to `to`, whatever its protection.
    pub fn read(&self, from: RemoteAddr, to: &mut [u8]) -> Result<()> {
        let mut done = 0;
        // The quick way copies page to page, but obeys the protection; the other one does not.
        while done < to.len() {
            let at = RemoteAddr(from.0 + done as u64);
            match tub_sys::process_vm_read(self.pid, at, &mut to[done..]) {
                Ok(bytes) if bytes > 0 => done += bytes,
                _ => {
                    // Up to the end of this page, then the quick way again.
                    let room = 4096 - (at.0 % 4096) as usize;
                    let end = to.len().min(done + room);
                    self.memory.read_exact_at(&mut to[done..end], at.0).map_err(|source| {
                        Error::Memory { what: "read", pid: self.pid, address: at, source }
                    })?;
                    done = end;
                }
            }
        }
        Ok(())
    }

    /// One word of its memory.
    pub fn read_u64(&self, from: RemoteAddr) -> Result<u64> {
        let mut word = [0u8; 8];
        self.read(from, &mut word)?;
        Ok(u64::from_ne_bytes(word))
    }

    /// Writes to its memory, whatever its protection.
    pub fn write(&self, to: RemoteAddr, bytes: &[u8]) -> Result<()> {
        self.memory.write_all_at(bytes, to.0).map_err(|source| Error::Memory {
            what: "written",
            pid: self.pid,
            address: to,
            source,
        })
    }

    /// Lets `thread` make system calls for us.
    pub fn remote(
        &self,
        thread: StoppedThread,
        site: CallSite,
        way_home: Option<WayHome>,
    ) -> Result<RemoteCalls<'_>> {
        RemoteCalls::begin(self, thread, site, way_home)
    }

    /// Lets every thread go on where it was.
    pub fn thaw(self) {
        drop(self);
    }

    /// Whether it is the init of the PID namespace that we live in: of a container, most often.
    pub(crate) const fn is_our_init(&self) -> bool {
        self.pid.0 == 1
    }

    /// Has it end when the calling thread does, and not run before.
    ///
    /// KERNEL: what an init has no handler for is not sent to it from within its namespace, SIGKILL
    /// included (pid_namespaces(7)). What the kernel itself sends arrives, as this does (exit_ptrace,
    /// kernel/ptrace.c).
    pub(crate) fn end_with_us(mut self) -> std::result::Result<(), Errno> {
        let options = ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_EXITKILL;
        ptrace::setoptions(raw(self.pid), options)?;
        // Nobody lets them go.
        self.threads.clear();
        Ok(())
    }

    /// Reaps, after it was killed, what only we, the tracer, can: the zombie threads of a traced
    /// process. Answers whether it has ended.
    pub(crate) fn reap(mut self) -> bool {
        // Should one of them still be there, letting it go is all that can be done.
        self.threads = settle(std::mem::take(&mut self.threads), STOP_TIMEOUT, |_, _| false);
        self.threads.is_empty()
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let mut left = std::mem::take(&mut self.threads);
        left.retain(|thread| ptrace::detach(raw(thread.tid), None).is_err());
        // Not stopped yet (an error on the way): stopped, then let go. Or killed: reaped.
        settle(left, LET_GO_TIMEOUT, |status, thread| {
            let signal = match status {
                WaitStatus::StillAlive => return false,
                WaitStatus::Stopped(_, signal) => Some(signal),
                _ => None,
            };
            let _ = ptrace::detach(raw(thread.tid), signal);
            true
        });
    }
}

impl StoppedThread {
    /// Its id.
    pub fn tid(self) -> HostPid {
        self.tid
    }

    /// `struct user_regs_struct`, 27 words in the order of `sys/user.h`.
    pub fn registers(self) -> Result<[u64; 27]> {
        let regs = ptrace::getregs(raw(self.tid)).map_err(|e| self.failed("registers", e))?;
        Ok(crate::remote::words(&regs))
    }

    /// The uncompacted xsave area.
    pub fn xsave(self) -> Result<Vec<u8>> {
        tub_sys::ptrace_xstate(self.tid).map_err(|e| self.failed("floating-point state", e))
    }

    /// Blocked signals.
    pub fn signal_mask(self) -> Result<u64> {
        tub_sys::ptrace_signal_mask(self.tid).map_err(|e| self.failed("signal mask", e))
    }

    /// Signals pending for the thread, or for its whole process.
    pub fn pending_signals(self, shared: bool) -> Result<Vec<[u8; 128]>> {
        tub_sys::ptrace_pending_signals(self.tid, shared)
            .map_err(|e| self.failed("pending signals", e))
    }

    /// Registration for restartable sequences; none on kernels before 5.13.
    pub fn rseq(self) -> Result<Option<RawRseqConfiguration>> {
        match tub_sys::ptrace_rseq(self.tid) {
            Ok(conf) if conf.address == 0 => Ok(None),
            Ok(conf) => Ok(Some(conf)),
            Err(Errno::EIO) => Ok(None),
            Err(errno) => Err(self.failed("rseq registration", errno)),
        }
    }

    /// Whether it is given system calls of its own, which then are none; `false` on kernels before 6.4,
    /// which do not tell.
    pub fn has_user_dispatch(self) -> Result<bool> {
        match tub_sys::ptrace_has_user_dispatch(self.tid) {
            Err(Errno::EIO) => Ok(false),
            asked => asked.map_err(|errno| self.failed("system call user dispatch", errno)),
        }
    }

    /// Head and length of the robust futex list.
    pub fn robust_list(self) -> Result<(u64, u64)> {
        tub_sys::get_robust_list(self.tid).map_err(|e| self.failed("robust futex list", e))
    }

    pub(crate) fn failed(self, what: &'static str, source: Errno) -> Error {
        if source == Errno::ESRCH {
            return Error::Died { pid: self.tid };
        }
        Error::Request { what, tid: self.tid, source }
    }
}

pub(crate) fn raw(pid: HostPid) -> Pid {
    Pid::from_raw(pid.0)
}

fn thread_ids(pid: HostPid) -> Result<Vec<HostPid>> {
    let path = format!("/proc/{pid}/task");
    let listing = match std::fs::read_dir(&path) {
        Ok(listing) => listing,
        Err(source) => return Err(Error::Proc { path, source }),
    };
    let names = listing.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(names.map(HostPid).collect())
}
