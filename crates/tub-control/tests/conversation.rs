//! Conversations over a real socket, between a real client and a real server.
#![expect(clippy::unwrap_used, reason = "the helpers of a test panic as its body does")]

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};
use tub_control::{
    Application, Client, ClientError, MailboxPlace, OpenResource, OpenRule, Peer, Prepared,
    Refusal, RefusalKind, State, Status,
};
use tub_units::HostPid;

const SOON: Duration = Duration::from_secs(10);

/// An application of one resource, which takes as long as it is told to.
struct Scripted {
    state: Mutex<State>,
    prepare_takes: Duration,
    told: Sender<String>,
}

impl Scripted {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Application for Scripted {
    fn status(&self) -> Status {
        Status {
            state: *self.state(),
            runtime: "scripted".into(),
            resources: vec!["one".into()],
            generation: 0,
            image: None,
            placeholders: false,
        }
    }

    fn prepare(&self, peer: Peer, timeout: Duration) -> Result<Prepared, Refusal> {
        if *self.state() != State::Running {
            return Err(Refusal::new(RefusalKind::Busy, "another checkpoint is under way"));
        }
        *self.state() = State::Preparing;
        assert_eq!(peer.pid, i32::try_from(std::process::id()).unwrap());
        thread::sleep(self.prepare_takes.min(timeout));
        if self.prepare_takes > timeout {
            *self.state() = State::Running;
            return Err(Refusal::new(RefusalKind::TimedOut, "one did not return"));
        }
        *self.state() = State::Prepared;
        Ok(Prepared {
            mailbox: MailboxPlace { address: 0x10000, bytes: 1 << 20 },
            private_fds: vec![],
            open: OpenRule::Refuse,
            allowed_paths: vec![],
            runtime: "scripted".into(),
            resources: vec!["one".into()],
            metrics: vec![],
        })
    }

    fn abort(&self, message: &str, failures: &[OpenResource]) -> Result<(), Refusal> {
        *self.state() = State::Running;
        self.told.send(format!("abort {message} {}", failures.len())).unwrap();
        Ok(())
    }

