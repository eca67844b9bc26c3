//! CRaC's own command lines, on a directory that `tub jdk` has made.

use crate::http::{first_answer, free_port, get};
use crate::jdk::Jdk;
use crate::jvm::{copied_classes, on_each_jdk, on_each_jdk_and_21, unix_ms};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tub_testkit::{
    Finished, Instance, Scratch, Tub, User, agent, as_user, code, run_bounded, wait_for,
};

/// A CRaC JDK in a directory of the user's, and a service for it.
pub(crate) struct Crac {
    pub(crate) dir: Arc<Scratch>,
    pub(crate) home: PathBuf,
    pub(crate) classes: PathBuf,
    user: User,
    /// What a shell does before it starts a program.
    before: Option<String>,
}

impl Crac {
    pub(crate) fn make(jdk: &Jdk) -> Self {
        Self::make_as(User::Ordinary, jdk)
    }

    /// The same, as `user`.
    pub(crate) fn make_as(user: User, jdk: &Jdk) -> Self {
        let dir = Arc::new(Scratch::new(user));
        let home = dir.join("jdk");
        Tub::new(user, "jdk").arg(&jdk.home).arg(&home).run().succeeds();
        let classes = copied_classes(jdk, &dir);
        Self { dir, home, classes, user, before: None }
    }

    /// Has a shell do something before each program is started: `exec 9>file`.
    pub(crate) fn after(mut self, shell: &str) -> Self {
        self.before = Some(format!("{shell}; exec \"$@\""));
        self
    }

    pub(crate) fn program(&self, name: &str) -> Command {
        let program = self.home.join("bin").join(name);
        let mut command = match &self.before {
            None => as_user(self.user, &program),
            Some(script) => {
                let mut command = as_user(self.user, Path::new("/bin/sh"));
                command.args(["-c", script, "sh"]).arg(&program);
                command
            }
        };
        command.env("HOME", self.dir.path()).env("TMPDIR", self.dir.path());
        command.current_dir(self.dir.path());
        if let Some(agent) = agent() {
            command.env("TUB_AGENT", agent);
        }
        command
    }

    pub(crate) fn java(&self, words: &[&str]) -> Finished {
        let mut command = self.program("java");
        command.args(words);
        run_bounded(command, Duration::from_secs(60))
    }

    /// A service with options of CRaC's, on a port of its own.
    pub(crate) fn service(&self, options: &[&str], mode: &str) -> (Instance, u16) {
        let port = free_port();
        let mut command = self.program("java");
        command.args(options).args(["-Xmx256m", "-cp"]).arg(&self.classes);
        command.args(["Service", &port.to_string(), mode]).arg(self.dir.join("left-open.log"));
        let ready = |_: &str| get(port, "/").is_ok().then_some(());
        (Instance::start("crac jdk", &self.dir, command, ready), port)
    }

    pub(crate) fn jcmd(&self, pid: i32) -> Finished {
        self.jcmd_with(pid, &[])
    }

    pub(crate) fn jcmd_with(&self, pid: i32, words: &[&str]) -> Finished {
        let mut command = self.program("jcmd");
        command.args([&pid.to_string(), "JDK.checkpoint"]).args(words);
        run_bounded(command, Duration::from_secs(60))
    }
}

#[test]
fn documented_command_lines_work_as_they_stand() {
    on_each_jdk_and_21(|jdk| {
        let crac = Crac::make(jdk);
        // The directory from the command line, the variable, and a file.
        let file = crac.dir.join("options");
        std::fs::write(&file, "-XX:CRaCCheckpointTo=cr # where it goes\n").unwrap();
        let (mut original, port) = crac.service(&[&format!("@{}", file.display())], "plain");
        assert_eq!(first_answer(port, "/count").as_deref(), Some("1"));
        crac.jcmd(original.pid()).succeeds();
        // 137, as a shell calls it.
        let status = original.wait();
        assert_eq!(status.signal(), Some(9), "{status}");

        // Goes on where it stood.
        let other = free_port();
        let mut command = crac.program("java");
        command.args(["-XX:CRaCRestoreFrom=cr", "-Dgreeting=x"]);
        command.env("SERVICE_PORT", other.to_string());
        let ready = |_: &str| get(other, "/").is_ok().then_some(());
        let copy = Instance::start("crac jdk restored", &crac.dir, command, ready);
        assert_eq!(first_answer(other, "/count").as_deref(), Some("2"));
        // What a shell knows of it is the id of the command that has brought it back.
        let mut version = crac.program("jcmd");
        version.args([&copy.pid().to_string(), "VM.version"]);
        let version = run_bounded(version, Duration::from_secs(60)).succeeds();
        assert!(version.stdout.contains(&format!("JDK {}", jdk.version)), "{version}");
        drop(copy);

        // Another main class, and its exit status.
        let words = ["-XX:CRaCRestoreFrom=cr", "-Dwhom=all", "Service$Farewell", "a b"];
        let finished = crac.java(&words);
        assert_eq!(finished.status.code(), Some(7), "{finished}");
        assert!(finished.stdout.contains("farewell a b to all"), "{finished}");
    });
}

