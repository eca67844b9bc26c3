//! How a thread comes to be, and with which registers it goes on.

use super::arena::{number, words};
use super::{Lowering, STACK_BYTES};
use crate::plan::threads::FS_BASE;
use tub_model::{RemainingWait, Thread};
use tub_restorer_abi as abi;
use tub_restorer_abi::{AFTER_CALL, Stub};
use tub_sys::SignalFrame;

/// Index of `rip` in `struct user_regs_struct` (sys/user.h).
const RIP: usize = 16;

/// From which the kernel loads the state of `thread`, with the registers `general`.
pub(super) fn signal_frame(thread: &Thread, general: [u64; 27]) -> SignalFrame<'_> {
    let stack = thread.alternate_stack;
    SignalFrame {
        return_address: 0, // never used
        general,
        xsave: &thread.registers.xsave,
        signal_mask: thread.signal_mask,
        alternate_stack: (stack.address, stack.flags, stack.size_bytes),
    }
}

impl Lowering<'_> {
    /// The registers that a thread goes on with: its own, or those by which it makes an interrupted
    /// wait again for what is left of it (see [`Stub`]).
    pub(super) fn resumed_registers(
        &mut self,
        thread: &Thread,
        wait: Option<RemainingWait>,
    ) -> [u64; 27] {
        let mut general = thread.registers.general;
        let Some(wait) = wait else { return general };
        let register = wait.register as usize;
        let stub = Stub {
            register: wait.register,
            original: general[register],
            return_to: general[RIP].wrapping_add(AFTER_CALL),
        };
        // An image may hold anything; a register that no call takes its time from is passed over, and
        // the call made with the whole time.
        let Some(code) = stub.to_bytes() else { return general };
        let split = |ns: u64| [ns / 1_000_000_000, ns % 1_000_000_000];
        general[register] = if wait.milliseconds {
            // Not shorter than it was: a started millisecond counts.
            wait.remaining_ns.div_ceil(1_000_000)
        } else {
            self.arena.put(&words(&split(wait.remaining_ns)), 8)
        };
        general[RIP] = self.task.stubs_at + self.stubs.len() as u64;
        self.stubs.extend(code);
        general
    }

    pub(super) fn spawn(&mut self, thread: usize, tid: Option<i32>) {
        let saved = &self.task.threads[thread];
        let mut flags = libc::CLONE_VM
            | libc::CLONE_FS
            | libc::CLONE_FILES
            | libc::CLONE_SIGHAND
            | libc::CLONE_THREAD
            | libc::CLONE_SYSVSEM
            | libc::CLONE_SETTLS;
        let child_tid = saved.clear_child_tid.0;
        if child_tid != 0 {
            flags |= libc::CLONE_CHILD_CLEARTID;
        }
        let flags = number(flags);
        let tls = saved.registers.general[FS_BASE];
        let stack = self.stacks_at + thread as u64 * STACK_BYTES;
        if !self.plan.clone3 && tid.is_none() {
            let args = [flags, stack + STACK_BYTES, thread as u64, child_tid, tls];
            self.raw(abi::SPAWN_CLONE, &args);
            return;
        }
        let set_tid = tid.map(|tid| self.arena.put(&tid.to_ne_bytes(), 8));
        let (set_tid, count) = set_tid.map_or((0, 0), |at| (at, 1));
        let args = [flags, 0, child_tid, 0, 0, stack, STACK_BYTES, tls, set_tid, count, 0];
        let at = self.arena.put(&words(&args), 8);
        self.raw(abi::SPAWN, &[at, args.len() as u64 * 8, thread as u64]);
    }
}
