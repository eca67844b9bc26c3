//! As much of an HTTP client as the tests of services need.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;
use tub_testkit::wait_for;

/// How long a service may take to answer for the first time, a cold JVM included.
const PATIENCE: Duration = Duration::from_secs(60);

/// A port of the loopback interface that is free now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// The body of the answer to `GET path`, where the status is 200.
pub(crate) fn get(port: u16, path: &str) -> io::Result<String> {
    let address = (Ipv4Addr::LOCALHOST, port).into();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    if head.starts_with("HTTP/1.1 200") {
        Ok(body.to_owned())
    } else {
        Err(io::Error::other(head.lines().next().unwrap_or("no status").to_owned()))
    }
}

/// The body of the first good answer, if one comes.
pub(crate) fn first_answer(port: u16, path: &str) -> Option<String> {
    wait_for(PATIENCE, || get(port, path).ok())
}

/// A connection on which one request follows another.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn open(port: u16) -> io::Result<Self> {
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// The body of the answer to `GET path`, where the status is 200; all of it, or an error.
    pub(crate) fn get(&mut self, path: &str) -> io::Result<String> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        let mut length = None;
        let mut is_good = false;
        loop {
            line.clear();
            if self.0.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            is_good |= line.starts_with("HTTP/1.1 200");
            let lower = line.trim_end().to_ascii_lowercase();
            match lower.strip_prefix("content-length:") {
                Some(number) => length = number.trim().parse::<usize>().ok(),
                None if lower.is_empty() => break,
                None => {}
            }
        }
        let (true, Some(length)) = (is_good, length) else {
            return Err(io::Error::other("no status 200 with a length"));
        };
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        String::from_utf8(body).map_err(io::Error::other)
    }
}
