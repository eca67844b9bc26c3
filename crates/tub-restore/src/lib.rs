//! From an image to a running process: `open → plan → launch → resume`.
//!
//! In: an image, wishes. Out: a running process. Invariant: everything is decided in [`plan`],
//! which touches nothing; [`launch()`] ends with every thread mapped and parked; [`Parked::resume`]
//! is the only point of no return.
//! Not here: reading the image (`tub-image`), words for users (`tub-cli`).

mod facts;
pub mod launch;
pub mod plan;
mod stats;

pub use facts::plan_facts;
pub use launch::{
    Housed, LaunchError, Other, Outcome, Parked, Running, Waiting, house, launch, park,
};
pub use stats::Stats;
