//! What stands in the way in a process that runs while it is looked at.
//!
//! In: a process, and what to look for. Out: what was seen, and the [`Refusal`]s that hold.
//! Invariant: nothing is refused for what only one look has seen. A running process is looked at
//! piece by piece, so that a pipe closed meanwhile may show one end without the other.
//! Not here: the last word, which the frozen process has (`checkpoint`).

use crate::{Refusal, Result, SurveyedTree, survey_tree};
use tub_units::HostPid;

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
    let first = survey_tree(pid)?;
    let found = in_the_way(&first);
    if found.is_empty() {
        return Ok((first, found));
    }
    let second = survey_tree(pid)?;
    let mut again = in_the_way(&second);
    again.retain(|refusal| found.contains(refusal));
    Ok((second, again))
}
