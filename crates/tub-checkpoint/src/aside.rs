//! Memory that pages are copied to while a process stands still, on their way into the image.
//!
//! In: pages, in the order of the image. Out: the same pages in the page store, written by a thread
//! of its own. Invariant: whoever reads waits for the disk only where there is no room left.
//!
//! ```text
//! process ──read──▶ chunk ──▶ queue ──▶ writer ──▶ pages.tub
//!                     ▲                    │
//!                     └────── empty ───────┘
//! ```
//!
//! Copying 40 MB takes some 12 ms; looking for zeros, hashing and writing them takes thrice as long.
//! While a process waits that is to go on, the writer rests as long as there is room: it would only
//! be in the way where there is a single processor to be had.

use crate::sharing::{Same, Sharing};
use crate::{Error, Result};
use std::cell::{Cell, RefCell};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use tub_image::{PageWriter, Zeros};
use tub_sys::FreshMemory;
use tub_units::{HostPid, PAGE_BYTES};

/// Bytes copied at once: large enough that system calls do not count, small enough that they are still
/// in the processor's own cache when they are looked at and written (1 MiB took a quarter more).
pub(crate) const CHUNK_BYTES: usize = 256 << 10;

/// A range smaller than a chunk leaves the rest of it to the next one, but for crumbs.
const PIECE_BYTES_MIN: usize = 16 << 10;

/// Room for an original that waits for its image anyway: reading and writing go side by side.
const BYTES_MIN: u64 = 2 << 20;

/// What is set aside at most for one that is to go on. More than that goes to the disk while it waits.
const BYTES_MAX: u64 = 256 << 20;

/// Of the memory that is to spare, no more than one part of so many is taken for a moment.
const SHARE_OF_SPARE: u64 = 4;

/// Room for pages.
#[derive(Debug)]
pub(crate) struct Room {
    memory: FreshMemory,
    /// Whether nothing is written before all is read or the room is full.
    read_first: bool,
}

impl Room {
    /// Room for a process that waits until all is written.
    pub(crate) fn small() -> Result<Self> {
        Self::with(BYTES_MIN, false)
    }

    /// Room for all that these processes have to themselves, as far as there is memory for it. Its
    /// pages are there from now on, so that nobody waits for them later.
    pub(crate) fn for_all_of(pids: impl Iterator<Item = HostPid>) -> Result<Self> {
        let own: u64 = pids.filter_map(own_bytes).sum();
        let spare = tub_host::spare_memory_bytes() / SHARE_OF_SPARE;
        // Somewhat more: it still runs.
        let bytes = (own + own / 8).min(BYTES_MAX).min(spare).max(BYTES_MIN);
        // A limit of our own (RLIMIT_AS) only makes it wait for the disk.
        Self::with(bytes, true).or_else(|_| Self::small())
    }

    fn with(bytes: u64, read_first: bool) -> Result<Self> {
        let bytes = usize::try_from(bytes).unwrap_or(CHUNK_BYTES).next_multiple_of(CHUNK_BYTES);
        let memory = FreshMemory::new(bytes)
            .map_err(|source| Error::Room { bytes, source: source.into() })?;
        Ok(Self { memory, read_first })
    }
}

/// What a process has to itself: resident, but not of a file (proc_pid_statm(5)).
fn own_bytes(pid: HostPid) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut pages = statm.split_whitespace().skip(1).map_while(|word| word.parse::<u64>().ok());
    let (resident, shared) = (pages.next()?, pages.next()?);
    Some(resident.saturating_sub(shared) * PAGE_BYTES)
}

/// Something for the page store.
enum Parcel<'a> {
    Pages { start: u64, chunk: &'a mut [u8], length: usize, zeros: Zeros, same: Option<Same> },
    RangeEnd,
    TaskEnd,
}

/// Where pages are handed in.
pub(crate) struct Outbox<'a> {
    full: Sender<Parcel<'a>>,
    empty: Receiver<&'a mut [u8]>,
    /// What the last range has left of its chunk.
    rest: Cell<&'a mut [u8]>,
    /// What is held back, as long as anything is.
    held: RefCell<Option<Vec<Parcel<'a>>>>,
}

