//! A process and its descendants, as they are seen from here.

use std::collections::BTreeMap;
use std::fs;
use tub_procfs::status;
use tub_units::{HostPid, NsPid};

/// Every descendant of `ancestor`, with the id that it has in its own PID namespace.
pub(crate) fn descendants(ancestor: HostPid) -> Vec<(HostPid, NsPid)> {
    let mut children: BTreeMap<HostPid, Vec<(HostPid, NsPid)>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        // Processes that end meanwhile are not there.
        let Ok(text) = fs::read(entry.path().join("status")) else { continue };
        let Ok(status) = status::parse(&text) else { continue };
        let inner = status.ns_tgid.last().copied().unwrap_or(NsPid(status.tgid.0));
        children.entry(status.ppid).or_default().push((status.tgid, inner));
    }
    let mut found = Vec::new();
    let mut next = vec![ancestor];
    while let Some(parent) = next.pop() {
        let of = children.remove(&parent).unwrap_or_default();
        next.extend(of.iter().map(|(pid, _)| *pid));
        found.extend(of);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_found() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let ourselves = HostPid(i32::try_from(std::process::id()).unwrap());
        let pid = HostPid(i32::try_from(child.id()).unwrap());
        let found = descendants(ourselves);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.iter().any(|(host, _)| *host == pid), "{found:?}");
    }
}
