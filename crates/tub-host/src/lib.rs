//! What this host is and what it allows. Internal to tubthumping.
//!
//! In: nothing but the host. Out: [`facts`], which an image keeps and a restore compares.
//! Invariant: reads only; a fact is the same for every process of the host.
//! Not here: what follows for a restore (`tub-restore`).
#![forbid(unsafe_code)]

mod arch;
mod compare;
mod error;
mod facts;

pub use compare::{Mismatch, compare};
pub use error::Error;
pub use facts::facts;
