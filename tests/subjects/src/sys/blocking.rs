//! Waits for somebody else, by the bare system call: locks, children, room to write, futexes of every
//! kind.
//!
//! Invariant: as for `waits`.

use super::signals::signal_set;
use super::time::timespec;
use super::waits::{Answer, call};
use super::{check, check_long};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::null;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

const FUTEX_PRIVATE: u64 = 128;

fn number(fd: impl AsFd) -> u64 {
    u64::from(fd.as_fd().as_raw_fd().cast_unsigned())
}

/// flock(2), which waits.
pub(crate) fn flock_waiting(fd: impl AsFd, operation: i32) -> Answer {
    // SAFETY: takes numbers.
    unsafe { call(libc::SYS_flock, [number(fd), u64::from(operation.cast_unsigned()), 0, 0, 0, 0]) }
}

/// fcntl(2) with F_SETLKW or F_OFD_SETLKW: a write lock of `bytes` from `start`, waited for.
pub(crate) fn record_lock_waiting(fd: impl AsFd, command: i32, start: i64, bytes: i64) -> Answer {
    let lock = libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).expect("one"),
        l_whence: 0,
        l_start: start,
        l_len: bytes,
        l_pid: 0,
    };
    let command = u64::from(command.cast_unsigned());
    let args = [number(fd), command, (&raw const lock).addr() as u64, 0, 0, 0];
    // SAFETY: the kernel reads the structure of this frame.
    unsafe { call(libc::SYS_fcntl, args) }
}

/// wait4(2) for one child; how it ended.
pub(crate) fn wait4(pid: i32) -> (Answer, i32) {
    let mut status = 0_i32;
    let pid = i64::from(pid).cast_unsigned();
    // SAFETY: the kernel writes one int of this frame.
    let answer =
        unsafe { call(libc::SYS_wait4, [pid, (&raw mut status).addr() as u64, 0, 0, 0, 0]) };
    (answer, status)
}

/// waitid(2) for a child to end, which leaves it a zombie, and without asking how it ended.
pub(crate) fn waitid_leaving(kind: libc::idtype_t, id: u64) -> Answer {
    let flags = u64::from((libc::WEXITED | libc::WNOWAIT).cast_unsigned());
    // SAFETY: null pointers ask for nothing.
    unsafe { call(libc::SYS_waitid, [u64::from(kind), id, 0, flags, 0, 0]) }
}

/// write(2) of one byte.
pub(crate) fn write_byte(fd: impl AsFd, byte: u8) -> Answer {
    // SAFETY: the kernel reads one byte of this frame.
    unsafe { call(libc::SYS_write, [number(fd), (&raw const byte).addr() as u64, 1, 0, 0, 0]) }
}

/// sendto(2) of one byte over a connection.
pub(crate) fn send_byte(fd: impl AsFd, byte: u8) -> Answer {
    // SAFETY: the kernel reads one byte of this frame.
    unsafe { call(libc::SYS_sendto, [number(fd), (&raw const byte).addr() as u64, 1, 0, 0, 0]) }
}

/// rt_sigsuspend(2): with no signal blocked.
pub(crate) fn sigsuspend() -> Answer {
    let set = signal_set(&[]);
    // SAFETY: the kernel reads the set of this frame.
    unsafe { call(libc::SYS_rt_sigsuspend, [(&raw const set).addr() as u64, 8, 0, 0, 0, 0]) }
}

/// semop(2): lowers a semaphore, when it can.
pub(crate) fn semop_lower(id: i32) -> Answer {
    let lower = libc::sembuf { sem_num: 0, sem_op: -1, sem_flg: 0 };
    let id = u64::from(id.cast_unsigned());
    // SAFETY: the kernel reads the operation of this frame.
    unsafe { call(libc::SYS_semop, [id, (&raw const lower).addr() as u64, 1, 0, 0, 0]) }
}

/// semop(2): raises a semaphore.
pub(crate) fn semop_raise(id: i32) -> io::Result<()> {
    let mut raise = libc::sembuf { sem_num: 0, sem_op: 1, sem_flg: 0 };
    // SAFETY: the kernel reads the operation of this frame.
    check(unsafe { libc::semop(id, &raw mut raise, 1) }).map(drop)
}

/// msgsnd(2) of a message of type 8 and one byte, waiting for room or not.
pub(crate) fn send_message_of_8(id: i32, flags: i32) -> Answer {
    let message = [8_u64, 0];
    let (id, flags) = (u64::from(id.cast_unsigned()), u64::from(flags.cast_unsigned()));
    // SAFETY: the kernel reads type and byte of this frame.
    unsafe { call(libc::SYS_msgsnd, [id, (&raw const message).addr() as u64, 1, flags, 0, 0]) }
}

