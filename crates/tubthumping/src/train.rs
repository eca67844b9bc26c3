//! Which pages a restored process writes to first: recorded from instances that are used as a user
//! would use them.
//!
//! In: the id of a restored process that has just given its first answer; several such recordings.
//! Out: ranges kept beside the image, which later restores have in place before they run.
//! Invariant: nothing depends on them; they are advice.

use std::collections::BTreeMap;
use std::path::Path;
use tub_image::Image;
use tub_model::{Backing, Vma};
use tub_units::{AddrRange, HostPid, PAGE_BYTES};

/// Why nothing was learnt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The image cannot be used, or the recording not kept.
    #[error("image cannot be used")]
    Image(#[source] tub_image::Error),
    /// The process cannot be looked into.
    #[error("process cannot be looked into")]
    Process(#[source] tub_checkpoint::Error),
}

/// Recordings of one image.
#[derive(Debug)]
pub struct Training {
    image: Image,
    votes: BTreeMap<u64, u32>,
    recordings: u32,
}

impl Training {
    /// Starts without any recording.
    ///
    /// # Errors
    ///
    /// [`TrainError::Image`].
    pub fn new(dir: &Path) -> Result<Self, TrainError> {
        let image = Image::open(dir).map_err(TrainError::Image)?;
        Ok(Self { image, votes: BTreeMap::new(), recordings: 0 })
    }

    /// Records which pages the restored process `pid` has made its own so far.
    ///
    /// # Errors
    ///
    /// [`TrainError::Process`].
    pub fn record(&mut self, pid: HostPid) -> Result<(), TrainError> {
        let vmas = self.image.checkpoint.tasks.iter().flat_map(|task| &task.vmas);
        let ranges = vmas.filter(|vma| may_be_hot(vma)).map(|vma| vma.range);
        for range in tub_checkpoint::own_pages(pid, ranges).map_err(TrainError::Process)? {
            for page in range.start() / PAGE_BYTES..range.end() / PAGE_BYTES {
                *self.votes.entry(page * PAGE_BYTES).or_default() += 1;
            }
        }
        self.recordings += 1;
        Ok(())
    }

    /// Keeps what more than half of the recordings agree on; answers how many pages that is.
    ///
    /// # Errors
    ///
    /// [`TrainError::Image`], where the image's directory may not be written to.
    pub fn keep(&self) -> Result<u64, TrainError> {
        let mut ranges: Vec<AddrRange> = Vec::new();
        for (&page, &votes) in &self.votes {
            if votes * 2 <= self.recordings {
                continue;
            }
            let Some(range) = AddrRange::with_len(page, PAGE_BYTES) else { continue };
            match ranges.last_mut() {
                Some(last) if last.end() == page => {
                    *last = AddrRange::new(last.start(), range.end()).unwrap_or(*last);
                }
                _ => ranges.push(range),
            }
        }
        self.image.record_hot(&ranges).map_err(TrainError::Image)?;
        Ok(ranges.iter().map(|range| range.pages()).sum())
    }
}

fn may_be_hot(vma: &Vma) -> bool {
    let private = matches!(vma.backing, Backing::Anonymous | Backing::PrivateFile { .. });
    private && vma.protection.write && !vma.grows_down
}
