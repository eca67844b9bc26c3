//! The example services on a JVM: one table, and one way to build and start them.
//!
//! In: `examples/services.toml`, a JDK. Out: their files, built; command lines.
//! Invariant: what is started is what Maven has built, byte for byte.
//! Not here: running them (`demo`, `bench`, `tests/e2e`).

use crate::failure::{Failure, Result};
use crate::layout::{copy_tree, open_to_all, root};
use crate::process::{progress, run_quietly, step};
use crate::setup::{self, Jdk, need_maven};
use serde::Deserialize;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// A service of the table. The keys are explained there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Example {
    pub(crate) name: String,
    title: String,
    artifact: String,
    jar: PathBuf,
    files: Option<PathBuf>,
    /// Feature releases that it runs on; the first builds it.
    pub(crate) jdks: Vec<u32>,
    open: Option<String>,
    #[serde(default)]
    jvm: Vec<String>,
    /// The whole body of the answer to `GET /` on port 8080.
    pub(crate) answer: String,
    /// Of the tests alone.
    #[expect(dead_code, reason = "the table is checked as a whole")]
    #[serde(default)]
    log: Vec<String>,
}

/// A copy of its files.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    jar: PathBuf,
    /// The jar, or a directory around it.
    files: PathBuf,
}

impl Installed {
    /// All that it runs from.
    pub(crate) fn files(&self) -> &Path {
        &self.files
    }

    /// SHA-256 of the jar; of the list of all files and theirs if it is more than a jar.
    pub(crate) fn sha256(&self) -> Result<String> {
        if !self.files.is_dir() {
            return sha256(&self.files);
        }
        let list = "find . -type f | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum";
        let line = run_quietly(Command::new("sh").args(["-c", list]).current_dir(&self.files))?;
        Ok(first_word(&line))
    }
}

/// SHA-256 of a file, in hexadecimal digits.
pub(crate) fn sha256(file: &Path) -> Result<String> {
    run_quietly(Command::new("sha256sum").arg(file)).map(|line| first_word(&line))
}

fn first_word(line: &str) -> String {
    line.split_whitespace().next().unwrap_or_default().to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    service: Vec<Example>,
}

/// All of them, in the order of the table.
pub(crate) fn all() -> Result<Vec<Example>> {
    let path = root().join("examples/services.toml");
    let text = fs::read_to_string(&path).map_err(|error| Failure::io("read", &path, &error))?;
    let table: Table = toml::from_str(&text)
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    Ok(table.service)
}

/// The one called `name`.
pub(crate) fn named(name: &str) -> Result<Example> {
    let examples = all()?;
    let names: Vec<&str> = examples.iter().map(|example| example.name.as_str()).collect();
    let unknown = Failure::new(format!("{name}: no such service"))
        .hint(format!("one of {}", names.join(", ")));
    examples.iter().find(|example| example.name == name).cloned().ok_or(unknown)
}

/// Builds all that can be built here; says of each other one why it cannot.
pub(crate) fn build_all() -> Result<()> {
    for example in all()? {
        if let Err(error) = example.build() {
            progress(&format!("examples/{} is not built: {error}", example.name));
        }
    }
    Ok(())
}

impl Example {
    fn project(&self) -> PathBuf {
        root().join("examples").join(&self.name)
    }

    /// Its title with the version in it.
    pub(crate) fn title(&self) -> Result<String> {
        let pom = self.project().join("pom.xml");
        let text = fs::read_to_string(&pom).map_err(|error| Failure::io("read", &pom, &error))?;
        let version = version_of(&self.artifact, &text).ok_or_else(|| {
            Failure::new(format!("{}: names no version of {}", pom.display(), self.artifact))
        })?;
        Ok(self.title.replace("{version}", version))
    }

    /// Why no instance of it can be on standby, if that is so.
    pub(crate) fn can_stand_by(&self) -> std::result::Result<(), String> {
        if self.open.as_deref() == Some("restore") {
            let why = "its listening socket is in the image: clients would wait at it for a parked instance";
            return Err(why.to_owned());
        }
        Ok(())
    }

    /// An installed JDK that it runs on, the wished one if there is a wish.
    pub(crate) fn jdk(&self, wished: Option<&Path>) -> Result<Jdk> {
        if let Some(home) = wished {
            return Jdk::at(home);
        }
        // The usual one as long as it will do.
        let usual = setup::need_jdk(None)?;
        if Jdk::release(&usual.home).is_some_and(|release| self.jdks.contains(&release)) {
            return Ok(usual);
        }
        let installed = setup::jdks(&self.jdks).into_iter().next();
        installed.map(|(_, jdk)| jdk).ok_or_else(|| {
            Failure::new(format!("examples/{}: needs a JDK of {:?}", self.name, self.jdks))
                .hint("install one below /usr/lib/jvm, or name it with JAVA_HOME")
        })
    }

