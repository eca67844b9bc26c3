//! The services that the demo knocks down.
//!
//! In: tools and a place to work in. Out: command lines and the answer that proves they work.
//! Invariant: neither service contains a line written for Tubthumping.
//! Not here: running them.

use crate::failure::{Failure, Result};
use crate::layout::{Layout, open_to_all, root};
use crate::process::{run_quietly, step};
use crate::setup::{Jdk, need_maven};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// A service that can be started.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    /// For people and for `--json`.
    pub(crate) name: String,
    /// The JDK that runs it, if any.
    pub(crate) jdk: Option<Jdk>,
    /// Its command line, without us.
    pub(crate) command: Vec<OsString>,
    /// Whether it is started with `tub run`, that is, takes part in its checkpoint.
    pub(crate) coordinated: bool,
    /// The body of a correct answer.
    pub(crate) expect: &'static str,
    /// SHA-256 of the file that is the application.
    pub(crate) sha256: String,
}

/// The Spring Boot service of `examples/spring-boot`, built with Maven.
pub(crate) fn spring_boot(jdk: &Jdk, scratch: &Path) -> Result<Service> {
    let project = root().join("examples/spring-boot");
    let jar = project.join("target/greetings-1.0.0.jar");
    if !is_newer(&jar, &project) {
        need_maven()?;
        step("building the Spring Boot service with Maven", || {
            let mut maven = Command::new("mvn");
            maven.args(["--batch-mode", "--quiet", "--no-transfer-progress", "-DskipTests"]);
            maven.arg("package").current_dir(&project).env("JAVA_HOME", &jdk.home);
            run_quietly(&mut maven).map(drop)
        })?;
    }
    let copy = install(&jar, scratch)?;
    Ok(Service {
        name: format!("Spring Boot {} (embedded Tomcat)", spring_boot_version(&project)?),
        jdk: Some(jdk.clone()),
        command: vec![jdk.java().into(), "-jar".into(), copy.clone().into()],
        coordinated: true,
        expect: "Greetings from Spring Boot!",
        sha256: sha256(&copy)?,
    })
}

/// The native service of `examples/native-service`.
pub(crate) fn native(layout: &Layout) -> Result<Service> {
    let program = layout.native_service();
    Ok(Service {
        name: "native-service (multi-threaded Rust, std only)".to_owned(),
        jdk: None,
        sha256: sha256(&program)?,
        command: vec![program.into()],
        coordinated: false,
        expect: "Greetings from 5761455 primes!",
    })
}

/// Whether `product` is younger than every source of `project`.
fn is_newer(product: &Path, project: &Path) -> bool {
    let age = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let Some(built) = age(product) else { return false };
    let newest = newest_source(&project.join("src")).max(age(&project.join("pom.xml")));
    newest.is_some_and(|newest| newest < built)
}

fn newest_source(dir: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(dir).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    entries
        .filter_map(|path| {
            if path.is_dir() {
                newest_source(&path)
            } else {
                fs::metadata(path).ok()?.modified().ok()
            }
        })
        .max()
}

fn spring_boot_version(project: &Path) -> Result<String> {
    let pom = project.join("pom.xml");
    let text = fs::read_to_string(&pom).map_err(|error| Failure::io("read", &pom, &error))?;
    text.split_once("<artifactId>spring-boot-starter-parent</artifactId>")
        .and_then(|(_, rest)| rest.split_once("<version>")?.1.split_once("</version>"))
        .map(|(version, _)| version.to_owned())
        .ok_or_else(|| Failure::new(format!("{}: names no Spring Boot version", pom.display())))
}

fn install(file: &Path, scratch: &Path) -> Result<PathBuf> {
    let name = file.file_name().expect("a jar has a name");
    let copy = scratch.join(name);
    fs::copy(file, &copy).map_err(|error| Failure::io("copy", file, &error))?;
    open_to_all(&copy)?;
    Ok(copy)
}

fn sha256(file: &Path) -> Result<String> {
    let line = run_quietly(Command::new("sha256sum").arg(file))?;
    Ok(line.split_whitespace().next().unwrap_or_default().to_owned())
}
