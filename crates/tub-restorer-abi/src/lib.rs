//! What plan and blob agree on: the layout of operations, programs and the failure report.
//!
//! In: nothing. Out: `repr(C)` types and operation codes.
//! Invariant: both sides are built from this file; the blob checks [`ABI_VERSION`] on entry.
//! Not here: what any operation is for (see `tub_restore::plan`).
//!
//! The blob is handed one [`RawHeader`]. It runs program 0 on the thread it was entered on; a
//! [`SPAWN`] operation starts another program on a thread of its own. Each program ends with
//! [`SIGRETURN`].
//!
//! ```text
//!   blob range, never part of the image's own mappings
//!   ├── code  r-x   the blob, starting with BLOB_MAGIC; then a Stub for each thread that waits on
//!   └── data  rw-   RawHeader (starting with DATA_MAGIC), programs, operations, their operands,
//!                   one small stack per thread
//! ```
#![no_std]
#![forbid(unsafe_code)]

mod stub;

pub use stub::{AFTER_CALL, STUB_BYTES, Stub};

/// First bytes of the blob's code, by which a later checkpoint knows the range for what it is.
pub const BLOB_MAGIC: [u8; 8] = *b"TUBBLOB\x01";
/// First bytes of the blob's data.
pub const DATA_MAGIC: [u8; 8] = *b"TUBDATA\x01";
/// Changes with every change of this file that the blob could notice.
pub const ABI_VERSION: u64 = 3;
/// Exit status of the process when an operation failed before the point of no return.
pub const FAILED_STATUS: u64 = 111;

/// `syscall(args[0], args[1], …, args[6])`.
pub const SYSCALL: u32 = 1;
/// Reads exactly `args[2]` bytes at offset `args[3]` of descriptor `args[0]` to `args[1]`.
pub const READ: u32 = 2;
/// Copies `args[2]` bytes from `args[1]` to `args[0]`.
pub const COPY: u32 = 3;
/// Stores the calling thread's id as u32 at `args[0]`.
pub const STORE_TID: u32 = 4;
/// Starts program `args[2]` on a new thread: `clone3(args[0], args[1])`.
pub const SPAWN: u32 = 5;
/// The same by `clone(args[0] flags, args[1] stack, args[3] child_tid, args[4] tls)`, for hosts
/// where clone3 is refused.
pub const SPAWN_CLONE: u32 = 6;
/// Waits until `args[1]` threads have arrived at the u32 counter `args[0]`.
pub const BARRIER: u32 = 7;
/// `rt_sigreturn` with the stack pointer at `args[0]`. The program ends here.
pub const SIGRETURN: u32 = 8;

/// Stores the calling thread's processor clock as u64 at `args[0]`: the complement of its id, and below that the
/// lowest three bits of `args[1]`.
pub const STORE_CLOCK: u32 = 9;

/// As [`BARRIER`], without waiting.
pub const ARRIVE: u32 = 10;

/// Flag of [`SYSCALL`]: an error is no failure.
pub const FLAG_MAY_FAIL: u32 = 1;
/// Flag of [`SYSCALL`]: the first argument is the calling process's id, as it now is.
pub const FLAG_PID_FIRST: u32 = 2;
/// Flag of [`SYSCALL`]: the second argument is the calling thread's id, as it now is.
pub const FLAG_TID_SECOND: u32 = 4;
/// Flag of [`SYSCALL`]: a result of 0 is a failure (end of file on the pipe that says go).
pub const FLAG_NOT_ZERO: u32 = 8;

/// Flag of [`SYSCALL`]: the first argument is the u64 at that address.
pub const FLAG_FIRST_AT: u32 = 16;

/// One operation.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawOp {
    /// What to do: [`SYSCALL`], …
    pub code: u32,
    /// `FLAG_*`.
    pub flags: u32,
    /// Operands; addresses are of the process being reborn.
    pub args: [u64; 7],
}

/// One thread's operations.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawProgram {
    /// Address of the first [`RawOp`].
    pub ops: u64,
    /// How many there are.
    pub count: u64,
}

/// What the blob starts from.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawHeader {
    /// [`DATA_MAGIC`].
    pub magic: [u8; 8],
    /// [`ABI_VERSION`].
    pub version: u64,
    /// Bytes of the data range, this header included.
    pub data_bytes: u64,
    /// Descriptor that takes a [`RawReport`] when an operation fails.
    pub report_fd: u64,
    /// Address of the first [`RawProgram`].
    pub programs: u64,
    /// How many there are.
    pub program_count: u64,
    /// Id of the image that the process came from; for a later checkpoint, not for the blob.
    pub image_id: [u8; 16],
    /// How many checkpoints lay behind that image.
    pub generation: u64,
}

impl RawHeader {
    /// Reads a header, if that is what `bytes` are.
    pub fn from_bytes(bytes: &[u8; size_of::<Self>()]) -> Option<Self> {
        let mut words = [0u64; size_of::<Self>() / 8];
        for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_ne_bytes(*chunk);
        }
        let [magic, version, data_bytes, report_fd, programs, program_count, low, high, generation] =
            words;
        if magic.to_ne_bytes() != DATA_MAGIC || version != ABI_VERSION {
            return None;
        }
        let mut image_id = [0; 16];
        image_id[..8].copy_from_slice(&low.to_ne_bytes());
        image_id[8..].copy_from_slice(&high.to_ne_bytes());
        let magic = DATA_MAGIC;
        Some(Self {
            magic,
            version,
            data_bytes,
            report_fd,
            programs,
            program_count,
            image_id,
            generation,
        })
    }
}

/// What the blob says: that it is parked, or what failed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawReport {
    /// [`REPORT_PARKED`] or [`REPORT_FAILED`].
    pub kind: u32,
    /// Program that failed.
    pub program: u32,
    /// Index of the operation that failed.
    pub op: u32,
    /// Its errno.
    pub errno: u32,
}

/// All threads exist and wait.
pub const REPORT_PARKED: u32 = 1;
/// An operation failed.
pub const REPORT_FAILED: u32 = 2;

const _: () = {
    assert!(size_of::<RawOp>() == 64);
    assert!(size_of::<RawProgram>() == 16);
    assert!(size_of::<RawHeader>() == 72);
    assert!(size_of::<RawReport>() == 16);
};
