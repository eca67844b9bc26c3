//! The few instructions that Rust cannot say, for x86-64.

use core::arch::{asm, global_asm};
use tub_restorer_abi::RawHeader;

// System call numbers: arch/x86/entry/syscalls/syscall_64.tbl.
pub(crate) const WRITE: u64 = 1;
pub(crate) const PREAD64: u64 = 17;
pub(crate) const GETPID: u64 = 39;
pub(crate) const GETTID: u64 = 186;
pub(crate) const FUTEX: u64 = 202;
pub(crate) const EXIT_GROUP: u64 = 231;

// The magic that a later checkpoint looks for, then the entry: rdi is the header's address, rsp
// the top of the first thread's stack. ABI: System V psABI for x86-64, 3.2.2: rsp is a multiple of
// 16 before a call.
global_asm!(
    ".section .text.magic, \"ax\", @progbits",
    ".ascii \"TUBBLOB\\x01\"",
    ".section .text.entry, \"ax\", @progbits",
    ".globl tub_restorer_entry",
    "tub_restorer_entry:",
    "xor ebp, ebp",
    "xor esi, esi",
    "call {run}",
    "ud2",
    run = sym crate::tub_restorer_run,
);

/// Makes a system call.
pub(crate) fn syscall(number: u64, args: [u64; 6]) -> u64 {
    let result;
    // SAFETY: what a system call does to this process is the plan's business; for the compiler it
    // clobbers rcx and r11 and may change any memory, which is the default of `asm!`.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Copies bytes without libc.
pub(crate) fn copy(to: u64, from: u64, bytes: u64) {
    // SAFETY: the plan names mapped ranges; the direction flag is clear by the ABI.
    unsafe {
        asm!(
            "rep movsb",
            inout("rdi") to => _, inout("rsi") from => _, inout("rcx") bytes => _,
            options(nostack, preserves_flags),
        );
    }
}

/// `clone3(args, bytes)`: the new thread runs `program` on the stack that the arguments name.
pub(crate) fn spawn_clone3(header: &RawHeader, args: u64, bytes: u64, program: u64) -> u64 {
    spawn(header, 435, [args, bytes, 0, 0, 0], program)
}

/// `clone(2)`, where clone3 is refused: x86-64 passes flags, stack, parent_tid, child_tid, tls.
pub(crate) fn spawn_clone(header: &RawHeader, a: &[u64; 7]) -> u64 {
    spawn(header, 56, [a[0], a[1], 0, a[3], a[4]], a[2])
}

/// Makes a system call that comes back twice: here, and on a stack of its own in `program`.
fn spawn(header: &RawHeader, number: u64, args: [u64; 5], program: u64) -> u64 {
    let result;
    // SAFETY: the child has a stack of its own and never returns here; the parent sees an
    // ordinary system call. r12 and r13 survive it in both.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "mov rsi, r13",
            "call {run}",
            "ud2",
            "2:",
            run = sym crate::tub_restorer_run,
            inlateout("rax") number => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4],
            in("r12") &raw const *header, in("r13") program,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

/// Leaves for good: the kernel loads the registers from the frame below `stack`.
///
/// KERNEL(since 2.6): `rt_sigreturn` takes the frame at the stack pointer less one word
/// (arch/x86/kernel/signal_64.c).
pub(crate) fn sigreturn(stack: u64) -> ! {
    // SAFETY: the plan built the frame; nothing of the blob is used afterwards.
    unsafe {
        asm!("mov rsp, {0}", "mov eax, 15", "syscall", "ud2", in(reg) stack, options(noreturn));
    }
}
