//! Which mappings and which of their pages belong into the image.
//!
//! In: smaps records, the kernel's page map, the process's memory. Out: [`Vma`]s.
//! Invariant: mappings come out ascending and disjoint; a page that is not among the saved ones is
//! either zero or comes from the mapping's file.

use crate::memory_files::MemoryFiles;
use crate::{Error, Result, Survey};
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use tub_model::{Backing, FileIdentity, Lock, Protection, Vma};
use tub_procfs::smaps::SmapsRecord;
use tub_restorer_abi::{BLOB_MAGIC, RawHeader};
use tub_sys::{Errno, PAGE_IS_FILE, PAGE_IS_GUARD, PAGE_IS_PFNZERO, RawPageRegion};
use tub_tracee::Frozen;
use tub_units::{AddrRange, HostPid, PAGE_BYTES, RemoteAddr};

/// Saved pages closer together than this are one run: a mapping of its own costs more at every
/// restore than these pages do in the image.
const JOIN_GAP_BYTES: u64 = 16 * PAGE_BYTES;

/// The mappings of a frozen process.
pub(crate) fn collect(
    frozen: &Frozen,
    survey: &Survey,
    memory_files: &MemoryFiles,
) -> Result<Vec<Vma>> {
    let (pid, mappings) = (frozen.pid(), &survey.mappings);
    let resident = &Resident::scan(pid, mappings)?;
    let mut identities = Identities { pid, known: HashMap::new() };
    let mut vmas: Vec<Vma> = Vec::with_capacity(mappings.len());
    let mut index = 0;
    while index < mappings.len() {
        let record = &mappings[index];
        if blob_of_earlier_restore(pid, &mappings[index..])?.is_some() {
            // Its code and its data.
            index += 2;
            continue;
        }
        index += 1;
        let name = record.map.path.as_deref().unwrap_or("");
        if name == "[vsyscall]" {
            continue;
        }
        let vma = vma(record, resident, memory_files, &mut identities)?;
        match vmas.last_mut() {
            Some(last) if continues(last, &vma) => {
                last.range = AddrRange::new(last.range.start(), vma.range.end())
                    .expect("mappings are ascending");
                let saved = join(std::mem::take(&mut last.saved).into_iter().chain(vma.saved));
                last.guards.extend(vma.guards);
                last.saved = without(saved, &last.guards);
            }
            _ => vmas.push(vma),
        }
    }
    Ok(vmas)
}

/// Whether two neighbours are one mapping: the parts of `[vdso]`, or memory that an earlier restore
/// has split into what comes from the image and what does not.
fn continues(last: &Vma, next: &Vma) -> bool {
    if last.range.end() != next.range.start() {
        return false;
    }
    match (&last.backing, &next.backing) {
        (Backing::Vdso, Backing::Vdso) => true,
        (Backing::Anonymous, Backing::Anonymous) => {
            let Vma { protection, grows_down, no_reserve, droppable, sealed, lock, advice, .. } =
                next;
            last.protection == *protection
                && !last.grows_down
                && !grows_down
                && last.no_reserve == *no_reserve
                && last.droppable == *droppable
                && last.sealed == *sealed
                && last.lock == *lock
                && last.advice == *advice
        }
        _ => false,
    }
}

