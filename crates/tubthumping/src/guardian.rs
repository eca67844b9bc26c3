//! What is put right when a checkpoint is killed: by a second, tiny process that waits for it.
//!
//! In: orders, one JSON object a line, while the checkpoint goes on. Out: nothing where it ended by
//! itself; else another engine is ended, the half-written image is removed, and an application that waits in its mailbox is
//! told how it goes on.
//! Invariant: the guardian does nothing as long as the checkpoint lives; what it does not get to do,
//! because it was killed as well, is done later by others: the next checkpoint removes leftovers,
//! and an application stops waiting at its deadline.
//! Not here: the threads of the original. They need nobody (docs/decisions/0009).

use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tub_control::mailbox;
use tub_units::{AddrRange, HostPid, RemoteAddr};

/// What the guardian is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
enum Order {
    /// An image is about to be written that is to stand at `dir`.
    Place { dir: PathBuf },
    /// It is being written to `temporary`, and will stand at `dir`.
    Image { temporary: PathBuf, dir: PathBuf },
    /// CRIU is about to write to `aside`, which becomes the image at `dir`, and to hold process `pid`.
    Criu { aside: PathBuf, dir: PathBuf, pid: i32 },
    /// The application waits in its mailbox.
    Application { pid: i32, mailbox: u64, bytes: u64, resumed: Vec<u8>, killed: Vec<u8> },
    /// The checkpoint has ended by itself.
    Dismissed,
}

/// A guardian at work, or none.
#[derive(Debug)]
pub(crate) struct Guardian {
    child: Option<Child>,
}

