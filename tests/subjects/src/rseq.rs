//! A thread that is always within a restartable sequence (rseq(2)).
//!
//! It reads an epoch at its start and waits, within the sequence, for the word to commit. Whoever was
//! frozen in the middle must start anew: on another processor, or in another life, what it has read
//! may hold no more.

use crate::stage::{Stage, say};
use crate::thread;
use std::arch::asm;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

static EPOCH: AtomicU64 = AtomicU64::new(1);
static STOP: AtomicU32 = AtomicU32::new(0);
static ATTEMPTS: AtomicU64 = AtomicU64::new(0);
/// Where the sequence starts, where it has been committed, and where it goes on if it was interrupted.
static PLACES: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// `rseq`: tells the places in the file `sequence`.
pub(crate) fn rseq(stage: &'static Stage) -> io::Result<()> {
    let Some(offset) = registration() else {
        say("the C library has not registered rseq");
        return stage.across();
    };
    let worker = thread::spawn(move || sequence(offset));
    while ATTEMPTS.load(Ordering::SeqCst) == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    let places = PLACES.each_ref().map(|place| place.load(Ordering::SeqCst).to_string());
    std::fs::write(stage.path("sequence"), places.join(" "))?;

    stage.across()?;

    EPOCH.store(2, Ordering::SeqCst);
    STOP.store(1, Ordering::SeqCst);
    let seen = worker.join().map_err(|_| io::Error::other("the thread panicked"))?;
    // Which of both depends on when it was interrupted last; where it was frozen, and from where it
    // goes on, only an outsider can tell.
    stage.holds("it was committed", seen == 1 || seen == 2);
    Ok(())
}

/// Offset of the thread's `struct rseq` from its thread pointer, where glibc (since 2.35) has one.
fn registration() -> Option<isize> {
    // SAFETY: the name is a C string.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr()) };
    // SAFETY: the symbol is `const ptrdiff_t` (sys/rseq.h).
    (!symbol.is_null()).then(|| unsafe { symbol.cast::<isize>().read() })
}

/// Spins within the sequence until it is to stop; the epoch that was read at its start.
fn sequence(offset: isize) -> u64 {
    let seen: u64;
    // SAFETY: arms and disarms the thread's own `struct rseq`, whose word for the critical section is
    // at offset 8 (linux/rseq.h); nothing else of the thread uses it meanwhile. The signature before
    // the abort handler is the one that glibc registers with on x86-64.
    unsafe {
        asm!(
            "mov {area}, fs:[0]",
            "add {area}, {offset}",
            "lea {tmp}, [rip + 4f]",
            "mov [{places}], {tmp}",
            "lea {tmp}, [rip + 5f]",
            "mov [{places} + 8], {tmp}",
            "lea {tmp}, [rip + 6f]",
            "mov [{places} + 16], {tmp}",
            "2:",
            "lock inc qword ptr [{attempts}]",
            "lea {tmp}, [rip + 3f]",
            "mov [{area} + 8], {tmp}",
            "4:",
            "mov {seen}, [{epoch}]",
            "7:",
            "pause",
            "cmp dword ptr [{stop}], 0",
            "je 7b",
            "mov {tmp}, {seen}",
            "5:",
            "mov qword ptr [{area} + 8], 0",
            "jmp 8f",
            ".byte 0x0f, 0xb9, 0x3d",
            ".long 0x53053053",
            "6:",
            "jmp 2b",
            "8:",
            ".pushsection .data.rel.rseq, \"aw\", @progbits",
            ".balign 32",
            "3:",
            ".long 0, 0",
            ".quad 4b, 5b - 4b, 6b",
            ".popsection",
            area = out(reg) _,
            tmp = out(reg) _,
            seen = out(reg) seen,
            offset = in(reg) offset,
            places = in(reg) PLACES.as_ptr(),
            attempts = in(reg) ATTEMPTS.as_ptr(),
            epoch = in(reg) EPOCH.as_ptr(),
            stop = in(reg) STOP.as_ptr(),
        );
    }
    seen
}