fn vma(
    record: &SmapsRecord,
    resident: &Resident,
    memory_files: &MemoryFiles,
    identities: &mut Identities,
) -> Result<Vma> {
    let pid = identities.pid;
    let map = &record.map;
    let flags = &record.vm_flags;
    let name = map.path.as_deref().unwrap_or("");
    let protection =
        Protection { read: map.perms.read, write: map.perms.write, execute: map.perms.execute };
    // KERNEL: a private mapping of /dev/zero is anonymous memory in all but its name (mmap_zero,
    // drivers/char/mem.c).
    let is_file = map.inode != 0 && name.starts_with('/') && name != "/dev/zero";
    let page_store = is_file && name.rsplit('/').next() == Some(tub_image::PAGES_FILE);
    let (backing, saved) = if name == "[vvar]" || name == "[vvar_vclock]" || name == "[vdso]" {
        // Kept for hosts with another kernel: the process knows addresses in it.
        (Backing::Vdso, if name == "[vdso]" { vec![map.range] } else { Vec::new() })
    } else if let Some(file) = memory_files.of_mapping(map) {
        let (offset_bytes, shared) = (map.offset_bytes, map.perms.shared);
        let may_write = flags.has("mw");
        let saved = if shared { Vec::new() } else { resident.private(map.range) };
        (Backing::MemoryFile { file, offset_bytes, shared, may_write }, saved)
    } else if !is_file {
        (Backing::Anonymous, resident.private(map.range))
    } else if map.perms.shared {
        if name.contains("/hsperfdata_") {
            let path = name.to_owned();
            (Backing::SharedScratchFile { path, mode: 0o600 }, vec![map.range])
        } else {
            let file = identities.of(record)?;
            let may_write = flags.has("mw");
            let offset_bytes = map.offset_bytes;
            (Backing::SharedFile { file, offset_bytes, may_write }, Vec::new())
        }
    } else if page_store || map.deleted {
        // Pages that were never touched since the restore are the image's, and the image may go
        // away; those of a deleted file cannot be had again. The whole mapping is content.
        (Backing::Anonymous, within_file(pid, record).into_iter().collect())
    } else {
        let file = identities.of(record)?;
        let saved = resident.private(map.range);
        (Backing::PrivateFile { file, offset_bytes: map.offset_bytes }, saved)
    };
    // Never stored, so that clones do not share a random generator (design decision E12).
    let secret = flags.has("wf") || flags.has("dp");
    let saved = if secret { Vec::new() } else { saved };
    let guards = resident.guards(map.range);
    let saved = without(saved, &guards);
    Ok(Vma {
        range: map.range,
        protection,
        backing,
        grows_down: flags.has("gd"),
        no_reserve: flags.has("nr"),
        droppable: flags.has("dp"),
        sealed: flags.has("sl"),
        lock: lock(record),
        advice: advice(record),
        saved,
        guards,
    })
}

/// How the pages of a mapping are locked.
pub(crate) fn lock(record: &SmapsRecord) -> Lock {
    match (record.vm_flags.has("lo"), record.vm_flags.has("lf")) {
        (_, true) => Lock::OnFault,
        (true, false) => Lock::Resident,
        (false, false) => Lock::None,
    }
}

/// `MADV_*` for the flags of smaps (proc_pid_smaps(5)).
fn advice(record: &SmapsRecord) -> Vec<i32> {
    if record.map.path.as_deref().is_some_and(|name| name.starts_with("[v")) {
        return Vec::new();
    }
    [
        ("sr", libc::MADV_SEQUENTIAL),
        ("rr", libc::MADV_RANDOM),
        ("dc", libc::MADV_DONTFORK),
        ("dd", libc::MADV_DONTDUMP),
        ("hg", libc::MADV_HUGEPAGE),
        ("nh", libc::MADV_NOHUGEPAGE),
        ("mg", libc::MADV_MERGEABLE),
        ("wf", libc::MADV_WIPEONFORK),
    ]
    .into_iter()
    .filter_map(|(flag, advice)| record.vm_flags.has(flag).then_some(advice))
    .collect()
}

/// The part of a file mapping that lies within the file: what is behind its end cannot be read.
fn within_file(pid: HostPid, record: &SmapsRecord) -> Option<AddrRange> {
    let range = record.map.range;
    let end = readable_end(pid, range);
    AddrRange::new(range.start(), end).filter(|range| !range.is_empty())
}

/// First address of a file mapping that cannot be read: its end, or that of the file. Only root
/// may ask for the length of a file that has no name any more, so it is found by trying.
pub(crate) fn readable_end(pid: HostPid, range: AddrRange) -> u64 {
    let Ok(memory) = File::open(format!("/proc/{pid}/mem")) else { return range.end() };
    let readable = |page: u64| {
        let at = range.start() + page * PAGE_BYTES;
        std::os::unix::fs::FileExt::read_exact_at(&memory, &mut [0], at).is_ok()
    };
    if readable(range.pages() - 1) {
        return range.end();
    }
    // Pages before the end of the file can be read, those behind it cannot.
    let (mut low, mut high) = (0, range.pages() - 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if readable(middle) { low = middle + 1 } else { high = middle }
    }
    range.start() + low * PAGE_BYTES
}

/// Identities of the files that a process has mapped. Each library has several mappings.
struct Identities {
    pid: HostPid,
    known: HashMap<String, FileIdentity>,
}