#[test]
fn jcmd_has_the_full_text_of_a_refusal() {
    on_each_jdk(|jdk| {
        let crac = Crac::make(jdk);
        let (original, port) = crac.service(&["-XX:CRaCCheckpointTo=cr"], "file");
        crac.jcmd(original.pid()).fails_with(code::REFUSED, &["left-open.log"]);
        assert_eq!(first_answer(port, "/").as_deref(), Some("hello"));
        assert!(!crac.dir.join("cr").exists());
    });
}

/// From the places where containers and build files have them, to an image whose name is made when it
/// is taken.
#[test]
fn options_stand_in_variables_and_files_and_an_image_is_named_late() {
    on_each_jdk(|jdk| {
        let crac = Crac::make(jdk);
        let flags = crac.dir.join("flags");
        std::fs::write(&flags, "# as ever\n+UseSerialGC\nCRaCCheckpointTo=cr-%03g-%T-%%\n")
            .unwrap();
        let port = free_port();
        let mut command = crac.program("java");
        command.env("JAVA_TOOL_OPTIONS", "-XX:CRaCEngineOptions=keep_running=true -Dfrom=variable");
        command.arg(format!("-XX:Flags={}", flags.display())).arg("-XX:CheckCPUFeatures=exact");
        command.env("RELEASE", "7").env("_JAVA_OPTIONS", "-XX:CRaCImageLabels=release=$RELEASE");
        command.args(["-Xmx256m", "-cp"]).arg(&crac.classes).arg("Service");
        command.args([&port.to_string(), "plain"]);
        let ready = |_: &str| get(port, "/").is_ok().then_some(());
        let original = Instance::start("crac jdk", &crac.dir, command, ready);
        let before = unix_ms() / 1000;
        crac.jcmd_with(original.pid(), &["labels=stage=test", "metrics=warm=0.5"]).succeeds();
        // It has been left running, and is in its first generation still.
        assert_eq!(first_answer(port, "/").as_deref(), Some("hello"));
        let names = std::fs::read_dir(crac.dir.path()).unwrap().flatten();
        let mut names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let name = names.find(|name| name.starts_with("cr-001-")).expect("no image");
        let taken: u128 = name["cr-001-".len()..].trim_end_matches("-%").parse().unwrap();
        assert!((before..=unix_ms() / 1000).contains(&taken), "{name}");
        drop(original);
        let other = free_port();
        let mut command = crac.program("java");
        let from = format!("-XX:CRaCRestoreFrom={name}");
        let seen = Tub::new(User::Ordinary, "inspect").arg(crac.dir.join(&name)).run().succeeds();
        for words in ["release=7", "stage=test", "warm=0.5"] {
            assert!(seen.stdout.contains(words), "no {words:?}: {seen}");
        }
        let words = [from.as_str(), "-XX:CRaCRequiredImageLabels=stage=production"];
        crac.java(&words).fails_with(code::BAD_IMAGE, &["label stage is test in the image"]);
        command.args([&from, "-XX:CRaCRequiredImageLabels=stage=test,release=7"]);
        command.arg("-XX:CheckCPUFeatures=exact");
        command.env("SERVICE_PORT", other.to_string());
        let ready = |_: &str| get(other, "/").is_ok().then_some(());
        let copy = Instance::start("crac jdk restored", &crac.dir, command, ready);
        crac.jcmd(copy.pid()).succeeds();
        let names = std::fs::read_dir(crac.dir.path()).unwrap().flatten();
        let mut names = names.filter_map(|entry| entry.file_name().into_string().ok());
        assert!(names.any(|name| name.starts_with("cr-002-")), "no image of the copy");
    });
}

#[test]
fn a_checkpoint_that_is_skipped_tells_the_application() {
    on_each_jdk(|jdk| {
        let crac = Crac::make(jdk);
        let options = ["-XX:CRaCCheckpointTo=cr", "-XX:+CRaCSkipCheckpoint"];
        let (original, port) = crac.service(&options, "plain");
        let told = crac.jcmd(original.pid()).succeeds();
        assert!(told.stdout.contains("there is no image"), "{told}");
        let told = || first_answer(port, "/told").filter(|told| told.contains("after server"));
        let told = wait_for(Duration::from_secs(30), told);
        assert_eq!(told.as_deref(), Some("before server\nafter server\n"));
        assert!(!crac.dir.join("cr").exists());
    });
}

#[test]
fn files_below_an_allowed_prefix_may_stay_open() {
    on_each_jdk(|jdk| {
        let crac = Crac::make(jdk);
        let prefix =
            format!("-XX:CRaCAllowedOpenFilePrefixes={}", crac.dir.join("left-").display());
        let (mut original, _) = crac.service(&["-XX:CRaCCheckpointTo=cr", &prefix], "file");
        crac.jcmd(original.pid()).succeeds();
        original.wait();
        assert!(crac.dir.join("cr").is_dir());
    });
}

