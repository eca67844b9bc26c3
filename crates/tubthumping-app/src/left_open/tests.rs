//! Rules and real descriptors of this process. Tests run at once in one process, so each has rules that
//! name its own descriptors.

use super::*;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// A file of ten digits, for as long as it is looked at.
struct Scratch(PathBuf);

impl std::ops::Deref for Scratch {
    type Target = std::path::Path;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn scratch(name: &str) -> Scratch {
    let path = std::env::temp_dir().join(format!("tub-left-open-{}-{name}", std::process::id()));
    fs::write(&path, "0123456789").unwrap();
    Scratch(path)
}

fn rules(text: &str) -> Policies {
    Policies::parse("FILE", text, &|host| host.parse().ok()).unwrap()
}

fn on(path: &std::path::Path, action: &str) -> String {
    format!("type: file\npath: {}\naction: {action}\nwarn: false\n", path.display())
}

fn told(failures: &[Failure]) -> Vec<String> {
    failures.iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_forbidden_is_named_and_nothing_is_closed() {
    let (one, other) = (scratch("forbidden"), scratch("closed-too"));
    let (forbidden, mut closed) = (File::open(&*one).unwrap(), File::open(&*other).unwrap());
    let text = format!("{}---\n{}", on(&other, "close"), on(&one, "error"));
    let mut left_open = LeftOpen::default();
    let failures = left_open.apply(rules(&text), &[]);
    let number = forbidden.as_raw_fd();
    let expected = format!(
        "CheckpointOpenFileException: {} (descriptor {number}; rule on lines 6-10 of FILE)",
        one.display()
    );
    assert_eq!(told(&failures), [expected]);
    assert_eq!(closed.read(&mut [0; 3]).unwrap(), 3);
    assert!(left_open.numbers().is_empty());
}

#[test]
fn what_is_closed_keeps_its_number_and_fails_cleanly() {
    let path = scratch("closed");
    let mut file = File::open(&*path).unwrap();
    let number = file.as_raw_fd();
    let mut left_open = LeftOpen::default();
    assert_eq!(told(&left_open.apply(rules(&on(&path, "close")), &[])), [""; 0]);
    assert_eq!(file.read(&mut [0; 3]).unwrap_err().raw_os_error(), Some(libc::EBADF));
    assert_eq!(left_open.numbers(), [number]);
    assert!(left_open.reopen().is_empty());
    assert!(file.read(&mut [0; 3]).is_err());
    // Of no rule any more, but still not the application's.
    assert!(left_open.apply(rules("type: file\naction: error\npath: /\n"), &[]).is_empty());
    assert_eq!(left_open.numbers(), [number]);
    drop(file);
    left_open.apply(Policies::default(), &[]);
    assert!(left_open.numbers().is_empty());
}

#[test]
fn what_is_reopened_stands_where_it_stood() {
    let path = scratch("reopened");
    let mut file = File::open(&*path).unwrap();
    file.seek(SeekFrom::Start(4)).unwrap();
    let mut log = File::options().append(true).open(&*path).unwrap();
    let mut left_open = LeftOpen::default();
    assert!(left_open.apply(rules(&on(&path, "reopen")), &[]).is_empty());
    let mut numbers = left_open.numbers();
    numbers.sort_unstable();
    assert_eq!(numbers, [file.as_raw_fd(), log.as_raw_fd()]);
    // What can be written stays open all the time.
    log.write_all(b"more").unwrap();
    assert!(file.read(&mut [0; 3]).is_err());
    assert!(left_open.reopen().is_empty());
    let mut rest = String::new();
    file.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "456789more");
}

#[test]
fn what_cannot_be_reopened_is_refused_before_anything_is_closed() {
    let (gone, there) = (scratch("gone"), scratch("there"));
    let (_gone, mut file) = (File::open(&*gone).unwrap(), File::open(&*there).unwrap());
    fs::remove_file(&*gone).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let sockets = format!("type: socket\nremotePort: {port}\naction: reopen\n");
    let text = format!("{sockets}---\n{}---\n{}", on(&gone, "reopen"), on(&there, "reopen"))
        .replace(&format!("path: {}\n", gone.display()), &format!("path: {}*\n", gone.display()));
    let mut left_open = LeftOpen::default();
    let failures = told(&left_open.apply(rules(&text), &[]));
    assert_eq!(failures.len(), 2, "{failures:?}");
    let of = |word: &str| failures.iter().find(|text| text.contains(word)).unwrap().clone();
    assert!(of("TCP socket").contains("a socket that does not listen cannot be made again"));
    let text = of("tub-left-open");
    assert!(text.contains("its path does not lead to it any more (rule on lines 5-8"), "{text}");
    assert_eq!(file.read(&mut [0; 3]).unwrap(), 3);
}

#[test]
fn what_is_gone_by_then_is_told_of_and_closed() {
    let path = scratch("vanishes");
    let mut file = File::open(&*path).unwrap();
    let mut left_open = LeftOpen::default();
    assert!(left_open.apply(rules(&on(&path, "reopen")), &[]).is_empty());
    fs::remove_file(&*path).unwrap();
    let failures = told(&left_open.reopen());
    let expected = format!("CheckpointOpenFileException: Cannot reopen {}: ", path.display());
    assert!(failures[0].starts_with(&expected), "{failures:?}");
    assert_eq!(file.read(&mut [0; 3]).unwrap_err().raw_os_error(), Some(libc::EBADF));
}

#[test]
fn connections_end_for_both_sides_and_whoever_waits_wakes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut outside = TcpStream::connect(address).unwrap();
    let (mut inside, _) = listener.accept().unwrap();
    let waits = thread::spawn(move || (inside.read(&mut [0; 3]).unwrap(), inside));
    let accepts = thread::spawn(move || (listener.accept().is_err(), listener));
    let text = format!("type: socket\nlocalPort: {}\naction: close\nwarn: false\n", address.port());
    let mut left_open = LeftOpen::default();
    assert!(left_open.apply(rules(&text), &[]).is_empty());
    outside.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(outside.read(&mut [0; 3]).unwrap(), 0);
    let (read, mut inside) = waits.join().unwrap();
    assert_eq!(read, 0);
    assert!(inside.write(b"x").is_err());
    let (failed, _listener) = accepts.join().unwrap();
    assert!(failed);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn rules_of_a_restore_close_what_was_left_and_forbid_what_they_forbid() {
    let (kept, parked) = (scratch("kept"), scratch("parked"));
    let (mut one, mut other) = (File::open(&*kept).unwrap(), File::open(&*parked).unwrap());
    let text = format!("{}---\n{}", on(&kept, "ignore"), on(&parked, "reopen"));
    let mut left_open = LeftOpen::default();
    assert!(left_open.apply(rules(&text), &[]).is_empty());
    assert!(left_open.restored(rules(&text)).is_empty());
    assert_eq!(left_open.numbers().len(), 2);
    let text = format!("{}---\n{}", on(&kept, "close"), on(&parked, "error"));
    let failures = told(&left_open.restored(rules(&text)));
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(failures[0].contains("tub-left-open") && failures[0].contains("-parked (descriptor"));
    assert!(left_open.reopen().is_empty());
    assert!(one.read(&mut [0; 3]).is_err() && other.read(&mut [0; 3]).is_err());
}

#[test]
fn pairs_without_names_are_reached_by_their_number_alone() {
    let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let descriptor = Descriptor::of(one.as_raw_fd()).unwrap();
    let policies = rules("type: socket\naction: close\n");
    assert!(rule_for(&policies, &descriptor).is_none());
    let text = format!("type: filedescriptor\nvalue: {}\naction: close\n", one.as_raw_fd());
    assert!(rule_for(&rules(&text), &descriptor).is_some());
}
