//! The descriptors of this process: tells the JVM's own from the application's, says what the others
//! are, and takes a file out of the way and opens it again.
//!
//! In: `/proc/self/fd`. Out: numbers, and descriptions for `OpenDescriptor.java`.
//! Invariant: when in doubt a descriptor is the application's, so that it is named to the user.
//! Not here: whether a descriptor can be restored (the engine), and what becomes of it
//! (`LeftOpen.java`).
//!
//! What a stock JVM holds was measured on 17 and 25; a regular file counts by its path instead
//! (`ClassPath.java`), but for jars that a class loader of the application's has opened: they are
//! code as much as the class path is, and no application has a way to close them.

use crate::socket;
use std::ffi::CString;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What `tub run` was told to leave open: CRaC's contract has no complaint about what was there when the
/// VM started. With where each led, since the application may close it and have the number anew.
static INHERITED: OnceLock<Vec<(RawFd, PathBuf)>> = OnceLock::new();

/// Remembers it, before the JVM opens anything.
pub(crate) fn remember_inherited() {
    let numbers = std::env::var("TUB_KEPT_FDS").unwrap_or_default();
    let numbers: Vec<RawFd> = numbers.split(',').filter_map(|it| it.parse().ok()).collect();
    INHERITED.get_or_init(|| all().filter(|(number, _)| numbers.contains(number)).collect());
}

fn is_inherited(number: RawFd, target: &Path) -> bool {
    let list = INHERITED.get().map(Vec::as_slice).unwrap_or_default();
    list.iter().any(|(other, path)| *other == number && path == target)
}

/// Descriptors that are the JVM's own.
pub(crate) fn private() -> Vec<RawFd> {
    let own = |(number, target): (RawFd, PathBuf)| is_private(&target, number).then_some(number);
    all().filter_map(own).collect()
}

/// Number and name of each but the standard streams.
fn all() -> impl Iterator<Item = (RawFd, PathBuf)> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        let target = fs::read_link(entry.path()).ok()?;
        (number > 2).then_some((number, target))
    })
}

/// What is open, eleven strings for each: number, kind, name, `own` where it is the JVM's, `read`
/// where it cannot be written; and of a socket family, local address and port, remote address and
/// port, `listening`.
pub(crate) fn open() -> Vec<Vec<u8>> {
    let mut strings = Vec::new();
    for (number, target) in all() {
        let own = if is_private(&target, number) { "own" } else { "" };
        let read = if is_read_only(number) { "read" } else { "" };
        let kind = kind(number);
        strings.extend([number.to_string(), kind.to_owned()].map(String::into_bytes));
        strings.push(target.as_os_str().as_bytes().to_vec());
        strings.extend([own, read].map(|text| text.as_bytes().to_vec()));
        let described = if kind == "socket" { socket::describe(number) } else { None };
        strings.extend(described.unwrap_or_default().map(String::into_bytes));
    }
    strings
}

/// In the words of a CRaC JDK.
fn kind(number: RawFd) -> &'static str {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: fstat(2) fills in the struct that it is given.
    let status = unsafe { libc::fstat(number, stat.as_mut_ptr()) };
    // SAFETY: all zeros is a `stat` too, if it has not been filled in.
    let mode = unsafe { stat.assume_init() }.st_mode;
    match mode & libc::S_IFMT {
        _ if status != 0 => "unknown",
        libc::S_IFREG => "regular",
        libc::S_IFDIR => "directory",
        libc::S_IFCHR => "character",
        libc::S_IFBLK => "block",
        libc::S_IFIFO => "fifo",
        libc::S_IFSOCK => "socket",
        _ => "unknown",
    }
}

/// Closes one that no object of Java's stands for.
pub(crate) fn close(number: RawFd) {
    // SAFETY: close(2) of a number that a rule names: what else in this process uses it gets EBADF,
    // as the rule says it shall.
    unsafe { libc::close(number) };
}

/// Flags and offset, as fdinfo has them.
fn flags_and_offset(number: RawFd) -> io::Result<(i32, i64)> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let flags = field("flags:").and_then(|flags| i32::from_str_radix(flags, 8).ok());
    let offset = field("pos:").and_then(|offset| offset.parse().ok());
    flags.zip(offset).ok_or_else(|| io::Error::other("its state cannot be read"))
}

/// Puts something that can be neither read nor written in the place of a file, so that the number
/// stays taken. Returns the file's flags and its offset.
pub(crate) fn park(number: RawFd) -> io::Result<(i32, i64)> {
    let state = flags_and_offset(number)?;
    move_to(c"/", libc::O_PATH, number)?;
    Ok(state)
}

/// Opens a file at its old number, flags and offset.
pub(crate) fn reopen(number: RawFd, path: &[u8], flags: i32, offset: i64) -> io::Result<()> {
    let path = CString::new(path)?;
    move_to(&path, flags & !(libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC), number)?;
    // SAFETY: lseek(2) touches no memory.
    let reached = unsafe { libc::lseek(number, offset, libc::SEEK_SET) };
    if reached < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn move_to(path: &std::ffi::CStr, flags: i32, number: RawFd) -> io::Result<()> {
    // SAFETY: open(2) reads a path with an end.
    let opened = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) };
    if opened < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: dup3(2) touches no memory; whoever holds `number` is meant to find the new file there.
    let moved = unsafe { libc::dup3(opened, number, libc::O_CLOEXEC) };
    let error = io::Error::last_os_error();
    // SAFETY: opened above, and known to nobody else.
    unsafe { libc::close(opened) };
    if moved < 0 { Err(error) } else { Ok(()) }
}

fn is_private(target: &Path, number: i32) -> bool {
    if is_inherited(number, target) {
        return true;
    }
    let Some(name) = target.to_str() else { return false };
    match name {
        // Selectors, and the pollers of virtual threads; watch services.
        "anon_inode:[eventpoll]" | "anon_inode:[eventfd]" | "anon_inode:inotify" => true,
        // Sources of SecureRandom, kept for ever once opened.
        "/dev/random" | "/dev/urandom" => true,
        // Where flight recordings look for other processes, from the first one on.
        "/proc" => true,
        _ if name.ends_with(".jar") || name.ends_with(".jmod") => is_read_only(number),
        _ => name.starts_with("socket:[") && is_private_socket(number),
    }
}

fn is_read_only(number: RawFd) -> bool {
    flags_and_offset(number).is_ok_and(|(flags, _)| flags & libc::O_ACCMODE == libc::O_RDONLY)
}

/// Of unix sockets, three kinds are the JVM's own:
///
/// - without a name, the marker that NIO puts in the place of a descriptor before closing it, and
///   the pair that wakes a watch service. A connection of the application's by a unix socket looks
///   the same here; the engine refuses one whose other end lies outside, whatever we say;
/// - the listener of `jcmd`, `/…/.java_pidN`;
/// - the control socket and its conversations, which are closed by the time of the image. They are
///   named because an engine in another network namespace cannot see what they are. The socket says
///   where it is bound; /proc/net/unix does not list it here, since a socket that was accepted belongs to
///   the network namespace of whoever has connected (KERNEL: `unix_stream_connect`).
fn is_private_socket(number: RawFd) -> bool {
    let Some([family, path, ..]) = socket::describe(number) else { return false };
    if family != "unix" || path.is_empty() {
        return family == "unix";
    }
    let path = Path::new(&path);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with(".java_pid") || tub_control::is_control_path(path)
}
