//! A checkpoint with the application's part in it.
//!
//! In: a pid, options. Out: a report. Invariant: once the application has been told to prepare, it
//! is told how it ended, whatever happens: by the conversation, by its mailbox, or, should we die,
//! by its own deadline.

use crate::attach::{self, AttachError, LateAgent};
use crate::engine::{COMMIT_DEADLINE, CriuOptions, EngineKind, PauseError, Report, engine};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tub_checkpoint::{
    Error as EngineError, OpenPolicy, Outcome, Refusal, RefusalKind, SurveyedTree, TcpPolicy,
    application_open, cannot_end, control_sockets, has_ended, survey_running, unsupported_tree,
};
use tub_control::{Client, ClientError, OpenResource, OpenResourceKind, OpenRule, Prepared, State};
use tub_units::HostPid;

/// How a checkpoint is to be taken.
#[derive(Clone, Debug)]
pub struct CheckpointOptions {
    /// Where the image goes. Its parent must exist, and it must not, unless empty.
    pub dir: PathBuf,
    /// Whether an image that is there is replaced. One that the process came from always is.
    pub replace: bool,
    /// Whether the original goes on afterwards.
    pub leave_running: bool,
    /// What becomes of TCP connections.
    pub tcp: TcpPolicy,
    /// Files that the application may leave open, whatever its contract says, by the start of their
    /// path.
    pub allowed_prefixes: Vec<String>,
    /// What the image is called, by name: a restore may require it.
    pub labels: Vec<(String, String)>,
    /// What was measured, by name: numbers, in the words of whoever measured.
    pub metrics: Vec<(String, String)>,
    /// How long the application may take to prepare.
    pub timeout: Duration,
    /// Who takes the image.
    pub engine: EngineKind,
    /// Options for CRIU, if that is who.
    pub criu: CriuOptions,
    /// A command that calls [`crate::guard`] on its standard input: it puts right what is left
    /// should this process be killed. None is needed; then the next checkpoint removes what was
    /// left, and the application notices at its deadline.
    pub guardian: Option<Vec<OsString>>,
    /// The agent for a JVM that was started without one; else such a JVM is not told, as any process
    /// that takes no part.
    pub late_agent: Option<LateAgent>,
    /// What an application said that has prepared by itself and waits in its mailbox already; else it
    /// is asked to.
    pub prepared: Option<Prepared>,
    /// Files of others that are to lie beside ours in the image, by name.
    pub beside: Vec<(String, Vec<u8>)>,
}

