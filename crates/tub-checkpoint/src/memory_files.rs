//! Files without a name: memfds, shared anonymous memory, deleted files that are mapped as shared.
//!
//! In: the surveys of frozen processes, calls made by them. Out: [`MemoryFile`]s and their bytes.
//! Invariant: an object is met once, however many descriptors and mappings of however many
//! processes lead to it. Content is only ever read.
//!
//! Where a descriptor leads to the object, or root may follow `map_files`, the object itself says
//! which of it is there (SEEK_DATA). Otherwise it is read through the mappings: only what is mapped
//! somewhere can be seen by anybody.

use crate::aside::{Halt, Outbox};
use crate::caller::Caller;
use crate::memory::readable_end;
use crate::{Error, Result, Survey};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::SFlag;
use nix::unistd::{Whence, lseek};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use tub_image::Zeros;
use tub_model::{MemoryFile, MemoryFileKind};
use tub_procfs::maps::MapsRecord;
use tub_sys::Errno;
use tub_units::{AddrRange, HostPid, PAGE_BYTES};

/// Name of the memfd that stands in for shared anonymous memory in a restored process.
const STAND_IN: &str = "tub-shared";

/// All of them, by index.
#[derive(Debug, Default)]
pub(crate) struct MemoryFiles {
    objects: Vec<Object>,
}

#[derive(Debug)]
struct Object {
    /// Device and inode, by which the kernel tells objects apart.
    id: (u64, u64),
    kind: MemoryFileKind,
    size_bytes: u64,
    mode: u32,
    seals: u32,
    /// The object itself, opened by us for reading.
    file: Option<File>,
    /// Where it is seen, if there is no other way: whose memory, at which address, and the range
    /// of offsets.
    views: Vec<View>,
}

#[derive(Clone, Copy, Debug)]
struct View {
    pid: HostPid,
    address: u64,
    offsets: AddrRange,
}

/// Whether a mapping is of such an object.
pub(crate) fn is_memory_file(map: &MapsRecord) -> bool {
    let name = map.path.as_deref().unwrap_or("");
    // The JVM's performance counters are made anew at their path.
    let counters = name.contains("/hsperfdata_");
    let nameless = name.starts_with("/memfd:") || name == "/dev/zero" && map.perms.shared;
    map.inode != 0 && map.deleted && !counters && (nameless || map.perms.shared)
}

impl MemoryFiles {
    /// Index of the object that is mapped.
    pub(crate) fn of_mapping(&self, map: &MapsRecord) -> Option<usize> {
        let index = is_memory_file(map).then(|| self.known((map.dev, map.inode))).flatten()?;
        // What cannot be read as a whole becomes part of the one process that has mapped it.
        (map.perms.shared || self.objects[index].file.is_some()).then_some(index)
    }

    /// Index of the object with that device and inode.
    pub(crate) fn known(&self, id: (u64, u64)) -> Option<usize> {
        self.objects.iter().position(|object| object.id == id)
    }

    /// Takes in what a process has of them.
    pub(crate) fn add(&mut self, survey: &Survey, caller: &mut Caller<'_>) -> Result<()> {
        let pid = survey.pid;
        for record in &survey.mappings {
            let map = &record.map;
            if !is_memory_file(map) {
                continue;
            }
            let id = (map.dev, map.inode);
            let index = match self.known(id) {
                Some(index) => index,
                None => self.push(id, map.path.as_deref().unwrap_or("")),
            };
            let object = &mut self.objects[index];
            if object.file.is_none() {
                let range = map.range;
                let link = format!("/proc/{pid}/map_files/{:x}-{:x}", range.start(), range.end());
                // Only root may follow that link.
                object.open(&link);
            }
        }
        for fd in survey.fds.iter().filter(|fd| fd.is(SFlag::S_IFREG)) {
            let id = (fd.dev, fd.ino);
            let memfd = fd.link.starts_with("/memfd:");
            let index = match self.known(id) {
                Some(index) => index,
                None if memfd => {
                    self.push(id, fd.link.strip_suffix(" (deleted)").unwrap_or(&fd.link))
                }
                None => continue,
            };
            if self.objects[index].file.is_none() {
                self.objects[index].open(&format!("/proc/{pid}/fd/{}", fd.number));
            }
        }
        // What is still closed to us is read through the mappings.
        for record in &survey.mappings {
            let map = &record.map;
            let Some(index) = self.of_mapping(map) else { continue };
            let object = &mut self.objects[index];
            if object.file.is_none() && map.perms.shared {
                object.view(pid, map, caller)?;
            }
        }
        Ok(())
    }

