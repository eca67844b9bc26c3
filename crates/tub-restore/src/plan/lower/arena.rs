//! Numbers as the kernel and the blob want them, and the place for operands.

use tub_restorer_abi::RawOp;
use tub_sys::{Errno, PageBuffer};

pub(super) fn words(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

/// A C int as a system call's argument.
pub(super) fn number(value: i32) -> u64 {
    i64::from(value).cast_unsigned()
}

/// Operands, placed one after the other at addresses known in advance.
pub(super) struct Arena {
    base: u64,
    bytes: PageBuffer,
}

impl Arena {
    /// One for at most so many bytes.
    pub(super) fn new(base: u64, bytes_max: usize) -> Result<Self, Errno> {
        Ok(Self { base, bytes: PageBuffer::with_capacity(bytes_max)? })
    }

    /// Where the next operand with that alignment will be.
    pub(super) fn next(&mut self, align: usize) -> u64 {
        let len = self.bytes.len();
        self.bytes.extend_with_zeros(len.next_multiple_of(align) - len);
        self.base + self.bytes.len() as u64
    }

    pub(super) fn reserve(&mut self, bytes: u64, align: usize) -> u64 {
        let at = self.next(align);
        let bytes = usize::try_from(bytes).expect("operands are small");
        self.bytes.extend_with_zeros(bytes);
        at
    }

    pub(super) fn put(&mut self, bytes: &[u8], align: usize) -> u64 {
        let at = self.next(align);
        self.bytes.extend_from_slice(bytes);
        at
    }

    pub(super) fn put_ops(&mut self, ops: &[RawOp]) -> u64 {
        let at = self.next(64);
        for RawOp { code, flags, args } in ops {
            self.bytes.extend_from_slice(&code.to_ne_bytes());
            self.bytes.extend_from_slice(&flags.to_ne_bytes());
            for arg in args {
                self.bytes.extend_from_slice(&arg.to_ne_bytes());
            }
        }
        at
    }

    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) {
        let offset = usize::try_from(at - self.base).expect("the arena is smaller than memory");
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn into_bytes(self) -> PageBuffer {
        self.bytes
    }
}
