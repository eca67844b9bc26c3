//! Makes registers fit to be loaded elsewhere: settles interrupted system calls and restartable
//! sequences.
//!
//! In: registers as ptrace shows them. Out: registers from which user code can go on, and what is
//! left of a wait. Pure.
//!
//! A thread stopped inside a system call shows one of the kernel's internal restart codes in rax.
//! When the original goes on, the kernel acts on it; a copy has no kernel state to act on, so it is
//! settled here. What each call gives in the end: `docs/threads.md`, "Interrupted system calls".

use tub_model::RemainingWait;
use tub_restorer_abi::{AFTER_CALL, STUB_BYTES, Stub};

/// Indices into `struct user_regs_struct` (sys/user.h).
const R10: usize = 7;
const RAX: usize = 10;
const RDX: usize = 12;
const RSI: usize = 13;
const RDI: usize = 14;
const ORIG_RAX: usize = 15;
pub(crate) const RIP: usize = 16;
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

/// What is known about an interrupted system call besides its registers.
pub(crate) struct Interruption<'a> {
    /// For how many nanoseconds it has been waiting, if that is known. Never more than it was.
    pub(crate) waited_ns: Option<u64>,
    /// Whether a signal is due, for which the call has to end.
    pub(crate) signal_due: bool,
    /// A `timespec` of the process, in nanoseconds.
    pub(crate) timespec: &'a dyn Fn(u64) -> Option<u64>,
}

/// Whether a thread may be in a wait for a time span, so that it matters for how long already.
pub(crate) fn may_wait(registers: &[u64; 27]) -> bool {
    let code = registers[RAX].cast_signed();
    registers[ORIG_RAX].cast_signed() >= 0 && matches!(code, ERESTART_RESTARTBLOCK | EINTR)
}

/// Whether a thread waits for a futex in which the id of its owner stands (linux/futex.h:
/// FUTEX_LOCK_PI, FUTEX_LOCK_PI2, FUTEX_WAIT_REQUEUE_PI).
pub(crate) fn waits_for_owner(registers: &[u64; 27]) -> bool {
    const COMMAND: u64 = 0x7f;
    registers[ORIG_RAX] == libc::SYS_futex.cast_unsigned()
        && matches!(registers[RSI] & COMMAND, 6 | 11 | 13)
}

/// Settles an interrupted system call.
///
/// Three of the kernel's codes mean that the call can be made again as it stands. The fourth means
/// that the kernel has noted how to go on, in a place that no interface shows; and some calls are not
/// restarted by the kernel at all, but end with EINTR whenever the thread is stopped (signal(7),
/// "Interruption of system calls and library functions by stop signals"). Both kinds are made again
/// here: those without a time as they stand, those with a point in time as well, and those with a
/// time span for what is left of it. Where that is not known they end with EINTR, as their manual
/// pages allow.
pub(crate) fn settle(
    registers: &mut [u64; 27],
    interruption: &Interruption<'_>,
) -> Option<RemainingWait> {
    if registers[ORIG_RAX].cast_signed() < 0 {
        return None;
    }
    let (again, wait) = match registers[RAX].cast_signed() {
        ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND => (true, None),
        ERESTART_RESTARTBLOCK => match remaining(registers, interruption) {
            Some(wait) => (true, wait),
            None => {
                registers[RAX] = EINTR.cast_unsigned();
                (false, None)
            }
        },
        EINTR if !interruption.signal_due && ends_when_stopped(registers) => {
            match remaining(registers, interruption) {
                Some(wait) => (true, wait),
                None => (false, None),
            }
        }
        _ => (false, None),
    };
    if again {
        registers[RAX] = registers[ORIG_RAX];
        registers[RIP] = registers[RIP].wrapping_sub(SYSCALL_BYTES);
    }
    registers[ORIG_RAX] = u64::MAX;
    wait
}

/// The registers of a settled wait, but for its having ended early after all.
pub(crate) fn interrupted(mut registers: [u64; 27]) -> [u64; 27] {
    registers[RAX] = EINTR.cast_unsigned();
    registers[RIP] = registers[RIP].wrapping_add(SYSCALL_BYTES);
    registers
}

