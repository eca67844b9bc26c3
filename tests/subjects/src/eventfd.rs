//! Event descriptors: counts, semaphores, and a thread blocked on one.

use crate::stage::Stage;
use crate::sys;
use crate::thread;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static BLOCKED: AtomicBool = AtomicBool::new(false);

/// A count, a semaphore, and one that somebody waits for. `eventfd many`: and two thousand, as many epoll sets,
/// and duplicates of some of them.
pub(crate) fn eventfd(stage: &'static Stage) -> io::Result<()> {
    let count = File::from(sys::eventfd(0, libc::EFD_NONBLOCK)?);
    (&count).write_all(&0xdead_beef_cafe_u64.to_ne_bytes())?;
    let semaphore = File::from(sys::eventfd(3, libc::EFD_SEMAPHORE | libc::EFD_NONBLOCK)?);
    let awaited = File::from(sys::eventfd(0, 0)?);
    let many = if stage.option(0) == Some("many") { Some(Many::new()?) } else { None };
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
    many.map_or(Ok(()), |many| many.check(stage))
}

/// Very many objects of a kind.
struct Many {
    counters: Vec<File>,
    sets: Vec<OwnedFd>,
    twin: File,
}

impl Many {
    const EACH: usize = 2000;

    fn new() -> io::Result<Self> {
        let (_, hard) = sys::limit(libc::RLIMIT_NOFILE)?;
        sys::set_limit(libc::RLIMIT_NOFILE, hard, hard)?;
        let counter = |_| sys::eventfd(1, libc::EFD_NONBLOCK).map(File::from);
        let counters = (0..Self::EACH).map(counter).collect::<io::Result<Vec<_>>>()?;
        let sets = (0..Self::EACH).map(|_| sys::epoll_create()).collect::<io::Result<Vec<_>>>()?;
        let twin = counters[Self::EACH / 2].try_clone()?;
        Ok(Self { counters, sets, twin })
    }

    /// The twin takes what its other one has, and nobody else's.
    fn check(self, stage: &Stage) -> io::Result<()> {
        stage.same("count of a twin", &Ok(1), &take(&self.twin));
        for (at, counter) in self.counters.iter().enumerate() {
            let expected = if at == Self::EACH / 2 { Err(Some(libc::EAGAIN)) } else { Ok(1) };
            stage.same("one of many counts", &expected, &take(counter));
        }
        stage.same("sets", &Self::EACH, &self.sets.len());
        Ok(())
    }
}

fn take(mut counter: &File) -> Result<u64, Option<i32>> {
    let mut value = [0; 8];
    counter.read_exact(&mut value).map_err(|error| error.raw_os_error())?;
    Ok(u64::from_ne_bytes(value))
}