    fn push(&mut self, id: (u64, u64), path: &str) -> usize {
        let kind = match path.strip_prefix("/memfd:") {
            Some(STAND_IN) => MemoryFileKind::SharedAnonymous,
            Some(name) => MemoryFileKind::Memfd { name: name.to_owned() },
            None if path == "/dev/zero" => MemoryFileKind::SharedAnonymous,
            None => MemoryFileKind::Deleted { path: path.to_owned() },
        };
        let (views, file) = (Vec::new(), None);
        self.objects.push(Object { id, kind, size_bytes: 0, mode: 0o777, seals: 0, file, views });
        self.objects.len() - 1
    }

    /// The objects as the model has them.
    pub(crate) fn to_model(&self) -> Result<Vec<MemoryFile>> {
        self.objects.iter().map(Object::to_model).collect()
    }

    /// Reads their bytes, for the image.
    pub(crate) fn pages(
        &self,
        model: &[MemoryFile],
        outbox: &Outbox<'_>,
    ) -> std::result::Result<(), Halt> {
        for (object, file) in self.objects.iter().zip(model) {
            object.pages(&file.saved, outbox)?;
            outbox.end_task()?;
        }
        Ok(())
    }
}

impl Object {
    /// Opens the object by a link of /proc, if we may.
    fn open(&mut self, link: &str) {
        let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(link);
        let Ok(file) = opened else { return };
        let Ok(meta) = file.metadata() else { return };
        self.size_bytes = meta.len();
        self.mode = meta.mode() & 0o7777;
        // EINVAL where the file system knows no seals.
        let seals = fcntl(&file, FcntlArg::F_GET_SEALS).unwrap_or(0);
        self.seals = u32::try_from(seals).unwrap_or(0);
        self.file = Some(file);
    }

    /// Takes in a mapping through which the object is seen.
    fn view(&mut self, pid: HostPid, map: &MapsRecord, caller: &mut Caller<'_>) -> Result<()> {
        let end = readable_end(pid, map.range);
        let Some(range) = AddrRange::new(map.range.start(), end) else { return Ok(()) };
        self.size_bytes = self.size_bytes.max(map.offset_bytes + range.len());
        let in_memory = !matches!(self.kind, MemoryFileKind::Deleted { .. });
        // Looking at a page that was never touched would make it, so only those are read that are
        // there. With swap they need not be in memory.
        let parts = if in_memory && !has_swap() { caller.resident(range)? } else { vec![range] };
        self.views.extend(parts.into_iter().filter(|part| !part.is_empty()).filter_map(|part| {
            let offset = part.start() - range.start() + map.offset_bytes;
            let offsets = AddrRange::with_len(offset, part.len())?;
            Some(View { pid, address: part.start(), offsets })
        }));
        Ok(())
    }

    fn to_model(&self) -> Result<MemoryFile> {
        let saved = match &self.file {
            Some(file) => {
                data_ranges(file, self.size_bytes).map_err(|source| self.failed(source))?
            }
            None => {
                let mut ranges: Vec<_> = self.views.iter().map(|view| view.offsets).collect();
                ranges.sort_by_key(|range| range.start());
                union(&ranges)
            }
        };
        Ok(MemoryFile {
            kind: self.kind.clone(),
            size_bytes: self.size_bytes,
            mode: self.mode,
            seals: self.seals,
            saved,
        })
    }

