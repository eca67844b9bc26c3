//! Signals.

use super::check;
use super::memory::Mapping;
use super::time::timespec;
use std::io;
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};
use std::time::Duration;

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
