//! The control protocol, spoken by hand with a real process: the examples of its specification, and peers
//! that do what they should not.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tub_testkit::{
    Finished, Instance, Scratch, Tub, User, app_subject, as_user, code, run_bounded, skipped,
    wait_for,
};

/// A program in Rust that takes part, whose control sockets are in a directory of its own.
pub(crate) struct Application {
    pub(crate) instance: Instance,
    dir: Arc<Scratch>,
}

impl Application {
    pub(crate) fn start(user: User) -> Self {
        Self::start_with(user, &[])
    }

    /// The same, with options of `tub run`.
    pub(crate) fn start_with(user: User, options: &[&str]) -> Self {
        let dir = Arc::new(Scratch::new(user));
        let state = dir.make_dir("state");
        let run = Tub::new(user, "run").args(options).arg("--").arg(app_subject()).arg(&state);
        let mut command = run.command();
        command.env("TMPDIR", dir.path());
        let ready = |printed: &str| printed.contains("ready\n").then_some(());
        let instance = Instance::start("application", &dir, command, ready);
        Self { instance, dir }
    }

    fn socket(&self) -> PathBuf {
        let uid =
            fs::metadata(self.dir.path()).map(|found| std::os::unix::fs::MetadataExt::uid(&found));
        let sockets = self.dir.join(format!("tub-{}", uid.unwrap()));
        let found = wait_for(Duration::from_secs(30), || {
            let mut entries = fs::read_dir(&sockets).ok()?.flatten().map(|entry| entry.path());
            entries.find(|path| path.extension().is_some_and(|e| e == "sock"))
        });
        found.expect("a control socket")
    }

    pub(crate) fn speak(&self) -> Conversation {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Conversation(BufReader::new(stream))
    }

    /// Waits until it has printed so many lines that begin like this.
    #[track_caller]
    pub(crate) fn has_printed(&self, start: &str, count: usize) {
        let count_is = || {
            let output = self.instance.output();
            (output.lines().filter(|line| line.starts_with(start)).count() == count).then_some(())
        };
        let found = wait_for(Duration::from_secs(30), count_is);
        assert!(found.is_some(), "not {count} times {start:?}\n{}", self.instance.tell());
    }
}

/// One connection to the control socket.
pub(crate) struct Conversation(BufReader<UnixStream>);

impl Conversation {
    fn says(&mut self, line: &str) {
        writeln!(self.0.get_mut(), "{line}").unwrap();
    }

    /// A line, without its end; empty at the end of the connection.
    pub(crate) fn hears(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    #[track_caller]
    pub(crate) fn asks(&mut self, line: &str, beginning: &str) {
        self.says(line);
        let answer = self.hears();
        assert!(answer.starts_with(beginning), "{line}: {answer}");
    }
}

const PREPARE: &str = r#"{"v":1,"op":"prepare","timeout_ms":60000}"#;
const ABORT: &str = r#"{"v":1,"op":"abort","message":"changed my mind","failures":[]}"#;
const PREPARED: &str = r#"{"v":1,"ok":true,"event":"prepared","#;
const RESUMED: &str = r#"{"v":1,"ok":true,"event":"resumed"}"#;
const BUSY: &str = r#"{"v":1,"ok":false,"error":{"kind":"busy","#;

/// The rows of the specification's table of requests: what is asked, and what is answered.
fn examples() -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/control-protocol.md");
    let text = fs::read_to_string(path).unwrap();
    let rows = text.lines().filter_map(|line| {
        let row = line.strip_prefix("| `{\"v\":1,\"op\":")?;
        let (request, answer) = row.split_once("` | ")?;
        let answer = answer.trim_end_matches([' ', '|']).trim_matches('`');
        Some((format!("{{\"v\":1,\"op\":{request}"), answer.to_owned()))
    });
    rows.collect()
}

/// Names of an object's members, and of those of its own, as they come.
fn shape(json: &str) -> Vec<String> {
    fn collect(value: &serde_json::Value, names: &mut Vec<String>) {
        if let serde_json::Value::Object(members) = value {
            for (name, value) in members {
                names.push(name.clone());
                collect(value, names);
            }
        }
    }
    let mut names = Vec::new();
    let value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"));
    collect(&value, &mut names);
    names
}

#[test]
fn the_specification_is_spoken() {
    let application = Application::start(User::Ordinary);
    let mut conversation = application.speak();
    let examples = examples();
    let operations = ["status", "prepare", "abort", "commit"];
    assert_eq!(examples.len(), operations.len(), "{examples:?}");
    for ((request, expected), operation) in examples.iter().zip(operations) {
        assert!(request.contains(&format!("\"op\":\"{operation}\"")), "{request}");
        if operation == "commit" {
            conversation.asks(PREPARE, PREPARED);
            conversation.says(&request.replace("60000", "500"));
            // Until the connection ends. Nobody writes the letter: see below for what comes of it.
            assert_eq!(conversation.hears(), "", "instead of the end");
            assert_eq!(expected, "the end of the connection");
            continue;
        }
        conversation.says(request);
        let answer = conversation.hears();
        assert_eq!(shape(&answer), shape(expected), "{request}: {answer}");
    }
    application.has_printed("after three failed", 2);
}

