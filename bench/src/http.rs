//! As much of an HTTP/1.1 client as a measurement needs.
//!
//! In: a loopback port, a path. Out: whole answers with the time of their first and last byte.
//! Invariant: an answer is handed out only when it is complete, so that a correct first line with
//! half a body is never taken for a service that works.
//! Not here: TLS, redirects, compression: each would measure something else.

use crate::clock::monotonic_ns;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Answers larger than this are a mistake of whoever asked.
const LARGEST_ANSWER: usize = 16 << 20;

/// What is asked, and what the answer must be.
#[derive(Clone, Debug)]
pub struct Question {
    address: SocketAddr,
    request: Vec<u8>,
    expected_body: Vec<u8>,
}

impl Question {
    /// `GET path` on `port` of the loopback interface; correct is status 200 with exactly
    /// `expected_body`.
    #[must_use]
    pub fn new(port: u16, path: &str, expected_body: &str) -> Self {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: tub-prober\r\n\
             Accept: */*\r\n\r\n"
        );
        Self {
            address: (Ipv4Addr::LOCALHOST, port).into(),
            request: request.into_bytes(),
            expected_body: expected_body.as_bytes().to_vec(),
        }
    }

    /// Opens a connection to the service.
    ///
    /// # Errors
    /// Those of connect(2): nobody listens yet, as a rule.
    pub fn connect(&self, patience: Duration) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&self.address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Connection { stream, unread: Vec::with_capacity(4096) })
    }

    /// Sends any bytes on a connection of its own, and gives all that comes back until its end.
    ///
    /// # Errors
    /// Nobody listens, or the service leaves the connection open for longer than `patience`.
    pub fn exchange(&self, request: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
        let mut stream = self.connect(patience)?.stream;
        stream.write_all(request)?;
        let mut answer = Vec::new();
        match stream.take(LARGEST_ANSWER as u64).read_to_end(&mut answer) {
            // Who does not read all that it is sent ends the connection like this.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(answer),
            read => read.map(|_| answer),
        }
    }

    /// Whether `answer` is the one that was expected.
    #[must_use]
    pub fn is_answered_by(&self, answer: &Answer) -> bool {
        answer.status == 200 && answer.body == self.expected_body
    }
}

/// One complete answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The whole body.
    pub body: Vec<u8>,
    /// When the first byte of the answer was there.
    pub first_byte_ns: u64,
    /// When the last byte of the body was there.
    pub complete_ns: u64,
    /// Whether the service leaves the connection open for another request.
    pub keeps_alive: bool,
}

/// A connection that can be asked many times.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Bytes received beyond the last answer.
    unread: Vec<u8>,
}

impl Connection {
    /// Sends the question and waits for the whole answer.
    ///
    /// # Errors
    /// Those of the socket; `InvalidData` where the bytes are no HTTP; `UnexpectedEof` where the
    /// service closed the connection before the answer was complete.
    pub fn ask(&mut self, question: &Question) -> io::Result<Answer> {
        self.stream.write_all(&question.request)?;
        let first_byte_ns = if self.unread.is_empty() {
            self.receive()?;
            monotonic_ns()
        } else {
            monotonic_ns()
        };
        let head_end = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at;
            }
            self.receive()?;
        };
        let head = Head::parse(&self.unread[..head_end])?;
        self.unread.drain(..head_end + 4);
        let body = match head.length {
            BodyLength::Fixed(bytes) => self.take(bytes)?,
            BodyLength::Chunked => self.take_chunks()?,
            BodyLength::UntilClose => self.take_rest()?,
        };
        Ok(Answer {
            status: head.status,
            body,
            first_byte_ns,
            complete_ns: monotonic_ns(),
            keeps_alive: head.keeps_alive,
        })
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut block = [0; 16 << 10];
        let bytes = self.stream.read(&mut block)?;
        if bytes == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "connection closed before the answer was complete",
            ));
        }
        if self.unread.len() + bytes > LARGEST_ANSWER {
            return Err(invalid("answer larger than 16 MiB"));
        }
        self.unread.extend_from_slice(&block[..bytes]);
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        if bytes > LARGEST_ANSWER {
            return Err(invalid("answer larger than 16 MiB"));
        }
        while self.unread.len() < bytes {
            self.receive()?;
        }
        Ok(self.unread.drain(..bytes).collect())
    }

    fn take_line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = find(&self.unread, b"\r\n") {
                let line = self.take(at)?;
                self.take(2)?;
                return Ok(line);
            }
            self.receive()?;
        }
    }

    fn take_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.take_line()?;
            let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
            let size = std::str::from_utf8(digits)
                .ok()
                .and_then(|text| usize::from_str_radix(text.trim(), 16).ok())
                .ok_or_else(|| invalid("chunk without a size"))?;
            if size == 0 {
                // Trailers, if any, end with an empty line.
                while !self.take_line()?.is_empty() {}
                return Ok(body);
            }
            if body.len().saturating_add(size) > LARGEST_ANSWER {
                return Err(invalid("answer larger than 16 MiB"));
            }
            body.extend(self.take(size)?);
            self.take(2)?;
        }
    }

    fn take_rest(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.receive() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(std::mem::take(&mut self.unread));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum BodyLength {
    Fixed(usize),
    Chunked,
    UntilClose,
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    length: BodyLength,
    keeps_alive: bool,
}

impl Head {
    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|_| invalid("answer head is not text"))?;
        let mut lines = text.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let mut words = status_line.split(' ');
        let version = words.next().unwrap_or_default();
        if !version.starts_with("HTTP/1.") {
            return Err(invalid("answer does not start with HTTP/1"));
        }
        let status = words
            .next()
            .and_then(|word| word.parse().ok())
            .ok_or_else(|| invalid("answer without a status code"))?;
        let mut head =
            Self { status, length: BodyLength::UntilClose, keeps_alive: version == "HTTP/1.1" };
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                let bytes = value.parse().map_err(|_| invalid("content length is no number"))?;
                head.length = BodyLength::Fixed(bytes);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                head.length = BodyLength::Chunked;
            } else if name.eq_ignore_ascii_case("connection") {
                head.keeps_alive = !value.eq_ignore_ascii_case("close");
            }
        }
        head.keeps_alive &= head.length != BodyLength::UntilClose;
        Ok(head)
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// Answers one connection with `bytes`, then closes it.
    fn serve_once(bytes: &'static [u8]) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            // In two pieces, so that nobody may rely on one read being one answer.
            stream.write_all(&bytes[..bytes.len() / 2]).unwrap();
            stream.flush().unwrap();
            thread::sleep(Duration::from_millis(5));
            stream.write_all(&bytes[bytes.len() / 2..]).unwrap();
        });
        port
    }

    fn ask(bytes: &'static [u8]) -> io::Result<(Question, Answer)> {
        let question = Question::new(serve_once(bytes), "/", "hello");
        let mut connection = question.connect(Duration::from_secs(5))?;
        let answer = connection.ask(&question)?;
        Ok((question, answer))
    }

    #[test]
    fn fixed_length() {
        let (question, answer) =
            ask(b"HTTP/1.1 200 \r\nContent-Length: 5\r\nX: y\r\n\r\nhello").unwrap();
        assert!(question.is_answered_by(&answer));
        assert!(answer.keeps_alive);
        assert!(answer.first_byte_ns <= answer.complete_ns);
    }

    #[test]
    fn chunked() {
        let (question, answer) = ask(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=1\r\nllo\r\n0\r\n\r\n",
        )
        .unwrap();
        assert!(question.is_answered_by(&answer));
    }

    #[test]
    fn until_close() {
        let (question, answer) = ask(b"HTTP/1.0 200 OK\r\n\r\nhello").unwrap();
        assert!(question.is_answered_by(&answer));
        assert!(!answer.keeps_alive);
    }

    #[test]
    fn an_error_page_is_not_correct() {
        let (question, answer) =
            ask(b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nhello").unwrap();
        assert!(!question.is_answered_by(&answer));
    }

    #[test]
    fn another_body_is_not_correct() {
        let (question, answer) =
            ask(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello!").unwrap();
        assert!(!question.is_answered_by(&answer));
    }

    #[test]
    fn half_an_answer_is_an_error() {
        let error = ask(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn other_protocols_are_an_error() {
        let error = ask(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
