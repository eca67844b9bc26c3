//! The jump into the blob. The one place where this program stops being itself.
//!
//! In: fresh memory at the blob's range. Out: nothing, ever.

use super::LaunchError;
use crate::plan::Lowered;
use std::convert::Infallible;
use tub_units::AddrRange;

/// Copies the code to the blob's range and moves the data there, takes the right to write from the code,
/// and jumps.
///
/// `code` is the first part of a range that [`tub_sys::map_fresh_at`] has just mapped for this
/// purpose, and the data range of `lowered` is the rest of it.
#[cfg(target_arch = "x86_64")]
pub(super) fn enter(
    code: AddrRange,
    blob: &[u8],
    entry: u64,
    lowered: &Lowered,
) -> Result<Infallible, LaunchError> {
    use std::arch::asm;
    let end = lowered.stubs_at + lowered.stubs.len() as u64;
    if code.start() + blob.len() as u64 > lowered.stubs_at || end > code.end() {
        return Err(LaunchError::System { what: "room for the blob", source: nix::Error::E2BIG });
    }
    let to = code.start() as *mut u8;
    // SAFETY: `code` is mapped, writable, used by nobody else, and at least as long as `blob`.
    unsafe { to.copy_from_nonoverlapping(blob.as_ptr(), blob.len()) };
    let to = lowered.stubs_at as *mut u8;
    // SAFETY: the plan placed the stubs behind the blob's code and sized `code` for both; it is mapped,
    // writable and used by nobody else.
    unsafe { to.copy_from_nonoverlapping(lowered.stubs.as_ptr(), lowered.stubs.len()) };
    // SAFETY: the plan sized the range so that the data fits behind the code, and nobody uses what is
    // there; nothing here looks at the data again, nor drops it: this ends in the blob or in exit(3).
    let moved = unsafe { lowered.data.move_to(lowered.header) };
    moved.map_err(|source| LaunchError::System { what: "memory for the blob", source })?;
    let len = usize::try_from(code.len()).unwrap_or(0);
    let rights = libc::PROT_READ | libc::PROT_EXEC;
    // SAFETY: nothing of Rust's lies in that range.
    let result = unsafe { libc::mprotect(code.start() as *mut libc::c_void, len, rights) };
    if result != 0 {
        let source = tub_sys::Errno::last();
        return Err(LaunchError::System { what: "right to execute the blob", source });
    }
    // SAFETY: the blob's entry expects the header in rdi and a stack in rsp, and never returns;
    // everything it needs lies in its own range, so that it may unmap all else, this code included.
    unsafe {
        asm!(
            "mov rsp, {stack}",
            "jmp {entry}",
            stack = in(reg) lowered.stack,
            entry = in(reg) code.start() + entry,
            in("rdi") lowered.header,
            options(noreturn),
        )
    }
}

/// On other architectures: refuses (design decision E15).
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn enter(
    _: AddrRange,
    _: &[u8],
    _: u64,
    _: &Lowered,
) -> Result<Infallible, LaunchError> {
    Err(LaunchError::Architecture)
}
