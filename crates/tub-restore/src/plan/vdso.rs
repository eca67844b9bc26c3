//! An image whose vdso is not this kernel's.
//!
//! In: the vdso of the image, that of this kernel. Out: operations. Pure.
//! Invariant: whoever calls a function of the image's vdso gets this kernel's.
//!
//! The process knows addresses of functions in the vdso that it grew up with: the C library asked
//! for them once, at its start. Code and data of a vdso belong together and to one kernel. So the
//! image keeps the code, and where another kernel runs, it comes back as ordinary memory in which
//! each function starts with a jump to this kernel's, mapped elsewhere. The data that it read is
//! not there any more; nobody reads it.
//!
//! ```text
//!   image's place     -      | [vdso] of the image, as memory:  __vdso_time: jmp ──┐
//!   free place      [vvar]   | [vdso] of this kernel                __vdso_time: ◀─┘
//! ```

use super::{PlanError, PlanOp};
use tub_image::PageRun;
use tub_model::{Backing, Protection, Task, VdsoFacts, VdsoFunction};
use tub_units::{AddrRange, RemoteAddr};

/// Bytes of the longest entry that is written over a function.
const ENTRY_BYTES: u64 = 13;

const READ_WRITE: Protection = Protection { read: true, write: true, execute: false };
const READ_EXECUTE: Protection = Protection { read: true, write: false, execute: true };

/// The two vdsos to be bridged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bridge<'a> {
    /// The image's.
    pub(super) image: &'a VdsoFacts,
    /// This kernel's.
    pub(super) here: &'a VdsoFacts,
    /// Where this kernel's goes, its data first.
    pub(super) place: AddrRange,
}

/// Operations that map this kernel's vdso and lead the image's to it.
pub(super) fn plan(
    task: &Task,
    runs: &[PageRun],
    bridge: Bridge<'_>,
) -> Result<Vec<PlanOp>, PlanError> {
    let Bridge { image, here, place } = bridge;
    let mut ops = vec![PlanOp::MapVdso(RemoteAddr(place.start())), PlanOp::CheckMapped(place)];
    let code_here = place.start() + here.vvar_bytes;
    for vma in task.vmas.iter().filter(|vma| vma.backing == Backing::Vdso) {
        let Some(&code) = vma.saved.first() else { continue };
        let inside =
            |thread: &&tub_model::Thread| vma.range.contains(thread.registers.general[RIP]);
        if let Some(thread) = task.threads.iter().find(inside) {
            return Err(PlanError::InsideVdso { tid: thread.tid });
        }
        ops.push(PlanOp::MapAnonymous {
            range: code,
            protection: READ_WRITE,
            no_reserve: false,
            grows_down: false,
            droppable: false,
        });
        for run in runs.iter().filter(|run| code.covers(run.range)) {
            ops.push(PlanOp::ReadPages { range: run.range, offset_bytes: run.offset_bytes });
        }
        for function in &image.functions {
            let bytes = entry(function, here, code_here).filter(|bytes| {
                // The next function must not be written over.
                let start = function.offset_bytes;
                let end = start.saturating_add(bytes.len() as u64);
                let mut starts = image.functions.iter().map(|other| other.offset_bytes);
                end <= code.len() && !starts.any(|at| start < at && at < end)
            });
            let name = &function.name;
            let bytes = bytes.ok_or_else(|| PlanError::Vdso { function: name.clone() })?;
            let at = RemoteAddr(code.start() + function.offset_bytes);
            ops.push(PlanOp::Write { at, bytes });
        }
        ops.push(PlanOp::Protect { range: code, protection: READ_EXECUTE });
    }
    Ok(ops)
}

/// Index of `rip` in `struct user_regs_struct` (sys/user.h).
const RIP: usize = 16;

/// What to write over the start of a function: a jump to this kernel's, or the system call that it
/// stands for; `None` where there is neither.
fn entry(function: &VdsoFunction, here: &VdsoFacts, code_here: u64) -> Option<Vec<u8>> {
    // The state that __vdso_getrandom is handed has a layout of its own in each kernel
    // (vgetrandom_state): the system call does without.
    let bound_to_kernel = function.name == "__vdso_getrandom";
    let same = here.functions.iter().find(|other| other.name == function.name);
    if let Some(same) = same.filter(|_| !bound_to_kernel) {
        return Some(jump(code_here + same.offset_bytes));
    }
    Some(system_call(match function.name.as_str() {
        "__vdso_clock_gettime" => libc::SYS_clock_gettime,
        "__vdso_clock_getres" => libc::SYS_clock_getres,
        "__vdso_gettimeofday" => libc::SYS_gettimeofday,
        "__vdso_time" => SYS_TIME,
        "__vdso_getcpu" => libc::SYS_getcpu,
        "__vdso_getrandom" => libc::SYS_getrandom,
        _ => return None,
    }))
}

/// arch/x86/entry/syscalls/syscall_64.tbl; other architectures have no such call.
const SYS_TIME: i64 = 201;

/// `mov r11, target; jmp r11`: r11 is nobody's across a call (System V ABI, 3.2.1).
fn jump(target: u64) -> Vec<u8> {
    let mut bytes = vec![0x49, 0xbb];
    bytes.extend(target.to_le_bytes());
    bytes.extend([0x41, 0xff, 0xe3]);
    debug_assert_eq!(bytes.len() as u64, ENTRY_BYTES);
    bytes
}

/// `mov eax, number; syscall; ret`: functions of the vdso take and return what the calls do.
fn system_call(number: i64) -> Vec<u8> {
    let mut bytes = vec![0xb8];
    bytes.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend([0x0f, 0x05, 0xc3]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, offset_bytes: u64) -> VdsoFunction {
        VdsoFunction { name: name.to_owned(), offset_bytes }
    }

    #[test]
    fn functions_lead_to_their_namesakes_or_to_the_kernel() {
        let here = VdsoFacts {
            functions: vec![function("__vdso_getrandom", 0x900), function("__vdso_time", 0xa00)],
            ..VdsoFacts::default()
        };
        let entry = |name: &str| entry(&function(name, 0x100), &here, 0x7000_0000_0000);
        let time = [0x49, 0xbb, 0, 0x0a, 0, 0, 0, 0x70, 0, 0, 0x41, 0xff, 0xe3];
        assert_eq!(entry("__vdso_time").unwrap(), time);
        assert_eq!(entry("__vdso_getrandom").unwrap(), [0xb8, 62, 1, 0, 0, 0x0f, 5, 0xc3]);
        assert_eq!(entry("__vdso_getcpu").unwrap(), [0xb8, 53, 1, 0, 0, 0x0f, 5, 0xc3]);
        assert_eq!(entry("__vdso_of_tomorrow"), None);
    }
}
