//! The stages of a checkpoint in their order.
//!
//! In: a pid, options. Out: a report. Invariant: on every failure the process is thawed, told what
//! happened if it takes part, and goes on.

use crate::aside::{Room, carry};
use crate::collect::{self, Beforehand};
use crate::discarders::SeenObjects;
use crate::files::FilePolicy;
use crate::letter::deliver;
use crate::memory_files::MemoryFiles;
use crate::tree::{SurveyedTree, survey_tree_knowing};
use crate::waits::Notes;
use crate::{
    Error, Refusal, Result, TcpPolicy, cannot_end, home, left_behind, survey_running,
    unsupported_tree, write,
};
use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};
use tub_image::{ImageWriter, Summary};
use tub_model::{Coordination, Provenance};
use tub_sys::Errno;
use tub_tracee::FrozenTree;
use tub_units::{HostPid, RemoteAddr};

/// How a checkpoint is to be taken.
#[derive(Debug)]
pub struct Options {
    /// Whether the original goes on.
    pub leave_running: bool,
    /// What becomes of TCP connections.
    pub tcp: TcpPolicy,
    /// How many checkpoints lie behind the process, this one included.
    pub generation: u64,
    /// What the image is called, by name.
    pub labels: Vec<(String, String)>,
    /// What was measured, by name.
    pub metrics: Vec<(String, String)>,
    /// How the application takes part, if it does.
    pub coordination: Option<Coordination>,
    /// What to leave in its mailbox.
    pub letters: Option<Letters>,
}

/// What a process that takes part finds in its mailbox when it goes on.
pub struct Letters {
    /// Where the image was taken and the original goes on.
    pub resumed: Vec<u8>,
    /// Where the checkpoint failed.
    #[expect(clippy::type_complexity, reason = "a name for it would say no more")]
    pub failed: Box<dyn Fn(&Error) -> Vec<u8>>,
}

impl std::fmt::Debug for Letters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Letters").finish_non_exhaustive()
    }
}

/// How long each stage took.
#[derive(Clone, Copy, Debug, Default)]
pub struct StageTimes {
    /// Until all threads stood still.
    pub freeze: Duration,
    /// Reading the process's state.
    pub collect: Duration,
    /// Copying its pages: into the image, or as far as there is memory for it aside.
    pub write: Duration,
    /// Bringing what is left to the disk, and the image into its place.
    pub finish: Duration,
    /// From the first thread stopped to the last one let go or ended.
    pub frozen: Duration,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// The image.
    pub image: Summary,
    /// Its id.
    pub image_id: [u8; 16],
    /// How many processes there are: itself and its descendants.
    pub processes: usize,
    /// How many threads they have.
    pub threads: usize,
    /// How long it took.
    pub times: StageTimes,
    /// Who goes on although it was to end, and why: the image is complete all the same.
    pub not_ended: Option<(HostPid, Errno)>,
}

/// Takes a checkpoint of `pid`.
///
/// # Errors
///
/// In every case the process goes on as before, and there is no image; the flag beside the error
/// says whether the process had been frozen.
pub fn checkpoint(
    pid: HostPid,
    writer: ImageWriter,
    options: &Options,
) -> std::result::Result<Report, (Error, bool)> {
    let mut frozen_once = false;
    let result = stages(pid, writer, options, &mut frozen_once);
    result.map_err(|error| {
        // Frozen or not, a process that takes part waits for a letter.
        tell(pid, options, |letters| (letters.failed)(&error));
        (error, frozen_once)
    })
}

