//! `cargo xtask fuzz`: every parser against inputs that a machine makes up.
//!
//! In: targets, seconds. Out: success, or the input that broke one.
//! Invariant: bounded in time and memory; what is found lies under `target/fuzz/found`, and is kept by
//! putting it into `tests/fuzz/corpus/TARGET/`, where an ordinary test replays it.
//! Not here: the targets (`tests/fuzz`).
//!
//! The instrumentation comes from flags of the stable compiler, those that cargo-fuzz passes too:
//! edges as 8-bit counters, and the operands of comparisons. There is no address sanitizer, which
//! would want a nightly compiler; the parsers forbid `unsafe` and have panics and overflow checks.

use crate::failure::{Failure, Result};
use crate::layout::{TARGET, cargo, root, target_dir};
use crate::process::{last_lines, progress, run_quietly, step};
use crate::setup;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Fuzz every parser for a while, or the targets named.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The targets; all of them, if none is named.
    targets: Vec<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Keep the inputs that reach new code in tests/fuzz/corpus.
    #[arg(long)]
    keep: bool,
}

/// Seconds for each target in CI: with twenty of them about a minute.
const SAMPLE_SECONDS: u32 = 2;

/// No input is worth more memory: lengths in an input must not become allocations.
const MEMORY_MIB: u32 = 512;

/// No input is worth more time.
const INPUT_SECONDS: u32 = 10;

/// Inputs longer than this find nothing that shorter ones do not.
const INPUT_BYTES: u32 = 16 << 10;

/// Kept inputs are read by every test run: few, and small.
const KEPT_INPUTS: usize = 40;
const KEPT_BYTES: u64 = 8 << 10;

/// Of the engine, which is no member of the workspace.
pub(crate) const MANIFEST: &str = "tests/fuzz/engine/Cargo.toml";

const FLAGS: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // Folded branches are not told apart.
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];

/// Runs the targets one after another; all of them, even if one breaks.
pub(crate) fn run(options: &Options) -> Result<()> {
    let engine = Engine::build()?;
    let all = engine.targets()?;
    if let Some(unknown) = options.targets.iter().find(|name| !all.contains(name)) {
        return Err(Failure::new(format!("{unknown}: no such target"))
            .hint(format!("there are: {}", all.join(", "))));
    }
    let chosen =
        all.iter().filter(|name| options.targets.is_empty() || options.targets.contains(name));
    let mut broken = Vec::new();
    for name in chosen {
        match engine.fuzz(name, options.seconds) {
            Ok(words) => progress(&format!("{name:<16} {words}")),
            Err(error) => {
                progress(&format!("{name:<16} broken"));
                broken.push(error.to_string());
                continue;
            }
        }
        if options.keep {
            engine.keep(name)?;
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(Failure::new(broken.join("\n"))) }
}

/// What CI runs: all targets, briefly.
pub(crate) fn sample() -> Result<()> {
    if let Err(error) = setup::need_cxx() {
        // Not a failure: the regression inputs have been replayed by the tests.
        println!("skipped: fuzzing: {error}");
        return Ok(());
    }
    step("fuzzing", || run(&Options { targets: Vec::new(), seconds: SAMPLE_SECONDS, keep: false }))
}

struct Engine {
    binary: PathBuf,
    dir: PathBuf,
}

impl Engine {
    fn build() -> Result<Self> {
        setup::need_cxx()?;
        let dir = target_dir().join("fuzz");
        step("building the fuzz targets", || {
            let mut command = cargo();
            command.args(["build", "--release", "--quiet", "--locked", "--target", TARGET]);
            command.args(["--manifest-path", MANIFEST, "--target-dir"]);
            command.arg(&dir);
            // `--target` keeps the flags away from build scripts.
            command.env("RUSTFLAGS", FLAGS.join(" "));
            run_quietly(&mut command)
        })?;
        let binary = dir.join(TARGET).join("release/tub-fuzz-engine");
        Ok(Self { binary, dir })
    }

    fn targets(&self) -> Result<Vec<String>> {
        let text = run_quietly(Command::new(&self.binary).env_remove("TUB_FUZZ_TARGET"))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// A directory of ours for `name`.
    fn directory(&self, what: &str, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(what).join(name);
        fs::create_dir_all(&dir).map_err(|error| Failure::io("create", &dir, &error))?;
        Ok(dir)
    }

    fn command(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(&self.binary);
        command
            .env("TUB_FUZZ_TARGET", name)
            .env("TUB_FUZZ_SEEDS", self.directory("seeds", name)?)
            .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
            .arg(format!("-timeout={INPUT_SECONDS}"))
            .arg(format!("-max_len={INPUT_BYTES}"))
            .stdin(Stdio::null());
        Ok(command)
    }

    fn fuzz(&self, name: &str, seconds: u32) -> Result<String> {
        let found = self.directory("found", name)?;
        let mut command = self.command(name)?;
        command
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", found.display()))
            .args(["-print_final_stats=1", "-reload=0"])
            .arg(self.directory("inputs", name)?)
            .arg(self.directory("seeds", name)?)
            .args(kept(name).exists().then(|| kept(name)));
        let output = command.output().map_err(|error| Failure::io("run", &self.binary, &error))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            let inputs =
                said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
            let edges = said
                .lines()
                .rev()
                .find_map(|line| line.split_once(" cov: ")?.1.split_whitespace().next());
            let word = |word: Option<&str>| word.unwrap_or("?").trim().to_owned();
            return Ok(format!("{:>9} inputs, {:>5} edges", word(inputs), word(edges)));
        }
        Err(Failure::new(format!(
            "{name}: an input broke it ({})\n{}    keep it: cp {}/* {}/",
            output.status,
            last_lines(&said, 40),
            found.display(),
            kept(name).display(),
        )))
    }

    /// Keeps the smallest inputs that together reach what all do, but for what the seeds reach.
    fn keep(&self, name: &str) -> Result<()> {
        let merged = self.directory("merged", name)?;
        for path in files(&merged)? {
            fs::remove_file(&path).map_err(|error| Failure::io("remove", &path, &error))?;
        }
        let (seeds, inputs) = (self.directory("seeds", name)?, self.directory("inputs", name)?);
        for seed in files(&seeds)? {
            let to = merged.join(seed.file_name().unwrap_or_default());
            fs::copy(&seed, &to).map_err(|error| Failure::io("copy", &seed, &error))?;
        }
        let mut command = self.command(name)?;
        // Edges only: how often each was taken makes many more inputs, and no more findings.
        command.args(["-merge=1", "-use_counters=0"]).arg(&merged).arg(&inputs);
        command.args(kept(name).exists().then(|| kept(name)));
        run_quietly(&mut command)?;
        let mut new = BTreeSet::new();
        for path in files(&merged)? {
            let length = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            if !seeds.join(path.file_name().unwrap_or_default()).exists() && length <= KEPT_BYTES {
                new.insert((length, path));
            }
        }
        let corpus = kept(name);
        fs::create_dir_all(&corpus).map_err(|error| Failure::io("create", &corpus, &error))?;
        let room = KEPT_INPUTS.saturating_sub(files(&corpus)?.len());
        for (_, path) in new.into_iter().take(room) {
            let to = corpus.join(path.file_name().unwrap_or_default());
            fs::copy(&path, &to).map_err(|error| Failure::io("copy", &path, &error))?;
        }
        Ok(())
    }
}

/// Where inputs of a target are kept.
fn kept(name: &str) -> PathBuf {
    root().join("tests/fuzz/corpus").join(name)
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(|error| Failure::io("list", dir, &error))?;
    Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
}
