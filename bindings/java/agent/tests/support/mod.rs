//! Starts Java programs with the agent just built, on every JDK of this machine, and plays the
//! engine: the conversation is the real one, the letter is written through `/proc/PID/mem`.
//!
//! Every wait is bounded; processes are ended by their ids when a test is over.
#![expect(clippy::unwrap_used, reason = "the helpers of a test panic as its body does")]
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses what it needs")]

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};
use tub_control::{Client, ClientError, Prepared, Refusal, State, Status};
use tub_units::HostPid;

/// Longer than anything takes on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The JDKs to test on; prints why there are none.
pub(crate) fn jdks() -> Vec<PathBuf> {
    let mut homes: Vec<PathBuf> =
        std::env::var_os("JAVA_HOME").map(PathBuf::from).into_iter().collect();
    if let Ok(entries) = fs::read_dir("/usr/lib/jvm") {
        homes.extend(entries.flatten().map(|entry| entry.path()));
    }
    homes.retain(|home| home.join("bin/javac").is_file());
    homes = homes.into_iter().map(|home| home.canonicalize().unwrap()).collect();
    homes.sort();
    homes.dedup();
    if homes.is_empty() {
        println!("skipped: no JDK in JAVA_HOME or /usr/lib/jvm");
    }
    homes
}

/// The agent that cargo has built for this test.
pub(crate) fn agent() -> PathBuf {
    built("libtub_java_agent.so")
}

/// The program that stands in for the engine.
pub(crate) fn stand_in_engine() -> PathBuf {
    built("examples/stand_in_engine")
}

fn built(name: &str) -> PathBuf {
    // …/debug/deps/TEST
    let test = std::env::current_exe().unwrap();
    let deps = test.parent().unwrap();
    let candidates = [deps.join(name), deps.parent().unwrap().join(name)];
    // The newer one: cargo leaves what an older build has made.
    let newest = candidates
        .into_iter()
        .filter(|path| path.is_file())
        .max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    newest.unwrap_or_else(|| panic!("{name} has not been built beside {test:?}"))
}

/// A directory that goes away with the test.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tubjava-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Compiles a program of `../it`; `library` holds what it needs beyond the shim.
pub(crate) fn compile(jdk: &Path, program: &str, library: Option<&Path>, to: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../it").join(program);
    let shim = Path::new(env!("OUT_DIR")).join("tub-shim.jar");
    let path = std::env::join_paths([Some(shim.as_path()), library].into_iter().flatten()).unwrap();
    let output = Command::new(jdk.join("bin/javac"))
        .args(["--release", "17", "-cp"])
        .arg(path)
        .arg("-d")
        .arg(to)
        .arg(source)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// `Subject`, compiled once: its classes are the same for every JDK.
fn subject_classes(jdk: &Path) -> &'static Path {
    static CLASSES: OnceLock<PathBuf> = OnceLock::new();
    CLASSES.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let classes = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test.file_name().unwrap());
        fs::create_dir_all(&classes).unwrap();
        compile(jdk, "Subject.java", None, &classes);
        classes
    })
}

/// A Java program under test.
pub(crate) struct Java {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
    _scratch: Scratch,
}

/// How to start one.
pub(crate) struct JavaOptions<'a> {
    pub(crate) name: &'a str,
    pub(crate) flags: &'a [&'a str],
    pub(crate) variables: &'a [(&'a str, &'a OsStr)],
    pub(crate) with_agent: bool,
}

impl Default for JavaOptions<'_> {
    fn default() -> Self {
        Self { name: "subject", flags: &[], variables: &[], with_agent: true }
    }
}

impl Java {
    /// `Subject` with default options, ready.
    pub(crate) fn subject(jdk: &Path, name: &str) -> Self {
        Self::subject_with(jdk, &JavaOptions { name, ..JavaOptions::default() })
    }

    pub(crate) fn subject_with(jdk: &Path, options: &JavaOptions<'_>) -> Self {
        let name = format!("{}-{}", options.name, jdk.file_name().unwrap().display());
        let classes = subject_classes(jdk);
        let mut java = Self::start(jdk, Scratch::new(&name), options, &[classes], "Subject");
        java.expect("ready");
        java
    }

