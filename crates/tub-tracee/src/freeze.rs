//! Stopping every thread of a process at once.
//!
//! In: a pid. Out: [`Frozen`]. Invariant: a thread in `threads` is in a ptrace stop from which
//! detaching lets it continue exactly where it was, interrupted system calls included.
//! Not here: calls made by the held process itself (see [`crate::RemoteCalls`]).

use crate::wait::{has_died, settle};
use crate::{CallSite, Error, RemoteCalls, Result, WayHome};
use nix::sys::ptrace;
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};
use tub_sys::{Errno, GoOn, RawRseqConfiguration, TraceeChange, ptrace_go_on, wait_for_tracee};
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
    /// Those of them that were asked to stop, and that nobody has seen in that stop.
    asked: Vec<HostPid>,
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
        let mut frozen =
            Self { pid, threads: Vec::new(), asked: Vec::new(), stopped_by: None, memory };
        let mut known = BTreeSet::new();
        loop {
            let fresh: Vec<HostPid> =
                thread_ids(pid)?.into_iter().filter(|tid| !known.contains(tid)).collect();
            if fresh.is_empty() {
                break;
            }
            for tid in fresh {
                known.insert(tid);
                match ptrace::seize(raw(tid), ptrace::Options::PTRACE_O_TRACESYSGOOD) {
                    Ok(()) => {}
                    // It ended between the listing and now.
                    Err(Errno::ESRCH) if tid != pid => continue,
                    // KERNEL: or it is about to be forgotten (ptrace_attach, kernel/ptrace.c: exit_state).
                    Err(Errno::EPERM) if tid != pid && has_ended(pid, tid) => continue,
                    Err(source) => return Err(Error::Attach { tid, source }),
                }
                frozen.threads.push(StoppedThread { tid });
                frozen.asked.push(tid);
                match ptrace::interrupt(raw(tid)) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(source) => return Err(Error::Attach { tid, source }),
                }
            }
            frozen.wait_for_stops()?;
        }
        frozen.threads.sort_by_key(|thread| (thread.tid != pid, thread.tid));
        Ok(frozen)
    }

    fn wait_for_stops(&mut self) -> Result<()> {
        let start = Instant::now();
        while !self.asked.is_empty() {
            for tid in self.asked.clone() {
                if self.stopped_now(tid)? {
                    self.asked.retain(|asked| *asked != tid);
                }
            }
            if let Some(&tid) = self.asked.first() {
                if start.elapsed() > STOP_TIMEOUT {
                    return Err(Error::NotStopping { tid, waited: STOP_TIMEOUT });
                }
                // None that stands still can end but by SIGKILL, which ends all.
                let stopped = self.threads.iter().find(|thread| !self.asked.contains(&thread.tid));
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
        let signal = match wait_for_tracee(tid, libc::WNOHANG) {
            Ok(None) => return Ok(false),
            Ok(Some(TraceeChange::EventStop { event: PTRACE_EVENT_STOP, signal })) => {
                // KERNEL(since 3.4): any other signal is the one that has stopped the process
                // (do_jobctl_trap, kernel/signal.c). When we let go, it stays stopped.
                if signal != libc::SIGTRAP {
                    self.stopped_by = Some(signal);
                }
                return Ok(true);
            }
            Ok(Some(TraceeChange::Ended(_))) | Err(Errno::ECHILD) => {
                self.threads.retain(|thread| thread.tid != tid);
                let is_main = tid == self.pid;
                return if is_main { Err(Error::Died { pid: self.pid }) } else { Ok(true) };
            }
            // A signal came first: let it be delivered; the stop asked for follows before the
            // handler's first instruction.
            Ok(Some(TraceeChange::SignalStop(signal))) => signal,
            Ok(Some(TraceeChange::SyscallStop | TraceeChange::EventStop { .. })) => 0,
            Ok(Some(TraceeChange::Other)) => return Ok(false),
            Err(source) => return Err(Error::Attach { tid, source }),
        };
        // KERNEL: any stop takes back what was asked for before it (ptrace_stop, kernel/signal.c). Where
        // these fail, it has been killed, which is told next.
        let _ = ptrace::interrupt(raw(tid));
        let _ = ptrace_go_on(tid, GoOn::Traced, signal);
        Ok(false)
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
        // What nobody has looked at may be the stop of a signal, which would be lost.
        left.retain(|&StoppedThread { tid }| {
            self.asked.contains(&tid) || ptrace_go_on(tid, GoOn::Alone, 0).is_err()
        });
        for thread in &left {
            let _ = ptrace::interrupt(raw(thread.tid));
        }
        // Not stopped yet (an error on the way): stopped, then let go. Or killed: reaped.
        settle(left, LET_GO_TIMEOUT, |change, thread| {
            let signal = if let TraceeChange::SignalStop(signal) = change { signal } else { 0 };
            let _ = ptrace_go_on(thread.tid, GoOn::Alone, signal);
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

/// Whether a thread has nothing more to run.
fn has_ended(pid: HostPid, tid: HostPid) -> bool {
    let Ok(bytes) = std::fs::read(format!("/proc/{pid}/task/{tid}/stat")) else { return true };
    tub_procfs::stat::parse(&bytes).is_ok_and(|stat| matches!(stat.state, 'Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    /// As where another thread of the same process did not stop in time.
    #[test]
    fn a_signal_whose_stop_nobody_has_seen_is_delivered_when_all_are_let_go() {
        let script = "trap 'echo got it' USR1; echo ready; \
                      n=0; while [ $n -lt 500 ]; do sleep 0.01; n=$((n+1)); done";
        let mut shell = Command::new("sh");
        let mut shell = shell.args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(shell.stdout.take().unwrap()).lines();
        assert_eq!(said.next().unwrap().unwrap(), "ready");

        let pid = HostPid(shell.id().cast_signed());
        ptrace::seize(raw(pid), ptrace::Options::PTRACE_O_TRACESYSGOOD).unwrap();
        tub_sys::send_signal(pid, libc::SIGUSR1).unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        while !state().contains(") t ") {
            std::thread::sleep(Duration::from_millis(1));
        }
        let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
        let (threads, asked) = (vec![StoppedThread { tid: pid }], vec![pid]);
        drop(Frozen { pid, threads, asked, stopped_by: None, memory });
        assert_eq!(said.next().unwrap().unwrap(), "got it");
        shell.kill().unwrap();
        shell.wait().unwrap();
    }
}
