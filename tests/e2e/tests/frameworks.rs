//! The services of `examples/services.toml`, as they are: knocked down under load, two at once, and knocked
//! down again.
//!
//! `cargo xtask test` builds them; what could not be built is skipped here.

use crate::allocators::auto_memory;
use crate::functions;
use crate::jdk::{Jdk, jdks};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tub_testkit::{
    Process, Scratch, Tub, User, agent, alone, prober_binary, product, run_bounded, skipped,
    wait_for,
};

/// More requests than are answered before the load is cut off by a checkpoint.
const UNDER_LOAD: &str = "load 1000000";

/// How long something small may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the files of a log would otherwise refuse a checkpoint for.
const LOGS_GO_ON: &str = "type: file\npath: **/service.log*\naction: reopen\nwarn: false\n";

/// Micronaut closes its listening socket, and leaves connections to their clients.
const CONNECTIONS_END: &str =
    "---\ntype: socket\nlocalPort: 8080\nlistening: false\naction: close\nwarn: false\n";

/// A service of the table, whose keys are explained there.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Example {
    name: String,
    jar: PathBuf,
    files: Option<PathBuf>,
    jdks: Vec<u32>,
    open: Option<String>,
    #[serde(default)]
    jvm: Vec<String>,
    pub(crate) answer: String,
    #[serde(default)]
    log: Vec<String>,
}

impl Example {
    pub(crate) fn named(name: &str) -> Self {
        #[derive(Deserialize)]
        struct Table {
            service: Vec<Example>,
        }
        let text = fs::read_to_string(examples().join("services.toml")).unwrap();
        let table: Table = toml::from_str(&text).unwrap();
        let found = table.service.into_iter().find(|example| example.name == name);
        found.unwrap_or_else(|| panic!("{name}: not in examples/services.toml"))
    }

    /// Copies what it runs from to `dir`; `None`, with the reason printed, where it is not built.
    pub(crate) fn install(&self, dir: &Scratch) -> Option<Installed> {
        let project = examples().join(&self.name);
        if !project.join(&self.jar).exists() {
            skipped(&format!("examples/{} is not built, see `cargo xtask test`", self.name));
            return None;
        }
        let files = self.files.as_ref().unwrap_or(&self.jar);
        let to = dir.join("application");
        copy(&project.join(files), &to.join(files.file_name().unwrap()));
        let jar = to.join(files.file_name().unwrap()).join(self.jar.strip_prefix(files).unwrap());
        // `join` with nothing adds a slash.
        let jar = PathBuf::from(jar.to_str().unwrap().trim_end_matches('/'));
        Some(Installed { bytes: bytes_below(&to), files: to, jar })
    }
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

/// A copy of an application's files.
pub(crate) struct Installed {
    files: PathBuf,
    pub(crate) jar: PathBuf,
    bytes: BTreeMap<PathBuf, Vec<u8>>,
}

impl Installed {
    fn is_unmodified(&self) {
        let now = bytes_below(&self.files);
        let paths = |bytes: &BTreeMap<PathBuf, Vec<u8>>| bytes.keys().cloned().collect::<Vec<_>>();
        assert_eq!(paths(&self.bytes), paths(&now));
        for (path, bytes) in &self.bytes {
            assert!(now[path] == *bytes, "{}: was changed", path.display());
        }
    }
}

fn copy(from: &Path, to: &Path) {
    if !from.is_dir() {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
        return;
    }
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}

fn bytes_below(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap().flatten();
        return entries.flat_map(|entry| bytes_below(&entry.path())).collect();
    }
    BTreeMap::from([(path.to_owned(), fs::read(path).unwrap())])
}

/// A service, as a rule inside a network namespace of its own, and the prober that speaks with it there:
/// the unmodified service has one fixed port, and no two of them fit into one namespace.
pub(crate) struct Probed {
    prober: Child,
    lines: Receiver<Value>,
    log: PathBuf,
}

impl Probed {
    /// Starts `words` and waits for the first correct answer.
    fn start(dir: &Scratch, name: &str, answer: &str, words: &[String]) -> Self {
        Self::start_at(&["--netns"], dir, name, answer, words)
    }

