//! A busy program for many cycles of checkpoint and restore: whatever gets lost on the way, a checksum
//! tells, while it runs and in the end.

use crate::counter::heartbeat;
use crate::pattern;
use crate::stage::{Stage, say};
use crate::sys::{Mapping, PAGE_WORDS};
use crate::thread::{self, JoinHandle};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Blocks that each churning thread holds.
const BLOCKS: usize = 48;
/// Words of the largest block: some come from the heap, some from mappings of their own (malloc(3)).
const WORDS_MAX: u64 = 40_000;
/// Threads that churn, and pairs that pass a token.
const CHURNERS: u64 = 4;
const PAIRS: u64 = 2;

/// Threads that fill, check and replace blocks of memory, and pairs that pass a growing number to and
/// fro through pipes; every beat of the heart means that all was right so far.
pub(crate) fn soak(stage: &'static Stage) -> io::Result<()> {
    // A gentle one does less, so that many can live at once.
    let pause = Duration::from_millis(if stage.option(0) == Some("gentle") { 50 } else { 1 });
    let churners: Vec<_> = (0..CHURNERS).map(|seed| churner(stage, seed, pause)).collect();
    let mut pairs = Vec::new();
    for _ in 0..PAIRS {
        pairs.extend(pair(stage, pause)?);
    }
    let heart = heartbeat(stage);
    stage.across()?;
    for thread in churners.into_iter().chain(pairs) {
        stage.holds("thread could be joined", thread.join().is_ok());
    }
    stage.holds("heartbeat could be joined", heart.join().is_ok());
    stage.holds("blocks were checked", CHECKED.load(Ordering::Relaxed) > 0);
    say(&format!("checked {}", CHECKED.load(Ordering::Relaxed)));
    Ok(())
}

/// Blocks that were checked so far.
static CHECKED: AtomicU64 = AtomicU64::new(0);

fn churner(stage: &'static Stage, seed: u64, pause: Duration) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut step = seed << 32;
        let mut fresh = || {
            step += 1;
            let words = usize::try_from(pattern::word(seed, step) % WORDS_MAX + 1).unwrap_or(1);
            let mut block = vec![0; words];
            pattern::fill(&mut block, step);
            (step, block)
        };
        let mut blocks: Vec<(u64, Vec<u64>)> = (0..BLOCKS).map(|_| fresh()).collect();
        let mut at = 0;
        while !stage.is_over() {
            let (known, block) = &blocks[at];
            stage.same("block of memory", &None, &pattern::first_difference(block, *known));
            CHECKED.fetch_add(1, Ordering::Relaxed);
            blocks[at] = fresh();
            at = (at + 7) % BLOCKS;
            thread::sleep(pause);
        }
        for (known, block) in &blocks {
            stage.same("last block", &None, &pattern::first_difference(block, *known));
        }
    })
}

/// Two threads, each of which sends what it got, plus one.
fn pair(stage: &'static Stage, pause: Duration) -> io::Result<[JoinHandle<()>; 2]> {
    let (to_second, from_first) = io::pipe()?;
    let (to_first, from_second) = io::pipe()?;
    let mut starter = from_second.try_clone()?;
    starter.write_all(&1_u64.to_ne_bytes())?;
    let end = move |mut from: PipeReader, mut to: PipeWriter, mut next: u64| {
        thread::spawn(move || {
            let mut word = [0; 8];
            loop {
                // The other one has ended.
                if from.read_exact(&mut word).is_err() {
                    return;
                }
                stage.same("token", &next, &u64::from_ne_bytes(word));
                next += 2;
                if stage.is_over() || to.write_all(&(next - 1).to_ne_bytes()).is_err() {
                    return;
                }
                thread::sleep(pause);
            }
        })
    };
    drop(starter);
    Ok([end(to_first, from_first, 1), end(to_second, from_second, 2)])
}

/// As many MiB of private memory as the option says, no page like another; for measurements.
pub(crate) fn fill(stage: &'static Stage) -> io::Result<()> {
    let wished: usize = stage.option(0).and_then(|number| number.parse().ok()).unwrap_or(64);
    let mut memory = Mapping::anonymous(wished << 8, libc::PROT_READ | libc::PROT_WRITE, 0)?;
    let words = memory.words_mut(0, wished << 8);
    for page in (0..words.len()).step_by(PAGE_WORDS) {
        words[page] = pattern::word(50, page as u64);
    }
    let heart = heartbeat(stage);
    stage.across()?;
    let words = memory.words(0, wished << 8);
    let pages = (0..words.len()).step_by(PAGE_WORDS);
    let wrong = pages.filter(|&page| words[page] != pattern::word(50, page as u64)).count();
    stage.same("pages that differ", &0, &wrong);
    stage.holds("heartbeat could be joined", heart.join().is_ok());
    Ok(())
}
