//! Has the host of a virtual machine give it its memory before anything is measured.
//!
//! In: free memory. Out: the same, touched once.
//! Invariant: nothing stays allocated; a machine with little free memory is left alone.
//! Not here: what lies in the page cache (whoever measures sees to that).
//!
//! A host backs a page of its guest when the guest touches it for the first time since it was started, and
//! that costs several times what the guest's own kernel does for the page (measured in one of
//! Firecracker's: 5.7 µs against 1.8). In a fresh machine everything that is measured would pay that,
//! a cold start and a restore alike, until memory has been used once. A host may take back what is free for long, so it is done each time.

use crate::process::progress;
use std::fs;
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

/// Held at the same time by each thread.
const BLOCK_BYTES: u64 = 64 << 20;
/// More than everything that is measured holds at the same time.
const MOST_BYTES: u64 = 4 << 30;
/// It is only as good as that, and nobody waits longer for it.
const PATIENCE: Duration = Duration::from_secs(15);

/// Touches half of the free memory, at most [`MOST_BYTES`], and gives it back. What is freed last is
/// handed out first (mm/page_alloc.c, `__free_one_page`).
pub(crate) fn warm_memory() {
    let bytes = (available_bytes() / 2).min(MOST_BYTES);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let blocks = usize::try_from(bytes / BLOCK_BYTES).unwrap_or(0) / threads;
    let start = Instant::now();
    let touched: usize = thread::scope(|scope| {
        let hands: Vec<_> = (0..threads).map(|_| scope.spawn(|| touch(blocks, start))).collect();
        hands.into_iter().map(|hand| hand.join().unwrap_or(0)).sum()
    });
    let gibibytes = touched as f64 * BLOCK_BYTES as f64 / f64::from(1 << 30);
    let seconds = start.elapsed().as_secs_f64();
    progress(&format!("{gibibytes:.1} GiB of free memory touched once, in {seconds:.1} s"));
}

/// How many blocks were touched.
fn touch(blocks: usize, start: Instant) -> usize {
    let mut held = Vec::with_capacity(blocks);
    while held.len() < blocks && start.elapsed() < PATIENCE {
        let mut block = Vec::new();
        let bytes = usize::try_from(BLOCK_BYTES).unwrap_or(0);
        if block.try_reserve_exact(bytes).is_err() {
            break;
        }
        block.resize(bytes, 1u8);
        held.push(black_box(block));
    }
    held.len()
}

/// `MemAvailable` of proc_meminfo(5); 0 where it cannot be read.
fn available_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}
