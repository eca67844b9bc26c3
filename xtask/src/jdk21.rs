//! A JDK 21 for the tests.
//!
//! In: the machine. Out: the home of a JDK 21, or the reason why there is none.
//! Invariant: nothing is installed: one that is not there is unpacked below target/ (`debian`).
//! Not here: what is tested with it (`tests/e2e/tests/jdk.rs`).
//!
//! Debian has it from 13 on, built for a C library newer than an older host's. So its programs run by a loader
//! and libraries of their own, as CRIU's does; and what its packages' scripts would do is done here.

use crate::debian;
use crate::failure::{Failure, Result};
use crate::layout::target_dir;
use crate::process::{run_quietly, step};
use crate::setup::{self, Jdk};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The suite that has it, and the package with its compiler.
const SUITE: &str = "trixie";
const PACKAGE: &str = "openjdk-21-jdk-headless";
/// Where it lies below the root of the packages.
const HOME: &str = "usr/lib/jvm/java-21-openjdk-amd64";
/// Programs as they came, below its home; where they were there are scripts.
const OWN: &str = "own";
/// What a JVM starts to have a process started: a program like the others, in another place.
const SPAWN_HELPER: &str = "lib/jspawnhelper";

/// The host's, or one unpacked before, or one unpacked now.
pub(crate) fn need_jdk_21() -> Result<PathBuf> {
    if let Some((_, jdk)) = setup::jdks(&[21]).into_iter().next() {
        return Ok(jdk.home);
    }
    let dir = target_dir().join("jdk-21");
    let home = dir.join(HOME);
    if !home.exists() {
        debian::need()?;
        step("fetching JDK 21 (unpacked below target/jdk-21, not installed)", || unpack(&dir))?;
    }
    Jdk::at(&home).map(|jdk| jdk.home)
}

fn unpack(dir: &Path) -> Result<()> {
    let aside = dir.with_extension("new");
    let _ = fs::remove_dir_all(&aside);
    debian::unpack(SUITE, &[PACKAGE], &aside)?;
    let home = aside.join(HOME);
    // Modules as files are for making runtimes; they are a third of all.
    let _ = fs::remove_dir_all(home.join("jmods"));
    copy_linked_files(&aside, &home)?;
    let own = home.join(OWN);
    fs::create_dir(&own).map_err(|error| Failure::io("make", &own, &error))?;
    for program in entries(&home.join("bin"))? {
        run_by_own_loader(&home, &program)?;
    }
    run_by_own_loader(&home, &home.join(SPAWN_HELPER))?;
    // As the package does when it is installed: its archive of classes depends on the machine.
    run_quietly(Command::new(home.join("bin/java")).arg("-Xshare:dump"))?;
    let _ = fs::remove_dir_all(dir);
    fs::rename(&aside, dir).map_err(|error| Failure::io("rename", &aside, &error))
}

/// Puts files in the place of links to their places in `/etc`, where they are not.
fn copy_linked_files(root: &Path, dir: &Path) -> Result<()> {
    for path in entries(dir)? {
        let Ok(target) = fs::read_link(&path) else {
            if path.is_dir() {
                copy_linked_files(root, &path)?;
            }
            continue;
        };
        // What a script of a package would have made is not there.
        let file = target.strip_prefix("/").map(|place| root.join(place));
        if let Ok(file) = file
            && file.is_file()
        {
            fs::remove_file(&path).map_err(|error| Failure::io("remove", &path, &error))?;
            fs::copy(&file, &path).map_err(|error| Failure::io("copy", &file, &error))?;
        }
    }
    Ok(())
}

/// Moves a program away, and has a script start it.
fn run_by_own_loader(home: &Path, program: &Path) -> Result<()> {
    let name = program.file_name().unwrap_or_default();
    let own = home.join(OWN).join(name);
    fs::rename(program, &own).map_err(|error| Failure::io("rename", program, &error))?;
    // Links may lead to the script from anywhere, and all of it may be copied elsewhere.
    let text = format!(
        "#!/bin/sh\nhome=$(dirname \"$(dirname \"$(readlink -f \"$0\")\")\")\n\
         lib=$home/../../x86_64-linux-gnu\nexec \"$lib/ld-linux-x86-64.so.2\" \
         --library-path \"$lib:$home/lib\" --argv0 \"$0\" \"$home/{OWN}/{}\" \"$@\"\n",
        name.to_string_lossy()
    );
    fs::write(program, text).map_err(|error| Failure::io("write", program, &error))?;
    fs::set_permissions(program, fs::Permissions::from_mode(0o755))
        .map_err(|error| Failure::io("change", program, &error))
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(dir).map_err(|error| Failure::io("list", dir, &error))?;
    Ok(listed.flatten().map(|entry| entry.path()).collect())
}
