//! The kernel's edge for subjects: one safe function for each call that std does not have.
//!
//! In: plain values. Out: `io::Result`.
//! Invariant: nothing here decides anything; each function is one call.
//! Not here: handlers and assembly, which stand where they are used.

use std::fs::File;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{null, null_mut};
use std::slice;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Bytes of a page on x86-64.
pub(crate) const PAGE: usize = 4096;

/// Words of a page.
pub(crate) const PAGE_WORDS: usize = PAGE / size_of::<u64>();

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_long(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    let fd = check(fd)?;
    // SAFETY: the kernel has just handed out `fd`, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

// ---------------------------------------------------------------------------------------- memory

/// A mapping of our own.
///
/// Reading where the protection forbids it ends the subject by SIGSEGV; for a test that is a
/// verdict like any other.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: *mut u8,
    len: usize,
}

// SAFETY: a `Mapping` owns its pages like a `Box<[u8]>`: only `&mut` writes to them.
unsafe impl Send for Mapping {}
// SAFETY: through `&Mapping` pages are only read.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// mmap(2) of `pages` anonymous private pages, with more `MAP_*` `flags`.
    pub(crate) fn anonymous(pages: usize, prot: i32, flags: i32) -> io::Result<Self> {
        Self::map(pages, prot, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags, -1)
    }

    /// mmap(2) of the first `pages` of `file`; `flags` says private or shared.
    pub(crate) fn file(file: &File, pages: usize, prot: i32, flags: i32) -> io::Result<Self> {
        Self::map(pages, prot, flags, file.as_raw_fd())
    }

    fn map(pages: usize, prot: i32, flags: i32, fd: RawFd) -> io::Result<Self> {
        let len = pages * PAGE;
        // SAFETY: without MAP_FIXED, mmap touches no existing mapping.
        let start = unsafe { libc::mmap(null_mut(), len, prot, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), len })
    }

    /// mremap(2) to `pages`, wherever there is room.
    pub(crate) fn grow(&mut self, pages: usize) -> io::Result<()> {
        let len = pages * PAGE;
        // SAFETY: the mapping is ours, and `&mut self` shows that nothing borrows from it.
        let start = unsafe { libc::mremap(self.start.cast(), self.len, len, libc::MREMAP_MAYMOVE) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        self.start = start.cast();
        self.len = len;
        Ok(())
    }

    /// mprotect(2) of `pages` from `first`.
    pub(crate) fn protect(&mut self, first: usize, pages: usize, prot: i32) -> io::Result<()> {
        let at = self.page(first, pages);
        // SAFETY: the range lies in this mapping (`page` checks), which nothing borrows from.
        check(unsafe { libc::mprotect(at.cast(), pages * PAGE, prot) }).map(drop)
    }

    /// madvise(2) on `pages` from `first`.
    pub(crate) fn advise(&mut self, first: usize, pages: usize, advice: i32) -> io::Result<()> {
        let at = self.page(first, pages);
        // SAFETY: the range lies in this mapping (`page` checks), which nothing borrows from.
        check(unsafe { libc::madvise(at.cast(), pages * PAGE, advice) }).map(drop)
    }

    /// Address of the first byte.
    pub(crate) fn address(&self) -> usize {
        self.start.addr()
    }

    /// Length in bytes.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The words of `pages` from `first`.
    pub(crate) fn words(&self, first: usize, pages: usize) -> &[u64] {
        let at = self.page(first, pages).cast();
        // SAFETY: mapped by us, aligned to a page, and any bits make a u64.
        unsafe { slice::from_raw_parts(at, pages * PAGE_WORDS) }
    }

    /// The words of `pages` from `first`, to be written.
    pub(crate) fn words_mut(&mut self, first: usize, pages: usize) -> &mut [u64] {
        let at = self.page(first, pages).cast();
        // SAFETY: as in `words`; `&mut self` makes the access exclusive.
        unsafe { slice::from_raw_parts_mut(at, pages * PAGE_WORDS) }
    }

    fn page(&self, first: usize, pages: usize) -> *mut u8 {
        assert!((first + pages) * PAGE <= self.len, "page {first}+{pages} of {} bytes", self.len);
        self.start.wrapping_add(first * PAGE)
    }
}

