//! The native prober and load generator: one definition of "how long until it answers".
//!
//! In: a command that becomes a web service, and the answer that counts as correct.
//! Out: times since just before the command was executed, and request rates.
//! Invariant: cold starts and restores are measured by the same code with the same clock, so that
//! their ratio means something.
//! Not here: statistics over several runs; whoever starts the prober keeps the raw numbers.
#![deny(unsafe_code)]

pub mod clock;
pub mod floor;
pub mod http;
pub mod load;
pub mod netns;
pub mod standby;
pub mod start;
