//! One checkpoint, from the first before-hook to the last after-hook, on a thread of its own.
//!
//! In: a snapshot of the registered resources, and the engine's verdict. Out: how the process goes
//! on, and everything that failed.
//! Invariant: every resource whose before-hook was called has its after-hook called once, and not
//! before its before-hook has returned.
//! Not here: who asks for a round, and who waits (`coordinator`).

use crate::context::{Listed, tell};
use crate::failure::{Error, ErrorKind, Failure, HookError, failures_of};
use crate::outcome::Outcome;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};
use tub_control::mailbox::Letter;

/// How long a round that was given up may take to tell those that have returned.
const AFTER_PATIENCE: Duration = Duration::from_secs(10);

/// Where a round stands. Only ever grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Before-hooks run.
    Preparing,
    /// Everything is ready for the engine.
    Prepared,
    /// After-hooks run.
    Resuming,
    /// Every resource has been told that the process goes on.
    Over,
}

struct State {
    phase: Phase,
    /// Index of the resource whose hook runs.
    running: Option<usize>,
    /// How many before-hooks have been called, from the last resource on.
    told: usize,
    given_up: bool,
    telling: bool,
    threads: Vec<ThreadId>,
    before: Vec<Failure>,
    after: Vec<Failure>,
    outcome: Outcome,
    awaited: bool,
}

/// See the module.
pub(crate) struct Round {
    resources: Vec<Listed>,
    has_engine: bool,
    state: Mutex<State>,
    changed: Condvar,
}

/// What the coordinator does for a round.
pub(crate) trait Desk: Send + 'static {
    /// All before-hooks have returned, none of them with a failure. Gives what stands in the way.
    fn ready(&self) -> Vec<Failure>;
    /// Waits for the verdict.
    fn letter(&self) -> Letter;
    /// The verdict is known, and no hook has been told yet. Gives what went wrong since.
    fn known(&self, outcome: &Outcome) -> Vec<Failure>;
    /// The round is over.
    fn over(&self);
}

