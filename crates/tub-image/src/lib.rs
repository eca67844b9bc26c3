//! The image directory: what a checkpoint is on disk. Internal to tubthumping.
//!
//! In: a [`tub_model::Checkpoint`] and a stream of pages. Out: a directory that [`Image::open`]
//! turns back into the same value and a file to map.
//! Invariant: a directory under its final name is complete, synced and never modified again, since
//! restored processes map it for as long as they live.
//! The one file that may come later, `hot.tub`, is advice and is not mapped.
//! Not here: which pages are worth saving (`tub-checkpoint`), and how they get back into memory
//! (`tub-restore`).
//!
//! `FORMAT.md` beside this file's folder is the specification.
#![doc = include_str!("../FORMAT.md")]
#![forbid(unsafe_code)]

mod bounds;
mod error;
mod hot;
mod image;
mod inventory;
mod layout;
mod leftover;
mod pages;
mod structure;
#[cfg(test)]
mod tests;
mod v1;
mod writer;

pub use error::{Error, ErrorKind, Result};
pub use hot::HOT_FILE;
pub use image::Image;
pub use layout::{INVENTORY_FILE, PAGES_FILE, Version};
pub use leftover::remove_leftovers;
pub use pages::{PageRun, PageWriter, Zeros};
pub use writer::{ImageWriter, Replace, Summary};
