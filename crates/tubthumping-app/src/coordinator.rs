//! Checkpoints of this process, one at a time: those that an engine asks for through the control
//! socket, and those that the application asks for itself.
//!
//! In: conversations (`tub_control`), calls of [`checkpoint`]. Out: one [`Round`] at a time.
//! Invariant: a checkpoint from inside goes the same way as any other: `tub checkpoint` is started,
//! and comes back through the control socket.
//! Not here: what happens in a round.

use crate::context::{Registration, Resource, global_context};
use crate::desk::Desk;
use crate::failure::{Error, Failure};
use crate::left_open::LeftOpen;
use crate::mailbox::Mailbox;
use crate::outcome::Outcome;
use crate::policies::Policies;
use crate::round::{self, Phase, Round};
use crate::{descriptors, engine, peer};
use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tub_control::mailbox::Letter;
use tub_control::{
    Application, OpenResource, OpenRule, Peer, Prepared, Refusal, RefusalKind, State as Stand,
    Status,
};

/// How long the resources may take together where there is no engine to say so.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a refusal waits for the after-hooks before it is given.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(10);

/// How long the after-hooks may take when the engine takes its word back, before it is told so.
const ABORT_PATIENCE: Duration = Duration::from_secs(60);

/// How long a round waits for the control socket to be there again before it tells anybody.
const DOOR_PATIENCE: Duration = Duration::from_secs(10);

/// How often to look whether an engine that was started is still there.
const ENGINE_POLL: Duration = Duration::from_millis(50);

const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// What runs the application, as it is told to the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Its name and version, for people.
    pub name: String,
    /// Whether pipes both ends of which are in this process are the runtime's own.
    pub own_pipes: bool,
}

/// Why the application cannot take part.
#[derive(Clone, Debug, thiserror::Error)]
#[error("this process cannot take part in checkpoints: {reason}")]
pub struct StartError {
    reason: String,
}

/// A checkpoint that the application asked for: its engine, and its round once it comes.
#[derive(Default)]
struct Request {
    engine: Option<i32>,
    round: Option<Arc<Round>>,
}

#[derive(Default)]
struct State {
    round: Option<Arc<Round>>,
    request: Option<Request>,
    generation: u64,
}

