//! The control protocol, either side of it, and the letters of the mailbox.
//!
//! In: what a peer sent, or what lies in a mailbox. Out: nothing.
//! Invariant: what is understood says the same again once it is written out; a conversation ends
//! when its peer has gone, whatever was said; and the next one finds the application running.

use crate::Target;
use crate::scratch::Scratch;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, LazyLock, Mutex};
use std::thread;
use std::time::Duration;
use tub_control::mailbox::{self, Letter};
use tub_control::{
    Application, Client, Event, MailboxPlace, OpenResource, OpenResourceKind, OpenRule, Operation,
    Peer, Prepared, Refusal, RefusalKind, State, Status, answer_from_line, answer_to_line, serve,
};

pub(crate) fn targets() -> Vec<Target> {
    vec![
        Target::new("control-answer", read_answer, answers),
        Target::new("control-client", be_answered, answers),
        Target::new("control-request", read_request, requests),
        Target::new("control-server", be_asked, conversations),
        Target::new("mailbox", read_letter, letters),
    ]
}

fn operations() -> Vec<Operation> {
    let failure = OpenResource {
        kind: OpenResourceKind::File,
        fd: Some(7),
        detail: "/var/log/app.log".into(),
    };
    vec![
        Operation::Status,
        Operation::Prepare { timeout_ms: 60_000 },
        Operation::Commit { deadline_ms: 1 },
        Operation::Abort { message: "no".into(), failures: vec![failure] },
    ]
}

fn requests() -> Vec<Vec<u8>> {
    operations().iter().map(Operation::to_line).collect()
}

fn conversations() -> Vec<Vec<u8>> {
    let all = operations().iter().flat_map(Operation::to_line).collect();
    let mut seeds = requests();
    seeds.push(all);
    seeds.push(
        [Operation::Prepare { timeout_ms: 1 }, Operation::Status]
            .iter()
            .flat_map(Operation::to_line)
            .collect(),
    );
    seeds
}

fn status() -> Status {
    Status {
        state: State::Running,
        runtime: "a runtime".into(),
        resources: vec!["Pool@1f".into()],
        generation: 1,
        image: Some("/images/one".into()),
        placeholders: true,
    }
}

fn prepared() -> Prepared {
    Prepared {
        mailbox: MailboxPlace { address: 0x7000_0000, bytes: 1 << 20 },
        private_fds: vec![3, 4],
        open: OpenRule::Refuse,
        allowed_paths: vec!["/usr/lib/jvm".into()],
        runtime: "a runtime".into(),
        resources: vec!["Pool@1f".into()],
        metrics: vec![("vm.uptime".into(), "1500".into())],
    }
}

fn answers() -> Vec<Vec<u8>> {
    let refusal = Refusal::new(RefusalKind::ResourceFailed, "1 resource failed");
    [Ok(Event::Resumed), Ok(Event::Status(status())), Ok(Event::Prepared(prepared())), Err(refusal)]
        .iter()
        .map(answer_to_line)
        .collect()
}

fn read_request(bytes: &[u8]) {
    if let Ok(operation) = Operation::from_line(bytes) {
        let line = operation.to_line();
        assert_eq!(Operation::from_line(&line).unwrap(), operation);
    }
}

fn read_answer(bytes: &[u8]) {
    let Ok(answer) = answer_from_line(bytes) else { return };
    if let Ok(Event::Prepared(prepared)) = &answer
        && let Some(range) = prepared.mailbox.range()
    {
        assert!(range.is_page_aligned() && !range.is_empty());
    }
    assert_eq!(answer_from_line(&answer_to_line(&answer)).unwrap(), answer);
}

fn letters() -> Vec<Vec<u8>> {
    let restored = mailbox::Restored {
        instance: "0".repeat(32),
        generation: 2,
        seed: "1".repeat(64),
        restore_unix_ms: 1_760_000_000_000,
    };
    let resumed = mailbox::Resumed { image: "/images/one".into(), generation: 1 };
    let failed = mailbox::Failed { message: "no".into(), failures: Vec::new() };
    vec![
        mailbox::encode_restored(&restored, b"A=1\0B=\0", b"Main\0-v\0").unwrap(),
        mailbox::encode_resumed(&resumed).unwrap(),
        mailbox::encode_failed(&failed).unwrap(),
        vec![0; mailbox::HEADER_BYTES],
    ]
}

fn read_letter(bytes: &[u8]) {
    let Ok(letter) = mailbox::decode(bytes) else { return };
    let again = match &letter {
        Letter::Waiting => return,
        Letter::Resumed(resumed) => mailbox::encode_resumed(resumed),
        Letter::Failed(failed) => mailbox::encode_failed(failed),
        Letter::Restored { restored, environment, arguments, data } => {
            mailbox::encode_restored_with(
                restored,
                &mailbox::join_block(environment),
                &mailbox::join_block(arguments),
                data,
            )
        }
    };
    // JSON may grow when it is written in our way, up to the mailbox's end.
    let Ok(again) = again else { return };
    assert!(mailbox::letter_bytes(&again[..mailbox::HEADER_BYTES]) == Some(again.len()));
    assert_eq!(mailbox::decode(&again).unwrap(), letter);
}