/// sbrk(2): moves the end of the heap by `bytes` and gives the old one.
pub(crate) fn grow_heap(bytes: isize) -> io::Result<usize> {
    // SAFETY: glibc's malloc copes with a heap that others grow (malloc(3), "foreign sbrk").
    let old = unsafe { libc::sbrk(bytes) };
    if old.addr() == usize::MAX { Err(io::Error::last_os_error()) } else { Ok(old.addr()) }
}

/// The `words` at `address`.
///
/// # Safety
///
/// They are mapped, readable, and written by nobody meanwhile.
pub(crate) unsafe fn words_at<'a>(address: usize, words: usize) -> &'a [u64] {
    // SAFETY: the caller's promise; every bit pattern is a u64.
    unsafe { slice::from_raw_parts(std::ptr::with_exposed_provenance(address), words) }
}

/// The `words` at `address`, to be written.
///
/// # Safety
///
/// They are mapped, writable, and used by nobody else meanwhile.
pub(crate) unsafe fn words_at_mut<'a>(address: usize, words: usize) -> &'a mut [u64] {
    // SAFETY: the caller's promise; every bit pattern is a u64.
    unsafe { slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut(address), words) }
}

// ----------------------------------------------------------------------------------- descriptors

/// eventfd(2).
pub(crate) fn eventfd(count: u32, flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers.
    owned(unsafe { libc::eventfd(count, flags) })
}

/// epoll_create1(2).
pub(crate) fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: takes an integer.
    owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
}

/// epoll_ctl(2): `operation` on `target` with `events` and the word `data`.
pub(crate) fn epoll_ctl(
    epoll: &OwnedFd,
    operation: i32,
    target: impl AsFd,
    events: i32,
    data: u64,
) -> io::Result<()> {
    let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: data };
    let target = target.as_fd().as_raw_fd();
    // SAFETY: `event` is read during the call only.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, target, &raw mut event) })
        .map(drop)
}

/// epoll_wait(2): `(events, data)` of what is ready, sorted by data. `timeout_ms` -1 is for ever.
pub(crate) fn epoll_wait(epoll: &OwnedFd, timeout_ms: i32) -> io::Result<Vec<(u32, u64)>> {
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 16];
    // SAFETY: the kernel writes at most the 16 entries that are there.
    let ready =
        check(unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), 16, timeout_ms) })?;
    let ready = usize::try_from(ready).unwrap_or(0);
    let mut found: Vec<_> = events[..ready].iter().map(|e| (e.events, e.u64)).collect();
    found.sort_by_key(|(_, data)| *data);
    Ok(found)
}

/// pipe2(2): reading end, writing end.
pub(crate) fn pipe(flags: i32) -> io::Result<(File, File)> {
    let mut fds = [0; 2];
    // SAFETY: the kernel writes the two integers.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), flags) })?;
    Ok((File::from(owned(fds[0])?), File::from(owned(fds[1])?)))
}

/// fcntl(2) with an integer argument.
pub(crate) fn fcntl(fd: impl AsFd, command: i32, argument: i32) -> io::Result<i32> {
    // SAFETY: the commands used here take an integer.
    check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), command, argument) })
}

/// dup3(2) to the number `to`.
pub(crate) fn dup_to(fd: impl AsFd, to: RawFd, flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: `to` is a number that the subject uses for nothing else.
    owned(unsafe { libc::dup3(fd.as_fd().as_raw_fd(), to, flags) })
}

/// ioctl(FIONREAD): bytes that could be read.
pub(crate) fn readable_bytes(fd: impl AsFd) -> io::Result<i32> {
    let mut bytes = 0;
    // SAFETY: FIONREAD writes one int.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut bytes) })?;
    Ok(bytes)
}

/// getdents64(2): names of the next entries; at most what fits into `bytes`.
pub(crate) fn next_entries(directory: &File, bytes: usize) -> io::Result<Vec<String>> {
    let mut buffer = vec![0_u8; bytes];
    // SAFETY: the kernel writes at most `bytes` bytes into the buffer.
    let read = check_long(unsafe {
        libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), buffer.as_mut_ptr(), bytes)
    })?;
    buffer.truncate(usize::try_from(read).unwrap_or(0));
    let mut names = Vec::new();
    let mut rest = buffer.as_slice();
    // struct linux_dirent64: u64 inode, i64 offset, u16 record length, u8 type, name, NUL.
    while rest.len() > 19 {
        let record = usize::from(u16::from_ne_bytes([rest[16], rest[17]]));
        let name: Vec<u8> = rest[19..record].iter().copied().take_while(|b| *b != 0).collect();
        names.push(String::from_utf8_lossy(&name).into_owned());
        rest = &rest[record..];
    }
    Ok(names)
}

