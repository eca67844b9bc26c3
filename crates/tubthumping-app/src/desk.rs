//! Where the conversation with the engine and the round of notifications meet.
//!
//! In: the engine's word, from a conversation. Out: the same, for the thread of the round.
//! Invariant: one round at a time, which the coordinator sees to.
//! Not here: what either side does with it.

use crate::mailbox::Mailbox;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tub_control::OpenResource;
use tub_control::mailbox::{Failed, Letter};

/// What lies on the desk.
#[derive(Debug)]
enum Note {
    /// Nothing: no round, or one that still waits for its verdict.
    Nothing,
    /// The engine has taken its word back.
    Aborted(Failed),
    /// The engine takes the image; its letter will be in the mailbox.
    Committed(Duration),
    /// The letter has arrived.
    Settled,
}

/// See the module.
#[derive(Debug)]
pub struct Desk {
    note: Mutex<Note>,
    changed: Condvar,
    mailbox: Mutex<Option<Mailbox>>,
    /// And whose it is: a child that was forked off has a copy of this desk.
    socket: Mutex<Option<(u32, PathBuf)>>,
    /// Whether the control socket is closed for an image, and will be opened again.
    shut: Mutex<bool>,
    opened: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Desk {
    fn default() -> Self {
        Self::new()
    }
}

impl Desk {
    /// A desk with nothing on it.
    pub const fn new() -> Self {
        Self {
            note: Mutex::new(Note::Nothing),
            changed: Condvar::new(),
            mailbox: Mutex::new(None),
            socket: Mutex::new(None),
            shut: Mutex::new(false),
            opened: Condvar::new(),
        }
    }

    fn put(&self, note: Note) {
        *lock(&self.note) = note;
        self.changed.notify_all();
    }

    /// Puts the mailbox of the round that is prepared on the desk.
    pub fn prepared(&self, mailbox: Mailbox) {
        *lock(&self.mailbox) = Some(mailbox);
    }

    /// Tells the round that there will be no image.
    pub fn abort(&self, message: &str, failures: &[OpenResource]) {
        self.put(Note::Aborted(Failed {
            message: message.to_owned(),
            failures: failures.to_vec(),
        }));
    }

    /// Tells the round to wait on its mailbox, and waits until it has its letter.
    pub fn commit(&self, deadline: Duration) {
        // Before the round learns of it, which may end at once, and be followed by another request.
        *lock(&self.shut) = true;
        self.put(Note::Committed(deadline));
        let mut note = lock(&self.note);
        while !matches!(*note, Note::Settled) {
            note = self.changed.wait(note).unwrap_or_else(PoisonError::into_inner);
        }
        *note = Note::Nothing;
    }

    /// Waits for what became of the process. Called by the round, once.
    pub fn await_letter(&self) -> Letter {
        let mut note = lock(&self.note);
        loop {
            match std::mem::replace(&mut *note, Note::Nothing) {
                Note::Aborted(failed) => return Letter::Failed(failed),
                Note::Committed(deadline) => {
                    drop(note);
                    let letter = match lock(&self.mailbox).take() {
                        Some(mailbox) => mailbox.wait(deadline),
                        None => Letter::Failed(Failed {
                            message: "there is no mailbox".into(),
                            failures: Vec::new(),
                        }),
                    };
                    self.put(Note::Settled);
                    return letter;
                }
                other => *note = other,
            }
            note = self.changed.wait(note).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Remembers where the control socket is, at which there is somebody again.
    pub fn socket_is_at(&self, path: PathBuf) {
        *lock(&self.socket) = Some((std::process::id(), path));
        *lock(&self.shut) = false;
        self.opened.notify_all();
    }

    /// Waits until the control socket is open again after an image, but no longer than `patience`: an
    /// engine that came earlier would find none.
    pub fn await_socket(&self, patience: Duration) {
        let shut = lock(&self.shut);
        drop(self.opened.wait_timeout_while(shut, patience, |shut| *shut));
    }

    /// Removes the control socket's path, at the end of the process.
    pub fn remove_socket(&self) {
        if let Some((owner, path)) = lock(&self.socket).take()
            && owner == std::process::id()
        {
            // Somebody else may have tidied up; the next process to start does.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn whoever_asks_right_after_an_image_waits_for_the_socket() {
        const PATIENCE: Duration = Duration::from_secs(60);
        let desk = Desk::new();
        // Nobody is waited for who has never come.
        let start = Instant::now();
        desk.await_socket(PATIENCE);
        assert!(start.elapsed() < PATIENCE);
        std::thread::scope(|scope| {
            let server = scope.spawn(|| desk.commit(Duration::from_secs(1)));
            // There is no mailbox: a letter all the same.
            assert!(matches!(desk.await_letter(), Letter::Failed(_)));
            server.join().unwrap();
            let asker = scope.spawn(|| desk.await_socket(PATIENCE));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!asker.is_finished());
            desk.socket_is_at("/tmp/tub-0/0123456789abcdef.sock".into());
            asker.join().unwrap();
        });
        assert!(start.elapsed() < PATIENCE);
    }
}
