//! Stands in for `tub checkpoint PID --image DIR` in the tests of checkpoints from inside: holds
//! the conversation and leaves the letter, but takes no image.
//!
//! `TUB_TEST_ENGINE` says how it ends: `resumed`, `restored` (with the words of
//! `TUB_TEST_ARGUMENTS`), `refused`, or `broken` (before it has begun).

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::time::Duration;
use tub_control::mailbox::{Restored, Resumed, encode_restored, encode_resumed, join_block};
use tub_control::{Client, OpenResource, OpenResourceKind};
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
            (OpenResourceKind::File, "/var/log/app.log"),
            (OpenResourceKind::Socket, "tcp 127.0.0.1:1 -> 127.0.0.1:2"),
            (OpenResourceKind::Resource, "anon_inode:[io_uring]"),
        ]
        .map(|(kind, detail)| OpenResource { kind, fd: Some(9), detail: detail.into() });
        client.abort("3 descriptors are open", &failures)?;
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
