//! Virtual threads that are blocked in I/O at a checkpoint, under CRaC's contract: what they have open is refused,
//! and where it is closed for them they connect again.

use crate::jvm::on_each_jdk_and_21;
use crate::jvm_program::Program;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use tub_testkit::{Flavour, Pids, Restore, code};

/// Connections of the program, which has a listener besides.
const CLIENTS: usize = 8;

/// Says what it hears to each that comes, until the process of the tests ends.
fn echo() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            thread::spawn(|| echo_on(connection));
        }
    });
    port
}

fn echo_on(mut connection: TcpStream) {
    let mut bytes = [0; 256];
    while let Ok(len @ 1..) = connection.read(&mut bytes) {
        if connection.write_all(&bytes[..len]).is_err() {
            return;
        }
    }
}

#[test]
fn virtual_threads_blocked_in_reads_are_refused_or_connect_again() {
    on_each_jdk_and_21(|jdk| {
        let port = echo();
        let program = Program::new(jdk, "Virtual");
        let mut life = program.start(&[&port.to_string()]);
        // Each end that it has, and nothing of the JVM's own.
        let words = ["was left open by the application", "--open restore"];
        let refused = life.checkpoint(&program.dir.join("refused"), &[]);
        let refused = refused.fails_with(code::REFUSED, &words);
        let each = refused.stderr.matches(&format!("]:{port} was left open")).count();
        assert_eq!(each, CLIENTS, "{refused}");
        assert_eq!(refused.stderr.matches("cause: descriptor").count(), CLIENTS + 1, "{refused}");
        assert!(!program.dir.join("refused").exists(), "an image was left");
        life.go("careful");
        life.prints("careful");
        for (generation, pids) in [(1, Pids::Keep), (2, Pids::New)] {
            let image = program.dir.join(format!("image-{generation}"));
            life.checkpoint_and_end(&image);
            life = Restore::of(&life, &image, Flavour { pids, ..Flavour::USUAL }).start();
            life.go(&format!("look {generation}"));
            life.prints(&format!("looked {generation}"));
        }
        life.go("end");
        life.verdict();
    });
}
