//! What parent and child still share is stored once.
//!
//! In: a task's pages in ascending order, in pieces of any length, and what of each piece its parent has
//! too. Out: the same pages in the page store. Invariant: what is decided does not depend on where a
//! piece ends.
//! Not here: who compares the pages (`write`).

use tub_image::{PageWriter, Result, Zeros};
use tub_units::{AddrRange, PAGE_BYTES, RemoteAddr};

/// Fewer pages than this in a row are stored once more: a mapping of their own costs more at every
/// restore.
const SHARED_BYTES_MIN: u64 = 16 * PAGE_BYTES;

/// What of some pages is the same in another task.
pub(crate) struct Same {
    /// The task.
    pub(crate) task: usize,
    /// Where, in ascending order.
    pub(crate) ranges: Vec<AddrRange>,
}

/// A page store that takes pages in pieces.
pub(crate) struct Sharing<'a> {
    writer: &'a mut PageWriter,
    /// The pages before the next ones, as long as they are the same in the other task and too few in a
    /// row to be shared.
    few: Vec<u8>,
    few_start: u64,
    few_zeros: Zeros,
    /// Where what has been shared ends.
    shared_end: u64,
}

impl<'a> Sharing<'a> {
    pub(crate) fn new(writer: &'a mut PageWriter) -> Self {
        Self { writer, few: Vec::new(), few_start: 0, few_zeros: Zeros::Implied, shared_end: 0 }
    }

    /// Takes the pages from `start` on.
    pub(crate) fn append(
        &mut self,
        start: u64,
        bytes: &[u8],
        zeros: Zeros,
        same: Option<Same>,
    ) -> Result<()> {
        let Some((Same { task, ranges }, all)) =
            same.zip(AddrRange::with_len(start, bytes.len() as u64))
        else {
            return self.own(start, bytes, zeros);
        };
        let at = |address: u64| usize::try_from(address - start).unwrap_or(usize::MAX);
        let mut done = start;
        for stored in self.writer.stored(task, all) {
            for both in ranges.iter().filter_map(|range| range.intersection(stored)) {
                self.own(done, &bytes[at(done)..at(both.start())], zeros)?;
                self.both(task, both.start(), &bytes[at(both.start())..at(both.end())], zeros)?;
                done = both.end();
            }
        }
        self.own(done, &bytes[at(done)..], zeros)
    }

    /// What follows belongs to another mapping.
    pub(crate) fn finish_range(&mut self) -> Result<()> {
        self.settle()?;
        self.shared_end = 0;
        self.writer.finish_range()
    }

    /// What follows belongs to another task.
    pub(crate) fn finish_task(&mut self) -> Result<()> {
        self.finish_range()?;
        self.writer.finish_task()
    }