#[test]
fn one_of_two_that_prepare_at_once_is_busy() {
    let application = Application::start(User::Ordinary);
    let (mut first, mut second) = (application.speak(), application.speak());
    first.asks(PREPARE, PREPARED);
    second.asks(PREPARE, BUSY);
    first.asks(PREPARE, BUSY);
    first.asks(ABORT, RESUMED);
    second.asks(PREPARE, PREPARED);
    second.asks(ABORT, RESUMED);
    application.has_printed("before one", 2);
    application.has_printed("after three failed", 2);
}

#[test]
fn an_engine_that_dies_after_prepare_is_an_abort() {
    let application = Application::start(User::Ordinary);
    let mut conversation = application.speak();
    conversation.asks(PREPARE, PREPARED);
    drop(conversation);
    application.has_printed("after three failed", 1);
    application.speak().asks(PREPARE, PREPARED);
}

#[test]
fn an_engine_that_dies_after_commit_is_waited_for_up_to_its_deadline() {
    let application = Application::start(User::Ordinary);
    let mut conversation = application.speak();
    conversation.asks(PREPARE, PREPARED);
    let since = Instant::now();
    conversation.says(r#"{"v":1,"op":"commit","deadline_ms":1500}"#);
    assert_eq!(conversation.hears(), "");
    application.has_printed("after three failed", 1);
    assert!(since.elapsed() >= Duration::from_millis(1500), "it did not wait");
    // And takes part again.
    let status = r#"{"v":1,"op":"status"}"#;
    application.speak().asks(status, r#"{"v":1,"ok":true,"event":"status","state":"running""#);
}

#[test]
fn what_is_not_of_this_protocol_is_told_so() {
    let application = Application::start(User::Ordinary);
    for (line, kind) in [
        (r#"{"v":2,"op":"prepare","until":"dawn"}"#, "version"),
        (r#"{"v":1,"op":"dance"}"#, "protocol"),
        (r#"{"op":"status"}"#, "protocol"),
        ("GET / HTTP/1.1", "protocol"),
    ] {
        let mut conversation = application.speak();
        let refused = format!(r#"{{"v":1,"ok":false,"error":{{"kind":"{kind}","message":"#);
        conversation.asks(line, &refused);
        assert_eq!(conversation.hears(), "", "the conversation goes on after {line}");
    }
    for early in [ABORT, r#"{"v":1,"op":"commit","deadline_ms":1}"#] {
        let mut conversation = application.speak();
        conversation.asks(early, r#"{"v":1,"ok":false,"error":{"kind":"protocol","#);
        conversation.asks(PREPARE, PREPARED);
        conversation.asks(ABORT, RESUMED);
    }
}

#[test]
fn another_user_is_not_heard() {
    if !tub_testkit::is_root() {
        skipped("two users, which need root");
        return;
    }
    let application = Application::start(User::Root);
    let pid = application.instance.pid().to_string();
    let tub = |command| Tub::new(User::Ordinary, command).arg(&pid);
    tub("status").run().fails_with(code::NO_SUCH_PROCESS, &[&pid]);
    tub("checkpoint").run().fails_with(code::NO_SUCH_PROCESS, &[&pid]);
    // Somebody opens every door; the kernel says who comes in. It is told so before it has said anything, and
    // would find nobody to say it to.
    let socket = application.socket();
    for path in [application.dir.path(), socket.parent().unwrap(), &socket] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let script = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
                  print(s.recv(4096).decode())";
    let python = Path::new("/usr/bin/python3");
    if !python.exists() {
        skipped("a peer of another user, which is in Python");
        return;
    }
    let mut command = as_user(User::Ordinary, python);
    command.args(["-c", script]).arg(&socket);
    let heard = run_bounded(command, Duration::from_secs(30)).succeeds().stdout;
    let refused =
        r#"{"v":1,"ok":false,"error":{"kind":"not-allowed","message":"user 65534 may not"#;
    assert!(heard.starts_with(refused), "{heard}");
    assert!(!application.instance.output().contains("before "));
}

/// A process that looks as if it took part, and never answers.
#[test]
fn an_application_that_never_answers_is_given_up() {
    let application = Application::start(User::Ordinary);
    let pid = application.instance.pid().to_string();
    let image = application.dir.join("image");
    let stop = |word: &str| {
        let mut kill = Command::new("kill");
        kill.args([word, &pid]);
        run_bounded(kill, Duration::from_secs(10)).succeeds();
    };
    stop("-STOP");
    let tub = |command: &str| Tub::new(User::Ordinary, command).arg(&pid);
    thread::scope(|scope| {
        let status = scope.spawn(|| -> Finished { tub("status").run() });
        let checkpoint = tub("checkpoint").arg("--image").arg(&image).args(&["--timeout", "1"]);
        let checkpoint = checkpoint.limit(Duration::from_secs(90)).run();
        checkpoint.fails_with(code::TIMED_OUT, &["no answer to \"prepare\""]);
        status.join().unwrap().fails_with(code::TIMED_OUT, &["no answer to \"status\""]);
    });
    assert!(!image.exists());
    stop("-CONT");
    // What was asked meanwhile is found in the socket, and that nobody waits any more.
    application.has_printed("after three failed", 1);
    application.instance.checkpoint(&image, &["--leave-running"]).succeeds();
}
