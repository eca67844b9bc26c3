//! The descriptors of this process: tells the JVM's own from the application's, and says what the
//! others are.
//!
//! In: `/proc/self/fd`. Out: numbers, and descriptions for `OpenDescriptor.java`.
//! Invariant: when in doubt a descriptor is the application's, so that it is named to the user.
//! Not here: whether a descriptor can be restored (the engine), what becomes of it
//! (`LeftOpen.java`), and how (`tubthumping_app::descriptor`).
//!
//! What a stock JVM holds was measured on 17 and 25; a regular file counts by its path instead
//! (`ClassPath.java`), but for jars that a class loader of the application's has opened: they are
//! code as much as the class path is, and no application has a way to close them.

use std::fs;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tubthumping_app::descriptor::{Descriptor, FileState, Socket};

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
    let strings = Descriptor::all().into_iter().flat_map(|descriptor| {
        let Descriptor { number, kind, path, socket, .. } = descriptor;
        let own = if is_private(&path, number) { "own" } else { "" };
        let read = if is_read_only(number) { "read" } else { "" };
        let listening = if socket.is_listening { "listening" } else { "" };
        let Socket { family, local, local_port, remote, remote_port, .. } = socket;
        let texts = [own, read].map(|text| text.as_bytes().to_vec());
        let ends = [family, local, local_port, remote, remote_port, listening.to_owned()];
        [number.to_string().into_bytes(), kind.as_bytes().to_vec()]
            .into_iter()
            .chain([path.into_os_string().into_vec()])
            .chain(texts)
            .chain(ends.map(String::into_bytes))
            .collect::<Vec<_>>()
    });
    strings.collect()
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
    FileState::of(number).is_ok_and(|state| state.flags & libc::O_ACCMODE == libc::O_RDONLY)
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
    let Socket { family, local: path, .. } = Socket::of(number);
    if family != "unix" || path.is_empty() {
        return family == "unix";
    }
    let path = Path::new(&path);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with(".java_pid") || tub_control::is_control_path(path)
}
