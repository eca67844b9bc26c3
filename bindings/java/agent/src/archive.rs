//! Has the JVM map its archive of classes at the address for which the archive was made.
//!
//! In: the JVM's own options, before it maps anything. Out: `ArchiveRelocationMode` 0, unless somebody has set
//! that option himself. Invariant: what is not understood is left alone.
//!
//! At a random address every page of the archive with a pointer on it is changed, and so belongs to the process,
//! and to each image of it: 10 MB of the 50 of a small service. Copies of an image have the same addresses
//! all the same (decision 0021).
//!
//! JVM(since 17): `MetaspaceShared::initialize_runtime_shared_and_meta_spaces` reads the option when it maps the
//! archive, after the agents of the command line were loaded. Its value was 0 by itself until some update of 17.

use crate::vm_tables::{Pages, Structs, own_memory, size_of};
use std::fs::File;
use std::os::unix::fs::FileExt;

const OPTION: &str = "ArchiveRelocationMode";
/// JVM: `JVMFlag::VALUE_ORIGIN_MASK` and `JVMFlagOrigin::DEFAULT` of `jvmFlag.hpp`.
const ORIGIN: u32 = 15;
const BY_DEFAULT: u32 = 0;
/// More options than any JVM has.
const OPTIONS_MAX: u64 = 10_000;

/// Whether it was done; `None` where this JVM's options are not understood.
pub(crate) fn keep_in_place() -> Option<bool> {
    let memory = own_memory()?;
    let mut pages = Pages::of(&memory);
    let structs = Structs::read(&mut pages)?;
    let size = size_of(&mut pages, "JVMFlag")?;
    let table = pages.word(structs.statik("JVMFlag", "flags")?)?;
    let count = pages.word(structs.statik("JVMFlag", "numFlags")?)?;
    let [name, address, flags] =
        ["_name", "_addr", "_flags"].map(|field| structs.offset(&["JVMFlag"], field));
    let (name, address, flags) = (name?, address?, flags?);
    for option in (0..count.min(OPTIONS_MAX)).map(|index| table + index * size) {
        let named = pages.word(option + name)?;
        // The last of them has no name.
        if named == 0 || pages.text(named).as_deref() != Some(OPTION) {
            continue;
        }
        let value = pages.word(option + address)?;
        if pages.int(option + flags)? & ORIGIN != BY_DEFAULT || pages.int(value)? != 1 {
            return Some(false);
        }
        // An `int` of 25 and the lower half of an `intx` of 17, whose upper half is zero.
        let memory = File::options().write(true).open("/proc/self/mem").ok()?;
        memory.write_all_at(&0_u32.to_ne_bytes(), value).ok()?;
        return Some(true);
    }
    Some(false)
}
