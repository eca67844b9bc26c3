//! What is different about an instance that is parked before anybody wants it.
//!
//! In: an image. Out: why it cannot be parked; the operations by which it parks, and those by which
//! it takes on life. Pure.
//! Invariant: it parks before it has a second thread, and before anything that counts time is made.
//!
//! KERNEL(since 5.6): only a process with one thread enters a time namespace (setns(2)), and a clock
//! that is entered goes on. Entered at the launch, it would be hours ahead at the release, and every
//! timer would have expired. So what waits is the process with its memory, its hot pages and its
//! descriptors; its threads, its timers and its credentials follow at the release. What can fail
//! among them fails the release.

use super::{PlanError, PlanOp};
use tub_model::{Checkpoint, FileKind, OpenFile, Socket, Task, TcpState, UnixSocket, UnixState};
use tub_units::{AddrRange, RemoteAddr};

/// Length of the message that lets an instance go: two lines of `/proc/self/timens_offsets`, each name and
/// number of the same width whatever it is.
pub const CLOCKS_BYTES: usize = "monotonic ".len() + "boottime ".len() + 2 * (20 + 1 + 9 + 1);

/// How an instance on standby comes to life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awakening {
    /// Where the letter goes, if the application takes part.
    pub mailbox: Option<AddrRange>,
    /// Whether it enters a time namespace.
    pub clocks: bool,
}

/// Why an image cannot be parked.
pub(super) fn check(checkpoint: &Checkpoint) -> Result<(), PlanError> {
    if checkpoint.tasks.len() > 1 {
        return Err(PlanError::StandbyTree { processes: checkpoint.tasks.len() });
    }
    for fd in &checkpoint.tasks[0].fds {
        if let Some(address) = taken(&checkpoint.files[fd.file]) {
            return Err(PlanError::StandbySocket { number: fd.number.0, address });
        }
    }
    Ok(())
}

/// The address that a socket would take while nobody answers there: clients would wait for an instance
/// that is parked, and only one could be.
fn taken(file: &OpenFile) -> Option<String> {
    match &file.kind {
        FileKind::Socket(Socket::Tcp { address, state: TcpState::Listening { .. }, .. }) => {
            Some(address.clone())
        }
        FileKind::Socket(Socket::Udp { address, peer: None, .. }) if !address.ends_with(":0") => {
            Some(address.clone())
        }
        FileKind::Socket(Socket::Unix(UnixSocket {
            name: Some(name),
            state: UnixState::Listening { .. } | UnixState::Unconnected,
            ..
        })) => Some(String::from_utf8_lossy(&name.bytes).replace('\0', "@")),
        _ => None,
    }
}

/// Has the hot pages in place, and everything else mapped for reading. Pages to be written to come
/// first: one that is mapped for reading already costs more to be made the process's own.
pub(super) fn warm(ops: &mut Vec<PlanOp>, hot: Vec<AddrRange>) {
    let mut mapped: Vec<AddrRange> = ops.iter().filter_map(read_later).collect();
    mapped.sort_unstable_by_key(|range| (range.start(), range.end()));
    // Pages of the image may lie over the file that they were made of.
    mapped.dedup_by(|range, before| {
        let lies_over = range.overlaps(*before);
        if lies_over && range.end() > before.end() {
            *before = AddrRange::new(before.start(), range.end()).expect("it starts before");
        }
        lies_over
    });
    ops.extend(hot.into_iter().map(PlanOp::Populate));
    ops.extend(mapped.into_iter().map(PlanOp::Touch));
}

/// What will be read of a file or of the image, as far as it is the process's own. A file that it
/// shares with others may be a whole database.
fn read_later(op: &PlanOp) -> Option<AddrRange> {
    match op {
        PlanOp::MapPages { range, protection, .. }
        | PlanOp::MapFile { range, protection, shared: false, .. }
            if protection.read =>
        {
            Some(*range)
        }
        _ => None,
    }
}

/// Waits for the release, and enters its time.
pub(super) fn park(ops: &mut Vec<PlanOp>, awakening: Awakening) {
    ops.push(PlanOp::ReportParked);
    if let Some(mailbox) = awakening.mailbox {
        let (at, bytes) = (RemoteAddr(mailbox.start()), mailbox.len());
        ops.push(PlanOp::AwaitLetter { at, bytes });
    }
    ops.push(PlanOp::AwaitRelease { clocks: awakening.clocks });
}

/// Starts the timers that are descriptors anew: what they were set to while it was parked has run on.
pub(super) fn timers(ops: &mut Vec<PlanOp>, checkpoint: &Checkpoint, task: &Task) {
    let (files, realtime_ns) = (&checkpoint.files, checkpoint.clocks.realtime_ns);
    let mut seen = Vec::new();
    for fd in &task.fds {
        if seen.contains(&fd.file) {
            continue;
        }
        seen.push(fd.file);
        let kind = super::files::on_this_clock(files[fd.file].kind.clone(), realtime_ns);
        let FileKind::TimerFd { ticks, settime_flags, value_ns, interval_ns, .. } = kind else {
            continue;
        };
        let number = fd.number.0;
        ops.push(PlanOp::ArmTimerFd { number, settime_flags, value_ns, interval_ns, ticks });
    }
}
