//! Where in an address space there is room for what the image does not have: the blob, and another
//! kernel's vdso.

use super::PlanError;
use tub_model::Task;
use tub_units::{AddrRange, PAGE_BYTES};

/// End of the user's half of the address space on x86-64 with four-level page tables
/// (Documentation/arch/x86/x86_64/mm.rst): the last page is never mapped.
pub(super) const TASK_SIZE: u64 = 0x7fff_ffff_f000;

/// Where places for the blob are looked for, and for a vdso: never the same, since the distance
/// between them is no multiple of the step.
pub(super) const BLOB_PLACE: u64 = 0x1000_0000_0000;
pub(super) const VDSO_PLACE: u64 = BLOB_PLACE + (1 << 35);

/// A range that the image does not use, where programs and kernel place nothing either: between
/// the low mappings and the half where position-independent executables live.
pub(super) fn free_place(task: &Task, first: u64, bytes: u64) -> Result<AddrRange, PlanError> {
    const STEP: u64 = 1 << 36;
    let bytes = bytes.next_multiple_of(PAGE_BYTES);
    (0..64u64)
        .filter_map(|step| AddrRange::with_len(first + step * STEP, bytes))
        .find(|range| {
            // A page to spare on both sides, so that nothing merges with it.
            let guarded = AddrRange::new(range.start() - PAGE_BYTES, range.end() + PAGE_BYTES);
            guarded.is_some_and(|guarded| task.vmas.iter().all(|vma| !vma.range.overlaps(guarded)))
        })
        .ok_or(PlanError::NoRoom { bytes })
}