    fn commit(&self, deadline: Duration) {
        self.told.send(format!("commit {deadline:?}")).unwrap();
        thread::sleep(Duration::from_millis(200));
        *self.state() = State::Running;
    }
}

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server on a thread of its own, which ends with the process.
fn start(name: &str, prepare_takes: Duration) -> (Scratch, PathBuf, Receiver<String>) {
    let base = std::env::temp_dir().join(format!("tubcontrol-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&base).unwrap();
    let directory = base.join("tub-1");
    let (told, heard) = mpsc::channel();
    let served = directory.clone();
    thread::spawn(move || {
        let scripted = Scripted { state: Mutex::new(State::Running), prepare_takes, told };
        let ended = tub_control::serve(&served, &scripted);
        panic!("{ended:?}");
    });
    (Scratch(base), directory, heard)
}

fn sockets(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return vec![] };
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn socket(directory: &Path) -> PathBuf {
    let start = Instant::now();
    loop {
        // The path is there a moment before anybody listens.
        if let Some(path) = sockets(directory).pop()
            && UnixStream::connect(&path).is_ok()
        {
            return path;
        }
        assert!(start.elapsed() < SOON, "no socket in {directory:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn client(directory: &Path) -> Client {
    Client::connect(&socket(directory)).unwrap()
}

fn refusal(error: ClientError) -> Refusal {
    match error {
        ClientError::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_commit_closes_everything_and_the_socket_comes_back() {
    let (_scratch, directory, heard) = start("commit", Duration::ZERO);
    let mut bystander = client(&directory);
    assert_eq!(bystander.status().unwrap().state, State::Running);
    let first = socket(&directory);

    let mut engine = client(&directory);
    let prepared = engine.prepare(SOON).unwrap();
    assert_eq!(prepared.mailbox.range().unwrap().start(), 0x10000);
    assert_eq!(bystander.status().unwrap().state, State::Prepared);
    engine.commit(Duration::from_secs(7)).unwrap();

    assert_eq!(sockets(&directory), Vec::<PathBuf>::new());
    assert!(matches!(bystander.status(), Err(ClientError::Ended { .. })));
    assert_eq!(heard.recv_timeout(SOON).unwrap(), "commit 7s");
    let second = socket(&directory);
    assert_ne!(first, second);
    assert_eq!(client(&directory).status().unwrap().state, State::Running);
}

#[test]
fn an_abort_is_passed_on_and_the_conversation_goes_on() {
    let (_scratch, directory, heard) = start("abort", Duration::ZERO);
    let mut engine = client(&directory);
    engine.prepare(SOON).unwrap();
    let failure = OpenResource {
        kind: tub_control::OpenResourceKind::File,
        fd: Some(3),
        detail: "/a".into(),
    };
    engine.abort("cannot", &[failure]).unwrap();
    assert_eq!(heard.recv_timeout(SOON).unwrap(), "abort cannot 1");
    client(&directory).prepare(SOON).unwrap();
}

#[test]
fn an_engine_that_goes_away_has_aborted() {
    let (_scratch, directory, heard) = start("gone", Duration::ZERO);
    let mut engine = client(&directory);
    engine.prepare(SOON).unwrap();
    drop(engine);
    assert_eq!(heard.recv_timeout(SOON).unwrap(), "abort the engine went away 0");
    assert_eq!(client(&directory).status().unwrap().state, State::Running);
}

#[test]
fn of_two_engines_one_is_told_that_the_other_is_at_work() {
    let (_scratch, directory, _heard) = start("two", Duration::from_millis(300));
    let mut first = client(&directory);
    let mut second = client(&directory);
    let worker = thread::spawn(move || first.prepare(SOON).map(|_| first));
    let start = Instant::now();
    while second.status().unwrap().state == State::Running {
        assert!(start.elapsed() < SOON);
    }
    assert_eq!(refusal(second.prepare(SOON).unwrap_err()).kind, RefusalKind::Busy);
    let mut first = worker.join().unwrap().unwrap();
    assert_eq!(refusal(first.prepare(SOON).unwrap_err()).kind, RefusalKind::Busy);
    first.abort("done", &[]).unwrap();
}

#[test]
fn a_round_that_takes_too_long_is_refused() {
    let (_scratch, directory, _heard) = start("late", Duration::from_secs(3));
    let mut engine = client(&directory);
    let refused = refusal(engine.prepare(Duration::from_millis(50)).unwrap_err());
    assert_eq!(refused.kind, RefusalKind::TimedOut);
}

#[test]
fn verdicts_without_a_prepare_are_refused() {
    let (_scratch, directory, _heard) = start("unasked", Duration::ZERO);
    let refused = refusal(client(&directory).abort("no", &[]).unwrap_err());
    assert_eq!(refused.kind, RefusalKind::Protocol);
    let refused = refusal(client(&directory).commit(SOON).unwrap_err());
    assert_eq!(refused.kind, RefusalKind::Protocol);
}

#[test]
fn a_line_that_is_no_message_gets_an_answer_and_the_end() {
    let (_scratch, directory, _heard) = start("garbage", Duration::ZERO);
    for (line, kind) in [
        ("{\"v\":9,\"op\":\"status\"}\n", "\"kind\":\"version\""),
        ("{\"v\":1,\"op\":\"dance\"}\n", "\"kind\":\"protocol\""),
        ("hello\n", "\"kind\":\"protocol\""),
    ] {
        let mut stream = UnixStream::connect(socket(&directory)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(kind), "{line:?} got {answer:?}");
        assert!(answer.contains("\"ok\":false"), "{answer:?}");
    }
}

#[test]
fn a_process_is_found_by_its_descriptors() {
    let (_scratch, directory, _heard) = start("found", Duration::ZERO);
    socket(&directory);
    // Other tests of this process may have sockets too; any of them answers.
    let me = HostPid(i32::try_from(std::process::id()).unwrap());
    let mut found = Client::find(me).unwrap().expect("this process has a control socket");
    assert_eq!(found.status().unwrap().runtime, "scripted");
    // This one has none.
    let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let pid = HostPid(i32::try_from(other.id()).unwrap());
    assert!(Client::find(pid).unwrap().is_none());
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(matches!(Client::find(pid), Err(ClientError::Io { .. })));
}

/// Anybody may give a socket a name that goes on as if it were another line of `/proc/net/unix`, with the
/// inode of whichever socket.
#[test]
fn a_name_with_a_newline_makes_nobody_a_control_socket_of_others() {
    let base = std::env::temp_dir().join(format!("tubcontrol-{}-newline", std::process::id()));
    std::fs::create_dir_all(base.join("tub-1")).unwrap();
    let _scratch = Scratch(base.clone());
    let path = base.join("tub-1/0123456789abcdef.sock");
    let _listens = UnixListener::bind(&path).unwrap();
    let (here, there) = UnixStream::pair().unwrap();
    let inode = std::fs::metadata(format!("/proc/self/fd/{}", there.as_raw_fd())).unwrap().ino();
    let mut other = std::process::Command::new("sleep");
    let mut other = other.arg("60").stdin(OwnedFd::from(there)).spawn().unwrap();
    let pid = HostPid(i32::try_from(other.id()).unwrap());
    let name = format!("\n0: 2 0 10000 1 1 {inode} {}", path.display());
    let name = SocketAddr::from_abstract_name(name).unwrap();
    let _named = UnixListener::bind_addr(&name).unwrap();
    let found = Client::find(pid);
    other.kill().unwrap();
    other.wait().unwrap();
    drop(here);
    assert!(matches!(found, Ok(None)), "{found:?}");
}

/// Letters are as long as mailboxes are said to be, and would go on behind the end of a smaller one.
#[test]
fn what_offers_no_mailbox_is_not_taken_at_its_word() {
    let base = std::env::temp_dir().join(format!("tubcontrol-{}-small", std::process::id()));
    std::fs::create_dir_all(&base).unwrap();
    let path = base.join("small.sock");
    let _scratch = Scratch(base);
    let listener = UnixListener::bind(&path).unwrap();
    for (address, bytes) in [(0x10000, 4096), (0x10001, 1 << 20), (0x10000, 0)] {
        let mut client = Client::connect(&path).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let answer = Prepared {
            mailbox: MailboxPlace { address, bytes },
            private_fds: vec![],
            open: OpenRule::Refuse,
            allowed_paths: vec![],
            runtime: "small".into(),
            resources: vec![],
            metrics: vec![],
        };
        let answer = tub_control::answer_to_line(&Ok(tub_control::Event::Prepared(answer)));
        (&stream).write_all(&answer).unwrap();
        let error = client.prepare(SOON).unwrap_err();
        assert!(matches!(error, ClientError::Malformed { operation: "prepare", .. }), "{error:?}");
    }
}

#[test]
fn of_very_many_failures_as_many_are_told_as_fit() {
    let (_scratch, directory, heard) = start("many", Duration::ZERO);
    let mut engine = client(&directory);
    engine.prepare(SOON).unwrap();
    let failure = |fd| OpenResource {
        kind: tub_control::OpenResourceKind::File,
        fd: Some(fd),
        detail: format!("/a/path/of/some/{}", "length/".repeat(20)),
    };
    let failures: Vec<_> = (0..50_000).map(failure).collect();
    engine.abort("cannot", &failures).unwrap();
    let told = heard.recv_timeout(SOON).unwrap();
    assert_eq!(told, "abort cannot (12500 of 50000 objects are named) 12500");
}

/// Says to the program that it is the one that runs out of descriptors.
const RUNS_OUT: &str = "TUB_TEST_RUNS_OUT";

/// What runs out of descriptors while it waits in its mailbox; by itself it is no test.
#[test]
fn program_that_runs_out_of_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if std::env::var_os(RUNS_OUT).is_none() {
        return;
    }
    let (_scratch, directory, heard) = start("out", Duration::ZERO);
    let mut engine = client(&directory);
    engine.prepare(SOON).unwrap();
    let first = socket(&directory);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    thread::spawn(move || {
        assert!(heard.recv_timeout(SOON).unwrap().starts_with("commit"));
        setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
        thread::sleep(Duration::from_millis(600));
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    });
    engine.commit(SOON).unwrap();
    thread::sleep(Duration::from_millis(700));
    assert_ne!(first, socket(&directory));
    assert_eq!(client(&directory).status().unwrap().state, State::Running);
}

#[test]
fn who_lacks_descriptors_for_a_moment_listens_again() {
    let mut program = std::process::Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", "program_that_runs_out_of_descriptors"]).env(RUNS_OUT, "");
    assert!(program.status().unwrap().success());
}

/// Whoever has died or stands still with a full queue keeps nobody from listening.
#[test]
fn a_full_queue_behind_an_old_name_keeps_nobody_waiting() {
    let base = std::env::temp_dir().join(format!("tubcontrol-{}-full", std::process::id()));
    let directory = base.join("tub-1");
    tub_control::make_directory(&base).unwrap();
    tub_control::make_directory(&directory).unwrap();
    let _scratch = Scratch(base);
    let old = directory.join("00000000000000aa.sock");
    let full = UnixListener::bind(&old).unwrap();
    nix::sys::socket::listen(&full, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let _waits = UnixStream::connect(&old).unwrap();
    let long_ago = nix::sys::time::TimeSpec::new(1_000_000_000, 0);
    let flags = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
    nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, &old, &long_ago, &long_ago, flags).unwrap();
    let (told, _heard) = mpsc::channel();
    let served = directory.clone();
    thread::spawn(move || {
        let scripted =
            Scripted { state: Mutex::new(State::Running), prepare_takes: Duration::ZERO, told };
        let ended = tub_control::serve(&served, &scripted);
        panic!("{ended:?}");
    });
    let start = Instant::now();
    let fresh = loop {
        if let Some(path) = sockets(&directory).into_iter().find(|path| *path != old) {
            break path;
        }
        assert!(start.elapsed() < SOON);
    };
    let mut client = Client::connect(&fresh).unwrap();
    assert_eq!(client.status().unwrap().state, State::Running);
    assert!(old.exists(), "somebody listens there");
}

#[test]
fn a_directory_that_others_may_enter_is_refused() {
    let base = std::env::temp_dir().join(format!("tubcontrol-{}-open", std::process::id()));
    let directory = base.join("tub-1");
    std::fs::create_dir_all(&directory).unwrap();
    let _scratch = Scratch(base);
    std::fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let (told, _heard) = mpsc::channel();
    let scripted =
        Scripted { state: Mutex::new(State::Running), prepare_takes: Duration::ZERO, told };
    let error = tub_control::serve(&directory, &scripted).unwrap_err();
    assert!(error.to_string().contains("0755"), "{error}");
}
