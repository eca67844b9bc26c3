//! Which descriptors are the runtime's own.
//!
//! In: `/proc/self/fd`. Out: numbers. Invariant: when in doubt a descriptor is the application's,
//! so that it is named to the user. Not here: what becomes of the others (the engine).

use std::collections::HashMap;
use std::fs;

/// Descriptors that the application never opened: control sockets, which an engine in another
/// network namespace could not tell; and, in runtimes that talk to themselves so (libuv), pipes
/// both ends of which are here.
pub(crate) fn private(own_pipes: bool) -> Vec<i32> {
    let sockets = control_sockets();
    let all = open();
    let mut ends: HashMap<&str, usize> = HashMap::new();
    for (_, target) in &all {
        *ends.entry(target).or_default() += 1;
    }
    let is_own = |target: &str| {
        let is_pipe = target.starts_with("pipe:[");
        own_pipes && is_pipe && ends[target] > 1 || sockets.iter().any(|socket| socket == target)
    };
    all.iter().filter(|(_, target)| is_own(target)).map(|(number, _)| *number).collect()
}

fn open() -> Vec<(i32, String)> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        let target = fs::read_link(entry.path()).ok()?;
        Some((number, target.to_str()?.to_owned()))
    });
    named.collect()
}

/// `socket:[INODE]` of each control socket.
fn control_sockets() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/net/unix").unwrap_or_default();
    // Num RefCount Protocol Flags Type St Inode Path
    let sockets = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace().skip(6);
        let (inode, path) = (fields.next()?, fields.next()?);
        tub_control::is_control_path(path.as_ref()).then(|| format!("socket:[{inode}]"))
    });
    sockets.collect()
}
