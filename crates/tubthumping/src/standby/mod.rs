//! Instances on standby: launched, with their hot pages in place, and parked until somebody wants one.
//!
//! In: an image and how many. Out: instances, one for each time that somebody asks.
//! Invariant: a parked instance ends with its attendant, and an attendant with its keeper, whatever
//! ends that; a released one depends on neither.
//!
//! ```text
//!   tub release ──socket──▶ keeper ──┬──▶ attendant ── init ── parked instance
//!                                    ├──▶ attendant ── init ── parked instance
//!                                    └──▶ …
//! ```
//!
//! The keeper is never in a namespace of theirs: it knows who asks by the ids that all know. Each
//! attendant is what `tub restore` is otherwise, up to the point of no return.

mod attendant;
mod client;
mod keeper;
mod place;
mod wire;

pub use attendant::attend;
pub use client::{AskError, release, status};
pub use keeper::{Event, KeeperError, KeeperOptions, keep};
pub use place::{PlaceError, control_socket};
pub use wire::{FailureKind, Memory, ParkedInstance, Released, Status};

use crate::restore::{RestoreError, RestoreOptions, launch_error, letter, prepare};
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use tub_restore::{Running, Stats, Waiting};
use tub_units::HostPid;

/// A letter goes through a socket in one message, which the kernel bounds by net.core.wmem_default:
/// 212,992 bytes on every kernel that was not told otherwise.
const LETTER_BYTES_MAX: usize = 200_000;

/// A parked instance.
#[derive(Debug)]
pub(crate) struct Parked {
    waiting: Waiting,
    options: RestoreOptions,
    generation: u64,
    /// How many bytes a letter to it may have, if it takes one.
    mailbox_bytes: Option<usize>,
    /// What the user should know.
    pub(crate) warnings: Vec<String>,
}

/// Launches an instance up to where it waits for its release. As [`crate::restore()`] otherwise.
pub(crate) fn park(options: RestoreOptions) -> Result<Parked, RestoreError> {
    // Nobody measures what nobody waits for.
    let (image, planned) = prepare(&options, true, &mut Stats::start())?;
    let warnings = planned.warnings.clone();
    let waiting = tub_restore::park(planned, &image.pages);
    let waiting = waiting.map_err(|error| launch_error(&image, error))?;
    let coordination = image.checkpoint.coordination.as_ref();
    let mailbox_bytes = coordination.map(|coordination| {
        let bytes = usize::try_from(coordination.mailbox.len()).unwrap_or(usize::MAX);
        bytes.min(LETTER_BYTES_MAX)
    });
    let generation = image.checkpoint.provenance.generation;
    Ok(Parked { waiting, options, generation, mailbox_bytes, warnings })
}

impl Parked {
    /// The main process, as we see it, and our child: its init, where it has one.
    pub(crate) fn ids(&self) -> (HostPid, HostPid) {
        (self.waiting.main(), self.waiting.child())
    }

    /// What the application will find in its mailbox if it is released now.
    pub(crate) fn letter(
        &self,
        environment: Vec<(OsString, OsString)>,
        arguments: Vec<OsString>,
    ) -> Result<Vec<u8>, RestoreError> {
        let Some(room) = self.mailbox_bytes else {
            return if arguments.is_empty() {
                Ok(Vec::new())
            } else {
                Err(RestoreError::NoArguments)
            };
        };
        let mut options = self.options.clone();
        // The last one of a name counts.
        options.environment.retain(|(name, _)| environment.iter().all(|(new, _)| new != name));
        options.environment.extend(environment);
        if !arguments.is_empty() {
            options.arguments = arguments;
        }
        let letter = letter(self.generation, &options)?;
        let bytes = letter.len();
        if bytes > room { Err(RestoreError::ReleaseTooLarge { bytes, room }) } else { Ok(letter) }
    }

    /// Lets it go.
    pub(crate) fn release(self, letter: &[u8]) -> Result<Running, RestoreError> {
        self.waiting.release(letter).map_err(RestoreError::Launch)
    }
}

/// Can be read when something has become of it.
impl AsFd for Parked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waiting.as_fd()
    }
}
