//! Address spaces: every kind of private memory, and the file mappings that an image may refer to.

use crate::pattern;
use crate::stage::{Promise, Stage};
use crate::sys::{self, Mapping, PAGE, PAGE_WORDS};
use std::fs::{self, File, OpenOptions};
use std::hint::black_box;
use std::io;
use std::os::unix::fs::FileExt;

const READ: i32 = libc::PROT_READ;
const WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
const NONE: i32 = libc::PROT_NONE;

/// Pages of a 64 GiB reservation: more than the machine has, as a JVM does for its heap.
const RESERVED_PAGES: usize = 64 << 18;

/// Pages of a 1 GiB region of which few are touched.
const SPARSE_PAGES: usize = 1 << 18;

/// Every how many pages the sparse region is touched.
const SPARSE_STEP: usize = 1 << 14;

/// Levels of recursion across the checkpoint; with a page each, 4 MiB of stack.
const DEPTH: u64 = 1024;

/// Memory of every kind keeps its bytes, its protection and its meaning.
pub(crate) fn memory(stage: &'static Stage) -> io::Result<()> {
    // Ordinary memory.
    let mut plain = Mapping::anonymous(2048, WRITE, 0)?;
    pattern::fill(plain.words_mut(0, 2048), 1);

    // Zeros of both kinds: the shared zero page (read only), and pages written with zeros.
    let mut zeros = Mapping::anonymous(1024, WRITE, 0)?;
    black_box(zeros.words(0, 512).iter().fold(0, |sum, word| sum | word));
    zeros.words_mut(512, 512).fill(0);

    let mut read_only = Mapping::anonymous(16, WRITE, 0)?;
    pattern::fill(read_only.words_mut(0, 16), 2);
    read_only.protect(0, 16, READ)?;

    let mut forbidden = Mapping::anonymous(16, WRITE, 0)?;
    pattern::fill(forbidden.words_mut(0, 16), 3);
    forbidden.protect(0, 16, NONE)?;

    // Every second page read-only: two hundred mappings, none of which the kernel may join.
    let mut striped = Mapping::anonymous(200, WRITE, 0)?;
    pattern::fill(striped.words_mut(0, 200), 4);
    for page in (0..200).step_by(2) {
        striped.protect(page, 1, READ)?;
    }

    // The heap of brk(2).
    let heap_words = 256 * PAGE_WORDS;
    let heap = sys::grow_heap(256 * 4096)?.next_multiple_of(PAGE);
    sys::grow_heap(4096)?;
    // SAFETY: sbrk has just handed out these pages, and malloc leaves foreign ones alone.
    pattern::fill(unsafe { sys::words_at_mut(heap, heap_words) }, 5);
    let heap_end = sys::grow_heap(0)?;

    let mut reserved = Mapping::anonymous(RESERVED_PAGES, NONE, libc::MAP_NORESERVE)?;
    let committed = RESERVED_PAGES / 2;
    reserved.protect(committed, 8, WRITE)?;
    pattern::fill(reserved.words_mut(committed, 8), 6);

    let mut sparse = Mapping::anonymous(SPARSE_PAGES, WRITE, libc::MAP_NORESERVE)?;
    for page in (0..SPARSE_PAGES).step_by(SPARSE_STEP) {
        pattern::fill(sparse.words_mut(page, 1), 7 + page as u64);
    }

    let mut moved = Mapping::anonymous(4, WRITE, 0)?;
    pattern::fill(moved.words_mut(0, 4), 8);
    moved.grow(64)?;

    let private = PrivateFile::set_up(stage)?;
    let (shared_path, shared) = shared_file(stage)?;
    let (code, _) = answering_code(libc::PROT_READ | libc::PROT_EXEC)?;
    let (hidden_code, hidden) = answering_code(libc::PROT_EXEC)?;
    let hidden_from_readers = !hidden.is_readable(0)?;

    recurse(stage, DEPTH)?;

    stage.same("plain memory", &None, &pattern::first_difference(plain.words(0, 2048), 1));
    stage.holds("zero pages are zero", zeros.words(0, 1024).iter().all(|word| *word == 0));
    stage.same("read-only memory", &None, &pattern::first_difference(read_only.words(0, 16), 2));
    stage.same("read-only protection", &protection(&read_only)?, &"r--p".to_owned());
    stage.same("PROT_NONE protection", &protection(&forbidden)?, &"---p".to_owned());
    forbidden.protect(0, 16, READ)?;
    let difference = pattern::first_difference(forbidden.words(0, 16), 3);
    stage.same("PROT_NONE memory", &None, &difference);
    stage.same("striped memory", &None, &pattern::first_difference(striped.words(0, 200), 4));
    // SAFETY: grown above and only read since.
    let heap_words = unsafe { sys::words_at(heap, heap_words) };
    stage.same("brk heap", &None, &pattern::first_difference(heap_words, 5));
    // malloc may have grown it since; it never shrinks a heap whose end is not its own.
    stage.holds("brk heap ends where it did or later", sys::grow_heap(0)? >= heap_end);
    stage.works("growing the brk heap", sys::grow_heap(64 * 4096));
    let difference = pattern::first_difference(reserved.words(committed, 8), 6);
    stage.same("committed part of a reservation", &None, &difference);
    reserved.protect(committed + 100, 8, WRITE)?;
    let fresh = reserved.words(committed + 100, 8).iter().all(|word| *word == 0);
    stage.holds("newly committed pages of a reservation are zero", fresh);
    stage.holds("reservation counts as NORESERVE", has_flag(&reserved, "nr")?);
    for page in (0..SPARSE_PAGES).step_by(SPARSE_STEP) {
        let difference = pattern::first_difference(sparse.words(page, 1), 7 + page as u64);
        stage.same("touched page of sparse memory", &None, &difference);
        let hole = sparse.words(page + 1 + page % 97, 1).iter().all(|word| *word == 0);
        stage.holds("hole of sparse memory is zero", hole);
    }
    stage.same("moved memory", &None, &pattern::first_difference(moved.words(0, 4), 8));
    let grown = moved.words(4, 60).iter().all(|word| *word == 0);
    stage.holds("grown part of moved memory is zero", grown);
    private.check(stage)?;
    stage.same("shared file mapping", &None, &pattern::first_difference(shared.words(0, 8), 9));
    OpenOptions::new().write(true).open(shared_path)?.write_all_at(&[0x55; 8], 4096)?;
    stage.same("shared mapping sees writes", &0x5555_5555_5555_5555, &shared.words(1, 1)[0]);
    stage.same("generated code", &42, &code());
    // Where the processor has protection keys, the kernel guards it by one of its own.
    stage.same("code that is only run", &42, &hidden_code());
    stage.same("its protection", &protection(&hidden)?, &"--xp".to_owned());
    stage.same(
        "it can be read no more than before",
        &hidden_from_readers,
        &!hidden.is_readable(0)?,
    );

    // Writing everywhere it is allowed, once everything has been looked at.
    pattern::fill(plain.words_mut(0, 2048), 10);
    stage.same(
        "plain memory rewritten",
        &None,
        &pattern::first_difference(plain.words(0, 2048), 10),
    );
    zeros.words_mut(0, 1024).fill(11);
    stage.holds("zero pages take writes", zeros.words(0, 1024).iter().all(|word| *word == 11));
    Ok(())
}

