//! Which programs and libraries of a process may give pages back with `madvise`.
//!
//! In: the mapped files of a process, frozen or not. Out: [`Discarder`]s; whether they count on
//! zeros is for the plan to judge.
//! Invariant: an object that cannot be looked into is listed as such, never left out.
//! Not here: calls that need no symbol: of the C library in itself, and of assembly in libraries.

use crate::Survey;
use object::elf::{FileHeader64, PT_DYNAMIC, SHT_DYNSYM};
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _, Sym as _};
use object::{Endianness, ReadCache};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use tub_model::{DiscardKind, Discarder};
use tub_procfs::maps::MapsRecord;
use tub_tracee::Frozen;
use tub_units::{HostPid, RemoteAddr};

/// The functions with which pages can be discarded. `posix_madvise` is none of them: glibc and musl
/// ignore its POSIX_MADV_DONTNEED (posix_madvise(3)).
const FUNCTIONS: [&[u8]; 2] = [b"madvise", b"process_madvise"];

/// By which an object becomes the allocator of the whole process.
const ALLOCATES: &[u8] = b"malloc";

const ELF_MAGIC: [u8; 4] = *b"\x7fELF";

/// What was found in files so far, each by device and inode, and whether it is the program: a
/// runtime that exports a hundred thousand symbols is not to be read while the process stands still.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeenObjects(HashMap<(u64, u64, bool), Option<DiscardKind>>);

impl SeenObjects {
    /// Looks into all files that `survey` has mapped.
    pub(crate) fn look(&mut self, survey: &Survey) {
        let _ = self.of_files(survey);
    }

    /// The discarders of a process, ascending by path.
    pub(crate) fn discarders(&mut self, frozen: &Frozen, survey: &Survey) -> Vec<Discarder> {
        let mut discarders = self.of_files(survey);
        for record in &survey.mappings {
            if let Some(name) = object_in_memory(frozen, &record.map) {
                discarders.insert((name, DiscardKind::Unknown));
            }
        }
        discarders.into_iter().map(|(path, kind)| Discarder { path, kind }).collect()
    }

    fn of_files(&mut self, survey: &Survey) -> BTreeSet<(String, DiscardKind)> {
        let mut discarders = BTreeSet::new();
        for map in survey.mappings.iter().map(|record| &record.map) {
            let Some(path) = mapped_file(map) else { continue };
            let is_program = path == survey.exe.strip_suffix(" (deleted)").unwrap_or(&survey.exe);
            let kind =
                *self.0.entry((map.dev, map.inode, is_program)).or_insert_with(|| {
                    match open(survey.pid, map, path, is_program) {
                        Ok(file) => kind(&file, is_program),
                        Err(_) => is_code(survey, map).then_some(DiscardKind::Unknown),
                    }
                });
            discarders.extend(kind.map(|kind| (path.to_owned(), kind)));
        }
        discarders
    }
}

/// The path of what may be a program or library.
fn mapped_file(map: &MapsRecord) -> Option<&str> {
    let path = map.path.as_deref().filter(|path| path.starts_with('/'))?;
    (!map.perms.shared && map.inode != 0 && !is_page_store(path)).then_some(path)
}

fn is_page_store(path: &str) -> bool {
    path.rsplit('/').next() == Some(tub_image::PAGES_FILE)
}

/// Whether any part of the mapped file may be executed.
fn is_code(survey: &Survey, map: &MapsRecord) -> bool {
    let mut maps = survey.mappings.iter().map(|record| &record.map);
    maps.any(|other| (other.dev, other.inode) == (map.dev, map.inode) && other.perms.execute)
}

fn open(pid: HostPid, map: &MapsRecord, path: &str, is_program: bool) -> io::Result<File> {
    if is_program {
        return File::open(format!("/proc/{pid}/exe"));
    }
    if map.deleted {
        // proc_pid_map_files(5): for the privileged only.
        let range = map.range;
        return File::open(format!("/proc/{pid}/map_files/{:x}-{:x}", range.start(), range.end()));
    }
    // In a mount namespace of its own; or in a root directory of its own, whose name we see.
    File::open(format!("/proc/{pid}/root{path}")).or_else(|_| File::open(path))
}