/// msgrcv(2) of a message of type 8 without waiting.
pub(crate) fn take_message_of_8(id: i32) -> io::Result<()> {
    let mut message = [0_u64; 2];
    let message = (&raw mut message).cast();
    // SAFETY: the kernel writes type and byte to this frame.
    check_long(unsafe { libc::msgrcv(id, message, 1, 8, libc::IPC_NOWAIT) as libc::c_long })
        .map(drop)
}

/// futex_waitv(2) for two words, both 0, up to a point of CLOCK_MONOTONIC.
pub(crate) fn futex_waitv(words: [&AtomicU32; 2], deadline: Option<Duration>) -> Answer {
    const FUTEX_32: u64 = 2;
    // struct futex_waitv (linux/futex.h): value, address, flags and a reserved word.
    let waiters = words.map(|word| [0, word.as_ptr().addr() as u64, FUTEX_32 | FUTEX_PRIVATE]);
    let time = deadline.map(timespec);
    let time = time.as_ref().map_or(0, |time| std::ptr::from_ref(time).addr() as u64);
    let clock = u64::from(libc::CLOCK_MONOTONIC.cast_unsigned());
    let args = [(&raw const waiters).addr() as u64, 2, 0, time, clock, 0];
    // SAFETY: the kernel reads two waiters and a timespec of this frame; the words outlive the call.
    unsafe { call(libc::SYS_futex_waitv, args) }
}

/// futex(FUTEX_WAKE) of those who wait by a private operation.
pub(crate) fn futex_wake_private(word: &AtomicU32, count: i32) -> io::Result<i64> {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word lives through the call.
    check_long(unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, count) })
}

/// futex(FUTEX_LOCK_PI), up to a point of CLOCK_REALTIME.
pub(crate) fn lock_pi(word: &AtomicU32, deadline: Duration) -> Answer {
    futex_pi(word, 6 | FUTEX_PRIVATE, deadline)
}

/// futex(FUTEX_LOCK_PI2), up to a point of CLOCK_MONOTONIC.
pub(crate) fn lock_pi2(word: &AtomicU32, deadline: Duration) -> Answer {
    futex_pi(word, 13 | FUTEX_PRIVATE, deadline)
}

fn futex_pi(word: &AtomicU32, operation: u64, deadline: Duration) -> Answer {
    let time = timespec(deadline);
    let args = [word.as_ptr().addr() as u64, operation, 0, (&raw const time).addr() as u64, 0, 0];
    // SAFETY: the kernel reads the timespec of this frame; the word outlives the call.
    unsafe { call(libc::SYS_futex, args) }
}

/// futex(FUTEX_UNLOCK_PI).
pub(crate) fn unlock_pi(word: &AtomicU32) -> io::Result<()> {
    let operation = 7 | FUTEX_PRIVATE;
    // SAFETY: the word outlives the call.
    check_long(unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, 0) }).map(drop)
}

/// futex(FUTEX_WAIT_REQUEUE_PI) on a word that is 0, to be moved to `lock`; up to a point of
/// CLOCK_MONOTONIC.
pub(crate) fn wait_requeue_pi(
    word: &AtomicU32,
    lock: &AtomicU32,
    deadline: Option<Duration>,
) -> Answer {
    let time = deadline.map(timespec);
    let time = time.as_ref().map_or(0, |time| std::ptr::from_ref(time).addr() as u64);
    let operation = 11 | FUTEX_PRIVATE;
    let args = [word.as_ptr().addr() as u64, operation, 0, time, lock.as_ptr().addr() as u64, 0];
    // SAFETY: the kernel reads the timespec of this frame; the words outlive the call.
    unsafe { call(libc::SYS_futex, args) }
}

/// futex(FUTEX_CMP_REQUEUE_PI) of one waiter at a word that is 0: how many were woken or moved.
pub(crate) fn requeue_pi(word: &AtomicU32, lock: &AtomicU32) -> io::Result<i64> {
    let operation = 12 | FUTEX_PRIVATE;
    let (from, to, nobody) = (word.as_ptr(), lock.as_ptr(), null::<libc::c_void>());
    // SAFETY: takes two words that outlive the call, and numbers; the fourth is how many to move.
    check_long(unsafe { libc::syscall(libc::SYS_futex, from, operation, 1, nobody, to, 0) })
}

/// clock_gettime(CLOCK_REALTIME).
pub(crate) fn real_time() -> Duration {
    super::clock(libc::CLOCK_REALTIME)
}