struct Coordinator {
    runtime: Runtime,
    desk: Desk,
    /// Requests take turns: each gets a cycle of its own.
    requests: Mutex<()>,
    left_open: Mutex<LeftOpen>,
    state: Mutex<State>,
    changed: Condvar,
    started: Mutex<Option<SyncSender<()>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

static COORDINATOR: OnceLock<Coordinator> = OnceLock::new();

/// Takes part in checkpoints from now on: opens the control socket. Does nothing the second time.
///
/// # Errors
/// The directory of the control sockets is not ours alone, or there is no thread to be had.
pub fn start() -> Result<(), StartError> {
    start_as(Runtime { name: "Rust".to_owned(), own_pipes: false })
}

/// The same, for bindings of other languages.
///
/// # Errors
/// As [`start`].
pub fn start_as(runtime: Runtime) -> Result<(), StartError> {
    static STARTED: OnceLock<Result<(), StartError>> = OnceLock::new();
    STARTED
        .get_or_init(|| {
            let coordinator = COORDINATOR.get_or_init(|| Coordinator::new(runtime));
            coordinator.open().map_err(|reason| StartError { reason })
        })
        .clone()
}

/// Registers a resource with the global context, and takes part in checkpoints from now on. It is
/// told for as long as the registration lives.
///
/// # Errors
/// As [`start`].
pub fn register(name: &str, resource: impl Resource + 'static) -> Result<Registration, StartError> {
    start()?;
    Ok(global_context().register(name, resource))
}

/// Asks for a checkpoint of this process and waits until it goes on, as the original or as a copy.
/// `tub run --image DIR` says where the image goes.
///
/// # Errors
/// There is no image, or there is one and resources failed afterwards: [`Error::kind`].
pub fn checkpoint() -> Result<Outcome, Error> {
    if let Err(error) = start() {
        return Err(Error::checkpoint(Failure::new("RuntimeException", error.to_string())));
    }
    let coordinator = COORDINATOR.get().expect("it has been started");
    coordinator.request()
}

impl Coordinator {
    fn new(runtime: Runtime) -> Self {
        Self {
            runtime,
            desk: Desk::new(),
            requests: Mutex::new(()),
            left_open: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
            started: Mutex::new(None),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Waits for `until`, for at most so long; `false` where that was too long.
    fn wait(&self, time: Duration, mut until: impl FnMut(&mut State) -> bool) -> bool {
        let start = Instant::now();
        let mut state = self.state();
        while !until(&mut state) {
            let Some(left) = time.checked_sub(start.elapsed()) else { return false };
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Starts the thread that listens, and returns when it does: an engine that came earlier would
    /// take this process for one that takes no part.
    fn open(&'static self) -> Result<(), String> {
        let (listening, opened) = sync_channel(1);
        *lock(&self.started) = Some(listening);
        let (failed, failure) = sync_channel(1);
        let serve = move || {
            let Err(error) = tub_control::serve(&tub_control::default_directory(), &self);
            let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
            // Nobody hears it where it worked at first.
            let _ = failed.try_send(format!("{error}{}", source.unwrap_or_default()));
            drop(lock(&self.started).take());
        };
        let spawned = thread::Builder::new().name("tub control".into()).spawn(serve);
        spawned.map_err(|error| format!("no thread can be started: {error}"))?;
        opened.recv().map_err(|_| failure.try_recv().unwrap_or_default())?;
        remove_socket_at_exit();
        Ok(())
    }

    fn request(&'static self) -> Result<Outcome, Error> {
        if self.state().round.as_ref().is_some_and(|round| round.runs_here()) {
            let text = "Recursive checkpoint is not allowed";
            return Err(Error::checkpoint(Failure::new("IllegalStateException", text)));
        }
        let turn = lock(&self.requests);
        // Known before the engine is started, which may come back at any time from then on.
        self.wait(FOREVER, |state| {
            let free = state.round.is_none();
            if free {
                state.request = Some(Request::default());
            }
            free
        });
        let round = self.perform();
        self.state().request = None;
        self.changed.notify_all();
        let round = round.map_err(Error::checkpoint)?;
        drop(turn);
        round.report()
    }

    fn perform(&'static self) -> Result<Arc<Round>, Failure> {
        let runtime = |text: String| Failure::new("RuntimeException", text);
        match engine::start() {
            None => self.perform_without_engine(),
            Some(Err(message)) => Err(runtime(message)),
            Some(Ok(started)) => {
                if let Some(request) = &mut self.state().request {
                    request.engine = Some(started.pid);
                }
                self.changed.notify_all();
                let round = self.await_round(started.pid);
                let said = fs::read_to_string(&started.messages).unwrap_or_default();
                if let Some(round) = &round {
                    // The engine bounds the before-hooks; how long the others take is theirs.
                    round.await_over(None);
                }
                // It lies in a directory for temporary files.
                let _ = fs::remove_file(&started.messages);
                round.ok_or_else(|| match said.trim() {
                    "" => runtime("the engine ended without a word".to_owned()),
                    said => runtime(said.to_owned()),
                })
            }
        }
    }

    fn perform_without_engine(&'static self) -> Result<Arc<Round>, Failure> {
        let round = Round::new(global_context().snapshot(), false);
        round.is_awaited(true);
        // An engine from outside may have been quicker.
        self.wait(FOREVER, |state| {
            let free = state.round.is_none();
            if free {
                state.round = Some(Arc::clone(&round));
            }
            free
        });
        // Nothing is closed for an image that nobody takes.
        self.begin(&round, Policies::default())
            .map_err(|error| Failure::new("RuntimeException", error))?;
        if !round.await_prepared(DEFAULT_TIMEOUT)
            && let Some(failure) = round.give_up(DEFAULT_TIMEOUT)
        {
            return Err(failure);
        }
        round.await_over(None);
        Ok(round)
    }

    fn begin(&'static self, round: &Arc<Round>, policies: Policies) -> Result<(), String> {
        let policies = Mutex::new(policies);
        let begun = round.start(Hands { coordinator: self, round: Arc::clone(round), policies });
        begun.map_err(|error| {
            self.over();
            format!("no thread can be started: {error}")
        })
    }

    /// Waits for the engine to ask for its round; `None` where it ends without having done so.
    fn await_round(&self, engine: i32) -> Option<Arc<Round>> {
        let mut gone = false;
        loop {
            let mut round = None;
            self.wait(ENGINE_POLL, |state| {
                round = state.request.as_ref().and_then(|request| request.round.clone());
                round.is_some()
            });
            // Asked in this order: an engine that came and went had its round.
            if round.is_some() || gone {
                return round;
            }
            gone = engine::has_ended(engine);
        }
    }

    fn over(&self) {
        self.state().round = None;
        self.changed.notify_all();
    }
}

/// What a round does with the coordinator.
struct Hands {
    coordinator: &'static Coordinator,
    round: Arc<Round>,
    /// Until they are followed.
    policies: Mutex<Policies>,
}

impl Hands {
    /// What is out of the way comes back, as far as the rules of a restore let it.
    fn open_again(&self, outcome: &Outcome) -> Vec<Failure> {
        let mut left_open = lock(&self.coordinator.left_open);
        let mut failures = Vec::new();
        if let Outcome::Restored(_) = outcome {
            match Policies::current(outcome) {
                Ok(now) => failures.extend(left_open.restored(now)),
                Err(problem) => failures.push(Failure::new("IllegalStateException", problem)),
            }
        }
        failures.extend(left_open.reopen());
        failures
    }
}

impl round::Desk for Hands {
    fn letter(&self) -> Letter {
        let mut letter = self.coordinator.desk.await_letter();
        // A copy that nobody told of counts by itself.
        if let Letter::Restored { restored, .. } = &mut letter
            && restored.generation == 0
        {
            restored.generation = self.coordinator.state().generation + 1;
        }
        letter
    }

    fn ready(&self) -> Vec<Failure> {
        let own = descriptors::private(self.coordinator.runtime.own_pipes);
        let policies = std::mem::take(&mut *lock(&self.policies));
        lock(&self.coordinator.left_open).apply(policies, &own)
    }

    fn known(&self, outcome: &Outcome) -> Vec<Failure> {
        let failures = self.open_again(outcome);
        // Whoever was told that the process goes on may ask for the next checkpoint.
        self.coordinator.desk.await_socket(DOOR_PATIENCE);
        if let Some(generation) = outcome.generation() {
            self.coordinator.state().generation = generation;
        }
        failures
    }

    fn over(&self) {
        self.coordinator.over();
        if !self.round.is_awaited(false) {
            for failure in self.round.after_failures() {
                tell_nobody_waits(&failure);
            }
        }
    }
}

/// A failure of an after-hook that nobody waits for: `tub checkpoint` may have ended long ago.
fn tell_nobody_waits(failure: &Failure) {
    use std::io::Write;
    let text = format!("tub: failed to go on after a checkpoint: {failure}\n");
    // Not `eprintln!`, which panics where nobody listens.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

impl Application for &'static Coordinator {
    fn status(&self) -> Status {
        let state = self.state();
        let stand = match state.round.as_ref().map(|round| round.phase()) {
            None => Stand::Running,
            Some(Phase::Prepared) => Stand::Prepared,
            Some(_) => Stand::Preparing,
        };
        let (image, placeholders) = engine::wished_image();
        Status {
            state: stand,
            runtime: self.runtime.name.clone(),
            resources: global_context().names(),
            generation: state.generation,
            image,
            placeholders,
        }
    }

    fn prepare(&self, peer: Peer, timeout: Duration) -> Result<Prepared, Refusal> {
        let refused = |text: String| Refusal::new(RefusalKind::Runtime, text);
        // Before any hook: what is not understood is nobody's fault but its writer's.
        let policies = Policies::current(&Outcome::Failed).map_err(refused)?;
        let mailbox = Mailbox::new()
            .map_err(|error| refused(format!("there is no memory for a mailbox: {error}")))?;
        let round = Round::new(global_context().snapshot(), true);
        // One that only has its after-hooks left is waited for: a process that was restored a
        // moment ago can be checkpointed again.
        let mut taken = false;
        self.wait(timeout, |state| {
            taken = state.round.is_none();
            if taken {
                state.round = Some(Arc::clone(&round));
            }
            state.round.as_ref().is_none_or(|other| taken || !other.is_resuming())
        });
        if !taken {
            return Err(self.busy());
        }
        self.adopt(peer, &round);
        self.begin(&round, policies).map_err(refused)?;
        if !round.await_prepared(timeout)
            && let Some(failure) = round.give_up(timeout)
        {
            return Err(Refusal::new(RefusalKind::TimedOut, failure.message));
        }
        if round.phase() != Phase::Prepared {
            round.await_over(Some(REFUSAL_PATIENCE));
            return Err(refusal_of(&round.before_failures()));
        }
        let place = mailbox.place();
        self.desk.prepared(mailbox);
        peer::allow_tracing_by(peer);
        let mut private_fds = descriptors::private(self.runtime.own_pipes);
        private_fds.extend(lock(&self.left_open).numbers());
        Ok(Prepared {
            mailbox: place,
            private_fds,
            open: peer::open_rule(OpenRule::Refuse),
            allowed_paths: Vec::new(),
            runtime: self.runtime.name.clone(),
            resources: round.names(),
            metrics: Vec::new(),
        })
    }

    fn abort(&self, message: &str, failures: &[OpenResource]) -> Result<(), Refusal> {
        let round = self.state().round.clone();
        self.desk.abort(message, failures);
        let Some(round) = round else { return Ok(()) };
        // Until it is gone from here too, the next one would be told that it is busy.
        let is_over = |state: &mut State| {
            state.round.as_ref().is_none_or(|current| !Arc::ptr_eq(current, &round))
        };
        if self.wait(ABORT_PATIENCE, is_over) {
            return Ok(());
        }
        let hung = round.running().unwrap_or_else(|| "the runtime".to_owned());
        let text = format!("{hung}: did not return within {} ms", ABORT_PATIENCE.as_millis());
        Err(Refusal::new(RefusalKind::TimedOut, text))
    }

    fn commit(&self, deadline: Duration) {
        self.desk.commit(deadline);
    }

    fn listening(&self, path: PathBuf) {
        self.desk.socket_is_at(path);
        let started = lock(&self.started).take();
        if let Some(started) = started {
            // Whoever starts us waits for it.
            let _ = started.send(());
        }
    }
}

impl Coordinator {
    fn busy(&self) -> Refusal {
        let hung = self.state().round.as_ref().and_then(|round| round.running());
        let of = hung.map(|name| format!(": {name} has not returned")).unwrap_or_default();
        Refusal::new(RefusalKind::Busy, format!("another checkpoint is under way{of}"))
    }

    /// Gives the round to whoever asked for it from inside, if its engine has come.
    fn adopt(&self, peer: Peer, round: &Arc<Round>) {
        // An engine can be here before the thread that has started it knows its id.
        self.wait(REFUSAL_PATIENCE, |state| {
            state.request.as_ref().is_none_or(|request| request.engine.is_some())
        });
        if let Some(request) = &mut self.state().request {
            // A peer in another PID namespace has no number here.
            if peer.pid == 0 || Some(peer.pid) == request.engine {
                round.is_awaited(true);
                request.round = Some(Arc::clone(round));
            }
        }
        self.changed.notify_all();
    }
}

fn refusal_of(failures: &[Failure]) -> Refusal {
    let has_name = |failure: &Failure| failure.type_name.starts_with("CheckpointOpen");
    let by_resource =
        failures.iter().any(|failure| failure.resource.is_some() || has_name(failure));
    let kind = if by_resource { RefusalKind::ResourceFailed } else { RefusalKind::Runtime };
    let count = if failures.len() == 1 { "1 failure" } else { "several failures" };
    Refusal {
        kind,
        message: format!("{count} before the checkpoint"),
        failures: failures.iter().map(Failure::to_wire).collect(),
    }
}

/// At the end of a process that ends by itself, the path of its socket goes too.
fn remove_socket_at_exit() {
    extern "C" fn remove() {
        if let Some(coordinator) = COORDINATOR.get() {
            coordinator.desk.remove_socket();
        }
    }
    // SAFETY: atexit(3) takes a function without arguments. Where it fails, the next process to
    // start removes what is left.
    unsafe { libc::atexit(remove) };
}