impl Round {
    pub(crate) fn new(resources: Vec<Listed>, has_engine: bool) -> Arc<Self> {
        let state = State {
            phase: Phase::Preparing,
            running: None,
            told: 0,
            given_up: false,
            telling: false,
            threads: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
            outcome: Outcome::Failed,
            awaited: false,
        };
        Arc::new(Self { resources, has_engine, state: Mutex::new(state), changed: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it on a thread of its own.
    pub(crate) fn start(self: &Arc<Self>, desk: impl Desk) -> std::io::Result<()> {
        let round = Arc::clone(self);
        thread::Builder::new().name("tub checkpoint".into()).spawn(move || round.run(&desk))?;
        Ok(())
    }

    fn run(&self, desk: &impl Desk) {
        self.state().threads.push(thread::current().id());
        self.tell_before();
        if self.has_engine && self.is_clean() {
            let failures = desk.ready();
            self.state().before.extend(failures);
        }
        let mut state = self.state();
        let clean = !state.given_up && state.before.is_empty();
        if clean && !self.has_engine {
            state.before.push(Failure::new("RuntimeException", "C/R is not configured"));
        } else if clean {
            state.phase = Phase::Prepared;
            drop(state);
            self.changed.notify_all();
            let letter = desk.letter();
            state = self.state();
            if let Letter::Failed(failed) = &letter {
                state.before.extend(failures_of(failed));
            }
            state.outcome = Outcome::of(letter);
        }
        let outcome = state.outcome.clone();
        drop(state);
        let failures = desk.known(&outcome);
        self.state().after.extend(failures);
        self.enter(Phase::Resuming);
        for index in self.left_to_tell() {
            self.state().running = Some(index);
            self.after(index, &outcome);
            self.returned();
        }
        self.enter(Phase::Over);
        desk.over();
    }

    fn is_clean(&self) -> bool {
        let state = self.state();
        !state.given_up && state.before.is_empty()
    }

    fn tell_before(&self) {
        for (index, listed) in self.resources.iter().enumerate().rev() {
            let mut state = self.state();
            if state.given_up {
                return;
            }
            state.running = Some(index);
            state.told += 1;
            drop(state);
            let told = tell(listed, |resource| resource.before_checkpoint());
            if let Err(HookError { failures }) = told {
                self.state().before.extend(failures);
            }
            self.returned();
        }
    }

    fn after(&self, index: usize, outcome: &Outcome) {
        let told = tell(&self.resources[index], |resource| resource.after_restore(outcome));
        if let Err(HookError { failures }) = told {
            self.state().after.extend(failures);
        }
    }

    fn returned(&self) {
        let mut state = self.state();
        // Once given up, the one that hung is remembered: it is left to this thread to tell.
        if !state.given_up {
            state.running = None;
        }
    }

    fn enter(&self, phase: Phase) {
        self.state().phase = phase;
        self.changed.notify_all();
    }

    /// In order of registration, who has been told before and is not told after by another.
    fn left_to_tell(&self) -> Vec<usize> {
        let state = self.state();
        let all = self.resources.len() - state.told..self.resources.len();
        if state.given_up { state.running.into_iter().collect() } else { all.collect() }
    }

    fn wait(&self, time: Option<Duration>, until: impl Fn(&State) -> bool) -> bool {
        let start = Instant::now();
        let mut state = self.state();
        while !until(&state) {
            let slice = match time {
                None => Duration::from_secs(3600),
                Some(time) => match time.checked_sub(start.elapsed()) {
                    Some(left) => left,
                    None => return false,
                },
            };
            let waited = self.changed.wait_timeout(state, slice);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Waits until it is prepared, or will not be, for at most so long.
    pub(crate) fn await_prepared(&self, time: Duration) -> bool {
        self.wait(Some(time), |state| state.phase != Phase::Preparing)
    }

    /// Waits for its end.
    pub(crate) fn await_over(&self, time: Option<Duration>) -> bool {
        self.wait(time, |state| state.phase == Phase::Over)
    }

    /// Gives it up because it takes too long. Resources that have returned are told at once that
    /// the process goes on; the one that hangs is told when it returns. `None` where the round has
    /// got further meanwhile.
    pub(crate) fn give_up(self: &Arc<Self>, timeout: Duration) -> Option<Failure> {
        let mut state = self.state();
        if state.phase != Phase::Preparing {
            return None;
        }
        state.given_up = true;
        let mut first = self.resources.len() - state.told;
        let mut hung = "the runtime".to_owned();
        if let Some(index) = state.running {
            hung = self.resources[index].name.to_string();
            // Told in reverse order, so that the one that has not returned comes first.
            first += 1;
        }
        let text = format!("{hung}: did not return within {} ms", timeout.as_millis());
        let failure = Failure::new("TimeoutException", text);
        state.before.push(failure.clone());
        state.telling = true;
        drop(state);
        let round = Arc::clone(self);
        let teller = move || {
            round.state().threads.push(thread::current().id());
            for index in first..round.resources.len() {
                round.after(index, &Outcome::Failed);
            }
            round.state().telling = false;
            round.changed.notify_all();
        };
        let spawned = thread::Builder::new().name("tub after timeout".into()).spawn(teller);
        if spawned.is_ok() {
            self.wait(Some(AFTER_PATIENCE), |state| !state.telling);
        }
        Some(failure)
    }

    pub(crate) fn phase(&self) -> Phase {
        self.state().phase
    }

    /// Whether only after-hooks are left.
    pub(crate) fn is_resuming(&self) -> bool {
        let state = self.state();
        state.phase == Phase::Resuming && !state.given_up || state.phase == Phase::Over
    }

    /// Whether the current thread runs hooks of this round, so that it must not wait for it.
    pub(crate) fn runs_here(&self) -> bool {
        self.state().threads.contains(&thread::current().id())
    }

    /// The resource whose hook runs now.
    pub(crate) fn running(&self) -> Option<String> {
        self.state().running.map(|index| self.resources[index].name.to_string())
    }

    /// Somebody waits for its end, and takes what failed.
    pub(crate) fn is_awaited(&self, awaited: bool) -> bool {
        let mut state = self.state();
        state.awaited |= awaited;
        state.awaited
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.resources.iter().map(|listed| listed.name.to_string()).collect()
    }

    pub(crate) fn before_failures(&self) -> Vec<Failure> {
        self.state().before.clone()
    }

    pub(crate) fn after_failures(&self) -> Vec<Failure> {
        self.state().after.clone()
    }

    /// What it has to say to whoever asked for it.
    pub(crate) fn report(&self) -> Result<Outcome, Error> {
        let state = self.state();
        let failures = [state.before.clone(), state.after.clone()].concat();
        let kind = match state.outcome {
            Outcome::Failed => ErrorKind::CheckpointException,
            _ if failures.is_empty() => return Ok(state.outcome.clone()),
            _ => ErrorKind::RestoreException,
        };
        Err(Error { kind, failures })
    }
}
