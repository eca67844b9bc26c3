//! How borrowed threads find home should this program be killed (see `tub_tracee::CallSite`).
//!
//! In: a frozen process. Out: registers to go on with, and memory for the way. Invariant: that
//! memory holds nothing that the process will ever read.

use crate::registers::{self, CriticalSection};
use crate::{Error, Result, Survey};
use tub_tracee::{CallSite, Frozen, StoppedThread, WayHome};
use tub_units::{AddrRange, RemoteAddr};

/// Below the stack pointer, code may use as much without saying so (x86-64 psABI, 3.2.2).
const RED_ZONE_BYTES: u64 = 128;

/// Where the process can make system calls for us.
pub(crate) fn call_site(frozen: &Frozen, survey: &Survey) -> Result<CallSite> {
    let executable = survey.mappings.iter().filter(|record| record.map.perms.execute);
    let named = executable.map(|one| (one.map.range, one.map.path.as_deref().unwrap_or("")));
    CallSite::find(frozen, named).ok_or_else(|| Error::Remote {
        what: "a system call instruction".to_owned(),
        pid: frozen.pid(),
        source: tub_sys::Errno::ENOEXEC,
    })
}

/// The registers of a thread as they must be for it to go on elsewhere: an interrupted system call
/// settled, a restartable sequence aborted.
pub(crate) fn resting_registers(frozen: &Frozen, stopped: StoppedThread) -> Result<[u64; 27]> {
    let tracee = |source| Error::Tracee { pid: frozen.pid(), source };
    let mut general = stopped.registers().map_err(tracee)?;
    if let Some(rseq) = stopped.rseq().map_err(tracee)? {
        // struct rseq (linux/rseq.h): the pointer to the critical section is at offset 8.
        let pointer = frozen.read_u64(RemoteAddr(rseq.address + 8)).map_err(tracee)?;
        if pointer != 0 {
            let section = critical_section(frozen, RemoteAddr(pointer))?;
            registers::abort_critical_section(&mut general, section);
        }
    }
    registers::settle(&mut general);
    Ok(general)
}

fn critical_section(frozen: &Frozen, at: RemoteAddr) -> Result<CriticalSection> {
    // struct rseq_cs: version u32, flags u32, start, offset after commit, abort.
    let mut raw = [0u8; 32];
    frozen.read(at, &mut raw).map_err(|source| Error::Tracee { pid: frozen.pid(), source })?;
    let [flags, start, len, abort] = [0, 8, 16, 24].map(|at: usize| {
        u64::from_ne_bytes(raw[at..at + 8].try_into().expect("eight bytes of thirty-two"))
    });
    let flags = u32::try_from(flags >> 32).unwrap_or(u32::MAX);
    Ok(CriticalSection { flags, start, len, abort })
}

/// A way home for the main thread, in its own stack, as long as there is no other memory for it.
///
/// What lies below the stack pointer is nobody's: a signal handler would run there. A thread that
/// stands on another stack (a coroutine's, a goroutine's) may have put something of value right
/// below it; then the far end of the main stack serves, if nobody has ever got there. `None` where
/// neither is to be had: the process is borrowed without a way home then.
pub(crate) fn on_the_main_stack(
    frozen: &Frozen,
    survey: &Survey,
    registers: [u64; 27],
    bytes: u64,
) -> Option<WayHome> {
    let stack = survey
        .mappings
        .iter()
        .find(|record| record.map.path.as_deref() == Some("[stack]") && record.map.perms.write)?;
    let stack: AddrRange = stack.map.range;
    let below = registers[registers::RSP].checked_sub(RED_ZONE_BYTES)?;
    if below < stack.end() && below.checked_sub(bytes).is_some_and(|low| low >= stack.start()) {
        return Some(WayHome { top: below, registers });
    }
    let mut far = vec![1; usize::try_from(bytes.min(stack.len())).ok()?];
    frozen.read(RemoteAddr(stack.start()), &mut far).ok()?;
    let untouched = far.len() as u64 == bytes && far.iter().all(|byte| *byte == 0);
    untouched.then_some(WayHome { top: stack.start() + bytes, registers })
}
