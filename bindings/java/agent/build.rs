//! Compiles the Java shim into `OUT_DIR/tub-shim.jar`, which the agent carries, and the facade into
//! `OUT_DIR/tub-facade.jar`.
//!
//! In: `../shim`, and a JDK 17 or later from `JAVA_HOME`, `PATH` or `/usr/lib/jvm`; or a ready jar
//! named by `TUB_SHIM_JAR`. Out: the jar, for the agent to include and for `xtask` to install.
//! Invariant: the jar runs on JDK 17 whichever JDK compiles it, and is the same for the same
//! sources and compiler: its entries carry a fixed date.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest JDK that the shim runs on.
const RELEASE: &str = "17";

fn main() {
    if let Err(message) = build() {
        eprintln!("tub-java-agent: {message}");
        std::process::exit(1);
    }
}

fn build() -> Result<(), String> {
    let variable = |name| env::var_os(name).ok_or_else(|| format!("{name} is not set by cargo"));
    let out = PathBuf::from(variable("OUT_DIR")?);
    let shim = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("../shim");
    let jar = out.join("tub-shim.jar");
    println!("cargo::rerun-if-env-changed=TUB_SHIM_JAR");
    println!("cargo::rerun-if-env-changed=JAVA_HOME");
    println!("cargo::rerun-if-changed={}", shim.display());
    let facade = shim.join("../facade");
    println!("cargo::rerun-if-changed={}", facade.display());
    if let Some(ready) = env::var_os("TUB_SHIM_JAR") {
        println!("cargo::rerun-if-changed={}", Path::new(&ready).display());
        // The facade of the same build lies beside it.
        for (from, to) in [
            (PathBuf::from(&ready), jar),
            (Path::new(&ready).with_file_name("tub-facade.jar"), out.join("tub-facade.jar")),
        ] {
            fs::copy(&from, &to)
                .map_err(|e| format!("TUB_SHIM_JAR: {}: cannot copy: {e}", from.display()))?;
        }
        return Ok(());
    }
    let jdk = jdk().ok_or_else(|| {
        format!(
            "no JDK found to compile the Java shim with: set JAVA_HOME to a JDK {RELEASE} or \
             later, or TUB_SHIM_JAR to a ready tub-shim.jar"
        )
    })?;

    let classes = out.join("classes");
    if classes.exists() {
        fs::remove_dir_all(&classes).map_err(|e| format!("{}: {e}", classes.display()))?;
    }
    let mut sources = Vec::new();
    java_files(&shim.join("src"), &mut sources)?;
    // What the stubs stand for is in the JDK; they are compiled against and left out of the jar.
    java_files(&shim.join("stubs"), &mut sources)?;
    sources.sort();
    run(Command::new(jdk.join("bin/javac"))
        .args(["-Xlint:all", "-Werror", "-encoding", "UTF-8", "-g", "--release", RELEASE, "-d"])
        .arg(&classes)
        .args(&sources))?;
    run(Command::new(jdk.join("bin/jar"))
        // Not compressed: where it must not be on the class path the agent takes it apart itself.
        .args([
            "--create",
            "--no-compress",
            "--no-manifest",
            "--date",
            "2026-01-01T00:00:00Z",
            "--file",
        ])
        .arg(&jar)
        .args([OsStr::new("-C"), shim.join("resources").as_os_str(), OsStr::new("META-INF")])
        .args([OsStr::new("-C"), classes.as_os_str(), OsStr::new("javax")])
        .args([OsStr::new("-C"), classes.as_os_str(), OsStr::new("jdk")])
        .args([OsStr::new("-C"), classes.as_os_str(), OsStr::new("tubthumping")]))?;

    let facade_classes = out.join("facade-classes");
    if facade_classes.exists() {
        fs::remove_dir_all(&facade_classes)
            .map_err(|e| format!("{}: {e}", facade_classes.display()))?;
    }
    let mut sources = Vec::new();
    java_files(&facade.join("src"), &mut sources)?;
    sources.sort();
    run(Command::new(jdk.join("bin/javac"))
        .args(["-Xlint:all", "-Werror", "-encoding", "UTF-8", "-g", "--release", RELEASE, "-cp"])
        .arg(&classes)
        .arg("-d")
        .arg(&facade_classes)
        .args(&sources))?;
    run(Command::new(jdk.join("bin/jar"))
        .args(["--create", "--no-manifest", "--date", "2026-01-01T00:00:00Z", "--file"])
        .arg(out.join("tub-facade.jar"))
        .args([OsStr::new("-C"), facade_classes.as_os_str(), OsStr::new("org")]))
}

/// The first directory that has a Java compiler.
fn jdk() -> Option<PathBuf> {
    let has_javac = |home: &PathBuf| home.join("bin/javac").is_file();
    let named = env::var_os("JAVA_HOME").map(PathBuf::from).filter(has_javac);
    let on_path = || {
        let path = env::var_os("PATH")?;
        // `/usr/bin/javac` is a link to a link to the real one.
        env::split_paths(&path)
            .filter_map(|directory| directory.join("javac").canonicalize().ok())
            .filter_map(|javac| Some(javac.parent()?.parent()?.to_owned()))
            .find(has_javac)
    };
    let installed = || {
        let entries = fs::read_dir("/usr/lib/jvm").ok()?;
        let mut homes: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        homes.sort();
        homes.into_iter().find(has_javac)
    };
    named.or_else(on_path).or_else(installed)
}

fn java_files(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let failed = |e| format!("{}: cannot list: {e}", directory.display());
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            java_files(&path, files)?;
        } else if path.extension() == Some(OsStr::new("java")) {
            files.push(path);
        }
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{program}: cannot run: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("{program}: {}\n{}", output.status, String::from_utf8_lossy(&said)))
}