impl CheckpointOptions {
    /// What is kept with the image: what we were told, and what the runtime has measured of itself under other
    /// names. Of the latter only numbers, since a process may allege anything.
    pub(crate) fn metrics_with(&self, prepared: Option<&Prepared>) -> Vec<(String, String)> {
        let is_new = |(name, value): &&(String, String)| {
            value.parse().is_ok_and(f64::is_finite)
                && self.metrics.iter().all(|(own, _)| own != name)
        };
        let measured = prepared.map_or(&[][..], |prepared| &prepared.metrics);
        self.metrics.iter().chain(measured.iter().filter(is_new)).cloned().collect()
    }
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The application said no, did not answer, or broke the protocol.
    #[error("the application could not be prepared")]
    Coordination(#[source] ClientError),
    /// A JVM that was started without the agent could not be given it.
    #[error("the agent cannot be loaded into the JVM")]
    Attach(#[from] AttachError),
    /// CRIU's images hold what CRIU puts there.
    #[error("an image of CRIU's keeps no labels and metrics")]
    NoLabels,
    /// An engine that does nothing but tell the application has none to tell.
    #[error("it takes no part, so that there is nobody to tell")]
    NobodyToTell,
    /// The application prepared, and then something stood in the way.
    #[error("{} object(s) stand in the way", refusals.len())]
    Refused {
        /// All of them.
        refusals: Vec<Refusal>,
        /// Whether the process had been frozen by then.
        frozen: bool,
    },
    /// The engine failed.
    #[error("the image could not be taken")]
    Engine {
        /// Why.
        #[source]
        source: EngineError,
        /// Whether the process had been frozen by then.
        frozen: bool,
    },
    /// CRIU failed.
    #[error("the image could not be taken by CRIU")]
    Criu(#[from] tub_criu::Error),
    /// It could not be stopped, or there is no place to note it.
    #[error("it could not be paused")]
    Pause {
        /// Why.
        #[source]
        source: PauseError,
        /// Whether the process was told to stop, and then to go on.
        stopped: bool,
    },
    /// The process ended while its image was being taken; the source is where that was noticed.
    #[error("it has ended meanwhile")]
    Ended(#[source] Box<CheckpointError>),
}

impl CheckpointError {
    /// What became of the process.
    pub fn process(&self) -> Outcome {
        match self {
            Self::Ended(_) => Outcome::Gone,
            Self::Coordination(_) | Self::Attach(_) | Self::NobodyToTell | Self::NoLabels => {
                Outcome::Untouched
            }
            Self::Refused { frozen: true, .. } => Outcome::Thawed,
            Self::Refused { .. } => Outcome::Untouched,
            Self::Engine { source, frozen } => source.outcome(*frozen),
            Self::Criu(error) if error.is_before_criu() => Outcome::Untouched,
            // It thaws what it could not store.
            Self::Criu(_) | Self::Pause { stopped: true, .. } => Outcome::Thawed,
            Self::Pause { .. } => Outcome::Untouched,
        }
    }
}

impl From<EngineError> for CheckpointError {
    fn from(source: EngineError) -> Self {
        Self::new(source, false)
    }
}

impl CheckpointError {
    pub(crate) fn new(source: EngineError, frozen: bool) -> Self {
        match source {
            EngineError::Refused { refusals, frozen, .. } => Self::Refused { refusals, frozen },
            source => Self::Engine { source, frozen },
        }
    }
}

/// Takes a checkpoint of `pid`, with the application's part in it if it takes any.
///
/// SIGXFSZ is blocked in the calling thread from then on.
///
/// # Errors
///
/// In every case there is no image, and the process goes on; [`CheckpointError::process`] says
/// whether it was stopped meanwhile.
pub fn checkpoint(pid: HostPid, options: &CheckpointOptions) -> Result<Report, CheckpointError> {
    let engine = engine(options.engine, &options.criu);
    let mut told = false;
    let mut tell = || {
        let find = |tree: &SurveyedTree, prepared: &Prepared| in_the_way(tree, prepared, options);
        if let Some(prepared) = &options.prepared {
            let (_, refusals) = survey_running(pid, |tree| find(tree, prepared))?;
            return match refusals.is_empty() {
                true => Ok(Some(prepared.clone())),
                false => Err(CheckpointError::Refused { refusals, frozen: false }),
            };
        }
        let Some(client) = reach(pid, options.late_agent.as_ref())? else { return Ok(None) };
        let prepared = coordinate(pid, client, options.timeout, COMMIT_DEADLINE, &find)?;
        told = true;
        Ok(Some(prepared))
    };
    let result = engine.checkpoint(pid, options, &mut tell);
    if told && (result.is_err() || options.leave_running || options.engine == EngineKind::Sim) {
        await_answer(pid);
    }
    result.map_err(|error| match error.process() {
        Outcome::Untouched | Outcome::Thawed if has_ended(pid) => {
            CheckpointError::Ended(Box::new(error))
        }
        _ => error,
    })
}

/// How long an application that goes on is waited for. One whose hooks take longer is left to itself.
const AFTERWARDS: Duration = Duration::from_secs(10);

/// Waits until an application that was told answers again. Until then its socket is closed, and who came
/// with the next checkpoint would take it for one that takes no part.
fn await_answer(pid: HostPid) {
    let since = Instant::now();
    while since.elapsed() < AFTERWARDS && !has_ended(pid) && !is_running(pid).unwrap_or(false) {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether the application listens again, and its resources have been told.
pub(crate) fn is_running(pid: HostPid) -> Result<bool, ClientError> {
    let Some(mut client) = Client::find(pid)? else { return Ok(false) };
    match client.status() {
        Ok(status) => Ok(status.state == State::Running),
        // It was about to close its socket, or to open another.
        Err(ClientError::Ended { .. } | ClientError::Io { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Finds what stands in the way of a prepared process.
type Find<'a> = &'a dyn Fn(&SurveyedTree, &Prepared) -> Vec<Refusal>;

/// Whom to speak to, if the application takes part, or can be made to.
pub(crate) fn reach(
    pid: HostPid,
    late_agent: Option<&LateAgent>,
) -> Result<Option<Client>, CheckpointError> {
    let find = || Client::find(pid).map_err(CheckpointError::Coordination);
    let found = find()?;
    match (&found, late_agent) {
        (None, Some(agent)) if attach::is_without_agent(pid) => {
            attach::attach(pid, agent)?;
            find()
        }
        _ => Ok(found),
    }
}

/// Has the application prepare, and wait for its letter for at most `deadline`.
pub(crate) fn coordinate(
    pid: HostPid,
    mut client: Client,
    timeout: Duration,
    deadline: Duration,
    find: Find<'_>,
) -> Result<Prepared, CheckpointError> {
    let prepared = client.prepare(timeout).map_err(CheckpointError::Coordination)?;
    let client = examine(pid, client, &prepared, find)?;
    client.commit(deadline).map_err(CheckpointError::Coordination)?;
    Ok(prepared)
}

/// Looks at the prepared process, and takes the word back if something stands in the way.
fn examine(
    pid: HostPid,
    client: Client,
    prepared: &Prepared,
    find: Find<'_>,
) -> Result<Client, CheckpointError> {
    let refusals = match survey_running(pid, |tree| find(tree, prepared)) {
        Ok((_, refusals)) => refusals,
        Err(error) => {
            let _ = client.abort(&error.to_string(), &[]);
            return Err(error.into());
        }
    };
    if refusals.is_empty() {
        return Ok(client);
    }
    let message = format!("{} object(s) stand in the way of the checkpoint", refusals.len());
    let failures: Vec<OpenResource> = refusals.iter().map(open_resource).collect();
    client.abort(&message, &failures).map_err(CheckpointError::Coordination)?;
    Err(CheckpointError::Refused { refusals, frozen: false })
}

/// What the application may not leave open.
pub(crate) fn application_left_open(
    tree: &SurveyedTree,
    prepared: &Prepared,
    allowed_prefixes: &[String],
) -> Vec<Refusal> {
    if prepared.open != OpenRule::Refuse {
        return Vec::new();
    }
    let policy = OpenPolicy {
        private_fds: prepared.private_fds.clone(),
        allowed_paths: prepared.allowed_paths.clone(),
        allowed_prefixes: allowed_prefixes.to_vec(),
    };
    application_open(tree.main(), &policy)
}

/// The same, and what the engine cannot store.
fn in_the_way(
    tree: &SurveyedTree,
    prepared: &Prepared,
    options: &CheckpointOptions,
) -> Vec<Refusal> {
    let mut refusals = application_left_open(tree, prepared, &options.allowed_prefixes);
    // What another engine cannot store, it says itself.
    let unsupported = match options.engine {
        EngineKind::Native => unsupported_tree(tree, &control_sockets(tree.main()), options.tcp),
        EngineKind::Criu | EngineKind::Sim | EngineKind::Pause => Vec::new(),
    };
    if options.engine == EngineKind::Native && !options.leave_running {
        refusals.extend(cannot_end(tree));
    }
    // What the application left open and the engine cannot store either is named once.
    for refusal in unsupported {
        if refusal.fd.is_none() || refusals.iter().all(|known| known.fd != refusal.fd) {
            refusals.push(refusal);
        }
    }
    refusals
}

pub(crate) fn open_resource(refusal: &Refusal) -> OpenResource {
    let kind = match refusal.kind {
        RefusalKind::File => OpenResourceKind::File,
        RefusalKind::Socket => OpenResourceKind::Socket,
        _ => OpenResourceKind::Resource,
    };
    let detail = match refusal.kind {
        RefusalKind::File | RefusalKind::Socket => refusal.object.clone(),
        _ => format!("{} {}", refusal.object, refusal.reason),
    };
    OpenResource { kind, fd: refusal.fd, detail }
}
