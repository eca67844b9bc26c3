//! Waits for a time span, by the bare system call.
//!
//! Invariant: each gives the call's result as the kernel returned it, and whether the registers that
//! its arguments were in came back as they were: a program may rely on it (System V psABI for x86-64,
//! A.2.1), and compilers do.

use super::signals::signal_set;
use super::time::timespec;
use std::arch::asm;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// What a system call left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The result, or the errno as a negative number.
    pub(crate) result: i64,
    /// Whether all argument registers are as they were.
    pub(crate) registers_kept: bool,
}

/// A system call by the instruction itself.
///
/// # Safety
///
/// As for that call.
pub(super) unsafe fn call(number: libc::c_long, args: [u64; 6]) -> Answer {
    let mut after = args;
    let [a, b, c, d, e, f] = &mut after;
    let result: i64;
    // SAFETY: the caller vouches for the call; all registers that it may change are declared.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            inlateout("rdi") *a, inlateout("rsi") *b, inlateout("rdx") *c,
            inlateout("r10") *d, inlateout("r8") *e, inlateout("r9") *f,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    Answer { result, registers_kept: after == args }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("a test is short")
}

/// nanosleep(2), without asking for what remains.
pub(crate) fn nanosleep_blindly(time: Duration) -> Answer {
    let time = timespec(time);
    // SAFETY: reads a timespec of this frame.
    unsafe { call(libc::SYS_nanosleep, [(&raw const time).addr() as u64, 0, 0, 0, 0, 0]) }
}

/// nanosleep(2), asking for what remains.
pub(crate) fn nanosleep_asking(time: Duration) -> Answer {
    let time = timespec(time);
    let mut rest = timespec(Duration::ZERO);
    let args = [(&raw const time).addr() as u64, (&raw mut rest).addr() as u64, 0, 0, 0, 0];
    // SAFETY: reads one timespec of this frame and writes another.
    unsafe { call(libc::SYS_nanosleep, args) }
}

/// clock_nanosleep(2) of CLOCK_MONOTONIC for a time span.
pub(crate) fn clock_nanosleep(time: Duration) -> Answer {
    let time = timespec(time);
    let clock = u64::from(libc::CLOCK_MONOTONIC.cast_unsigned());
    // SAFETY: reads a timespec of this frame.
    unsafe { call(libc::SYS_clock_nanosleep, [clock, 0, (&raw const time).addr() as u64, 0, 0, 0]) }
}

/// poll(2) of nothing.
pub(crate) fn poll_nothing(time: Duration) -> Answer {
    // SAFETY: takes numbers.
    unsafe { call(libc::SYS_poll, [0, 0, milliseconds(time), 0, 0, 0]) }
}

/// ppoll(2) of nothing.
pub(crate) fn ppoll_nothing(time: Duration) -> Answer {
    let mut time = timespec(time);
    // SAFETY: the kernel may change the timespec of this frame.
    unsafe { call(libc::SYS_ppoll, [0, 0, (&raw mut time).addr() as u64, 0, 8, 0]) }
}

/// select(2) of nothing.
pub(crate) fn select_nothing(time: Duration) -> Answer {
    let mut time = libc::timeval {
        tv_sec: libc::time_t::try_from(time.as_secs()).expect("a test is short"),
        tv_usec: libc::suseconds_t::from(time.subsec_micros()),
    };
    // SAFETY: the kernel may change the timeval of this frame.
    unsafe { call(libc::SYS_select, [0, 0, 0, 0, (&raw mut time).addr() as u64, 0]) }
}

/// pselect6(2) of nothing.
pub(crate) fn pselect_nothing(time: Duration) -> Answer {
    let mut time = timespec(time);
    // SAFETY: the kernel may change the timespec of this frame.
    unsafe { call(libc::SYS_pselect6, [0, 0, 0, 0, (&raw mut time).addr() as u64, 0]) }
}

/// epoll_wait(2) on a set.
pub(crate) fn epoll_wait_for(epoll: &OwnedFd, time: Option<Duration>) -> Answer {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    let time = time.map_or(u64::from(u32::MAX), milliseconds);
    let epoll = u64::from(epoll.as_raw_fd().cast_unsigned());
    // SAFETY: the kernel writes at most one event to this frame.
    unsafe { call(libc::SYS_epoll_wait, [epoll, (&raw mut event).addr() as u64, 1, time, 0, 0]) }
}

/// epoll_pwait(2) on a set, with a mask of all signals, so that it takes none of others.
pub(crate) fn epoll_pwait(epoll: &OwnedFd, time: Duration) -> Answer {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    let (time, set) = (milliseconds(time), u64::MAX);
    let epoll = u64::from(epoll.as_raw_fd().cast_unsigned());
    let set = (&raw const set).addr() as u64;
    // SAFETY: the kernel reads the set and writes at most one event, both of this frame.
    unsafe { call(libc::SYS_epoll_pwait, [epoll, (&raw mut event).addr() as u64, 1, time, set, 8]) }
}

