//! Plans as golden text: what a plan does, in which order, for small processes made by hand.
//!
//! A plan is pure, so these tests need no privilege and no process. To accept a change after having
//! read it: `BLESS=1 cargo test -p tub-restore --test plans`.

#![expect(clippy::unwrap_used, reason = "a test may end where it finds what it did not expect")]

mod memory;
mod rights;
mod sample;
mod shape;
mod standby;
mod time;
