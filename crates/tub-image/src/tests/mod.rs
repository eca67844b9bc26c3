//! Tests on real directories: written, opened, damaged, replaced.

mod corruption;
mod fixture;
mod hostile;
mod round_trip;
mod sample;
mod writing;

use crate::{ImageWriter, Replace, Summary, Zeros};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use tub_model::Checkpoint;
use tub_units::RemoteAddr;

/// A directory that goes away with its test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("tub-image-{}-{number}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What lies in it, sorted.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Writes `checkpoint` with the pages that [`sample::memory`] gives its saved ranges.
fn write(dir: &Path, replace: Replace, checkpoint: &Checkpoint) -> crate::Result<Summary> {
    let mut writer = ImageWriter::create(dir, replace)?;
    append_pages(&mut writer, checkpoint)?;
    writer.finish(checkpoint)
}

fn append_pages(writer: &mut ImageWriter, checkpoint: &Checkpoint) -> crate::Result<()> {
    for task in &checkpoint.tasks {
        for vma in &task.vmas {
            let zeros = match vma.backing {
                tub_model::Backing::PrivateFile { .. }
                | tub_model::Backing::MemoryFile { shared: false, .. } => Zeros::Content,
                _ => Zeros::Implied,
            };
            for range in &vma.saved {
                let bytes = sample::memory(*range);
                writer.pages().append(RemoteAddr(range.start()), &bytes, zeros)?;
            }
            writer.pages().finish_range()?;
        }
        writer.pages().finish_task()?;
    }
    for file in &checkpoint.memory_files {
        for range in &file.saved {
            let bytes = sample::memory(*range);
            writer.pages().append(RemoteAddr(range.start()), &bytes, Zeros::Implied)?;
        }
        writer.pages().finish_task()?;
    }
    Ok(())
}
