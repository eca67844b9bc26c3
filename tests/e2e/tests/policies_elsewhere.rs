//! Resource policies where the image is not our own engine's, where there is none, and where there is more than one
//! process: rules are the application's, so that they hold with every engine.

use crate::language::{Language, Life, Which};
use crate::policies::{IGNORED, MOST};
use crate::prepare::{Copy, call_criu};
use std::fs;
use std::time::Duration;
use tub_testkit::{
    Finished, Flavour, Memory, Pids, Restore, Scratch, Tub, User, code, criu, run_bounded,
};

/// What each language has under CRIU and by hand.
fn languages(dir: &Scratch) -> Vec<Language> {
    let which = Which::LeftOpen;
    let scripted = [Language::python(dir, which, &[]), Language::node(dir, which)];
    let compiled = [Some(Language::rust(which)), Language::c(dir, which)];
    scripted.into_iter().chain(compiled).flatten().collect()
}

const AS_EVER: [&str; 6] =
    ["input 456", "closed EBADF", "log ok", "data 8", "server true", "client true"];

#[test]
fn rules_are_followed_under_criu() {
    let Some(criu) = criu() else { return };
    let words = ["--engine", "criu", "--criu", criu.to_str().unwrap()];
    let flavour = Flavour { user: User::Root, pids: Pids::Keep, memory: Memory::Auto };
    let dir = Scratch::new(User::Root);
    for language in languages(&dir) {
        let mut life = Life::start(&language, User::Root, Which::LeftOpen, &[]);
        let image = life.instance.dir().join("image");
        // What a rule forbids is refused in the same words, and nothing has been closed.
        life.write("policy", "type: file\npath: **/closed.txt\naction: error\n");
        let refused = life.instance.checkpoint(&image, &words);
        refused.fails_with(code::REFUSED, &["closed.txt", "rule on lines 1-4"]);
        assert_eq!(peek(&mut life, "peek 1"), ["input 3", "closed 0"]);
        // CRIU fails: what was out of the way is there again.
        life.write("policy", &format!("{MOST}{IGNORED}"));
        let failing = [&words[..], &["--criu-option=--no-such-option"]].concat();
        life.instance.checkpoint(&image, &failing).fails_with(code::FAILED, &["CRIU"]);
        life.lines_until("after");
        assert_eq!(peek(&mut life, "peek 2"), ["input 4", "closed EBADF"]);
        life.instance.checkpoint(&image, &words).succeeds();
        life.instance.wait();
        let state = life.instance.dir().join("state");
        fs::write(state.join("input.txt"), "abcdefgh").unwrap();
        for life_of_image in 0..2 {
            let restore = Restore::of(&life.instance, &image, flavour).args(&words[2..]);
            let mut copy = Life { instance: restore.start(), seen: 0 };
            copy.lines_until("after");
            let mut expected = AS_EVER;
            expected[0] = "input fgh";
            let found = copy.order("look");
            assert_eq!(found, expected, "{life_of_image} {}", copy.instance.tell());
        }
    }
}

/// What it finds, after whatever else it has said by then.
fn peek(life: &mut Life, order: &str) -> Vec<String> {
    let mut lines = life.order(order);
    lines.split_off(lines.len() - 2)
}

fn tub(verb: &str, life: &Life, options: &[&str]) -> Finished {
    Tub::new(User::Root, verb).arg(life.instance.pid().to_string()).args(options).run()
}

