//! What stands in the way in a process that runs while it is looked at.
//!
//! In: a process, and what to look for. Out: what was seen, and the [`Refusal`]s that hold.
//! Invariant: nothing is refused for what only one look has seen. A running process is looked at
//! piece by piece, so that a pipe closed meanwhile may show one end without the other.
//! Not here: the last word, which the frozen process has (`checkpoint`).

use crate::{Error, Refusal, Result, SurveyedTree, survey_tree};
use std::io::ErrorKind;
use std::time::Duration;
use tub_units::HostPid;

/// How often a process is looked at that cannot be seen at the moment, and the pause in between: one that
/// becomes another program has neither a main thread nor a directory for a while (execve(2)).
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(5);

/// Surveys `pid` and its descendants, and gives what `in_the_way` finds in them, if it finds the
/// same once more.
///
/// # Errors
///
/// As of [`survey_tree`].
pub fn survey_running(
    pid: HostPid,
    in_the_way: impl Fn(&SurveyedTree) -> Vec<Refusal>,
) -> Result<(SurveyedTree, Vec<Refusal>)> {
    let first = seen(pid)?;
    let found = in_the_way(&first);
    if found.is_empty() {
        return Ok((first, found));
    }
    let second = seen(pid)?;
    let mut again = in_the_way(&second);
    again.retain(|refusal| found.contains(refusal));
    Ok((second, again))
}

fn seen(pid: HostPid) -> Result<SurveyedTree> {
    let mut attempts = 1..ATTEMPTS;
    loop {
        match survey_tree(pid) {
            Err(error) if is_of_the_moment(&error) && attempts.next().is_some() => {
                std::thread::sleep(PAUSE);
            }
            seen => return seen,
        }
    }
}

/// Whether an error may be one of a look at the wrong moment.
fn is_of_the_moment(error: &Error) -> bool {
    let gone = |source: &std::io::Error| {
        source.kind() == ErrorKind::NotFound || source.raw_os_error() == Some(libc::ESRCH)
    };
    match error {
        Error::Refused { .. } | Error::Malformed { .. } => true,
        Error::Proc { source, .. } | Error::NotOurs { source, .. } => gone(source),
        _ => false,
    }
}
