//! How a parked instance waits, and what it does first when it is let go.

use super::Lowering;
use super::arena::{number, words};
use crate::plan::CLOCKS_BYTES;
use tub_restorer_abi as abi;

/// linux/sched.h.
const CLONE_NEWTIME: u64 = 0x80;
/// `_IOW('T', 0, __u64)` (linux/timerfd.h).
const TFD_IOC_SET_TICKS: u64 = 0x4008_5400;

impl Lowering<'_> {
    /// The letter is one message: it goes where it belongs without a copy in between.
    pub(super) fn await_letter(&mut self, at: u64, bytes: u64) {
        let args = [number(self.plan.spare.handshake), at, bytes];
        self.flagged(libc::SYS_read, &args, abi::FLAG_NOT_ZERO);
    }

    /// What lets it go is the line for `/proc/self/timens_offsets`, which says when that is.
    pub(super) fn await_release(&mut self, clocks: bool) {
        let spare = self.plan.spare;
        let bytes = CLOCKS_BYTES as u64;
        let at = self.arena.reserve(bytes, 8);
        self.flagged(libc::SYS_read, &[number(spare.handshake), at, bytes], abi::FLAG_NOT_ZERO);
        if clocks {
            let offsets = spare.clocks.expect("planned together");
            self.call(libc::SYS_write, &[number(offsets), at, bytes]);
            self.call(libc::SYS_setns, &[number(offsets + 1), CLONE_NEWTIME]);
        }
    }

    pub(super) fn arm_timerfd(&mut self, fd: i32, flags: i32, times: [u64; 2], ticks: u64) {
        let value = times.map(|ns| [ns / 1_000_000_000, ns % 1_000_000_000]).concat();
        let at = self.arena.put(&words(&value), 8);
        self.call(libc::SYS_timerfd_settime, &[number(fd), number(flags), at, 0]);
        if ticks > 0 {
            // Setting it has forgotten them.
            let at = self.arena.put(&ticks.to_ne_bytes(), 8);
            self.call(libc::SYS_ioctl, &[number(fd), TFD_IOC_SET_TICKS, at]);
        }
    }
}
