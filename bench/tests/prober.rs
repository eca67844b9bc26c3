//! The prober as others use it: a command line, orders, events.
//!
//! In: the real binary. Out: what it prints, and what becomes of the command that it started.
//! Invariant: every wait has an end.
//! Not here: HTTP and rates, which the unit tests cover.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

struct Prober {
    child: Child,
    events: Receiver<Value>,
}

impl Prober {
    fn start(arguments: &[&str], command: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tub-prober"))
            .arg("run")
            .args(arguments)
            .arg("--")
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, events) = channel();
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self { child, events }
    }

    fn event(&self, name: &str) -> Value {
        let event = self.events.recv_timeout(PATIENCE).expect("an event in time");
        assert_eq!(event["event"], name, "{event}");
        event
    }

    fn order(&mut self, order: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{order}").unwrap();
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Greets whoever asks. The prober does not care who answers, so its command can be a `sleep`.
fn greeter() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 1024];
            while matches!(stream.read(&mut request), Ok(1..)) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
            }
        }
    });
    port.to_string()
}

/// A port on which nobody listens.
fn silent_port() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port().to_string()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < give_up, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A file name of this test process.
fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("tub-prober-{}-{name}", std::process::id()));
    let _ = fs::remove_file(&path);
    path
}

fn is_alive(pid: &str) -> bool {
    // A zombie has no command line.
    fs::read(Path::new("/proc").join(pid).join("cmdline")).is_ok_and(|line| !line.is_empty())
}

#[test]
fn obeys_orders() {
    let port = greeter();
    let mut prober = Prober::start(&["--port", &port, "--expect", "hello"], &["sleep", "60"]);
    let pid = prober.event("started")["pid"].to_string();
    let answered = prober.event("answered");
    assert!(answered["first_correct_ms"].as_f64().unwrap() > 0.0);
    assert!(answered["connected_ms"].as_f64() <= answered["first_byte_ms"].as_f64());
    prober.order("load 300");
    let load = prober.event("load");
    assert_eq!((&load["answered"], &load["failures"]), (&300.into(), &0.into()));
    assert!(load["first_200_rate"].as_f64().unwrap() > 0.0);
    prober.order("get");
    assert_eq!(prober.event("get")["correct"], true);
    assert!(is_alive(&pid));
    prober.order("stop");
    assert_eq!(prober.event("stopped")["signal"], 15);
    assert!(!is_alive(&pid));
}

#[test]
fn the_end_of_its_orders_ends_the_command() {
    let port = greeter();
    let mut prober = Prober::start(&["--port", &port, "--expect", "hello"], &["sleep", "60"]);
    let pid = prober.event("started")["pid"].to_string();
    prober.event("answered");
    drop(prober.child.stdin.take());
    assert_eq!(prober.event("stopped")["signal"], 15);
    assert!(!is_alive(&pid));
}

#[test]
fn the_command_does_not_outlive_a_killed_prober() {
    let file = scratch("pid");
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 60", file.display());
    let port = silent_port();
    let mut prober = Prober::start(&["--port", &port, "--expect", "hello"], &["sh", "-c", &script]);
    wait_until("the command runs", || file.exists());
    let pid = fs::read_to_string(&file).unwrap().trim().to_owned();
    // For a moment in the middle of exec a process has no command line either.
    wait_until("the command is alive", || is_alive(&pid));
    prober.child.kill().unwrap();
    wait_until("the command is gone", || !is_alive(&pid));
    fs::remove_file(file).unwrap();
}

#[test]
fn the_command_inherits_nothing_by_accident() {
    let file = scratch("fds");
    // The shell leaks descriptor 9 into the prober; inside, the listing itself is descriptor 3.
    let script = format!(
        "exec 9</dev/null; exec {} run --port {} --expect hello -- \
         sh -c 'ls /proc/self/fd > {}; exec sleep 60'",
        env!("CARGO_BIN_EXE_tub-prober"),
        greeter(),
        file.display()
    );
    let mut shell = Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
    wait_until("the listing is there", || fs::read_to_string(&file).is_ok_and(|l| !l.is_empty()));
    drop(shell.stdin.take());
    shell.wait().unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "0\n1\n2\n3\n");
    fs::remove_file(file).unwrap();
}

#[test]
fn holds_until_told() {
    let file = scratch("held");
    let touch = format!("touch {}; exec sleep 60", file.display());
    let port = greeter();
    let options = ["--hold", "--port", &port, "--expect", "hello"];
    let mut prober = Prober::start(&options, &["sh", "-c", &touch]);
    prober.event("ready");
    assert!(!file.exists());
    prober.order("go");
    prober.event("started");
    prober.event("answered");
    wait_until("the command runs", || file.exists());
    fs::remove_file(file).unwrap();
}

#[test]
fn says_why_there_was_no_answer() {
    let port = silent_port();
    let prober = Prober::start(&["--port", &port, "--expect", "hello"], &["false"]);
    let failed = prober.event("failed");
    let expected = "service: ended before its first correct answer, exit status: 1";
    assert_eq!(failed["error"], expected);
}

#[test]
fn a_namespace_of_ones_own_has_loopback_and_nothing_else() {
    let probe = Command::new(env!("CARGO_BIN_EXE_tub-prober")).arg("netns").output().unwrap();
    if !probe.status.success() {
        println!("skipped: {}", String::from_utf8_lossy(&probe.stdout).trim());
        return;
    }
    // The greeter listens outside, so the prober must not reach it from inside.
    let port = greeter();
    let options = ["--netns", "--port", &port, "--expect", "hello", "--deadline", "1"];
    let file = scratch("netdev");
    let script = format!("cat /proc/net/dev > {}; exec sleep 60", file.display());
    let prober = Prober::start(&options, &["sh", "-c", &script]);
    let error = prober.event("failed")["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("service: no correct answer within 1 s"), "{error}");
    let devices = fs::read_to_string(&file).unwrap();
    let names: Vec<&str> =
        devices.lines().filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
    assert_eq!(names, ["lo"]);
    fs::remove_file(file).unwrap();
}