    pub(crate) fn start(
        jdk: &Path,
        scratch: Scratch,
        options: &JavaOptions<'_>,
        library: &[&Path],
        main: &str,
    ) -> Self {
        let mut path = vec![scratch.0.as_path()];
        path.extend(library);
        let mut command = Command::new(jdk.join("bin/java"));
        if options.with_agent {
            let mut option = std::ffi::OsString::from("-agentpath:");
            option.push(agent());
            command.arg(option);
        }
        // Where the JVM is killed nobody removes its flight recordings.
        let mut recordings = std::ffi::OsString::from("-XX:FlightRecorderOptions:repository=");
        recordings.push(scratch.0.join("recordings"));
        command
            .args(["-Xmx256m", "-XX:TieredStopAtLevel=1"])
            .arg(recordings)
            .args(options.flags)
            .arg("-cp")
            .arg(std::env::join_paths(path).unwrap())
            .arg(main)
            .env_remove("JAVA_TOOL_OPTIONS")
            .env_remove("TUB_IMAGE")
            .env_remove("TUB_COMMAND")
            .env_remove("TUB_OPEN")
            .env_remove("TUB_POLICY")
            .env("TMPDIR", &scratch.0)
            .envs(options.variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let stdin = child.stdin.take();
        Self { child, stdin, lines, seen: Vec::new(), _scratch: scratch }
    }

    pub(crate) fn pid(&self) -> HostPid {
        HostPid(i32::try_from(self.child.id()).unwrap())
    }

    /// Where its control sockets lie.
    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        let directory = fs::read_dir(&self._scratch.0)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("tub-"));
        let Some(directory) = directory else { return Vec::new() };
        let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension() == Some(OsStr::new("sock"))).collect()
    }

    pub(crate) fn tell(&mut self, command: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{command}").unwrap();
        stdin.flush().unwrap();
    }

    /// Registers a resource and waits until that is done.
    pub(crate) fn register(&mut self, words: &str) {
        self.tell(&format!("register {words}"));
        let name = words.split(' ').next().unwrap().to_owned();
        self.expect(&format!("registered {name}"));
    }

    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// The next line.
    pub(crate) fn line(&mut self) -> String {
        match self.lines.recv_timeout(SOON) {
            Ok(line) => {
                self.seen.push(line.clone());
                line
            }
            Err(error) => {
                let mut story = String::new();
                for line in &self.seen {
                    writeln!(story, "  {line}").unwrap();
                }
                let state = fs::read_to_string(format!("/proc/{}/status", self.pid()));
                panic!("{error} after\n{story}process: {state:?}");
            }
        }
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, expected: &str) {
        let line = self.line();
        assert_eq!(line, expected, "after {:?}", self.seen);
    }

    #[track_caller]
    pub(crate) fn expect_all(&mut self, expected: &[&str]) {
        for line in expected {
            self.expect(line);
        }
    }

    /// Nothing more is said for a while.
    #[track_caller]
    pub(crate) fn expect_silence(&mut self) {
        match self.lines.recv_timeout(Duration::from_millis(200)) {
            Err(RecvTimeoutError::Timeout) => {}
            other => panic!("{other:?} after {:?}", self.seen),
        }
    }

    /// Sends a command and returns its one line of answer.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        self.line()
    }

    /// A conversation with its control socket, which comes up in the background.
    pub(crate) fn client(&self) -> Client {
        let start = Instant::now();
        loop {
            match Client::find(self.pid()) {
                Ok(Some(client)) => return client,
                // Gone between being seen and being called: the next one is on its way.
                outcome => assert!(start.elapsed() < SOON, "no control socket: {outcome:?}"),
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn status(&self) -> Status {
        self.client().status().unwrap()
    }

    /// Waits until the last round is over, which is a little later than its last after-hook.
    pub(crate) fn await_running(&self) {
        let start = Instant::now();
        while self.status().state != State::Running {
            assert!(start.elapsed() < SOON, "the round does not end");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Writes a letter as an engine would, but for the freezing: so the state comes last.
    pub(crate) fn post(&self, prepared: &Prepared, letter: &[u8]) {
        let path = format!("/proc/{}/mem", self.pid());
        let memory = OpenOptions::new().write(true).open(path).unwrap();
        memory.write_all_at(&letter[4..], prepared.mailbox.address + 4).unwrap();
        memory.write_all_at(&letter[..4], prepared.mailbox.address).unwrap();
    }

    /// Prepares, commits and posts a letter.
    pub(crate) fn checkpoint(&self, letter: &[u8]) -> Prepared {
        let mut engine = self.client();
        let prepared = engine.prepare(SOON).unwrap();
        engine.commit(SOON).unwrap();
        self.post(&prepared, letter);
        prepared
    }

    /// What an engine would store of its anonymous memory, in MiB: the pages that are not zeros.
    pub(crate) fn stored_mib(&self) -> usize {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid())).unwrap();
        let memory = fs::File::open(format!("/proc/{}/mem", self.pid())).unwrap();
        let mut pages = 0;
        for line in maps.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if !fields[1].starts_with("rw") || fields.get(5).is_some_and(|p| p.starts_with("[v")) {
                continue;
            }
            let (start, end) = fields[0].split_once('-').unwrap();
            let (mut at, end) =
                (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
            let mut buffer = vec![0; 1 << 20];
            while at < end {
                let wanted = usize::try_from(end - at).unwrap().min(buffer.len());
                let Ok(read) = memory.read_at(&mut buffer[..wanted], at) else { break };
                let pieces = buffer[..read].chunks(4096);
                pages += pieces.filter(|page| page.iter().any(|&byte| byte != 0)).count();
                at += read as u64;
            }
        }
        pages >> 8
    }

    /// Waits for its end; returns the exit code and what else it has said.
    pub(crate) fn wait(mut self) -> (Option<i32>, Vec<String>) {
        self.close_stdin();
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < SOON, "the JVM does not end");
            thread::sleep(Duration::from_millis(5));
        };
        let mut rest = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(SOON) {
            rest.push(line);
        }
        (status.code(), rest)
    }
}

impl Drop for Java {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Refusal {
    match result.unwrap_err() {
        ClientError::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

/// Runs a command; `None` where it fails, with the reason printed.
pub(crate) fn run(command: &mut Command) -> Option<String> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().ok()?;
    let mut text = String::new();
    child.stdout.take()?.read_to_string(&mut text).ok()?;
    child.wait().ok()?.success().then_some(text)
}
