//! Addresses, ids and sizes as types, and the little arithmetic that they need.
//!
//! In: numbers. Out: numbers that cannot be mixed up.
//! Invariant: an [`AddrRange`] never ends before it starts.
//! Not here: anything that asks the kernel.
#![no_std]
#![forbid(unsafe_code)]

use core::fmt;

/// Size of a page in bytes on every architecture that we restore on (x86-64).
pub const PAGE_BYTES: u64 = 4096;

/// An address in another process, or in a process to be: an allegation, never a pointer of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteAddr(pub u64);

impl RemoteAddr {
    /// The address `bytes` further up, or `None` where the address space ends first.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// Whether the address is the first of a page.
    pub const fn is_page_aligned(self) -> bool {
        self.0.is_multiple_of(PAGE_BYTES)
    }

    /// The first address of the page that holds this one.
    pub const fn page_floor(self) -> Self {
        Self(self.0 & !(PAGE_BYTES - 1))
    }
}

impl fmt::Display for RemoteAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A half-open range of addresses, `start..end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddrRange {
    start: u64,
    end: u64,
}

impl AddrRange {
    /// The range `start..end`; `None` where it would end before it starts.
    pub const fn new(start: u64, end: u64) -> Option<Self> {
        if end < start { None } else { Some(Self { start, end }) }
    }

    /// The range of `len` bytes from `start`; `None` where it would leave the address space.
    pub const fn with_len(start: u64, len: u64) -> Option<Self> {
        match start.checked_add(len) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// First address of the range.
    pub const fn start(self) -> u64 {
        self.start
    }

    /// First address after the range.
    pub const fn end(self) -> u64 {
        self.end
    }

    /// Length in bytes.
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// Whether the range holds no address.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Length in pages, a part of a page counting as one.
    pub const fn pages(self) -> u64 {
        self.len().div_ceil(PAGE_BYTES)
    }

    /// Whether both ends are page boundaries.
    pub const fn is_page_aligned(self) -> bool {
        self.start.is_multiple_of(PAGE_BYTES) && self.end.is_multiple_of(PAGE_BYTES)
    }

    /// Whether `addr` lies in the range.
    pub const fn contains(self, addr: u64) -> bool {
        self.start <= addr && addr < self.end
    }

    /// Whether all of `other` lies in the range.
    pub const fn covers(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Whether the two ranges share an address.
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// What the two ranges share, if anything.
    pub fn intersection(self, other: Self) -> Option<Self> {
        let start = self.start.max(other.start);
        let end = self.end.min(other.end);
        (start < end).then_some(Self { start, end })
    }
}

impl fmt::Display for AddrRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.start, self.end)
    }
}

/// A process or thread id as we see it, in our own PID namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPid(pub i32);

impl fmt::Display for HostPid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A process or thread id as the task itself sees it, in the innermost PID namespace it lives in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NsPid(pub i32);

impl fmt::Display for NsPid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a file descriptor in the checkpointed process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FdNumber(pub i32);

impl fmt::Display for FdNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_cannot_end_before_it_starts() {
        assert_eq!(AddrRange::new(2, 1), None);
        assert_eq!(AddrRange::with_len(u64::MAX, 2), None);
    }

    #[test]
    fn neighbours_do_not_overlap() {
        let low = AddrRange::new(0, 0x1000).unwrap();
        let high = AddrRange::new(0x1000, 0x2000).unwrap();
        assert!(!low.overlaps(high));
        assert_eq!(low.intersection(high), None);
        assert!(low.overlaps(AddrRange::new(0xfff, 0x1001).unwrap()));
    }
}
