//! The twin of `x86_64.rs`: compiles, and refuses at run time (design decision E15).

use core::arch::{asm, global_asm};
use tub_restorer_abi::RawHeader;

// System call numbers: include/uapi/asm-generic/unistd.h.
pub(crate) const WRITE: u64 = 64;
pub(crate) const PREAD64: u64 = 67;
pub(crate) const EXIT_GROUP: u64 = 94;
pub(crate) const FUTEX: u64 = 98;
pub(crate) const GETPID: u64 = 172;
pub(crate) const GETTID: u64 = 178;
const ENOSYS: u64 = 38;

global_asm!(
    ".section .text.magic, \"ax\", @progbits",
    ".ascii \"TUBBLOB\\x01\"",
    ".section .text.entry, \"ax\", @progbits",
    ".globl tub_restorer_entry",
    "tub_restorer_entry:",
    "mov x1, #0",
    "bl {run}",
    "brk #1",
    run = sym crate::tub_restorer_run,
);

pub(crate) fn syscall(number: u64, args: [u64; 6]) -> u64 {
    let result;
    // SAFETY: as on x86-64: for the compiler, a call that may change any memory.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number, inlateout("x0") args[0] => result, in("x1") args[1],
            in("x2") args[2], in("x3") args[3], in("x4") args[4], in("x5") args[5],
            options(nostack),
        );
    }
    result
}

pub(crate) fn copy(mut to: u64, mut from: u64, bytes: u64) {
    let end = from + bytes;
    while from < end {
        // SAFETY: the plan names a mapped range.
        let byte = unsafe { (from as *const u8).read_volatile() };
        // SAFETY: the plan names a mapped range.
        unsafe { (to as *mut u8).write_volatile(byte) };
        to += 1;
        from += 1;
    }
}

pub(crate) fn spawn_clone3(_: &RawHeader, _: u64, _: u64, _: u64) -> u64 {
    ENOSYS.wrapping_neg()
}

pub(crate) fn spawn_clone(_: &RawHeader, _: &[u64; 7]) -> u64 {
    ENOSYS.wrapping_neg()
}

pub(crate) fn sigreturn(_: u64) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
