//! The blob's code, as the build made it.

/// Its bytes, starting with [`tub_restorer_abi::BLOB_MAGIC`].
pub(crate) const CODE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/blob.bin"));
/// Offset of its entry.
pub(crate) const ENTRY: u64 = include!(concat!(env!("OUT_DIR"), "/blob_entry.rs"));
