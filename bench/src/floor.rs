//! The floor: how long the same work takes a process that was never checkpointed.
//!
//! In: a service that takes part in checkpoints, told to prepare as if one followed. Out: the time
//! from the word that nothing comes of it until its first correct answer.
//! Invariant: the application does what it does around a checkpoint, neither more nor less; no
//! engine touches it.
//! Not here: the protocol (`docs/control-protocol.md`), of which this speaks three messages.

use crate::clock::monotonic_ns;
use crate::http::Question;
use crate::start::{FirstAnswer, RETRY_EVERY, StartError, first_answer};
use serde_json::{Value, json};
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the application may take to prepare, and to go on.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no floor.
#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    /// Nobody takes part there.
    #[error("{}: no control socket at which somebody listens", dir.display())]
    NobodyThere {
        /// Where was looked.
        dir: PathBuf,
        /// What the last attempt said.
        #[source]
        source: io::Error,
    },
    /// The conversation broke.
    #[error("control socket: cannot {what}")]
    Talk {
        /// What was tried.
        what: &'static str,
        /// What became of it.
        #[source]
        source: io::Error,
    },
    /// The application refused, or spoke another protocol.
    #[error("control socket: expected {expected}, got {answer}")]
    Answer {
        /// The event that was due.
        expected: &'static str,
        /// What came.
        answer: Value,
    },
    /// It did not answer afterwards.
    #[error("service that was told to go on")]
    Silent(#[source] StartError),
}

/// When it was told to go on, and when it answered.
#[derive(Clone, Copy, Debug)]
pub struct Floor {
    /// CLOCK_MONOTONIC just before the word.
    pub told_ns: u64,
    /// Its first answer.
    pub answer: FirstAnswer,
}

/// Has the service whose control socket lies in `dir` prepare for a checkpoint, tells it that there
/// is none, and asks until it answers.
///
/// # Errors
/// In every case the service goes on by itself: the end of the conversation means the same.
pub fn measure(dir: &Path, question: &Question) -> Result<Floor, FloorError> {
    let stream = connect(dir)?;
    let talk = |what| move |source| FloorError::Talk { what, source };
    for set in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
        set(&stream, Some(PATIENCE)).map_err(talk("be given a deadline"))?;
    }
    let mut answers = BufReader::new(stream.try_clone().map_err(talk("be read"))?);
    let say = |message: &Value| {
        // One write: the application reads lines.
        (&stream).write_all(format!("{message}\n").as_bytes()).map_err(talk("be written to"))
    };
    let mut expect = |expected| {
        let mut line = String::new();
        answers.read_line(&mut line).map_err(talk("be read"))?;
        let answer: Value = serde_json::from_str(&line).unwrap_or(Value::String(line));
        if answer["event"] == expected {
            return Ok(());
        }
        Err(FloorError::Answer { expected, answer })
    };
    let timeout_ms = PATIENCE.as_secs() * 1000;
    say(&json!({ "v": 1, "op": "prepare", "timeout_ms": timeout_ms }))?;
    expect("prepared")?;
    let told_ns = monotonic_ns();
    say(&json!({ "v": 1, "op": "abort", "message": "no checkpoint: the floor is measured" }))?;
    let answer = first_answer(question, told_ns, PATIENCE, RETRY_EVERY, || Ok(()))
        .map_err(FloorError::Silent)?;
    expect("resumed")?;
    Ok(Floor { told_ns, answer })
}

/// Sockets of processes that have ended may lie beside the living one's.
fn connect(dir: &Path) -> Result<UnixStream, FloorError> {
    let nobody = |source| FloorError::NobodyThere { dir: dir.to_owned(), source };
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for entry in fs::read_dir(dir).map_err(nobody)? {
        let path = entry.map_err(nobody)?.path();
        if path.extension().is_some_and(|extension| extension == "sock") {
            match UnixStream::connect(&path) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
    }
    Err(nobody(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    use std::thread;

    /// A service that listens only after it was told to go on, as one around a checkpoint does.
    #[test]
    fn the_clock_starts_when_the_service_is_told_to_go_on() {
        let dir = std::env::temp_dir().join(format!("tub-floor-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        // What somebody left who has ended.
        drop(UnixListener::bind(dir.join("0000000000000000.sock")).unwrap());
        let control = UnixListener::bind(dir.join("0000000000000001.sock")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let service = thread::spawn(move || {
            let (stream, _) = control.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            assert!(lines.next().unwrap().unwrap().contains("\"prepare\""));
            thread::sleep(Duration::from_millis(100));
            (&stream).write_all(b"{\"v\":1,\"ok\":true,\"event\":\"prepared\"}\n").unwrap();
            assert!(lines.next().unwrap().unwrap().contains("\"abort\""));
            thread::sleep(Duration::from_millis(30));
            let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
            (&stream).write_all(b"{\"v\":1,\"ok\":true,\"event\":\"resumed\"}\n").unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            let _ = peer.read(&mut [0; 1024]).unwrap();
            peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").unwrap();
        });
        let floor = measure(&dir, &Question::new(port, "/", "hello")).unwrap();
        service.join().unwrap();
        fs::remove_dir_all(&dir).unwrap();
        let took = Duration::from_nanos(floor.answer.correct_ns - floor.told_ns);
        assert!(took >= Duration::from_millis(30), "{took:?}");
        let error =
            measure(Path::new("/proc/self/fdinfo"), &Question::new(1, "/", "")).unwrap_err();
        assert!(matches!(error, FloorError::NobodyThere { .. }), "{error}");
    }
}
