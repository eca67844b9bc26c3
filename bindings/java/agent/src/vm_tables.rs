//! What HotSpot tells debuggers about itself.
//!
//! In: the tables that its library exports (`gHotSpotVMStructs`, `gHotSpotVMTypes`, read by the serviceability
//! agent). Out: where the fields of its structures are, by type and name, and how large a type is.
//! Invariant: memory is read through the kernel, so that a wrong address is no crash; what is not understood
//! is `None`.
//! Not here: what the structures hold (`archive`, `free_space`), which changes, while the tables do not.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// More fields than any JVM tells of.
const ENTRIES_MAX: u64 = 10_000;
const NAME_MAX: usize = 64;
const PAGE: usize = 4096;

/// A word of this process's memory, read through the kernel: what is told by a table need not be right.
pub(crate) fn word(memory: &File, address: u64) -> Option<u64> {
    let mut word = [0; 8];
    memory.read_exact_at(&mut word, address).ok()?;
    Some(u64::from_ne_bytes(word))
}

/// This process's memory, to be read.
pub(crate) fn own_memory() -> Option<File> {
    File::open("/proc/self/mem").ok()
}

/// Memory that does not change, each page of it read once: the tables have thousands of names, which
/// lie side by side.
pub(crate) struct Pages<'a> {
    memory: &'a File,
    read: HashMap<u64, Box<[u8; PAGE]>>,
}

impl<'a> Pages<'a> {
    pub(crate) fn of(memory: &'a File) -> Self {
        Self { memory, read: HashMap::new() }
    }

    fn page(&mut self, number: u64) -> Option<&[u8; PAGE]> {
        if !self.read.contains_key(&number) {
            let mut page = Box::new([0; PAGE]);
            self.memory.read_exact_at(&mut *page, number.checked_mul(PAGE as u64)?).ok()?;
            self.read.insert(number, page);
        }
        self.read.get(&number).map(|page| &**page)
    }

    /// The byte there and those after it on the same page.
    fn rest(&mut self, address: u64) -> Option<&[u8]> {
        let within = usize::try_from(address % PAGE as u64).ok()?;
        self.page(address / PAGE as u64)?.get(within..)
    }

    fn array<const N: usize>(&mut self, address: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let mut done = 0;
        while done < N {
            let rest = self.rest(address.checked_add(done as u64)?)?;
            let length = rest.len().min(N - done);
            bytes[done..done + length].copy_from_slice(&rest[..length]);
            done += length;
        }
        Some(bytes)
    }

    /// A word.
    pub(crate) fn word(&mut self, address: u64) -> Option<u64> {
        self.array(address).map(u64::from_ne_bytes)
    }

    /// An `int`.
    pub(crate) fn int(&mut self, address: u64) -> Option<u32> {
        self.array(address).map(u32::from_ne_bytes)
    }

    /// A string, as far as it is worth reading.
    pub(crate) fn text(&mut self, address: u64) -> Option<String> {
        let mut text = Vec::new();
        while text.len() < NAME_MAX {
            let rest = self.rest(address.checked_add(text.len() as u64)?)?;
            let (part, ends) = match rest.iter().position(|byte| *byte == 0) {
                Some(end) => (&rest[..end], true),
                None => (rest, false),
            };
            text.extend_from_slice(&part[..part.len().min(NAME_MAX)]);
            if ends {
                return String::from_utf8(text).ok();
            }
        }
        None
    }
}

fn symbol(name: &CStr) -> Option<u64> {
    // SAFETY: dlsym(3) wants a string with an end; the JVM's library is global to the process.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address.addr() as u64)
}

/// Where each field is, by type and name.
#[derive(Default)]
pub(crate) struct Structs(HashMap<(String, String), Place>);

#[derive(Clone, Copy)]
struct Place {
    is_static: bool,
    /// An address if static, else an offset.
    at: u64,
}

impl Structs {
    /// JVM: `VMStructEntry` of `vmStructs.hpp`, whose layout has its own symbols: words at these places.
    const LAYOUT: [&'static CStr; 6] = [
        c"gHotSpotVMStructEntryTypeNameOffset",
        c"gHotSpotVMStructEntryFieldNameOffset",
        c"gHotSpotVMStructEntryIsStaticOffset",
        c"gHotSpotVMStructEntryOffsetOffset",
        c"gHotSpotVMStructEntryAddressOffset",
        c"gHotSpotVMStructEntryArrayStride",
    ];

