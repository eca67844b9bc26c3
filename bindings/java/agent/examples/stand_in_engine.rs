//! Stands in for `tub checkpoint PID --image DIR` in the tests of checkpoints from inside: holds
//! the conversation and leaves the letter, but takes no image.
//!
//! `TUB_TEST_ENGINE` says how it ends: `resumed`, `restored` (with the words of
//! `TUB_TEST_ARGUMENTS`), `refused`, `left-open` (each descriptor that the JVM does not call its own
//! is named), or `broken` (before it has begun).

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::time::Duration;
use tub_control::mailbox::{Restored, Resumed, encode_restored, encode_resumed, join_block};
use tub_control::{Client, OpenResource, OpenResourceKind, Prepared};
use tub_units::HostPid;

const SOON: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stand-in: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(command), Some(pid), Some(option), Some(image)) =
        (arguments.next(), arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("called wrongly".into());
    };
    if command != "checkpoint" || option != "--image" {
        return Err(format!("called wrongly: {command} {option}").into());
    }
    let ending = std::env::var("TUB_TEST_ENGINE")?;
    if ending == "broken" {
        return Err(format!("{image}: the image directory exists").into());
    }
    let pid = HostPid(pid.parse()?);
    let mut client = Client::find(pid)?.ok_or("no control socket")?;
    let prepared = client.prepare(SOON)?;
    if ending == "refused" {
        let failures = [
            (OpenResourceKind::File, 901, "/var/log/app.log"),
            (OpenResourceKind::Socket, 902, "tcp 127.0.0.1:1 -> 127.0.0.1:2"),
            (OpenResourceKind::Resource, 903, "anon_inode:[io_uring]"),
        ]
        .map(|(kind, fd, detail)| OpenResource {
            kind,
            fd: Some(fd),
            detail: detail.into(),
        });
        client.abort("3 descriptors are open", &failures)?;
        return Ok(());
    }
    if ending == "left-open" {
        client.abort("descriptors are open", &left_open(pid, &prepared)?)?;
        return Ok(());
    }
    client.commit(SOON)?;
    let letter = if ending == "restored" {
        let restored = Restored {
            instance: "0".repeat(32),
            generation: 1,
            seed: "0".repeat(64),
            restore_unix_ms: 1_700_000_000_000,
        };
        let arguments = std::env::var("TUB_TEST_ARGUMENTS")?;
        encode_restored(&restored, &[], &join_block(arguments.split(' ')))?
    } else {
        encode_resumed(&Resumed { image, generation: 1 })?
    };
    let memory = OpenOptions::new().write(true).open(format!("/proc/{pid}/mem"))?;
    // The state comes last: this process is not frozen, as it would be by an engine.
    memory.write_all_at(&letter[4..], prepared.mailbox.address + 4)?;
    memory.write_all_at(&letter[..4], prepared.mailbox.address)?;
    Ok(())
}

fn left_open(pid: HostPid, prepared: &Prepared) -> std::io::Result<Vec<OpenResource>> {
    let mut open = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let fd = entry.file_name().to_str().and_then(|name| name.parse().ok()).unwrap_or(0);
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        let is_allowed = prepared.allowed_paths.iter().any(|path| target.starts_with(path));
        // What the test has handed down to the JVM.
        let is_inherited =
            target.starts_with("/dev/null") || target.to_string_lossy().starts_with("pipe:");
        if fd > 2 && !is_inherited && !prepared.private_fds.contains(&fd) && !is_allowed {
            let detail = target.to_string_lossy().into_owned();
            let is_socket = detail.starts_with("socket:");
            let kind = if is_socket { OpenResourceKind::Socket } else { OpenResourceKind::File };
            open.push(OpenResource { kind, fd: Some(fd), detail });
        }
    }
    // In the order in which they were opened, since none has been closed.
    open.sort_by_key(|resource| resource.fd);
    Ok(open)
}
