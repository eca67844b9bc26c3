//! Event descriptors: counts, semaphores, and a thread blocked on one.

use crate::stage::Stage;
use crate::sys;
use crate::thread;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static BLOCKED: AtomicBool = AtomicBool::new(false);

/// A count, a semaphore, and one that somebody waits for.
pub(crate) fn eventfd(stage: &'static Stage) -> io::Result<()> {
    let count = File::from(sys::eventfd(0, libc::EFD_NONBLOCK)?);
    (&count).write_all(&0xdead_beef_cafe_u64.to_ne_bytes())?;
    let semaphore = File::from(sys::eventfd(3, libc::EFD_SEMAPHORE | libc::EFD_NONBLOCK)?);
    let awaited = File::from(sys::eventfd(0, 0)?);
    let mut waiting = awaited.try_clone()?;
    let waiter = thread::spawn(move || {
        BLOCKED.store(true, Ordering::SeqCst);
        let mut value = [0; 8];
        waiting.read_exact(&mut value).map(|()| u64::from_ne_bytes(value))
    });
    while !BLOCKED.load(Ordering::SeqCst) {
        thread::yield_now();
    }
    thread::sleep(Duration::from_millis(50));

    stage.across()?;

    stage.holds("reader is still blocked", !waiter.is_finished());
    (&awaited).write_all(&9_u64.to_ne_bytes())?;
    let value = waiter.join().map_err(|_| io::Error::other("the reader panicked"))?;
    stage.same("what the blocked reader got", &Some(9), &stage.works("blocked reader", value));
    stage.same("count", &Ok(0xdead_beef_cafe), &take(&count));
    stage.same("count is taken at once", &Err(Some(libc::EAGAIN)), &take(&count));
    for _ in 0..3 {
        stage.same("semaphore", &Ok(1), &take(&semaphore));
    }
    stage.same("empty semaphore", &Err(Some(libc::EAGAIN)), &take(&semaphore));
    Ok(())
}

fn take(mut counter: &File) -> Result<u64, Option<i32>> {
    let mut value = [0; 8];
    counter.read_exact(&mut value).map_err(|error| error.raw_os_error())?;
    Ok(u64::from_ne_bytes(value))
}
