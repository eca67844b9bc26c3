//! An ordinary multi-threaded web service: it computes a table, then answers from it.
//!
//! In: a port (8080 unless told). Out: `/` greets; `/prime/N` gives the Nth prime.
//! Invariant: nothing in here knows of checkpoints; its threads sit in accept(2) on one listening
//! socket, and its warmth is the table that it computed when it started.
//! Not here: any call into Tubthumping. That is the point of the example.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// The table covers all primes below this.
const LIMIT: usize = 100_000_000;
/// Threads that accept and answer.
const THREADS: usize = 8;

fn main() -> io::Result<()> {
    let port = match std::env::args().nth(1).map(|word| word.parse()) {
        None => 8080,
        Some(Ok(port)) => port,
        Some(Err(_)) => return Err(io::Error::other("usage: native-service [PORT]")),
    };
    let primes = Arc::new(primes_below(LIMIT));
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    eprintln!("{} primes known, listening on {}", primes.len(), listener.local_addr()?);
    let workers: Vec<_> = (0..THREADS)
        .map(|number| {
            let (listener, primes) = (listener.try_clone()?, Arc::clone(&primes));
            let name = format!("worker-{number}");
            thread::Builder::new().name(name).spawn(move || work(&listener, &primes))
        })
        .collect::<io::Result<_>>()?;
    for worker in workers {
        worker.join().map_err(|_| io::Error::other("a worker panicked"))?;
    }
    Ok(())
}

/// Accepts and answers for ever.
fn work(listener: &TcpListener, primes: &[u32]) {
    loop {
        // One broken connection is no reason to stop serving the others.
        let served = listener.accept().and_then(|(stream, _)| serve(stream, primes));
        if let Err(error) = served {
            eprintln!("connection lost: {error}");
        }
    }
}

/// The sieve of Eratosthenes over the odd numbers.
fn primes_below(limit: usize) -> Vec<u32> {
    let mut composite = vec![false; limit / 2];
    let mut primes = vec![2];
    for number in (3..limit).step_by(2) {
        if composite[number / 2] {
            continue;
        }
        primes.push(u32::try_from(number).expect("the limit is far below 2^32"));
        for multiple in (number * number..limit).step_by(2 * number) {
            composite[multiple / 2] = true;
        }
    }
    primes
}

/// Answers all requests of one connection.
fn serve(stream: TcpStream, primes: &[u32]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut requests = BufReader::new(stream.try_clone()?);
    let mut answers = stream;
    loop {
        let mut line = String::new();
        if requests.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut close = false;
        loop {
            line.clear();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            close |= line.trim().eq_ignore_ascii_case("connection: close");
            if line == "\r\n" || line == "\n" {
                break;
            }
        }
        let (status, body) = answer(&path, primes);
        // Formatted first: `write!` on a socket would send each piece as a packet of its own.
        let text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        answers.write_all(text.as_bytes())?;
        if close {
            return Ok(());
        }
    }
}

fn answer(path: &str, primes: &[u32]) -> (&'static str, String) {
    if path == "/" {
        return ("200 OK", format!("Greetings from {} primes!", primes.len()));
    }
    let number = path.strip_prefix("/prime/").and_then(|text| text.parse::<usize>().ok());
    match number.and_then(|number| primes.get(number.checked_sub(1)?)) {
        Some(prime) => ("200 OK", prime.to_string()),
        None => ("404 Not Found", "no such page".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sieves() {
        assert_eq!(primes_below(30), [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
    }

    #[test]
    fn answers_from_the_table() {
        let primes = primes_below(30);
        assert_eq!(answer("/", &primes), ("200 OK", "Greetings from 10 primes!".to_owned()));
        assert_eq!(answer("/prime/10", &primes), ("200 OK", "29".to_owned()));
        assert_eq!(answer("/prime/0", &primes).0, "404 Not Found");
        assert_eq!(answer("/prime/11", &primes).0, "404 Not Found");
    }
}
