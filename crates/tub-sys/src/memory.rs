//! Looking at another process's pages, and changing the layout of our own.

use crate::{Errno, check};
use std::os::fd::{AsRawFd, BorrowedFd};
use tub_units::{AddrRange, HostPid, PAGE_BYTES, RemoteAddr};

/// A run of pages with the same answers from [`pagemap_scan`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RawPageRegion {
    /// First address.
    pub start: u64,
    /// First address after.
    pub end: u64,
    /// `PAGE_IS_*` bits.
    pub categories: u64,
}

/// The page is that of a file, or of shared memory.
pub const PAGE_IS_FILE: u64 = 1 << 2;
/// The page is in memory.
pub const PAGE_IS_PRESENT: u64 = 1 << 3;
/// The page is swapped out.
pub const PAGE_IS_SWAPPED: u64 = 1 << 4;
/// The page is the kernel's zero page.
pub const PAGE_IS_PFNZERO: u64 = 1 << 5;

/// The page is a guard of madvise(MADV_GUARD_INSTALL). KERNEL(since 6.16): before, a guard looks
/// like a page in swap.
pub const PAGE_IS_GUARD: u64 = 1 << 8;

/// `ioctl(pagemap, PAGEMAP_SCAN, …)`: the pages in memory or in swap within `range`, as runs.
///
/// What takes longer, or not every kernel tells, is to be asked for in `asked`: [`PAGE_IS_FILE`], for which
/// each page's own record is looked up, and [`PAGE_IS_GUARD`], with which guards are among the runs.
///
/// # Errors
///
/// EINVAL where the kernel does not tell what is asked for.
///
/// # References
///
/// KERNEL(since 6.7): Documentation/admin-guide/mm/pagemap.rst, struct pm_scan_arg of linux/fs.h.
pub fn pagemap_scan(
    pagemap: BorrowedFd<'_>,
    range: AddrRange,
    asked: u64,
) -> Result<Vec<RawPageRegion>, Errno> {
    #[repr(C)]
    struct ScanArg {
        size: u64,
        flags: u64,
        start: u64,
        end: u64,
        walk_end: u64,
        vec: u64,
        vec_len: u64,
        max_pages: u64,
        category_inverted: u64,
        category_mask: u64,
        category_anyof_mask: u64,
        return_mask: u64,
    }
    // _IOWR('f', 16, struct pm_scan_arg)
    const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;
    let mut found = Vec::new();
    let mut batch: Vec<RawPageRegion> = Vec::with_capacity(4096);
    let mut start = range.start();
    while start < range.end() {
        let mut arg = ScanArg {
            size: size_of::<ScanArg>() as u64,
            flags: 0,
            start,
            end: range.end(),
            walk_end: 0,
            vec: batch.as_mut_ptr() as u64,
            vec_len: batch.capacity() as u64,
            max_pages: 0,
            category_inverted: 0,
            category_mask: 0,
            category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED | asked & PAGE_IS_GUARD,
            return_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED | PAGE_IS_PFNZERO | asked,
        };
        // SAFETY: the kernel reads and writes `arg`, and writes at most `vec_len` regions to
        // `batch`, which outlives the call.
        let result = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut arg) };
        let got = usize::try_from(check(i64::from(result))?).unwrap_or(0);
        // SAFETY: the kernel has written as many regions as it says, and it had no room for more.
        unsafe { batch.set_len(got.min(batch.capacity())) };
        // Where the vector is full the kernel may stop before the end of what it has told, and tells
        // that once more.
        let told = found.last().map_or(0, |last: &RawPageRegion| last.end);
        let fresh = batch.iter().filter(|region| region.end > told);
        found
            .extend(fresh.map(|&region| RawPageRegion { start: region.start.max(told), ..region }));
        if arg.walk_end <= start {
            break;
        }
        start = arg.walk_end;
    }
    Ok(found)
}

/// `process_vm_readv(pid, …)`: copies from another process; returns how many bytes it got before
/// the first page that cannot be read.
pub fn process_vm_read(pid: HostPid, from: RemoteAddr, to: &mut [u8]) -> Result<usize, Errno> {
    let local = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
    let remote = libc::iovec { iov_base: from.0 as *mut libc::c_void, iov_len: to.len() };
    // SAFETY: `local` describes `to`; `remote` is only ever used by the kernel, in the other
    // process.
    let result =
        unsafe { libc::process_vm_readv(pid.0, &raw const local, 1, &raw const remote, 1, 0) };
    check(result as i64).map(|bytes| usize::try_from(bytes).unwrap_or(0))
}

/// `mmap(at, len, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED_NOREPLACE)`: fresh
/// memory of our own at a place where nothing is.
///
/// # Errors
///
/// EEXIST where something is mapped there already.
pub fn map_fresh_at(range: AddrRange) -> Result<(), Errno> {
    // SAFETY: MAP_FIXED_NOREPLACE never replaces a mapping, so no memory in use is touched.
    let result = unsafe {
        libc::mmap(
            range.start() as *mut libc::c_void,
            usize::try_from(range.len()).map_err(|_| Errno::ENOMEM)?,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
            -1,
            0,
        )
    };
    check(result as i64).map(drop)
}

