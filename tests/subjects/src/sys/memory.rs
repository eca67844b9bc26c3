//! mmap(2) and its family.

use super::check;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::ptr::null_mut;
use std::slice;

/// Bytes of a page on x86-64.
pub(crate) const PAGE: usize = 4096;

/// Words of a page.
pub(crate) const PAGE_WORDS: usize = PAGE / size_of::<u64>();

/// A mapping of our own.
///
/// Reading where the protection forbids it ends the subject by SIGSEGV; for a test that is a
/// verdict like any other.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: *mut u8,
    len: usize,
}

// SAFETY: a `Mapping` owns its pages like a `Box<[u8]>`: only `&mut` writes to them.
unsafe impl Send for Mapping {}
// SAFETY: through `&Mapping` pages are only read.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// mmap(2) of `pages` anonymous private pages, with more `MAP_*` `flags`.
    pub(crate) fn anonymous(pages: usize, prot: i32, flags: i32) -> io::Result<Self> {
        Self::map(pages, prot, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags, -1)
    }

    /// mmap(2) of the first `pages` of `file`; `flags` says private or shared.
    pub(crate) fn file(file: &File, pages: usize, prot: i32, flags: i32) -> io::Result<Self> {
        Self::map(pages, prot, flags, file.as_raw_fd())
    }

    /// mmap(2) of `pages` of `file` from page `first` on.
    pub(crate) fn file_at(
        file: impl AsFd,
        first: usize,
        pages: usize,
        prot: i32,
        flags: i32,
    ) -> io::Result<Self> {
        let len = pages * PAGE;
        let offset = libc::off_t::try_from(first * PAGE).expect("files of a test are small");
        let fd = file.as_fd().as_raw_fd();
        // SAFETY: without MAP_FIXED, mmap touches no existing mapping.
        let start = unsafe { libc::mmap(null_mut(), len, prot, flags, fd, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), len })
    }

    /// mmap(2) of `pages` of memory that forked processes share.
    pub(crate) fn shared(pages: usize) -> io::Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        Self::map(pages, prot, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1)
    }

    /// mmap(2) of `pages` of memory that the kernel may drop at any time (MAP_DROPPABLE).
    pub(crate) fn droppable(pages: usize) -> io::Result<Self> {
        const MAP_DROPPABLE: i32 = 0x08;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        Self::map(pages, prot, MAP_DROPPABLE | libc::MAP_ANONYMOUS, -1)
    }

    fn map(pages: usize, prot: i32, flags: i32, fd: RawFd) -> io::Result<Self> {
        let len = pages * PAGE;
        // SAFETY: without MAP_FIXED, mmap touches no existing mapping.
        let start = unsafe { libc::mmap(null_mut(), len, prot, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), len })
    }

    /// mremap(2) to `pages`, wherever there is room.
    pub(crate) fn grow(&mut self, pages: usize) -> io::Result<()> {
        let len = pages * PAGE;
        // SAFETY: the mapping is ours, and `&mut self` shows that nothing borrows from it.
        let start = unsafe { libc::mremap(self.start.cast(), self.len, len, libc::MREMAP_MAYMOVE) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        self.start = start.cast();
        self.len = len;
        Ok(())
    }

    /// mprotect(2) of `pages` from `first`.
    pub(crate) fn protect(&mut self, first: usize, pages: usize, prot: i32) -> io::Result<()> {
        let at = self.page(first, pages);
        // SAFETY: the range lies in this mapping (`page` checks), which nothing borrows from.
        check(unsafe { libc::mprotect(at.cast(), pages * PAGE, prot) }).map(drop)
    }

    /// madvise(2) on `pages` from `first`.
    pub(crate) fn advise(&mut self, first: usize, pages: usize, advice: i32) -> io::Result<()> {
        let at = self.page(first, pages);
        // SAFETY: the range lies in this mapping (`page` checks), which nothing borrows from.
        check(unsafe { libc::madvise(at.cast(), pages * PAGE, advice) }).map(drop)
    }

    /// mmap(2) of a stack of `pages` that grows down, in the last pages of `self`; the `room` pages
    /// before it are unmapped.
    pub(crate) fn stack_at_the_end(self, pages: usize, room: usize) -> io::Result<Self> {
        let first = self.len / PAGE - pages;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_GROWSDOWN;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let at = self.page(first, pages);
        let below = self.page(first - room, room);
        // SAFETY: the range lies in this mapping, which is given up.
        check(unsafe { libc::munmap(below.cast(), room * PAGE) })?;
        // SAFETY: as above.
        let start = unsafe { libc::mmap(at.cast(), pages * PAGE, prot, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), len: pages * PAGE })
    }

    /// mseal(2) of all of it.
    pub(crate) fn seal(&self) -> io::Result<()> {
        const SYS_MSEAL: libc::c_long = 462;
        // SAFETY: a sealed mapping can be used as before, only not changed.
        super::check_long(unsafe { libc::syscall(SYS_MSEAL, self.start, self.len, 0) }).map(drop)
    }

    /// mlock2(2) of `pages` from `first`.
    pub(crate) fn lock(&self, first: usize, pages: usize, flags: u32) -> io::Result<()> {
        let at = self.page(first, pages);
        // SAFETY: the range lies in this mapping (`page` checks); locking changes no content.
        check(unsafe { libc::mlock2(at.cast(), pages * PAGE, flags) }).map(drop)
    }

    /// Whether `page` can be read at all, without reading it ourselves: write(2) says EFAULT.
    pub(crate) fn is_readable(&self, page: usize) -> io::Result<bool> {
        let (_reader, writer) = super::pipe(0)?;
        let at = self.page(page, 1);
        // SAFETY: the kernel looks at the byte, and says so where it cannot.
        match super::check_long(unsafe { libc::write(writer.as_raw_fd(), at.cast(), 1) } as i64) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes a word `bytes` below the mapping, which is a stack that grows down.
    pub(crate) fn push_below(&mut self, bytes: usize, word: u64) -> u64 {
        let at = self.start.wrapping_sub(bytes).cast::<u64>();
        // SAFETY: the kernel grows the stack down to the address, which was chosen within the
        // room that its maker left free; `&mut self` shows that nothing else uses it.
        unsafe { at.write_volatile(word) };
        // SAFETY: written a moment ago.
        unsafe { at.read_volatile() }
    }

    /// Address of the first byte.
    pub(crate) fn address(&self) -> usize {
        self.start.addr()
    }

    /// Length in bytes.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The words of `pages` from `first`.
    pub(crate) fn words(&self, first: usize, pages: usize) -> &[u64] {
        let at = self.page(first, pages).cast();
        // SAFETY: mapped by us, aligned to a page, and any bits make a u64.
        unsafe { slice::from_raw_parts(at, pages * PAGE_WORDS) }
    }

    /// The words of `pages` from `first`, to be written.
    pub(crate) fn words_mut(&mut self, first: usize, pages: usize) -> &mut [u64] {
        let at = self.page(first, pages).cast();
        // SAFETY: as in `words`; `&mut self` makes the access exclusive.
        unsafe { slice::from_raw_parts_mut(at, pages * PAGE_WORDS) }
    }

    fn page(&self, first: usize, pages: usize) -> *mut u8 {
        assert!((first + pages) * PAGE <= self.len, "page {first}+{pages} of {} bytes", self.len);
        self.start.wrapping_add(first * PAGE)
    }
}

