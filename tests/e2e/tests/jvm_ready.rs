//! Being ready for a checkpoint that never comes: archives of classes are used as without us.

use crate::jdk::Jdk;
use crate::jvm::{Service, copied_classes, on_each_jdk};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tub_testkit::{Finished, Flavour, Scratch, Tub, User, agent, as_user, run_bounded};

/// The first JDK whose ahead-of-time cache is made by one option (JEP 514).
const AOT_SINCE: u32 = 25;

/// A program in a jar, which ends with the status 7.
struct Packed {
    dir: Arc<Scratch>,
    jar: PathBuf,
    java: PathBuf,
}

impl Packed {
    fn new(jdk: &Jdk) -> Self {
        let dir = Arc::new(Scratch::new(User::Ordinary));
        let classes = copied_classes(jdk, &dir);
        let jar = dir.join("service.jar");
        let mut command = Command::new(jdk.home.join("bin/jar"));
        command.arg("--create").arg("--file").arg(&jar).arg("-C").arg(classes).arg(".");
        run_bounded(command, Duration::from_secs(60)).succeeds();
        dir.give(&jar);
        Self { dir, jar, java: jdk.java() }
    }

    /// Runs it, by `tub run` or as anybody would, and gives the lines about loaded classes as well.
    fn run(&self, with_us: bool, options: &[&str]) -> (Finished, String) {
        let loaded = self.dir.join("loaded.log");
        let mut command = if with_us {
            Tub::new(User::Ordinary, "run").arg("--").arg(&self.java).command()
        } else {
            as_user(User::Ordinary, &self.java)
        };
        command.arg(format!("-Xlog:class+load:file={}", loaded.display())).args(options);
        command.arg("-cp").arg(&self.jar).arg("Service$Farewell");
        command.env("HOME", self.dir.path()).env("TMPDIR", self.dir.path());
        command.current_dir(self.dir.path());
        if let Some(agent) = agent() {
            command.env("TUB_AGENT", agent);
        }
        let finished = run_bounded(command, Duration::from_secs(120));
        assert_eq!(finished.status.code(), Some(7), "{finished}");
        (finished, fs::read_to_string(loaded).unwrap())
    }
}

/// How many classes came from an archive.
fn shared(loaded: &str) -> usize {
    loaded.lines().filter(|line| line.contains("source: shared objects file")).count()
}

/// Whether the program's own class did.
fn is_of_archive(loaded: &str) -> bool {
    let is_main = |line: &&str| line.contains(" Service$Farewell source:");
    loaded.lines().find(is_main).is_some_and(|line| line.contains("shared objects file"))
}

#[test]
fn the_jdks_own_archive_is_used_as_without_us() {
    on_each_jdk(|jdk| {
        let packed = Packed::new(jdk);
        let (without, with) = (
            packed.run(false, &["-Xshare:on"]).1,
            packed.run(true, &["-Xshare:on", "-Xlog:cds:file=cds.log"]).1,
        );
        assert!(shared(&without) > 300, "{without}");
        assert!(shared(&with) >= shared(&without), "{} and {}", shared(&with), shared(&without));
        let cds = fs::read_to_string(packed.dir.join("cds.log")).unwrap();
        assert!(cds.contains("full module graph: enabled"), "{cds}");
    });
}

#[test]
fn an_applications_archive_is_used_as_without_us() {
    on_each_jdk(|jdk| {
        let packed = Packed::new(jdk);
        packed.run(false, &["-XX:ArchiveClassesAtExit=app.jsa"]);
        let options = ["-XX:SharedArchiveFile=app.jsa"];
        let (without, with) = (packed.run(false, &options).1, packed.run(true, &options).1);
        assert!(is_of_archive(&without), "the archive is of no use: {without}");
        assert!(is_of_archive(&with), "{with}");
        assert!(shared(&with) >= shared(&without), "{} and {}", shared(&with), shared(&without));
    });
}

#[test]
fn an_ahead_of_time_cache_is_used_and_made_as_without_us() {
    on_each_jdk(|jdk| {
        if jdk.version < AOT_SINCE {
            return;
        }
        let packed = Packed::new(jdk);
        // Whoever trains it: its maker may be ready for a checkpoint, or not.
        for maker in [false, true] {
            let cache = packed.dir.join("app.aot");
            let made = packed.run(maker, &["-XX:AOTCacheOutput=app.aot"]).0;
            assert!(cache.exists(), "{made}");
            // `on`: ends with an error where it cannot be used.
            let options = ["-XX:AOTCache=app.aot", "-XX:AOTMode=on", "-Xlog:aot:file=aot.log"];
            let (without, with) = (packed.run(false, &options).1, packed.run(true, &options).1);
            assert!(is_of_archive(&without) && is_of_archive(&with), "{without}\n{with}");
            assert!(shared(&with) >= shared(&without), "{maker}: {without}\n{with}");
            let aot = fs::read_to_string(packed.dir.join("aot.log")).unwrap();
            assert!(aot.contains("Using AOT-linked classes: true"), "{aot}");
            fs::remove_file(cache).unwrap();
        }
    });
}

/// The agent's classes come another way then, from the first to the last.
#[test]
fn a_service_with_an_archive_gets_up() {
    on_each_jdk(|jdk| {
        let options: [&str; 2] = ["-Xshare:auto", "-XX:SharedArchiveFile=/no/such.jsa"];
        let mut original = Service::start_on(User::Ordinary, jdk, "plain", (&[], &options, &[]));
        assert_eq!(original.ask("/restored"), "-1");
        let image = original.image("image");
        original.instance.checkpoint_and_end(&image);
        let mut copy = original.restore(&image, Flavour::USUAL);
        copy.is_well();
        assert_eq!(copy.ask("/told"), "before server\nafter server\n");
        assert_ne!(copy.ask("/restored"), "-1");
        let second = copy.image("second");
        copy.instance.checkpoint_and_end(&second);
        copy.restore(&second, Flavour::USUAL).is_well();
    });
}
