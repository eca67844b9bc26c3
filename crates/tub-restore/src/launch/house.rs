//! A PID namespace for processes that another engine brings back.
//!
//! In: what brings them back, and says which one is the main one. Out: a [`Housed`] process, with
//! an init of ours above it. Invariant: until [`Housed::running`], dropping it ends them all.
//! Not here: how they are brought back.

use super::{Child, LaunchError, Running, init, keep_children};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{ForkResult, Pid, fork, pipe, write};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use tub_units::{HostPid, NsPid};

/// A process with an init of its own.
#[derive(Debug)]
pub struct Housed {
    child: Child,
    /// The main process, as its namespace knows it.
    pub main: NsPid,
}

/// Makes a PID namespace with a /proc and an init of its own, and calls `make` as that init.
///
/// `make` answers with the id of the main process, which by then is a child of init, or with words
/// for the caller. The caller must be single-threaded and have CAP_SYS_ADMIN, and finds all
/// signals blocked afterwards, as after [`super::launch()`].
///
/// # Errors
///
/// The outer result: no namespace or no process can be had. The inner one: what `make` said.
pub fn house(
    detach: bool,
    make: impl FnOnce() -> Result<NsPid, Vec<u8>>,
) -> Result<Result<Housed, Vec<u8>>, LaunchError> {
    let system = |what| move |source| LaunchError::System { what, source };
    unshare(CloneFlags::CLONE_NEWPID).map_err(|source| LaunchError::NoPidNamespace { source })?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)
        .map_err(system("signal mask"))?;
    keep_children();
    let (verdict, teller) = close_on_exec(pipe().map_err(system("pipe"))?)?;
    let (report, reporter) = close_on_exec(pipe().map_err(system("pipe"))?)?;
    // SAFETY: the caller is single-threaded, so the child may use all of std.
    let child = match unsafe { fork() }.map_err(system("fork"))? {
        ForkResult::Child => {
            drop((verdict, report));
            run(detach, make, reporter, &teller)
        }
        ForkResult::Parent { child } => {
            Child { pid: child, verdict: Some(verdict), armed: true, family: Vec::new() }
        }
    };
    drop((reporter, teller));
    let mut said = Vec::new();
    let read = File::from(report).read_to_end(&mut said);
    let died = || LaunchError::Died { stage: "before it was brought back" };
    read.map_err(|_| died())?;
    match said.split_first() {
        Some((&MADE, id)) => {
            let id = id.try_into().map_err(|_| died())?;
            Ok(Ok(Housed { child, main: NsPid(i32::from_ne_bytes(id)) }))
        }
        Some((&FAILED, words)) => Ok(Err(words.to_vec())),
        _ => Err(died()),
    }
}

const MADE: u8 = 1;
const FAILED: u8 = 2;

/// Whatever `make` starts must not hold our pipes.
fn close_on_exec((from, to): (OwnedFd, OwnedFd)) -> Result<(OwnedFd, OwnedFd), LaunchError> {
    use std::os::fd::AsRawFd;
    for fd in [from.as_raw_fd(), to.as_raw_fd()] {
        tub_sys::set_close_on_exec(fd, true)
            .map_err(|source| LaunchError::System { what: "pipe", source })?;
    }
    Ok((from, to))
}

fn run(
    detach: bool,
    make: impl FnOnce() -> Result<NsPid, Vec<u8>>,
    reporter: OwnedFd,
    teller: &OwnedFd,
) -> ! {
    if !detach {
        init::die_with_parent(teller);
    }
    init::mount_proc();
    let made = make();
    let mut report = Vec::new();
    match &made {
        Ok(main) => {
            report.push(MADE);
            report.extend(main.0.to_ne_bytes());
        }
        Err(words) => {
            report.push(FAILED);
            // What a pipe takes at once, so that nobody waits for anybody.
            report.extend(&words[..words.len().min(4000)]);
        }
    }
    let _ = write(&reporter, &report);
    drop(reporter);
    match made {
        Ok(main) => init::watch(Pid::from_raw(main.0), teller),
        Err(_) => std::process::exit(1),
    }
}

impl Housed {
    /// Its init, as we see it.
    pub fn init(&self) -> HostPid {
        HostPid(self.child.pid.as_raw())
    }

    /// From now on it lives for itself. `main` is the main process as we see it.
    pub fn running(mut self, main: HostPid) -> Running {
        self.child.armed = false;
        Running::new(self.child.pid, main, self.child.verdict.take())
    }
}