/// socketpair(2) of unix sockets.
pub(crate) fn socketpair(kind: i32) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: the kernel writes the two integers.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })?;
    Ok((owned(fds[0])?, owned(fds[1])?))
}

/// getsockopt(2) of an integer option.
pub(crate) fn socket_option(fd: impl AsFd, level: i32, name: i32) -> io::Result<i32> {
    let mut value: libc::c_int = 0;
    let mut len = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("4 fits");
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: `len` says that there is room for an int, and the kernel writes no more.
    check(unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut len) })?;
    Ok(value)
}

/// setsockopt(2) of an integer option.
pub(crate) fn set_socket_option(
    fd: impl AsFd,
    level: i32,
    name: i32,
    value: i32,
) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("4 fits");
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the kernel reads one int.
    check(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) }).map(drop)
}

/// poll(2) of one descriptor for `events`; what came of it, 0 after `timeout_ms`.
pub(crate) fn poll(fd: BorrowedFd<'_>, events: i16, timeout_ms: i32) -> io::Result<i16> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: one entry is announced, and one is there.
    check(unsafe { libc::poll(&raw mut entry, 1, timeout_ms) })?;
    Ok(entry.revents)
}

/// ppoll(2) of one descriptor for `events`, without timeout.
pub(crate) fn ppoll_for_ever(fd: BorrowedFd<'_>, events: i16) -> io::Result<i16> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: one entry is announced, and one is there; null means no timeout, no mask.
    check(unsafe { libc::ppoll(&raw mut entry, 1, null(), null()) })?;
    Ok(entry.revents)
}

/// io_uring_setup(2) with room for 4 entries.
pub(crate) fn io_uring() -> io::Result<OwnedFd> {
    // struct io_uring_params is 120 bytes; zeros ask for the defaults.
    let mut params = [0_u64; 15];
    // SAFETY: the kernel reads and writes the 120 bytes.
    let fd =
        check_long(unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, params.as_mut_ptr()) })?;
    owned(libc::c_int::try_from(fd).expect("a descriptor is an int"))
}

/// A pseudo-terminal's master end.
pub(crate) fn pty() -> io::Result<OwnedFd> {
    // SAFETY: takes flags only.
    owned(unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY) })
}

// ----------------------------------------------------------------------------------------- time

