//! The blob: a loop over operations, run inside the process being reborn.
//!
//! In: a [`RawHeader`]. Out: a process that is the checkpointed one, or a [`RawReport`].
//! Invariant: it does not choose, allocate, format, recurse or panic; it has no writable data.
//! Not here: any decision. If an `if` about the host is wanted here, the plan lacks an operation.
#![no_std]
#![no_main]

#[cfg(target_arch = "x86_64")]
#[path = "arch/x86_64.rs"]
mod arch;
#[cfg(target_arch = "aarch64")]
#[path = "arch/aarch64.rs"]
mod arch;

use arch::syscall;
use tub_restorer_abi as abi;
use tub_restorer_abi::{RawHeader, RawOp, RawProgram, RawReport};

/// The kernel returns -4095..=-1 for errors (`linux/err.h`, MAX_ERRNO).
const MAX_ERRNO: u64 = 4095;
const EINTR: u64 = 4;
const EIO: u64 = 5;
const ENOEXEC: u64 = 8;
const EPIPE: u64 = 32;
/// Private futexes (`linux/futex.h`).
const FUTEX_WAIT_PRIVATE: u64 = 128;
const FUTEX_WAKE_PRIVATE: u64 = 129;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here panics; the build checks that no panic machinery is linked in.
    loop {
        core::hint::spin_loop();
    }
}

/// Runs program `index`; never returns.
///
/// # Safety
///
/// `header` must be the address of a [`RawHeader`] whose programs and operations are readable and
/// describe the process to be: this is where the old one ends.
#[unsafe(no_mangle)]
unsafe extern "C" fn tub_restorer_run(header: *const RawHeader, index: u64) -> ! {
    // SAFETY: the caller vouches for `header`.
    let header = unsafe { &*header };
    if header.version != abi::ABI_VERSION || index >= header.program_count {
        fail(header, index, 0, ENOEXEC);
    }
    let program = header.programs as *const RawProgram;
    // SAFETY: `index` is below the count of programs that lie at `programs`.
    let program = unsafe { program.add(index as usize) };
    // SAFETY: the program lies in the blob's data, which nothing changes while we run.
    let program = unsafe { &*program };
    let mut at = 0;
    while at < program.count {
        let op = program.ops as *const RawOp;
        // SAFETY: `at` is below the count of operations that lie at `ops`.
        let op = unsafe { op.add(at as usize) };
        // SAFETY: as above; no operation overwrites the blob's own range.
        let op = unsafe { &*op };
        let result = execute(header, op);
        if is_error(result) && op.flags & abi::FLAG_MAY_FAIL == 0 {
            fail(header, index, at, result.wrapping_neg());
        }
        at += 1;
    }
    fail(header, index, at, ENOEXEC)
}

fn is_error(result: u64) -> bool {
    result > u64::MAX - MAX_ERRNO
}

/// Performs one operation and returns what its system call returned.
fn execute(header: &RawHeader, op: &RawOp) -> u64 {
    let a = &op.args;
    match op.code {
        abi::SYSCALL => {
            let mut first = a[1];
            let mut second = a[2];
            if op.flags & abi::FLAG_PID_FIRST != 0 {
                first = syscall(arch::GETPID, [0; 6]);
            }
            if op.flags & abi::FLAG_FIRST_AT != 0 {
                let place = first as *const u64;
                // SAFETY: the plan names a mapped, aligned word of the blob's own data.
                first = unsafe { place.read_volatile() };
            }
            if op.flags & abi::FLAG_TID_SECOND != 0 {
                second = syscall(arch::GETTID, [0; 6]);
            }
            let result = syscall(a[0], [first, second, a[3], a[4], a[5], a[6]]);
            if result == 0 && op.flags & abi::FLAG_NOT_ZERO != 0 {
                return EPIPE.wrapping_neg();
            }
            result
        }
        abi::READ => read_exactly(a[0], a[1], a[2], a[3]),
        abi::COPY => {
            arch::copy(a[0], a[1], a[2]);
            0
        }
        abi::STORE_TID => {
            let tid = syscall(arch::GETTID, [0; 6]) as u32;
            let place = a[0] as *mut u32;
            // SAFETY: the plan names a mapped, aligned word of the process being reborn.
            unsafe { place.write_volatile(tid) };
            0
        }
        abi::STORE_CLOCK => {
            let clock = (!syscall(arch::GETTID, [0; 6])) << 3 | (a[1] & 7);
            let place = a[0] as *mut u64;
            // SAFETY: the plan names a mapped, aligned word of the blob's own data.
            unsafe { place.write_volatile(clock) };
            0
        }
        abi::SPAWN => arch::spawn_clone3(header, a[0], a[1], a[2]),
        abi::SPAWN_CLONE => arch::spawn_clone(header, a),
        abi::BARRIER => barrier(a[0], a[1], true),
        abi::ARRIVE => barrier(a[0], a[1], false),
        abi::SIGRETURN => arch::sigreturn(a[0]),
        _ => ENOEXEC.wrapping_neg(),
    }
}

fn read_exactly(fd: u64, mut to: u64, mut bytes: u64, mut offset: u64) -> u64 {
    while bytes > 0 {
        let done = syscall(arch::PREAD64, [fd, to, bytes, offset, 0, 0]);
        if done == EINTR.wrapping_neg() {
            continue;
        }
        if is_error(done) {
            return done;
        }
        if done == 0 {
            return EIO.wrapping_neg();
        }
        to += done;
        bytes -= done;
        offset += done;
    }
    0
}

/// Arrives at a counter, and waits for the others if it is to.
fn barrier(counter: u64, threads: u64, waits: bool) -> u64 {
    use core::sync::atomic::{AtomicU32, Ordering};
    let word = counter as *const AtomicU32;
    // SAFETY: the plan names an aligned word of the blob's own data, zero at the start.
    let word = unsafe { &*word };
    let arrived = word.fetch_add(1, Ordering::AcqRel) + 1;
    if u64::from(arrived) == threads {
        return syscall(arch::FUTEX, [counter, FUTEX_WAKE_PRIVATE, i32::MAX as u64, 0, 0, 0]);
    }
    while waits {
        let seen = word.load(Ordering::Acquire);
        if u64::from(seen) >= threads {
            break;
        }
        syscall(arch::FUTEX, [counter, FUTEX_WAIT_PRIVATE, u64::from(seen), 0, 0, 0]);
    }
    0
}

/// Says which operation failed, and ends the process.
fn fail(header: &RawHeader, program: u64, op: u64, errno: u64) -> ! {
    let report = RawReport {
        kind: abi::REPORT_FAILED,
        program: program as u32,
        op: op as u32,
        errno: errno as u32,
    };
    let address = &raw const report as u64;
    syscall(arch::WRITE, [header.report_fd, address, size_of::<RawReport>() as u64, 0, 0, 0]);
    loop {
        syscall(arch::EXIT_GROUP, [abi::FAILED_STATUS, 0, 0, 0, 0, 0]);
    }
}
