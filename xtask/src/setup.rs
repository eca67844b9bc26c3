//! What the machine needs besides Rust, and how to get it.
//!
//! In: nothing, or a wished JDK. Out: where the tools are.
//! Invariant: something is installed only by root, through apt-get, and said before it is done.
//! Not here: what the tools are used for.

use crate::failure::{Failure, Result};
use crate::process::{exists, progress, run_quietly, step};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Java development kit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Jdk {
    /// Its JAVA_HOME.
    pub(crate) home: PathBuf,
    /// What it calls itself: `OpenJDK 64-Bit Server VM 17.0.15+6-…`.
    pub(crate) version: String,
}

impl Jdk {
    /// The JDK at `home`.
    pub(crate) fn at(home: &Path) -> Result<Self> {
        let java = home.join("bin/java");
        if !home.join("bin/javac").exists() {
            return Err(Failure::new(format!("JDK {}: has no bin/javac", home.display()))
                .hint("a JRE is not enough; name the directory that JAVA_HOME would name"));
        }
        // `-version` writes to stderr; `--version` (since 9) to stdout.
        let text =
            run_quietly(Command::new(&java).arg("--version").env_remove("JAVA_TOOL_OPTIONS"))?;
        let line = text.lines().nth(2).or(text.lines().next()).unwrap_or("unknown").trim();
        Ok(Self { home: home.to_path_buf(), version: line.to_owned() })
    }

    /// The feature release of the JDK at `home`, as its `release` file tells: 17.
    pub(crate) fn release(home: &Path) -> Option<u32> {
        let text = fs::read_to_string(home.join("release")).ok()?;
        let version = text.lines().find_map(|line| line.strip_prefix("JAVA_VERSION=\""))?;
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    }

    /// Its `java`.
    pub(crate) fn java(&self) -> PathBuf {
        self.home.join("bin/java")
    }

    /// The wished one, or else the one that the environment names, or else any installed one.
    pub(crate) fn find(wished: Option<&Path>) -> Result<Option<Self>> {
        if let Some(home) = wished {
            return Self::at(home).map(Some);
        }
        let from_path = env::var_os("PATH").and_then(|path| {
            let java =
                env::split_paths(&path).map(|dir| dir.join("javac")).find(|java| java.exists())?;
            let real = fs::canonicalize(java).ok()?;
            Some(real.parent()?.parent()?.to_path_buf())
        });
        let mut installed: Vec<PathBuf> = fs::read_dir("/usr/lib/jvm")
            .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
            .unwrap_or_default();
        installed.sort();
        let candidates = env::var_os("JAVA_HOME").map(PathBuf::from).into_iter();
        Ok(candidates.chain(from_path).chain(installed).find_map(|home| Self::at(&home).ok()))
    }
}

/// One JDK of each of `releases` that is installed, with its feature release.
pub(crate) fn jdks(releases: &[u32]) -> Vec<(u32, Jdk)> {
    let mut homes: Vec<PathBuf> = env::var_os("JAVA_HOME").map(PathBuf::from).into_iter().collect();
    homes.extend(fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten().map(|e| e.path()));
    let found: Vec<(u32, Jdk)> =
        homes.iter().filter_map(|home| Some((Jdk::release(home)?, Jdk::at(home).ok()?))).collect();
    let first = |&release| found.iter().find(|(other, _)| *other == release).cloned();
    releases.iter().filter_map(first).collect()
}

/// A C linker is there, or is installed.
pub(crate) fn need_linker() -> Result<()> {
    if exists("cc") {
        return Ok(());
    }
    install("a C linker", &["gcc", "libc6-dev"])
}

/// A C++ compiler is there, or is installed.
pub(crate) fn need_cxx() -> Result<()> {
    if exists("c++") {
        return Ok(());
    }
    install("a C++ compiler", &["g++"])
}

/// A JDK is there, or is installed.
pub(crate) fn need_jdk(wished: Option<&Path>) -> Result<Jdk> {
    if let Some(jdk) = Jdk::find(wished)? {
        return Ok(jdk);
    }
    install("a JDK", &["openjdk-17-jdk-headless"])?;
    Jdk::find(None)?
        .ok_or_else(|| Failure::new("openjdk-17-jdk-headless: installed, but not found"))
}

/// A Python from 3.9 on is there, or is installed.
pub(crate) fn need_python() -> Result<PathBuf> {
    let there = || {
        let ask = "import sys, ssl; sys.exit(sys.version_info < (3, 9))";
        let is_new = |python: &&str| run_quietly(Command::new(python).args(["-c", ask])).is_ok();
        ["/usr/bin/python3", "python3"].into_iter().find(is_new).map(PathBuf::from)
    };
    if let Some(python) = there() {
        return Ok(python);
    }
    install("Python", &["python3"])?;
    there().ok_or_else(|| Failure::new("python3: installed, but not found, or too old"))
}

