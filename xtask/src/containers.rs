//! Container engines for the tests: Podman, Docker, and a CRIU for them.
//!
//! In: the machine. Out: a root file system that has them, or the reason why there is none.
//! Invariant: nothing is installed: the tests pivot into the directory, with mounts and processes of
//! their own (`tests/e2e/containers/enter.sh`).
//! Not here: what is tested with them (`tests/e2e`).

use crate::failure::{Failure, Result};
use crate::layout::target_dir;
use crate::process::step;
use crate::setup::is_root;
use crate::{criu, debian};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The suite whose engines are tested.
const SUITE: &str = "trixie";

/// The engines, and what they turned out to need. `tar` and `gzip` are for CRIU's tmpfs, the iptables
/// for its network lock, `tini` to reap, `catatonit` for `podman run --init`.
const PACKAGES: &[&str] = &[
    "base-files",
    "bash",
    "dash",
    "coreutils",
    "util-linux",
    "mount",
    "grep",
    "sed",
    "tar",
    "gzip",
    "procps",
    "iproute2",
    "iptables",
    "nftables",
    "tini",
    "catatonit",
    "busybox-static",
    "conmon",
    "netavark",
    "podman",
    "crun",
    "libcriu2",
    "docker.io",
    "docker-cli",
];

/// Directories that the packages do not bring.
const DIRECTORIES: &[&str] =
    &["proc", "sys", "dev", "run", "tmp", "host", "root", "var/tmp", "etc", "usr/local/sbin", "w"];

/// The links that Debian's alternatives would make: CRIU calls these names.
const IPTABLES: &[&str] = &[
    "iptables",
    "iptables-restore",
    "iptables-save",
    "ip6tables",
    "ip6tables-restore",
    "ip6tables-save",
];

/// The root file system unpacked before, or one unpacked now.
pub(crate) fn need_containers() -> Result<PathBuf> {
    if !is_root()? {
        return Err(Failure::new("container engines want root"));
    }
    let dir = target_dir().join("containers");
    if !dir.exists() {
        debian::need()?;
        step(
            "fetching Podman and Docker (unpacked below target/containers, not installed)",
            || unpack(&dir),
        )?;
    }
    Ok(dir)
}

fn unpack(dir: &Path) -> Result<()> {
    let root = dir.with_extension("new");
    let _ = fs::remove_dir_all(&root);
    debian::unpack(SUITE, PACKAGES, &root)?;
    debian::unpack(criu::SUITE, &["criu"], &root.join("opt/criu"))?;
    for name in DIRECTORIES {
        let path = root.join(name);
        fs::create_dir_all(&path).map_err(|error| Failure::io("make", &path, &error))?;
    }
    criu::write_wrapper(&root.join("usr/local/sbin/criu"), "../../../opt/criu")?;
    for name in IPTABLES {
        let link = root.join("usr/sbin").join(name);
        let _ = fs::remove_file(&link);
        symlink("xtables-nft-multi", &link).map_err(|error| Failure::io("make", &link, &error))?;
    }
    for (file, text) in [("passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("group", "root:x:0:\n")] {
        let path = root.join("etc").join(file);
        fs::write(&path, text).map_err(|error| Failure::io("write", &path, &error))?;
    }
    let _ = fs::remove_dir_all(dir);
    fs::rename(&root, dir).map_err(|error| Failure::io("rename", &root, &error))
}
