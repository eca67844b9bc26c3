//! Makes registers fit to be loaded elsewhere: settles interrupted system calls and restartable
//! sequences.
//!
//! In: registers as ptrace shows them. Out: registers from which user code can go on. Pure.
//!
//! A thread stopped inside a system call shows one of the kernel's internal restart codes in rax.
//! When the original goes on, the kernel acts on it; a copy has no kernel state to act on, so it is
//! settled here.

/// Indices into `struct user_regs_struct` (sys/user.h).
const RAX: usize = 10;
const RSI: usize = 13;
const ORIG_RAX: usize = 15;
const RIP: usize = 16;
/// Code segment.
pub(crate) const CS: usize = 17;
/// Stack pointer.
pub(crate) const RSP: usize = 19;

/// KERNEL: linux/errno.h, not part of the user interface.
const ERESTARTSYS: i64 = -512;
const ERESTARTNOINTR: i64 = -513;
const ERESTARTNOHAND: i64 = -514;
const ERESTART_RESTARTBLOCK: i64 = -516;
const EINTR: i64 = -4;
/// Length of the instruction `syscall`.
const SYSCALL_BYTES: u64 = 2;

/// Settles an interrupted system call.
///
/// The first three codes mean that the call can be made again as it stands. The last one means that
/// the kernel has noted how to go on, in a place that no interface shows: calls with an absolute
/// deadline can be made again all the same, the others end with EINTR, as their manual pages allow
/// (poll(2), nanosleep(2), futex(2)).
pub(crate) fn settle(registers: &mut [u64; 27]) {
    let in_syscall = registers[ORIG_RAX].cast_signed() >= 0;
    if !in_syscall {
        return;
    }
    let again = match registers[RAX].cast_signed() {
        ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND => true,
        ERESTART_RESTARTBLOCK => has_absolute_deadline(registers),
        _ => {
            registers[ORIG_RAX] = u64::MAX;
            return;
        }
    };
    if again {
        registers[RAX] = registers[ORIG_RAX];
        registers[RIP] = registers[RIP].wrapping_sub(SYSCALL_BYTES);
    } else {
        registers[RAX] = EINTR.cast_unsigned();
    }
    registers[ORIG_RAX] = u64::MAX;
}

fn has_absolute_deadline(registers: &[u64; 27]) -> bool {
    // linux/futex.h: commands without FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME.
    const FUTEX_CMD_MASK: u64 = !(128 | 256);
    const FUTEX_LOCK_PI: u64 = 6;
    const FUTEX_WAIT_BITSET: u64 = 9;
    const FUTEX_WAIT_REQUEUE_PI: u64 = 11;
    const FUTEX_LOCK_PI2: u64 = 13;
    const TIMER_ABSTIME: u64 = 1;
    match registers[ORIG_RAX].cast_signed() {
        libc::SYS_futex => matches!(
            registers[RSI] & FUTEX_CMD_MASK,
            FUTEX_LOCK_PI | FUTEX_WAIT_BITSET | FUTEX_WAIT_REQUEUE_PI | FUTEX_LOCK_PI2
        ),
        libc::SYS_clock_nanosleep => registers[RSI] & TIMER_ABSTIME != 0,
        _ => false,
    }
}

/// The critical section that a thread was in, as `struct rseq_cs` (linux/rseq.h) describes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CriticalSection {
    /// `RSEQ_CS_FLAG_*`.
    pub(crate) flags: u32,
    /// First instruction.
    pub(crate) start: u64,
    /// Length in bytes.
    pub(crate) len: u64,
    /// Where to go on after an interruption.
    pub(crate) abort: u64,
}

/// Sends a thread that was interrupted within a restartable sequence to its abort handler, as the
/// kernel would have done on its way back to user mode.
pub(crate) fn abort_critical_section(registers: &mut [u64; 27], section: CriticalSection) {
    let inside = registers[RIP].wrapping_sub(section.start) < section.len;
    // RSEQ_CS_FLAG_NO_RESTART_ON_*: obsolete, but then the kernel lets the section go on.
    if inside && section.flags == 0 {
        registers[RIP] = section.abort;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interrupted(number: i64, code: i64) -> [u64; 27] {
        let mut registers = [0; 27];
        registers[RAX] = code.cast_unsigned();
        registers[ORIG_RAX] = number.cast_unsigned();
        registers[RIP] = 0x1002;
        registers
    }

    #[test]
    fn a_restartable_call_is_made_again() {
        let mut registers = interrupted(libc::SYS_read, ERESTARTSYS);
        settle(&mut registers);
        assert_eq!((registers[RAX], registers[RIP]), (libc::SYS_read.cast_unsigned(), 0x1000));
    }

    #[test]
    fn a_relative_sleep_ends_with_eintr_and_is_not_made_again() {
        let mut registers = interrupted(libc::SYS_poll, ERESTART_RESTARTBLOCK);
        settle(&mut registers);
        assert_eq!((registers[RAX].cast_signed(), registers[RIP]), (EINTR, 0x1002));
    }

    #[test]
    fn a_futex_wait_with_a_deadline_is_made_again() {
        let mut registers = interrupted(libc::SYS_futex, ERESTART_RESTARTBLOCK);
        registers[RSI] = 9 | 128;
        settle(&mut registers);
        assert_eq!(registers[RIP], 0x1000);
    }

    #[test]
    fn user_code_is_left_alone() {
        let mut registers = interrupted(-1, ERESTARTSYS);
        settle(&mut registers);
        assert_eq!((registers[RAX].cast_signed(), registers[RIP]), (ERESTARTSYS, 0x1002));
    }

    #[test]
    fn a_critical_section_is_aborted() {
        let mut registers = interrupted(-1, 0);
        let section = CriticalSection { flags: 0, start: 0x1000, len: 8, abort: 0x2000 };
        abort_critical_section(&mut registers, section);
        assert_eq!(registers[RIP], 0x2000);
    }
}