fn stages(
    pid: HostPid,
    mut writer: ImageWriter,
    options: &Options,
    frozen_once: &mut bool,
) -> Result<Report> {
    let refused = |refusals: Vec<Refusal>, frozen| {
        if refusals.is_empty() { Ok(()) } else { Err(Error::Refused { pid, refusals, frozen }) }
    };
    let in_the_way = |tree: &SurveyedTree| {
        let mut refusals = unsupported_tree(tree, &[], options.tcp);
        if !options.leave_running {
            refusals.extend(cannot_end(tree));
        }
        refusals
    };
    let (before, refusals) = survey_running(pid, in_the_way)?;
    refused(refusals, false)?;
    let mut objects = SeenObjects::default();
    before.members.iter().for_each(|member| objects.look(member));
    let members = || before.members.iter().map(|member| member.pid);
    let mut room =
        if options.leave_running { Room::for_all_of(members())? } else { Room::small()? };
    let beforehand = Beforehand {
        provenance: Provenance {
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            created_unix_ns: realtime_ns(),
            generation: options.generation,
            image_id: random()?,
            labels: options.labels.clone(),
            metrics: options.metrics.clone(),
        },
        host: tub_host::facts().map_err(|source| Error::Proc {
            path: "facts about this host".to_owned(),
            source: std::io::Error::other(source),
        })?,
        coordination: options.coordination.clone(),
        sites: before
            .members
            .iter()
            .filter_map(|member| Some((member.pid, home::likely_call_site(member)?)))
            .collect(),
        objects,
        // Last of all: who goes to sleep once more makes them worthless.
        notes: Notes::read(members()),
    };
    let image_id = beforehand.provenance.image_id;
    let start = Instant::now();
    let survey = || survey_tree_knowing(pid, Some(&before));
    let (frozen, tree) = frozen_at_home(pid, survey, frozen_once)?;
    let freeze = start.elapsed();
    refused(unsupported_tree(&tree, &[], options.tcp), true)?;
    let mut memory_files = MemoryFiles::default();
    let policy = FilePolicy { tcp: options.tcp };
    let checkpoint = collect::collect(&frozen, &tree, policy, beforehand, &mut memory_files)?;
    let collected = start.elapsed();
    let pids: Vec<HostPid> = tree.members.iter().map(|member| member.pid).collect();
    let (frozen, copied, thawed) = carry(&mut room, writer.pages(), |outbox| {
        write::pages(&frozen, &pids, &checkpoint, outbox)?;
        memory_files.pages(&checkpoint.memory_files, outbox)?;
        let copied = start.elapsed();
        // An original that goes on need not wait for the disk.
        let frozen = if options.leave_running {
            frozen.thaw();
            None
        } else {
            Some(frozen)
        };
        Ok((frozen, copied, start.elapsed()))
    })?;
    let image = writer.finish(&checkpoint).map_err(Error::Image)?;
    let finished = start.elapsed();
    let ends = frozen.is_some();
    let not_ended = frozen.and_then(|frozen| frozen.kill().err());
    if ends && not_ended.is_none() {
        left_behind::remove(&tree);
    }
    if options.leave_running || not_ended.is_some() {
        tell(pid, options, |letters| letters.resumed.clone());
    }
    let times = StageTimes {
        freeze,
        collect: collected - freeze,
        write: copied - collected,
        finish: finished - thawed,
        frozen: if options.leave_running { thawed } else { start.elapsed() },
    };
    let threads = checkpoint.tasks.iter().map(|task| task.threads.len()).sum();
    Ok(Report { image, image_id, processes: checkpoint.tasks.len(), threads, times, not_ended })
}

/// How often a process is frozen that is still on its way back from its own restore.
const FREEZE_ATTEMPTS: u32 = 400;

/// Freezes the process at a moment at which all its threads run its own code. Right after a restore
/// some may not have left the blob yet, which is no part of an image; they need a moment more.
fn frozen_at_home(
    pid: HostPid,
    survey: impl Fn() -> Result<SurveyedTree>,
    frozen_once: &mut bool,
) -> Result<(FrozenTree, SurveyedTree)> {
    for _ in 0..FREEZE_ATTEMPTS {
        let frozen = FrozenTree::freeze(pid).map_err(|source| {
            // Only one can trace a process at a time, and the kernel does not say that it is this.
            traced(pid).unwrap_or(Error::Tracee { pid, source })
        })?;
        *frozen_once = true;
        let tree = survey()?;
        let mut on_its_way = false;
        for member in frozen.members() {
            let survey = tree.members.iter().find(|survey| survey.pid == member.pid());
            let survey = survey.ok_or(Error::NoSuchProcess { pid: member.pid() })?;
            on_its_way |= home::on_its_way_back(member, survey)?;
        }
        if !on_its_way {
            return Ok((frozen, tree));
        }
        frozen.thaw();
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(Error::Remote { what: "the end of its restore".to_owned(), pid, source: Errno::EBUSY })
}

/// Leaves a letter in the mailbox of a process that takes part. It polls for it, and it gives up
/// by itself after its deadline, so a letter that cannot be delivered does no harm.
fn tell(pid: HostPid, options: &Options, letter: impl FnOnce(&Letters) -> Vec<u8>) {
    let (Some(coordination), Some(letters)) = (&options.coordination, &options.letters) else {
        return;
    };
    deliver(pid, RemoteAddr(coordination.mailbox.start()), &letter(letters));
}

/// Who traces the process, if anybody does.
fn traced(pid: HostPid) -> Option<Error> {
    let status = std::fs::read(format!("/proc/{pid}/status")).ok()?;
    let tracer = tub_procfs::status::parse(&status).ok()?.tracer_pid;
    if tracer.0 == 0 {
        return None;
    }
    let name = std::fs::read_to_string(format!("/proc/{tracer}/comm")).unwrap_or_default();
    Some(Error::Traced { pid, tracer, name: name.trim().to_owned() })
}

fn realtime_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_REALTIME)
        .map_or(0, |now| u64::try_from(Duration::from(now).as_nanos()).unwrap_or(u64::MAX))
}

fn random() -> Result<[u8; 16]> {
    let path = "/dev/urandom";
    let failed = |source| Error::Proc { path: path.to_owned(), source };
    let mut bytes = [0; 16];
    std::io::Read::read_exact(&mut std::fs::File::open(path).map_err(failed)?, &mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}
