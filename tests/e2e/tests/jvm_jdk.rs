//! CRaC's own command lines, on a directory that `tub jdk` has made.

use crate::http::{first_answer, free_port, get};
use crate::jdk::Jdk;
use crate::jvm::{copied_classes, on_each_jdk};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tub_testkit::{Finished, Instance, Scratch, Tub, User, agent, as_user, code, run_bounded};

/// A CRaC JDK in a directory of the user's, and a service for it.
struct Crac {
    dir: Arc<Scratch>,
    home: PathBuf,
    classes: PathBuf,
}

impl Crac {
    fn make(jdk: &Jdk) -> Self {
        let dir = Arc::new(Scratch::new(User::Ordinary));
        let home = dir.join("jdk");
        Tub::new(User::Ordinary, "jdk").arg(&jdk.home).arg(&home).run().succeeds();
        let classes = copied_classes(jdk, &dir);
        Self { dir, home, classes }
    }

    fn program(&self, name: &str) -> Command {
        let mut command = as_user(User::Ordinary, &self.home.join("bin").join(name));
        command.env("HOME", self.dir.path()).env("TMPDIR", self.dir.path());
        command.current_dir(self.dir.path());
        if let Some(agent) = agent() {
            command.env("TUB_AGENT", agent);
        }
        command
    }

    fn java(&self, words: &[&str]) -> Finished {
        let mut command = self.program("java");
        command.args(words);
        run_bounded(command, Duration::from_secs(60))
    }

    /// A service with options of CRaC's, on a port of its own.
    fn service(&self, options: &[&str], mode: &str) -> (Instance, u16) {
        let port = free_port();
        let mut command = self.program("java");
        command.args(options).args(["-Xmx256m", "-cp"]).arg(&self.classes);
        command.args(["Service", &port.to_string(), mode]).arg(self.dir.join("left-open.log"));
        let ready = |_: &str| get(port, "/").is_ok().then_some(());
        (Instance::start("crac jdk", &self.dir, command, ready), port)
    }

    fn jcmd(&self, pid: i32) -> Finished {
        let mut command = self.program("jcmd");
        command.args([&pid.to_string(), "JDK.checkpoint"]);
        run_bounded(command, Duration::from_secs(60))
    }
}

#[test]
fn documented_command_lines_work_as_they_stand() {
    on_each_jdk(|jdk| {
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

#[test]
fn the_stock_jdk_shines_through() {
    on_each_jdk(|jdk| {
        let crac = Crac::make(jdk);
        let version = crac.java(&["-version"]).succeeds();
        assert!(version.stderr.contains("Server VM"), "{version}");
        let listed = crac.program("javac").arg("-version").output().unwrap();
        assert!(listed.status.success(), "{listed:?}");
        // What cannot be had is said, and nothing is started.
        let words = ["-XX:CRaCImageLabels=a=b", "-version"];
        crac.java(&words).fails_with(1, &["'CRaCImageLabels' cannot be had"]);
        let words = ["-XX:CRaCRestoreFrom=cr", "-Xmx1g"];
        crac.java(&words).fails_with(1, &["is not restore-settable"]);
        crac.java(&["-XX:CRaCRestoreFrom=no-such"]).fails_with(code::BAD_IMAGE, &["no-such"]);
        // Unless a start is as good.
        let words =
            ["-XX:CRaCRestoreFrom=no-such", "-XX:+CRaCIgnoreRestoreIfUnavailable", "-version"];
        let version = crac.java(&words).succeeds();
        assert!(version.stderr.contains("starting anew"), "{version}");
        assert!(version.stderr.contains("Server VM"), "{version}");
    });
}
