//! Taking part in checkpoints: what an application is told before and after.
//!
//! In: resources that the application registers. Out: their hooks, called before its image is taken
//! and after it goes on, in the original and in every copy; and [`checkpoint`], from inside.
//! Invariant: every resource that was told before is told after, whatever others did; hooks run on
//! a thread of their own.
//! Not here: how an image is taken. A service that uses this crate carries no engine.
//!
//! ```no_run
//! use tubthumping_app::{HookError, Outcome, Resource};
//!
//! struct Pool;
//!
//! impl Resource for Pool {
//!     fn before_checkpoint(&self) -> Result<(), HookError> {
//!         // Close the connections.
//!         Ok(())
//!     }
//!     fn after_restore(&self, outcome: &Outcome) -> Result<(), HookError> {
//!         if let Outcome::Restored(copy) = outcome {
//!             println!("this is copy {}", copy.instance);
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let registration = tubthumping_app::register("pool", Pool)?;
//! // … serve; dropping `registration` unregisters the pool.
//! # drop(registration);
//! # Ok::<(), tubthumping_app::StartError>(())
//! ```
//!
//! The engine's end of the protocol is `tub checkpoint`; both are specified in
//! `docs/control-protocol.md`. [`descriptor`], [`desk`], [`engine`] and [`mailbox`] are what the
//! bindings of other languages that keep rounds of their own (Java) are made of.

mod context;
mod coordinator;
pub mod descriptor;
mod descriptors;
pub mod desk;
pub mod engine;
mod failure;
mod left_open;
pub mod mailbox;
mod outcome;
mod peer;
pub mod policies;
mod round;
mod socket;

pub use context::{Context, Registration, Resource, global_context};
pub use coordinator::{Runtime, StartError, checkpoint, register, start, start_as};
pub use failure::{Error, ErrorKind, Failure, HookError};
pub use outcome::{Outcome, Restored, Resumed};
pub use peer::{allow_tracing_by, open_rule};
