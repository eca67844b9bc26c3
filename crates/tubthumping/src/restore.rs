//! A restore: `open → plan → launch → resume`.
//!
//! In: an image, options. Out: a running process. Invariant: a restore that fails leaves no
//! process behind, and the image is never written to.

use crate::engine::{CriuOptions, EngineKind, PauseError, Paused, engine, engine_of};
use nix::errno::Errno;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};
use tub_control::mailbox;
use tub_host::{FileMismatch, FileProblem, LockConflict, Mismatch};
use tub_image::Image;
use tub_model::HostFacts;
use tub_restore::launch::Surroundings;
use tub_restore::plan::{Ids, MemoryMode, PlanError, PlanWishes, RestorePlan, Stdio, plan};
use tub_restore::{LaunchError, Parked, Stats, launch, plan_facts};

/// How an image is to be restored.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// The image.
    pub dir: PathBuf,
    /// Same ids or new ones.
    pub ids: Ids,
    /// How memory is brought back.
    pub memory: MemoryMode,
    /// Where the standard streams come from.
    pub stdio: Stdio,
    /// Variables on top of our own environment, which the application is handed as a whole.
    pub environment: Vec<(OsString, OsString)>,
    /// New arguments for the application.
    pub arguments: Vec<OsString>,
    /// Anything else for the application, as it is.
    pub data: Vec<u8>,
    /// Whether the instance outlives us.
    pub detach: bool,
    /// Whether nothing is to be done between [`restore()`] and [`Restoring::resume`]: an instance that
    /// keeps its ids and does not outlive us then goes on as soon as it is laid out, a tenth of a
    /// millisecond sooner.
    pub at_once: bool,
    /// Whether monotonic clocks may run backwards, where no time namespace can be had and the host of
    /// the image had run for longer.
    pub clocks_may_go_back: bool,
    /// Options for CRIU, if the image is its.
    pub criu: CriuOptions,
    /// Labels that the image must have.
    pub required_labels: Vec<(String, String)>,
    /// Whether what a training has recorded is left out of account.
    pub untrained: bool,
}

