//! Clocks, sleeps, timers, and futexes, which take times.

use super::{check, check_long, owned};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::ptr::{null, null_mut};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

pub(super) fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(time.as_secs()).expect("seconds of a test"),
        tv_nsec: libc::c_long::from(time.subsec_nanos()),
    }
}

fn duration(time: libc::timespec) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// clock_gettime(2).
pub(crate) fn clock(id: libc::clockid_t) -> Duration {
    let mut now = timespec(Duration::ZERO);
    // SAFETY: the kernel writes the timespec.
    unsafe { libc::clock_gettime(id, &raw mut now) };
    duration(now)
}

/// The same by the system call, without the vdso.
pub(crate) fn clock_by_call(id: libc::clockid_t) -> Duration {
    let mut now = timespec(Duration::ZERO);
    // SAFETY: the kernel writes the timespec.
    unsafe { libc::syscall(libc::SYS_clock_gettime, id, &raw mut now) };
    duration(now)
}

/// clock_getres(2), by way of the C library.
pub(crate) fn resolution(id: libc::clockid_t) -> Duration {
    let mut step = timespec(Duration::ZERO);
    // SAFETY: the kernel writes the timespec.
    unsafe { libc::clock_getres(id, &raw mut step) };
    duration(step)
}

/// The same by the system call.
pub(crate) fn resolution_by_call(id: libc::clockid_t) -> Duration {
    let mut step = timespec(Duration::ZERO);
    // SAFETY: the kernel writes the timespec.
    unsafe { libc::syscall(libc::SYS_clock_getres, id, &raw mut step) };
    duration(step)
}

/// time(2): seconds since 1970.
pub(crate) fn seconds() -> u64 {
    // SAFETY: null asks for no copy of the result.
    u64::try_from(unsafe { libc::time(null_mut()) }).unwrap_or(0)
}

/// sched_getcpu(3).
pub(crate) fn processor() -> usize {
    // SAFETY: takes nothing.
    usize::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(usize::MAX)
}

/// Where the kernel says that the vdso is.
pub(crate) fn vdso_start() -> Option<usize> {
    // SAFETY: takes a number.
    let at = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    usize::try_from(at).ok().filter(|at| *at != 0)
}

/// CLOCK_MONOTONIC.
pub(crate) fn monotonic() -> Duration {
    clock(libc::CLOCK_MONOTONIC)
}

/// nanosleep(2): what remained when it was interrupted, or `None` after the full time.
pub(crate) fn nanosleep(time: Duration) -> io::Result<Option<Duration>> {
    let wanted = timespec(time);
    let mut rest = timespec(Duration::ZERO);
    // SAFETY: both timespecs are ours for the time of the call.
    match check(unsafe { libc::nanosleep(&raw const wanted, &raw mut rest) }) {
        Ok(_) => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::EINTR) => Ok(Some(duration(rest))),
        Err(error) => Err(error),
    }
}

