//! CRIU as an engine: found, asked, and understood.
//!
//! In: a pid or an image of CRIU's, options. Out: an image or a restored process.
//! Invariant: CRIU is a program beside ours: it is driven by its documented command line, and
//! nothing of it is linked or copied. An image is complete or not there, as those of our own are.
//! Not here: talking to the application (`tubthumping`); what CRIU can store.
#![forbid(unsafe_code)]

mod aside;
mod dump;
mod error;
mod family;
mod find;
mod log;
mod marker;
mod restore;
mod trust;

pub use aside::{Aside, abandoned};
pub use dump::{DumpOptions, Dumped};
pub use error::Error;
pub use find::Criu;
pub use marker::{Coordinated, MARKER_FILE, Marker, is_image};
pub use restore::{RestoreOptions, Restored};
pub use trust::distrust;
