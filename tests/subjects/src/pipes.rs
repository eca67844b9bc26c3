//! Pipes: what lies in them, who is blocked on them, how big they are.

use crate::pattern;
use crate::stage::Stage;
use crate::sys;
use crate::thread;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

static BLOCKED: AtomicU32 = AtomicU32::new(0);

/// Bytes, capacity, flags, a blocked reader, a blocked writer.
pub(crate) fn pipes(stage: &'static Stage) -> io::Result<()> {
    let (mut filled_in, mut filled_out) = sys::pipe(libc::O_CLOEXEC)?;
    filled_out.write_all(&pattern::bytes(3000, 70))?;

    let (mut wide_in, mut wide_out) = sys::pipe(libc::O_NONBLOCK)?;
    let capacity = sys::fcntl(&wide_out, libc::F_SETPIPE_SZ, 256 << 10)?;
    wide_out.write_all(&pattern::bytes(200_000, 71))?;

    let (mut empty_in, mut empty_out) = sys::pipe(0)?;
    let reader = thread::spawn(move || {
        BLOCKED.fetch_add(1, Ordering::SeqCst);
        let mut text = [0; 5];
        empty_in.read_exact(&mut text).map(|()| text)
    });

    let (full_in, mut full_out) = sys::pipe(0)?;
    let full = usize::try_from(sys::fcntl(&full_out, libc::F_GETPIPE_SZ, 0)?).unwrap_or(0);
    let sent = pattern::bytes(full + 20_000, 72);
    let expected = sent.clone();
    let writer = thread::spawn(move || {
        BLOCKED.fetch_add(1, Ordering::SeqCst);
        // Fills the pipe, then blocks with part of a write done.
        full_out.write_all(&sent)
    });
    let shared_reading_end = filled_in.try_clone()?;
    while BLOCKED.load(Ordering::SeqCst) < 2 {
        thread::yield_now();
    }
    thread::sleep(Duration::from_millis(50));

    stage.across()?;

    stage.holds("reader is still blocked", !reader.is_finished());
    stage.holds("writer is still blocked", !writer.is_finished());
    stage.same("bytes to read", &Some(3000), &sys::readable_bytes(&shared_reading_end).ok());
    stage.same("bytes in a pipe", &pattern::bytes(3000, 70), &take(&mut filled_in, 3000)?);
    filled_out.write_all(b"again")?;
    stage.same("pipe works on", &b"again".to_vec(), &take(&mut filled_in, 5)?);
    let flags = sys::fcntl(&filled_in, libc::F_GETFD, 0)?;
    stage.same("FD_CLOEXEC", &libc::FD_CLOEXEC, &flags);

    stage.same("capacity", &capacity, &sys::fcntl(&wide_in, libc::F_GETPIPE_SZ, 0)?);
    stage.same("bytes in a wide pipe", &pattern::bytes(200_000, 71), &take(&mut wide_in, 200_000)?);
    let empty = wide_in.read(&mut [0]).map_err(|error| error.raw_os_error());
    stage.same("O_NONBLOCK of an empty pipe", &Err(Some(libc::EAGAIN)), &empty);

    empty_out.write_all(b"hello")?;
    let text = reader.join().map_err(|_| io::Error::other("the reader panicked"))?;
    stage.same("blocked reader", &Some(*b"hello"), &stage.works("blocked reader", text));

    let mut full_in = full_in;
    let found = take(&mut full_in, expected.len())?;
    stage.holds("bytes of a blocked writer", found == expected);
    let written = writer.join().map_err(|_| io::Error::other("the writer panicked"))?;
    stage.works("blocked writer", written);

    drop(filled_out);
    stage.same("end of file once the writer is gone", &0, &filled_in.read(&mut [0])?);
    drop(wide_in);
    let broken = wide_out.write(b"x").map_err(|error| error.kind());
    stage.same("writing without a reader", &Err(io::ErrorKind::BrokenPipe), &broken);
    Ok(())
}

/// Bytes in a pipe whose writing end is closed; then end of file.
pub(crate) fn pipe_eof(stage: &'static Stage) -> io::Result<()> {
    let (mut reading, mut writing) = sys::pipe(0)?;
    writing.write_all(&pattern::bytes(100, 73))?;
    drop(writing);
    stage.across()?;
    stage.same("bytes left behind", &pattern::bytes(100, 73), &take(&mut reading, 100)?);
    stage.same("end of file", &0, &reading.read(&mut [0])?);
    Ok(())
}

fn take(pipe: &mut File, bytes: usize) -> io::Result<Vec<u8>> {
    let mut found = vec![0; bytes];
    pipe.read_exact(&mut found)?;
    Ok(found)
}