impl Guardian {
    /// Starts one by `command`, which is to call [`guard`] on its standard input. A checkpoint is
    /// taken without one where it cannot be started.
    pub(crate) fn start(command: Option<&[OsString]>) -> Self {
        let child = command.and_then(|words| {
            let (program, arguments) = words.split_first()?;
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::piped());
            // Out of reach of what ends a whole foreground group, and nobody waits for its output.
            command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().ok()
        });
        Self { child }
    }

    /// Tells it where an image is going to stand.
    pub(crate) fn watch_place(&mut self, dir: &Path) {
        self.tell(&Order::Place { dir: dir.to_owned() });
    }

    /// Tells it where the image is written.
    pub(crate) fn watch_image(&mut self, temporary: &Path, dir: &Path) {
        self.tell(&Order::Image { temporary: temporary.to_owned(), dir: dir.to_owned() });
    }

    /// Tells it where CRIU is going to write, and of whom.
    pub(crate) fn watch_criu(&mut self, aside: &Path, dir: &Path, pid: HostPid) {
        let (aside, dir) = (aside.to_owned(), dir.to_owned());
        self.tell(&Order::Criu { aside, dir, pid: pid.0 });
    }

    /// Tells it that the application waits, and for what.
    pub(crate) fn watch_application(&mut self, pid: HostPid, mailbox: AddrRange, resumed: Vec<u8>) {
        let killed = mailbox::encode_failed(&mailbox::Failed {
            message: "the checkpoint was killed".to_owned(),
            failures: Vec::new(),
        });
        self.tell(&Order::Application {
            pid: pid.0,
            mailbox: mailbox.start(),
            bytes: mailbox.len(),
            resumed,
            killed: killed.unwrap_or_default(),
        });
    }

    fn tell(&mut self, order: &Order) {
        let Some(stdin) = self.child.as_mut().and_then(|child| child.stdin.as_mut()) else {
            return;
        };
        let mut line = serde_json::to_vec(order).expect("an order has string keys only");
        line.push(b'\n');
        // A guardian that has gone guards nothing; the checkpoint does not depend on it.
        let _ = stdin.write_all(&line);
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.tell(&Order::Dismissed);
        if let Some(mut child) = self.child.take() {
            // Its end of the pipe is closed first, should it not have understood.
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

/// Guards a checkpoint that gives its orders through `orders`, and returns when it has ended.
pub fn guard(orders: impl BufRead) {
    // Nothing that is sent to the checkpoint is meant for us.
    let _ = nix::sys::signal::SigSet::all().thread_block();
    let (mut place, mut image, mut application, mut criu) = (None, None, None, None);
    for line in orders.lines() {
        let order = line.ok().and_then(|line| serde_json::from_str(&line).ok());
        match order {
            Some(Order::Dismissed) => return,
            Some(Order::Place { dir }) => place = Some(dir),
            Some(Order::Criu { aside, dir, pid }) => criu = Some((aside, dir, HostPid(pid))),
            Some(Order::Image { temporary, dir }) => image = Image::note(&temporary, dir),
            Some(Order::Application { pid, mailbox, bytes, resumed, killed }) => {
                // Opened now: later the number may belong to somebody else.
                let path = format!("/proc/{pid}/mem");
                let memory = File::options().read(true).write(true).open(path).ok();
                let mailbox = AddrRange::with_len(mailbox, bytes);
                application = memory.zip(mailbox).map(|(memory, mailbox)| Application {
                    memory,
                    pid: HostPid(pid),
                    mailbox,
                    resumed,
                    killed,
                });
            }
            None => {}
        }
    }
    // A CRIU between its birth and its first instruction has our other end of the pipe; now that this
    // is closed, there is none that could not be found.
    if let Some((aside, dir, original)) = criu {
        tub_criu::abandoned(&aside, &dir, original);
    }
    let complete = image.as_ref().is_some_and(Image::is_in_place);
    if let Some(application) = application {
        application.tell(complete);
    }
    if let Some(place) = place {
        tub_image::remove_leftovers(&place);
    }
}

/// An image that is being written.
struct Image {
    dir: PathBuf,
    /// Device and inode of the directory, which stay with it when it is renamed.
    identity: (u64, u64),
}

impl Image {
    fn note(temporary: &Path, dir: PathBuf) -> Option<Self> {
        let identity = identity(temporary)?;
        Some(Self { dir, identity })
    }

    fn is_in_place(&self) -> bool {
        identity(&self.dir) == Some(self.identity)
    }
}

fn identity(dir: &Path) -> Option<(u64, u64)> {
    let meta = fs::symlink_metadata(dir).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// An application that waits in its mailbox.
struct Application {
    memory: File,
    pid: HostPid,
    mailbox: AddrRange,
    resumed: Vec<u8>,
    killed: Vec<u8>,
}

impl Application {
    fn tell(&self, complete: bool) {
        // It may have been told already, and have given the memory back.
        if tub_checkpoint::waits_in(&self.memory, self.pid, self.mailbox) {
            let letter = if complete { &self.resumed } else { &self.killed };
            let _ =
                tub_checkpoint::deliver_to(&self.memory, RemoteAddr(self.mailbox.start()), letter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_survive_the_journey() {
        let order = Order::Image { temporary: "/a/.b.tub-1-0".into(), dir: "/a/b".into() };
        let line = serde_json::to_string(&order).unwrap();
        assert_eq!(line, r#"{"order":"image","temporary":"/a/.b.tub-1-0","dir":"/a/b"}"#);
        assert!(matches!(serde_json::from_str(&line), Ok(Order::Image { .. })));
    }

    #[test]
    fn a_checkpoint_that_was_killed_leaves_no_half_image() {
        let dir = std::env::temp_dir().join(format!("tub-guardian-{}", std::process::id()));
        let temporary = dir.join(".image.tub-1-0");
        fs::create_dir_all(&temporary).unwrap();
        fs::write(temporary.join(tub_image::PAGES_FILE), "half").unwrap();
        let order = Order::Place { dir: dir.join("image") };
        let order = serde_json::to_string(&order).unwrap();
        std::thread::spawn({
            let orders = format!("{order}\n{{\"order\":\"dismissed\"}}\n");
            move || guard(orders.as_bytes())
        })
        .join()
        .unwrap();
        assert!(temporary.exists(), "a checkpoint that ended by itself cleans up by itself");
        std::thread::spawn(move || guard(format!("{order}\n").as_bytes())).join().unwrap();
        assert!(!temporary.exists());
        fs::remove_dir(&dir).unwrap();
    }
}
