//! Freezing a process, looking into it, and letting it go.
//!
//! In: a pid. Out: a [`Frozen`] process, whose threads, memory and kernel state can be read.
//! Invariant: whatever happens, dropping a [`Frozen`] lets every thread go on where it was.
//! Not here: what any of it means (see `tub-checkpoint`).

mod error;
mod freeze;
mod remote;
mod site;
mod tree;
mod wait;

pub use error::{Error, Result};
pub use freeze::{Frozen, StoppedThread};
pub use remote::{RemoteCalls, WayHome};
pub use site::CallSite;
pub use tree::FrozenTree;
