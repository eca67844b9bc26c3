//! The unmodified Spring Boot service of `examples/spring-boot`, two instances at once.

use crate::allocators::auto_memory;
use crate::jdk::jdks;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tub_testkit::{Scratch, Tub, User, agent, alone, prober_binary, product, run_bounded, skipped};

const GREETING: &str = "Greetings from Spring Boot!";

/// A service inside a network namespace of its own, and the prober that speaks with it there: the
/// unmodified service has one fixed port, and no two of them fit into one namespace.
struct Probed {
    prober: Child,
    lines: Receiver<Value>,
    log: PathBuf,
}

impl Probed {
    /// Starts `words` and waits for the first correct answer.
    fn start(dir: &Scratch, name: &str, words: &[&str]) -> Self {
        let log = dir.join(format!("{name}.log"));
        let mut command = Command::new(prober_binary());
        command.args(["run", "--netns", "--expect", GREETING, "--log"]).arg(&log);
        if let Some(uid) = User::Ordinary.change_to() {
            command.args(["--uid", &uid.to_string()]);
        }
        command.arg("--").args(words).env("HOME", dir.path()).env("TMPDIR", dir.path());
        if let Some(agent) = agent() {
            command.env("TUB_AGENT", agent);
        }
        command.current_dir(dir.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut prober = command.spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(prober.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // A receiver that has gone is the end of the test.
                let _ = sender.send(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        Self { prober, lines, log }
    }

    /// The next line of the prober that has `key`.
    fn told(&self, key: &str) -> Value {
        let log = || fs::read_to_string(&self.log).unwrap_or_default();
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(150));
            let line = line.unwrap_or_else(|error| panic!("prober: {error}\nlog:\n{}", log()));
            assert_ne!(line["event"], "failed", "{line}\nlog:\n{}", log());
            if !line[key].is_null() {
                return line;
            }
        }
    }

    fn order(&mut self, order: &str) {
        writeln!(self.prober.stdin.as_mut().unwrap(), "{order}").unwrap();
    }
}

impl Drop for Probed {
    fn drop(&mut self) {
        // The service dies with its prober.
        let _ = self.prober.kill();
        let _ = self.prober.wait();
    }
}

/// The service's jar, built by Maven; `None`, with the reason printed, where that is impossible.
fn jar() -> Option<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/spring-boot");
    let jar = project.join("target/greetings-1.0.0.jar");
    if jar.exists() {
        return Some(jar);
    }
    let mut maven = Command::new("mvn");
    maven.args(["--batch-mode", "--quiet", "-DskipTests", "package"]).current_dir(&project);
    if maven.get_program().is_empty() || Command::new("mvn").arg("-v").output().is_err() {
        skipped("no Maven");
        return None;
    }
    let finished = run_bounded(maven, Duration::from_secs(600));
    if finished.status.success() {
        return Some(jar);
    }
    skipped(&format!("the Spring Boot service cannot be built here: {finished}"));
    None
}

/// The process that listens: the only child of the prober, or its child.
fn service_pid(probed: &Probed) -> Option<i32> {
    let prober = tub_testkit::Process::find(i32::try_from(probed.prober.id()).ok()?)?;
    let is_java = |process: &tub_testkit::Process| {
        fs::read_to_string(process.proc("comm")).is_ok_and(|comm| comm.trim() == "java")
    };
    prober.descendants().into_iter().find(is_java).map(|process| process.pid())
}

#[test]
fn the_spring_boot_service_gets_up_twice_at_once() {
    let _alone = alone("jvm");
    let Some(jar) = jar() else { return };
    for jdk in jdks() {
        let dir = Arc::new(Scratch::new(User::Ordinary));
        let copy = dir.join("greetings.jar");
        fs::copy(&jar, &copy).unwrap();
        dir.give(&copy);
        let tub = product().tub.to_str().unwrap();
        let (java, image) = (jdk.java(), dir.join("image"));
        let words = [tub, "run", "--", java.to_str().unwrap(), "-jar", copy.to_str().unwrap()];
        let mut cold = Probed::start(&dir, "cold", &words);
        cold.told("first_correct_ms");
        cold.order("load 1000");
        assert_eq!(cold.told("failures")["failures"], 0);
        let pid = service_pid(&cold).expect("the service runs under the prober");
        let checkpoint = Tub::new(User::Ordinary, "checkpoint").arg(pid.to_string());
        checkpoint.arg("--image").arg(&image).run().succeeds();
        drop(cold);
        let (lazy, reason) = auto_memory(&image);
        assert!(lazy, "{reason}");
        let words = [tub, "restore", image.to_str().unwrap()];
        let mut both = ["first", "second"].map(|name| Probed::start(&dir, name, &words));
        for probed in &mut both {
            let line = probed.told("first_correct_ms");
            let ms = line["first_correct_ms"].as_f64().unwrap();
            // Not a benchmark: a cold start takes seconds, and this must not be one.
            assert!(ms < 2000.0, "first correct answer after {ms} ms");
            probed.order("load 200");
            assert_eq!(probed.told("failures")["failures"], 0);
        }
    }
}
