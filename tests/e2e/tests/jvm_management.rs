//! Remote JMX: stopped for the image, and there again in each life with the same settings.

use crate::http::free_port;
use crate::jdk::Jdk;
use crate::jvm::on_each_jdk;
use crate::jvm_program::Program;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tub_testkit::{Flavour, Instance, Pids, Restore, User, as_user, run_bounded, wait_for};

/// What a remote agent is asked for.
const SETTINGS: [&str; 2] = ["jmxremote.ssl=false", "jmxremote.authenticate=false"];

/// A client that is connected; it goes when it is dropped.
struct Client(Child);

impl Client {
    /// Connects, and demands that the other side is an `original` or a `copy`.
    fn connect(jdk: &Jdk, program: &Program, port: u16, expected: &str) -> Self {
        let mut command = as_user(User::Ordinary, &jdk.java());
        command.args(["-XX:TieredStopAtLevel=1", "-cp"]).arg(program.dir.join("classes"));
        command.args(["Jmx$Client", &port.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = Self(command.spawn().unwrap());
        let mut line = String::new();
        // Its end is the end of its output as well.
        BufReader::new(client.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), expected, "of the JVM on port {port}");
        client
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        if wait_for(Duration::from_secs(30), || self.0.try_wait().ok().flatten()).is_none() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

fn jcmd(jdk: &Jdk, instance: &Instance, words: &[&str]) -> String {
    let mut command: Command = as_user(User::Ordinary, &jdk.home.join("bin/jcmd"));
    command.arg(instance.pid().to_string()).args(words);
    run_bounded(command, Duration::from_secs(60)).succeeds().stdout
}

/// Clients reach it, its copy and the copy of that, while others are connected at the checkpoint.
fn is_there_in_each_life(jdk: &Jdk, program: &Program, port: u16, original: Instance) {
    let mut life = original;
    let mut kind = "original";
    for generation in 1..=2 {
        let _connected = Client::connect(jdk, program, port, kind);
        let image = program.dir.join(format!("image-{port}-{generation}"));
        life.checkpoint_and_end(&image);
        let pids = if generation == 1 { Pids::Keep } else { Pids::New };
        life = Restore::of(&life, &image, Flavour { pids, ..Flavour::USUAL }).start();
        kind = "copy";
    }
    drop(Client::connect(jdk, program, port, kind));
    let status = jcmd(jdk, &life, &["ManagementAgent.status"]);
    assert!(status.contains("enabled") && status.contains(&port.to_string()), "{status}");
    life.go("end");
    life.verdict();
}

#[test]
fn remote_management_is_there_in_each_life() {
    on_each_jdk(|jdk| {
        // Asked for at the start, with a port for objects that nobody chose.
        let port = free_port();
        let mut flags = vec![
            "-Djava.rmi.server.hostname=127.0.0.1".to_owned(),
            format!("-Dcom.sun.management.jmxremote.port={port}"),
        ];
        flags.extend(SETTINGS.map(|setting| format!("-Dcom.sun.management.{setting}")));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let program = Program::new(jdk, "Jmx").flags(&flags);
        let original = program.start(&[&port.to_string()]);
        is_there_in_each_life(jdk, &program, port, original);
    });
}

#[test]
fn management_started_by_command_is_there_in_each_life() {
    on_each_jdk(|jdk| {
        let port = free_port();
        let program = Program::new(jdk, "Jmx").flags(&["-Djava.rmi.server.hostname=127.0.0.1"]);
        let original = program.start(&[&port.to_string()]);
        let ports = [format!("jmxremote.port={port}"), format!("jmxremote.rmi.port={port}")];
        let mut words = vec!["ManagementAgent.start"];
        words.extend(ports.iter().map(String::as_str).chain(SETTINGS));
        jcmd(jdk, &original, &words);
        jcmd(jdk, &original, &["ManagementAgent.start_local"]);
        is_there_in_each_life(jdk, &program, port, original);
    });
}
