//! The JVM as an application of the control protocol.
//!
//! In: calls of `tub_control::serve`. Out: upcalls to `tubthumping.crac.Coordinator`.
//! Invariant: a round that Java has prepared is always given a verdict.
//! Not here: the notifications themselves.

use crate::jvm::{Argument, Env, Jvm, JvmError};
use crate::strings::unpack;
use crate::{DESK, descriptors, perf_counters, perf_data, shim};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tub_control::{
    Application, OpenResource, OpenRule, Peer, Prepared, Refusal, RefusalKind, ResourceFailure,
    State, Status,
};
use tubthumping_app::mailbox::Mailbox;
use tubthumping_app::{allow_tracing_by, engine, open_rule};

/// How long the after-hooks may take when the engine takes its word back, before it is told so.
const ABORT_PATIENCE: Duration = Duration::from_secs(60);

/// The JVM of this process.
pub(crate) struct JavaApplication;

impl Application for JavaApplication {
    fn status(&self) -> Status {
        let (image, placeholders) = engine::wished_image();
        let answer = upcall(c"status", c"()[B", &[]).unwrap_or_default();
        let mut answer = answer.into_iter();
        let state = match answer.next().as_deref() {
            Some("preparing") => State::Preparing,
            Some("prepared") => State::Prepared,
            _ => State::Running,
        };
        let runtime = answer.next().unwrap_or_default();
        let generation = answer.next().and_then(|text| text.parse().ok()).unwrap_or(0);
        let resources = answer.collect();
        Status { state, runtime, resources, generation, image, placeholders }
    }

    fn prepare(&self, peer: Peer, timeout: Duration) -> Result<Prepared, Refusal> {
        // Before anything is looked at: it opens a file.
        perf_data::remember();
        let mailbox = Mailbox::new().map_err(|error| {
            Refusal::new(RefusalKind::Runtime, format!("there is no memory for a mailbox: {error}"))
        })?;
        adopt_generators()
            .map_err(|error| Refusal::new(RefusalKind::Runtime, error.to_string()))?;
        let millis = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
        let arguments = [Argument::Long(peer.pid.into()), Argument::Long(millis)];
        let mut answer = upcall(c"prepare", c"(JJ)[B", &arguments)
            .map_err(|error| Refusal::new(RefusalKind::Runtime, error.to_string()))?
            .into_iter();
        let kind = answer.next().unwrap_or_default();
        if kind != "prepared" {
            return Err(refusal(&kind, answer));
        }
        let runtime = answer.next().unwrap_or_default();
        let count = answer.next().and_then(|text| text.parse().ok()).unwrap_or(0);
        let resources = answer.by_ref().take(count).collect();
        let count = answer.next().and_then(|text| text.parse().ok()).unwrap_or(0);
        let kept = answer.by_ref().take(count).filter_map(|number| number.parse().ok());
        let mut private_fds: Vec<i32> = kept.collect();
        private_fds.extend(descriptors::private());
        private_fds.sort_unstable();
        private_fds.dedup();
        let count: usize = answer.next().and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut metrics = Vec::new();
        while metrics.len() < count
            && let (Some(name), Some(value)) = (answer.next(), answer.next())
        {
            metrics.push((name, value));
        }
        metrics.extend(perf_counters::metrics());
        let mut allowed_paths: Vec<String> = answer.collect();
        allowed_paths.extend(agent_directory());
        let place = mailbox.place();
        DESK.prepared(mailbox);
        allow_tracing_by(peer);
        Ok(Prepared {
            mailbox: place,
            private_fds,
            open: open_rule(unsaid()),
            allowed_paths,
            runtime,
            resources,
            metrics,
        })
    }

