//! What an allocator does with memory that it gives back to the kernel and takes again.
//!
//! Not here: which allocator: the harness preloads one, and sets it to give back at once.

use crate::pattern;
use crate::stage::Stage;
use std::io;

/// Sizes of blocks: what allocators keep in slabs, and what has pages of its own.
const SIZES: [usize; 7] = [512, 16 << 10, 40 << 10, 100 << 10, 1 << 20, 3 << 20, 5 << 20];

/// Blocks of each size.
const COPIES: usize = 4;

/// Memory that was full before the checkpoint is given back after it; what `calloc` gives then is
/// zero, every time.
pub(crate) fn allocator(stage: &'static Stage) -> io::Result<()> {
    // What was freed and purged before is in the image as zeros, or not at all.
    drop(Blocks::filled(stage, 0)?);
    let kept = Blocks::filled(stage, 1)?;
    let freed = Blocks::filled(stage, 2)?;
    stage.across()?;
    kept.hold(stage, 1);
    freed.hold(stage, 2);
    drop(freed);
    for round in 3..6 {
        drop(Blocks::filled(stage, round)?);
    }
    kept.hold(stage, 1);
    drop(kept);
    drop(Blocks::filled(stage, 6)?);
    Ok(())
}

/// Blocks of every size, in turn, so that each has neighbours of another fate.
struct Blocks(Vec<Block>);

impl Blocks {
    /// From `calloc`, zero at first, and then full.
    fn filled(stage: &Stage, seed: u64) -> io::Result<Self> {
        let sizes = SIZES.iter().cycle().take(SIZES.len() * COPIES);
        let mut blocks =
            sizes.map(|&bytes| Block::zeroed(bytes)).collect::<io::Result<Vec<_>>>()?;
        for (index, block) in (0..).zip(&mut blocks) {
            let dirty = block.words().iter().filter(|word| **word != 0).count();
            let what = format!("words that are not zero in a new block of {} bytes", block.bytes);
            stage.same(&what, &0, &dirty);
            pattern::fill(block.words_mut(), seed << 32 | index);
        }
        Ok(Self(blocks))
    }

    fn hold(&self, stage: &Stage, seed: u64) {
        for (index, block) in (0..).zip(&self.0) {
            let difference = pattern::first_difference(block.words(), seed << 32 | index);
            stage.same("a block that was kept", &None, &difference);
        }
    }
}

/// A block of the C library's, or of what stands in for it.
struct Block {
    words: *mut u64,
    bytes: usize,
}

impl Block {
    fn zeroed(bytes: usize) -> io::Result<Self> {
        // SAFETY: calloc takes any size, and neither of the two is zero.
        let words = unsafe { libc::calloc(bytes / 8, 8) };
        if words.is_null() {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { words: words.cast(), bytes })
    }

    fn words(&self) -> &[u64] {
        // SAFETY: calloc gave this many bytes, aligned for any type, initialised, and ours until
        // they are freed in `drop`.
        unsafe { std::slice::from_raw_parts(self.words, self.bytes / 8) }
    }

    fn words_mut(&mut self) -> &mut [u64] {
        // SAFETY: as for `words`; `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.words, self.bytes / 8) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: from calloc, and freed once.
        unsafe { libc::free(self.words.cast()) };
    }
}
