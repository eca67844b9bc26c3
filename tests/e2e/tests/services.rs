//! The example services in each language, as a user starts them: the original, and copies of it at once.
//! Not here: those in Java (`frameworks`).

use crate::http::{free_port, get};
use crate::language::{Language, Which};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tub_testkit::{
    Flavour, Instance, Pids, Restore, Scratch, Tub, User, axum_service, uvicorn, wait_for,
};

/// The port that a service says it listens at.
fn port(instance: &Instance) -> u16 {
    port_after(instance, 0)
}

/// The one that it says after it has said so often where it listens.
fn port_after(instance: &Instance, times: usize) -> u16 {
    let said = wait_for(Duration::from_secs(60), || {
        let output = instance.output();
        let whole = output.rsplit_once('\n')?.0;
        let ports = whole.lines().filter_map(|line| line.strip_prefix("port "));
        ports.skip(times).last()?.parse().ok()
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

/// Starts an example as a user does.
fn start(language: &Language) -> Instance {
    let home = Arc::new(Scratch::new(User::Ordinary));
    let mut run = Tub::new(User::Ordinary, "run").arg("--image").arg(home.join("inside")).arg("--");
    for word in &language.before {
        run = run.arg(word);
    }
    let mut command = run.command();
    command.env("PORT", "0");
    command.envs(language.variables.iter().map(|(name, value)| (name, value)));
    let listens = |printed: &str| printed.contains("port ").then_some(());
    Instance::start(language.name, &home, command, listens)
}

/// Takes an image, and demands answers of two copies at once, after those that were given before.
fn gets_up_twice(original: &mut Instance, before: u32) -> [Instance; 2] {
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    let restore = Restore::of(original, &image, Flavour::USUAL).args(&["--env", "PORT=0"]);
    let copies = [restore.start(), restore.start()];
    let random = copies.each_ref().map(|copy| {
        let answer = ask(port(copy));
        assert_eq!(answer[..2], ["restored", &(before + 1).to_string()], "{}", copy.tell());
        answer[2].clone()
    });
    assert_ne!(random[0], random[1], "both have drawn the same number");
    copies
}

/// A script among the examples. Gives what the original had printed, and what each of two copies has.
fn serves(mut language: Language, dir: &Scratch, example: &str) -> [String; 3] {
    let program = dir.join(Path::new(example).file_name().unwrap());
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    fs::copy(examples.join(example), &program).unwrap();
    language.before.truncate(1);
    language.before.push(program.display().to_string());
    let mut original = start(&language);
    assert_eq!(ask(port(&original))[..2], ["original", "1"]);
    let [one, other] = gets_up_twice(&mut original, 1);
    [&original, &one, &other].map(Instance::output)
}

#[test]
fn the_example_for_node_serves() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::node(&dir, Which::Subject) else { return };
    serves(language, &dir, "node-service/service.mjs");
}

#[test]
fn the_example_for_python_serves() {
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::python(&dir, Which::Subject, &[]) else { return };
    serves(language, &dir, "python-service/service.py");
}

#[test]
fn the_example_for_axum_serves() {
    let mut original = start(&Language::program("axum", axum_service()));
    assert_eq!(ask(port(&original))[..2], ["original", "1"]);
    // One connection that may be used again, and one on which nothing was ever asked.
    let address = ("127.0.0.1", port(&original));
    let mut connections = [(); 2].map(|()| TcpStream::connect(address).unwrap());
    connections[0].write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(connections[0].read(&mut [0; 1024]).unwrap() > 0);

    let image = original.dir().join("resumed");
    original.checkpoint(&image, &["--leave-running"]).succeeds();
    for connection in &mut connections {
        connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        assert_eq!(connection.read(&mut [0; 1024]).unwrap(), 0, "it goes on");
    }
    assert_eq!(ask(port_after(&original, 1))[..2], ["resumed", "3"]);

    for mut copy in gets_up_twice(&mut original, 3) {
        kill(Pid::from_raw(copy.command_pid()), Signal::SIGTERM).unwrap();
        let status = copy.ends_within(Duration::from_secs(30));
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{}", copy.tell());
    }
}

/// Python's, with uvicorn beside the package.
fn uvicorn_language(dir: &Scratch) -> Option<Language> {
    let uvicorn = uvicorn()?;
    let mut language = Language::python(dir, Which::Subject, &[])?;
    // Wherever the checkout lies, an ordinary user reaches the copy.
    let copy = dir.join("uvicorn");
    let status = Command::new("cp").arg("-R").arg(uvicorn).arg(&copy).status();
    assert!(status.is_ok_and(|status| status.success()), "uvicorn cannot be copied");
    let (_, path) = &mut language.variables[0];
    *path = format!("{path}:{}:{}", copy.display(), dir.path().display());
    Some(language)
}

#[test]
fn the_example_for_uvicorn_serves() {
    let dir = Scratch::new(User::Root);
    let Some(language) = uvicorn_language(&dir) else { return };
    let [original, copies @ ..] = serves(language, &dir, "uvicorn-service/service.py");
    let lines = |printed: &str| -> Vec<String> {
        let words = printed.lines().filter_map(|line| line.split(' ').next());
        words.map(str::to_owned).collect()
    };
    assert_eq!(lines(&original), ["lifespan.startup", "port", "lifespan.shutdown"]);
    for copy in copies {
        assert_eq!(lines(&copy), ["lifespan.startup", "port"]);
    }
}

/// Uvicorn as it is started everywhere, whose listener the engine restores: at the same port, so one copy comes
/// after the other.
#[test]
fn an_application_of_uvicorns_has_its_hooks_called_in_order() {
    let dir = Scratch::new(User::Root);
    let Some(language) = uvicorn_language(&dir) else { return };
    let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/app.py");
    fs::copy(app, dir.join("app.py")).unwrap();
    let home = Arc::new(Scratch::new(User::Ordinary));
    let port = free_port();
    let run = Tub::new(User::Ordinary, "run").args(&["--open", "restore", "--"]);
    let run = run.arg(&language.before[0]).args(&["-m", "uvicorn", "app:app"]);
    let run = run.args(&["--loop", "asyncio", "--no-access-log", "--port", &port.to_string()]);
    let mut command = run.command();
    command.envs(language.variables.iter().map(|(name, value)| (name, value)));
    let answers = |_: &str| TcpStream::connect(("127.0.0.1", port)).ok().map(drop);
    let mut original = Instance::start("uvicorn", &home, command, answers);
    assert_eq!(get(port, "/").unwrap(), "original 1");
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    assert_eq!(original.output(), "before last\nbefore pool\nbefore first\n");
    for pids in [Pids::Keep, Pids::New] {
        let copy = Restore::of(&original, &image, Flavour { pids, ..Flavour::USUAL }).start();
        copy.prints("after told restored");
        assert_eq!(copy.output(), "after pool restored\nafter told restored\n");
        assert_eq!(get(port, "/").unwrap(), "restored 2", "{}", copy.tell());
    }
}
