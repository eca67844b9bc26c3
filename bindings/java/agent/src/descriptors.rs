//! Tells the JVM's own descriptors from the application's.
//!
//! In: `/proc/self/fd`. Out: the numbers of those that no application has opened.
//! Invariant: when in doubt a descriptor is the application's, so that it is named to the user.
//! Not here: whether a descriptor can be restored (the engine).
//!
//! What a stock JVM holds was measured on 17 and 25; a regular file counts by its path instead
//! (`ClassPath.java`), but for jars that a class loader of the application's has opened: they are
//! code as much as the class path is, and no application has a way to close them.

use crate::policy::Policy;
use std::fs;
use std::path::Path;

/// Descriptors that are the JVM's own, or that a rule leaves to the engine.
pub(crate) fn private(policy: &Policy) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let mut private: Vec<i32> = entries
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let target = fs::read_link(entry.path()).ok()?;
            let exempt = is_private(&target, number)
                || target.to_str().is_some_and(|target| policy.allows(number, target));
            (number > 2 && exempt).then_some(number)
        })
        .collect();
    private.sort_unstable();
    private
}

fn is_private(target: &Path, number: i32) -> bool {
    let Some(name) = target.to_str() else { return false };
    match name {
        // Selectors, and the pollers of virtual threads; watch services.
        "anon_inode:[eventpoll]" | "anon_inode:[eventfd]" | "anon_inode:inotify" => true,
        // Sources of SecureRandom, kept for ever once opened.
        "/dev/random" | "/dev/urandom" => true,
        _ if name.ends_with(".jar") || name.ends_with(".jmod") => is_read_only(number),
        _ => is_private_socket(name),
    }
}

fn is_read_only(number: i32) -> bool {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
    info.lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok())
        .is_some_and(|flags| flags & libc::O_ACCMODE == libc::O_RDONLY)
}

/// Of unix sockets, three kinds are the JVM's own:
///
/// - without a name, the marker that NIO puts in the place of a descriptor before closing it, and
///   the pair that wakes a watch service. A connection of the application's by a unix socket looks
///   the same here; the engine refuses one whose other end lies outside, whatever we say;
/// - the listener of `jcmd`, `/…/.java_pidN`;
/// - the control socket and its conversations, which are closed by the time of the image. They are
///   named because an engine in another network namespace cannot see what they are.
fn is_private_socket(target: &str) -> bool {
    let Some(path) = unix_socket_path(target) else { return false };
    let Some(path) = path else { return true };
    let path = Path::new(&path);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with(".java_pid") || tub_control::is_control_path(path)
}

/// `None` for what is no unix socket, `Some(None)` for one without a path.
fn unix_socket_path(target: &str) -> Option<Option<String>> {
    let inode = target.strip_prefix("socket:[")?.strip_suffix(']')?;
    let table = fs::read_to_string("/proc/self/net/unix").ok()?;
    // Num RefCount Protocol Flags Type St Inode Path
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(6);
        (fields.next()? == inode).then(|| fields.next().map(str::to_owned))
    })
}
