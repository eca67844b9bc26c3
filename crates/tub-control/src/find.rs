//! Finds the control socket of a process.
//!
//! In: a process id. Out: the path at which its control socket listens, as the process sees it.
//! Invariant: a name is never trusted: only a socket that the process itself holds open counts,
//! since process ids are shared between instances in PID namespaces of their own.
//! Not here: connecting (see `client`).

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tub_units::HostPid;

/// `__SO_ACCEPTCON`: the flag of a listening socket in `/proc/PID/net/unix`.
/// KERNEL(since 2.2): `include/linux/net.h`.
const LISTENING: u32 = 0x1_0000;

/// The paths at which `pid` listens for control; more than one only where two bindings share a
/// process.
pub(crate) fn control_sockets(pid: HostPid) -> io::Result<Vec<PathBuf>> {
    let held = held_sockets(Path::new(&format!("/proc/{pid}/fd")))?;
    let table = fs::read(format!("/proc/{pid}/net/unix"))?;
    Ok(listening(&table).filter(|(inode, _)| held.contains(inode)).map(|(_, path)| path).collect())
}

/// Whether `pid` listens for control. It is not spoken to.
pub fn listens(pid: HostPid) -> bool {
    control_sockets(pid).is_ok_and(|sockets| !sockets.is_empty())
}

/// Inode numbers of the sockets among the descriptors listed in `fd_directory`.
fn held_sockets(fd_directory: &Path) -> io::Result<HashSet<u64>> {
    let mut inodes = HashSet::new();
    for entry in fs::read_dir(fd_directory)? {
        // A descriptor may be closed between being listed and being looked at.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let inode: Option<u64> = target
            .to_str()
            .and_then(|target| target.strip_prefix("socket:["))
            .and_then(|target| target.strip_suffix(']'))
            .and_then(|inode| inode.parse().ok());
        inodes.extend(inode);
    }
    Ok(inodes)
}

/// Inode number and path of each listening control socket in a `/proc/PID/net/unix`.
fn listening(table: &[u8]) -> impl Iterator<Item = (u64, PathBuf)> {
    table.split(|&byte| byte == b'\n').skip(1).filter_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        // Num RefCount Protocol Flags Type St Inode Path; only the path may hold blanks.
        let mut rest = line;
        let mut field = || {
            rest = rest.trim_start();
            let end = rest.find(' ').unwrap_or(rest.len());
            let (field, tail) = rest.split_at(end);
            rest = tail;
            field
        };
        let fields: [&str; 7] = std::array::from_fn(|_| field());
        let flags = u32::from_str_radix(fields[3], 16).ok()?;
        let inode = fields[6].parse().ok()?;
        let path = Path::new(rest.strip_prefix(' ')?);
        (flags & LISTENING != 0 && is_control_path(path)).then(|| (inode, path.to_owned()))
    })
}

/// Whether a path has the shape of a control socket's: `/…/tub-UID/<16 hexadecimal digits>.sock`.
pub fn is_control_path(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let directory = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    path.is_absolute()
        && name.and_then(|name| name.strip_suffix(".sock")).is_some_and(|stem| {
            stem.len() == 16 && stem.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
        && directory
            .and_then(|directory| directory.strip_prefix("tub-"))
            .is_some_and(|uid| !uid.is_empty() && uid.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 21001 /tmp/tub-1000/0123456789abcdef.sock
0000000000000000: 00000003 00000000 00000000 0001 03 21002 /tmp/tub-1000/0123456789abcdef.sock
0000000000000000: 00000002 00000000 00010000 0001 01 21003 /var/with blank/tub-0/00000000000000ff.sock
0000000000000000: 00000003 00000000 00000000 0001 03 21004
0000000000000000: 00000002 00000000 00010000 0001 01 21005 @/tmp/tub-1000/0123456789abcdef.sock
0000000000000000: 00000002 00000000 00010000 0001 01 21006 /run/dbus/system_bus_socket
";

    #[test]
    fn only_listening_control_sockets_count() {
        let found: Vec<_> = listening(TABLE).collect();
        let expected: Vec<(u64, PathBuf)> = vec![
            (21001, "/tmp/tub-1000/0123456789abcdef.sock".into()),
            (21003, "/var/with blank/tub-0/00000000000000ff.sock".into()),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn names_of_others_are_not_ours() {
        for path in [
            "/tmp/tub-/0123456789abcdef.sock",
            "/tmp/tub-x/0123456789abcdef.sock",
            "/tmp/tub-1/0123456789ABCDEF.sock",
            "/tmp/tub-1/0123.sock",
            "tub-1/0123456789abcdef.sock",
        ] {
            assert!(!is_control_path(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn garbage_is_no_socket() {
        assert_eq!(listening(b"\n\n 1 2\n\xff\xfe\nx y z w v u t s\n").count(), 0);
    }
}
