//! Keeps a number of instances parked, and lets one go for each request.
//!
//! In: an image, how many, requests on a socket. Out: instances. Invariant: whoever asks is the keeper's
//! own user or root; when the keeper ends, nothing that is parked is left; a request is answered once.
//! Not here: how an instance is launched (its attendant does that), words for users (`tub-cli`).

mod attended;
mod callers;

use super::place::{Place, PlaceError};
use super::wire::{Answer, Failed, FailureKind, Request, Status, Told, Wishes};
use attended::{Attended, Undelivered};
use callers::{CallerId, Callers};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tub_restore::launch::{keep_children, reap_orphans};

/// How long a replacement waits after a release, from its beginning and again from its end: until then
/// the processors are the released one's.
const AFTER_RELEASE: Duration = Duration::from_millis(250);
/// How long the next launch waits after one that failed, at first and at most.
const AFTER_FAILURE: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(30)];

/// What to keep, and where.
#[derive(Clone, Debug)]
pub struct KeeperOptions {
    /// The image.
    pub dir: PathBuf,
    /// How many instances are parked.
    pub standby: usize,
    /// The socket.
    pub control: PathBuf,
    /// The command that calls [`super::attend`].
    pub attendant: Vec<OsString>,
}

/// Why a keeper ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeeperError {
    /// It cannot be asked.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The first instance could not be parked. Its attendant has said why.
    #[error("no instance could be parked: {failure}")]
    NotParked {
        /// What it said.
        failure: String,
        /// Its exit status.
        status: u8,
    },
    /// There is another image in its place, or none.
    #[error("image {} was replaced or removed", dir.display())]
    ImageChanged {
        /// Which.
        dir: PathBuf,
    },
    /// The image cannot be looked at.
    #[error("image {} cannot be read", dir.display())]
    Image {
        /// Which.
        dir: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// An everyday system call failed.
    #[error("{what} cannot be had")]
    System {
        /// What it was for.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// What a keeper has to tell while it keeps.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// As many are parked as were wished for, for the first time.
    Ready,
    /// One was let go.
    Released {
        /// Its main process.
        pid: i32,
    },
    /// One has ended while it was parked; another one follows.
    Lost {
        /// Its main process.
        pid: i32,
    },
    /// One could not be parked; it is tried again.
    LaunchFailed {
        /// Why.
        failure: &'a str,
    },
    /// Somebody else asked.
    NotAllowed {
        /// Who.
        uid: u32,
    },
}

/// Keeps instances parked until it is told to end by SIGTERM, SIGINT or SIGHUP. The caller must be
/// single-threaded.
///
/// # Errors
///
/// Why it cannot go on. In every case nothing parked is left.
pub fn keep(options: KeeperOptions, on: &mut dyn FnMut(Event<'_>)) -> Result<(), KeeperError> {
    let system = |what| move |errno: Errno| KeeperError::System { what, source: errno.into() };
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
        signals.add(signal);
    }
    keep_children();
    signals.thread_block().map_err(system("signal mask"))?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&signals, flags).map_err(system("signal descriptor"))?;
    let place = Place::take(&options.control)?;
    let image = image(&options.dir)
        .map_err(|source| KeeperError::Image { dir: options.dir.clone(), source })?;
    let mut keeper = Keeper {
        options,
        image,
        attended: Vec::new(),
        callers: Callers::default(),
        waiting: VecDeque::new(),
        next_launch: Instant::now(),
        failures: 0,
        was_ready: false,
        status: Status::default(),
    };
    let ended = keeper.run(&place, &signals, on);
    if let Err(error) = &ended {
        let kind = match error {
            KeeperError::ImageChanged { .. } => FailureKind::ImageChanged,
            _ => FailureKind::NoneParked,
        };
        keeper.fail_all(kind, &crate::sentence(error));
    }
    keeper.end();
    ended
}

/// Which image lies there: a checkpoint into the same path makes another directory.
fn image(dir: &Path) -> io::Result<(u64, u64)> {
    let there = fs::metadata(dir.join(tub_image::INVENTORY_FILE))?;
    Ok((there.dev(), there.ino()))
}