    /// Takes pages that only this task has.
    fn own(&mut self, start: u64, bytes: &[u8], zeros: Zeros) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.settle()?;
        self.writer.append(RemoteAddr(start), bytes, zeros)
    }

    /// Takes pages that the other task has stored at the same addresses, in one run.
    fn both(&mut self, task: usize, start: u64, bytes: &[u8], zeros: Zeros) -> Result<()> {
        let end = start + bytes.len() as u64;
        let few_end = self.few_start + self.few.len() as u64;
        if few_end != start || !self.is_one_run(task, self.few_start, end) {
            self.settle()?;
        }
        if self.few.is_empty() {
            self.few_start = start;
        }
        let goes_on = self.shared_end == start
            && self.is_one_run(task, start.saturating_sub(PAGE_BYTES), end);
        if !goes_on && end - self.few_start < SHARED_BYTES_MIN {
            self.few.extend_from_slice(bytes);
            self.few_zeros = zeros;
            return Ok(());
        }
        if !self.few.is_empty() {
            self.writer.share(task, RemoteAddr(self.few_start), &self.few)?;
            self.few.clear();
        }
        self.shared_end = end;
        self.writer.share(task, RemoteAddr(start), bytes)
    }

    /// Whether the other task has all of these pages in one run. Its own runs may lie side by side.
    fn is_one_run(&self, task: usize, start: u64, end: u64) -> bool {
        let range = AddrRange::new(start, end);
        range.is_some_and(|range| self.writer.stored(task, range) == [range])
    }

    /// Stores the few pages once more: no more of them follow.
    fn settle(&mut self) -> Result<()> {
        if !self.few.is_empty() {
            self.writer.append(RemoteAddr(self.few_start), &self.few, self.few_zeros)?;
            self.few.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use tub_image::{ImageWriter, Replace};

    const START: u64 = 0x10_0000;
    /// Of parent and child each.
    const PAGES: u64 = 100;

    /// The addresses of the pages `from..to`.
    fn pages(from: u64, to: u64) -> AddrRange {
        AddrRange::new(START + from * PAGE_BYTES, START + to * PAGE_BYTES).unwrap()
    }

    /// The runs of a child that has the pages of `same` in common with its parent, whose runs are `parent`,
    /// when they are handed in in pieces of so many. What it has to itself is one run where nothing
    /// is shared.
    fn runs(parent: &[(u64, u64)], same: &[(u64, u64)], piece: u64) -> Vec<(u64, u64)> {
        static IMAGES: AtomicU32 = AtomicU32::new(0);
        let name = format!("tub-{}-{}", std::process::id(), IMAGES.fetch_add(1, Relaxed));
        let dir = std::env::temp_dir().join(name);
        let mut writer = ImageWriter::create(&dir, Replace::Never).unwrap();
        let mut sharing = Sharing::new(writer.pages());
        let bytes = vec![1; usize::try_from(PAGES * PAGE_BYTES).unwrap()];
        let some = |range: AddrRange| &bytes[..usize::try_from(range.len()).unwrap()];
        for range in parent.iter().map(|&(from, to)| pages(from, to)) {
            sharing.append(range.start(), some(range), Zeros::Implied, None).unwrap();
            sharing.finish_range().unwrap();
        }
        sharing.finish_task().unwrap();
        for at in (0..PAGES).step_by(usize::try_from(piece).unwrap()) {
            let range = pages(at, (at + piece).min(PAGES));
            let same = same.iter().filter_map(|&(from, to)| range.intersection(pages(from, to)));
            let same = Same { task: 0, ranges: same.collect() };
            sharing.append(range.start(), some(range), Zeros::Implied, Some(same)).unwrap();
        }
        sharing.finish_task().unwrap();
        let number = |address: u64| (address - START) / PAGE_BYTES;
        let runs = sharing.writer.stored(1, pages(0, PAGES));
        runs.iter().map(|run| (number(run.start()), number(run.end()))).collect()
    }

    #[test]
    fn nothing_depends_on_where_a_piece_ends() {
        const ALL: &[(u64, u64)] = &[(0, PAGES)];
        for piece in [1, 2, 3, 7, 15, 16, 17, 50, 64, 99, 100] {
            let runs = |parent, same| runs(parent, same, piece);
            // Whatever is enough in a row is shared, wherever it lies.
            assert_eq!(runs(ALL, &[(0, 100)]), [(0, 100)], "{piece}");
            assert_eq!(runs(ALL, &[(1, 100)]), [(0, 1), (1, 100)], "{piece}");
            assert_eq!(runs(ALL, &[(0, 66), (67, 100)]), [(0, 66), (66, 67), (67, 100)], "{piece}");
            assert_eq!(runs(ALL, &[(30, 46)]), [(0, 30), (30, 46), (46, 100)], "{piece}");
            // Fewer are not.
            assert_eq!(runs(ALL, &[(30, 45), (50, 65), (90, 100)]), [(0, 100)], "{piece}");
            // The parent's runs lie side by side, and each is shared by itself.
            let parent = &[(0, 40), (40, 50), (50, 100)];
            assert_eq!(runs(parent, &[(0, 100)]), [(0, 40), (40, 50), (50, 100)], "{piece}");
            assert_eq!(runs(parent, &[(20, 55)]), [(0, 20), (20, 40), (40, 100)], "{piece}");
        }
    }
}
