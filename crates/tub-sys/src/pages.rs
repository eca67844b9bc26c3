//! Bytes in pages of their own, which can be moved instead of copied.
//!
//! In: bytes, one after the other. Out: a slice, and its pages at another address.
//! Invariant: nothing else lies in its pages.

use crate::{Errno, check};
use std::ops::{Deref, DerefMut};
use tub_units::PAGE_BYTES;

const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_BYTES, "the same as everywhere");

/// A vector with room for so many bytes and no more, in memory that was taken as a whole: page by page
/// it would cost a fault each.
#[derive(Debug)]
pub struct PageBuffer {
    at: *mut u8,
    room: usize,
    used: usize,
}

// SAFETY: it owns its pages, as a vector does.
unsafe impl Send for PageBuffer {}
// SAFETY: shared, it is only read.
unsafe impl Sync for PageBuffer {}

impl PageBuffer {
    /// An empty one with room for `bytes`.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub fn with_capacity(bytes: usize) -> Result<Self, Errno> {
        let room = bytes.max(1).checked_next_multiple_of(PAGE);
        let room = room.ok_or(Errno::ENOMEM)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses a free place, so no memory in use is touched.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), room, rights, flags, -1, 0) };
        check(at as i64)?;
        Ok(Self { at: at.cast(), room, used: 0 })
    }

    /// Adds `bytes` at the end.
    ///
    /// # Panics
    ///
    /// Where there is no room for them.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let at = self.used;
        self.extend_with_zeros(bytes.len());
        self[at..].copy_from_slice(bytes);
    }

    /// Adds so many zeros at the end.
    ///
    /// # Panics
    ///
    /// Where there is no room for them.
    pub fn extend_with_zeros(&mut self, bytes: usize) {
        assert!(bytes <= self.room - self.used, "the room was counted beforehand");
        // Nobody has written there: it never gets shorter.
        self.used += bytes;
    }

    /// Moves its pages to `to`, in whose place they are from then on (mremap(2)). Where they were, nothing
    /// is any more.
    ///
    /// # Errors
    ///
    /// EINVAL for an address that is not a page's; ENOMEM.
    ///
    /// # Safety
    ///
    /// What lies at `to`, up to as many pages as it has used, is nobody's; and this is not used again.
    pub unsafe fn move_to(&self, to: u64) -> Result<(), Errno> {
        let len = self.used.max(1).next_multiple_of(PAGE);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: the caller vouches for what is replaced, and for what is left behind.
        let moved =
            unsafe { libc::mremap(self.at.cast(), len, len, flags, to as *mut libc::c_void) };
        check(moved as i64).map(drop)
    }
}

impl Deref for PageBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: so many bytes of its pages are its own, and hold zeros or what was written.
        unsafe { std::slice::from_raw_parts(self.at, self.used) }
    }
}

impl DerefMut for PageBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: so many bytes of its pages are its own, and borrowed by nobody else.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.used) }
    }
}

impl Drop for PageBuffer {
    fn drop(&mut self) {
        // SAFETY: its pages are its own, and nobody borrows them any more.
        unsafe { libc::munmap(self.at.cast(), self.room) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_where_they_were_put_and_where_they_are_moved_to() {
        let mut buffer = PageBuffer::with_capacity(5000).unwrap();
        buffer.extend_from_slice(b"one");
        buffer.extend_with_zeros(4096);
        buffer.extend_from_slice(b"two");
        buffer[1] = b'N';
        assert_eq!((&buffer[..4], &buffer[4098..]), (&b"oNe\0"[..], &b"\0two"[..]));
        let other = PageBuffer::with_capacity(8192).unwrap();
        let to = other.at;
        // Its pages are gone, or somebody else's.
        std::mem::forget(other);
        let copy = buffer.to_vec();
        // SAFETY: the pages there were forgotten, and `buffer` is forgotten below.
        unsafe { buffer.move_to(to as u64) }.unwrap();
        std::mem::forget(buffer);
        // SAFETY: they lie there now, and stay.
        assert_eq!(unsafe { std::slice::from_raw_parts(to, copy.len()) }, copy);
    }
}
