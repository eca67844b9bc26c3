//! Packages of a newer Debian, unpacked and not installed.
//!
//! In: a suite, names of packages, a directory. Out: their files and those of all they need.
//! Invariant: apt's own state and the host's packages are not touched; no script of a package runs.
//! Not here: what runs from there (`criu`, `containers`, `postgres`, `servers`).

use crate::failure::{Failure, Result};
use crate::process::{exists, run_quietly};
use std::fs;
use std::path::Path;
use std::process::Command;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Whether packages can be had at all.
pub(crate) fn need() -> Result<()> {
    if exists("apt-get") && exists("dpkg-deb") && Path::new(KEYRING).exists() {
        return Ok(());
    }
    Err(Failure::new("it is fetched from Debian, and this is none"))
}

/// The suite of this host: its packages run with the host's own loader and C library.
pub(crate) fn own_suite() -> Result<String> {
    let path = Path::new("/etc/os-release");
    let text = fs::read_to_string(path).map_err(|error| Failure::io("read", path, &error))?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let named = name.map(|name| name.trim_matches('"').to_owned());
    named.ok_or_else(|| Failure::new("/etc/os-release: names no release of Debian's"))
}

/// Fetches `packages` of `suite` and all they need, with an apt state of its own, and unpacks them to
/// `unpacked`.
pub(crate) fn unpack(suite: &str, packages: &[&str], unpacked: &Path) -> Result<()> {
    let state = unpacked.with_extension("apt");
    let _ = fs::remove_dir_all(&state);
    let archives = state.join("cache/archives");
    for path in [&state.join("lists/partial"), &archives.join("partial"), unpacked] {
        fs::create_dir_all(path).map_err(|error| Failure::io("make", path, &error))?;
    }
    let write = |path: &Path, text: String| {
        fs::write(path, text).map_err(|error| Failure::io("write", path, &error))
    };
    write(&state.join("status"), String::new())?;
    let sources = state.join("sources.list");
    write(&sources, format!("deb [signed-by={KEYRING}] {} {suite} main\n", mirror()?))?;
    let apt = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        for (name, path) in [
            ("Dir::State", &state),
            ("Dir::State::status", &state.join("status")),
            ("Dir::Cache", &state.join("cache")),
            ("Dir::Etc::sourcelist", &sources),
        ] {
            command.arg("-o").arg(format!("{name}={}", path.display()));
        }
        for option in [
            "Dir::Etc::sourceparts=/dev/null",
            "Dir::Etc::preferences=/dev/null",
            "Dir::Etc::preferencesparts=/dev/null",
            "Acquire::Languages=none",
            "APT::Install-Recommends=false",
            "APT::Sandbox::User=root",
        ] {
            command.args(["-o", option]);
        }
        run_quietly(command.args(words)).map(drop)
    };
    apt(&["-qq", "update"])?;
    apt(&[&["-qq", "-y", "--download-only", "install"], packages].concat())?;
    let files = fs::read_dir(&archives).map_err(|error| Failure::io("list", &archives, &error))?;
    for package in files.filter_map(|entry| Some(entry.ok()?.path())) {
        if package.extension().is_some_and(|extension| extension == "deb") {
            run_quietly(Command::new("dpkg-deb").arg("-x").arg(&package).arg(unpacked))?;
        }
    }
    let _ = fs::remove_dir_all(&state);
    Ok(())
}

/// The mirror that apt already uses.
fn mirror() -> Result<String> {
    let format = ["indextargets", "--format", "$(REPO_URI)", "Component: main"];
    let text = run_quietly(Command::new("apt-get").args(format))?;
    text.lines()
        .find(|line| line.contains("debian") && !line.contains("security"))
        .map(str::to_owned)
        .ok_or_else(|| Failure::new("apt-get: knows no mirror of Debian's"))
}