/// Says `bytes` to an application, and then nothing more.
fn be_asked(bytes: &[u8]) {
    static SERVER: LazyLock<&'static Server> = LazyLock::new(Server::start);
    let path = SERVER.path();
    let mut stream = UnixStream::connect(&path).expect("an application that listens");
    let mut reader = stream.try_clone().expect("a second descriptor");
    // What is answered must be taken while we still talk, or both sides wait for each other.
    let answers = thread::spawn(move || {
        let mut answers = Vec::new();
        let _ = reader.read_to_end(&mut answers);
        answers
    });
    // It may hang up on us in the middle.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let answers = answers.join().expect("a reader");
    let lines = answers.split_inclusive(|&byte| byte == b'\n');
    let mut count = 0;
    for line in lines {
        let _ = answer_from_line(line).expect("an answer of the protocol");
        count += 1;
    }
    assert!(count <= bytes.split(|&byte| byte == b'\n').count(), "one answer to a line");
    // Whatever was said: the application is there for the next one.
    let mut client = Client::connect(&SERVER.path_after(&path)).expect("it listens again");
    assert_eq!(client.status().expect("a status").state, State::Running);
}

/// An application that agrees to everything.
struct Server {
    _scratch: Scratch,
    path: Mutex<PathBuf>,
    moved: Condvar,
    prepared: Mutex<bool>,
}

impl Server {
    fn start() -> &'static Self {
        let scratch = Scratch::new("server");
        let directory = scratch.0.join("tub-0");
        let server: &'static Self = Box::leak(Box::new(Self {
            _scratch: scratch,
            path: Mutex::default(),
            moved: Condvar::new(),
            prepared: Mutex::default(),
        }));
        thread::spawn(move || serve(&directory, server).expect("it serves for ever"));
        server
    }

    /// Where it listens.
    fn path(&self) -> PathBuf {
        self.path_that(|path| path != Path::new(""))
    }

    /// Where it listens now that a conversation at `path` is over: a commit moves it.
    fn path_after(&self, path: &Path) -> PathBuf {
        if UnixStream::connect(path).is_ok() {
            return path.to_owned();
        }
        self.path_that(|now| now != path)
    }

    fn path_that(&self, fits: impl Fn(&Path) -> bool) -> PathBuf {
        let path = self.path.lock().unwrap();
        let patience = Duration::from_secs(20);
        let (path, wait) =
            self.moved.wait_timeout_while(path, patience, |path| !fits(path)).unwrap();
        assert!(!wait.timed_out(), "it does not listen any more");
        path.clone()
    }
}

impl Application for Server {
    fn status(&self) -> Status {
        let prepared = *self.prepared.lock().unwrap();
        Status { state: if prepared { State::Prepared } else { State::Running }, ..status() }
    }

    fn prepare(&self, _: Peer, _: Duration) -> Result<Prepared, Refusal> {
        *self.prepared.lock().unwrap() = true;
        Ok(prepared())
    }

    fn abort(&self, _: &str, _: &[OpenResource]) -> Result<(), Refusal> {
        assert!(std::mem::take(&mut *self.prepared.lock().unwrap()), "prepared before");
        Ok(())
    }

    fn commit(&self, _: Duration) {
        assert!(std::mem::take(&mut *self.prepared.lock().unwrap()), "prepared before");
    }

    fn listening(&self, path: PathBuf) {
        *self.path.lock().unwrap() = path;
        self.moved.notify_all();
    }
}

/// Asks somebody who answers `bytes`, and then nothing more.
fn be_answered(bytes: &[u8]) {
    static PEER: LazyLock<(Scratch, UnixListener)> = LazyLock::new(|| {
        let scratch = Scratch::new("client");
        let listener = UnixListener::bind(scratch.0.join("socket")).expect("a socket of our own");
        (scratch, listener)
    });
    let (scratch, listener) = &*PEER;
    let mut client = Client::connect(&scratch.0.join("socket")).expect("somebody listens");
    let (mut peer, _) = listener.accept().expect("somebody connects");
    // As much as fits without a reader: the client must not need more.
    peer.set_nonblocking(true).expect("a mode");
    let _ = peer.write_all(bytes);
    let _ = peer.shutdown(Shutdown::Write);
    let _ = client.prepare(Duration::from_secs(1));
    let _ = client.status();
    let _ = client.commit(Duration::from_secs(1));
}