/// By `tub prepare` and `tub resume`, and by a CRIU that knows nothing of us.
#[test]
fn rules_are_followed_where_somebody_else_takes_the_image() {
    let dir = Scratch::new(User::Root);
    for language in languages(&dir) {
        let mut life = Life::start(&language, User::Root, Which::LeftOpen, &[]);
        life.write("policy", "type: file\npath: **/closed.txt\naction: error\n");
        tub("prepare", &life, &[]).fails_with(code::REFUSED, &["closed.txt", "rule on lines 1-4"]);
        assert_eq!(peek(&mut life, "peek 1"), ["input 3", "closed 0"]);
        life.write("policy", &format!("{MOST}{IGNORED}"));
        tub("prepare", &life, &[]).succeeds();
        tub("resume", &life, &["--failed", "no room"]).succeeds();
        life.lines_until("after");
        assert_eq!(peek(&mut life, "peek 2"), ["input 4", "closed EBADF"]);
        tub("prepare", &life, &[]).succeeds();
        let Some(criu) = criu() else {
            tub("resume", &life, &[]).succeeds();
            life.lines_until("after");
            assert_eq!(life.order("look")[1..], AS_EVER[1..]);
            continue;
        };
        let pid = life.instance.pid();
        let images = life.instance.dir().make_dir("criu");
        let mut dump = call_criu(&criu, "dump", &images);
        dump.args(["--tree", &pid.to_string()]);
        run_bounded(dump, Duration::from_secs(60)).succeeds();
        life.instance.wait();
        let copy = Copy::start(call_criu(&criu, "restore", &images), pid);
        life.lines_until("after");
        let mut expected = AS_EVER;
        expected[0] = "input 56789";
        assert_eq!(life.order("look"), expected, "{}", life.instance.tell());
        drop(copy);
    }
}

/// A parent that takes part, and a child that has been given all that it has open.
const FAMILY: &str = r#"
import errno, os, socket, sys, time
import tubthumping
at = lambda name: os.path.join(sys.argv[1], name)
for name in ("input.txt", "closed.txt"):
    with open(at(name), "w") as file:
        file.write("0123456789")
given = os.open(at("input.txt"), os.O_RDONLY)
closed = os.open(at("closed.txt"), os.O_RDONLY)
log = os.open(at("app.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
accepted, _ = server.accept()
numbers = [given, closed, log, server.fileno(), client.fileno()]
def found(ask):
    try:
        return ask()
    except OSError as error:
        return errno.errorcode[error.errno]
def look(who):
    text = [found(lambda: os.read(given, 3)), found(lambda: os.read(closed, 3)),
            found(lambda: os.write(log, b"line\n")), found(lambda: os.read(server.fileno(), 1)),
            found(lambda: os.read(client.fileno(), 1))]
    os.write(1, f"{who} {text}\n".encode())
if os.fork() == 0:
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in numbers:
            found(lambda: os.close(int(name)))
    while not os.path.exists(at("look")):
        time.sleep(0.01)
    look("child")
    os.write(1, b"done\n")
    time.sleep(1000)
accepted.close()
@tubthumping.after_restore
def after():
    look("parent")
    open(at("look"), "w").close()
os.write(1, b"ready\n")
while True:
    time.sleep(0.1)
"#;

#[test]
fn rules_are_for_the_process_that_takes_part_and_its_children_keep_what_they_have() {
    let dir = Scratch::new(User::Root);
    let Some(mut language) = Language::python(&dir, Which::LeftOpen, &[]) else { return };
    let program = dir.join("family.py");
    fs::write(&program, FAMILY).unwrap();
    language.before[1] = program.display().to_string();
    let mut life = Life::start(&language, User::Ordinary, Which::LeftOpen, &[]);
    life.write("policy", MOST_OF_THE_FAMILY);
    let image = life.instance.dir().join("image");
    life.instance.checkpoint_and_end(&image);
    for _ in 0..2 {
        let restore = Restore::of(&life.instance, &image, Flavour::USUAL);
        let mut copy = Life { instance: restore.start(), seen: 0 };
        let lines = copy.lines_until("done");
        let expected = [
            "parent [b'012', 'EBADF', 5, 'ENOTCONN', 'EBADF']",
            // Its own numbers are open; but the connection that they share has ended.
            "child [b'012', b'012', 5, 'ENOTCONN', b'']",
        ];
        assert_eq!(lines, expected, "{}", copy.instance.tell());
        fs::remove_file(life.instance.dir().join("state/look")).unwrap();
    }
}

const MOST_OF_THE_FAMILY: &str = "\
type: file
path: **/app.log
action: reopen
---
type: file
path: **/input.txt
action: reopen
---
type: file
path: **/closed.txt
action: close
---
type: socket
listening: true
action: reopen
---
type: socket
listening: false
action: close
";