struct Keeper {
    options: KeeperOptions,
    image: (u64, u64),
    attended: Vec<Attended>,
    callers: Callers,
    /// Who waits for an instance, in the order in which they came.
    waiting: VecDeque<(CallerId, Wishes)>,
    /// No launch before that.
    next_launch: Instant,
    /// Launches that failed since the last one that did not.
    failures: u32,
    was_ready: bool,
    status: Status,
}

impl Keeper {
    fn run(
        &mut self,
        place: &Place,
        signals: &SignalFd,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), KeeperError> {
        loop {
            self.launch(on)?;
            if self.poll(place, signals)? {
                return Ok(());
            }
            self.hear_attendants(on)?;
            // What was released is nobody's child any more when its attendant has ended.
            reap_orphans(|pid| self.attended.iter().any(|one| one.pid() == pid));
            for (caller, request) in self.callers.take_requests() {
                match request {
                    Request::Status => {
                        let status = Answer::Status(self.status());
                        self.callers.answer(caller, &status);
                    }
                    Request::Release(wishes) => self.waiting.push_back((caller, wishes)),
                }
            }
            for uid in self.callers.accept(&place.listener) {
                on(Event::NotAllowed { uid });
            }
            self.release()?;
        }
    }

    /// Waits until there is something to do; answers whether that is to end.
    fn poll(&mut self, place: &Place, signals: &SignalFd) -> Result<bool, KeeperError> {
        let timeout = if self.launches_wanted() > 0 {
            let wait = self.next_launch.saturating_duration_since(Instant::now());
            // Not a moment too early, or it would come back for nothing.
            PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        } else {
            PollTimeout::NONE
        };
        let mut polled = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let door = self.callers.has_room().then(|| place.listener.as_fd());
        let attended = self.attended.iter().filter_map(Attended::socket);
        let watched = door.into_iter().chain(attended).chain(self.callers.sockets());
        polled.extend(watched.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => {
                return Err(KeeperError::System { what: "requests", source: errno.into() });
            }
        }
        let mut to_end = false;
        while let Ok(Some(info)) = signals.read_signal() {
            to_end |= i32::try_from(info.ssi_signo) != Ok(Signal::SIGCHLD as i32);
        }
        Ok(to_end)
    }

    fn launches_wanted(&self) -> usize {
        let standing = self.attended.iter().filter(|one| one.stands_by()).count();
        // Whoever waits is served first, however few are wanted.
        self.options.standby.max(self.waiting.len()).saturating_sub(standing)
    }

