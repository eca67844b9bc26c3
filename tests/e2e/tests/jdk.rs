//! The JDKs of this machine.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use tub_testkit::{jdk_21, skipped};

/// An installed JDK, compiler included.
#[derive(Clone, Debug)]
pub(crate) struct Jdk {
    /// Feature release: 17.
    pub(crate) version: u32,
    /// `JAVA_HOME`.
    pub(crate) home: PathBuf,
}

impl Jdk {
    /// Its launcher.
    pub(crate) fn java(&self) -> PathBuf {
        self.home.join("bin/java")
    }

    fn at(home: &Path) -> Option<Self> {
        let home = home.canonicalize().ok()?;
        let release = fs::read_to_string(home.join("release")).ok()?;
        let version = release.lines().find_map(|line| line.strip_prefix("JAVA_VERSION=\""))?;
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        home.join("bin/javac").exists().then_some(())?;
        Some(Self { version: digits.parse().ok()?, home })
    }
}

/// One JDK of each release that we test on, says so where one is missing; and 21 where there is one.
pub(crate) fn jdks() -> Vec<Jdk> {
    let installed = fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten();
    let homes =
        installed.map(|entry| entry.path()).chain(env::var_os("JAVA_HOME").map(PathBuf::from));
    let found: BTreeMap<u32, Jdk> =
        homes.filter_map(|home| Jdk::at(&home)).map(|jdk| (jdk.version, jdk)).collect();
    let wanted = [17, 25];
    for version in wanted.iter().filter(|version| !found.contains_key(version)) {
        skipped(&format!("no JDK {version} in /usr/lib/jvm or JAVA_HOME"));
    }
    let optional = [21];
    let versions = wanted.iter().chain(&optional);
    versions.filter_map(|version| found.get(version).cloned()).collect()
}

/// The same, and the 21 that is there for the tests alone where none is installed.
pub(crate) fn jdks_and_21() -> Vec<Jdk> {
    let mut jdks = jdks();
    if jdks.iter().all(|jdk| jdk.version != 21) {
        jdks.extend(jdk_21().and_then(|home| Jdk::at(&home)));
    }
    jdks
}
