//! `hot.tub`: which pages a restored process writes to first.
//!
//! In: ranges recorded by `tub train`. Out: ranges to have in place before the process runs.
//! Invariant: the file is advice. It is never required, and one that is damaged, of another image
//! or too large counts as none: wrong advice costs time, not correctness.
//! Not here: recording, and what becomes of the ranges (`tubthumping`, `tub-restore`).

use crate::error::{Error, Result};
use crate::image::Image;
use crate::layout::hash;
use nix::fcntl::OFlag;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use tub_units::AddrRange;

/// Name of the file.
pub const HOT_FILE: &str = "hot.tub";

/// Its name while it is written.
pub(crate) const HOT_ASIDE: &str = "hot.tub.new";

const MAGIC: [u8; 8] = *b"\x89TUBHOT\x01";
/// Magic, image id, and the checksum at the end.
const FIXED_BYTES: usize = 8 + 16 + 8;
/// More ranges than this cost more than they save.
const RANGES_MAX: usize = 1 << 16;
const BYTES_MAX: u64 = (FIXED_BYTES + RANGES_MAX * 16) as u64;

impl Image {
    /// The pages that a restored process is known to write to first: ascending and disjoint, empty
    /// where nothing is known.
    pub fn hot(&self) -> Vec<AddrRange> {
        let id = self.checkpoint.provenance.image_id;
        read(&self.dir.join(HOT_FILE)).and_then(|bytes| decode(&bytes, id)).unwrap_or_default()
    }

    /// Records them, for all restores from now on.
    ///
    /// # Errors
    /// [`crate::ErrorKind::System`], where the directory may not be written to. What was there
    /// before stays.
    pub fn record_hot(&self, ranges: &[AddrRange]) -> Result<()> {
        let path = self.dir.join(HOT_FILE);
        let aside = self.dir.join(HOT_ASIDE);
        let failed = |operation| {
            let path = path.clone();
            move |error| Error::system(&path, operation, error)
        };
        let _ = fs::remove_file(&aside);
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&aside)
            .map_err(failed("create"))?;
        let bytes = encode(ranges, self.checkpoint.provenance.image_id);
        file.write_all(&bytes).map_err(failed("write"))?;
        file.sync_all().map_err(failed("fsync"))?;
        fs::rename(&aside, &path).map_err(failed("rename"))
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    // Not blocking: it may have been replaced by a FIFO.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits()).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    let ours = metadata.uid() == 0 || metadata.uid() == nix::unistd::geteuid().as_raw();
    let small = metadata.len() <= BYTES_MAX;
    if !metadata.is_file() || !ours || metadata.mode() & 0o022 != 0 || !small {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn encode(ranges: &[AddrRange], id: [u8; 16]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(id);
    for range in ranges.iter().take(RANGES_MAX) {
        bytes.extend(range.start().to_le_bytes());
        bytes.extend(range.end().to_le_bytes());
    }
    bytes.extend(hash(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8], id: [u8; 16]) -> Option<Vec<AddrRange>> {
    let (body, checksum) = bytes.split_last_chunk::<8>()?;
    if u64::from_le_bytes(*checksum) != hash(body) {
        return None;
    }
    let rest = body.strip_prefix(&MAGIC)?.strip_prefix(&id)?;
    let mut ranges = Vec::with_capacity(rest.len() / 16);
    let mut end = 0;
    for pair in rest.as_chunks::<16>().0 {
        let (start, stop) = pair.split_at(8);
        let word = |half: &[u8]| half.try_into().map(u64::from_le_bytes).ok();
        let range = AddrRange::new(word(start)?, word(stop)?)?;
        if range.start() < end || range.is_empty() || !range.is_page_aligned() {
            return None;
        }
        end = range.end();
        ranges.push(range);
    }
    Some(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges() -> Vec<AddrRange> {
        [(0x1000, 0x2000), (0x5000, 0x9000)]
            .map(|(start, end)| AddrRange::new(start, end).unwrap())
            .to_vec()
    }

    #[test]
    fn what_is_no_file_is_no_advice_and_not_waited_for() {
        let path = std::env::temp_dir().join(format!("tub-hot-{}", std::process::id()));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let at = path.clone();
        std::thread::spawn(move || tell.send(read(&at)));
        let found = told.recv_timeout(std::time::Duration::from_secs(10));
        fs::remove_file(&path).unwrap();
        assert_eq!(found, Ok(None));
    }

    #[test]
    fn advice_survives_the_journey() {
        assert_eq!(decode(&encode(&ranges(), [1; 16]), [1; 16]), Some(ranges()));
    }

    #[test]
    fn advice_of_another_image_or_damaged_advice_is_none() {
        let bytes = encode(&ranges(), [1; 16]);
        assert_eq!(decode(&bytes, [2; 16]), None);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged, [1; 16]), None, "byte {at}");
            assert_eq!(decode(&bytes[..at], [1; 16]), None, "cut at {at}");
        }
    }
}
