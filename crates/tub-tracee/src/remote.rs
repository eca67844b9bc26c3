//! System calls made by a held thread, on our behalf.
//!
//! In: a stopped thread. Out: what its system calls returned. Invariant: when a [`RemoteCalls`]
//! is dropped, the thread is back in the very stop it was borrowed from: same registers, same
//! signal mask, and an interrupted system call still restarts. With a [`WayHome`], killing this
//! program at any moment in between makes no difference but that such a call may end with EINTR.
//!
//! Why not PTRACE_SINGLESTEP: the trap is a forced signal, and forcing a blocked or ignored
//! SIGTRAP resets the application's handler (KERNEL: force_sig_info_to_task, kernel/signal.c).
//! System-call stops are no signals. But they are outside of the kernel's signal path, where
//! interrupted calls are restarted; so in the end the thread is stopped once more by
//! PTRACE_INTERRUPT, and gets its registers back there.

use crate::freeze::{PTRACE_EVENT_STOP, raw};
use crate::wait::next_stop;
use crate::{CallSite, Error, Frozen, Result, StoppedThread};
use nix::sys::ptrace;
use std::cell::Cell;
use tub_sys::{Errno, GoOn, SIGNAL_FRAME_ALIGN, SignalFrame, TraceeChange, ptrace_go_on};
use tub_units::RemoteAddr;

/// A thread borrowed to make system calls.
#[derive(Debug)]
pub struct RemoteCalls<'a> {
    frozen: &'a Frozen,
    thread: StoppedThread,
    site: CallSite,
    saved: libc::user_regs_struct,
    mask: u64,
    /// Address of the frame that leads home, and what was there before.
    frame: Option<(u64, Vec<u8>)>,
    given_back: bool,
    /// Whether it was let run, and no stop of it has been seen since.
    runs: Cell<bool>,
}

/// What a borrowed thread needs to go home by itself (see [`CallSite`]).
#[derive(Clone, Copy, Debug)]
pub struct WayHome {
    /// The highest address of memory for it; nothing of value may lie below.
    pub top: u64,
    /// The registers with which the thread can go on outside of the kernel's signal path.
    pub registers: [u64; 27],
}

impl WayHome {
    /// Enough for every thread.
    pub const BYTES_MAX: u64 = Self::bytes(tub_sys::XSTATE_BYTES_MAX);

    /// Bytes below the top that are written to, for a thread with an xsave area of that many.
    pub const fn bytes(xsave: usize) -> u64 {
        (SignalFrame::bytes(xsave) + SIGNAL_FRAME_ALIGN) as u64
    }
}

impl<'a> RemoteCalls<'a> {
    pub(crate) fn begin(
        frozen: &'a Frozen,
        thread: StoppedThread,
        site: CallSite,
        way_home: Option<WayHome>,
    ) -> Result<Self> {
        let tid = raw(thread.tid());
        let saved = ptrace::getregs(tid).map_err(|e| thread.failed("registers", e))?;
        let mask = thread.signal_mask()?;
        let (frame, given_back, runs) = (None, false, Cell::new(false));
        let mut calls = Self { frozen, thread, site, saved, mask, frame, given_back, runs };
        if let (Some(way), Some(sigreturn)) = (way_home, site.sigreturn) {
            calls.prepare_way_home(way, sigreturn)?;
        }
        // No handler may run in the middle of our call.
        tub_sys::ptrace_set_signal_mask(thread.tid(), u64::MAX)
            .map_err(|e| thread.failed("signal mask", e))?;
        Ok(calls)
    }

    /// From here on the thread goes home when it is let go, by whomever.
    fn prepare_way_home(&mut self, way: WayHome, sigreturn: RemoteAddr) -> Result<()> {
        let xsave = self.thread.xsave()?;
        let frame = SignalFrame {
            return_address: sigreturn.0,
            general: way.registers,
            xsave: &xsave,
            signal_mask: self.mask,
            alternate_stack: SignalFrame::SAME_ALTERNATE_STACK,
        };
        let align = SIGNAL_FRAME_ALIGN as u64;
        let at = way.top.saturating_sub(SignalFrame::bytes(xsave.len()) as u64) / align * align;
        let frame = frame.at(at);
        let mut before = vec![0; frame.len()];
        self.frozen.read(RemoteAddr(at), &mut before)?;
        self.frozen.write(RemoteAddr(at), &frame)?;
        self.frame = Some((at, before));
        let mut regs = self.saved;
        // As after the `ret` of the call site.
        regs.rip = sigreturn.0;
        regs.rsp = at + 8;
        regs.orig_rax = u64::MAX;
        ptrace::setregs(raw(self.thread.tid()), regs)
            .map_err(|e| self.thread.failed("registers", e))
    }

