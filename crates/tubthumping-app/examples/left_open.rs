//! A program of the end-to-end tests (`tests/e2e/tests/policies.rs`): leaves descriptors of every kind
//! open, and looks at them when it is told to. Its twins in other languages do the same.
//!
//! In: a directory; orders in its file `go`. Out: what it finds, on stdout.
//! Invariant: nothing is closed but what rules close.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a program of tests")]

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::exit;
use std::time::Duration;
use tubthumping_app::{HookError, Outcome, Resource, checkpoint, register};

struct Noted;

impl Resource for Noted {
    fn before_checkpoint(&self) -> Result<(), HookError> {
        println!("before");
        Ok(())
    }
    fn after_restore(&self, _: &Outcome) -> Result<(), HookError> {
        println!("after");
        Ok(())
    }
}

/// What comes of reading: text, or why not.
fn found(result: io::Result<String>) -> String {
    result.unwrap_or_else(|error| match error.raw_os_error() {
        Some(libc::EBADF) => "EBADF".to_owned(),
        _ => error.to_string(),
    })
}

fn some(mut from: impl Read, bytes: usize) -> io::Result<String> {
    let mut text = vec![0; bytes];
    let length = from.read(&mut text)?;
    Ok(String::from_utf8_lossy(&text[..length]).into_owned())
}

fn main() {
    let directory = PathBuf::from(std::env::args_os().nth(1).unwrap());
    let at = |name: &str| directory.join(name);
    fs::write(at("input.txt"), "0123456789").unwrap();
    fs::write(at("closed.txt"), "0123456789").unwrap();
    let mut input = File::open(at("input.txt")).unwrap();
    some(&mut input, 3).unwrap();
    let closed = File::open(at("closed.txt")).unwrap();
    let mut log = File::options().append(true).create(true).open(at("app.log")).unwrap();
    log.write_all(b"before\n").unwrap();
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    let mut data = options.open(at("data.bin")).unwrap();
    data.write_all(&[7; 8]).unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
    let _accepted = server.accept().unwrap();
    register("noted", Noted).unwrap().keep();
    println!("ready");
    let mut seen = 0;
    loop {
        std::thread::sleep(Duration::from_millis(10));
        let Ok(there) = fs::metadata(at("go")) else { continue };
        if there.ino() == seen {
            continue;
        }
        seen = there.ino();
        let order = fs::read_to_string(at("go")).unwrap();
        match order.split(' ').next().unwrap() {
            "checkpoint" => match checkpoint() {
                Ok(_) => println!("checkpoint"),
                Err(error) => {
                    for failure in &error.failures {
                        println!("{:?} {failure}", error.kind);
                    }
                }
            },
            "peek" => {
                println!("input {}", found(some(&input, 1)));
                println!("closed {}", found(some(&closed, 1)));
            }
            "look" => {
                println!("input {}", found(some(&input, 100)));
                println!("closed {}", found(some(&closed, 1)));
                println!("log {}", found(log.write_all(b"after\n").map(|()| "ok".to_owned())));
                println!("data {}", found(data.stream_position().map(|at| at.to_string())));
                let there = TcpStream::connect(server.local_addr().unwrap()).is_ok();
                println!("server {}", there && server.accept().is_ok());
                let end = some(&client, 1);
                println!("client {}", end.is_err() || end.is_ok_and(|text| text.is_empty()));
            }
            "end" => exit(0),
            _ => {}
        }
        println!("did {order}");
    }
}
