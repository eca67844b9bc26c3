//! Words about what is paused: what to do where it cannot be, or does not go on.

use crate::report::Code;
use tubthumping::PauseError;

pub(crate) fn advice(error: &PauseError) -> (Code, &'static str) {
    match error {
        PauseError::Unsupported { .. } => (Code::Usage, "leave it out"),
        PauseError::Exists { .. } => (
            Code::CannotWrite,
            "choose another --image, or --replace to replace a pause that is over",
        ),
        PauseError::Occupied { .. } => {
            (Code::CannotWrite, "restore it first, or choose another --image")
        }
        PauseError::Io { .. } => (Code::CannotWrite, ""),
        PauseError::Descendants { .. } => {
            (Code::Refused, "only the native engine and CRIU take process trees")
        }
        PauseError::Traced { .. } => (Code::Refused, "detach the debugger first"),
        PauseError::Yama { .. } => (Code::HostLacks, "run tub as root, or use another engine"),
        PauseError::Note { .. } => (Code::BadImage, "only its owner and root may use it"),
        PauseError::Over { .. } => (Code::BadImage, "pause it again"),
        PauseError::Continued { .. } => {
            (Code::BadImage, "without word from a restore it goes on by itself: pause it again")
        }
        PauseError::Gone { .. } => (Code::NoSuchProcess, "a pause does not outlive its process"),
        PauseError::NotOurs { .. } => {
            (Code::NoSuchProcess, "run tub as the user whose process it is")
        }
        PauseError::Mailbox { .. } => {
            (Code::HostLacks, "the host may forbid it (Yama): run tub as root")
        }
        PauseError::NotStopped { .. } => (Code::TimedOut, "a thread waits in the kernel"),
        _ => (Code::Failed, ""),
    }
}

/// What became of the process where a restore of it fails.
pub(crate) fn state(error: &PauseError) -> &'static str {
    match error {
        PauseError::Gone { .. } => "there is no process any more",
        PauseError::Over { .. } | PauseError::Continued { .. } => "the process was told nothing",
        _ => "the process was told nothing, and is as it was",
    }
}
