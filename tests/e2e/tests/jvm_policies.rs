//! What a JVM's application leaves open: refused in CRaC's words, or dealt with by CRaC's rules.

use crate::http::free_port;
use crate::jvm::on_each_jdk;
use crate::jvm_program::Program;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;
use tub_testkit::{Flavour, Restore, Tub, User, criu, is_root, run_bounded, skipped, wait_for};

/// One rule of each kind.
const RULES: &str = "\
# What the program leaves open
type: FILE
path: **/*.log
action: reopen
---
type: file
path: **/input.txt
action: reopen
warn: false
---
type: file
path: **/closed.txt
action: close
---
type: filedescriptor
regex: .*/data\\.bin
action: ignore
---
type: socket
family: unix
localPath: **/named.sock
action: ignore

---
type: socket
listening: true
localAddress: 127.0.0.1
localPort: *
action: reopen
---
type: socket
family: ipv4
remoteAddress: localhost
action: close
---
type: pipe
action: ignore
";

#[test]
fn what_is_left_open_is_refused_in_cracs_words_or_follows_the_rules() {
    on_each_jdk(|jdk| {
        let program = Program::new(jdk, "Policies");
        let image = program.dir.join("image");
        let policy = program.dir.join("policy");
        let program = program
            .run_options(&["--image", image.to_str().unwrap()])
            .flags(&[&format!("-Djdk.crac.resource-policies={}", policy.display())]);
        program.write("rules", RULES);
        // Both parsers have the same cases (`policies` of `tubthumping-app`).
        program.write("malformed", include_str!("../../fixtures/policies/malformed.txt"));
        program.write("matching", include_str!("../../fixtures/policies/matching.txt"));
        let mut original = program.start(&[]);
        original.checkpoint_and_end(&image);
        let told = original.complaints();
        assert!(told.contains("app.log was not closed by the application."), "{told}");
        assert!(told.contains("java.net.Socket[addr=/127.0.0.1,port="), "{told}");
        assert!(!told.contains("input.txt was not closed"), "{told}");
        let hint = "Use -Djdk.crac.collect-fd-stacktraces=true to find the source.";
        assert!(told.contains(hint), "{told}");
        assert_eq!(told.matches("add 'warn: false'").count(), 1, "{told}");

        // Everything is as the rules say; what was only read is another file by now.
        let log = program.dir.join("app.log");
        let before = "before\nbetween\n";
        program.write("input.txt", "abcdefg");
        fs::write(&log, before).unwrap();
        let copy = Restore::of(&original, &image, Flavour::USUAL).start();
        copy.go("");
        copy.verdict();

        // The rules of the restore come first.
        fs::write(&log, before).unwrap();
        program.write("other", "type: file\npath: **/data.bin\naction: close\n");
        let other = program.dir.join("other");
        let property = format!("-Djdk.crac.resource-policies={}", other.display());
        let restore = Restore::of(&original, &image, Flavour::USUAL);
        let copy = restore.clone().new_args(&[&property]).start();
        copy.go("data-closed");
        copy.verdict();

        // What cannot be opened again is told of.
        fs::write(&log, before).unwrap();
        fs::remove_file(program.dir.join("input.txt")).unwrap();
        let copy = restore.start();
        copy.go("input-gone");
        let told = tub_testkit::wait_for(std::time::Duration::from_secs(60), || {
            let told = copy.complaints();
            told.contains("failed to go on").then_some(told)
        });
        let told = told.unwrap_or_else(|| panic!("nothing is said\n{}", copy.tell()));
        assert!(told.contains("Cannot reopen") && told.contains("input.txt"), "{told}");
        copy.verdict();
    });
}

/// As a client keeps it alive: a server that knows nothing of checkpoints has no reason to close it.
const IDLE_ENDS: &str = "type: socket\nlistening: false\naction: close\n---\ntype: socket\n\
    listening: true\naction: ignore\n";

