//! Applications of other releases, or of nobody's: what listens where a control socket is, and does not speak as
//! it should. And engines that fall silent.

use crate::protocol::Application;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tub_testkit::{Finished, Instance, Scratch, Tub, User, as_user, code, skipped, wait_for};

/// A process that listens where an application would, and answers each line by `answer`: text, or nothing
/// but the end of the connection.
struct Stranger {
    instance: Instance,
    _dir: Arc<Scratch>,
}

const SCRIPT: &str = "
import os, socket, sys
os.mkdir(sys.argv[1], 0o700)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1] + '/0123456789abcdef.sock')
listener.listen()
print('ready', flush=True)
while True:
    peer, _ = listener.accept()
    for line in peer.makefile('r'):
        print('heard ' + line.strip(), flush=True)
        if not sys.argv[2]:
            break
        peer.sendall(sys.argv[2].encode() + b'\\n')
    peer.close()
";

impl Stranger {
    fn start(answer: &str) -> Option<Self> {
        let python = Path::new("/usr/bin/python3");
        if !python.exists() {
            skipped("an application that speaks otherwise, which is in Python");
            return None;
        }
        let dir = Arc::new(Scratch::new(User::Ordinary));
        let uid = std::fs::metadata(dir.path())
            .map(|found| std::os::unix::fs::MetadataExt::uid(&found))
            .unwrap();
        let mut command = as_user(User::Ordinary, python);
        command.args(["-c", SCRIPT]).arg(dir.join(format!("tub-{uid}"))).arg(answer);
        let ready = |printed: &str| printed.contains("ready\n").then_some(());
        let instance = Instance::start("stranger", &dir, command, ready);
        Some(Self { instance, _dir: dir })
    }

    fn image(&self) -> PathBuf {
        self.instance.dir().join("image")
    }

    fn told(&self, verb: &str) -> Finished {
        let tub = Tub::new(User::Ordinary, verb).arg(self.instance.pid().to_string());
        match verb {
            "checkpoint" => tub.arg("--image").arg(self.image()).run(),
            _ => tub.run(),
        }
    }
}

#[test]
fn an_application_of_another_release_or_of_none_is_not_checkpointed_untold() {
    for (answer, words) in [
        (
            r#"{"v":2,"ok":true,"event":"status","mood":"fine"}"#,
            &["version 2, understood is 1"][..],
        ),
        (r#"{"v":1,"ok":true,"event":"resumed"}"#, &["cannot be understood"]),
        ("HTTP/1.1 400 Bad Request", &["no message of the protocol"]),
        ("", &["the connection ended before the answer"]),
    ] {
        let Some(stranger) = Stranger::start(answer) else { return };
        for verb in ["status", "prepare", "checkpoint"] {
            stranger.told(verb).fails_with(code::FAILED, words);
        }
        assert!(!stranger.image().exists(), "an image was left after {answer:?}");
        assert!(stranger.instance.process().is_alive());
    }
}

/// Two processes, one after the other within the time of the first.
#[test]
fn two_processes_are_prepared_at_once_and_each_goes_on_when_it_is_told() {
    let [one, other] = [(); 2].map(|()| Application::start(User::Ordinary));
    let tub = |verb: &str, application: &Application| {
        Tub::new(User::Ordinary, verb).arg(application.instance.pid().to_string()).run()
    };
    thread::scope(|scope| {
        let prepare = [&one, &other].map(|which| scope.spawn(move || tub("prepare", which)));
        for prepared in prepare {
            prepared.join().unwrap().succeeds();
        }
    });
    tub("resume", &other).succeeds();
    other.has_printed("after three resumed 1", 1);
    one.has_printed("before one", 1);
    one.has_printed("after ", 0);
    tub("resume", &one).succeeds();
    one.has_printed("after three resumed 1", 1);
}

/// `tub prepare` is killed while the application prepares: it notices the end of the conversation.
#[test]
fn a_command_that_is_killed_while_it_prepares_leaves_nobody_waiting() {
    let application = Application::start(User::Ordinary);
    application.instance.go("register slow");
    application.instance.prints("did register slow");
    let prepare = Tub::new(User::Ordinary, "prepare").arg(application.instance.pid().to_string());
    let mut command = prepare.command().spawn().unwrap();
    application.has_printed("before slow", 1);
    command.kill().unwrap();
    command.wait().unwrap();
    application.has_printed("after three failed", 1);
    application.instance.go("unregister slow");
    application.instance.prints("did unregister slow");
    prepare.run().succeeds();
    let resume = Tub::new(User::Ordinary, "resume").arg(application.instance.pid().to_string());
    resume.run().succeeds();
    application.has_printed("after three resumed 1", 1);
}

/// An engine that has had the application prepare, and says nothing any more, although it lives.
#[test]
fn an_engine_that_falls_silent_after_prepare_is_hung_up_on() {
    let application = Application::start(User::Ordinary);
    let mut conversation = application.speak();
    conversation.asks(r#"{"v":1,"op":"prepare","timeout_ms":1000}"#, r#"{"v":1,"ok":true,"#);
    let since = Instant::now();
    application.has_printed("before one", 1);
    application.has_printed("after ", 0);
    let told = || application.instance.output().contains("after three failed\n").then_some(());
    assert!(wait_for(Duration::from_secs(90), told).is_some(), "{}", application.instance.tell());
    // What the specification says of silence, whatever the time that it has asked for.
    assert!(since.elapsed() >= Duration::from_secs(55), "after {:?}", since.elapsed());
    assert_eq!(conversation.hears(), "", "instead of the end");
    let mut conversation = application.speak();
    conversation
        .asks(r#"{"v":1,"op":"status"}"#, r#"{"v":1,"ok":true,"event":"status","state":"running""#);
}
