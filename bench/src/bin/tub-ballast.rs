//! A web service as heavy as one likes: memory, threads and mappings by the number.
//!
//! In: `tub-ballast [--mib N] [--threads N] [--mappings N]`. Out: on port 8080, `/` looks at a few of its
//! pages and tells what it carries; `/all` looks at every page.
//! Invariant: an answer tells of what was found in memory, not of what was asked for; every page
//! differs from every other and none is zero.
//! Not here: any knowledge of checkpoints. It is what they are measured with.
#![forbid(unsafe_code)]

use clap::Parser;
use memmap2::{Mmap, MmapMut};
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// Carries ballast, and answers on port 8080 when it is all there.
#[derive(Parser)]
struct Options {
    /// Private memory, in MiB.
    #[arg(long, default_value_t = 0)]
    mib: usize,
    /// Threads that wait, beside the one that answers.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Mappings that no neighbour merges with, of one written page each.
    #[arg(long, default_value_t = 0)]
    mappings: usize,
}

const PORT: u16 = 8080;
/// A page, in words.
const PAGE_WORDS: usize = 512;
const PAGE_BYTES: usize = PAGE_WORDS * 8;
/// Threads that only wait need next to nothing.
const STACK_BYTES: usize = 64 << 10;

/// What is carried.
struct Ballast {
    words: Vec<u64>,
    /// Every second one cannot be written to, so that no two are one mapping for the kernel.
    writable: Vec<MmapMut>,
    constant: Vec<Mmap>,
    threads: usize,
}

/// What lies at the start of page `number`. Never zero, and all different.
const fn mark(number: usize) -> u64 {
    (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Ballast {
    fn take(options: &Options) -> Result<Self, Box<dyn Error>> {
        let mut words = vec![0; (options.mib << 20) / 8];
        for (number, page) in words.chunks_mut(PAGE_WORDS).enumerate() {
            page[0] = mark(number);
        }
        let (mut writable, mut constant) = (Vec::new(), Vec::new());
        for number in 0..options.mappings {
            let mut mapping = MmapMut::map_anon(PAGE_BYTES)?;
            mapping[..8].copy_from_slice(&mark(number).to_ne_bytes());
            if number % 2 == 0 {
                writable.push(mapping);
            } else {
                constant.push(mapping.make_read_only()?);
            }
        }
        for _ in 0..options.threads {
            thread::Builder::new().stack_size(STACK_BYTES).spawn(|| {
                loop {
                    thread::park();
                }
            })?;
        }
        Ok(Self { words, writable, constant, threads: options.threads })
    }

    /// Looks at every `step`th page, and tells how much there is.
    fn inspect(&self, step: usize) -> Result<String, String> {
        let pages = self.words.chunks(PAGE_WORDS).enumerate().step_by(step);
        for (number, page) in pages {
            if page[0] != mark(number) || page[1..].iter().any(|&word| word != 0) {
                return Err(format!("page {number} of {} differs", self.words.len() / PAGE_WORDS));
            }
        }
        let writable = self.writable.iter().map(|mapping| &mapping[..8]);
        let constant = self.constant.iter().map(|mapping| &mapping[..8]);
        let numbered = writable.zip((0..).step_by(2)).chain(constant.zip((1..).step_by(2)));
        for (bytes, number) in numbered.step_by(step) {
            if *bytes != mark(number).to_ne_bytes() {
                return Err(format!("mapping {number} differs"));
            }
        }
        let mib = (self.words.len() * 8) >> 20;
        let mappings = self.writable.len() + self.constant.len();
        Ok(format!("{mib} MiB, {} threads, {mappings} mappings", self.threads))
    }

    /// A few pages, as a request to a real service would touch.
    fn glance(&self) -> Result<String, String> {
        let pages = (self.words.len() / PAGE_WORDS).max(self.writable.len());
        self.inspect((pages / 2).max(1))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let ballast = Ballast::take(&Options::parse())?;
    let listener = TcpListener::bind(("127.0.0.1", PORT))?;
    loop {
        // One broken connection is no reason to stop serving the others.
        if let Err(error) = listener.accept().and_then(|(stream, _)| serve(&ballast, stream)) {
            eprintln!("connection lost: {error}");
        }
    }
}

/// Answers all requests of one connection.
fn serve(ballast: &Ballast, stream: TcpStream) -> std::io::Result<()> {
    let mut requests = BufReader::new(stream.try_clone()?);
    let mut answers = stream;
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if requests.read_until(b'\n', &mut head)? == 0 {
                return Ok(());
            }
        }
        let answer =
            if head.starts_with(b"GET /all ") { ballast.inspect(1) } else { ballast.glance() };
        let (status, body) = match answer {
            Ok(body) => ("200 OK", body),
            Err(body) => ("500 Internal Server Error", body),
        };
        // Formatted first: `write!` on a socket would send each piece as a packet of its own.
        let text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        answers.write_all(text.as_bytes())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_of_what_it_found() {
        let options = Options { mib: 2, threads: 1, mappings: 5 };
        let mut ballast = Ballast::take(&options).unwrap();
        for answer in [ballast.glance(), ballast.inspect(1)] {
            assert_eq!(answer.unwrap(), "2 MiB, 1 threads, 5 mappings");
        }
        ballast.words[PAGE_WORDS * 3 + 7] = 1;
        assert_eq!(ballast.inspect(1).unwrap_err(), "page 3 of 512 differs");
    }
}
