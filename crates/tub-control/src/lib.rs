//! The control protocol between engine and application (internal to tubthumping).
//!
//! In: a process id, or an application that wants to take part. Out: a [`Client`] for the engine,
//! a [`serve`] loop for the application, and the bytes of the [mailbox].
//! Invariant: every wait is bounded, every message has a version, and what the other side says is
//! an allegation: lengths are limited before anything is read into memory.
//! Not here: how an application is notified (the bindings), and how an image is taken (the engine).
//!
//! The protocol is specified in `docs/control-protocol.md`.
#![forbid(unsafe_code)]

mod bounded;
mod client;
mod find;
pub mod mailbox;
mod message;
mod server;
mod witness;

pub use bounded::{connect_within, read_line_within};
pub use client::{Client, ClientError};
pub use find::{is_control_path, listens};
pub use message::*;
pub use server::{Application, Peer, ServeError, default_directory, make_directory, serve};
pub use witness::{Witness, unannounced};
