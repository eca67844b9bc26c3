//! Whether the files that an image refers to are as they were.
//!
//! In: a checkpoint. Out: every file that is not. Invariant: nothing is opened, only looked at.
//! Not here: files that the image brings along, and whether we may open the others.

use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstatat};
use nix::sys::statvfs::{FsFlags, statvfs};
use std::collections::BTreeSet;
use std::fmt;
use tub_model::{Backing, Checkpoint, FileIdentity, FileKind, Task};

/// A file that stands in the way of a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMismatch {
    /// Its path.
    pub path: String,
    /// What became of it.
    pub problem: FileProblem,
}

/// What became of a file since the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileProblem {
    /// It is not there.
    Gone,
    /// It is a symbolic link now, which is not followed.
    Link,
    /// It was modified.
    Modified,
    /// It is of another type now.
    OtherType,
    /// Its size changed.
    Size {
        /// In the image, in bytes.
        image: u64,
        /// Here.
        here: u64,
    },
    /// It is mapped as code, and lies on a file system that forbids that.
    NoExec,
    /// It cannot be looked at.
    Unreadable(Errno),
}

impl fmt::Display for FileMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {} ", self.path.escape_debug())?;
        match self.problem {
            FileProblem::Gone => write!(f, "is gone"),
            FileProblem::Link => write!(f, "is a symbolic link now, which is not followed"),
            FileProblem::Modified => write!(f, "was modified after the checkpoint"),
            FileProblem::OtherType => write!(f, "is of another type now"),
            FileProblem::Size { image, here } => {
                write!(f, "has {here} bytes, and had {image} at the checkpoint")
            }
            FileProblem::NoExec => write!(
                f,
                "has code, and lies on a file system mounted noexec: mount that one with exec"
            ),
            FileProblem::Unreadable(errno) => write!(f, "cannot be looked at: {}", errno.desc()),
        }
    }
}

/// Every file of `checkpoint` that is not as it was, each once, in the order of their paths.
///
/// The executable, mapped files and files open for reading must be unchanged; files open for
/// writing must be there (a log may have grown), and those mapped for writing must be as long; there
/// must be the directories and devices, too. Code must be allowed where it lies.
pub fn check_files(checkpoint: &Checkpoint) -> Vec<FileMismatch> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    let of_tasks = checkpoint.tasks.iter().flat_map(wanted);
    let open = checkpoint.files.iter().filter_map(opened);
    for Wanted { path, what } in of_tasks.chain(open) {
        if !seen.insert((path, what.strictness())) {
            continue;
        }
        if let Some(problem) = check(path, what) {
            found.push(FileMismatch { path: path.to_owned(), problem });
        }
    }
    for path in checkpoint.tasks.iter().flat_map(code).collect::<BTreeSet<_>>() {
        if statvfs(path).is_ok_and(|stat| stat.flags().contains(FsFlags::ST_NOEXEC)) {
            found.push(FileMismatch { path: path.to_owned(), problem: FileProblem::NoExec });
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found.dedup_by(|one, other| one.path == other.path);
    found
}

/// What has to be at a path.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    path: &'a str,
    what: What<'a>,
}

#[derive(Clone, Copy)]
enum What<'a> {
    Unchanged(&'a FileIdentity),
    NoShorter(&'a FileIdentity),
    Type(SFlag),
}

impl What<'_> {
    const fn strictness(self) -> u8 {
        match self {
            Self::Type(_) => 0,
            Self::NoShorter(_) => 1,
            Self::Unchanged(_) => 2,
        }
    }
}

const fn unchanged(file: &FileIdentity) -> Wanted<'_> {
    Wanted { path: file.path.as_str(), what: What::Unchanged(file) }
}

const fn typed(path: &str, kind: SFlag) -> Wanted<'_> {
    Wanted { path, what: What::Type(kind) }
}

fn wanted(task: &Task) -> impl Iterator<Item = Wanted<'_>> {
    let mapped = task.vmas.iter().filter_map(|vma| match &vma.backing {
        // What the process writes to, others may as well: there must be no less of it.
        Backing::SharedFile { file, may_write: true, .. } => {
            Some(Wanted { path: file.path.as_str(), what: What::NoShorter(file) })
        }
        Backing::PrivateFile { file, .. } | Backing::SharedFile { file, .. } => {
            Some(unchanged(file))
        }
        Backing::Anonymous
        | Backing::SharedScratchFile { .. }
        | Backing::MemoryFile { .. }
        | Backing::Vdso => None,
    });
    let exe = (!task.exe_deleted).then(|| unchanged(&task.exe));
    exe.into_iter().chain([typed(&task.cwd, SFlag::S_IFDIR)]).chain(mapped)
}

