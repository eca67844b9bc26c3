//! Every input that is kept, and every seed, through its target: what was found stays mended.

use tub_fuzz::targets;

#[test]
fn every_input_that_is_kept() {
    let mut inputs = 0;
    for target in targets() {
        for seed in (target.seeds)() {
            (target.run)(&seed);
        }
        let Ok(entries) = std::fs::read_dir(target.corpus()) else { continue };
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
        paths.sort();
        for path in paths {
            // Where one of them panics, this is the one.
            println!("{}", path.display());
            (target.run)(&std::fs::read(&path).expect("readable"));
            inputs += 1;
        }
    }
    println!("{inputs} inputs");
}

/// A parser that takes no seed is fuzzed from nothing, and found wanting by nobody.
#[test]
fn every_folder_belongs_to_a_target_and_every_target_has_seeds() {
    let targets = targets();
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in std::fs::read_dir(corpus).expect("readable") {
        let name = entry.expect("readable").file_name();
        assert!(targets.iter().any(|target| name == target.name), "{}", name.display());
    }
    for target in &targets {
        assert!(!(target.seeds)().is_empty(), "{}", target.name);
    }
}

/// Some of what an engine would do, where there is none: each seed cut short and with single bytes
/// changed.
#[test]
fn every_seed_a_little_damaged() {
    for target in targets() {
        for seed in (target.seeds)() {
            let step = (seed.len() / 40).max(1);
            for at in (0..seed.len()).step_by(step) {
                (target.run)(&seed[..at]);
                for byte in [0, 0xff, seed[at] ^ 1, b'-', b'9'] {
                    let mut damaged = seed.clone();
                    damaged[at] = byte;
                    (target.run)(&damaged);
                }
            }
        }
    }
}
