//! Gives the free memory of the Java heap back to the kernel, at the end of a garbage collection.
//!
//! In: the collector's name. Out: a heap of which only what lives is in memory, or the word that this
//! JVM's heap is not understood. Nothing is allocated for it, so that nobody runs out of memory.
//! Invariant: only what lies above the `top` of a space is given back, and only in the event at the
//! end of a collection, when no thread allocates; a wrong address is an error and no crash.
//! Not here: when that is due (`Heap.java`), and the heap of ZGC, whose spare memory no table shows.
//!
//! JVM(since 17): HotSpot tells debuggers where its structures are (`vm_tables`). Which spaces there are is the
//! same from 17 to 25, under the names below. JVM(since 17): the event is sent by the thread
//! that has stopped all threads of Java and with them the workers of Shenandoah, between whose phases it stands.

use crate::jvm::{Jvm, JvmError};
use crate::vm_tables::{Pages, Structs, own_memory, word};
use jni_sys::jint;
use std::ffi::c_void;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

/// JVM: `JVMTI_EVENT_GARBAGE_COLLECTION_FINISH` of `jvmti.h`.
const EVENT_FINISH: jint = 82;
/// JVM: `can_generate_garbage_collection_events`, bit 31 of jvmtiCapabilities.
const CAPABILITY_EVENTS: usize = 31;

/// How many regions a heap can have at most: 2 TB of those of 1 MB.
const REGIONS_MAX: u64 = 1 << 21;

/// The heap of which the next event gives back what is free, and whether that has gone well.
static ARMED: Mutex<Option<(Heap, bool)>> = Mutex::new(None);

/// Collects twice, since Shenandoah only has its memory back when the next collection begins, and gives
/// back what is free. `false` where the heap is not understood: then it has been collected.
pub(crate) fn collect(jvm: &Jvm, collector: &[u8]) -> Result<bool, JvmError> {
    let armed = Heap::find(collector);
    let knows = armed.is_some();
    *armed_heap() = armed.map(|heap| (heap, false));
    let twice = || jvm.collect_garbage().and_then(|()| jvm.collect_garbage());
    let collected = if knows {
        jvm.with_capability(CAPABILITY_EVENTS, || {
            jvm.set_event(true, EVENT_FINISH)?;
            let collected = twice();
            jvm.set_event(false, EVENT_FINISH)?;
            collected
        })
    } else {
        twice()
    };
    let disarmed = armed_heap().take();
    collected?;
    Ok(disarmed.is_some_and(|(_, given)| given))
}

fn armed_heap() -> std::sync::MutexGuard<'static, Option<(Heap, bool)>> {
    ARMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The event at the end of a collection, in which functions of JNI and JVMTI must not be called.
///
/// # Safety
/// For the JVM to call.
pub(crate) unsafe extern "C" fn collection_finished(_jvmti: *mut c_void) {
    if let Some((heap, given)) = armed_heap().as_mut()
        && let Some(spaces) = heap.spaces()
    {
        spaces.iter().for_each(Space::give_back);
        *given = true;
    }
}

/// A part of the heap that is filled from below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Space {
    bottom: u64,
    top: u64,
    end: u64,
}

impl Space {
    /// What the kernel gives and takes at a time.
    const PAGE: u64 = 4096;

    fn is_plausible(&self) -> bool {
        let words = [self.bottom, self.top, self.end];
        words.is_sorted() && words.iter().all(|address| address % 8 == 0)
    }

    /// The whole pages above `top`.
    fn free(&self) -> Option<(usize, usize)> {
        let start = usize::try_from(self.top.next_multiple_of(Self::PAGE)).ok()?;
        let end = usize::try_from(self.end - self.end % Self::PAGE).ok()?;
        (start < end).then(|| (start, end - start))
    }

    fn give_back(&self) {
        let Some((start, length)) = self.free() else { return };
        let address = std::ptr::without_provenance_mut::<c_void>(start);
        // By its number: the engine takes a library that imports madvise(2) for one that may count on
        // zeros afterwards, and does not map its process's memory lazily. Nobody counts on them here.
        // SAFETY: madvise(2) wants whole pages, which `free` has made of it. Nobody has anything there:
        // the JVM's own table has it above the top of a space, where it writes before it reads, and no
        // thread allocates during the event. Memory that is no memory of its own (a file, huge pages) keeps its
        // content or gives an error, which costs room in the image and nothing else.
        unsafe { libc::syscall(libc::SYS_madvise, address, length, libc::MADV_DONTNEED) };
    }
}

/// A heap whose spaces can be found, and the memory to read about them in.
struct Heap {
    kind: Kind,
    memory: File,
    bottom: u64,
    top: u64,
    end: u64,
}

/// Addresses of what the spaces are found by; it is looked at anew in each event.
enum Kind {
    /// Those of Serial and Parallel, each behind a pointer.
    Spaces(Vec<u64>),
    /// A table of pointers to regions, and how many: of G1 and Shenandoah.
    Regions { table: u64, count: u64 },
}

