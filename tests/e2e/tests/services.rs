//! The example services in each language, as a user starts them: the original, and copies of it at once.
//! Not here: those in Java (`frameworks`).

use crate::languages::Language;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tub_testkit::{Flavour, Instance, Restore, Scratch, Tub, User, wait_for};

/// The port that a service says it listens at.
fn port(instance: &Instance) -> u16 {
    let said = wait_for(Duration::from_secs(60), || {
        let output = instance.output();
        let whole = output.rsplit_once('\n')?.0;
        whole.lines().rev().find_map(|line| line.strip_prefix("port ")?.parse().ok())
    });
    said.unwrap_or_else(|| panic!("no port\n{}", instance.tell()))
}

/// What a service answers: its life, how many it has served in all, a random number.
fn ask(port: u16) -> Vec<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    // Node may send it in chunks.
    let line = body.lines().find(|line| line.contains(' ')).unwrap_or_default();
    line.split(' ').map(str::to_owned).collect()
}

/// Starts the example as a user does, and demands an answer of it and of two copies at once.
fn serves(mut language: Language, dir: &Scratch, example: &str) {
    let program = dir.join(Path::new(example).file_name().unwrap());
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    fs::copy(examples.join(example), &program).unwrap();
    language.before.truncate(1);
    language.before.push(program.display().to_string());
    let home = Arc::new(Scratch::new(User::Ordinary));
    let mut run = Tub::new(User::Ordinary, "run").arg("--image").arg(home.join("inside")).arg("--");
    for word in &language.before {
        run = run.arg(word);
    }
    let mut command = run.command();
    command.env("PORT", "0");
    command.envs(language.variables.iter().map(|(name, value)| (name, value)));
    let listens = |printed: &str| printed.contains("port ").then_some(());
    let mut original = Instance::start(language.name, &home, command, listens);
    assert_eq!(ask(port(&original))[..2], ["original", "1"]);
    let image = home.join("image");
    original.checkpoint_and_end(&image);
    let restore = Restore::of(&original, &image, Flavour::USUAL).args(&["--env", "PORT=0"]);
    let answers = [restore.start(), restore.start()].map(|copy| {
        let answer = ask(port(&copy));
        assert_eq!(answer[..2], ["restored", "2"], "{}", copy.tell());
        (answer[2].clone(), copy)
    });
    assert_ne!(answers[0].0, answers[1].0, "both have drawn the same number");
}

#[test]
fn the_example_for_node_serves() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::node(&dir) else { return };
    serves(language, &dir, "node-service/service.mjs");
}

#[test]
fn the_example_for_python_serves() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::python(&dir, &[]) else { return };
    serves(language, &dir, "python-service/service.py");
}
