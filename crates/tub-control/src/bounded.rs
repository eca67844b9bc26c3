//! Waits on a unix socket that end, whatever is at its other end.
//!
//! In: a path, or a connection; a time. Out: a connection, or a line.
//! Invariant: no call takes longer than its time, however full the queue of a listener that nobody
//! serves is, and however slowly a peer says what it has to say.
//! Not here: what a line means.

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt::SendTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Connects to the socket at `path`, within `patience`.
///
/// # Errors
///
/// That of connect(2), and `TimedOut` where nobody has taken the connection out of a full queue.
pub fn connect_within(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let address = UnixAddr::new(path)?;
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let deadline = Instant::now() + patience;
    loop {
        // socket(7), SO_SNDTIMEO: connect(2) waits no longer either; 0 would be for ever.
        let left = deadline.saturating_duration_since(Instant::now()).as_micros();
        let microseconds = i64::try_from(left).unwrap_or(i64::MAX).max(1);
        setsockopt(&fd, SendTimeout, &TimeVal::microseconds(microseconds))?;
        match connect(fd.as_raw_fd(), &address) {
            Ok(()) => return Ok(fd.into()),
            // As std does: a signal that is handled is no answer.
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Reads a line of `limit` bytes at most, within `patience`. It is empty at the end, and without a
/// newline where it is cut short.
///
/// # Errors
///
/// That of read(2), and `TimedOut`.
pub fn read_line_within(
    from: &mut BufReader<UnixStream>,
    limit: u64,
    patience: Duration,
) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + patience;
    let mut line = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        from.get_ref().set_read_timeout(Some(left))?;
        let found = match from.fill_buf() {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let room = usize::try_from(limit).unwrap_or(usize::MAX) - line.len();
        let end = found.iter().take(room).position(|&byte| byte == b'\n');
        let taken = end.map_or(found.len().min(room), |end| end + 1);
        line.extend_from_slice(&found[..taken]);
        from.consume(taken);
        if end.is_some() || taken == 0 || taken == room {
            return Ok(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixListener;

    const PATIENCE: Duration = Duration::from_millis(200);

    /// Waits for the end of `what`, a bounded time, and answers how long that took.
    fn timed<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> (T, Duration) {
        let (tell, told) = std::sync::mpsc::channel();
        let start = Instant::now();
        std::thread::spawn(move || tell.send(what()));
        let result = told.recv_timeout(Duration::from_secs(20)).expect("it is bounded");
        (result, start.elapsed())
    }

    #[test]
    fn a_listener_that_accepts_nobody_is_not_waited_for_longer_than_was_said() {
        let dir = std::env::temp_dir().join(format!("tub-bounded-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("full.sock");
        let listener = UnixListener::bind(&path).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
        let mut callers = Vec::new();
        let (full, waited) = loop {
            let path = path.clone();
            match timed(move || connect_within(&path, PATIENCE)) {
                (Ok(caller), _) => callers.push(caller),
                (Err(error), waited) => break (error, waited),
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::TimedOut);
        assert!(waited >= PATIENCE, "{waited:?}");
        assert!(!callers.is_empty());
        drop(listener);
        let gone = connect_within(&path, PATIENCE).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::ConnectionRefused);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_peer_that_says_a_word_at_a_time_is_not_waited_for_longer_than_was_said() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let drips = std::thread::spawn(move || {
            while theirs.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let (read, waited) =
            timed(move || read_line_within(&mut BufReader::new(ours), 1 << 20, PATIENCE));
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(waited >= PATIENCE, "{waited:?}");
        drips.join().unwrap();
    }

    #[test]
    fn lines_come_one_after_another_and_no_longer_than_their_limit() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"one\ntwo\n0123456789\nlast").unwrap();
        drop(theirs);
        let mut from = BufReader::new(ours);
        let mut line = || read_line_within(&mut from, 8, PATIENCE).unwrap();
        for expected in ["one\n", "two\n", "01234567", "89\n", "last", ""] {
            assert_eq!(line(), expected.as_bytes());
        }
    }
}