/// What was an object file once: it came from a file that is no more, and an earlier restore made
/// memory of it. Of what is only there as memory, nothing is known.
fn object_in_memory(frozen: &Frozen, map: &MapsRecord) -> Option<String> {
    let path = map.path.as_deref().unwrap_or_default();
    let is_file = path.starts_with('/') && !is_page_store(path);
    let kernels = path.starts_with("[v");
    if is_file || kernels || !map.perms.read || map.perms.write || map.perms.shared {
        return None;
    }
    // What cannot be read here, a guard page, is no header.
    let start = map.range.start();
    if frozen.read_u64(RemoteAddr(start)).ok()?.to_le_bytes()[..4] != ELF_MAGIC {
        return None;
    }
    // A vdso that came along from another kernel calls nothing.
    let mut bytes = vec![0; usize::try_from(map.range.len().min(VDSO_BYTES_MAX)).unwrap_or(0)];
    let is_read = frozen.read(RemoteAddr(start), &mut bytes).is_ok();
    let is_vdso = is_read && bytes.windows(VDSO_NAME.len()).any(|part| part == VDSO_NAME);
    (!is_vdso).then(|| format!("a library in memory at {start:#x}"))
}

/// `DT_SONAME` of the vdso (arch/x86/entry/vdso/vdso.lds.S).
const VDSO_NAME: &[u8] = b"linux-vdso.so.1\0";

/// It has two pages on Linux 6.18.
const VDSO_BYTES_MAX: u64 = 16 * 1024;

/// How the object in `file` may discard pages, if it is one and may.
fn kind(file: &File, is_program: bool) -> Option<DiscardKind> {
    let mut magic = [0; 4];
    let is_elf = file.read_exact_at(&mut magic, 0).is_ok() && magic == ELF_MAGIC;
    if !is_elf {
        return None;
    }
    read(file, is_program).unwrap_or(Some(DiscardKind::Unknown))
}

/// The same for an ELF file. Read piece by piece: the symbols are a small part of a library.
fn read(file: &File, is_program: bool) -> object::Result<Option<DiscardKind>> {
    let data = ReadCache::new(file);
    let header = FileHeader64::<Endianness>::parse(&data)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, &data)?;
    if !segments.iter().any(|segment| segment.p_type(endian) == PT_DYNAMIC) {
        // No library, then: a program, or one that is only looked at.
        return Ok(is_program.then_some(DiscardKind::Static));
    }
    let sections = header.sections(endian, &data)?;
    let Some(table) = sections.iter().find(|section| section.sh_type(endian) == SHT_DYNSYM) else {
        return Ok(Some(DiscardKind::Unknown));
    };
    let symbols: &[object::elf::Sym64<Endianness>] = table.data_as_array(endian, &data)?;
    let names = sections.section(table.link(endian))?.data(endian, &data)?;
    let (mut imports, mut calls, mut allocates) = (false, false, false);
    for symbol in symbols.iter().skip(1) {
        let name = names.get(symbol.st_name(endian) as usize..).unwrap_or_default();
        let is =
            |wanted: &[u8]| name.strip_prefix(wanted).is_some_and(|rest| rest.starts_with(b"\0"));
        if symbol.is_undefined(endian) {
            imports = true;
            calls |= FUNCTIONS.into_iter().any(is);
        } else {
            allocates |= is(ALLOCATES);
        }
    }
    Ok(match (calls, allocates) {
        // A static executable that may lie anywhere has a dynamic section as well, but for itself.
        _ if is_program && !imports => Some(DiscardKind::Static),
        (true, true) => Some(DiscardKind::Allocator),
        (true, false) => Some(DiscardKind::Imports),
        (false, _) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_makes_the_call_itself_and_imports_nothing() {
        let own = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = own.lines().filter_map(|line| line.split_whitespace().nth(5));
        let libc = libc.into_iter().find(|path| path.contains("libc.so")).expect("mapped");
        assert_eq!(kind(&File::open(libc).unwrap(), false), None);
    }

    #[test]
    fn what_is_no_elf_file_discards_nothing_and_a_damaged_one_might() {
        let path = std::env::temp_dir().join(format!("tub-discarders-{}", std::process::id()));
        let of = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            kind(&File::open(&path).unwrap(), false)
        };
        assert_eq!(of(b""), None);
        assert_eq!(of(b"PK\x03\x04 a jar"), None);
        assert_eq!(of(b"\x7fELF and no more"), Some(DiscardKind::Unknown));
        let _ = std::fs::remove_file(&path);
    }
}
