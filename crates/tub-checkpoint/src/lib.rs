//! From a running process to an image: `freeze → collect → write`.
//!
//! In: a pid, options. Out: an image directory, and the process ended or going on.
//! Invariant: whatever fails, the process goes on as before; an image under its final name is
//! complete. Everything that stands in the way is found before the process is frozen, and found
//! again afterwards, since it may have changed.
//! Not here: talking to the application (`tubthumping`), and what a restore makes of the image.
#![forbid(unsafe_code)]

mod aside;
mod batch;
mod caller;
mod checkpoint;
mod collect;
mod controls;
mod discarders;
mod ended;
mod ending;
mod error;
mod files;
mod home;
mod left_behind;
mod letter;
mod mapped;
mod memory;
mod memory_files;
mod owner;
mod refuse;
mod registers;
mod robust;
mod running;
mod same;
mod sharing;
mod state;
mod survey;
mod tree;
mod waits;
mod watched;
mod write;

pub use checkpoint::{Letters, Options, Report, StageTimes, checkpoint};
pub use ended::has_ended;
pub use ending::cannot_end;
pub use error::{Error, Outcome, Result, Unfrozen};
pub use letter::{deliver, deliver_to, waits_in};
pub use mapped::Unmappable;
pub use memory::{Origin, origin, own_pages};
pub use owner::only_owner;
pub use refuse::{
    DELETED_BYTES_MAX, OpenPolicy, Refusal, RefusalKind, TcpPolicy, application_open,
    control_sockets, unsupported, unsupported_tree,
};
pub use running::survey_running;
pub use survey::{Survey, SurveyedFd, SurveyedThread, survey};
pub use tree::{Kin, KinFd, SurveyedTree, SurveyedZombie, survey_tree};
pub use watched::Watched;
