//! An instance that gets up from an image, and what can be read about it.
//!
//! In: an image. Out: a prober that waits for the word, stage times, memory.
//! Invariant: every instance has files of its own.
//! Not here: statistics.

use super::{Manner, Prober, Question, Stage};
use crate::failure::{Failure, Result};
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long `tub restore` may take to write its files once the instance has answered.
const FILES: Duration = Duration::from_secs(30);

/// A restore to be measured.
#[derive(Clone, Debug)]
pub(crate) struct Restore<'a> {
    /// What the instance is asked.
    pub(crate) question: Question<'a>,
    /// The image.
    pub(crate) image: &'a Path,
    /// More options of `tub restore`.
    pub(crate) options: Vec<OsString>,
    pub(crate) manner: Manner,
}

impl Restore<'_> {
    /// Prepares one instance, called `name`; the caller says go.
    pub(crate) fn prepare(&self, stage: &Stage, name: &str) -> Result<(Prober, Instance)> {
        let file = |kind: &str| stage.scratch.join(format!("{}.{kind}", name.replace(' ', "-")));
        let instance = Instance { pidfile: file("pid"), stats: file("stats") };
        let mut command: Vec<OsString> = vec![
            stage.layout.tub().into(),
            "restore".into(),
            self.image.into(),
            "--pidfile".into(),
            instance.pidfile.clone().into(),
            "--stats".into(),
            instance.stats.clone().into(),
        ];
        command.extend(self.options.iter().cloned());
        let prober = Prober::prepare_in(self.manner, stage, name, self.question, &command)?;
        Ok((prober, instance))
    }
}

/// The files that `tub restore` writes about an instance. They are removed with this value.
#[derive(Debug)]
pub(crate) struct Instance {
    pidfile: PathBuf,
    stats: PathBuf,
}

impl Instance {
    /// When each stage of the restore was over, in microseconds, as the engine says. Keys may come
    /// and go; `resumed_us`, when all threads were released, stays.
    pub(crate) fn stages_us(&self) -> Vec<(String, f64)> {
        let Ok(Value::Object(stages)) = self.stats() else { return Vec::new() };
        let stages = stages.into_iter().filter(|(stage, _)| stage.ends_with("_us"));
        stages.filter_map(|(stage, value)| Some((stage, value.as_f64()?))).collect()
    }

    /// All that the engine says about the restore.
    pub(crate) fn stats(&self) -> Result<Value> {
        let text = written(&self.stats)?;
        serde_json::from_str(&text)
            .map_err(|error| Failure::new(format!("{}: {error}", self.stats.display())))
    }

    /// The id of the main process.
    pub(crate) fn pid(&self) -> Result<u32> {
        let text = written(&self.pidfile)?;
        let pid = text.trim().parse();
        pid.map_err(|_| Failure::new(format!("{}: holds no pid", self.pidfile.display())))
    }

    /// Memory of the main process.
    pub(crate) fn memory(&self) -> Result<Memory> {
        Memory::of(self.pid()?)
    }

    /// Page faults of the main process so far that needed no disk.
    pub(crate) fn minor_faults(&self) -> Result<u64> {
        minor_faults(self.pid()?)
    }
}

/// Page faults of a process so far that needed no disk.
pub(crate) fn minor_faults(pid: u32) -> Result<u64> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let text = fs::read_to_string(&path).map_err(|error| Failure::io("read", &path, &error))?;
    minor_faults_of(&text)
        .ok_or_else(|| Failure::new(format!("{}: has no field 10", path.display())))
}

/// The tenth field of `/proc/PID/stat` (proc_pid_stat(5)); the second may hold blanks.
fn minor_faults_of(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(7)?.parse().ok()
}

/// Memory of a process (proc_pid_smaps_rollup(5)).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Its own, and its part of what it shares with others.
    pub(crate) pss_bytes: u64,
    /// All that is mapped in, shared or not.
    pub(crate) rss_bytes: u64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = PathBuf::from(format!("/proc/{pid}/smaps_rollup"));
        let text = fs::read_to_string(&path).map_err(|error| Failure::io("read", &path, &error))?;
        let field = |name: &str| {
            bytes_of(&text, name)
                .ok_or_else(|| Failure::new(format!("{}: has no {name} line", path.display())))
        };
        Ok(Self { pss_bytes: field("Pss:")?, rss_bytes: field("Rss:")? })
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        for path in [&self.pidfile, &self.stats] {
            // The directory that they lie in is removed later in any case.
            let _ = fs::remove_file(path);
        }
    }
}

/// The content of a file that is renamed into its place, once it is there.
fn written(path: &Path) -> Result<String> {
    let give_up = Instant::now() + FILES;
    loop {
        match fs::read_to_string(path) {
            Ok(text) => return Ok(text),
            Err(_) if Instant::now() < give_up => thread::sleep(Duration::from_millis(1)),
            Err(error) => return Err(Failure::io("read", path, &error)),
        }
    }
}

fn bytes_of(rollup: &str, field: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// What a directory occupies on disk. Its files may have holes, which cost nothing.
pub(crate) fn disk_bytes(dir: &Path) -> Result<u64> {
    let entries = fs::read_dir(dir).map_err(|error| Failure::io("list", dir, &error))?;
    let mut sum = 0;
    for entry in entries {
        let path = entry.map_err(|error| Failure::io("list", dir, &error))?.path();
        let metadata =
            fs::symlink_metadata(&path).map_err(|error| Failure::io("stat", &path, &error))?;
        // st_blocks counts units of 512 bytes whatever the file system's block size is.
        sum += if metadata.is_dir() { disk_bytes(&path)? } else { metadata.blocks() * 512 };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pss_is_read_from_a_rollup() {
        let rollup =
            "55d0-7ffc ---p 0 00:00 0 [rollup]\nRss:  200 kB\nPss:    12 kB\nPss_Anon: 3 kB\n";
        assert_eq!(bytes_of(rollup, "Pss:"), Some(12 * 1024));
        assert_eq!(bytes_of("Rss: 1 kB", "Pss:"), None);
    }

    #[test]
    fn faults_are_read_past_a_strange_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1234 0 5 0 10 20 0 0 20 0 1 0 99\n";
        assert_eq!(minor_faults_of(stat), Some(1234));
    }
}
