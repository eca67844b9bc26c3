//! Where things are, and `cargo xtask build`, which puts the product together.
//!
//! In: the sources. Out: `target/tub/{bin,lib}`, as a user would install it.
//! Invariant: `tub` and the prober are static, so that they start fast and run everywhere.
//! Not here: archives (`dist`).

use crate::failure::{Failure, Result};
use crate::process::{run_quietly, step};
use crate::setup;
use serde_json::Value;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The only target until the `arch` twins of aarch64 do more than refuse.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the root of the checkout")
        .to_path_buf()
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// A cargo of the toolchain that runs us, in the root of the checkout.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The product as it is installed.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// `bin/` and `lib/` lie in it.
    pub(crate) dir: PathBuf,
}

impl Layout {
    /// Where `build` puts it.
    pub(crate) fn built() -> Self {
        Self { dir: target_dir().join("tub") }
    }

    pub(crate) fn tub(&self) -> PathBuf {
        self.dir.join("bin/tub")
    }

    pub(crate) fn prober(&self) -> PathBuf {
        self.dir.join("bin/tub-prober")
    }

    pub(crate) fn ballast(&self) -> PathBuf {
        self.dir.join("bin/tub-ballast")
    }

    pub(crate) fn native_service(&self) -> PathBuf {
        self.dir.join("bin/native-service")
    }
}

/// Builds the product, with the Java part if there is a JDK to compile it.
pub(crate) fn build(java_home: Option<&Path>) -> Result<Layout> {
    let layout = Layout::built();
    for dir in [layout.dir.join("bin"), layout.dir.join("lib")] {
        fs::create_dir_all(&dir).map_err(|error| Failure::io("create", &dir, &error))?;
        open_to_all(&dir)?;
    }
    open_to_all(&layout.dir)?;
    step("building tub, the prober and the native example", || build_static(&layout))?;
    step("building the library for C", || build_c_library(&layout))?;
    if let Some(home) = java_home {
        step("building the Java agent", || build_agent(&layout, home))?;
    }
    Ok(layout)
}

/// Adds what a demo does without: the packages for other languages, and the engine for CRaC JDKs.
pub(crate) fn build_packages(layout: &Layout) -> Result<()> {
    step("building the engine for CRaC JDKs", || build_crac_engine(layout))?;
    match setup::need_node() {
        Ok(()) => step("building the package for Node.js", || build_node(layout))?,
        Err(error) => println!("skipped: the package for Node.js: {error}"),
    }
    match setup::need_python() {
        Ok(python) => step("building the wheel for Python", || build_wheel(layout, &python))?,
        Err(error) => println!("skipped: the wheel for Python: {error}"),
    }
    Ok(())
}

fn build_static(layout: &Layout) -> Result<()> {
    let packages = ["tub-cli", "tub-bench", "native-service"];
    let mut command = cargo();
    command.args(["build", "--release", "--quiet", "--bins", "--target", TARGET]);
    for package in packages {
        command.args(["--package", package]);
    }
    command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    run_quietly(&mut command)?;
    let release = target_dir().join(TARGET).join("release");
    for name in ["tub", "tub-prober", "tub-ballast", "native-service"] {
        install(&release.join(name), &layout.dir.join("bin").join(name))?;
    }
    Ok(())
}

/// `lib/libtubthumping.so` and `.a`, `include/tub.h`, and what pkg-config reads.
fn build_c_library(layout: &Layout) -> Result<()> {
    run_quietly(cargo().args(["build", "--release", "--quiet", "--package", "tubthumping-c"]))?;
    let release = target_dir().join("release");
    let include = layout.dir.join("include");
    let pkgconfig = layout.dir.join("lib/pkgconfig");
    for dir in [&include, &pkgconfig] {
        fs::create_dir_all(dir).map_err(|error| Failure::io("create", dir, &error))?;
        open_to_all(dir)?;
    }
    for ending in ["so", "a"] {
        let built = release.join(format!("libtubthumping_c.{ending}"));
        install(&built, &layout.dir.join(format!("lib/libtubthumping.{ending}")))?;
    }
    let sources = root().join("bindings/c");
    install(&sources.join("include/tub.h"), &include.join("tub.h"))?;
    let template = sources.join("tubthumping.pc.in");
    let text =
        fs::read_to_string(&template).map_err(|error| Failure::io("read", &template, &error))?;
    let path = pkgconfig.join("tubthumping.pc");
    fs::write(&path, text.replace("@VERSION@", env!("CARGO_PKG_VERSION")))
        .map_err(|error| Failure::io("write", &path, &error))?;
    open_to_all(&path)
}