/// Calls that give EINTR to a thread that was merely stopped (signal(7)), and of which nothing has
/// happened yet when they do.
fn ends_when_stopped(registers: &[u64; 27]) -> bool {
    matches!(
        registers[ORIG_RAX].cast_signed(),
        libc::SYS_epoll_wait
            | libc::SYS_epoll_pwait
            | libc::SYS_epoll_pwait2
            | libc::SYS_rt_sigtimedwait
            | libc::SYS_semop
            | libc::SYS_semtimedop
    )
}

/// How a call says how long it waits.
enum Time {
    /// For ever, or until a point in time: it can be made again as it stands.
    Fixed,
    /// Milliseconds in a register, negative for ever.
    Milliseconds(usize),
    /// A pointer to a `timespec` in a register, null for ever; and, for sleeps, a pointer to where the
    /// kernel has left what remains (nanosleep(2)).
    Timespec(usize, Option<usize>),
    /// Not known.
    Unknown,
}

fn time(registers: &[u64; 27]) -> Time {
    // linux/futex.h: commands without FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME.
    const FUTEX_CMD_MASK: u64 = !(128 | 256);
    const FUTEX_WAIT: u64 = 0;
    const FUTEX_LOCK_PI: u64 = 6;
    const FUTEX_WAIT_BITSET: u64 = 9;
    const FUTEX_WAIT_REQUEUE_PI: u64 = 11;
    const FUTEX_LOCK_PI2: u64 = 13;
    const TIMER_ABSTIME: u64 = 1;
    match registers[ORIG_RAX].cast_signed() {
        libc::SYS_futex => match registers[RSI] & FUTEX_CMD_MASK {
            FUTEX_WAIT => Time::Timespec(R10, None),
            FUTEX_LOCK_PI | FUTEX_WAIT_BITSET | FUTEX_WAIT_REQUEUE_PI | FUTEX_LOCK_PI2 => {
                Time::Fixed
            }
            _ => Time::Unknown,
        },
        libc::SYS_nanosleep => Time::Timespec(RDI, Some(RSI)),
        libc::SYS_clock_nanosleep if registers[RSI] & TIMER_ABSTIME != 0 => Time::Fixed,
        libc::SYS_clock_nanosleep => Time::Timespec(RDX, Some(R10)),
        libc::SYS_poll => Time::Milliseconds(RDX),
        libc::SYS_epoll_wait | libc::SYS_epoll_pwait => Time::Milliseconds(R10),
        libc::SYS_epoll_pwait2 | libc::SYS_semtimedop => Time::Timespec(R10, None),
        libc::SYS_rt_sigtimedwait => Time::Timespec(RDX, None),
        libc::SYS_semop => Time::Fixed,
        _ => Time::Unknown,
    }
}

/// What is left of the call's time: `None` if it has one and that is not known, `Some(None)` if the
/// call can be made again as it stands.
fn remaining(
    registers: &[u64; 27],
    interruption: &Interruption<'_>,
) -> Option<Option<RemainingWait>> {
    let rest = |whole: u64| Some(whole.saturating_sub(interruption.waited_ns?));
    let wait = |register: usize, remaining_ns, milliseconds| {
        let register = u32::try_from(register).expect("one of 27");
        Some(Some(RemainingWait { register, remaining_ns, milliseconds }))
    };
    match time(registers) {
        Time::Fixed => Some(None),
        Time::Milliseconds(register) => {
            let [a, b, c, d, ..] = registers[register].to_le_bytes();
            match u64::try_from(i32::from_le_bytes([a, b, c, d])) {
                Ok(whole) => wait(register, rest(whole * 1_000_000)?, true),
                Err(_) => Some(None),
            }
        }
        Time::Timespec(register, left) => {
            let pointer = registers[register];
            if pointer == 0 {
                return Some(None);
            }
            let left = left.map(|left| registers[left]).filter(|&left| left != 0);
            let remaining_ns = match left.and_then(interruption.timespec) {
                Some(remaining_ns) => remaining_ns,
                None => rest((interruption.timespec)(pointer)?)?,
            };
            wait(register, remaining_ns, false)
        }
        Time::Unknown => None,
    }
}