/// memfd_create(2).
pub(crate) fn memfd(name: &std::ffi::CStr, flags: u32) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads the name.
    super::owned(unsafe { libc::memfd_create(name.as_ptr(), flags) })
}

/// mlockall(2).
pub(crate) fn lock_all(flags: i32) -> io::Result<()> {
    // SAFETY: takes an integer; locking changes no content.
    check(unsafe { libc::mlockall(flags) }).map(drop)
}

/// sbrk(2): moves the end of the heap by `bytes` and gives the old one.
pub(crate) fn grow_heap(bytes: isize) -> io::Result<usize> {
    // SAFETY: glibc's malloc copes with a heap that others grow (malloc(3), "foreign sbrk").
    let old = unsafe { libc::sbrk(bytes) };
    if old.addr() == usize::MAX { Err(io::Error::last_os_error()) } else { Ok(old.addr()) }
}

/// The `words` at `address`.
///
/// # Safety
///
/// They are mapped, readable, and written by nobody meanwhile.
pub(crate) unsafe fn words_at<'a>(address: usize, words: usize) -> &'a [u64] {
    // SAFETY: the caller's promise; every bit pattern is a u64.
    unsafe { slice::from_raw_parts(std::ptr::with_exposed_provenance(address), words) }
}

/// The `words` at `address`, to be written.
///
/// # Safety
///
/// They are mapped, writable, and used by nobody else meanwhile.
pub(crate) unsafe fn words_at_mut<'a>(address: usize, words: usize) -> &'a mut [u64] {
    // SAFETY: the caller's promise; every bit pattern is a u64.
    unsafe { slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut(address), words) }
}