/// Why reading ended early.
pub(crate) enum Halt {
    /// It failed.
    Failed(Error),
    /// Nobody takes the pages any more: writing has failed.
    NotTaken,
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl<'a> Outbox<'a> {
    /// Memory to read to, at most for `wanted` bytes, which are whole pages.
    pub(crate) fn chunk(&self, wanted: u64) -> std::result::Result<&'a mut [u8], Halt> {
        let chunk = match self.rest.take() {
            [] => self.next()?,
            rest => rest,
        };
        Ok(self.piece(chunk, wanted))
    }

    /// The same, if there is room and nothing is written before all is read.
    pub(crate) fn chunk_to_spare(&self, wanted: u64) -> Option<&'a mut [u8]> {
        self.held.borrow().as_ref()?;
        let chunk = match self.rest.take() {
            [] => self.empty.try_recv().ok()?,
            rest => rest,
        };
        Some(self.piece(chunk, wanted))
    }

    fn piece(&self, chunk: &'a mut [u8], wanted: u64) -> &'a mut [u8] {
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let piece = wanted.max(PIECE_BYTES_MIN);
        if chunk.len() < piece.saturating_add(PIECE_BYTES_MIN) {
            return chunk;
        }
        let (piece, rest) = chunk.split_at_mut(piece);
        self.rest.set(rest);
        piece
    }

    fn next(&self) -> std::result::Result<&'a mut [u8], Halt> {
        match self.empty.try_recv() {
            Ok(chunk) => Ok(chunk),
            Err(TryRecvError::Disconnected) => Err(Halt::NotTaken),
            Err(TryRecvError::Empty) => {
                self.release()?;
                self.empty.recv().map_err(|_| Halt::NotTaken)
            }
        }
    }

    /// Hands in the first `length` bytes of a chunk: the pages from `start` on.
    pub(crate) fn pages(
        &self,
        start: u64,
        (chunk, length): (&'a mut [u8], usize),
        zeros: Zeros,
        same: Option<Same>,
    ) -> std::result::Result<(), Halt> {
        self.send(Parcel::Pages { start, chunk, length, zeros, same })
    }

    /// What follows belongs to another mapping.
    pub(crate) fn end_range(&self) -> std::result::Result<(), Halt> {
        self.send(Parcel::RangeEnd)
    }

    /// What follows belongs to another task.
    pub(crate) fn end_task(&self) -> std::result::Result<(), Halt> {
        self.send(Parcel::TaskEnd)
    }

    fn send(&self, parcel: Parcel<'a>) -> std::result::Result<(), Halt> {
        match &mut *self.held.borrow_mut() {
            Some(held) => held.push(parcel),
            None => self.full.send(parcel).map_err(|_| Halt::NotTaken)?,
        }
        Ok(())
    }

    /// Lets the writer begin.
    fn release(&self) -> std::result::Result<(), Halt> {
        for parcel in self.held.take().into_iter().flatten() {
            self.send(parcel)?;
        }
        Ok(())
    }
}

