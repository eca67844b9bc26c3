//! The file of ours beside an image of CRIU's: it says whose the image is, and keeps what CRIU does
//! not need to know.
//!
//! In and out: `tub-engine.json`. Invariant: an image whose owner could be somebody else is refused
//! before CRIU sees it, which runs as root and believes what it reads.

use crate::{Error, distrust};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use tub_units::AddrRange;

/// The file's name.
pub const MARKER_FILE: &str = "tub-engine.json";

/// Its name as long as CRIU is not done: nobody takes such a directory for an image.
const UNCONFIRMED: &str = "tub-engine.json.part";

/// Larger than any that we write.
const MOST_BYTES: u64 = 1 << 20;

/// What we keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Version of this file: 1.
    pub v: u32,
    /// Whose image it is: `criu`.
    pub engine: String,
    /// Which version took it.
    pub engine_version: String,
    /// Which version of ours asked for it.
    pub tool_version: String,
    /// When, in nanoseconds since 1970.
    pub created_unix_ns: u64,
    /// How many checkpoints lie behind the process.
    pub generation: u64,
    /// Id of the main process in its PID namespace.
    pub pid: i32,
    /// How many threads it had.
    pub threads: usize,
    /// What the standard streams were, in CRIU's words for what it may be handed instead.
    pub stdio: [Option<String>; 3],
    /// Whether TCP connections come back as if their peers had gone.
    #[serde(default)]
    pub tcp_close: bool,
    /// How the application takes part, if it does.
    pub coordination: Option<Coordinated>,
}

/// What the application told about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinated {
    /// First address of its mailbox.
    pub mailbox_address: u64,
    /// Its length.
    pub mailbox_bytes: u64,
    /// What runs it.
    pub runtime: String,
    /// Its resources.
    pub resources: Vec<String>,
}

impl Coordinated {
    /// Its mailbox.
    pub fn mailbox(&self) -> Option<AddrRange> {
        AddrRange::with_len(self.mailbox_address, self.mailbox_bytes)
    }
}

/// Whether `dir` holds an image of another engine's.
pub fn is_image(dir: &Path) -> bool {
    dir.join(MARKER_FILE).symlink_metadata().is_ok_and(|metadata| metadata.is_file())
}

impl Marker {
    /// Reads the marker of the image in `dir`, and looks at whose it is.
    ///
    /// # Errors
    ///
    /// It cannot be read or trusted, or is of an engine or a version that we do not know.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(MARKER_FILE);
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        ours(dir)?;
        for entry in fs::read_dir(dir).map_err(io(dir))? {
            ours(&entry.map_err(io(dir))?.path())?;
        }
        let file = File::open(&path).map_err(io(&path))?;
        let mut text = Vec::new();
        file.take(MOST_BYTES).read_to_end(&mut text).map_err(io(&path))?;
        Self::parse(&text).map_err(|reason| Error::Marker { path, reason })
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let marker: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        match (marker.v, &*marker.engine) {
            (1, "criu") => Ok(marker),
            (1, engine) => Err(format!("it is of the engine {engine:?}, which is not known")),
            (v, _) => Err(format!("it has version {v}; 1 is understood")),
        }
    }

    /// Writes it into `dir`, which is no image before [`Self::confirm`].
    pub(crate) fn write(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join(UNCONFIRMED);
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        let made = File::options().write(true).create_new(true).mode(0o600).open(&path);
        made.and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .map_err(|source| Error::Io { path, source })
    }

    /// Whether it has been written into `dir`.
    pub(crate) fn is_ready(dir: &Path) -> bool {
        dir.join(UNCONFIRMED).is_file() || is_image(dir)
    }

    /// Makes an image of `dir`, which is complete.
    pub(crate) fn confirm(dir: &Path) -> Result<(), Error> {
        let path = dir.join(MARKER_FILE);
        match fs::rename(dir.join(UNCONFIRMED), &path) {
            Err(_) if is_image(dir) => Ok(()),
            renamed => renamed.map_err(|source| Error::Io { path, source }),
        }
    }
}

/// Refuses what is not believed.
fn ours(path: &Path) -> Result<(), Error> {
    let metadata =
        fs::symlink_metadata(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let refused = |reason| Error::Marker { path: path.to_owned(), reason };
    distrust(&metadata).map(refused).map_or(Ok(()), Err)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    pub(crate) fn marker() -> Marker {
        Marker {
            v: 1,
            engine: "criu".into(),
            engine_version: "4.2.1".into(),
            tool_version: "0.1.0".into(),
            created_unix_ns: 1,
            generation: 2,
            pid: 42,
            threads: 3,
            stdio: [Some("pipe:[7]".into()), None, None],
            tcp_close: true,
            coordination: Some(Coordinated {
                mailbox_address: 0x1000,
                mailbox_bytes: 0x1000,
                runtime: "OpenJDK".into(),
                resources: vec!["pool".into()],
            }),
        }
    }

    #[test]
    fn a_marker_comes_back_as_it_was_and_only_from_us() {
        let dir = std::env::temp_dir().join(format!("tub-criu-marker-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!is_image(&dir));
        marker().write(&dir).unwrap();
        assert!(!is_image(&dir));
        Marker::confirm(&dir).unwrap();
        assert!(is_image(&dir));
        assert_eq!(Marker::read(&dir).unwrap(), marker());
        fs::write(dir.join("core-1.img"), b"x").unwrap();
        fs::set_permissions(dir.join("core-1.img"), fs::Permissions::from_mode(0o666)).unwrap();
        let refused = Marker::read(&dir).unwrap_err().to_string();
        assert!(refused.contains("core-1.img") && refused.contains("write"), "{refused}");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let mut other = marker();
        other.engine = "vm".into();
        let text = serde_json::to_vec(&other).unwrap();
        assert!(Marker::parse(&text).unwrap_err().contains("vm"));
        other.v = 2;
        let text = serde_json::to_vec(&other).unwrap();
        assert!(Marker::parse(&text).unwrap_err().contains("version 2"));
        Marker::parse(b"{").unwrap_err();
    }
}
