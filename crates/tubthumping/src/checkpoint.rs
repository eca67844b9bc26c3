//! A checkpoint with the application's part in it.
//!
//! In: a pid, options. Out: a report. Invariant: once the application has been told to prepare, it
//! is told how it ended, whatever happens: by the conversation, by its mailbox, or, should we die,
//! by its own deadline.

use std::path::PathBuf;
use std::time::Duration;
use tub_checkpoint::{
    Error as EngineError, Letters, OpenPolicy, Options, Outcome, Refusal, RefusalKind, Report,
    application_open, control_sockets, survey, unsupported,
};
use tub_control::{
    Client, ClientError, OpenResource, OpenResourceKind, OpenRule, Prepared, mailbox,
};
use tub_image::{ImageWriter, Replace};
use tub_model::Coordination;
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
    /// How long the application may take to prepare.
    pub timeout: Duration,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The application said no, did not answer, or broke the protocol.
    #[error("the application could not be prepared")]
    Coordination(#[source] ClientError),
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
}

impl CheckpointError {
    /// What became of the process.
    pub fn process(&self) -> Outcome {
        match self {
            Self::Coordination(_) => Outcome::Untouched,
            Self::Refused { frozen: true, .. } => Outcome::Thawed,
            Self::Refused { .. } => Outcome::Untouched,
            Self::Engine { source, frozen } => source.outcome(*frozen),
        }
    }
}

impl From<EngineError> for CheckpointError {
    fn from(source: EngineError) -> Self {
        Self::new(source, false)
    }
}

impl CheckpointError {
    fn new(source: EngineError, frozen: bool) -> Self {
        match source {
            EngineError::Refused { refusals, frozen, .. } => Self::Refused { refusals, frozen },
            source => Self::Engine { source, frozen },
        }
    }
}

/// How long the application waits for our letter after it has let go of its socket: more than any
/// image takes, since it is only ever needed when we die.
const COMMIT_DEADLINE: Duration = Duration::from_secs(120);

/// Takes a checkpoint of `pid`, with the application's part in it if it takes any.
///
/// # Errors
///
/// In every case there is no image, and the process goes on; [`CheckpointError::process`] says
/// whether it was stopped meanwhile.
pub fn checkpoint(pid: HostPid, options: &CheckpointOptions) -> Result<Report, CheckpointError> {
    // Everything that needs no answer of the application's is found out before it is told.
    let before = survey(pid)?;
    // The image that the process came from may be replaced by its successor: instances that are
    // alive keep the old one's pages.
    let origin = tub_checkpoint::origin(&before)?;
    let replace = match origin {
        _ if options.replace => Replace::AnyImage,
        Some(origin) => Replace::ImageWithId(origin.image_id),
        None => Replace::Never,
    };
    let writer = ImageWriter::create(&options.dir, replace).map_err(EngineError::Image)?;
    let plain = Options {
        leave_running: options.leave_running,
        generation: origin.map_or(0, |origin| origin.generation) + 1,
        coordination: None,
        letters: None,
    };
    let Some(mut client) = Client::find(pid).map_err(CheckpointError::Coordination)? else {
        return tub_checkpoint::checkpoint(pid, writer, &plain)
            .map_err(|(source, frozen)| CheckpointError::new(source, frozen));
    };
    let prepared = client.prepare(options.timeout).map_err(CheckpointError::Coordination)?;
    let client = examine(pid, client, &prepared)?;
    client.commit(COMMIT_DEADLINE).map_err(CheckpointError::Coordination)?;
    let coordinated = Options {
        coordination: prepared.mailbox.range().map(|mailbox| Coordination {
            mailbox,
            runtime: prepared.runtime.clone(),
            resources: prepared.resources.clone(),
        }),
        letters: Some(letters(options, plain.generation)),
        ..plain
    };
    tub_checkpoint::checkpoint(pid, writer, &coordinated)
        .map_err(|(source, frozen)| CheckpointError::new(source, frozen))
}

/// Looks at the prepared process, and takes the word back if something stands in the way.
fn examine(pid: HostPid, client: Client, prepared: &Prepared) -> Result<Client, CheckpointError> {
    let seen = match survey(pid) {
        Ok(seen) => seen,
        Err(error) => {
            let _ = client.abort(&error.to_string(), &[]);
            return Err(error.into());
        }
    };
    let mut refusals = Vec::new();
    if prepared.open == OpenRule::Refuse {
        let policy = OpenPolicy {
            private_fds: prepared.private_fds.clone(),
            allowed_paths: prepared.allowed_paths.clone(),
        };
        refusals.extend(application_open(&seen, &policy));
    }
    // What the application left open and the engine cannot store either is named once.
    for refusal in unsupported(&seen, &control_sockets(&seen)) {
        if refusal.fd.is_none() || refusals.iter().all(|known| known.fd != refusal.fd) {
            refusals.push(refusal);
        }
    }
    if refusals.is_empty() {
        return Ok(client);
    }
    let message = format!("{} object(s) stand in the way of the checkpoint", refusals.len());
    let failures: Vec<OpenResource> = refusals.iter().map(open_resource).collect();
    client.abort(&message, &failures).map_err(CheckpointError::Coordination)?;
    Err(CheckpointError::Refused { refusals, frozen: false })
}

fn open_resource(refusal: &Refusal) -> OpenResource {
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

fn letters(options: &CheckpointOptions, generation: u64) -> Letters {
    let image = options.dir.display().to_string();
    let resumed = mailbox::encode_resumed(&mailbox::Resumed { image, generation });
    Letters {
        resumed: resumed.unwrap_or_default(),
        failed: Box::new(|error| {
            let failures = match error {
                EngineError::Refused { refusals, .. } => {
                    refusals.iter().map(open_resource).collect()
                }
                _ => Vec::new(),
            };
            let message = crate::sentence(error);
            mailbox::encode_failed(&mailbox::Failed { message, failures }).unwrap_or_default()
        }),
    }
}
