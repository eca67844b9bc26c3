//! `tub-subject NAME DIR [OPTION…]`: sets up one kind of state, is checkpointed, and then finds out
//! by itself whether that state is still what it was.
//!
//! In: a name of [`SUBJECTS`] and an empty directory. Out: see [`stage`].
//! Invariant: a subject passes its own check without any checkpoint, too; the control run of the
//! tests proves it. Each looks at the state through the kernel's interface and not at what an
//! engine tells.
//! Not here: starting, checkpointing and restoring; that is `tub-testkit`.
//!
//! The method is that of CRIU's zdtm tests: set up, say ready, wait, check yourself.
//!
//! This crate contains `unsafe`: most of what is checked can only be set up by raw system calls,
//! by signal handlers or in registers. Nothing of the product depends on it.

mod allocator;
mod attributes;
mod blocked;
mod commons;
#[cfg(target_arch = "x86_64")]
mod confined;
mod counter;
mod epoll;
mod eventfd;
mod exits;
mod files;
mod futexes;
mod identity;
mod ids;
mod inet;
mod kin;
mod locks;
mod mappings;
mod memory;
mod mutexes;
mod owned_futexes;
mod paths;
mod pattern;
mod pipes;
mod refusals;
mod registers;
mod restless;
#[cfg(target_arch = "x86_64")]
mod rseq;
mod shared;
mod signals;
mod soak;
mod sockets;
mod stage;
mod sys;
mod terminal;
mod thread;
mod threads;
#[cfg(target_arch = "x86_64")]
mod tiles;
mod timers;
mod tree;
mod unix;
mod vdso;
mod waits;

use stage::Stage;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// What a subject does: set up, go across, check. Differences are noted on the stage; an error is
/// one that kept the subject from checking at all.
type Subject = fn(&'static Stage) -> io::Result<()>;

/// Every subject by its name.
const SUBJECTS: &[(&str, Subject)] = &[
    ("allocator", allocator::allocator),
    ("attributes", attributes::attributes),
    ("blocked", blocked::blocked),
    ("commons", commons::commons),
    ("counter", counter::counter),
    ("dontneed", memory::dontneed),
    ("epoll", epoll::epoll),
    ("epoll-odd", epoll::epoll_odd),
    ("eventfd", eventfd::eventfd),
    ("exit", exits::exit),
    ("files", files::files),
    ("fill", soak::fill),
    ("futexes", futexes::futexes),
    ("identity", identity::identity),
    ("ids", ids::ids),
    ("inet", inet::inet),
    ("kin", kin::kin),
    ("locked", mappings::locked),
    ("locks", locks::locks),
    ("mutexes", mutexes::mutexes),
    ("memory", memory::memory),
    ("memory-tls", threads::memory_tls),
    ("odd-memory", mappings::odd_memory),
    ("owned-futexes", owned_futexes::owned_futexes),
    ("owners", locks::owners),
    ("paths", paths::paths),
    ("pidfd-of-nobody", kin::pidfd_of_nobody),
    ("pidfds", kin::pidfds),
    ("pipe-eof", pipes::pipe_eof),
    ("pipes", pipes::pipes),
    ("refused", refusals::refused),
    ("registers", registers::registers),
    ("restless", restless::restless),
    #[cfg(target_arch = "x86_64")]
    ("rseq", rseq::rseq),
    ("shared-memory", shared::shared_memory),
    ("signal-echo", exits::signal_echo),
    ("signals", signals::signals),
    ("soak", soak::soak),
    ("sockets", sockets::sockets),
    ("tcp-closed", inet::tcp_closed),
    ("terminal", terminal::terminal),
    ("threads-1000", threads::threads_1000),
    ("threads-200", threads::threads_200),
    #[cfg(target_arch = "x86_64")]
    ("tiles", tiles::tiles),
    ("timers", timers::timers),
    ("tree", tree::tree),
    ("unix", unix::unix),
    ("vdso", vdso::vdso),
    ("waits", waits::waits),
    ("waits-unnamed", waits::waits_unnamed),
    ("watches", paths::watches),
    ("without-main", refusals::without_main),
    ("wipe-on-fork", memory::wipe_on_fork),
];

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if std::env::args().nth(1).as_deref() == Some("--exec") {
        return exec(std::env::args_os().skip(2));
    }
    if std::env::args().nth(1).as_deref() == Some("--queue") {
        return queue(std::env::args().skip(2));
    }
    #[cfg(target_arch = "x86_64")]
    if std::env::args().nth(1).as_deref() == Some("--confined") {
        eprintln!("tub-subject: {}", confined::run(std::env::args_os().skip(2)));
        return ExitCode::from(127);
    }
    let (Some(name), Some(dir)) = (words.next(), words.next()) else {
        return usage();
    };
    let Some((_, subject)) = SUBJECTS.iter().find(|(known, _)| *known == name) else {
        return usage();
    };
    // Leaked on purpose: threads of a subject outlive every scope, some even `main`.
    let stage: &'static Stage =
        Box::leak(Box::new(Stage::new(PathBuf::from(dir), words.collect())));
    if let Err(error) = subject(stage) {
        stage.differs(format!("{name} could not go on: {error}"));
    }
    match stage.verdict() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tub-subject: verdict could not be printed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `tub-subject --queue PID SIGNAL VALUE` sends a signal with a value, which no shell can.
fn queue(words: impl Iterator<Item = String>) -> ExitCode {
    let numbers: Vec<i32> = words.filter_map(|word| word.parse().ok()).collect();
    let [pid, signal, value] = numbers[..] else { return usage() };
    match sys::queue(pid, signal, usize::try_from(value).unwrap_or(0)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tub-subject: signal {signal} cannot be sent to {pid}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `tub-subject --exec PROGRAM [WORD…]` becomes that program, with no descriptor but the standard
/// streams. Whoever runs the tests (cargo, a terminal, a supervisor) may leave descriptors open to
/// all its descendants, and a pipe to somebody else is a good reason to refuse a checkpoint.
fn exec(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(program) = words.next() else { return usage() };
    if let Err(error) = sys::close_on_exec_from(3) {
        eprintln!("tub-subject: descriptors cannot be marked: {error}");
        return ExitCode::from(2);
    }
    let error = Command::new(&program).args(words).exec();
    eprintln!("tub-subject: {}: {error}", program.to_string_lossy());
    ExitCode::from(127)
}

fn usage() -> ExitCode {
    eprintln!("usage: tub-subject --exec PROGRAM [WORD...]");
    eprintln!("       tub-subject --queue PID SIGNAL VALUE");
    eprintln!("       tub-subject NAME DIR [OPTION...], NAME one of:");
    for (name, _) in SUBJECTS {
        eprintln!("  {name}");
    }
    ExitCode::from(2)
}
