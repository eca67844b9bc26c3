//! Many cycles of one program, and many instances of one image.
//!
//! A few by default; `cargo xtask soak --cycles N` sets `TUB_SOAK_CYCLES`.

use std::fs;
use std::time::{Duration, Instant};
use tub_testkit::{
    Flavour, Instance, Memory, Pids, Restore, Subject, Tub, User, VisibleState, is_root, left_over,
};

/// Cycles where nobody asks for more.
const CYCLES: usize = 6;

/// Instances that live at once.
const INSTANCES: usize = 50;

fn cycles() -> usize {
    let wished = std::env::var("TUB_SOAK_CYCLES").ok();
    wished.map_or(CYCLES, |number| number.parse().unwrap())
}

#[test]
fn many_cycles_of_a_busy_program() {
    let ways = [
        Flavour { memory: Memory::Lazy, ..Flavour::USUAL },
        Flavour { memory: Memory::Eager, ..Flavour::USUAL },
        Flavour { memory: Memory::Lazy, pids: Pids::New, ..Flavour::USUAL },
    ];
    let start = Instant::now();
    let mut life = Subject::new("soak", User::Ordinary).start();
    let before = life.visible();
    let cycles = cycles();
    for cycle in 0..cycles {
        life.goes_on();
        // Each image takes the place of the one that the process came from.
        let image = life.dir().join("image");
        life.checkpoint_and_end(&image);
        // Ids are kept by the first two; once they are new, the next images have the new ones.
        life = Restore::of(&life, &image, ways[cycle % 2]).start();
        if cycle % 50 == 49 {
            eprintln!("{} cycles after {:.0?}", cycle + 1, start.elapsed());
        }
    }
    // Nothing accumulates, but for what malloc keeps: no descriptor, no thread, no mapping.
    let after = life.visible();
    let numbers = |state: &VisibleState| (state.thread_ids.clone(), state.descriptors.clone());
    assert_eq!(numbers(&before), numbers(&after), "after {cycles} cycles\n{}", life.tell());
    let (few, many) = (before.mappings.len(), after.mappings.len());
    assert!(many < few + 64, "{many} mappings after {cycles} cycles, {few} before");
    let image = life.dir().join("image");
    life.checkpoint_and_end(&image);
    life = Restore::of(&life, &image, ways[2]).start();
    life.goes_on();
    life.go(&ways[2].promises());
    life.verdict();
    eprintln!("{cycles} cycles in {:.1?}", start.elapsed());
}

#[test]
fn fifty_instances_of_one_image_at_once() {
    let flavour = Flavour { memory: Memory::Lazy, ..Flavour::USUAL };
    let mut original = Subject::new("soak", flavour.user).options(&["gentle"]).start();
    original.goes_on();
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    let restore = Restore::of(&original, &image, flavour);
    let start = Instant::now();
    let copies: Vec<Instance> = std::thread::scope(|scope| {
        // Ten at a time: a test that starts fifty at once measures the scheduler.
        let starters: Vec<_> = (0..10)
            .map(|_| {
                scope.spawn(|| (0..INSTANCES / 10).map(|_| restore.start()).collect::<Vec<_>>())
            })
            .collect();
        starters.into_iter().flat_map(|starter| starter.join().unwrap()).collect()
    });
    assert_eq!(copies.len(), INSTANCES);
    let up = start.elapsed();
    for copy in &copies {
        copy.goes_on();
    }
    let all: Vec<u64> = copies.iter().filter_map(pss_kib).collect();
    let sum: u64 = all.iter().sum();
    eprintln!(
        "{INSTANCES} instances up after {up:.1?}; {} KiB proportional memory each, {sum} in all",
        sum / all.len().max(1) as u64
    );
    copies[0].go(&flavour.promises());
    for copy in copies {
        copy.verdict();
    }
    let left = left_over(original.dir().path(), &[]);
    assert!(left.is_empty(), "left over: {left:?}");
    Tub::new(flavour.user, "verify").arg(&image).limit(Duration::from_secs(120)).run().succeeds();
}

/// `Pss` of its whole memory (proc_pid_smaps_rollup(5)).
fn pss_kib(copy: &Instance) -> Option<u64> {
    let rollup = fs::read_to_string(copy.process().proc("smaps_rollup")).ok()?;
    let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    pss.split_whitespace().next()?.parse().ok()
}

/// What a restore of `megabytes` costs, in numbers that no busy machine changes: operations of the
/// plan, and bytes read by the command and by the process that it became.
fn cost(megabytes: usize) -> (usize, u64) {
    let user = if is_root() { User::Root } else { User::Ordinary };
    let flavour = Flavour { user, memory: Memory::Lazy, ..Flavour::USUAL };
    let size = megabytes.to_string();
    let mut original = Subject::new("fill", user).options(&[&size]).start();
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    let restore = Restore::of(&original, &image, flavour);
    let plan = restore.clone().args(&["--dry-run"]).tub().run().succeeds();
    let copy = restore.start();
    let read = [copy.command_pid(), copy.pid()].map(|pid| {
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        let bytes = io.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<u64>().ok());
        bytes.unwrap_or(0)
    });
    copy.goes_on();
    copy.go(&flavour.promises());
    copy.verdict();
    (plan.stdout.lines().count(), read.iter().sum())
}

#[test]
fn a_restore_costs_what_its_mappings_cost_and_not_what_its_bytes_would() {
    let (small, large) = (cost(32), cost(512));
    eprintln!("32 MiB: {small:?}, 512 MiB: {large:?} (operations, bytes read)");
    assert!(large.0.abs_diff(small.0) < 8, "operations: {small:?} and {large:?}");
    assert!(large.1 < 8 << 20, "{} bytes were read for 512 MiB of memory", large.1);
}
