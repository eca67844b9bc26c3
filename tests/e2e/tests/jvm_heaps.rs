//! Every collector, with heaps of every kind: what lives is the same in a copy and in a copy of the copy,
//! the JVM's settings are, and an image is about as large as what lives.
//!
//! A few by default; `cargo xtask heaps` sets `TUB_ALL_HEAPS`.

use crate::jdk::Jdk;
use crate::jvm::on_each_jdk;
use crate::jvm_program::Program;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tub_testkit::{Flavour, Memory, Pids, Restore, run_bounded, skipped};

/// A JVM's heap, and what the program does with it.
#[derive(Clone, Copy, Debug)]
struct Heap {
    collector: &'static str,
    flags: &'static [&'static str],
    live_mb: u64,
    garbage_mb: u64,
    /// Tried each time.
    sample: bool,
}

const DEFAULT: &[&str] = &["-Xmx512m"];
const FIXED: &[&str] = &["-Xms512m", "-Xmx512m"];
const UNCOMPRESSED: &[&str] = &["-Xmx512m", "-XX:-UseCompressedOops"];
const LARGE: &[&str] = &["-Xmx4g"];
const LARGE_FIXED: &[&str] = &["-Xms4g", "-Xmx4g"];

const fn small(collector: &'static str, flags: &'static [&'static str], sample: bool) -> Heap {
    Heap { collector, flags, live_mb: 40, garbage_mb: 800, sample }
}

const fn large(collector: &'static str, flags: &'static [&'static str], sample: bool) -> Heap {
    Heap { collector, flags, live_mb: 200, garbage_mb: 4000, sample }
}

const HEAPS: &[Heap] = &[
    small("G1", DEFAULT, false),
    small("G1", FIXED, false),
    small("G1", UNCOMPRESSED, false),
    large("G1", LARGE, true),
    large("G1", LARGE_FIXED, false),
    small("Serial", DEFAULT, false),
    small("Serial", FIXED, true),
    small("Serial", UNCOMPRESSED, false),
    large("Serial", LARGE, false),
    large("Serial", LARGE_FIXED, false),
    small("Parallel", DEFAULT, false),
    small("Parallel", FIXED, false),
    small("Parallel", UNCOMPRESSED, true),
    large("Parallel", LARGE, false),
    large("Parallel", LARGE_FIXED, false),
    small("Shenandoah", DEFAULT, false),
    small("Shenandoah", FIXED, true),
    small("Shenandoah", UNCOMPRESSED, false),
    large("Shenandoah", LARGE, false),
    large("Shenandoah", LARGE_FIXED, false),
    // Knows no compressed pointers to objects.
    small("Z", DEFAULT, false),
    small("Z", FIXED, true),
    large("Z", LARGE, false),
    large("Z", LARGE_FIXED, false),
];

/// What an image holds besides the Java heap: metaspace, compiled code, malloc, libraries.
const REST_MB: u64 = 100;
/// The same where the collector does not tell what it holds in reserve.
const REST_OF_Z_MB: u64 = 200;

fn is_built_in(jdk: &Jdk, flag: &str) -> bool {
    let mut command = Command::new(jdk.java());
    command.args([flag, "-version"]);
    run_bounded(command, Duration::from_secs(60)).status.success()
}

fn size_mb(image: &Path) -> u64 {
    let files = std::fs::read_dir(image).unwrap().flatten();
    files.map(|file| file.metadata().unwrap().blocks() * 512).sum::<u64>() >> 20
}

fn lives_twice(jdk: &Jdk, heap: Heap) {
    let collector = format!("-XX:+Use{}GC", heap.collector);
    if !is_built_in(jdk, &collector) {
        return skipped(&format!("{} is not built into JDK {}", heap.collector, jdk.version));
    }
    let program = Program::new(jdk, "Heaps").flags(&[collector.as_str()]).flags(heap.flags);
    let mut life = program.start(&[&heap.live_mb.to_string(), &heap.garbage_mb.to_string()]);
    let mut sizes = Vec::new();
    let ways =
        [Flavour::USUAL, Flavour { memory: Memory::Eager, pids: Pids::New, ..Flavour::USUAL }];
    for (flavour, generation) in ways.into_iter().zip(1..) {
        let image = program.dir.join(format!("image-{generation}"));
        life.checkpoint_and_end(&image);
        sizes.push(size_mb(&image));
        life = Restore::of(&life, &image, flavour).start();
        life.go(&format!("look {generation}"));
        life.prints(&format!("looked {generation}"));
    }
    life.go("end");
    life.verdict();
    let (name, version) = (heap.collector, jdk.version);
    eprintln!("JDK {version}, {name}, {}: {sizes:?} MB", heap.flags.join(" "));
    let rest = if heap.collector == "Z" { REST_OF_Z_MB } else { REST_MB };
    let most = heap.live_mb + rest;
    assert!(sizes.iter().all(|&size| size <= most), "more than {most} MB: {heap:?}, {sizes:?}");
}

#[test]
fn every_collector_gets_up_with_what_lives_and_little_else() {
    let all = std::env::var_os("TUB_ALL_HEAPS").is_some();
    on_each_jdk(|jdk| {
        let mut samples = HEAPS.iter().filter(|heap| all || heap.sample);
        // Of the samples each JDK has every other one.
        if !all && jdk.version > 17 {
            samples.next();
        }
        let step = if all { 1 } else { 2 };
        samples.step_by(step).for_each(|heap| lives_twice(jdk, *heap));
    });
}