/// Where the 32 bytes lie that [`leave_stub`] needs to see.
pub(crate) fn stub_address(registers: &[u64; 27]) -> u64 {
    registers[RIP] / STUB_BYTES as u64 * STUB_BYTES as u64
}

/// Takes a thread out of the stub in which an earlier restore lets it wait (see [`Stub`]), as if it
/// were in its own system call: `registers` and `wait` are those that [`settle`] has made.
pub(crate) fn leave_stub(
    registers: &mut [u64; 27],
    wait: Option<RemainingWait>,
    stub: Stub,
    timespec: &dyn Fn(u64) -> Option<u64>,
) -> Option<RemainingWait> {
    let register = stub.register as usize;
    let inside = registers[RIP] - stub_address(registers);
    let wait = match wait {
        Some(wait) => Some(wait),
        // On its way to the call, or sent back to it: all that the stub gives it is left.
        None if inside == 0 => {
            let mut call = [0; 27];
            call[ORIG_RAX] = registers[RAX];
            call[RSI] = registers[RSI];
            let milliseconds = matches!(time(&call), Time::Milliseconds(_));
            let remaining_ns = if milliseconds {
                registers[register].saturating_mul(1_000_000)
            } else {
                timespec(registers[register]).unwrap_or(0)
            };
            Some(RemainingWait { register: stub.register, remaining_ns, milliseconds })
        }
        None => None,
    };
    registers[register] = stub.original;
    registers[RIP] = if inside < AFTER_CALL {
        stub.return_to.wrapping_sub(SYSCALL_BYTES)
    } else {
        stub.return_to
    };
    wait
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

    /// Nothing is known, and no signal is due.
    const UNKNOWN: Interruption<'_> =
        Interruption { waited_ns: None, signal_due: false, timespec: &|_| None };

    /// It has waited for a second, and every `timespec` says five.
    const ONE_OF_FIVE: Interruption<'_> = Interruption {
        waited_ns: Some(1_000_000_000),
        signal_due: false,
        timespec: &|_| Some(5_000_000_000),
    };

    fn left(register: usize, remaining_ns: u64, milliseconds: bool) -> Option<RemainingWait> {
        let register = u32::try_from(register).unwrap();
        Some(RemainingWait { register, remaining_ns, milliseconds })
    }

    #[test]
    fn a_restartable_call_is_made_again() {
        let mut registers = interrupted(libc::SYS_read, ERESTARTSYS);
        settle(&mut registers, &UNKNOWN);
        assert_eq!((registers[RAX], registers[RIP]), (libc::SYS_read.cast_unsigned(), 0x1000));
    }

    #[test]
    fn a_wait_of_unknown_age_ends_with_eintr_and_is_not_made_again() {
        let mut registers = interrupted(libc::SYS_poll, ERESTART_RESTARTBLOCK);
        registers[RDX] = 5000;
        settle(&mut registers, &UNKNOWN);
        assert_eq!((registers[RAX].cast_signed(), registers[RIP]), (EINTR, 0x1002));
    }

    #[test]
    fn a_futex_wait_with_a_deadline_is_made_again() {
        let mut registers = interrupted(libc::SYS_futex, ERESTART_RESTARTBLOCK);
        registers[RSI] = 9 | 128;
        settle(&mut registers, &UNKNOWN);
        assert_eq!(registers[RIP], 0x1000);
    }

    #[test]
    fn a_wait_goes_on_for_what_is_left_of_it() {
        let mut poll = interrupted(libc::SYS_poll, ERESTART_RESTARTBLOCK);
        poll[RDX] = 5000;
        assert_eq!(settle(&mut poll, &ONE_OF_FIVE), left(RDX, 4_000_000_000, true));
        assert_eq!(
            (poll[RAX], poll[RIP], poll[RDX]),
            (libc::SYS_poll.cast_unsigned(), 0x1000, 5000)
        );
        let mut futex = interrupted(libc::SYS_futex, ERESTART_RESTARTBLOCK);
        (futex[RSI], futex[R10]) = (128, 0x7000);
        assert_eq!(settle(&mut futex, &ONE_OF_FIVE), left(R10, 4_000_000_000, false));
        let mut epoll = interrupted(libc::SYS_epoll_wait, EINTR);
        epoll[R10] = 500;
        assert_eq!(settle(&mut epoll, &ONE_OF_FIVE), left(R10, 0, true));
    }

    #[test]
    fn what_the_kernel_says_of_a_sleep_is_better_than_what_we_measured() {
        let kernels = |at| Some(if at == 0x8000 { 3_999_000_000 } else { 5_000_000_000 });
        let known = Interruption { timespec: &kernels, ..ONE_OF_FIVE };
        let mut sleep = interrupted(libc::SYS_nanosleep, ERESTART_RESTARTBLOCK);
        (sleep[RDI], sleep[RSI]) = (0x7000, 0x8000);
        assert_eq!(settle(&mut sleep, &known), left(RDI, 3_999_000_000, false));
        let mut sleep = interrupted(libc::SYS_clock_nanosleep, ERESTART_RESTARTBLOCK);
        (sleep[RDX], sleep[R10]) = (0x7000, 0);
        assert_eq!(settle(&mut sleep, &known), left(RDX, 4_000_000_000, false));
    }

    #[test]
    fn a_wait_without_end_is_made_again_as_it_stands() {
        let mut poll = interrupted(libc::SYS_poll, ERESTART_RESTARTBLOCK);
        poll[RDX] = u64::from(u32::MAX);
        assert_eq!((settle(&mut poll, &UNKNOWN), poll[RIP]), (None, 0x1000));
        let mut wait = interrupted(libc::SYS_rt_sigtimedwait, EINTR);
        assert_eq!((settle(&mut wait, &UNKNOWN), wait[RIP]), (None, 0x1000));
    }

    #[test]
    fn a_call_makes_way_for_a_signal_and_an_error_of_another_call_stays() {
        let due = Interruption { signal_due: true, ..ONE_OF_FIVE };
        let mut epoll = interrupted(libc::SYS_epoll_wait, EINTR);
        epoll[R10] = u64::MAX;
        settle(&mut epoll, &due);
        assert_eq!((epoll[RAX].cast_signed(), epoll[RIP]), (EINTR, 0x1002));
        let mut connect = interrupted(libc::SYS_connect, EINTR);
        settle(&mut connect, &ONE_OF_FIVE);
        assert_eq!((connect[RAX].cast_signed(), connect[RIP]), (EINTR, 0x1002));
    }

    #[test]
    fn a_thread_in_a_stub_is_taken_back_to_its_own_call() {
        let stub = Stub { register: 12, original: 5000, return_to: 0x4002 };
        let none = |_| None;
        // Waiting: the stub's call was interrupted, and `settle` has sent it back.
        let mut waiting = interrupted(libc::SYS_poll, ERESTART_RESTARTBLOCK);
        waiting[RDX] = 1500;
        let wait = settle(&mut waiting, &ONE_OF_FIVE);
        let wait = leave_stub(&mut waiting, wait, stub, &none);
        assert_eq!(wait, left(RDX, 500_000_000, true));
        assert_eq!((waiting[RDX], waiting[RIP]), (5000, 0x4000));
        // On its way to the call.
        let mut before = interrupted(-1, libc::SYS_poll);
        (before[RIP], before[RDX]) = (0x1000, 1500);
        assert_eq!(leave_stub(&mut before, None, stub, &none), left(RDX, 1_500_000_000, true));
        assert_eq!((before[RDX], before[RIP]), (5000, 0x4000));
        // On its way back.
        let mut after = interrupted(-1, 1);
        after[RIP] = 0x100c;
        assert_eq!(leave_stub(&mut after, None, stub, &none), None);
        assert_eq!((after[RDX], after[RIP], after[RAX]), (5000, 0x4002, 1));
    }

    #[test]
    fn user_code_is_left_alone() {
        let mut registers = interrupted(-1, ERESTARTSYS);
        settle(&mut registers, &UNKNOWN);
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
