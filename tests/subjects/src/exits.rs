//! Subjects that end in a certain way, or tell which signals reach them.

use crate::counter::heartbeat;
use crate::stage::{Stage, say};
use crate::sys;
use crate::thread;
use std::io;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// `exit CODE`: ends with that code at *go*.
pub(crate) fn exit(stage: &'static Stage) -> io::Result<()> {
    let code = stage.option(0).and_then(|word| word.parse().ok()).unwrap_or(7);
    stage.across()?;
    say("verdict: same");
    std::process::exit(code)
}

/// The last signal that was caught, and not yet told.
static CAUGHT: AtomicI32 = AtomicI32::new(0);

extern "C" fn catch(signal: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    CAUGHT.store(signal, Ordering::SeqCst);
}

/// Takes one real-time signal after the other, as its own thread does: that keeps their order.
fn take_queued(signal: i32) {
    loop {
        if let Ok(Some(taken)) = sys::take(&[signal], Duration::from_secs(100)) {
            say(&format!("caught {} with {}", taken.signal, taken.value));
        }
    }
}

/// Prints `caught N` for each signal that it catches; SIGTERM and SIGQUIT keep their default.
pub(crate) fn signal_echo(stage: &'static Stage) -> io::Result<()> {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH] {
        sys::handle(signal, catch, libc::SA_RESTART, &[])?;
    }
    for signal in [libc::SIGTERM, libc::SIGQUIT] {
        // Shells have what they start in the background ignore SIGQUIT, and it is inherited.
        sys::set_action(signal, libc::SIG_DFL, 0, &[])?;
    }
    let queued = libc::SIGRTMIN() + 3;
    sys::block(&[queued]);
    heartbeat(stage);
    thread::spawn(move || take_queued(queued));
    thread::spawn(|| {
        loop {
            let signal = CAUGHT.swap(0, Ordering::SeqCst);
            if signal != 0 {
                say(&format!("caught {signal}"));
            }
            thread::sleep(Duration::from_millis(2));
        }
    });
    stage.across()
}
