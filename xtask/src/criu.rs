//! A CRIU for the tests.
//!
//! In: the machine. Out: the path of a CRIU that works here, or the reason why there is none.
//! Invariant: nothing is installed: the packages of a newer Debian are unpacked below target/, with
//! their own C library and loader, and apt's own state is not touched.
//! Not here: what is tested with it (`tests/e2e`).
//!
//! Why so: Debian 12's CRIU 3.17 does not start on Linux 6.18, and 4.1 cannot dump inet sockets on
//! Linux 6.16 or later (SO_PASSCRED is refused there on sockets that are not unix ones).

use crate::failure::{Failure, Result};
use crate::layout::target_dir;
use crate::process::{exists, run_quietly, step};
use crate::setup::is_root;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The suite that has it.
const SUITE: &str = "sid";
/// The first version that does what the tests need.
const OLDEST: (u32, u32) = (4, 2);
/// Seconds, longer than the probe can take.
const SLEEPS: &str = "60";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The CRIU that `TUB_CRIU` names, or that was unpacked before, or one unpacked now.
pub(crate) fn need_criu() -> Result<PathBuf> {
    if !is_root()? {
        return Err(Failure::new("CRIU wants root"));
    }
    if let Some(named) = env::var_os("TUB_CRIU").map(PathBuf::from) {
        return works(&named).map(|()| named);
    }
    let dir = unpacked();
    let program = dir.join("criu");
    if !program.exists() {
        if !exists("apt-get") || !exists("dpkg-deb") || !Path::new(KEYRING).exists() {
            return Err(Failure::new("CRIU is fetched from Debian, and this is none")
                .hint("name one of version 4.2 or later in TUB_CRIU"));
        }
        step("fetching CRIU (unpacked below target/criu, not installed)", || unpack(&dir))?;
    }
    works(&program).map(|()| program)
}

fn unpacked() -> PathBuf {
    target_dir().join("criu")
}

/// Whether it is new enough, says itself that this host has what it needs, and takes and brings back
/// the simplest of processes without us: where it cannot, nothing can be learned about us.
fn works(program: &Path) -> Result<()> {
    let version = run_quietly(Command::new(program).arg("--version"))?;
    let found = version.lines().find_map(|line| line.strip_prefix("Version: ")).unwrap_or("none");
    if parsed(found).is_none_or(|version| version < OLDEST) {
        let (major, minor) = OLDEST;
        return Err(Failure::new(format!("CRIU {found}: {major}.{minor} or later is needed")));
    }
    run_quietly(Command::new(program).arg("check"))?;
    takes_a_sleeper(program)
}

/// A `sleep` in a session of its own, whom it is to dump and to bring back.
fn takes_a_sleeper(program: &Path) -> Result<()> {
    let images = target_dir().join("criu-probe");
    let _ = fs::remove_dir_all(&images);
    fs::create_dir_all(&images).map_err(|error| Failure::io("make", &images, &error))?;
    let mut sleeper = Command::new("setsid")
        .args(["sleep", SLEEPS])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| Failure::new(format!("setsid: cannot run: {error}")))?;
    let pid = sleeper.id().to_string();
    let criu = |verb: &[&str]| {
        // A dump or restore of one small process takes milliseconds.
        let mut command = Command::new("timeout");
        command.arg("20").arg(program).args(verb).arg("--images-dir").arg(&images);
        run_quietly(&mut command).map(drop)
    };
    let dumped = criu(&["dump", "--tree", &pid]);
    // Dead if it was dumped. If not, it must not outlive us.
    let _ = sleeper.kill();
    let _ = sleeper.wait();
    let outcome = dumped.and_then(|()| {
        let pidfile = images.join("pid");
        let restored =
            criu(&["restore", "--restore-detached", "--pidfile", &pidfile.display().to_string()]);
        if let Ok(pid) = fs::read_to_string(&pidfile) {
            run_quietly(Command::new("kill").args(["-KILL", pid.trim()]))?;
        }
        restored
    });
    let _ = fs::remove_dir_all(&images);
    outcome
}

fn parsed(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim().split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Fetches the package and all it needs, with an apt state of its own, and unpacks them.
fn unpack(dir: &Path) -> Result<()> {
    let aside = dir.with_extension("new");
    let _ = fs::remove_dir_all(&aside);
    let state = aside.join("apt");
    let archives = state.join("cache/archives");
    let unpacked = aside.join("root");
    for path in [&state.join("lists/partial"), &archives.join("partial"), &unpacked] {
        fs::create_dir_all(path).map_err(|error| Failure::io("make", path, &error))?;
    }
    let write = |path: &Path, text: String| {
        fs::write(path, text).map_err(|error| Failure::io("write", path, &error))
    };
    write(&state.join("status"), String::new())?;
    let sources = state.join("sources.list");
    write(&sources, format!("deb [signed-by={KEYRING}] {} {SUITE} main\n", mirror()?))?;
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
    apt(&["-qq", "-y", "--download-only", "install", "criu"])?;
    let packages =
        fs::read_dir(&archives).map_err(|error| Failure::io("list", &archives, &error))?;
    for package in packages.filter_map(|entry| Some(entry.ok()?.path())) {
        if package.extension().is_some_and(|extension| extension == "deb") {
            run_quietly(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&unpacked))?;
        }
    }
    let _ = fs::remove_dir_all(&state);
    // Its own loader and C library, which may be newer than ours. The script finds them by where it
    // lies itself.
    let script = aside.join("criu");
    write(
        &script,
        "#!/bin/sh\nroot=$(dirname \"$0\")/root\nlib=$root/usr/lib/x86_64-linux-gnu\nexec \
         \"$lib/ld-linux-x86-64.so.2\" --library-path \"$lib\" --argv0 criu \"$root/usr/sbin/criu\" \
         \"$@\"\n"
            .to_owned(),
    )?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))
        .map_err(|error| Failure::io("change", &script, &error))?;
    let _ = fs::remove_dir_all(dir);
    fs::rename(&aside, dir).map_err(|error| Failure::io("rename", &aside, &error))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(parsed("4.2.1"), Some((4, 2)));
        assert!(parsed("4.10").unwrap() > OLDEST && parsed("3.17.1").unwrap() < OLDEST);
        assert_eq!(parsed("none"), None);
    }
}