impl Identities {
    /// That of a mapped file, as its path shows it now.
    fn of(&mut self, record: &SmapsRecord) -> Result<FileIdentity> {
        let path = record.map.path.as_deref().unwrap_or_default();
        if let Some(known) = self.known.get(path) {
            return Ok(known.clone());
        }
        let at = format!("/proc/{}/root{path}", self.pid);
        let meta = std::fs::metadata(&at).map_err(|source| Error::Proc { path: at, source })?;
        let identity = file_identity(path.to_owned(), &meta);
        self.known.insert(path.to_owned(), identity.clone());
        Ok(identity)
    }
}

/// Identity of a file from what `stat` says.
pub(crate) fn file_identity(path: String, meta: &std::fs::Metadata) -> FileIdentity {
    FileIdentity {
        path,
        dev: meta.dev(),
        ino: meta.ino(),
        size_bytes: meta.len(),
        mtime_ns: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
    }
}

/// What an earlier restore has left in a process: where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Id of the image.
    pub image_id: [u8; 16],
    /// How many checkpoints lay behind it.
    pub generation: u64,
}

/// Finds out whether a process was restored, and from which image.
///
/// # Errors
///
/// Where its memory cannot be read.
pub fn origin(survey: &Survey) -> Result<Option<Origin>> {
    let windows = (0..survey.mappings.len()).map(|at| &survey.mappings[at..]);
    for mappings in windows {
        if let Some(header) = blob_of_earlier_restore(survey.pid, mappings)? {
            return Ok(Some(Origin { image_id: header.image_id, generation: header.generation }));
        }
    }
    Ok(None)
}

/// The header of the blob that an earlier restore has left at the start of `mappings`: its code,
/// and right behind it its data.
pub(crate) fn blob_of_earlier_restore(
    pid: HostPid,
    mappings: &[SmapsRecord],
) -> Result<Option<RawHeader>> {
    let [code, data, ..] = mappings else { return Ok(None) };
    let looks_like_it = code.map.inode == 0
        && code.map.path.is_none()
        && code.map.perms.execute
        && code.map.perms.read
        && !code.map.perms.write
        && data.map.perms.read
        && code.map.range.end() == data.map.range.start();
    if !looks_like_it {
        return Ok(None);
    }
    let read = |at: u64, to: &mut [u8]| {
        tub_sys::process_vm_read(pid, RemoteAddr(at), to).map_err(|source| Error::Remote {
            what: format!("memory at {at:#x}"),
            pid,
            source,
        })
    };
    let mut magic = [0; 8];
    read(code.map.range.start(), &mut magic)?;
    if magic != BLOB_MAGIC {
        return Ok(None);
    }
    let mut header = [0; size_of::<RawHeader>()];
    read(data.map.range.start(), &mut header)?;
    Ok(RawHeader::from_bytes(&header))
}

/// Pages in memory or swap, and guards, as the kernel lists them.
#[derive(Debug)]
pub(crate) struct Resident {
    regions: Vec<RawPageRegion>,
}

impl Resident {
    fn scan(pid: HostPid, mappings: &[SmapsRecord]) -> Result<Self> {
        // What is alike side by side is looked at in one go: a call for each mapping takes longer than what
        // there is to see, and where nothing is mapped nothing is looked at.
        let stretches = mappings
            .chunk_by(|one, next| wanted(one) == wanted(next))
            .filter_map(|stretch| Some((stretch, wanted(&stretch[0])?)))
            .filter_map(|(stretch, asked)| {
                let last = stretch.last()?;
                let range = AddrRange::new(stretch[0].map.range.start(), last.map.range.end());
                Some((range?, asked))
            });
        Self::scan_ranges(pid, stretches)
    }

    /// Some stretches, with what is to be asked about each.
    fn scan_ranges(pid: HostPid, ranges: impl Iterator<Item = (AddrRange, u64)>) -> Result<Self> {
        let path = format!("/proc/{pid}/pagemap");
        let failed = |source| Error::Proc { path: path.clone(), source };
        let pagemap = File::open(&path).map_err(failed)?;
        let mut regions = Vec::new();
        let mut tells_guards = true;
        for (range, asked) in ranges {
            let guards = if tells_guards { PAGE_IS_GUARD } else { 0 };
            let found = match tub_sys::pagemap_scan(pagemap.as_fd(), range, asked | guards) {
                Err(Errno::EINVAL) if tells_guards => {
                    tells_guards = false;
                    tub_sys::pagemap_scan(pagemap.as_fd(), range, asked)
                }
                other => other,
            };
            regions.extend(found.map_err(|errno| failed(errno.into()))?);
        }
        Ok(Self { regions })
    }

