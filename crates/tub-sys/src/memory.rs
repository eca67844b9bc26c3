//! Looking at another process's pages, and changing the layout of our own.

use crate::{Errno, check};
use std::os::fd::{AsRawFd, BorrowedFd};
use tub_units::{AddrRange, HostPid, RemoteAddr};

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

/// `ioctl(pagemap, PAGEMAP_SCAN, …)`: the pages in memory or in swap within `range`, as runs.
///
/// # References
///
/// KERNEL(since 6.7): Documentation/admin-guide/mm/pagemap.rst, struct pm_scan_arg of linux/fs.h.
pub fn pagemap_scan(
    pagemap: BorrowedFd<'_>,
    range: AddrRange,
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
    let mut batch = vec![RawPageRegion::default(); 4096];
    let mut start = range.start();
    while start < range.end() {
        let mut arg = ScanArg {
            size: size_of::<ScanArg>() as u64,
            flags: 0,
            start,
            end: range.end(),
            walk_end: 0,
            vec: batch.as_mut_ptr() as u64,
            vec_len: batch.len() as u64,
            max_pages: 0,
            category_inverted: 0,
            category_mask: 0,
            category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            return_mask: PAGE_IS_FILE | PAGE_IS_PRESENT | PAGE_IS_SWAPPED | PAGE_IS_PFNZERO,
        };
        // SAFETY: the kernel reads and writes `arg`, and writes at most `vec_len` regions to
        // `batch`, which outlives the call.
        let result = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut arg) };
        let got = usize::try_from(check(i64::from(result))?).unwrap_or(0);
        found.extend_from_slice(&batch[..got.min(batch.len())]);
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
