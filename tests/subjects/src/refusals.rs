//! State that no image can hold: the checkpoint must be refused before anything is frozen, and
//! the process must not notice.

use crate::counter::heartbeat;
use crate::stage::Stage;
use crate::sys;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};

/// `refused KIND…`, each of `tcp`, `child` (with a terminal of its own), `pty`, `io_uring`, `deleted`: holds them and counts.
pub(crate) fn refused(stage: &'static Stage) -> io::Result<()> {
    let mut tcp: Option<(TcpStream, TcpStream)> = None;
    let mut child: Option<Child> = None;
    let mut held: Vec<OwnedFd> = Vec::new();
    for kind in (0..).map_while(|index| stage.option(index)) {
        match kind {
            "tcp" => tcp = Some(connected()?),
            "child" => {
                child = Some(Command::new("sleep").arg("100").stdin(sys::pty()?).spawn()?);
            }
            "pty" => held.push(sys::pty()?),
            "io_uring" => held.push(sys::io_uring()?),
            "deleted" => held.push(deleted(stage)?.into()),
            _ => return Err(io::Error::other(format!("unknown kind {kind}"))),
        }
    }
    let heart = heartbeat(stage);

    stage.across()?;

    stage.holds("heart beats to the end", heart.join().is_ok());
    if let Some((mut here, mut there)) = tcp {
        here.write_all(b"still")?;
        let mut text = [0; 5];
        there.read_exact(&mut text)?;
        stage.same("through the connection", b"still", &text);
    }
    if let Some(mut child) = child {
        stage.same("child lives", &None, &child.try_wait()?.map(|status| status.to_string()));
        child.kill()?;
        child.wait()?;
    }
    for fd in held {
        stage.works("closing", fd.try_clone());
    }
    Ok(())
}

fn connected() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let here = TcpStream::connect(listener.local_addr()?)?;
    Ok((here, listener.accept()?.0))
}

fn deleted(stage: &Stage) -> io::Result<File> {
    let path = stage.path("deleted");
    fs::write(&path, "nobody can open this again")?;
    let file = File::options().read(true).write(true).open(&path)?;
    // More than an image takes in.
    file.set_len((64 << 20) + 1)?;
    fs::remove_file(&path)?;
    Ok(file)
}