/// A Node.js from 20 on is there, or is installed where the distribution has one.
pub(crate) fn need_node() -> Result<()> {
    let there = || {
        let ask = "process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)";
        exists("node") && run_quietly(Command::new("node").args(["-e", ask])).is_ok()
    };
    if there() {
        return Ok(());
    }
    if !exists("node") {
        install("Node.js", &["nodejs"])?;
    }
    let too_old = Failure::new("node: older than 20").hint("install Node.js 20 or later");
    if there() { Ok(()) } else { Err(too_old) }
}

/// Maven is there, or is installed.
pub(crate) fn need_maven() -> Result<()> {
    if exists("mvn") {
        return Ok(());
    }
    install("Maven", &["maven"])
}

/// strace is there, or is installed: the tests inject faults with it.
pub(crate) fn need_strace() -> Result<()> {
    if exists("strace") {
        return Ok(());
    }
    install("strace", &["strace"])
}

/// The toolchain's formatter and linter are there, or are installed.
pub(crate) fn need_rust_components() -> Result<()> {
    if exists("cargo-fmt") && exists("cargo-clippy") {
        return Ok(());
    }
    step("installing rustfmt and clippy", || {
        run_quietly(Command::new("rustup").args(["component", "add", "rustfmt", "clippy"]))
            .map(drop)
            .map_err(|error| error.hint("install rustfmt and clippy for this toolchain"))
    })
}

/// Allocators that the tests start programs with are there, or are installed.
pub(crate) fn need_allocators() -> Result<()> {
    let there = |library: &str| {
        let dirs = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"];
        dirs.iter().any(|dir| Path::new(dir).join(library).exists())
    };
    if there("libjemalloc.so.2") && there("libmimalloc.so.2") {
        return Ok(());
    }
    install("allocators to test with", &["libjemalloc2", "libmimalloc2.0"])
}

/// Everything that any command needs.
pub(crate) fn everything() -> Result<()> {
    need_rust_components()?;
    need_linker()?;
    if let Err(error) = need_strace() {
        progress(&format!("no faults will be injected: {error}"));
    }
    if let Err(error) = need_allocators() {
        progress(&format!("tests on allocators will be skipped: {error}"));
    }
    for outcome in [need_jdk(None).map(drop), need_maven()] {
        if let Err(error) = outcome {
            progress(&format!("the Java part will be left out: {error}"));
        }
    }
    if let Err(error) = crate::jdk21::need_jdk_21() {
        progress(&format!("tests on JDK 21 will be skipped: {error}"));
    }
    if let Err(error) = crate::criu::need_criu() {
        progress(&format!("tests with CRIU will be skipped: {error}"));
    }
    if let Err(error) = crate::postgres::need_postgres() {
        progress(&format!("tests with PostgreSQL will be skipped: {error}"));
    }
    if let Err(error) = crate::uvicorn::need_uvicorn() {
        progress(&format!("tests with uvicorn will be skipped: {error}"));
    }
    if let Err(error) = crate::servers::need_servers() {
        progress(&format!("tests with servers of Debian's will be skipped: {error}"));
    }
    if let Err(error) = crate::containers::need_containers() {
        progress(&format!("tests with Podman and Docker will be skipped: {error}"));
    }
    Ok(())
}

fn install(what: &str, packages: &[&str]) -> Result<()> {
    let names = packages.join(" ");
    let missing = Failure::new(format!("{what}: not found on this machine"));
    if !is_root()? || !exists("apt-get") {
        return Err(missing.hint(format!("install it; on Debian: apt-get install {names}")));
    }
    step(&format!("installing {what} ({names})"), || {
        let apt = |words: &[&str]| {
            let mut command = Command::new("apt-get");
            command.args(words).env("DEBIAN_FRONTEND", "noninteractive");
            run_quietly(&mut command).map(drop)
        };
        let mut words = vec!["install", "-qq", "-y", "--no-install-recommends"];
        words.extend(packages);
        // Lists that were never fetched, or are too old, are the usual reason for a failure.
        apt(&words).or_else(|_| {
            apt(&["update", "-qq"])?;
            apt(&words)
        })
    })
}

/// Whether we are root.
pub(crate) fn is_root() -> Result<bool> {
    Ok(effective_uid()? == 0)
}

/// Our effective user id, from /proc because std has no name for it.
fn effective_uid() -> Result<u32> {
    let path = Path::new("/proc/self/status");
    let status = fs::read_to_string(path).map_err(|error| Failure::io("read", path, &error))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1)?.parse().ok())
        .ok_or_else(|| Failure::new("/proc/self/status: has no Uid line"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_javac_is_no_jdk() {
        let error = Jdk::at(Path::new("/proc/self")).map(drop).unwrap_err().to_string();
        assert!(error.starts_with("JDK /proc/self: has no bin/javac"), "{error}");
    }
}
