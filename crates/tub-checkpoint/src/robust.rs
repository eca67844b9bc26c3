//! Futexes in which a thread's id stands as that of their owner, as far as the kernel knows of them.
//!
//! In: a frozen process. Out: how many robust ones a thread holds, and whether it waits for a
//! priority-inheriting one. Invariant: nothing about the process is changed; a list that leads
//! nowhere is read as far as it goes.
//! Not here: recursive and error-checking mutexes, whose owner only the C library knows.

use tub_tracee::Frozen;
use tub_units::{NsPid, RemoteAddr};

/// KERNEL: ROBUST_LIST_LIMIT (linux/futex.h): further on the kernel does not go either.
const ENTRIES_MAX: u32 = 2048;
/// FUTEX_TID_MASK (linux/futex.h).
const OWNER: u32 = 0x3fff_ffff;

/// Entries of the robust list at `head` that the thread `tid` owns.
pub(crate) fn held(frozen: &Frozen, head: u64, tid: NsPid) -> u32 {
    let word = |at: u64| frozen.read_u64(RemoteAddr(at)).ok();
    // struct robust_list_head: the first entry, the offset of the futex in an entry, and the entry
    // that is being locked or unlocked. Bit 0 of a pointer marks a priority-inheriting futex.
    let (Some(mut entry), Some(offset)) = (word(head), word(head.wrapping_add(8))) else {
        return 0;
    };
    let mut held = 0;
    for _ in 0..ENTRIES_MAX {
        entry &= !1;
        if entry == head || entry == 0 {
            break;
        }
        let mut futex = [0; 4];
        if frozen.read(RemoteAddr(entry.wrapping_add(offset)), &mut futex).is_err() {
            break;
        }
        held += u32::from(u32::from_ne_bytes(futex) & OWNER == tid.0.cast_unsigned());
        match word(entry) {
            Some(next) => entry = next,
            None => break,
        }
    }
    held
}