/// A private file mapping: clean pages are the file's, dirty ones the process's own.
struct PrivateFile {
    file: File,
    mapping: Mapping,
}

impl PrivateFile {
    const PAGES: usize = 16;
    const DIRTY: [usize; 3] = [3, 7, 15];
    /// Written with zeros, which must not be taken for "nothing there".
    const ZEROED: usize = 9;

    fn set_up(stage: &Stage) -> io::Result<Self> {
        let path = stage.path("private");
        fs::write(&path, pattern::bytes(Self::PAGES * PAGE, 20))?;
        let file = File::open(&path)?;
        let mut mapping = Mapping::file(&file, Self::PAGES, WRITE, libc::MAP_PRIVATE)?;
        for page in Self::DIRTY {
            pattern::fill(mapping.words_mut(page, 1), 21 + page as u64);
        }
        mapping.words_mut(Self::ZEROED, 1).fill(0);
        Ok(Self { file, mapping })
    }

    fn check(&self, stage: &Stage) -> io::Result<()> {
        let mut on_disk = vec![0; Self::PAGES * PAGE];
        self.file.read_exact_at(&mut on_disk, 0)?;
        let unchanged = on_disk == pattern::bytes(Self::PAGES * PAGE, 20);
        stage.holds("file under a private mapping is unchanged", unchanged);
        for page in 0..Self::PAGES {
            let words = self.mapping.words(page, 1);
            if Self::DIRTY.contains(&page) {
                let difference = pattern::first_difference(words, 21 + page as u64);
                stage.same(&format!("dirty page {page} of a file mapping"), &None, &difference);
            } else if page == Self::ZEROED {
                let zero = words.iter().all(|word| *word == 0);
                stage.holds("zeroed page of a file mapping stays zero", zero);
            } else {
                let base = page * PAGE_WORDS;
                let clean = (base..).zip(words).all(|(i, w)| *w == pattern::word(20, i as u64));
                stage.holds(&format!("clean page {page} of a file mapping"), clean);
            }
        }
        Ok(())
    }
}

fn shared_file(stage: &Stage) -> io::Result<(std::path::PathBuf, Mapping)> {
    let path = stage.path("shared");
    fs::write(&path, pattern::bytes(8 * PAGE, 9))?;
    let mapping = Mapping::file(&File::open(&path)?, 8, READ, libc::MAP_SHARED)?;
    Ok((path, mapping))
}