impl Heap {
    fn find(collector: &[u8]) -> Option<Self> {
        let memory = own_memory()?;
        let structs = Structs::read(&mut Pages::of(&memory))?;
        let pointer = |address: u64| word(&memory, address);
        let heap = pointer(structs.statik("Universe", "_collectedHeap")?)?;
        let field = |base: u64, types: &[&str], name| Some(base + structs.offset(types, name)?);
        let (types, kind): (&[&str], _) = match collector {
            b"Serial" => {
                let heaps = ["SerialHeap", "GenCollectedHeap"];
                let young = pointer(field(heap, &heaps, "_young_gen")?)?;
                let old = pointer(field(heap, &heaps, "_old_gen")?)?;
                let spaces = ["_eden_space", "_from_space", "_to_space"];
                let young = spaces.map(|name| field(young, &["DefNewGeneration"], name));
                let old = field(old, &["TenuredGeneration"], "_the_space");
                let spaces = young.into_iter().chain([old]).collect::<Option<_>>()?;
                (&["ContiguousSpace", "Space"], Kind::Spaces(spaces))
            }
            b"Parallel" => {
                let young = pointer(structs.statik("ParallelScavengeHeap", "_young_gen")?)?;
                let old = pointer(structs.statik("ParallelScavengeHeap", "_old_gen")?)?;
                let spaces = ["_eden_space", "_from_space", "_to_space"];
                let young = spaces.map(|name| field(young, &["PSYoungGen"], name));
                let old = field(old, &["PSOldGen"], "_object_space");
                let spaces = young.into_iter().chain([old]).collect::<Option<_>>()?;
                (&["MutableSpace"], Kind::Spaces(spaces))
            }
            b"G1" => {
                let manager = field(heap, &["G1CollectedHeap"], "_hrm")?;
                let managers = ["G1HeapRegionManager", "HeapRegionManager"];
                let regions = field(manager, &managers, "_regions")?;
                let table = pointer(field(regions, &["G1HeapRegionTable"], "_base")?)?;
                let count = pointer(field(regions, &["G1HeapRegionTable"], "_length")?)?;
                (&["G1HeapRegion", "HeapRegion"], Kind::Regions { table, count })
            }
            b"Shenandoah" => {
                let table = pointer(field(heap, &["ShenandoahHeap"], "_regions")?)?;
                let count = pointer(field(heap, &["ShenandoahHeap"], "_num_regions")?)?;
                (&["ShenandoahHeapRegion"], Kind::Regions { table, count })
            }
            _ => return None,
        };
        let [bottom, top, end] = ["_bottom", "_top", "_end"].map(|name| field(0, types, name));
        Some(Self { bottom: bottom?, top: top?, end: end?, kind, memory })
    }

    /// All spaces as they are now; none where one of them is not what a space looks like.
    fn spaces(&self) -> Option<Vec<Space>> {
        let pointers: Vec<u64> = match &self.kind {
            Kind::Spaces(pointers) => {
                pointers.iter().map(|&at| word(&self.memory, at)).collect::<Option<_>>()?
            }
            Kind::Regions { table, count } => {
                let count = (*count <= REGIONS_MAX).then_some(*count)?;
                let mut bytes = vec![0; usize::try_from(count * 8).ok()?];
                self.memory.read_exact_at(&mut bytes, *table).ok()?;
                let words = bytes.as_chunks::<8>().0.iter();
                // A region that was never in use is not there.
                words.map(|&word| u64::from_ne_bytes(word)).filter(|&at| at != 0).collect()
            }
        };
        let mut spaces = pointers.iter().map(|&at| self.space(at)).collect::<Option<Vec<_>>>()?;
        spaces.sort_by_key(|space| space.bottom);
        let apart = spaces.windows(2).all(|pair| pair[0].end <= pair[1].bottom);
        apart.then_some(spaces)
    }

    fn space(&self, at: u64) -> Option<Space> {
        let read = |offset: u64| word(&self.memory, at.checked_add(offset)?);
        let space =
            Space { bottom: read(self.bottom)?, top: read(self.top)?, end: read(self.end)? };
        space.is_plausible().then_some(space)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_pages_above_the_top_are_free() {
        let space = |top, end| Space { bottom: 0x10000, top, end };
        assert_eq!(space(0x10000, 0x12000).free(), Some((0x10000, 0x2000)));
        assert_eq!(space(0x10008, 0x12ff8).free(), Some((0x11000, 0x1000)));
        assert_eq!(space(0x11008, 0x12000).free(), None);
        assert!(space(0x11000, 0x12000).is_plausible());
        assert!(!space(0x13000, 0x12000).is_plausible());
        assert!(!space(0x10004, 0x12000).is_plausible());
    }

    #[test]
    fn a_process_that_is_no_jvm_has_no_heap() {
        assert!(Heap::find(b"G1").is_none());
    }
}
