//! Coordination alone, for images that somebody else takes: CRIU by hand, Docker, Podman, a VM's snapshot.
//!
//! In: a pid. Out: a process that waits to be frozen, and what it takes to have it go on.
//! Invariant: a process that was prepared goes on by itself when its time is over, whoever dies. A copy
//! needs nobody: it notices by itself that it is one (`tub_control::Witness`).
//! Not here: where a [`Preparation`] is kept meanwhile (`tub-cli`).

use crate::LateAgent;
use crate::checkpoint::{CheckpointError, application_left_open, coordinate, is_running, reach};
use std::fs::File;
use std::time::{Duration, Instant};
use tub_checkpoint::{SurveyedTree, deliver, deliver_to, survey_tree, waits_in};
use tub_control::mailbox::{self, HEADER_BYTES};
use tub_control::{Client, ClientError, Prepared};
use tub_units::{AddrRange, HostPid, RemoteAddr};

/// A process that waits for its image to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preparation {
    /// Which one.
    pub pid: HostPid,
    /// When it started, in ticks (proc_pid_stat(5)): ids are used again.
    pub start: u64,
    /// Address of its mailbox.
    pub mailbox: u64,
    /// How many checkpoints lie behind it, the one to come included.
    pub generation: u64,
}

impl Preparation {
    /// Whether the process is still there, and the same.
    fn is_alive(&self) -> bool {
        survey_tree(self.pid).is_ok_and(|tree| tree.main().stat.starttime == self.start)
    }
}

/// Whether a process that was prepared still waits for its image.
pub fn is_waiting(preparation: &Preparation) -> bool {
    preparation.is_alive() && matches!(Client::find(preparation.pid), Ok(None))
}

/// Why a process could not be told to go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// It is not the process that was prepared.
    #[error("process {pid} ended since it was prepared")]
    Gone {
        /// Its id.
        pid: HostPid,
    },
    /// It cannot be spoken to.
    #[error("the application cannot be asked")]
    Coordination(#[source] ClientError),
    /// It did not come back.
    #[error("the application was told, and does not answer within {waited:?}")]
    Silent {
        /// How long was waited.
        waited: Duration,
    },
}

/// Has the application of `pid` prepare, and wait for its image for at most `patience`. `None` where it
/// takes no part, so that there is nobody to be told.
///
/// # Errors
///
/// The application goes on.
pub fn prepare(
    pid: HostPid,
    late_agent: Option<&LateAgent>,
    timeout: Duration,
    patience: Duration,
) -> Result<Option<Preparation>, CheckpointError> {
    let start = survey_tree(pid)?.main().stat.starttime;
    let Some(mut client) = reach(pid, late_agent)? else { return Ok(None) };
    let status = client.status().map_err(CheckpointError::Coordination)?;
    let left_open =
        |tree: &SurveyedTree, prepared: &Prepared| application_left_open(tree, prepared, &[]);
    let prepared = coordinate(pid, client, timeout, patience, &left_open)?;
    let (mailbox, generation) = (prepared.mailbox.address, status.generation + 1);
    Ok(Some(Preparation { pid, start, mailbox, generation }))
}

/// Has a prepared process go on: its image was taken, or, if it `failed`, there is none. Returns when it
/// answers again, for which it has `timeout`; `false` where it had gone on already.
///
/// # Errors
///
/// It is gone, or does not answer.
pub fn resume(
    preparation: &Preparation,
    failed: Option<&str>,
    timeout: Duration,
) -> Result<bool, ResumeError> {
    let pid = preparation.pid;
    if !preparation.is_alive() {
        return Err(ResumeError::Gone { pid });
    }
    if is_running(pid).map_err(ResumeError::Coordination)? {
        return Ok(false);
    }
    deliver(pid, RemoteAddr(preparation.mailbox), &letter(preparation, failed));
    let told = Instant::now();
    while told.elapsed() < timeout {
        if is_running(pid).map_err(ResumeError::Coordination)? {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(ResumeError::Silent { waited: timeout })
}

/// Leaves word for a prepared process that stands still, and may end without having run again: its image
/// was taken, or, if it `failed`, there is none. One that was told already keeps what it was told.
pub fn leave_word(preparation: &Preparation, failed: Option<&str>) {
    let Preparation { pid, mailbox, .. } = *preparation;
    let path = format!("/proc/{pid}/mem");
    let Ok(memory) = File::options().read(true).write(true).open(path) else { return };
    let Some(header) = AddrRange::with_len(mailbox, HEADER_BYTES as u64) else { return };
    // After a look at who it is: by now the number may be somebody else's.
    if preparation.is_alive() && waits_in(&memory, pid, header) {
        // It may have ended this moment, and nobody is there to be told.
        let _ = deliver_to(&memory, RemoteAddr(mailbox), &letter(preparation, failed));
    }
}

fn letter(preparation: &Preparation, failed: Option<&str>) -> Vec<u8> {
    let letter = match failed {
        None => {
            let (image, generation) = (String::new(), preparation.generation);
            mailbox::encode_resumed(&mailbox::Resumed { image, generation })
        }
        Some(message) => mailbox::encode_failed(&mailbox::Failed {
            message: message.to_owned(),
            failures: Vec::new(),
        }),
    };
    letter.unwrap_or_default()
}
