//! System calls made by a held thread, on our behalf.
//!
//! In: a stopped thread. Out: what its system calls returned. Invariant: when a [`RemoteCalls`]
//! is dropped, the thread is back in the very stop it was borrowed from: same registers, same
//! signal mask, and an interrupted system call still restarts.
//!
//! Why not PTRACE_SINGLESTEP: the trap is a forced signal, and forcing a blocked or ignored
//! SIGTRAP resets the application's handler (KERNEL: force_sig_info_to_task, kernel/signal.c).
//! System-call stops are no signals. But they are outside of the kernel's signal path, where
//! interrupted calls are restarted; so in the end the thread is stopped once more by
//! PTRACE_INTERRUPT, and gets its registers back there.

use crate::freeze::{PTRACE_EVENT_STOP, raw};
use crate::{Error, Frozen, Result, StoppedThread};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use tub_sys::Errno;
use tub_units::RemoteAddr;

/// A thread borrowed to make system calls.
#[derive(Debug)]
pub struct RemoteCalls<'a> {
    frozen: &'a Frozen,
    thread: StoppedThread,
    site: RemoteAddr,
    saved: libc::user_regs_struct,
    mask: u64,
}

impl<'a> RemoteCalls<'a> {
    pub(crate) fn begin(
        frozen: &'a Frozen,
        thread: StoppedThread,
        site: RemoteAddr,
    ) -> Result<Self> {
        let tid = raw(thread.tid());
        let saved = ptrace::getregs(tid).map_err(|e| thread.failed("registers", e))?;
        let mask = thread.signal_mask()?;
        // No handler may run in the middle of our call.
        tub_sys::ptrace_set_signal_mask(thread.tid(), u64::MAX)
            .map_err(|e| thread.failed("signal mask", e))?;
        Ok(Self { frozen, thread, site, saved, mask })
    }

    /// The process that the thread belongs to.
    pub fn process(&self) -> &'a Frozen {
        self.frozen
    }

    /// Its registers, as they were when it was borrowed.
    pub fn saved_registers(&self) -> [u64; 27] {
        words(&self.saved)
    }

    /// Its signal mask, as it was when it was borrowed.
    pub fn saved_signal_mask(&self) -> u64 {
        self.mask
    }

    /// Makes the call; the inner result is the kernel's answer to the thread.
    pub fn call(&mut self, number: i64, args: [u64; 6]) -> Result<std::result::Result<u64, Errno>> {
        let tid = raw(self.thread.tid());
        let mut regs = self.saved;
        regs.rip = self.site.0;
        regs.rax = number.cast_unsigned();
        // No restart of what the thread was doing when it was stopped.
        regs.orig_rax = u64::MAX;
        [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = args;
        ptrace::setregs(tid, regs).map_err(|e| self.thread.failed("registers", e))?;
        self.to_syscall_stop()?;
        self.to_syscall_stop()?;
        let after = ptrace::getregs(tid).map_err(|e| self.thread.failed("registers", e))?;
        let result = after.rax.cast_signed();
        Ok(if (-4095..0).contains(&result) {
            Err(Errno::from_raw(i32::try_from(-result).unwrap_or(libc::EIO)))
        } else {
            Ok(after.rax)
        })
    }

    fn to_syscall_stop(&self) -> Result<()> {
        let tid = raw(self.thread.tid());
        ptrace::syscall(tid, None).map_err(|e| self.thread.failed("a system call", e))?;
        loop {
            match waitpid(tid, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::PtraceSyscall(_)) => return Ok(()),
                Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => {
                    return Err(Error::Died { pid: self.frozen.pid() });
                }
                // SIGSTOP and its like cannot be blocked: pass them on and go on waiting.
                Ok(WaitStatus::Stopped(_, signal)) => {
                    ptrace::syscall(tid, signal)
                        .map_err(|e| self.thread.failed("a system call", e))?;
                }
                Ok(_) => {
                    ptrace::syscall(tid, None)
                        .map_err(|e| self.thread.failed("a system call", e))?;
                }
                Err(Errno::EINTR) => {}
                Err(source) => return Err(self.thread.failed("a system call", source)),
            }
        }
    }

    /// Puts the thread back into a stop of the kernel's signal path, with its own registers.
    fn give_back(&self) -> std::result::Result<(), Errno> {
        let tid = raw(self.thread.tid());
        ptrace::interrupt(tid)?;
        ptrace::cont(tid, None)?;
        loop {
            match waitpid(tid, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::PtraceEvent(_, _, PTRACE_EVENT_STOP)) => break,
                Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => {
                    return Err(Errno::ESRCH);
                }
                Ok(WaitStatus::Stopped(_, signal)) => ptrace::cont(tid, signal)?,
                Ok(_) => ptrace::cont(tid, None::<Signal>)?,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        ptrace::setregs(tid, self.saved)?;
        tub_sys::ptrace_set_signal_mask(self.thread.tid(), self.mask)
    }
}

impl Drop for RemoteCalls<'_> {
    fn drop(&mut self) {
        // The only way this fails is that the thread died, and then there is nothing to restore.
        let _ = self.give_back();
    }
}

/// The registers as words, in the order of `sys/user.h`.
pub(crate) fn words(r: &libc::user_regs_struct) -> [u64; 27] {
    [
        r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx, r.r11, r.r10, r.r9, r.r8, r.rax, r.rcx, r.rdx,
        r.rsi, r.rdi, r.orig_rax, r.rip, r.cs, r.eflags, r.rsp, r.ss, r.fs_base, r.gs_base, r.ds,
        r.es, r.fs, r.gs,
    ]
}