/// Files that are mapped as code.
fn code(task: &Task) -> impl Iterator<Item = &str> {
    let executable = task.vmas.iter().filter(|vma| vma.protection.execute);
    executable.filter_map(|vma| match &vma.backing {
        Backing::PrivateFile { file, .. } | Backing::SharedFile { file, .. } => {
            Some(file.path.as_str())
        }
        _ => None,
    })
}

fn opened(file: &tub_model::OpenFile) -> Option<Wanted<'_>> {
    match &file.kind {
        FileKind::Regular { file: identity, .. } if file.flags & O_ACCMODE == O_RDONLY => {
            Some(unchanged(identity))
        }
        FileKind::Regular { file, .. } => Some(typed(&file.path, SFlag::S_IFREG)),
        FileKind::Directory { path, .. } => Some(typed(path, SFlag::S_IFDIR)),
        FileKind::Device { path } => Some(typed(path, SFlag::S_IFCHR)),
        FileKind::Pipe { path: Some(path), .. } => Some(typed(path, SFlag::S_IFIFO)),
        _ => None,
    }
}

/// asm-generic/fcntl.h; the same on every architecture.
const O_ACCMODE: i32 = 3;
const O_RDONLY: i32 = 0;

fn check(path: &str, what: What<'_>) -> Option<FileProblem> {
    let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
    let stat = match fstatat(nix::fcntl::AT_FDCWD, path, flags) {
        Ok(stat) => stat,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Some(FileProblem::Gone),
        Err(errno) => return Some(FileProblem::Unreadable(errno)),
    };
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    let expected = match what {
        What::Unchanged(_) | What::NoShorter(_) => SFlag::S_IFREG,
        What::Type(expected) => expected,
    };
    // A working directory may be reached through a link; everything else is opened as it is.
    if kind == SFlag::S_IFLNK && expected != SFlag::S_IFDIR {
        return Some(FileProblem::Link);
    }
    if kind != expected && kind != SFlag::S_IFLNK {
        return Some(FileProblem::OtherType);
    }
    let here = u64::try_from(stat.st_size).unwrap_or(0);
    let file = match what {
        What::Type(_) => return None,
        What::NoShorter(file) if here >= file.size_bytes => return None,
        What::NoShorter(file) | What::Unchanged(file) => file,
    };
    if here != file.size_bytes {
        return Some(FileProblem::Size { image: file.size_bytes, here });
    }
    // Layers of container images keep whole seconds only.
    let seconds = file.mtime_ns.div_euclid(NS_PER_S);
    let nanos = file.mtime_ns.rem_euclid(NS_PER_S);
    let exact = stat.st_mtime_nsec == nanos || stat.st_mtime_nsec == 0 || nanos == 0;
    (stat.st_mtime != seconds || !exact).then_some(FileProblem::Modified)
}

const NS_PER_S: i64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    fn identity(path: &Path) -> FileIdentity {
        let metadata = std::fs::metadata(path).unwrap();
        FileIdentity {
            path: path.to_str().unwrap().into(),
            dev: metadata.dev(),
            ino: metadata.ino(),
            size_bytes: metadata.size(),
            mtime_ns: metadata.mtime() * NS_PER_S + metadata.mtime_nsec(),
        }
    }

    #[test]
    fn a_file_is_the_same_until_it_changes() {
        let path = std::env::temp_dir().join(format!("tub-host-{}", std::process::id()));
        std::fs::write(&path, b"one").unwrap();
        let file = identity(&path);
        let problem = || check(&file.path, What::Unchanged(&file));
        assert_eq!(problem(), None);

        // A copy into a layer loses the part of a second, and nothing else.
        let whole = std::time::UNIX_EPOCH
            + std::time::Duration::from_secs(u64::try_from(file.mtime_ns / NS_PER_S).unwrap());
        let opened = std::fs::File::options().write(true).open(&path).unwrap();
        opened.set_modified(whole).unwrap();
        assert_eq!(problem(), None);
        opened.set_modified(whole + std::time::Duration::from_secs(1)).unwrap();
        assert_eq!(problem(), Some(FileProblem::Modified));

        std::fs::write(&path, b"three").unwrap();
        assert_eq!(problem(), Some(FileProblem::Size { image: 3, here: 5 }));
        // A log may grow.
        assert_eq!(check(&file.path, What::Type(SFlag::S_IFREG)), None);
        assert_eq!(check(&file.path, What::Type(SFlag::S_IFDIR)), Some(FileProblem::OtherType));

        std::fs::remove_file(&path).unwrap();
        assert_eq!(problem(), Some(FileProblem::Gone));
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert_eq!(problem(), Some(FileProblem::Link));
        std::fs::remove_file(&path).unwrap();
    }
}