    pub(crate) fn read(pages: &mut Pages<'_>) -> Option<Self> {
        let mut layout = [0; 6];
        for (place, name) in layout.iter_mut().zip(Self::LAYOUT) {
            *place = pages.word(symbol(name)?)?;
        }
        let [type_name, field_name, is_static, offset, address, stride] = layout;
        let table = pages.word(symbol(c"gHotSpotVMStructs")?)?;
        let mut structs = Self::default();
        for entry in (0..ENTRIES_MAX).map(|index| table + index * stride) {
            let name = pages.word(entry + type_name)?;
            if name == 0 {
                break;
            }
            let name = pages.text(name)?;
            let field = pages.word(entry + field_name)?;
            let Some(field) = pages.text(field) else { continue };
            // An int32_t of its own.
            let is_static = pages.int(entry + is_static)? != 0;
            let at = pages.word(entry + if is_static { address } else { offset })?;
            structs.0.insert((name, field), Place { is_static, at });
        }
        Some(structs)
    }

    /// The address of a static field.
    pub(crate) fn statik(&self, type_name: &str, field: &str) -> Option<u64> {
        let place = self.0.get(&(type_name.to_owned(), field.to_owned()))?;
        place.is_static.then_some(place.at)
    }

    /// Where a field is within the first of these types that has it.
    pub(crate) fn offset(&self, types: &[&str], field: &str) -> Option<u64> {
        let key = |name: &str| (name.to_owned(), field.to_owned());
        let place = types.iter().find_map(|name| self.0.get(&key(name)))?;
        (!place.is_static).then_some(place.at)
    }
}

/// How many bytes a type has. JVM: `VMTypeEntry` of `vmStructs.hpp`.
pub(crate) fn size_of(pages: &mut Pages<'_>, wanted: &str) -> Option<u64> {
    let mut layout = [0; 3];
    let symbols = [
        c"gHotSpotVMTypeEntryTypeNameOffset",
        c"gHotSpotVMTypeEntrySizeOffset",
        c"gHotSpotVMTypeEntryArrayStride",
    ];
    for (place, name) in layout.iter_mut().zip(symbols) {
        *place = pages.word(symbol(name)?)?;
    }
    let [type_name, size, stride] = layout;
    let table = pages.word(symbol(c"gHotSpotVMTypes")?)?;
    for entry in (0..ENTRIES_MAX).map(|index| table + index * stride) {
        let name = pages.word(entry + type_name)?;
        if name == 0 {
            break;
        }
        if pages.text(name).as_deref() == Some(wanted) {
            return pages.word(entry + size);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_words_are_read_across_pages_and_nothing_is_read_where_nothing_is() {
        let memory = own_memory().unwrap();
        let mut pages = Pages::of(&memory);
        let mut room = vec![b'x'; 3 * PAGE];
        let start = room.as_ptr().addr().next_multiple_of(PAGE) - room.as_ptr().addr();
        let border = start + PAGE;
        room[border - 3..border + 5].copy_from_slice(b"a name\0x");
        let address = room.as_ptr().addr() as u64 + border as u64 - 3;
        assert_eq!(pages.text(address).as_deref(), Some("a name"));
        assert_eq!(pages.word(address), Some(u64::from_ne_bytes(*b"a name\0x")));
        assert_eq!(pages.int(address), Some(u32::from_ne_bytes(*b"a na")));
        // No end to be found within what a name may have.
        assert_eq!(pages.text(address - 500), None);
        assert_eq!((pages.word(8), pages.text(8), word(&memory, 8)), (None, None, None));
        assert_eq!(pages.word(u64::MAX - 3), None);
    }

    #[test]
    fn a_process_that_is_no_jvm_has_no_tables() {
        let memory = own_memory().unwrap();
        let mut pages = Pages::of(&memory);
        assert!(Structs::read(&mut pages).is_none());
        assert_eq!(size_of(&mut pages, "JVMFlag"), None);
    }
}