fn timespec(time: Duration) -> libc::timespec {
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

// --------------------------------------------------------------------------------------- futexes

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

// --------------------------------------------------------------------------------------- signals

/// What a handler installed here is called with.
pub(crate) type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// A set of `signals`.
pub(crate) fn signal_set(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset writes the whole set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in signals {
        // SAFETY: the set was initialised above.
        unsafe { libc::sigaddset(set.as_mut_ptr(), *signal) };
    }
    // SAFETY: initialised by sigemptyset.
    unsafe { set.assume_init() }
}

/// The members of `set`.
pub(crate) fn signals_in(set: &libc::sigset_t) -> Vec<i32> {
    // SAFETY: sigismember reads the set.
    (1..=64).filter(|signal| unsafe { libc::sigismember(set, *signal) } == 1).collect()
}

/// pthread_sigmask(3): adds `signals` to those blocked in this thread.
pub(crate) fn block(signals: &[i32]) {
    let set = signal_set(signals);
    // SAFETY: the set is read; null asks for no old one.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, null_mut()) };
}

/// The signals blocked in this thread.
pub(crate) fn blocked() -> Vec<i32> {
    let mut set = signal_set(&[]);
    // SAFETY: null changes nothing; the old set is written.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, null(), &raw mut set) };
    signals_in(&set)
}

/// sigaction(2) with a handler, or SIG_IGN or SIG_DFL as its address.
pub(crate) fn set_action(
    signal: i32,
    handler: usize,
    flags: i32,
    masked: &[i32],
) -> io::Result<()> {
    let action = libc::sigaction {
        sa_sigaction: handler,
        sa_mask: signal_set(masked),
        sa_flags: flags,
        sa_restorer: None,
    };
    // SAFETY: handlers of subjects touch atomics only.
    check(unsafe { libc::sigaction(signal, &raw const action, null_mut()) }).map(drop)
}

/// Installs `handler` with SA_SIGINFO and `flags`.
pub(crate) fn handle(signal: i32, handler: Handler, flags: i32, masked: &[i32]) -> io::Result<()> {
    set_action(signal, handler as usize, flags | libc::SA_SIGINFO, masked)
}

/// The action of `signal`: handler, flags, mask.
pub(crate) fn action(signal: i32) -> io::Result<(usize, i32, Vec<i32>)> {
    let mut found = libc::sigaction {
        sa_sigaction: 0,
        sa_mask: signal_set(&[]),
        sa_flags: 0,
        sa_restorer: None,
    };
    // SAFETY: null changes nothing; the old action is written.
    check(unsafe { libc::sigaction(signal, null(), &raw mut found) })?;
    Ok((found.sa_sigaction, found.sa_flags, signals_in(&found.sa_mask)))
}

/// sigqueue(3) to the process `pid`.
pub(crate) fn queue(pid: i32, signal: i32, value: usize) -> io::Result<()> {
    let value = libc::sigval { sival_ptr: std::ptr::without_provenance_mut(value) };
    // SAFETY: takes values only.
    check(unsafe { libc::sigqueue(pid, signal, value) }).map(drop)
}

/// pthread_sigqueue(3) to `thread`.
pub(crate) fn queue_to(thread: libc::pthread_t, signal: i32, value: usize) -> io::Result<()> {
    unsafe extern "C" {
        // Not in the libc crate; pthread_sigqueue(3), glibc 2.11.
        fn pthread_sigqueue(
            thread: libc::pthread_t,
            signal: libc::c_int,
            value: libc::sigval,
        ) -> libc::c_int;
    }
    let value = libc::sigval { sival_ptr: std::ptr::without_provenance_mut(value) };
    // SAFETY: subjects keep their threads alive until they have joined them.
    match unsafe { pthread_sigqueue(thread, signal, value) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// pthread_kill(3).
pub(crate) fn signal_thread(thread: libc::pthread_t, signal: i32) -> io::Result<()> {
    // SAFETY: subjects keep their threads alive until they have joined them.
    match unsafe { libc::pthread_kill(thread, signal) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// raise(3).
pub(crate) fn raise(signal: i32) -> io::Result<()> {
    // SAFETY: takes an integer.
    check(unsafe { libc::raise(signal) }).map(drop)
}

/// pthread_self(3).
pub(crate) fn this_thread() -> libc::pthread_t {
    // SAFETY: always succeeds.
    unsafe { libc::pthread_self() }
}

/// A signal that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Its number.
    pub(crate) signal: i32,
    /// `si_code`.
    pub(crate) code: i32,
    /// `si_value`.
    pub(crate) value: usize,
}

/// sigtimedwait(2) for one of `signals`; `None` after `time`. EINTR is tolerated, because
/// signal(7) documents it for stop signals and restarts.
pub(crate) fn take(signals: &[i32], time: Duration) -> io::Result<Option<Taken>> {
    let set = signal_set(signals);
    let time = timespec(time);
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: set and time are read, info is written.
    match check(unsafe { libc::sigtimedwait(&raw const set, info.as_mut_ptr(), &raw const time) }) {
        Ok(signal) => {
            // SAFETY: zeroed at first, written by the kernel since.
            let info = unsafe { info.assume_init() };
            // SAFETY: the signals that subjects wait for carry a value (SI_QUEUE, SI_TIMER) or
            // zeros in its place.
            let value = unsafe { info.si_value() };
            Ok(Some(Taken { signal, code: info.si_code, value: value.sival_ptr.addr() }))
        }
        Err(error) => match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Ok(None),
            _ => Err(error),
        },
    }
}

/// pause(2).
pub(crate) fn pause() {
    // SAFETY: takes nothing.
    unsafe { libc::pause() };
}

/// sigaltstack(2): `(address, size, flags)` of the stack in force, after setting `new` if given.
pub(crate) fn alternate_stack(new: Option<&mut Mapping>) -> io::Result<(usize, usize, i32)> {
    let new = new.map(|memory| libc::stack_t {
        ss_sp: memory.words_mut(0, 1).as_mut_ptr().cast(),
        ss_flags: 0,
        ss_size: memory.len(),
    });
    let wanted = new.as_ref().map_or(null(), std::ptr::from_ref);
    let mut found = libc::stack_t { ss_sp: null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: the memory of a subject's stack is leaked or outlives its thread.
    check(unsafe { libc::sigaltstack(wanted, null_mut()) })?;
    // SAFETY: null changes nothing; the stack in force is written.
    check(unsafe { libc::sigaltstack(null(), &raw mut found) })?;
    Ok((found.ss_sp.addr(), found.ss_size, found.ss_flags))
}

/// sigaltstack(2): `(address, size, flags)` of the stack in force; may be asked in a handler.
pub(crate) fn alternate_stack_in_force() -> (usize, usize, i32) {
    let mut found = libc::stack_t { ss_sp: null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: null changes nothing; the stack in force is written.
    unsafe { libc::sigaltstack(null(), &raw mut found) };
    (found.ss_sp.addr(), found.ss_size, found.ss_flags)
}

// ------------------------------------------------------------------------------------- the process

/// gettid(2).
pub(crate) fn gettid() -> i32 {
    // SAFETY: takes nothing.
    unsafe { libc::gettid() }
}

/// umask(2), unchanged.
pub(crate) fn umask() -> u32 {
    // SAFETY: takes an integer.
    let mask = unsafe { libc::umask(0) };
    // SAFETY: takes an integer.
    unsafe { libc::umask(mask) };
    mask
}

/// umask(2).
pub(crate) fn set_umask(mask: u32) {
    // SAFETY: takes an integer.
    unsafe { libc::umask(mask) };
}

/// getrlimit(2): `(soft, hard)`.
pub(crate) fn limit(resource: u32) -> io::Result<(u64, u64)> {
    let mut found = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes the rlimit. (The type of `resource` differs between libcs.)
    check(unsafe { libc::getrlimit(resource as _, &raw mut found) })?;
    Ok((found.rlim_cur, found.rlim_max))
}

/// setrlimit(2).
pub(crate) fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let wanted = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the kernel reads the rlimit.
    check(unsafe { libc::setrlimit(resource as _, &raw const wanted) }).map(drop)
}

/// prctl(2) with one integer argument.
pub(crate) fn prctl(option: i32, argument: u64) -> io::Result<i32> {
    // SAFETY: the options used here take integers.
    check(unsafe { libc::prctl(option, argument, 0_u64, 0_u64, 0_u64) })
}

/// prctl(2) with an option that writes one int.
pub(crate) fn prctl_int(option: i32) -> io::Result<i32> {
    let mut value = 0;
    // SAFETY: the options used here write one int.
    check(unsafe { libc::prctl(option, &raw mut value) })?;
    Ok(value)
}

/// personality(2): as it is, or changed to `new`.
pub(crate) fn personality(new: Option<u64>) -> io::Result<i32> {
    // SAFETY: takes an integer; all ones asks.
    check(unsafe { libc::personality(new.unwrap_or(0xffff_ffff)) })
}

/// getpriority(2) of this thread.
pub(crate) fn nice() -> i32 {
    // SAFETY: takes integers. (-1 is a nice value here; an own thread always has one.)
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

/// setpriority(2) of this thread.
pub(crate) fn set_nice(nice: i32) -> io::Result<()> {
    // SAFETY: takes integers.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }).map(drop)
}

/// sched_getscheduler(2) of this thread.
pub(crate) fn scheduler() -> io::Result<i32> {
    // SAFETY: takes an integer; 0 is the calling thread.
    check(unsafe { libc::sched_getscheduler(0) })
}

/// sched_setscheduler(2) of this thread to an ordinary `policy`.
pub(crate) fn set_scheduler(policy: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads the parameters.
    check(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) }).map(drop)
}

/// setsid(2).
pub(crate) fn lead_session() -> io::Result<()> {
    // SAFETY: takes nothing.
    check(unsafe { libc::setsid() }).map(drop)
}

/// getsid(2) of this process.
pub(crate) fn session() -> io::Result<i32> {
    // SAFETY: takes an integer; 0 is the caller.
    check(unsafe { libc::getsid(0) })
}

/// arch_prctl(ARCH_SET_GS): the base that user code may use freely.
pub(crate) fn set_gs_base(base: u64) -> io::Result<()> {
    const ARCH_SET_GS: i32 = 0x1001;
    // SAFETY: nothing on x86-64 Linux uses gs in user space, so nothing can break.
    check_long(unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, base) }).map(drop)
}

/// arch_prctl(ARCH_GET_GS).
pub(crate) fn gs_base() -> io::Result<u64> {
    const ARCH_GET_GS: i32 = 0x1004;
    let mut base = 0_u64;
    // SAFETY: the kernel writes one u64.
    check_long(unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_GET_GS, &raw mut base) })?;
    Ok(base)
}