/// `mmap(PROT_NONE, MAP_PRIVATE, file)` of one page, and `munmap` of it after `look` has had its address:
/// for what /proc tells of mappings.
///
/// # Errors
///
/// Where the file cannot be mapped.
pub fn while_mapped<T>(file: BorrowedFd<'_>, look: impl FnOnce(u64) -> T) -> Result<T, Errno> {
    let len = usize::try_from(PAGE_BYTES).map_err(|_| Errno::ENOMEM)?;
    let fd = file.as_raw_fd();
    // SAFETY: the kernel chooses a free place, so no memory in use is touched.
    let page =
        unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_NONE, libc::MAP_PRIVATE, fd, 0) };
    if page == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    let seen = look(page.addr() as u64);
    // SAFETY: the page was mapped above, and `look` has had no more of it than a number.
    check(i64::from(unsafe { libc::munmap(page, len) })).map(|_| seen)
}

/// Anonymous memory of our own, whose pages are there from the start.
#[derive(Debug)]
pub struct FreshMemory {
    at: *mut u8,
    bytes: usize,
}

// SAFETY: the mapping belongs to this value alone, as that of a `Box<[u8]>` does.
unsafe impl Send for FreshMemory {}

impl FreshMemory {
    /// `mmap`, `madvise(MADV_HUGEPAGE)`, `madvise(MADV_POPULATE_WRITE)`: `bytes` of zeros.
    ///
    /// # Errors
    ///
    /// Where there is no memory. A kernel that knows neither advice gives the pages when they are
    /// touched.
    ///
    /// # References
    ///
    /// KERNEL(since 5.14): MADV_POPULATE_WRITE, madvise(2).
    pub fn new(bytes: usize) -> Result<Self, Errno> {
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: without MAP_FIXED, mmap touches no existing mapping.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, rights, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let memory = Self { at: at.cast(), bytes };
        for advice in [libc::MADV_HUGEPAGE, libc::MADV_POPULATE_WRITE] {
            // SAFETY: the range is that of the mapping, and its content stays as it is.
            let advised = check(i64::from(unsafe { libc::madvise(at, bytes, advice) }));
            if advised == Err(Errno::ENOMEM) {
                return Err(Errno::ENOMEM);
            }
        }
        Ok(memory)
    }

    /// All of it.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `at` is the start of a mapping of `bytes` that can be read and written, starts as
        // zeros, lives as long as `self`, and is reached through it only.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.bytes) }
    }
}

impl Drop for FreshMemory {
    fn drop(&mut self) {
        // SAFETY: the range is that of the mapping, and nobody has a reference to it any more.
        unsafe { libc::munmap(self.at.cast(), self.bytes) };
    }
}

/// `madvise(…, MADV_GUARD_INSTALL)`. KERNEL(since 6.13): uapi/asm-generic/mman-common.h.
pub const MADV_GUARD_INSTALL: i32 = 102;
/// `mmap(…, MAP_DROPPABLE, …)`. KERNEL(since 6.11): uapi/linux/mman.h. It stands in the place of
/// MAP_PRIVATE.
pub const MAP_DROPPABLE: i32 = 0x08;
/// `mseal(2)`. KERNEL(since 6.10).
pub const SYS_MSEAL: i64 = 462;

/// `madvise(0, 0, advice)`: whether the kernel knows that advice; it looks at it before the length.
pub fn knows_advice(advice: i32) -> bool {
    // SAFETY: advice on no page at all.
    unsafe { libc::madvise(std::ptr::null_mut(), 0, advice) == 0 }
}

/// `mseal(0, 0, 0)`: whether the kernel has that call.
pub fn has_mseal() -> bool {
    // SAFETY: seals no page at all.
    unsafe { libc::syscall(SYS_MSEAL, 0, 0, 0) == 0 }
}

/// `mmap(…, MAP_DROPPABLE, …)` of a page that is given back at once: whether there is such memory.
pub fn has_droppable() -> bool {
    let flags = MAP_DROPPABLE | libc::MAP_ANONYMOUS;
    let Ok(bytes) = usize::try_from(PAGE_BYTES) else { return false };
    // SAFETY: without MAP_FIXED, mmap touches no existing mapping.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ, flags, -1, 0) };
    // SAFETY: the page was mapped a moment ago, and nobody knows it.
    at != libc::MAP_FAILED && unsafe { libc::munmap(at, bytes) } == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// More runs than the kernel is given room for at once: every second page of memory.
    #[test]
    fn a_scan_of_very_many_runs_tells_each_of_them_once() {
        const PAGES: u64 = 20_000;
        let start = 0x6100_0000_0000_u64;
        let range = AddrRange::with_len(start, PAGES * PAGE_BYTES).unwrap();
        map_fresh_at(range).unwrap();
        // SAFETY: the mapping was made a moment ago; huge pages would make one run of many.
        unsafe { libc::madvise(start as *mut libc::c_void, 20_000 << 12, libc::MADV_NOHUGEPAGE) };
        for page in (0..PAGES).step_by(2) {
            // SAFETY: within the mapping, which nobody else knows.
            unsafe { ((start + page * PAGE_BYTES) as *mut u8).write(1) };
        }
        let pagemap = std::fs::File::open("/proc/self/pagemap").unwrap();
        let found = match pagemap_scan(pagemap.as_fd(), range, PAGE_IS_FILE) {
            Err(Errno::ENOTTY) => return println!("skipped: PAGEMAP_SCAN takes Linux 6.7"),
            found => found.unwrap(),
        };
        let expected = (0..PAGES).step_by(2).map(|page| start + page * PAGE_BYTES);
        assert!(expected.eq(found.iter().map(|region| region.start)), "{} runs", found.len());
        assert!(found.iter().all(|region| region.end == region.start + PAGE_BYTES));
    }
}