    fn pages(&self, saved: &[AddrRange], outbox: &Outbox<'_>) -> std::result::Result<(), Halt> {
        for range in saved {
            let mut at = range.start();
            while at < range.end() {
                let rest = usize::try_from(range.end() - at).unwrap_or(usize::MAX);
                let chunk = outbox.chunk(range.end() - at)?;
                let len = rest.min(chunk.len());
                let got = self.read(at, &mut chunk[..len])?;
                outbox.pages(at, (chunk, got), Zeros::Implied, None)?;
                at += got as u64;
            }
            outbox.end_range()?;
        }
        Ok(())
    }

    /// Reads whole pages at an offset, as many as can be had in one go; zeros behind the end.
    fn read(&self, offset: u64, to: &mut [u8]) -> Result<usize> {
        if let Some(file) = &self.file {
            let within = self.size_bytes.saturating_sub(offset);
            let len = usize::try_from(within).unwrap_or(usize::MAX).min(to.len());
            file.read_exact_at(&mut to[..len], offset).map_err(|source| self.failed(source))?;
            to[len..].fill(0);
            return Ok(to.len());
        }
        let view = self.views.iter().find(|view| view.offsets.contains(offset));
        let view = view.ok_or_else(|| self.failed(Errno::ENXIO.into()))?;
        let within = usize::try_from(view.offsets.end() - offset).unwrap_or(usize::MAX);
        let len = within.min(to.len());
        let to = &mut to[..len];
        let memory = File::open(format!("/proc/{}/mem", view.pid));
        let at = view.address + (offset - view.offsets.start());
        memory
            .and_then(|memory| memory.read_exact_at(to, at))
            .map_err(|source| self.failed(source))?;
        Ok(len)
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::Proc { path: self.kind.describe(), source }
    }
}

/// Where a file holds data (lseek(2), SEEK_DATA), in whole pages.
fn data_ranges(file: &File, size_bytes: u64) -> std::io::Result<Vec<AddrRange>> {
    let mut ranges: Vec<AddrRange> = Vec::new();
    let mut at = 0;
    let seek = |at: u64, whence| {
        let at = i64::try_from(at).map_err(|_| Errno::EOVERFLOW)?;
        lseek(file, at, whence).map(i64::cast_unsigned)
    };
    while at < size_bytes {
        let start = match seek(at, Whence::SeekData) {
            Ok(start) => start,
            Err(Errno::ENXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        let end = seek(start, Whence::SeekHole)?;
        let (start, end) = (start & !(PAGE_BYTES - 1), end.next_multiple_of(PAGE_BYTES));
        ranges.extend(AddrRange::new(start, end));
        at = end;
    }
    Ok(union(&ranges))
}

/// Joins ranges that ascend by their start and touch or overlap.
fn union(ranges: &[AddrRange]) -> Vec<AddrRange> {
    let mut joined: Vec<AddrRange> = Vec::new();
    for &range in ranges {
        match joined.last_mut() {
            Some(last) if range.start() <= last.end() => {
                let end = last.end().max(range.end());
                *last = AddrRange::new(last.start(), end).unwrap_or(*last);
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// Whether pages may be anywhere but in memory.
fn has_swap() -> bool {
    // A heading, and a line for each (proc_swaps(5)).
    std::fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_joined() {
        let range = |start, end| AddrRange::new(start, end).unwrap();
        let ranges = [range(0, 2), range(1, 3), range(3, 4), range(6, 9), range(7, 8)];
        assert_eq!(union(&ranges), [range(0, 4), range(6, 9)]);
    }

    #[test]
    fn data_is_found_in_a_sparse_file() {
        let file = nix::sys::memfd::memfd_create("t", nix::sys::memfd::MFdFlags::empty()).unwrap();
        let file = File::from(file);
        file.write_all_at(b"x", 5 * 4096).unwrap();
        file.write_all_at(b"x", 100 * 4096 + 7).unwrap();
        let pages = |a: u64, b: u64| AddrRange::new(a * 4096, b * 4096).unwrap();
        let found = data_ranges(&file, 100 * 4096 + 8).unwrap();
        assert_eq!(found, [pages(5, 6), pages(100, 101)]);
    }
}
