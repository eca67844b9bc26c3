//! Why an image cannot be restored in the way wished for, here, by this caller.

use tub_units::{AddrRange, NsPid};

/// Why there is no plan. The image and the host are untouched.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlanError {
    /// The clocks would run backwards.
    #[error(
        "monotonic clock would go back by {seconds} s: the host of the image had run for longer, and no \
         time namespace can be had"
    )]
    ClockBackwards {
        /// By how much, rounded up.
        seconds: u64,
    },
    /// A main process without the privilege its image asks for.
    #[error("image is of user {image}, and user {caller} may not become that user")]
    ForeignUser {
        /// User id in the image.
        image: u32,
        /// User id of the caller.
        caller: u32,
    },
    /// The mailbox is too small for the environment and arguments.
    #[error("mailbox of {have} bytes is too small for {need} bytes of environment and arguments")]
    MailboxTooSmall {
        /// Bytes there are.
        have: u64,
        /// Bytes needed.
        need: u64,
    },
    /// No room in the address space.
    #[error("address space has no free range of {bytes} bytes")]
    NoRoom {
        /// Bytes needed.
        bytes: u64,
    },
    /// A standard stream that only the original's surroundings could provide.
    #[error("descriptor {number} ({what}) cannot be restored from the image")]
    Stdio {
        /// Its number.
        number: i32,
        /// What it is.
        what: &'static str,
    },
    /// Guards, on a kernel that has none.
    #[error("mapping {range} has guard pages: Linux 6.13 or later is needed")]
    Guards {
        /// The first mapping that has some.
        range: AddrRange,
    },
    /// A process group whose leader lives on in another one.
    #[error("process {pid} belongs to process group {group}, whose leader has left it")]
    Group {
        /// The process.
        pid: i32,
        /// The group.
        group: i32,
    },
    /// A session that the process can neither inherit nor begin.
    #[error("process {pid} belongs to session {session}, which it can only inherit")]
    Session {
        /// The process.
        pid: i32,
        /// The session.
        session: i32,
    },
    /// A thread that was stopped in the vdso of another kernel.
    #[error("thread {tid} was in the middle of the vdso, and this kernel's is another one")]
    InsideVdso {
        /// Its id.
        tid: NsPid,
    },
    /// A function of the image's vdso that cannot be led anywhere.
    #[error("vdso of the image's kernel has a function {function} that this kernel lacks")]
    Vdso {
        /// Its name.
        function: String,
    },
    /// A limit of open files that leaves no room for what the image has open and maps.
    #[error("{needed} open files are needed, and the limit is {limit} here (`ulimit -n`)")]
    Descriptors {
        /// How many.
        needed: u64,
        /// The hard limit.
        limit: u64,
    },
    /// A socket that a parked instance would take from those who answer.
    #[error(
        "descriptor {number} takes connections or messages at {address}: on standby nobody would answer there"
    )]
    StandbySocket {
        /// Its number.
        number: i32,
        /// Its address.
        address: String,
    },
    /// More than one process.
    #[error("image holds {processes} processes: only one can be on standby")]
    StandbyTree {
        /// How many.
        processes: usize,
    },
    /// A POSIX timer with an id that is far from 0, on a kernel that cannot make it.
    #[error("timer {id} cannot be made with that id: Linux 6.15 or later is needed")]
    TimerIds {
        /// Its id.
        id: i32,
    },
}
