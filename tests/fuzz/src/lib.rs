//! What is fuzzed: every parser of bytes that somebody else has written.
//!
//! In: bytes. Out: nothing, or a panic, which is a finding.
//! Invariant: a target is a plain function of its input. The engine (`engine/`) calls it under
//! libFuzzer; an ordinary test calls it with every input kept in `corpus/TARGET/`, so that what was
//! found once is looked for ever after, on any machine.
//! Not here: the engine itself, which wants a C++ compiler and instrumented code (`cargo xtask fuzz`).
#![forbid(unsafe_code)]
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a panic is how a target reports")]

mod control;
mod image;
mod inspect;
mod policies;
mod procfs;
mod scratch;

use std::path::{Path, PathBuf};

/// One parser, ready to be fuzzed.
pub struct Target {
    /// Its name on the command line, and that of its folder in `corpus/`.
    pub name: &'static str,
    /// Takes one input.
    pub run: fn(&[u8]),
    /// Good inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How an input is changed where it has a structure that blind changes would only destroy.
    pub mutate: Option<Mutate>,
}

/// Changes an input: by the random number, with the engine's own change of a part of it.
pub type Mutate = fn(input: &mut Vec<u8>, random: u32, part: &mut dyn FnMut(&mut Vec<u8>));

impl Target {
    const fn new(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Self {
        Self { name, run, seeds, mutate: None }
    }

    /// Where inputs of this target are kept.
    pub fn corpus(&self) -> PathBuf {
        root().join("tests/fuzz/corpus").join(self.name)
    }
}

/// All targets, by name.
pub fn targets() -> Vec<Target> {
    let mut all = procfs::targets();
    all.extend(control::targets());
    all.extend(image::targets());
    all.extend(policies::targets());
    all.sort_by_key(|target| target.name);
    all
}

/// The root of the checkout.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Fixtures as inputs: files of `tests/fixtures`, or all files of a directory there.
fn fixtures(paths: &[&str]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for path in paths {
        let path = root().join("tests/fixtures").join(path);
        if path.is_dir() {
            let mut files: Vec<PathBuf> =
                std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            files.sort();
            all.extend(
                files.iter().filter(|path| path.is_file()).map(|p| std::fs::read(p).unwrap()),
            );
        } else {
            all.push(std::fs::read(&path).unwrap());
        }
    }
    all
}