    fn abort(&self, message: &str, failures: &[OpenResource]) -> Result<(), Refusal> {
        DESK.abort(message, failures);
        let millis = i64::try_from(ABORT_PATIENCE.as_millis()).unwrap_or(i64::MAX);
        let answer = upcall(c"awaitOver", c"(J)[B", &[Argument::Long(millis)])
            .map_err(|error| Refusal::new(RefusalKind::Runtime, error.to_string()))?;
        match answer.first() {
            None => Ok(()),
            Some(running) => Err(Refusal::new(
                RefusalKind::TimedOut,
                format!("{running}: did not return within {} ms", ABORT_PATIENCE.as_millis()),
            )),
        }
    }

    fn commit(&self, deadline: Duration) {
        DESK.commit(deadline);
        // Here, where nobody waits for it: the list of mappings takes a while to be written down.
        perf_data::follow();
    }

    fn listening(&self, path: PathBuf) {
        DESK.socket_is_at(path);
    }
}

/// Calls a static method of the coordinator, on this thread.
fn upcall(
    name: &std::ffi::CStr,
    signature: &std::ffi::CStr,
    arguments: &[Argument<'_>],
) -> Result<Vec<String>, JvmError> {
    let jvm = Jvm::get().ok_or_else(|| JvmError::new("the agent is not loaded"))?;
    jvm.attached(|env: Env<'_>| {
        let coordinator = env.class(c"tubthumping/crac/Coordinator")?;
        let answer = env.call_static(&coordinator, name, signature, arguments)?;
        Ok(unpack(&env.bytes(&answer)))
    })
}

fn refusal(kind: &str, mut answer: impl Iterator<Item = String>) -> Refusal {
    let kind = match kind {
        "busy" => RefusalKind::Busy,
        "resource-failed" => RefusalKind::ResourceFailed,
        "timed-out" => RefusalKind::TimedOut,
        _ => RefusalKind::Runtime,
    };
    let message = answer.next().unwrap_or_default();
    let mut failures = Vec::new();
    while let (Some(type_name), Some(message), Some(resource)) =
        (answer.next(), answer.next(), answer.next())
    {
        let resource = Some(resource).filter(|name| !name.is_empty());
        failures.push(ResourceFailure { type_name, message, resource });
    }
    Refusal { kind, message, failures }
}

/// Whether what is open is the engine's to restore, unless the environment says otherwise.
static OPEN_TO_ENGINE: AtomicBool = AtomicBool::new(false);

/// Whether there may be generators of random numbers that were made before the agent came.
static ADOPTS: AtomicBool = AtomicBool::new(false);

/// The agent is loaded into a JVM that runs: into one that could not know what is expected of it if
/// what it has open is the engine's to restore.
pub(crate) fn came_late(open_to_engine: bool) {
    OPEN_TO_ENGINE.store(open_to_engine, Ordering::Relaxed);
    ADOPTS.store(true, Ordering::Relaxed);
}

/// Finds the generators that nobody has told of; once.
///
/// JVM(since 17): the natives of the shim cannot be found before `Agent_OnAttach` has returned.
fn adopt_generators() -> Result<(), JvmError> {
    if !ADOPTS.load(Ordering::Relaxed) {
        return Ok(());
    }
    let jvm = Jvm::get().ok_or_else(|| JvmError::new("the agent is not loaded"))?;
    jvm.attached(|env: Env<'_>| {
        let generators = env.class(c"tubthumping/crac/SecureGenerators")?;
        env.call_static_void(&generators, c"adopt", c"()V", &[])
    })?;
    ADOPTS.store(false, Ordering::Relaxed);
    Ok(())
}

/// What becomes of what is open where the environment does not say so.
fn unsaid() -> OpenRule {
    if OPEN_TO_ENGINE.load(Ordering::Relaxed) { OpenRule::Restore } else { OpenRule::Refuse }
}

/// The directory of the agent and, where it is another, the one of the shim that it has written.
fn agent_directory() -> Vec<String> {
    let jar = shim::path().ok().and_then(|path| path.to_str().ok()).map(PathBuf::from);
    [shim::library_directory(), jar]
        .into_iter()
        .flatten()
        .map(|path| path.to_string_lossy().into_owned())
        .collect()
}
