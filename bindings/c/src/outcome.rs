//! How a process goes on, as C sees it.
//!
//! In: an [`Outcome`]. Out: a struct of pointers into memory that is owned beside it.
//! Invariant: the struct lives no longer than what it points to.
//! Not here: failures (`report`).

use std::ffi::{CString, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use tubthumping_app::Outcome;

/// The original goes on, and there is an image.
pub const TUB_RESUMED: c_int = 1;
/// This process is a copy.
pub const TUB_RESTORED: c_int = 2;
/// The original goes on, and there is no image.
pub const TUB_FAILED: c_int = 3;

/// How this process goes on after a checkpoint.
#[repr(C)]
#[derive(Debug)]
pub struct tub_outcome {
    /// TUB_RESUMED, TUB_RESTORED or TUB_FAILED.
    pub state: c_int,
    /// How many checkpoints lie behind the process; 0 where this one failed.
    pub generation: u64,
    /// Where the image is; NULL unless TUB_RESUMED.
    pub image: *const c_char,
    /// 32 hexadecimal digits that tell one copy from another; NULL unless TUB_RESTORED.
    pub instance: *const c_char,
    /// Random and secret, to seed generators with; zeros unless TUB_RESTORED.
    pub seed: [u8; 32],
    /// When the restore command started, in milliseconds since 1970; 0 unless TUB_RESTORED.
    pub restore_unix_ms: u64,
    /// The environment of the restore command, NAME=VALUE each, ended by NULL. Nothing of it has been
    /// applied: setenv(3) is for the program to call, at a time when nobody reads.
    pub environment: *const *const c_char,
    /// New arguments, ended by NULL.
    pub arguments: *const *const c_char,
}

/// A `tub_outcome` with all that it points to.
#[derive(Debug)]
pub(crate) struct Owned {
    outcome: tub_outcome,
    _strings: Vec<CString>,
    _lists: [Vec<*const c_char>; 2],
}

impl Owned {
    pub(crate) fn new(outcome: &Outcome) -> Box<Self> {
        let mut strings = Vec::new();
        let mut lists = [Vec::new(), Vec::new()];
        let mut keep = |text: &[u8]| {
            // Neither a path nor a variable holds a NUL.
            let text = CString::new(text).unwrap_or_default();
            let pointer = text.as_ptr();
            strings.push(text);
            pointer
        };
        let mut raw = tub_outcome {
            state: TUB_FAILED,
            generation: outcome.generation().unwrap_or(0),
            image: ptr::null(),
            instance: ptr::null(),
            seed: [0; 32],
            restore_unix_ms: 0,
            environment: ptr::null(),
            arguments: ptr::null(),
        };
        match outcome {
            Outcome::Failed => {}
            Outcome::Resumed(resumed) => {
                raw.state = TUB_RESUMED;
                raw.image = keep(resumed.image.as_os_str().as_bytes());
            }
            Outcome::Restored(restored) => {
                raw.state = TUB_RESTORED;
                raw.instance = keep(restored.instance.as_bytes());
                raw.seed = restored.seed;
                raw.restore_unix_ms = restored.restore_unix_ms;
                for (name, value) in &restored.environment {
                    let pair = [name.as_os_str(), OsStr::new("="), value].map(OsStr::as_bytes);
                    lists[0].push(keep(&pair.concat()));
                }
                for argument in &restored.arguments {
                    lists[1].push(keep(argument.as_bytes()));
                }
            }
        }
        for list in &mut lists {
            list.push(ptr::null());
        }
        raw.environment = lists[0].as_ptr();
        raw.arguments = lists[1].as_ptr();
        Box::new(Self { outcome: raw, _strings: strings, _lists: lists })
    }

    pub(crate) fn as_ptr(&self) -> *const tub_outcome {
        &raw const self.outcome
    }

    pub(crate) fn state(&self) -> c_int {
        self.outcome.state
    }
}
