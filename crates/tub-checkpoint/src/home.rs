//! How borrowed threads find home should this program be killed (see `tub_tracee::CallSite`).
//!
//! In: a frozen process. Out: registers to go on with, and memory for the way. Invariant: that
//! memory holds nothing that the process will ever read.

use crate::caller::read_words;
use crate::registers::{self, CriticalSection, Interruption};
use crate::{Error, Result, Survey, SurveyedThread, memory};
use std::collections::HashMap;
use tub_model::RemainingWait;
use tub_restorer_abi::{STUB_BYTES, Stub};
use tub_tracee::{CallSite, Frozen, StoppedThread, WayHome};
use tub_units::{AddrRange, HostPid, RemoteAddr};

/// Below the stack pointer, code may use as much without saying so (x86-64 psABI, 3.2.2).
const RED_ZONE_BYTES: u64 = 128;

/// Where the process can make system calls for us, as far as that can be seen while it runs: to search
/// its code takes too long for one that stands still.
pub(crate) fn likely_call_site(survey: &Survey) -> Option<CallSite> {
    let read = |at, to: &mut [u8]| {
        let length = to.len();
        tub_sys::process_vm_read(survey.pid, at, to).is_ok_and(|read| read == length)
    };
    CallSite::find(read, executable(survey)).filter(CallSite::has_way_home)
}

fn executable(survey: &Survey) -> impl Iterator<Item = (AddrRange, &str)> + Clone {
    let executable = survey.mappings.iter().filter(|record| record.map.perms.execute);
    executable.map(|one| (one.map.range, one.map.path.as_deref().unwrap_or("")))
}

/// Where the process can make system calls for us: where it could before, if it still can.
pub(crate) fn call_site(
    frozen: &Frozen,
    survey: &Survey,
    likely: Option<CallSite>,
) -> Result<CallSite> {
    let read = |at, to: &mut [u8]| frozen.read(at, to).is_ok();
    let ranges = executable(survey).map(|(range, _)| range);
    if let Some(site) = likely.filter(|site| site.is_there(read, ranges)) {
        return Ok(site);
    }
    CallSite::find(read, executable(survey)).ok_or_else(|| Error::Remote {
        what: "a system call instruction".to_owned(),
        pid: frozen.pid(),
        source: tub_sys::Errno::ENOEXEC,
    })
}

/// A thread's registers as they must be for it to go on elsewhere: an interrupted system call settled,
/// a restartable sequence aborted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resting {
    /// In a copy.
    pub(crate) registers: [u64; 27],
    /// The wait that the copy goes on with.
    pub(crate) wait: Option<RemainingWait>,
    /// Whether the thread waits for a futex with its owner's id in it.
    pub(crate) waits_for_owner: bool,
    /// In the original, should it have to go on by itself.
    pub(crate) at_home: [u64; 27],
}

impl Resting {
    /// Those of `stopped`. `waited_ns` says for how long threads have been waiting.
    pub(crate) fn of(
        frozen: &Frozen,
        survey: &Survey,
        stopped: StoppedThread,
        waited_ns: &HashMap<HostPid, u64>,
    ) -> Result<Self> {
        let mut registers = without_critical_section(frozen, stopped)?;
        let waits_for_owner = registers::waits_for_owner(&registers);
        let timespec = |at| {
            let [seconds, nanoseconds] = read_words(frozen, RemoteAddr(at)).ok()?;
            // For ever may be any number of seconds.
            Some(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
        };
        let status = survey.threads.iter().find(|thread| thread.tid == stopped.tid());
        let due = status.map_or(0, |SurveyedThread { status, .. }| {
            (status.sig_pnd | status.shd_pnd) & !status.sig_blk & !status.sig_ign
        });
        let interruption = Interruption {
            waited_ns: waited_ns.get(&stopped.tid()).copied(),
            signal_due: due != 0,
            timespec: &timespec,
        };
        let mut wait = registers::settle(&mut registers, &interruption);
        // It has no stub to wait in for what is left.
        let at_home = if wait.is_some() { registers::interrupted(registers) } else { registers };
        if let Some(stub) = stub(frozen, survey, &registers)? {
            wait = registers::leave_stub(&mut registers, wait, stub, &timespec);
        }
        Ok(Self { registers, wait, waits_for_owner, at_home })
    }
}

/// Whether a thread still runs the blob of the restore that the process came from.
pub(crate) fn on_its_way_back(frozen: &Frozen, survey: &Survey) -> Result<bool> {
    for stopped in frozen.threads() {
        let registers =
            stopped.registers().map_err(|source| Error::Tracee { pid: survey.pid, source })?;
        if in_blob(survey, &registers)? && stub(frozen, survey, &registers)?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn in_blob(survey: &Survey, registers: &[u64; 27]) -> Result<bool> {
    let at = registers[registers::RIP];
    let code = survey.mappings.iter().position(|record| record.map.range.contains(at));
    let Some(code) = code else { return Ok(false) };
    let header = memory::blob_of_earlier_restore(survey.pid, &survey.mappings[code..])?;
    Ok(header.is_some())
}

/// The stub of an earlier restore that a thread waits in.
fn stub(frozen: &Frozen, survey: &Survey, registers: &[u64; 27]) -> Result<Option<Stub>> {
    if !in_blob(survey, registers)? {
        return Ok(None);
    }
    let mut bytes = [0; STUB_BYTES];
    frozen
        .read(RemoteAddr(registers::stub_address(registers)), &mut bytes)
        .map_err(|source| Error::Tracee { pid: survey.pid, source })?;
    Ok(Stub::from_bytes(&bytes))
}

fn without_critical_section(frozen: &Frozen, stopped: StoppedThread) -> Result<[u64; 27]> {
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
/// What lies below the stack pointer is nobody's: a signal handler would run there, and the stack would
/// grow for it, as it does for us. A thread that
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
    if stack.contains(below)
        && below.checked_sub(bytes).is_some_and(|low| low >= stack.start() || grows(frozen, low))
    {
        return Some(WayHome { top: below, registers });
    }
    let mut far = vec![1; usize::try_from(bytes.min(stack.len())).ok()?];
    frozen.read(RemoteAddr(stack.start()), &mut far).ok()?;
    let untouched = far.len() as u64 == bytes && far.iter().all(|byte| *byte == 0);
    untouched.then_some(WayHome { top: stack.start() + bytes, registers })
}

/// Whether the main stack can be had down to `low`, where nothing is mapped yet. The survey's
/// mapping stays as it was: what has grown holds nothing.
///
/// KERNEL(since 2.6): access to another process's memory lets its stack grow, within its limit
/// (`__access_remote_vm`, mm/memory.c).
fn grows(frozen: &Frozen, low: u64) -> bool {
    frozen.write(RemoteAddr(low), &[0]).is_ok()
}
