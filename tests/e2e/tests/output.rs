//! What the command prints: nothing of what it does depends on whether anybody reads it.

use std::fs::File;
use std::io;
use std::process::Output;
use tub_image::Image;
use tub_testkit::{Subject, Tub, User, code};

/// Runs `tub` with streams that nobody reads.
fn unheard(tub: &Tub) -> Output {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let mut command = tub.command();
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    command.output().unwrap()
}

/// Runs `tub` with its output going to a disk that is full.
fn on_a_full_disk(tub: &Tub) -> (Option<i32>, String) {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = tub.command().stdout(full).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let check = Tub::new(User::Ordinary, "check");
    assert_eq!(unheard(&check).status.code(), Some(0));
    let original = Subject::new("counter", User::Ordinary).start();
    let image = original.dir().join("image");
    let pid = original.pid().to_string();
    let tub = Tub::new(User::Ordinary, "checkpoint").arg(&pid).arg("--image").arg(&image);
    assert_eq!(unheard(&tub).status.code(), Some(0));
    assert!(Image::open_foreign(&image).is_ok());
    let again = Tub::new(User::Ordinary, "checkpoint").arg(&pid).arg("--image").arg(&image);
    assert_eq!(unheard(&again).status.code(), Some(code::NO_SUCH_PROCESS));
}

#[test]
fn output_that_is_lost_is_told_of() {
    let (status, told) = on_a_full_disk(&Tub::new(User::Ordinary, "check"));
    assert!(told.starts_with("tub: standard output cannot be written"), "{told}");
    assert_eq!(status, Some(code::FAILED), "{told}");
    // What was done is done.
    let original = Subject::new("counter", User::Ordinary).start();
    let image = original.dir().join("image");
    let tub = Tub::new(User::Ordinary, "checkpoint").arg(original.pid().to_string());
    let (status, told) = on_a_full_disk(&tub.arg("--image").arg(&image));
    assert!(told.starts_with("tub: warning: standard output cannot be written"), "{told}");
    assert_eq!(status, Some(0), "{told}");
    assert!(Image::open_foreign(&image).is_ok());
}