    /// Pages of a private mapping that are the process's own, joined over small gaps.
    fn private(&self, range: AddrRange) -> Vec<AddrRange> {
        join(self.within(range).filter_map(|region| own(region)?.intersection(range)))
    }

    /// Guards of a mapping.
    fn guards(&self, range: AddrRange) -> Vec<AddrRange> {
        self.within(range)
            .filter(|region| region.categories & PAGE_IS_GUARD != 0)
            .filter_map(|region| AddrRange::new(region.start, region.end)?.intersection(range))
            .collect()
    }

    fn within(&self, range: AddrRange) -> impl Iterator<Item = &RawPageRegion> {
        let first = self.regions.partition_point(|region| region.end <= range.start());
        self.regions[first..].iter().take_while(move |region| region.start < range.end())
    }
}

/// What is to be asked about the pages of a mapping, if it matters which are there.
fn wanted(SmapsRecord { map, vm_flags, own_bytes, .. }: &SmapsRecord) -> Option<u64> {
    let name = map.path.as_deref().unwrap_or("");
    let plain = ["[heap]", "[stack]", "[anon:"].iter().any(|plain| name.starts_with(plain));
    // All its pages are its own, or zeros.
    let anonymous = map.inode == 0 && !map.perms.shared && (name.is_empty() || plain);
    let private = !map.perms.shared && !name.starts_with("[v") && *own_bytes != Some(0);
    // KERNEL(since 6.18): `gu` says that there may be guards.
    let any = private || vm_flags.has("gu") || anonymous;
    any.then_some(if anonymous { 0 } else { PAGE_IS_FILE })
}

/// The pages of a region, where they are the process's own: neither a file's nor the zero page.
fn own(region: &RawPageRegion) -> Option<AddrRange> {
    let others = region.categories & (PAGE_IS_FILE | PAGE_IS_PFNZERO | PAGE_IS_GUARD) != 0;
    if others { None } else { AddrRange::new(region.start, region.end) }
}

/// Which pages of `ranges` the process has made its own, running or not.
///
/// # Errors
///
/// Where its page map cannot be read.
pub fn own_pages(pid: HostPid, ranges: impl Iterator<Item = AddrRange>) -> Result<Vec<AddrRange>> {
    let ranges = ranges.map(|range| (range, PAGE_IS_FILE));
    Ok(Resident::scan_ranges(pid, ranges)?.regions.iter().filter_map(own).collect())
}

/// Joins ascending ranges with small gaps between them.
pub(crate) fn join(ranges: impl Iterator<Item = AddrRange>) -> Vec<AddrRange> {
    let mut joined: Vec<AddrRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start() - last.end() <= JOIN_GAP_BYTES => {
                *last = AddrRange::new(last.start(), range.end()).unwrap_or(*last);
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// Ascending ranges without what of them lies in `holes`, which ascend as well.
fn without(ranges: Vec<AddrRange>, holes: &[AddrRange]) -> Vec<AddrRange> {
    if holes.is_empty() {
        return ranges;
    }
    let mut rest = Vec::with_capacity(ranges.len() + holes.len());
    for range in ranges {
        let mut start = range.start();
        for hole in holes.iter().filter(|hole| hole.overlaps(range)) {
            rest.extend(AddrRange::new(start, hole.start()));
            start = hole.end();
        }
        rest.extend(AddrRange::new(start, range.end()));
    }
    rest.retain(|range| !range.is_empty());
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_gaps_are_joined_and_large_ones_are_not() {
        let range = |start, end| AddrRange::new(start, end).unwrap();
        let near = [range(0x1000, 0x2000), range(0x3000, 0x4000)];
        assert_eq!(join(near.into_iter()), [range(0x1000, 0x4000)]);
        let far = [range(0x1000, 0x2000), range(0x20000, 0x21000)];
        assert_eq!(join(far.into_iter()), far);
    }

    #[test]
    fn holes_are_cut_out_wherever_they_lie() {
        let range = |a: u64, b: u64| AddrRange::new(a * 0x1000, b * 0x1000).unwrap();
        let ranges = || vec![range(1, 4), range(6, 9)];
        assert_eq!(without(ranges(), &[]), ranges());
        let holes = [range(0, 2), range(3, 7), range(8, 20)];
        assert_eq!(without(ranges(), &holes), [range(2, 3), range(7, 8)]);
        assert_eq!(without(ranges(), &[range(1, 4)]), [range(6, 9)]);
    }
}