/// `lib/libtubengine.so`, which finds `bin/tub` beside it.
fn build_crac_engine(layout: &Layout) -> Result<()> {
    run_quietly(cargo().args(["build", "--release", "--quiet", "--package", "tub-crlib"]))?;
    let built = target_dir().join("release/libtub_crlib.so");
    install(&built, &layout.dir.join("lib/libtubengine.so"))
}

/// `node/tubthumping`, a package with its addon.
fn build_node(layout: &Layout) -> Result<()> {
    run_quietly(cargo().args(["build", "--release", "--quiet", "--package", "tubthumping-node"]))?;
    let package = layout.dir.join("node/tubthumping");
    copy_tree(&root().join("bindings/node/package"), &package)?;
    open_to_all(&layout.dir.join("node"))?;
    let addon = target_dir().join("release/libtubthumping_node.so");
    install(&addon, &package.join("tubthumping.node"))
}

/// `python/tubthumping-….whl`, around the library for C.
fn build_wheel(layout: &Layout, python: &Path) -> Result<()> {
    let dir = layout.dir.join("python");
    fs::create_dir_all(&dir).map_err(|error| Failure::io("create", &dir, &error))?;
    open_to_all(&dir)?;
    let script = "import sys, build_backend; build_backend.build_wheel(sys.argv[1])";
    let mut command = Command::new(python);
    command.current_dir(root().join("bindings/python")).args(["-B", "-c", script]).arg(&dir);
    command.env("TUBTHUMPING_LIBRARY", layout.dir.join("lib/libtubthumping.so"));
    run_quietly(&mut command).map(drop)
}

fn build_agent(layout: &Layout, java_home: &Path) -> Result<()> {
    let mut command = cargo();
    command.args(["build", "--release", "--package", "tub-java-agent"]);
    command.args(["--message-format", "json-render-diagnostics", "--quiet"]);
    command.env("JAVA_HOME", java_home);
    let messages = run_quietly(&mut command)?;
    let mut library = None;
    let mut jar = None;
    for message in messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let id = message["package_id"].as_str().unwrap_or_default();
        if !id.contains("bindings/java/agent") {
            continue;
        }
        match message["reason"].as_str() {
            Some("compiler-artifact") => {
                let files = message["filenames"].as_array().into_iter().flatten();
                library = files
                    .filter_map(Value::as_str)
                    .find(|file| file.ends_with(".so"))
                    .map(PathBuf::from)
                    .or(library);
            }
            Some("build-script-executed") => {
                jar = message["out_dir"].as_str().map(|dir| Path::new(dir).join("tub-shim.jar"));
            }
            _ => {}
        }
    }
    let library =
        library.ok_or_else(|| Failure::new("tub-java-agent: cargo built no shared library"))?;
    install(&library, &layout.dir.join("lib/libtub_java_agent.so"))?;
    if let Some(jar) = jar.filter(|jar| jar.exists()) {
        install(&jar, &layout.dir.join("lib/tub-shim.jar"))?;
        install(&jar.with_file_name("tub-facade.jar"), &layout.dir.join("lib/tub-facade.jar"))?;
    }
    Ok(())
}

/// Copies aside and renames: an instance that runs the old file keeps it.
fn install(from: &Path, to: &Path) -> Result<()> {
    let aside = to.with_extension("new");
    fs::copy(from, &aside).map_err(|error| Failure::io("copy", from, &error))?;
    open_to_all(&aside)?;
    fs::rename(&aside, to).map_err(|error| Failure::io("rename", &aside, &error))
}

/// Lets every user read it, and run it if its owner may.
pub(crate) fn open_to_all(path: &Path) -> Result<()> {
    let metadata = fs::metadata(path).map_err(|error| Failure::io("stat", path, &error))?;
    let owner = metadata.permissions().mode() & 0o700;
    let mode = owner | (owner >> 3 | owner >> 6) & 0o055;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|error| Failure::io("change mode of", path, &error))
}

/// Copies a directory of plain files and directories, readable by every user.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).map_err(|error| Failure::io("create", to, &error))?;
    open_to_all(to)?;
    let entries = fs::read_dir(from).map_err(|error| Failure::io("list", from, &error))?;
    for entry in entries {
        let entry = entry.map_err(|error| Failure::io("list", from, &error))?;
        let (source, copy) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_tree(&source, &copy)?;
        } else {
            fs::copy(&source, &copy).map_err(|error| Failure::io("copy", &source, &error))?;
            open_to_all(&copy)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_for_all() {
        let path = env::temp_dir().join(format!("xtask-mode-{}", std::process::id()));
        fs::write(&path, "").unwrap();
        for (before, after) in [(0o600, 0o644), (0o700, 0o755), (0o400, 0o444)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(before)).unwrap();
            open_to_all(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, after);
        }
        fs::remove_file(&path).unwrap();
    }
}
