//! Turns the text of `/proc` into records. Internal to tubthumping.
//!
//! In: the bytes of one file. Out: records, one module a file. Pure: nothing is opened here.
//! Invariant: no input makes a parser panic; what it does not understand it refuses, naming file,
//! line and field, or, where the kernel may add lines, passes over.
//! Not here: reading the files (`tub-tracee`), and what the records mean for a checkpoint
//! (`tub-checkpoint`).
//!
//! Device numbers come out as `stat(2)` gives them, whatever encoding the file uses, so that they
//! can be compared with `st_dev`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod auxv;
pub mod children;
pub mod cpuinfo;
mod error;
pub mod fdinfo;
pub mod limits;
pub mod locks;
pub mod maps;
pub mod net;
pub mod rollup;
pub mod sched;
pub mod smaps;
pub mod stat;
pub mod status;
mod text;
pub mod timens;
pub mod timers;

pub use error::{Error, ErrorKind, Result};