    /// The process that the thread belongs to.
    pub fn process(&self) -> &'a Frozen {
        self.frozen
    }

    /// Its signal mask, as it was when it was borrowed.
    pub fn saved_signal_mask(&self) -> u64 {
        self.mask
    }

    /// Makes the call; the inner result is the kernel's answer to the thread.
    pub fn call(&mut self, number: i64, args: [u64; 6]) -> Result<std::result::Result<u64, Errno>> {
        self.set_out(number, args)?;
        self.enter()?;
        self.answer()
    }

    /// Has each of `borrowed` make the call, with the arguments for its index: side by side, since most
    /// of what a call takes is that one of us waits until the other has a processor.
    ///
    /// # Errors
    ///
    /// Of the first that cannot be had make it. Some of the others may have made it then.
    pub fn call_each(
        borrowed: &mut [Self],
        number: i64,
        args: impl Fn(usize) -> [u64; 6],
    ) -> Result<Vec<std::result::Result<u64, Errno>>> {
        for (index, calls) in borrowed.iter_mut().enumerate() {
            calls.set_out(number, args(index))?;
        }
        for calls in borrowed.iter_mut() {
            calls.enter()?;
        }
        borrowed.iter_mut().map(Self::answer).collect()
    }

    /// Lets it run to the start of a call.
    fn set_out(&mut self, number: i64, args: [u64; 6]) -> Result<()> {
        let tid = raw(self.thread.tid());
        let mut regs = self.saved;
        regs.rip = self.site.syscall.0;
        if let Some((frame, _)) = self.frame {
            regs.rsp = frame;
        }
        regs.rax = number.cast_unsigned();
        // No restart of what the thread was doing when it was stopped.
        regs.orig_rax = u64::MAX;
        [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = args;
        ptrace::setregs(tid, regs).map_err(|e| self.thread.failed("registers", e))?;
        self.let_run(0)
    }

    /// Waits for that start, and lets it run to the end of the call.
    fn enter(&mut self) -> Result<()> {
        self.to_syscall_stop()?;
        self.let_run(0)
    }

    /// Waits for that end.
    fn answer(&mut self) -> Result<std::result::Result<u64, Errno>> {
        self.to_syscall_stop()?;
        let tid = raw(self.thread.tid());
        let after = ptrace::getregs(tid).map_err(|e| self.thread.failed("registers", e))?;
        let result = after.rax.cast_signed();
        Ok(if (-4095..0).contains(&result) {
            Err(Errno::from_raw(i32::try_from(-result).unwrap_or(libc::EIO)))
        } else {
            Ok(after.rax)
        })
    }

    /// Waits until it stops at the start or the end of a system call.
    fn to_syscall_stop(&self) -> Result<()> {
        loop {
            match self.stop() {
                Ok(TraceeChange::SyscallStop) => return Ok(()),
                Ok(TraceeChange::Ended(_)) => {
                    return Err(Error::Died { pid: self.frozen.pid() });
                }
                // SIGSTOP and its like cannot be blocked: pass them on and go on waiting.
                Ok(TraceeChange::SignalStop(signal)) => self.let_run(signal)?,
                Ok(_) => self.let_run(0)?,
                Err(Errno::EINTR) => {}
                Err(Errno::ESRCH) => return Err(Error::Died { pid: self.frozen.pid() }),
                Err(source) => return Err(self.thread.failed("a system call", source)),
            }
        }
    }

    /// Up to its next system call, or to the end of the one that it is in.
    fn let_run(&self, signal: i32) -> Result<()> {
        ptrace_go_on(self.thread.tid(), GoOn::ToSystemCall, signal)
            .map_err(|e| self.thread.failed("a system call", e))?;
        self.runs.set(true);
        Ok(())
    }

    /// Waits for its next stop.
    fn stop(&self) -> std::result::Result<TraceeChange, Errno> {
        let stop = next_stop(self.frozen, self.thread)?;
        self.runs.set(false);
        Ok(stop)
    }

    /// Gives the thread back.
    ///
    /// # Errors
    ///
    /// Where it cannot be told whether it has its registers again. What leads it home must be left
    /// as it is then.
    pub fn end(self) -> Result<()> {
        Self::end_each(vec![self])
    }

    /// Gives threads back, side by side.
    ///
    /// # Errors
    ///
    /// As [`Self::end`], of the first of them.
    pub fn end_each(mut borrowed: Vec<Self>) -> Result<()> {
        let failed = |calls: &Self, e| calls.thread.failed("own registers", e);
        for calls in &borrowed {
            calls.turn_back(0).map_err(|e| failed(calls, e))?;
        }
        for calls in &mut borrowed {
            calls.come_home().map_err(|e| failed(calls, e))?;
            calls.given_back = true;
        }
        Ok(())
    }

    /// Puts the thread back into a stop of the kernel's signal path, with its own registers.
    fn give_back(&self) -> std::result::Result<(), Errno> {
        self.turn_back(0)?;
        self.come_home()
    }

    /// Asks for that stop. Where it runs, waiting for it has failed. It may have come to a stop by now, so
    /// it must not be let go of without a look: it might be the one that we want, and no other would follow.
    ///
    /// KERNEL: any stop takes back what was asked for before it (ptrace_stop, kernel/signal.c), so that
    /// it is asked for in each.
    fn turn_back(&self, signal: i32) -> std::result::Result<(), Errno> {
        ptrace::interrupt(raw(self.thread.tid()))?;
        if !self.runs.get() {
            ptrace_go_on(self.thread.tid(), GoOn::Traced, signal)?;
            self.runs.set(true);
        }
        Ok(())
    }

    /// Waits for it.
    fn come_home(&self) -> std::result::Result<(), Errno> {
        let tid = raw(self.thread.tid());
        loop {
            let signal = match self.stop() {
                Ok(TraceeChange::EventStop { event: PTRACE_EVENT_STOP, .. }) => break,
                Ok(TraceeChange::Ended(_)) => return Err(Errno::ESRCH),
                Ok(TraceeChange::SignalStop(signal)) => signal,
                Ok(_) => 0,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
            };
            self.turn_back(signal)?;
        }
        // The mask first: with the registers of the call it would still be led home.
        tub_sys::ptrace_set_signal_mask(self.thread.tid(), self.mask)?;
        ptrace::setregs(tid, self.saved)?;
        if let Some((frame, before)) = &self.frame {
            // What lies there is of no value to anybody, but it was not ours to change.
            let _ = self.frozen.write(RemoteAddr(*frame), before);
        }
        Ok(())
    }
}

impl Drop for RemoteCalls<'_> {
    fn drop(&mut self) {
        if !self.given_back {
            // Where this fails, the thread has died, or goes home by itself.
            let _ = self.give_back();
        }
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
