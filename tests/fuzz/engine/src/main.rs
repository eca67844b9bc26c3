//! libFuzzer around one target, which `TUB_FUZZ_TARGET` names.
//!
//! In: libFuzzer's command line; `TUB_FUZZ_SEEDS`, a directory to put the target's seeds into.
//! Out: libFuzzer's; without a target, the names of all. Invariant: one binary for all targets, for linking is what takes long.
//! Not here: what is fuzzed (`tub-fuzz`), and which flags are right (`cargo xtask fuzz`).
#![no_main]

use std::sync::LazyLock;
use tub_fuzz::Target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let mut targets = tub_fuzz::targets();
    let Ok(name) = std::env::var("TUB_FUZZ_TARGET") else {
        targets.iter().for_each(|target| println!("{}", target.name));
        std::process::exit(0);
    };
    targets.retain(|target| target.name == name);
    targets.pop().expect("TUB_FUZZ_TARGET names a target that there is")
});

fn prepare() {
    let seeds = (TARGET.seeds)();
    let Some(dir) = std::env::var_os("TUB_FUZZ_SEEDS") else { return };
    for (number, seed) in seeds.iter().enumerate() {
        let path = std::path::Path::new(&dir).join(format!("seed-{number}"));
        std::fs::write(path, seed).expect("seeds can be written");
    }
}

libfuzzer_sys::fuzz_target!(init: { prepare() }, |input: &[u8]| (TARGET.run)(input));

libfuzzer_sys::fuzz_mutator!(|input: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let Some(mutate) = TARGET.mutate else {
        return libfuzzer_sys::fuzzer_mutate(input, size, max_size);
    };
    let mut changed = input[..size].to_vec();
    let mut change_part = |part: &mut Vec<u8>| {
        let size = part.len();
        // Room to grow, but not so much that one part drives the others out.
        part.resize(size + 64, 0);
        let size = libfuzzer_sys::fuzzer_mutate(part, size, size + 64);
        part.truncate(size);
    };
    mutate(&mut changed, seed, &mut change_part);
    changed.truncate(max_size);
    input[..changed.len()].copy_from_slice(&changed);
    changed.len()
});
