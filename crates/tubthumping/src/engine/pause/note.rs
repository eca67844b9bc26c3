//! What a pause leaves in its directory: a note of who waits where.
//!
//! In and out: `paused.json`, which a restore renames to `restored.json`. Invariant: a note that
//! somebody else could have written is not believed, since it says whose memory a letter goes to; of
//! several restores at once one renames it.
//! Not here: looking for the process.

use super::PauseError;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// As long as nobody has had the process go on.
const PAUSED: &str = "paused.json";

/// From then on.
const RESTORED: &str = "restored.json";

/// Larger than any that we write.
const MOST_BYTES: u64 = 1 << 20;

/// What is noted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// Version of this file: 1.
    pub v: u32,
    /// `pause`.
    pub engine: String,
    /// Which version of ours it was.
    pub tool_version: String,
    /// When, in nanoseconds since 1970.
    pub created_unix_ns: u64,
    /// How many checkpoints lie behind the process.
    pub generation: u64,
    /// Its id, as whoever paused it saw it.
    pub pid: i32,
    /// When it started, in ticks after the boot (proc_pid_stat(5)): ids are used again.
    pub start: u64,
    /// Which boot that was.
    pub boot: String,
    /// How many threads it has.
    pub threads: usize,
    /// Address of its mailbox.
    pub mailbox: u64,
    /// What runs it.
    pub runtime: String,
    /// Its resources.
    pub resources: Vec<String>,
    /// What the pause is called, by name.
    pub labels: Vec<(String, String)>,
    /// What was measured, by name.
    pub metrics: Vec<(String, String)>,
}

/// Whether `dir` is that of a pause, be it over or not.
pub(crate) fn is_note(dir: &Path) -> bool {
    [PAUSED, RESTORED].iter().any(|name| is_file(&dir.join(name)))
}

fn is_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_file())
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> PauseError {
    let path = path.to_owned();
    move |source| PauseError::Io { path, source }
}

impl Note {
    /// Reads the note in `dir`, and whether the pause is over.
    pub(super) fn read(dir: &Path) -> Result<(Self, bool), PauseError> {
        ours(dir)?;
        let is_over = !is_file(&dir.join(PAUSED));
        let path = dir.join(if is_over { RESTORED } else { PAUSED });
        ours(&path)?;
        let file = File::open(&path).map_err(io(&path))?;
        let mut text = Vec::new();
        file.take(MOST_BYTES).read_to_end(&mut text).map_err(io(&path))?;
        let note = Self::parse(&text).map_err(|reason| PauseError::Note { path, reason })?;
        Ok((note, is_over))
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let note: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        match (note.v, &*note.engine) {
            (1, "pause") => Ok(note),
            (1, engine) => Err(format!("it is of the engine {engine:?}, which is not known")),
            (v, _) => Err(format!("it has version {v}; 1 is understood")),
        }
    }
}

/// Refuses what is not believed.
fn ours(path: &Path) -> Result<(), PauseError> {
    let metadata = fs::symlink_metadata(path).map_err(io(path))?;
    let refused = |reason| PauseError::Note { path: path.to_owned(), reason };
    tub_criu::distrust(&metadata).map(refused).map_or(Ok(()), Err)
}

/// A note that lies in its directory, and goes away again unless it is kept.
#[derive(Debug)]
pub(super) struct Placed {
    dir: PathBuf,
    made_dir: bool,
    keep: bool,
}

impl Placed {
    /// Puts a note into `dir`.
    pub(super) fn new(dir: &Path, note: &Note) -> Result<Self, PauseError> {
        let made_dir = match fs::DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
            Err(error) => return Err(io(dir)(error)),
        };
        let placed = Self { dir: dir.to_owned(), made_dir, keep: false };
        ours(dir)?;
        let text = serde_json::to_vec_pretty(note).unwrap_or_default();
        let aside = dir.join(format!(".{PAUSED}.{}", std::process::id()));
        let made = File::options().write(true).create_new(true).mode(0o600).open(&aside);
        let path = dir.join(PAUSED);
        let written = made
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&aside, &path));
        if let Err(error) = written {
            let _ = fs::remove_file(&aside);
            return Err(io(&path)(error));
        }
        Ok(placed)
    }

    /// It stays; answers its size.
    pub(super) fn keep(mut self) -> u64 {
        self.keep = true;
        // Of an earlier pause.
        let _ = fs::remove_file(self.dir.join(RESTORED));
        fs::metadata(self.dir.join(PAUSED)).map_or(0, |metadata| metadata.len())
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_file(self.dir.join(PAUSED));
            if self.made_dir {
                let _ = fs::remove_dir(&self.dir);
            }
        }
    }
}

/// The right to have a paused process go on, which one restore gets. Given back unless it was used.
#[derive(Debug)]
pub(super) struct Claim {
    dir: PathBuf,
    used: bool,
}

impl Claim {
    /// Takes it; `false` where another restore has it.
    pub(super) fn take(dir: &Path) -> Result<Option<Self>, PauseError> {
        match fs::rename(dir.join(PAUSED), dir.join(RESTORED)) {
            Ok(()) => Ok(Some(Self { dir: dir.to_owned(), used: false })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io(&dir.join(PAUSED))(error)),
        }
    }

    /// The process goes on: nobody else may have it go on.
    pub(super) fn use_up(mut self) {
        self.used = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.used {
            let _ = fs::rename(self.dir.join(RESTORED), self.dir.join(PAUSED));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn note() -> Note {
        Note {
            v: 1,
            engine: "pause".into(),
            tool_version: "0.1.0".into(),
            created_unix_ns: 1,
            generation: 2,
            pid: 42,
            start: 43,
            boot: "b".into(),
            threads: 3,
            mailbox: 0x1000,
            runtime: "OpenJDK".into(),
            resources: vec!["pool".into()],
            labels: vec![("a".into(), "b".into())],
            metrics: Vec::new(),
        }
    }

    #[test]
    fn a_note_is_claimed_once_and_believed_only_if_it_is_ours() {
        let dir = std::env::temp_dir().join(format!("tub-pause-note-{}", std::process::id()));
        drop(Placed::new(&dir, &note()).unwrap());
        assert!(!dir.exists(), "what is not kept goes away");
        assert!(Placed::new(&dir, &note()).unwrap().keep() > 0);
        assert_eq!(Note::read(&dir).unwrap(), (note(), false));
        let claim = Claim::take(&dir).unwrap().expect("it is the first");
        assert!(Claim::take(&dir).unwrap().is_none());
        drop(claim);
        Claim::take(&dir).unwrap().expect("it was given back").use_up();
        assert!(is_note(&dir));
        assert_eq!(Note::read(&dir).unwrap(), (note(), true));
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        let refused = Note::read(&dir).unwrap_err().to_string();
        assert!(refused.contains("others may write"), "{refused}");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let other = Note { engine: "vm".into(), ..note() };
        let text = serde_json::to_vec(&other).unwrap();
        assert!(Note::parse(&text).unwrap_err().contains("vm"));
        let text = serde_json::to_vec(&Note { v: 2, ..note() }).unwrap();
        assert!(Note::parse(&text).unwrap_err().contains("version 2"));
        Note::parse(b"{").unwrap_err();
    }
}
