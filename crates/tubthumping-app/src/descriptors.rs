//! Which descriptors are the runtime's own.
//!
//! In: `/proc/self/fd`. Out: numbers. Invariant: when in doubt a descriptor is the application's,
//! so that it is named to the user. Not here: what becomes of the others (`left_open`, the engine).

use crate::descriptor::Descriptor;
use std::collections::HashMap;
use std::path::Path;

/// Descriptors that the application never opened: control sockets and their conversations, which an
/// engine in another network namespace could not tell; and, in runtimes that talk to themselves so
/// (libuv), pipes both ends of which are here, and what has no inode of its own.
///
/// KERNEL: a socket that was accepted belongs to the network namespace of whoever has connected
/// (`unix_stream_connect`), so that /proc/net/unix need not list it; it says itself where it is bound.
pub(crate) fn private(own_pipes: bool) -> Vec<i32> {
    let all = Descriptor::all();
    let mut ends: HashMap<&Path, usize> = HashMap::new();
    for descriptor in &all {
        *ends.entry(&descriptor.path).or_default() += 1;
    }
    let is_own = |descriptor: &&Descriptor| {
        let Descriptor { path, socket, .. } = descriptor;
        let is_control =
            socket.family == "unix" && tub_control::is_control_path(Path::new(&socket.local));
        let is_runtime = descriptor.is_pipe() && ends[&**path] > 1
            || path.to_string_lossy().starts_with("anon_inode:");
        is_control || own_pipes && is_runtime
    };
    all.iter().filter(is_own).map(|descriptor| descriptor.number).collect()
}
