//! The fixed parts of `inventory.tub`: the header and the frames of the records.
//!
//! In: bytes. Out: a [`Header`], or the frames one after another.
//! Invariant: the header is 64 bytes in every version, and its first 12 bytes never change their
//! meaning: any release can tell which version it looks at.
//! Not here: what the records hold (`v1`).

use std::fmt;

/// Name of the file with everything but the pages.
pub const INVENTORY_FILE: &str = "inventory.tub";

/// Name of the file with the bytes of the pages.
pub const PAGES_FILE: &str = "pages.tub";

/// A byte that is no text, the name, and the line ends that a careless copy would change.
pub(crate) const MAGIC: [u8; 8] = *b"\x89TUB\r\n\x1a\n";

/// Length of the header.
pub(crate) const HEADER_BYTES: usize = 64;

/// Length of the frame in front of each record.
pub(crate) const FRAME_BYTES: usize = 16;

/// More than any process needs (a thousand times a JVM's), and little enough to read at once.
pub(crate) const BODY_BYTES_MAX: u64 = 256 << 20;

/// What this release writes, and the newest that it reads.
pub(crate) const VERSION: Version = Version { major: 1, minor: 0 };

/// What the flags of the header are reserved for. This release sets none, and reads none.
pub(crate) const FLAG_NAMES: [(u32, &str); 3] =
    [(1, "compressed pages"), (1 << 1, "encryption"), (1 << 2, "layers")];

/// A record with this bit in its kind may be passed over by who does not know it.
pub(crate) const OPTIONAL: u32 = 1 << 31;

/// Size of a page, as the header says it.
pub(crate) const PAGE: u32 = 4096;
const _: () = assert!(PAGE as u64 == tub_units::PAGE_BYTES);

/// ELF machine number of the architecture that we are built for.
pub(crate) const MACHINE: u32 = if cfg!(target_arch = "x86_64") {
    62
} else if cfg!(target_arch = "aarch64") {
    183
} else {
    0
};

/// Version of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Another number: another format.
    pub major: u16,
    /// A higher number: more optional records.
    pub minor: u16,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The first 64 bytes. All numbers are little-endian.
///
/// ```text
///  0 magic            8 major 10 minor 12 machine
/// 16 page_bytes 20 flags 24 body_bytes
/// 32 body_hash       40 pages_bytes
/// 48 reserved        56 header_hash, of bytes 0..56
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: Version,
    pub(crate) machine: u32,
    pub(crate) page_bytes: u32,
    /// None is in use: a set one is a reason to refuse.
    pub(crate) flags: u32,
    /// Length of what follows the header.
    pub(crate) body_bytes: u64,
    /// XXH3-64 of what follows the header.
    pub(crate) body_hash: u64,
    /// Length of `pages.tub`.
    pub(crate) pages_bytes: u64,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(8, &self.version.major.to_le_bytes());
        put(10, &self.version.minor.to_le_bytes());
        put(12, &self.machine.to_le_bytes());
        put(16, &self.page_bytes.to_le_bytes());
        put(20, &self.flags.to_le_bytes());
        put(24, &self.body_bytes.to_le_bytes());
        put(32, &self.body_hash.to_le_bytes());
        put(40, &self.pages_bytes.to_le_bytes());
        let hash = hash(&bytes[..HASHED_BYTES]);
        bytes[HASHED_BYTES..].copy_from_slice(&hash.to_le_bytes());
        bytes
    }

    /// The header without any judgement; [`Header::is_intact`] is apart, since the version is
    /// looked at first.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Self {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            version: Version { major: u16_at(8), minor: u16_at(10) },
            machine: u32_at(bytes, 12),
            page_bytes: u32_at(bytes, 16),
            flags: u32_at(bytes, 20),
            body_bytes: u64_at(bytes, 24),
            body_hash: u64_at(bytes, 32),
            pages_bytes: u64_at(bytes, 40),
        }
    }

    /// Whether the header's own checksum matches.
    pub(crate) fn is_intact(bytes: &[u8; HEADER_BYTES]) -> bool {
        u64_at(bytes, HASHED_BYTES) == hash(&bytes[..HASHED_BYTES])
    }
}

const HASHED_BYTES: usize = 56;

/// One record as it lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u32,
    pub(crate) version: u32,
    pub(crate) payload: &'a [u8],
}

/// Appends a record: kind, version, length of the payload, payload.
pub(crate) fn put_frame(body: &mut Vec<u8>, kind: u32, version: u32, payload: &[u8]) {
    body.extend_from_slice(&kind.to_le_bytes());
    body.extend_from_slice(&version.to_le_bytes());
    body.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    body.extend_from_slice(payload);
}

/// The first record of `body` and the bytes after it; `None` where it is cut short.
pub(crate) fn take_frame(body: &[u8]) -> Option<(Frame<'_>, &[u8])> {
    let (frame, rest) = body.split_at_checked(FRAME_BYTES)?;
    let length = usize::try_from(u64_at(frame, 8)).ok()?;
    let (payload, rest) = rest.split_at_checked(length)?;
    Some((Frame { kind: u32_at(frame, 0), version: u32_at(frame, 4), payload }, rest))
}

/// XXH3-64 with seed 0: every checksum of the format.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_comes_back() {
        let header = Header {
            version: Version { major: 1, minor: 7 },
            machine: 62,
            page_bytes: 4096,
            flags: 1,
            body_bytes: 2,
            body_hash: 3,
            pages_bytes: 4,
        };
        let mut bytes = header.encode();
        assert_eq!(Header::decode(&bytes), header);
        assert!(Header::is_intact(&bytes));
        for at in 0..HEADER_BYTES {
            bytes[at] ^= 1;
            assert!(!Header::is_intact(&bytes), "byte {at}");
            bytes[at] ^= 1;
        }
    }

    #[test]
    fn a_frame_longer_than_its_file_is_none() {
        let mut body = Vec::new();
        put_frame(&mut body, 7, 1, b"abc");
        let (frame, rest) = take_frame(&body).unwrap();
        assert_eq!((frame.kind, frame.version, frame.payload), (7, 1, &b"abc"[..]));
        assert!(rest.is_empty());
        for end in 0..body.len() {
            assert_eq!(take_frame(&body[..end]), None);
        }
        body[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(take_frame(&body), None);
    }
}