/// The rules are the application's, whoever takes the image: by hand, and CRIU.
#[test]
fn an_idle_connection_ends_by_a_rule_whoever_takes_the_image() {
    let Some(criu) = criu() else { return };
    on_each_jdk(|jdk| {
        let program = Program::new(jdk, "Idle").run_options(&["--policy", "policy"]).by_root();
        program.write("policy", IDLE_ENDS);
        let port = free_port();
        let mut original = program.start(&[&port.to_string()]);
        let tub = |verb: &str| Tub::new(User::Root, verb).arg(original.pid().to_string());
        let ended = |mut idle: TcpStream| assert_eq!(idle.read(&mut [0; 8]).unwrap_or(0), 0);
        let idle = echoed(port);
        tub("prepare").run().succeeds();
        ended(idle);
        tub("resume").run().succeeds();
        let idle = echoed(port);
        let image = program.dir.join("image");
        let engine = ["--engine", "criu", "--criu", criu.to_str().unwrap()];
        tub("checkpoint").arg("--image").arg(&image).args(&engine).run().succeeds();
        original.wait();
        ended(idle);
        let flavour = Flavour { user: User::Root, ..Flavour::USUAL };
        let _copy = Restore::of(&original, &image, flavour).args(&engine[2..]).start();
        let again = wait_for(Duration::from_secs(30), || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
        });
        drop(again.expect("it listens"));
        drop(echoed(port));
    });
}

#[test]
fn an_idle_connection_of_a_selector_ends_by_a_rule() {
    on_each_jdk(|jdk| {
        let program = Program::new(jdk, "Idle").run_options(&["--policy", "policy"]);
        program.write("policy", IDLE_ENDS);
        let port = free_port();
        let mut original = program.start(&[&port.to_string()]);
        let mut idle = echoed(port);
        let image = program.dir.join("image");
        original.checkpoint_and_end(&image);
        // The client is told, and not left waiting.
        assert_eq!(idle.read(&mut [0; 8]).unwrap_or(0), 0);
        let copy = Restore::of(&original, &image, Flavour::USUAL).start();
        let _open = wait_for(Duration::from_secs(30), || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
        });
        let again = echoed(port);
        copy.go("closed");
        copy.prints("closed");
        drop(again);
        copy.go("end");
        copy.verdict();
    });
}

/// A connection that has been used, and is kept.
fn echoed(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
    stream
}

/// The end of it that the JVM has belongs to that namespace, and is listed there alone.
#[test]
fn a_rule_for_connections_spares_the_conversation_with_another_network_namespace() {
    if !is_root() {
        return skipped("needs root");
    }
    on_each_jdk(|jdk| {
        let program = Program::new(jdk, "Idle").run_options(&["--policy", "policy"]);
        program.write("policy", IDLE_ENDS);
        let original = program.start(&[&free_port().to_string()]);
        let image = program.dir.join("image");
        let tub = Tub::new(User::Root, "checkpoint").arg(original.pid().to_string());
        let tub = tub.arg("--image").arg(&image).arg("--leave-running");
        let command = tub.command_under(Path::new("unshare"), &["--net"]);
        run_bounded(command, Duration::from_secs(60)).succeeds();
        original.go("end");
        original.verdict();
    });
}

/// In a container without a locale names are bytes to the JVM. Each action, as a file that `reopen` brings
/// back goes by the JVM itself, and one that `ignore` leaves by the engine.
#[test]
fn a_file_whose_name_the_locale_has_no_letters_for_follows_its_rule() {
    on_each_jdk(|jdk| {
        for action in ["ignore", "reopen"] {
            let program = Program::new(jdk, "Unmappable");
            let policy = program.dir.join("policy");
            let program =
                program.flags(&[&format!("-Djdk.crac.resource-policies={}", policy.display())]);
            program.write("policy", &format!("type: file\npath: **/odd-*.txt\naction: {action}\n"));
            program.write("odd-\u{fc}\u{4e00}.txt", "ab");
            let mut original = program.start_with(&[], |command| {
                command.env("LC_ALL", "POSIX");
            });
            let image = program.dir.join("image");
            original.checkpoint_and_end(&image);
            let copy = Restore::of(&original, &image, Flavour::USUAL).start();
            copy.go("on");
            copy.verdict();
        }
    });
}