/// Code as a just-in-time compiler leaves it: written to anonymous memory, then made executable.
fn answering_code(rights: i32) -> io::Result<(extern "C" fn() -> i32, Mapping)> {
    // mov eax, 42; ret
    let bytes = [0xb8, 42, 0, 0, 0, 0xc3, 0xcc, 0xcc];
    let mut page = Mapping::anonymous(1, WRITE, 0)?;
    page.words_mut(0, 1)[0] = u64::from_le_bytes(bytes);
    page.protect(0, 1, rights)?;
    let address: *const () = std::ptr::with_exposed_provenance(page.address());
    // SAFETY: the page holds a whole function of that signature, and mappings are never unmapped.
    let code = unsafe { std::mem::transmute::<*const (), extern "C" fn() -> i32>(address) };
    Ok((code, page))
}

/// Goes across the checkpoint at the bottom of a deep recursion, then checks each frame.
fn recurse(stage: &'static Stage, levels: u64) -> io::Result<()> {
    let mut frame = [0_u64; PAGE_WORDS];
    pattern::fill(black_box(&mut frame), 1000 + levels);
    if levels == 0 {
        stage.across()?;
        // The stack must be able to grow further down than it ever has.
        stage.holds("stack grows", deeper(256) == 256);
    } else {
        recurse(stage, levels - 1)?;
    }
    let difference = pattern::first_difference(black_box(&frame), 1000 + levels);
    stage.same(&format!("stack frame {levels} levels above"), &None, &difference);
    Ok(())
}

fn deeper(levels: u64) -> u64 {
    let mut frame = [levels; PAGE_WORDS];
    black_box(&mut frame);
    if levels == 0 { 0 } else { deeper(levels - 1) + u64::from(frame[7] == levels) }
}

/// After a restore into exact memory, MADV_DONTNEED gives zeros as it always did.
pub(crate) fn dontneed(stage: &'static Stage) -> io::Result<()> {
    let mut memory = Mapping::anonymous(64, WRITE, 0)?;
    pattern::fill(memory.words_mut(0, 64), 30);
    stage.across()?;
    memory.advise(16, 16, libc::MADV_DONTNEED)?;
    let discarded = memory.words(16, 16).iter().all(|word| *word == 0);
    if stage.promised(Promise::ExactMemory) || !stage.promised(Promise::Restored) {
        stage.holds("discarded pages are zero", discarded);
    }
    stage.same("pages before", &None, &pattern::first_difference(memory.words(0, 16), 30));
    let after = memory.words(32, 32);
    let kept = (32 * PAGE_WORDS..).zip(after).all(|(i, w)| *w == pattern::word(30, i as u64));
    stage.holds("pages after the discarded ones are kept", kept);
    Ok(())
}

/// MADV_WIPEONFORK memory is never stored: copies must not share a random generator.
pub(crate) fn wipe_on_fork(stage: &'static Stage) -> io::Result<()> {
    let mut secret = Mapping::anonymous(4, WRITE, 0)?;
    secret.advise(0, 4, libc::MADV_WIPEONFORK)?;
    pattern::fill(secret.words_mut(0, 4), 40);
    stage.across()?;
    if stage.promised(Promise::Restored) {
        let wiped = secret.words(0, 4).iter().all(|word| *word == 0);
        stage.holds("MADV_WIPEONFORK memory is zero in a copy", wiped);
    } else {
        let difference = pattern::first_difference(secret.words(0, 4), 40);
        stage.same("MADV_WIPEONFORK memory without a copy", &None, &difference);
    }
    stage.holds("MADV_WIPEONFORK is still in force", has_flag(&secret, "wf")?);
    Ok(())
}

/// The `rwxp` column of the line that holds the whole mapping; neighbours may have joined it.
fn protection(mapping: &Mapping) -> io::Result<String> {
    let wanted = mapping.address()..mapping.address() + mapping.len();
    let maps = fs::read_to_string("/proc/self/maps")?;
    let line = maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        (start <= wanted.start && wanted.end <= end).then(|| rest[..4].to_owned())
    });
    Ok(line.unwrap_or_else(|| format!("no line for {wanted:x?}")))
}

/// Whether the mapping that starts where `mapping` does has the VmFlag `flag`.
pub(crate) fn has_flag(mapping: &Mapping, flag: &str) -> io::Result<bool> {
    let start = format!("{:x}-", mapping.address());
    let smaps = fs::read_to_string("/proc/self/smaps")?;
    let flags = smaps
        .lines()
        .skip_while(|line| !line.starts_with(&start))
        .find_map(|line| line.strip_prefix("VmFlags:"));
    Ok(flags.is_some_and(|flags| flags.split_whitespace().any(|word| word == flag)))
}