/// clock_nanosleep(2) until CLOCK_MONOTONIC shows `deadline`.
pub(crate) fn sleep_until(deadline: Duration) -> io::Result<()> {
    let until = timespec(deadline);
    // SAFETY: the timespec is ours; with TIMER_ABSTIME nothing is written.
    let error = unsafe {
        libc::clock_nanosleep(
            libc::CLOCK_MONOTONIC,
            libc::TIMER_ABSTIME,
            &raw const until,
            null_mut(),
        )
    };
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// setitimer(2).
pub(crate) fn set_interval_timer(which: i32, value: Duration, every: Duration) -> io::Result<()> {
    let timer = libc::itimerval { it_value: timeval(value), it_interval: timeval(every) };
    // SAFETY: the kernel reads the itimerval; null asks for no old one. (The libc crate names the
    // type of `which` differently for glibc and musl; `as _` follows it.)
    check(unsafe { libc::setitimer(which as _, &raw const timer, null_mut()) }).map(drop)
}

/// getitimer(2): `(remaining, period)`.
pub(crate) fn interval_timer(which: i32) -> io::Result<(Duration, Duration)> {
    let zero = timeval(Duration::ZERO);
    let mut timer = libc::itimerval { it_value: zero, it_interval: zero };
    // SAFETY: the kernel writes the itimerval.
    check(unsafe { libc::getitimer(which as _, &raw mut timer) })?;
    let since = |t: libc::timeval| {
        Duration::from_secs(u64::try_from(t.tv_sec).unwrap_or(0))
            + Duration::from_micros(u64::try_from(t.tv_usec).unwrap_or(0))
    };
    Ok((since(timer.it_value), since(timer.it_interval)))
}

fn timeval(time: Duration) -> libc::timeval {
    libc::timeval {
        tv_sec: libc::time_t::try_from(time.as_secs()).expect("seconds of a test"),
        tv_usec: libc::suseconds_t::from(time.subsec_micros()),
    }
}

/// A timer_create(2) timer by the kernel's own id, which glibc hides for signal timers only in
/// name: it is the value of `timer_t`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PosixTimer(pub(crate) i32);

impl PosixTimer {
    /// A timer on `clock` that sends `signal` with `value`.
    pub(crate) fn new(clock: libc::clockid_t, signal: i32, value: usize) -> io::Result<Self> {
        let event = MaybeUninit::<libc::sigevent>::zeroed();
        // SAFETY: all fields of a sigevent are integers and pointers, for which zeros are valid.
        let mut event = unsafe { event.assume_init() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = signal;
        event.sigev_value.sival_ptr = std::ptr::without_provenance_mut(value);
        let mut id: i32 = 0;
        // The raw call, because it is the kernel's id that an engine must give back.
        // SAFETY: the kernel reads the sigevent and writes one int.
        check_long(unsafe {
            libc::syscall(libc::SYS_timer_create, clock, &raw mut event, &raw mut id)
        })?;
        Ok(Self(id))
    }

    /// A timer on `clock` that sends `signal` with `value` to the thread `tid` (SIGEV_THREAD_ID).
    pub(crate) fn for_thread(
        clock: libc::clockid_t,
        signal: i32,
        value: usize,
        tid: i32,
    ) -> io::Result<Self> {
        let event = MaybeUninit::<libc::sigevent>::zeroed();
        // SAFETY: all fields of a sigevent are integers and pointers, for which zeros are valid.
        let mut event = unsafe { event.assume_init() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_notify_thread_id = tid;
        event.sigev_signo = signal;
        event.sigev_value.sival_ptr = std::ptr::without_provenance_mut(value);
        let mut id: i32 = 0;
        // SAFETY: the kernel reads the sigevent and writes one int.
        check_long(unsafe {
            libc::syscall(libc::SYS_timer_create, clock, &raw mut event, &raw mut id)
        })?;
        Ok(Self(id))
    }

    /// timer_settime(2), relative.
    pub(crate) fn set(self, value: Duration, every: Duration) -> io::Result<()> {
        let spec = libc::itimerspec { it_value: timespec(value), it_interval: timespec(every) };
        // SAFETY: the kernel reads the itimerspec; null asks for no old one.
        check_long(unsafe {
            libc::syscall(libc::SYS_timer_settime, self.0, 0, &raw const spec, 0_usize)
        })
        .map(drop)
    }

    /// timer_gettime(2): `(remaining, period)`.
    pub(crate) fn get(self) -> io::Result<(Duration, Duration)> {
        let zero = timespec(Duration::ZERO);
        let mut spec = libc::itimerspec { it_value: zero, it_interval: zero };
        // SAFETY: the kernel writes the itimerspec.
        check_long(unsafe { libc::syscall(libc::SYS_timer_gettime, self.0, &raw mut spec) })?;
        Ok((duration(spec.it_value), duration(spec.it_interval)))
    }

    /// timer_getoverrun(2): expirations that the last signal taken stands for, beyond its own.
    pub(crate) fn overrun(self) -> io::Result<u32> {
        // SAFETY: takes and gives integers.
        let overrun = check_long(unsafe { libc::syscall(libc::SYS_timer_getoverrun, self.0) })?;
        Ok(u32::try_from(overrun).unwrap_or(u32::MAX))
    }

    /// timer_delete(2).
    pub(crate) fn delete(self) -> io::Result<()> {
        // SAFETY: takes an integer.
        check_long(unsafe { libc::syscall(libc::SYS_timer_delete, self.0) }).map(drop)
    }
}

/// timerfd_create(2) and timerfd_settime(2), relative.
pub(crate) fn timerfd(
    clock: libc::clockid_t,
    value: Duration,
    every: Duration,
) -> io::Result<File> {
    // SAFETY: takes two integers.
    let fd = owned(unsafe { libc::timerfd_create(clock, libc::TFD_CLOEXEC) })?;
    let spec = libc::itimerspec { it_value: timespec(value), it_interval: timespec(every) };
    // SAFETY: the kernel reads the itimerspec; null asks for no old one.
    check(unsafe { libc::timerfd_settime(fd.as_raw_fd(), 0, &raw const spec, null_mut()) })?;
    Ok(File::from(fd))
}

/// timerfd_gettime(2): `(remaining, period)`.
pub(crate) fn timerfd_remaining(timer: &File) -> io::Result<(Duration, Duration)> {
    let zero = timespec(Duration::ZERO);
    let mut spec = libc::itimerspec { it_value: zero, it_interval: zero };
    // SAFETY: the kernel writes the itimerspec.
    check(unsafe { libc::timerfd_gettime(timer.as_raw_fd(), &raw mut spec) })?;
    Ok((duration(spec.it_value), duration(spec.it_interval)))
}

/// futex(FUTEX_WAIT): until woken, or for `time`.
pub(crate) fn futex_wait(word: &AtomicU32, value: u32, time: Option<Duration>) -> io::Result<()> {
    let time = time.map(timespec);
    let time = time.as_ref().map_or(null(), std::ptr::from_ref);
    // SAFETY: the word lives through the call; `time` is null or a timespec of this frame.
    check_long(unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, time)
    })
    .map(drop)
}

/// futex(FUTEX_WAKE): wakes up to `count` waiters and says how many there were.
pub(crate) fn futex_wake(word: &AtomicU32, count: i32) -> io::Result<i64> {
    // SAFETY: the word lives through the call.
    check_long(unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count) })
}