/// Why there is no process.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The image cannot be used.
    #[error("image cannot be used")]
    Image(#[source] tub_image::Error),
    /// The image does not fit this host.
    #[error("image does not fit this host")]
    Host(Vec<Mismatch>),
    /// Files that the process had open or mapped are not as they were.
    #[error("{} file(s) are not as they were at the checkpoint", .0.len())]
    Files(Vec<FileMismatch>),
    /// Others hold file locks that the image holds, too.
    #[error("file locks of the image are held by others")]
    Locked(Vec<LockConflict>),
    /// Facts about this host cannot be had.
    #[error("facts about this host cannot be had")]
    Facts(#[source] tub_host::Error),
    /// No random bytes for the new instance.
    #[error("/dev/urandom cannot be read")]
    Random(#[source] std::io::Error),
    /// The image cannot be restored in the way wished for.
    #[error("image cannot be restored in this way")]
    Plan(#[source] PlanError),
    /// The image has not the labels that were required.
    #[error("the image has not the labels required")]
    Labels(Vec<MissingLabel>),
    /// New arguments for an application that cannot take them.
    #[error("image holds an application that takes no new arguments")]
    NoArguments,
    /// The environment is larger than what the application has room for.
    #[error("environment and arguments are too large")]
    Letter(#[source] mailbox::TooLong),
    /// The same, of an instance on standby, which is left parked.
    #[error("environment and arguments take {bytes} bytes: a release has room for {room}")]
    ReleaseTooLarge {
        /// What they take.
        bytes: usize,
        /// What there is.
        room: usize,
    },
    /// An attendant that has no keeper.
    #[error("standard input is no keeper's socket")]
    Keeper(#[source] std::io::Error),
    /// The process could not be made.
    #[error("the process could not be made")]
    Launch(#[source] LaunchError),
    /// The engine whose image it is does not do that.
    #[error("the engine {engine} does not know {what}")]
    Unsupported {
        /// Which.
        engine: EngineKind,
        /// What.
        what: &'static str,
    },
    /// CRIU failed, or there is none.
    #[error("the process could not be brought back by CRIU")]
    Criu(#[from] tub_criu::Error),
    /// What was paused cannot go on.
    #[error("what was paused cannot go on")]
    Pause(#[from] PauseError),
}

/// A label that an image was required to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingLabel {
    /// Its name.
    pub name: String,
    /// What was required.
    pub required: String,
    /// What the image has, if it has any.
    pub found: Option<String>,
}

impl fmt::Display for MissingLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, required, found } = self;
        match found {
            Some(found) => {
                write!(f, "label {name} is {found} in the image, {required} is required")
            }
            None => write!(f, "label {name} is not in the image, {required} is required"),
        }
    }
}

/// Which of the required labels an image has not.
pub fn missing_labels(
    labels: &[(String, String)],
    required: &[(String, String)],
) -> Vec<MissingLabel> {
    let missing = |(name, required): &(String, String)| {
        // The last one of a name counts, as in the words that made them.
        let found = labels.iter().rfind(|(found, _)| found == name).map(|(_, value)| value);
        (found != Some(required)).then(|| MissingLabel {
            name: name.clone(),
            required: required.clone(),
            found: found.cloned(),
        })
    };
    required.iter().filter_map(missing).collect()
}

/// A restore on its way: everything is laid out and waits for [`Restoring::resume`], unless it was to go on
/// [at once](RestoreOptions::at_once).
#[derive(Debug)]
pub struct Restoring {
    held: Held,
    spent: Spent,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// What a restore was made of. To give it back takes as long as to open the image, and the process need
/// not wait for it: whoever restores drops this when it runs.
#[derive(Debug, Default)]
#[must_use = "to be dropped when there is time"]
pub struct Spent(
    #[expect(dead_code, reason = "held to be dropped")] Option<Box<(Image, RestorePlan)>>,
);

/// By whom the process is held.
#[derive(Debug)]
enum Held {
    Native(Parked),
    Criu(tub_criu::Restored),
    Paused(Paused),
}

impl Restoring {
    pub(crate) const fn criu(restored: tub_criu::Restored) -> Self {
        Self { held: Held::Criu(restored), spent: Spent(None), warnings: Vec::new() }
    }

    pub(crate) const fn paused(paused: Paused) -> Self {
        Self { held: Held::Paused(paused), spent: Spent(None), warnings: Vec::new() }
    }

    /// Lets the process go.
    ///
    /// # Errors
    ///
    /// Where it was killed meanwhile.
    pub fn resume(self) -> Result<(tub_restore::Running, Spent), RestoreError> {
        let running = match self.held {
            Held::Native(parked) => parked.resume().map_err(RestoreError::Launch)?,
            Held::Criu(restored) => restored.resume(),
            Held::Paused(paused) => paused.resume()?,
        };
        Ok((running, self.spent))
    }
}

/// Brings the process of an image to the point of no return.
///
/// The caller must be single-threaded, and finds all signals blocked afterwards. It may find itself
/// in a user namespace of its own, in which it is mapped to itself.
///
/// # Errors
///
/// In every case there is no process, and the image is as it was.
pub fn restore(options: &RestoreOptions, stats: &mut Stats) -> Result<Restoring, RestoreError> {
    engine(engine_of(&options.dir), &options.criu).restore(options, stats)
}

pub(crate) fn restore_native(
    options: &RestoreOptions,
    stats: &mut Stats,
) -> Result<Restoring, RestoreError> {
    let (image, mut planned) = prepare(options, false, stats)?;
    let parked = launch(&planned, &image.pages).map_err(|error| launch_error(&image, error))?;
    stats.mark("parked_us");
    let warnings = std::mem::take(&mut planned.warnings);
    let spent = Spent(Some(Box::new((image, planned))));
    Ok(Restoring { held: Held::Native(parked), spent, warnings })
}

/// What a user is told of a launch that failed: everything that is in its way.
pub(crate) fn launch_error(image: &Image, error: LaunchError) -> RestoreError {
    match error {
        // The first one ended the attempt; whoever mends it wants to know of all.
        LaunchError::FileChanged { .. } => {
            let all = tub_host::check_files(&image.checkpoint);
            if all.is_empty() { RestoreError::Launch(error) } else { RestoreError::Files(all) }
        }
        error if is_forbidden(&error) => {
            let mut all = tub_host::check_files(&image.checkpoint);
            all.retain(|file| file.problem == FileProblem::NoExec);
            if all.is_empty() { RestoreError::Launch(error) } else { RestoreError::Files(all) }
        }
        LaunchError::Locked { .. } => {
            let all = tub_host::check_locks(&image.checkpoint);
            if all.is_empty() { RestoreError::Launch(error) } else { RestoreError::Locked(all) }
        }
        error => RestoreError::Launch(error),
    }
}

/// Whether the kernel said no to an operation, which it does without saying why.
fn is_forbidden(error: &LaunchError) -> bool {
    match error {
        LaunchError::Operation { source, .. } => matches!(source, Errno::EPERM | Errno::EACCES),
        LaunchError::Member { source, .. } => is_forbidden(source),
        _ => false,
    }
}

/// The plan that [`restore`] would carry out, without carrying it out.
///
/// # Errors
///
/// As for [`restore`], as far as it gets without making a process.
pub fn dry_run(options: &RestoreOptions, stats: &mut Stats) -> Result<String, RestoreError> {
    let unsupported = |engine, what| Err(RestoreError::Unsupported { engine, what });
    match engine_of(&options.dir) {
        EngineKind::Criu => {
            return unsupported(EngineKind::Criu, "--dry-run: it decides while it acts");
        }
        EngineKind::Pause => {
            return unsupported(EngineKind::Pause, "--dry-run: there is nothing to lay out");
        }
        EngineKind::Native | EngineKind::Sim => {}
    }
    prepare(options, false, stats).map(|(_, planned)| planned.to_string())
}

/// Whether an image of our own engine could be restored here, as far as that takes no process: it is
/// whole, has the labels required, and fits this host. Any thread may ask.
///
/// # Errors
///
/// Why it could not.
pub fn fits(options: &RestoreOptions) -> Result<(), RestoreError> {
    open(options, &mut Stats::start()).map(drop)
}

fn open(options: &RestoreOptions, stats: &mut Stats) -> Result<(Image, HostFacts), RestoreError> {
    let image = Image::open(&options.dir).map_err(RestoreError::Image)?;
    stats.mark("opened_us");
    let labels = &image.checkpoint.provenance.labels;
    let missing = missing_labels(labels, &options.required_labels);
    if !missing.is_empty() {
        return Err(RestoreError::Labels(missing));
    }
    let here = tub_host::facts_since(&image.checkpoint.host).map_err(RestoreError::Facts)?;
    let mismatches = tub_host::compare(&image.checkpoint.host, &here);
    if !mismatches.is_empty() {
        return Err(RestoreError::Host(mismatches));
    }
    if image.checkpoint.coordination.is_none() && !options.arguments.is_empty() {
        return Err(RestoreError::NoArguments);
    }
    Ok((image, here))
}

/// An image, and what is to be done to have it get up; on standby, its letter is written later.
pub(crate) fn prepare(
    options: &RestoreOptions,
    standby: bool,
    stats: &mut Stats,
) -> Result<(Image, RestorePlan), RestoreError> {
    let (image, here) = open(options, stats)?;
    let letter = match image.checkpoint.coordination {
        Some(_) if !standby => letter(image.checkpoint.provenance.generation, options)?,
        _ => Vec::new(),
    };
    let surroundings = Surroundings::enter(options.ids).map_err(RestoreError::Launch)?;
    stats.mark("surroundings_us");
    let facts = plan_facts(&image.pages, &surroundings, &image.checkpoint.host, &here);
    let wishes = PlanWishes {
        ids: options.ids,
        memory: options.memory,
        stdio: options.stdio,
        detach: options.detach,
        at_once: options.at_once,
        clocks_may_go_back: options.clocks_may_go_back,
        standby,
        hot: if options.untrained { Vec::new() } else { image.hot() },
        mailbox: letter,
        restorer: tub_units::HostPid(std::process::id().cast_signed()),
    };
    let planned =
        plan(&image.checkpoint, &image.runs, &facts, wishes).map_err(RestoreError::Plan)?;
    stats.mark("planned_us");
    Ok((image, planned))
}

/// What the application finds in its mailbox.
pub(crate) fn letter(generation: u64, options: &RestoreOptions) -> Result<Vec<u8>, RestoreError> {
    let mut random = [0u8; 48];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut random))
        .map_err(RestoreError::Random)?;
    let (instance, seed) = random.split_at(16);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let restored = mailbox::Restored {
        instance: hex(instance),
        generation,
        seed: hex(seed),
        restore_unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
    };
    let set = &options.environment;
    let replaced =
        |name: &OsString, by: &[(OsString, OsString)]| by.iter().any(|(new, _)| new == name);
    // The last one of a name counts, and is the only one: getenv(3) finds the first.
    let last = (1..).zip(set).filter(|(next, (name, _))| !replaced(name, &set[*next..]));
    let environment = std::env::vars_os()
        .filter(|(name, _)| !replaced(name, set))
        .chain(last.map(|(_, variable)| variable.clone()))
        .map(|(name, value)| {
            let mut line = name.into_vec();
            line.push(b'=');
            line.extend(value.into_vec());
            line
        });
    let environment = mailbox::join_block(environment);
    let arguments = mailbox::join_block(options.arguments.iter().map(|one| one.clone().into_vec()));
    mailbox::encode_restored_with(&restored, &environment, &arguments, &options.data)
        .map_err(RestoreError::Letter)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_set_twice_is_there_once() {
        let pair = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
        let environment = vec![pair("TWICE_A", "1"), pair("TWICE_B", "2"), pair("TWICE_A", "3")];
        let options = RestoreOptions { environment, ..RestoreOptions::default() };
        let letter = mailbox::decode(&letter(1, &options).unwrap()).unwrap();
        let mailbox::Letter::Restored { environment, .. } = letter else { panic!("{letter:?}") };
        let ours: Vec<_> = environment.iter().filter(|one| one.starts_with(b"TWICE_")).collect();
        assert_eq!(ours, [b"TWICE_B=2", b"TWICE_A=3"]);
    }
}
