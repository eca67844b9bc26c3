//! Whom files of engines are believed from.
//!
//! In: what the file system says of one. Out: why it is not to be believed.
//! Not here: what stands in it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// Why a file or directory is not believed: it is a link, belongs to somebody else than us and root, or others may
/// write to it. `metadata` is that of the file itself, not followed.
pub fn distrust(metadata: &Metadata) -> Option<String> {
    if metadata.file_type().is_symlink() {
        return Some("it is a symbolic link".into());
    }
    let uid = metadata.uid();
    if uid != nix::unistd::geteuid().as_raw() && uid != 0 {
        return Some(format!("it belongs to uid {uid}"));
    }
    let mode = metadata.mode() & 0o7777;
    (mode & 0o022 != 0).then(|| format!("others may write to it (mode {mode:o})"))
}