    /// Builds it with Maven, unless it is younger than all its sources.
    pub(crate) fn build(&self) -> Result<()> {
        let project = self.project();
        if is_newer(&project.join(&self.jar), &project) {
            return Ok(());
        }
        need_maven()?;
        let oldest = setup::jdks(&self.jdks).into_iter().next();
        let jdk = oldest.map_or_else(|| self.jdk(None), |(_, jdk)| Ok(jdk))?;
        step(&format!("building examples/{} with Maven", self.name), || {
            let mut maven = Command::new("mvn");
            maven.args(["--batch-mode", "--quiet", "--no-transfer-progress", "-DskipTests"]);
            maven.arg("package").current_dir(&project).env("JAVA_HOME", &jdk.home);
            run_quietly(&mut maven).map(drop)
        })
    }

    /// Copies what it runs from to `dir`, readable by all.
    pub(crate) fn install(&self, dir: &Path) -> Result<Installed> {
        let files = self.files.as_ref().unwrap_or(&self.jar);
        let from = self.project().join(files);
        let name = from.file_name().expect("files have a name");
        let to = dir.join(name);
        if from.is_dir() {
            copy_tree(&from, &to)?;
        } else {
            fs::copy(&from, &to).map_err(|error| Failure::io("copy", &from, &error))?;
            open_to_all(&to)?;
        }
        let below = self.jar.strip_prefix(files).expect("the jar is among the files");
        // `join` with nothing would add a slash.
        let jar = if below.as_os_str().is_empty() { to.clone() } else { to.join(below) };
        Ok(Installed { jar, files: to })
    }

    /// What starts it, without us.
    pub(crate) fn command(&self, jdk: &Jdk, installed: &Installed) -> Vec<OsString> {
        let mut command: Vec<OsString> = vec![jdk.java().into()];
        command.extend(self.jvm.iter().map(OsString::from));
        command.extend(["-jar".into(), installed.jar.clone().into()]);
        command
    }

    /// For a JDK's ahead-of-time cache, which takes no classes from a jar within a jar: what `java` is
    /// told to take the jar apart below `dir`, as Spring Boot's reference documentation has it, and
    /// what comes of it. `None` where nothing is to be done.
    pub(crate) fn taken_apart(
        &self,
        installed: &Installed,
        dir: &Path,
    ) -> Option<(Vec<OsString>, Installed)> {
        if self.artifact != "spring-boot-starter-parent" {
            return None;
        }
        let mut words: Vec<OsString> = vec!["-Djarmode=tools".into(), "-jar".into()];
        words.push(installed.jar.clone().into());
        words.extend(["extract".into(), "--destination".into(), dir.into()]);
        let jar = dir.join(installed.jar.file_name()?);
        Some((words, Installed { jar, files: dir.to_path_buf() }))
    }

    /// Options of `tub run` that it needs.
    pub(crate) fn run_options(&self) -> Vec<OsString> {
        self.open.iter().flat_map(|open| ["--open".into(), open.into()]).collect()
    }
}

/// The version that a `pom.xml` gives an artifact, itself or by a property.
fn version_of<'a>(artifact: &str, pom: &'a str) -> Option<&'a str> {
    let between = |text: &'a str, from: &str, to: &str| {
        Some(text.split_once(from)?.1.split_once(to)?.0.trim())
    };
    let (_, rest) = pom.split_once(&format!("<artifactId>{artifact}</artifactId>"))?;
    let version = between(rest, "<version>", "</version>")?;
    match version.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
        Some(property) => between(pom, &format!("<{property}>"), "</"),
        None => Some(version),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_well_formed() {
        let examples = all().unwrap();
        for example in &examples {
            let title = example.title().unwrap();
            assert!(title.contains(|letter: char| letter.is_ascii_digit()), "{title}");
            assert!(example.project().join("src").is_dir(), "{}", example.name);
        }
        assert_eq!(named("quarkus").unwrap().name, "quarkus");
        assert!(named("cobol").unwrap_err().to_string().contains("no such service"));
    }

    #[test]
    fn a_version_may_be_a_property() {
        let pom =
            "<a.version>1.2</a.version><artifactId>a</artifactId><version>${a.version}</version>";
        assert_eq!(version_of("a", pom), Some("1.2"));
        assert_eq!(version_of("b", pom), None);
    }
}