#[test]
fn the_stock_jdk_shines_through() {
    on_each_jdk(|jdk| {
        let crac = Crac::make(jdk);
        let version = crac.java(&["-version"]).succeeds();
        assert!(version.stderr.contains("Server VM"), "{version}");
        let listed = crac.program("javac").arg("-version").output().unwrap();
        assert!(listed.status.success(), "{listed:?}");
        // What cannot be had is said, and nothing is started.
        let words = ["-XX:+CRaCCPUCountInit", "-version"];
        crac.java(&words).fails_with(1, &["'CRaCCPUCountInit' cannot be had"]);
        let words = ["-XX:CRaCRestoreFrom=cr", "-Xmx1g"];
        crac.java(&words).fails_with(1, &["is not restore-settable"]);
        crac.java(&["-XX:CRaCRestoreFrom=no-such"]).fails_with(code::BAD_IMAGE, &["no-such"]);
        let help = crac.java(&["-XX:CRaCEngineOptions=help=pid"]).succeeds();
        assert_eq!(help.stdout, "pids=keep|new\n    ids of a copy (default: keep)\n");
        // Unless a start is as good.
        let words =
            ["-XX:CRaCRestoreFrom=no-such", "-XX:+CRaCIgnoreRestoreIfUnavailable", "-version"];
        let version = crac.java(&words).succeeds();
        assert!(version.stderr.contains("starting anew"), "{version}");
        assert!(version.stderr.contains("Server VM"), "{version}");
    });
}

/// CRaC's engine for trying out both sides without an image, from outside and by either of its names.
#[test]
fn an_engine_that_pauses_has_the_same_process_go_on() {
    on_each_jdk(|jdk| {
        let crac = Crac::make(jdk);
        let ways = [
            &["-XX:CRaCEngine=pauseengine"][..],
            &["-XX:CRaCEngine=simengine", "-XX:CRaCEngineOptions=pause=true"],
        ];
        for options in ways {
            let options = [&["-XX:CRaCCheckpointTo=cr"], options].concat();
            let (mut original, port) = crac.service(&options, "plain");
            assert_eq!(first_answer(port, "/count").as_deref(), Some("1"));
            crac.jcmd_with(original.pid(), &["labels=stage=canary"]).succeeds();
            let stat = std::fs::read_to_string(original.process().proc("stat")).unwrap();
            assert!(stat.contains(") T "), "{stat}");
            let other = ["-XX:CRaCRestoreFrom=cr", "-XX:CRaCRequiredImageLabels=stage=live"];
            assert!(crac.java(&other).stderr.contains("stage"));

            let port = free_port();
            let mut command = crac.program("java");
            command.args(["-XX:CRaCRestoreFrom=cr", "-XX:CRaCRequiredImageLabels=stage=canary"]);
            command.arg("-XX:+CRaCIgnoreRestoreIfUnavailable");
            command.env("SERVICE_PORT", port.to_string());
            let ready = |_: &str| get(port, "/").is_ok().then_some(());
            let mut copy = Instance::start("crac jdk restored", &crac.dir, command, ready);
            assert_eq!(first_answer(port, "/count").as_deref(), Some("2"));
            assert_eq!(first_answer(port, "/work").as_deref(), Some("1088890"));
            assert_eq!(first_answer(port, "/pid"), Some(original.pid().to_string()));
            let once = crac.java(&["-XX:CRaCRestoreFrom=cr"]);
            once.fails_with(code::BAD_IMAGE, &["restored already"]);

            // The next generation, in the same place; this time with another main class, whose exit
            // status both commands have.
            crac.jcmd(original.pid()).succeeds();
            let words = ["-XX:CRaCRestoreFrom=cr", "-Dwhom=all", "Service$Farewell", "a b"];
            let finished = crac.java(&words);
            assert_eq!(finished.status.code(), Some(7), "{finished}\n{}", original.tell());
            assert!(original.output().contains("farewell a b to all"), "{}", original.tell());
            assert_eq!(copy.ends_within(Duration::from_secs(30)).and_then(|it| it.code()), Some(7));
            original.wait();
        }
    });
}

/// A pause that is over is no image, and no reason to fail where the program may be started instead.
#[test]
fn a_pause_that_is_over_is_passed_over_where_that_is_wished() {
    on_each_jdk(|jdk| {
        let crac = Crac::make(jdk);
        let options = ["-XX:CRaCCheckpointTo=cr", "-XX:CRaCEngine=pause"];
        let (mut original, _) = crac.service(&options, "plain");
        crac.jcmd(original.pid()).succeeds();
        original.process().signal(nix::sys::signal::Signal::SIGKILL);
        original.wait();
        let classes = crac.classes.display().to_string();
        let words = ["-XX:CRaCRestoreFrom=cr", "-XX:+CRaCIgnoreRestoreIfUnavailable"];
        let words = [&words[..], &["-cp", &classes, "Service$Farewell", "b"]].concat();
        let finished = crac.java(&words);
        assert!(finished.stderr.contains("has ended since it was paused"), "{finished}");
        assert_eq!(finished.status.code(), Some(7), "{finished}");
        let gone = crac.java(&["-XX:CRaCRestoreFrom=cr"]);
        gone.fails_with(code::NO_SUCH_PROCESS, &["has ended since it was paused"]);
    });
}
