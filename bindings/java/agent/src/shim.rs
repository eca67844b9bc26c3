//! Finds the shim's jar and the facade's, or puts them where they can be found again.
//!
//! In: the bytes that the agent carries. Out: the path of a file with these bytes.
//! Invariant: the path outlives the process, since the JVM keeps the jar open and a copy of the
//! process opens it again by its path; and it names these very bytes, since a jar of another
//! release would not fit the agent.
//!
//! An installed agent has `tub-shim.jar` beside it. One that stands alone writes it into a
//! directory of the user's own, under a name made of its content, where all JVMs share it.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use xxhash_rust::xxh3::xxh3_64;

/// The shim, as `build.rs` has made it.
pub(crate) const JAR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tub-shim.jar"));

/// The facade `org.crac`, likewise.
const FACADE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tub-facade.jar"));

/// The path of a file with the shim's bytes.
pub(crate) fn path() -> Result<&'static CStr, String> {
    static PATH: OnceLock<Result<CString, String>> = OnceLock::new();
    PATH.get_or_init(|| find_or_write("tub-shim", JAR)).as_deref().map_err(Clone::clone)
}

/// The path of a file with the facade's bytes.
pub(crate) fn facade_path() -> Result<CString, String> {
    find_or_write("tub-facade", FACADE)
}

fn find_or_write(name: &str, jar: &[u8]) -> Result<CString, String> {
    let path = match library_directory().map(|dir| dir.join(format!("{name}.jar"))) {
        Some(installed) if holds(&installed, jar) => installed,
        _ => write_to_cache(name, jar)?,
    };
    CString::new(path.as_os_str().as_bytes()).map_err(|_| format!("{path:?}: not a path"))
}

fn holds(path: &Path, jar: &[u8]) -> bool {
    let length = fs::metadata(path).map(|found| found.len());
    length.is_ok_and(|length| length == jar.len() as u64)
        && fs::read(path).is_ok_and(|bytes| bytes == jar)
}

/// The directory that this library was loaded from.
pub(crate) fn library_directory() -> Option<PathBuf> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    let address = (&raw const JAR_ANCHOR).cast();
    // SAFETY: dladdr(3) reads no memory at `address` and fills in `info`.
    let found = unsafe { libc::dladdr(address, info.as_mut_ptr()) };
    // SAFETY: all zeros is a `Dl_info` of null pointers, if dladdr has not filled it in.
    let info = unsafe { info.assume_init() };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: dladdr succeeded, so that `dli_fname` is a string with an end that lives for as
    // long as the library is loaded; a JVM never unloads an agent.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    let path = Path::new(OsStr::from_bytes(name.to_bytes())).canonicalize().ok()?;
    path.parent().map(Path::to_owned)
}

/// Something in this library, to ask for its address.
static JAR_ANCHOR: u8 = 0;

fn write_to_cache(name: &str, jar: &[u8]) -> Result<PathBuf, String> {
    let name = format!("{name}-{:016x}.jar", xxh3_64(jar));
    let mut problems = Vec::new();
    for directory in cache_directories() {
        let path = directory.join(&name);
        if is_private(&directory) && holds(&path, jar) {
            return Ok(path);
        }
        match write_into(&directory, &path, jar) {
            Ok(()) => return Ok(path),
            Err(error) => problems.push(format!("{}: {error}", directory.display())),
        }
    }
    Err(format!("the shim cannot be written anywhere: {}", problems.join("; ")))
}

/// Where a user's own files may go, the best place first.
fn cache_directories() -> Vec<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let home_cache = || absolute("HOME").map(|home| home.join(".cache"));
    let mut directories: Vec<PathBuf> = absolute("XDG_CACHE_HOME")
        .or_else(home_cache)
        .filter(|cache| cache.parent().is_some_and(Path::is_dir))
        .map(|cache| cache.join("tubthumping"))
        .into_iter()
        .collect();
    directories.push(tub_control::default_directory());
    directories
}

/// Whether a directory is ours alone: what lies in it is code that we run.
fn is_private(directory: &Path) -> bool {
    // SAFETY: geteuid(2) cannot fail and touches no memory.
    let us = unsafe { libc::geteuid() };
    fs::symlink_metadata(directory)
        .is_ok_and(|found| found.is_dir() && found.uid() == us && found.mode() & 0o077 == 0)
}

fn write_into(directory: &Path, path: &Path, jar: &[u8]) -> Result<(), String> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| error.to_string())?;
    if !is_private(directory) {
        return Err("the directory is not ours alone".into());
    }
    // Written aside and renamed: another JVM may start at the same moment.
    let aside = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)
        .and_then(|mut file: File| file.write_all(jar))
        .and_then(|()| fs::rename(&aside, path));
    written.map_err(|error| {
        // What cannot be removed either is left to whoever cleans the directory.
        let _ = fs::remove_file(&aside);
        error.to_string()
    })
}