/// epoll_pwait2(2) on a set.
pub(crate) fn epoll_pwait2(epoll: &OwnedFd, time: Duration) -> Answer {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    let time = timespec(time);
    let epoll = u64::from(epoll.as_raw_fd().cast_unsigned());
    let args = [epoll, (&raw mut event).addr() as u64, 1, (&raw const time).addr() as u64, 0, 8];
    // SAFETY: the kernel reads the timespec and writes at most one event, both of this frame.
    unsafe { call(libc::SYS_epoll_pwait2, args) }
}

/// futex(FUTEX_WAIT) on a word of its own.
pub(crate) fn futex_nobody_wakes(time: Duration) -> Answer {
    let word = AtomicU32::new(0);
    let time = timespec(time);
    let args = [word.as_ptr().addr() as u64, 0, 0, (&raw const time).addr() as u64, 0, 0];
    // SAFETY: the kernel reads the word and the timespec of this frame.
    unsafe { call(libc::SYS_futex, args) }
}

/// rt_sigtimedwait(2) for a signal that must be blocked.
pub(crate) fn sigtimedwait(signal: i32, time: Option<Duration>) -> Answer {
    let set = signal_set(&[signal]);
    let time = time.map(timespec);
    let time = time.as_ref().map_or(0, |time| std::ptr::from_ref(time).addr() as u64);
    let args = [(&raw const set).addr() as u64, 0, time, 8, 0, 0];
    // SAFETY: the kernel reads the set and the timespec of this frame.
    unsafe { call(libc::SYS_rt_sigtimedwait, args) }
}

/// A System V semaphore of value 0, which must be removed.
pub(crate) fn semaphore() -> io::Result<i32> {
    // SAFETY: takes numbers.
    super::check(unsafe { libc::semget(libc::IPC_PRIVATE, 1, 0o600) })
}

/// semctl(IPC_RMID).
pub(crate) fn remove_semaphore(id: i32) -> io::Result<()> {
    // SAFETY: takes numbers.
    super::check(unsafe { libc::semctl(id, 0, libc::IPC_RMID) }).map(drop)
}

/// semtimedop(2): waits for a semaphore that nobody raises.
pub(crate) fn semtimedop(id: i32, time: Duration) -> Answer {
    let mut lower = libc::sembuf { sem_num: 0, sem_op: -1, sem_flg: 0 };
    let time = timespec(time);
    let id = u64::from(id.cast_unsigned());
    let args = [id, (&raw mut lower).addr() as u64, 1, (&raw const time).addr() as u64, 0, 0];
    // SAFETY: the kernel reads the operation and the timespec of this frame.
    unsafe { call(libc::SYS_semtimedop, args) }
}

/// A System V message queue, which must be removed.
pub(crate) fn messages() -> io::Result<i32> {
    // SAFETY: takes numbers.
    super::check(unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600) })
}

/// msgctl(IPC_RMID).
pub(crate) fn remove_messages(id: i32) -> io::Result<()> {
    // SAFETY: removal takes no argument.
    super::check(unsafe { libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()) }).map(drop)
}

/// msgsnd(2) of a message of type 7 without content.
pub(crate) fn send_message(id: i32) -> io::Result<()> {
    let kind: libc::c_long = 7;
    // SAFETY: the kernel reads the type of this frame and no byte after it.
    super::check(unsafe { libc::msgsnd(id, (&raw const kind).cast(), 0, 0) }).map(drop)
}

/// msgrcv(2) of a message of type 7 without content.
pub(crate) fn receive_message(id: i32) -> Answer {
    let mut kind = 0_u64;
    let id = u64::from(id.cast_unsigned());
    // SAFETY: the kernel writes the type to this frame and no byte after it.
    unsafe { call(libc::SYS_msgrcv, [id, (&raw mut kind).addr() as u64, 0, 7, 0, 0]) }
}

/// accept4(2), whose descriptor stays open.
pub(crate) fn accept(socket: impl AsFd) -> Answer {
    let fd = u64::from(socket.as_fd().as_raw_fd().cast_unsigned());
    // SAFETY: no address is asked for.
    unsafe { call(libc::SYS_accept4, [fd, 0, 0, 0, 0, 0]) }
}

/// recvfrom(2) of one byte.
pub(crate) fn receive(socket: &OwnedFd) -> Answer {
    let mut byte = 0u8;
    let fd = u64::from(socket.as_raw_fd().cast_unsigned());
    // SAFETY: the kernel writes at most one byte to this frame.
    unsafe { call(libc::SYS_recvfrom, [fd, (&raw mut byte).addr() as u64, 1, 0, 0, 0]) }
}

/// setsockopt(SO_RCVTIMEO).
pub(crate) fn set_receive_timeout(socket: &OwnedFd, time: Duration) -> io::Result<()> {
    let time = libc::timeval {
        tv_sec: libc::time_t::try_from(time.as_secs()).expect("a test is short"),
        tv_usec: libc::suseconds_t::from(time.subsec_micros()),
    };
    let bytes = libc::socklen_t::try_from(size_of_val(&time)).expect("16");
    let fd = socket.as_raw_fd();
    // SAFETY: the kernel reads the timeval of this frame.
    super::check(unsafe {
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const time).cast(), bytes)
    })
    .map(drop)
}