/// Lets `read` hand in pages, and writes them. Gives what `read` gives, when all is written.
pub(crate) fn carry<T>(
    room: &mut Room,
    writer: &mut PageWriter,
    read: impl FnOnce(&Outbox<'_>) -> std::result::Result<T, Halt>,
) -> Result<T> {
    let (full, arrived) = channel();
    let (give_back, empty) = channel();
    let held = RefCell::new(room.read_first.then(Vec::new));
    for chunk in room.memory.bytes_mut().chunks_exact_mut(CHUNK_BYTES) {
        let _ = give_back.send(chunk);
    }
    let store = move || store(&arrived, &give_back, writer);
    let (stored, read) = tub_sys::beside("tub-write", store, |failed| {
        if failed.is_some() {
            return Err(Halt::NotTaken);
        }
        // Its end says that there is nothing more.
        let outbox = Outbox { full, empty, rest: Cell::default(), held };
        read(&outbox).and_then(|read| outbox.release().map(|()| read))
    });
    stored.map_err(|source| Error::Thread { source })??;
    match read {
        Ok(read) => Ok(read),
        Err(Halt::Failed(error)) => Err(error),
        Err(Halt::NotTaken) => unreachable!("it takes everything, or tells of an error"),
    }
}

fn store<'a>(
    arrived: &Receiver<Parcel<'a>>,
    give_back: &Sender<&'a mut [u8]>,
    writer: &mut PageWriter,
) -> Result<()> {
    let mut pages = Sharing::new(writer);
    for parcel in arrived {
        let stored = match parcel {
            Parcel::Pages { start, chunk, length, zeros, same } => {
                let stored = pages.append(start, &chunk[..length], zeros, same);
                // Whoever reads may be done.
                let _ = give_back.send(chunk);
                stored
            }
            Parcel::RangeEnd => pages.finish_range(),
            Parcel::TaskEnd => pages.finish_task(),
        };
        stored.map_err(Error::Image)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use tub_image::{ImageWriter, Replace};
    use tub_units::AddrRange;

    fn with_writer(name: &str, test: impl FnOnce(&mut PageWriter)) {
        let dir: PathBuf = std::env::temp_dir().join(format!("tub-{name}-{}", std::process::id()));
        let mut writer = ImageWriter::create(&dir, Replace::Never).unwrap();
        test(writer.pages());
    }

    /// Hands in `bytes` from `start` on, as one range.
    fn hand_in(outbox: &Outbox<'_>, start: u64, bytes: u64) -> std::result::Result<(), Halt> {
        let mut at = start;
        while at < start + bytes {
            let chunk = outbox.chunk(start + bytes - at)?;
            let length = chunk.len().min(usize::try_from(start + bytes - at).unwrap());
            chunk[..length].fill(1);
            outbox.pages(at, (chunk, length), Zeros::Implied, None)?;
            at += length as u64;
        }
        outbox.end_range()
    }

    #[test]
    fn ranges_of_all_sizes_go_through_little_room() {
        for read_first in [false, true] {
            with_writer(&format!("room-{read_first}"), |writer| {
                let mut room = Room::with(BYTES_MIN, read_first).unwrap();
                let sizes = [1, 3, 4, 5, 63, 64, 65, 100, 2000].map(|pages| pages * PAGE_BYTES);
                let ranges: Vec<_> = (1..).zip(sizes.repeat(20)).collect();
                let place = |index: u64| index << 24;
                let handed_in = carry(&mut room, writer, |outbox| {
                    for &(index, bytes) in &ranges {
                        hand_in(outbox, place(index), bytes)?;
                    }
                    outbox.end_task()?;
                    Ok(ranges.len())
                });
                assert_eq!(handed_in.unwrap(), ranges.len());
                for (index, bytes) in ranges {
                    let range = AddrRange::with_len(place(index), bytes).unwrap();
                    assert_eq!(writer.stored(0, range), [range]);
                }
            });
        }
    }

    #[test]
    fn small_ranges_share_a_chunk() {
        with_writer("share", |writer| {
            let mut room = Room::with(BYTES_MIN, true).unwrap();
            carry(&mut room, writer, |outbox| {
                // As many as there is room for, and the writer still rests.
                for index in 0..BYTES_MIN / PIECE_BYTES_MIN as u64 {
                    hand_in(outbox, index << 20, PAGE_BYTES)?;
                }
                assert!(outbox.held.borrow().is_some());
                outbox.end_task()
            })
            .unwrap();
        });
    }

    #[test]
    fn what_the_writer_says_is_told_and_ends_the_reading() {
        with_writer("says", |writer| {
            let mut room = Room::with(BYTES_MIN, false).unwrap();
            let result: Result<()> = carry(&mut room, writer, |outbox| {
                // Addresses must ascend. Nobody who reads on waits for ever.
                loop {
                    hand_in(outbox, PAGE_BYTES, PAGE_BYTES)?;
                }
            });
            assert!(matches!(result, Err(Error::Image(_))), "{result:?}");
        });
    }

    #[test]
    fn a_reader_that_fails_is_told_of() {
        with_writer("fails", |writer| {
            let mut room = Room::with(BYTES_MIN, true).unwrap();
            let gone = || Error::NoSuchProcess { pid: HostPid(1) };
            let result: Result<()> = carry(&mut room, writer, |outbox| {
                hand_in(outbox, PAGE_BYTES, PAGE_BYTES)?;
                Err(gone().into())
            });
            assert!(matches!(result, Err(Error::NoSuchProcess { .. })), "{result:?}");
        });
    }
}