    fn launch(&mut self, on: &mut dyn FnMut(Event<'_>)) -> Result<(), KeeperError> {
        if self.launches_wanted() == 0 {
            return Ok(());
        }
        // Nobody is kept waiting for the sake of those who were released.
        if self.next_launch > Instant::now() && (self.waiting.is_empty() || self.failures > 0) {
            return Ok(());
        }
        self.check_image()?;
        for _ in 0..self.launches_wanted() {
            match Attended::start(&self.options.attendant) {
                Ok(one) => self.attended.push(one),
                // What is parked already is not given up for the sake of one more.
                Err(source) if self.has_kept() => {
                    self.launch_failed(format!("its attendant cannot be started: {source}"), on);
                    break;
                }
                Err(source) => return Err(KeeperError::System { what: "attendant", source }),
            }
        }
        Ok(())
    }

    fn check_image(&self) -> Result<(), KeeperError> {
        match image(&self.options.dir) {
            Ok(here) if here == self.image => Ok(()),
            _ => Err(KeeperError::ImageChanged { dir: self.options.dir.clone() }),
        }
    }

    /// Whatever attendants have to tell.
    fn hear_attendants(&mut self, on: &mut dyn FnMut(Event<'_>)) -> Result<(), KeeperError> {
        for at in (0..self.attended.len()).rev() {
            // First, so that all that it has told is heard.
            let has_ended = self.attended[at].has_ended();
            while let Some(told) = self.attended[at].hear() {
                self.heard(at, told, on);
            }
            if has_ended {
                let one = self.attended.swap_remove(at);
                self.bury(one, on)?;
            }
        }
        let parked = self.attended.iter().filter(|one| one.is_parked()).count();
        if !self.was_ready && parked >= self.options.standby {
            self.was_ready = true;
            on(Event::Ready);
        }
        Ok(())
    }

    fn heard(&mut self, at: usize, told: Told, on: &mut dyn FnMut(Event<'_>)) {
        let one = &mut self.attended[at];
        match told {
            Told::Parked { pid, init } => {
                one.parked(pid, init);
                self.failures = 0;
                self.status.failure = None;
            }
            Told::Released(released) => {
                self.status.released += 1;
                self.next_launch = Instant::now() + AFTER_RELEASE;
                on(Event::Released { pid: released.pid });
                if let Some((caller, _)) = one.released() {
                    self.callers.answer(caller, &Answer::Released(released));
                }
            }
            Told::Failed { failed, parked } => {
                let Some((caller, wishes)) = one.failed(&failed, parked) else { return };
                // The next one may do.
                if failed.kind == FailureKind::Killed {
                    self.waiting.push_front((caller, wishes));
                } else {
                    self.callers.answer(caller, &Answer::Failed(failed));
                }
            }
        }
    }

    /// An attendant has ended.
    fn bury(
        &mut self,
        mut one: Attended,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), KeeperError> {
        if let Some((caller, _)) = one.released() {
            let error = "the attendant of the instance was killed".to_owned();
            let failed = Failed { kind: FailureKind::Instance, error };
            self.callers.answer(caller, &Answer::Failed(failed));
        }
        if let Some(pid) = one.lost() {
            self.status.lost += 1;
            on(Event::Lost { pid });
        }
        let Some(failure) = one.launch_failure() else { return Ok(()) };
        if !self.has_kept() {
            return Err(KeeperError::NotParked { failure, status: one.exit_status() });
        }
        self.launch_failed(failure, on);
        Ok(())
    }

    /// Whether it has shown that it can.
    const fn has_kept(&self) -> bool {
        self.was_ready || self.status.released > 0
    }

    /// Whoever waits is told, and it is tried again after a while.
    fn launch_failed(&mut self, failure: String, on: &mut dyn FnMut(Event<'_>)) {
        on(Event::LaunchFailed { failure: &failure });
        let [first, most] = AFTER_FAILURE;
        let pause = first.saturating_mul(1 << self.failures.min(10)).min(most);
        self.failures += 1;
        self.next_launch = Instant::now() + pause;
        for (caller, _) in self.waiting.drain(..) {
            let error = format!("no instance is parked: {failure}");
            let failed = Failed { kind: FailureKind::NoneParked, error };
            self.callers.answer(caller, &Answer::Failed(failed));
        }
        self.status.failure = Some(failure);
    }

    /// Serves who waits, as far as there are parked ones.
    fn release(&mut self) -> Result<(), KeeperError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.check_image()?;
        for one in self.attended.iter_mut().filter(|one| one.is_parked()) {
            // Nobody's instance is let go for somebody who has left.
            while let Some((caller, _)) = self.waiting.front()
                && self.callers.has_left(*caller)
            {
                self.callers.forget(*caller);
                self.waiting.pop_front();
            }
            let Some((caller, wishes)) = self.waiting.pop_front() else { break };
            match one.release(caller, wishes) {
                Ok(()) => self.next_launch = Instant::now() + AFTER_RELEASE,
                Err((due, Undelivered::Gone)) => self.waiting.push_front(due),
                Err(((caller, _), Undelivered::Refused(errno))) => {
                    let error = format!("the request cannot be passed on: {errno}");
                    let failed = Failed { kind: FailureKind::Request, error };
                    self.callers.answer(caller, &Answer::Failed(failed));
                }
            }
        }
        Ok(())
    }

    fn status(&self) -> Status {
        let parked = self.attended.iter().filter_map(Attended::describe).collect();
        let launching = self.attended.iter().filter(|one| one.is_launching()).count();
        let image = self.options.dir.display().to_string();
        Status { image, standby: self.options.standby, parked, launching, ..self.status.clone() }
    }

    fn fail_all(&mut self, kind: FailureKind, error: &str) {
        let of_attended = self.attended.iter_mut().filter_map(Attended::released);
        for (caller, _) in self.waiting.drain(..).chain(of_attended) {
            let failed = Failed { kind, error: error.to_owned() };
            self.callers.answer(caller, &Answer::Failed(failed));
        }
    }

    /// Ends everything that is parked, and waits until it has ended.
    fn end(&mut self) {
        for one in self.attended.drain(..) {
            one.end();
        }
    }
}