    /// The same where `place`, options of the prober, says.
    pub(crate) fn start_at(
        place: &[&str],
        dir: &Scratch,
        name: &str,
        answer: &str,
        words: &[String],
    ) -> Self {
        let log = dir.join(format!("{name}.log"));
        let mut command = Command::new(prober_binary());
        command.arg("run").args(place).args(["--expect", answer, "--log"]).arg(&log);
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
    pub(crate) fn told(&self, key: &str) -> Value {
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

    /// Has it answer `count` requests, each of them right.
    pub(crate) fn answers(&mut self, count: u32) {
        self.order(&format!("load {count}"));
        let report = self.told("failures");
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        assert_eq!(report["failures"], 0, "{report}\nlog:\n{log}");
    }

    /// The JVM, which is a descendant of the prober.
    pub(crate) fn jvm(&self) -> Process {
        let find = || {
            let prober = Process::find(i32::try_from(self.prober.id()).ok()?)?;
            let is_java = |process: &Process| {
                let comm = fs::read_to_string(process.proc("comm"));
                comm.is_ok_and(|comm| comm.trim() == "java")
            };
            prober.descendants().into_iter().find(is_java)
        };
        wait_for(PATIENCE, find).expect("the service runs under the prober")
    }

    /// Takes an image of it, which ends it.
    pub(crate) fn checkpoint(&self, image: &Path, options: &[&str]) {
        let jvm = self.jvm();
        let tub = Tub::new(User::Ordinary, "checkpoint").arg(jvm.pid().to_string());
        let finished = tub.arg("--image").arg(image).args(options).run();
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        assert!(finished.status.success(), "{finished}\nlog:\n{log}");
        assert!(jvm.is_gone_within(PATIENCE), "still runs after {finished}");
    }

    pub(crate) fn order(&mut self, order: &str) {
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

/// All that is asked of a service, on one JDK.
fn lives_on(example: &Example, jdk: &Jdk, more_policy: &str) {
    eprintln!("{} on JDK {}", example.name, jdk.version);
    let dir = Arc::new(Scratch::new(User::Ordinary));
    let Some(installed) = example.install(&dir) else { return };
    let (policy, log, image) = (dir.join("policy"), dir.join("service.log"), dir.join("image"));
    fs::write(&policy, format!("{LOGS_GO_ON}{more_policy}")).unwrap();
    let word = |path: &Path| path.to_str().unwrap().to_owned();
    let tub = word(&product().tub);
    let mut words = vec![tub.clone(), "run".into(), "--policy".into(), word(&policy)];
    words.extend(example.open.iter().flat_map(|open| ["--open".into(), open.clone()]));
    words.extend(["--".into(), word(&jdk.java()), "-Xmx256m".into()]);
    words.extend(example.jvm.iter().cloned());
    words.extend(example.log.iter().map(|option| option.replace("{log}", &word(&log))));
    words.extend(["-jar".into(), word(&installed.jar)]);
    // What nobody closes is an established connection; the clients see its end.
    let options: &[&str] = if example.open.is_some() { &["--tcp", "close"] } else { &[] };

    let mut cold = Probed::start(&dir, "cold", &example.answer, &words);
    let line = cold.told("first_correct_ms");
    let cold_ms = line["first_correct_ms"].as_f64().unwrap();
    let behaviour = functions::of(&mut cold);
    cold.answers(1000);
    cold.order(UNDER_LOAD);
    cold.checkpoint(&image, options);
    let report = cold.told("failures");
    assert_ne!(report["answered"], 0, "{report}");
    assert_ne!(report["failures"], 0, "the checkpoint did not end the load: {report}");
    drop(cold);
    let (lazy, reason) = auto_memory(&image);
    assert!(lazy, "{reason}");
    let logged = (!example.log.is_empty()).then(|| fs::read_to_string(&log).unwrap());

    let words = [tub.clone(), "restore".into(), word(&image)];
    let mut both =
        ["first", "second"].map(|name| Probed::start(&dir, name, &example.answer, &words));
    for probed in &mut both {
        let line = probed.told("first_correct_ms");
        let ms = line["first_correct_ms"].as_f64().unwrap();
        // Not a benchmark: but it must not be a cold start.
        assert!(ms < cold_ms, "first correct answer after {ms} ms, cold after {cold_ms} ms");
        probed.answers(200);
        functions::are_those_of(probed, &behaviour);
    }
    let again = dir.join("again");
    both[0].checkpoint(&again, options);
    both[1].answers(200);
    drop(both);
    let words = [tub, "restore".into(), word(&again)];
    let mut third = Probed::start(&dir, "third", &example.answer, &words);
    third.told("first_correct_ms");
    third.answers(1000);
    functions::are_those_of(&mut third, &behaviour);
    if let Some(before) = logged {
        let now = fs::read_to_string(&log).unwrap();
        assert!(now.starts_with(&before), "what was logged is gone:\n{before}\nnow:\n{now}");
        assert!(now.len() > before.len(), "nothing was logged after the first image:\n{now}");
    }
    installed.is_unmodified();
}

/// The same on each JDK of `releases` that is here.
fn lives(name: &str, releases: &[u32]) {
    lives_with(name, releases, "");
}

fn lives_with(name: &str, releases: &[u32], more_policy: &str) {
    let _alone = alone("jvm");
    let example = Example::named(name);
    assert!(releases.iter().all(|release| example.jdks.contains(release)), "{name}");
    for jdk in jdks().iter().filter(|jdk| releases.contains(&jdk.version)) {
        lives_on(&example, jdk, more_policy);
    }
}

#[test]
fn spring_boot_lives() {
    lives("spring-boot", &[17]);
}

#[test]
fn spring_boot_4_lives() {
    lives("spring-boot-4", &[25]);
}

#[test]
fn quarkus_lives() {
    lives("quarkus", &[17, 25]);
}

#[test]
fn micronaut_lives() {
    lives_with("micronaut", &[17, 25], CONNECTIONS_END);
}

#[test]
fn a_tomcat_that_knows_nothing_lives() {
    lives("tomcat", &[17, 25]);
}

#[test]
fn a_tomcat_with_a_resource_lives() {
    lives("tomcat-crac", &[25]);
}

/// Its rows are in the memory of the JVM, and its pool has no connections at the checkpoint.
#[test]
fn a_clinic_with_jpa_lives() {
    lives("petclinic", &[17]);
}

#[test]
fn a_service_that_transforms_lives() {
    lives("xslt", &[25]);
}

/// Some of them wait in sleep and in accept when the image is taken.
#[test]
fn virtual_threads_live() {
    lives("virtual-threads", &[25]);
}

/// Spring takes the image by itself, when all beans are there and before anything is opened.
#[test]
fn spring_takes_the_image_on_refresh() {
    let _alone = alone("jvm");
    let example = Example::named("spring-boot");
    let Some(jdk) = jdks().into_iter().next() else { return };
    let dir = Arc::new(Scratch::new(User::Ordinary));
    let Some(installed) = example.install(&dir) else { return };
    let image = dir.join("image");
    let tub = Tub::new(User::Ordinary, "run").arg("--image").arg(&image).arg("--");
    let tub = tub.arg(jdk.java()).arg("-Dspring.context.checkpoint=onRefresh");
    let mut command = tub.arg("-jar").arg(&installed.jar).command();
    command.env("HOME", dir.path()).env("TMPDIR", dir.path()).current_dir(dir.path());
    if let Some(agent) = agent() {
        command.env("TUB_AGENT", agent);
    }
    let finished = run_bounded(command, 4 * PATIENCE);
    assert!(image.is_dir(), "no image after {finished}");
    let words = [&product().tub, Path::new("restore"), &image];
    let words = words.map(|word| word.to_str().unwrap().to_owned());
    let mut both =
        ["first", "second"].map(|name| Probed::start(&dir, name, &example.answer, &words));
    for probed in &mut both {
        probed.told("first_correct_ms");
        probed.answers(200);
    }
    installed.is_unmodified();
}
