//! The report of a run: for people, for programs, and as a file that is kept.
//!
//! In: measurements, facts about the machine. Out: text, one JSON object, `bench/runs/*.json`.
//! Invariant: the file holds every number, the command, and what is needed to judge them.
//! Not here: measuring.

use super::jvm::Jvm;
use super::sweep::{self, Axis, Weighed};
use super::targets;
use super::write::Written;
use crate::failure::{Failure, Result};
use crate::layout::root;
use crate::process::{progress, run_quietly};
use serde_json::{Value, json};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Version of the object: raised when a key changes its meaning.
const VERSION: u32 = 2;

/// Everything that was measured.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) jvms: Vec<Jvm>,
    pub(super) memory: Vec<Weighed>,
    pub(super) threads: Vec<Weighed>,
    pub(super) mappings: Vec<Weighed>,
    pub(super) written: Option<Written>,
    /// What was left out, and why.
    pub(super) skipped: Vec<String>,
    /// Parts that could not be measured to their end, and why.
    pub(super) broken: Vec<String>,
}

/// The circumstances.
#[derive(Debug)]
pub(super) struct Circumstances {
    effort: String,
    started: String,
    machine: Value,
    criu: Value,
    account: String,
}

impl Circumstances {
    /// Looks around, before anything is measured.
    pub(super) fn now(
        effort: String,
        account: String,
        criu: &std::result::Result<PathBuf, String>,
        scratch: &Path,
    ) -> Result<Self> {
        Ok(Self {
            effort,
            started: utc("+%Y-%m-%dT%H:%M:%SZ")?,
            machine: machine(scratch),
            criu: match criu {
                Ok(program) => {
                    let said = run_quietly(Command::new(program).arg("--version"))?;
                    json!({ "version": said.lines().next().unwrap_or_default().trim() })
                }
                Err(reason) => json!({ "skipped": reason }),
            },
            account,
        })
    }

    /// What every report of a run begins with.
    pub(super) fn to_json(&self, bench: &str) -> Value {
        json!({
            "bench": bench,
            "version": VERSION,
            "effort": self.effort,
            "started": self.started,
            "command": env::args().skip(1).fold("cargo xtask".to_owned(), |all, word| all + " " + &word),
            "machine": self.machine,
            "load_average_at_the_end": read_line("/proc/loadavg"),
            "criu": self.criu,
            "account": self.account,
        })
    }
}

impl Report {
    fn sweeps(&self) -> [(Axis, &[Weighed]); 3] {
        [
            (Axis::Memory, &self.memory),
            (Axis::Threads, &self.threads),
            (Axis::Mappings, &self.mappings),
        ]
    }

    /// What a part has measured; a part that breaks leaves the others alone.
    pub(super) fn part<T: Default>(&mut self, name: &str, outcome: Result<T>) -> T {
        outcome.unwrap_or_else(|failure| {
            progress(&format!("{name}: cannot be measured: {failure}"));
            self.broken.push(format!("{name}: {failure}"));
            T::default()
        })
    }

    /// Rises of our own engine that did not succeed, and parts that broke.
    pub(super) fn failures(&self) -> usize {
        let weighed = self.sweeps().into_iter().flat_map(|(_, all)| all).map(Weighed::failures);
        self.jvms.iter().map(Jvm::failures).chain(weighed).sum::<usize>() + self.broken.len()
    }

    /// The object for programs.
    pub(super) fn to_json(&self, about: &Circumstances) -> Value {
        let targets: Vec<Value> = targets::all(self).iter().map(targets::Target::to_json).collect();
        let mut value = about.to_json("engine");
        value["failures"] = json!(self.failures());
        value["skipped"] = json!(self.skipped);
        value["broken"] = json!(self.broken);
        value["targets"] = json!(targets);
        value["jvm"] = self.jvms.iter().map(Jvm::to_json).collect();
        value["memory"] = sweep::to_json(&self.memory);
        value["threads"] = sweep::to_json(&self.threads);
        value["mappings"] = sweep::to_json(&self.mappings);
        value["write"] = json!(self.written.as_ref().map(Written::to_json));
        value
    }

    /// The tables for people.
    pub(super) fn to_table(&self) -> String {
        let mut parts: Vec<String> = self.jvms.iter().map(Jvm::to_table).collect();
        let measured = self.sweeps().into_iter().filter(|(_, all)| !all.is_empty());
        parts.extend(measured.map(|(axis, all)| sweep::to_table(axis, all)));
        parts.extend(self.written.as_ref().map(Written::to_table));
        parts.extend(self.skipped.iter().map(|reason| format!("  skipped: {reason}")));
        parts.extend(self.broken.iter().map(|reason| format!("  BROKEN: {reason}")));
        let rows: Vec<String> = targets::all(self).iter().map(targets::Target::row).collect();
        parts.push(rows.join("\n"));
        parts.retain(|part| !part.is_empty());
        parts.join("\n\n")
    }
}

/// Keeps the object where the others are.
pub(super) fn keep(value: &Value) -> Result<PathBuf> {
    let word = |key: &str| value[key].as_str().unwrap_or_default();
    let path = new_file(word("bench"), word("effort"))?;
    write(&path, value)?;
    Ok(path)
}

/// A name for what a run that begins now measures.
pub(super) fn new_file(bench: &str, effort: &str) -> Result<PathBuf> {
    let dir = runs();
    fs::create_dir_all(&dir).map_err(|error| Failure::io("create", &dir, &error))?;
    Ok(dir.join(format!("{}-{bench}-{effort}.json", utc("+%Y-%m-%d-%H%M%S")?)))
}

/// Where all of them are.
pub(super) fn runs() -> PathBuf {
    root().join("bench/runs")
}

/// Writes the object, or replaces what was written of it before: whoever stops a run keeps what was
/// measured until then.
pub(super) fn write(path: &Path, value: &Value) -> Result<()> {
    let aside = path.with_extension("new");
    fs::write(&aside, format!("{value:#}\n"))
        .map_err(|error| Failure::io("write", &aside, &error))?;
    fs::rename(&aside, path).map_err(|error| Failure::io("rename", &aside, &error))
}

fn utc(format: &str) -> Result<String> {
    run_quietly(Command::new("date").args(["--utc", format])).map(|text| text.trim().to_owned())
}

/// What a time means little without. What cannot be found out is null.
fn machine(scratch: &Path) -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let said = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        command.args(words).current_dir(root());
        run_quietly(&mut command).ok().map(|text| text.trim().to_owned())
    };
    let scratch = scratch.to_string_lossy();
    let profile: Vec<String> = env::vars()
        .filter(|(name, _)| name.starts_with("CARGO_PROFILE_"))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    json!({
        "kernel": read_line("/proc/sys/kernel/osrelease"),
        "processor": field("model name"),
        "processors": std::thread::available_parallelism().map_or(1, usize::from),
        "hypervisor": field("flags").map(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
        "governor": read_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "cgroup_cpu": read_line("/sys/fs/cgroup/cpu.max"),
        "cgroup_memory": read_line("/sys/fs/cgroup/memory.max"),
        "memory": memory.map(str::trim),
        "huge_pages": read_line("/sys/kernel/mm/transparent_hugepage/enabled"),
        "file_system": said("findmnt", &["-no", "SOURCE,FSTYPE,OPTIONS", "-T", &scratch]),
        "load_average": read_line("/proc/loadavg"),
        "commit": said("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
        "build_profile": profile,
    })
}

fn read_line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
