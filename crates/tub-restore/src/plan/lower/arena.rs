//! Numbers as the kernel and the blob want them, and the place for operands.

use tub_restorer_abi::RawOp;

pub(super) fn op_bytes(op: &RawOp) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend(op.code.to_ne_bytes());
    bytes.extend(op.flags.to_ne_bytes());
    bytes.extend(words(&op.args));
    bytes
}

pub(super) fn words(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

/// A C int as a system call's argument.
pub(super) fn number(value: i32) -> u64 {
    i64::from(value).cast_unsigned()
}

/// Operands, placed one after the other at addresses known in advance.
pub(super) struct Arena {
    pub(super) base: u64,
    pub(super) bytes: Vec<u8>,
}

impl Arena {
    pub(super) fn reserve(&mut self, bytes: u64, align: usize) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0);
        let at = self.base + self.bytes.len() as u64;
        let bytes = usize::try_from(bytes).expect("operands are small");
        self.bytes.resize(self.bytes.len() + bytes, 0);
        at
    }

    pub(super) fn put(&mut self, bytes: &[u8], align: usize) -> u64 {
        let at = self.reserve(bytes.len() as u64, align);
        self.write(at, bytes);
        at
    }

    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) {
        let offset = usize::try_from(at - self.base).expect("the arena is smaller than memory");
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}
