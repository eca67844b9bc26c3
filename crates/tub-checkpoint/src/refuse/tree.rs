//! What of a whole tree stands in the way.
//!
//! In: a [`SurveyedTree`]. Out: [`Refusal`]s, each of which names the process if it is not the main
//! one. Pure.

use super::{Refusal, RefusalKind, TcpPolicy, unsupported};
use crate::{Survey, SurveyedTree};
use tub_units::NsPid;

/// What the engine cannot store of a process and its descendants. `closing` are descriptors of the
/// main process that will be gone.
pub fn unsupported_tree(tree: &SurveyedTree, closing: &[i32], tcp: TcpPolicy) -> Vec<Refusal> {
    let main = tree.main();
    let mut all = unsupported(main, closing, tcp);
    for (index, member) in tree.members.iter().enumerate().skip(1) {
        let mut own = unsupported(member, &[], tcp);
        own.extend(namespaces(main, member));
        own.extend(common(member));
        own.extend(ends_otherwise(member));
        own.extend(session(tree, index));
        own.extend(group(tree, index));
        let name = format!("process {} ({})", member.pid, member.stat.comm);
        all.extend(own.into_iter().map(|refusal| {
            let process = refusal.kind == RefusalKind::Process && refusal.fd.is_none();
            let of = if process { ":" } else { "of" };
            let object = match of {
                ":" if refusal.object.is_empty() => name.clone(),
                ":" => format!("{name}: {}", refusal.object),
                _ => format!("{} of {name}", refusal.object),
            };
            Refusal { object, ..refusal }
        }));
    }
    all
}

fn refusal(object: String, reason: &str, remedy: &str) -> Refusal {
    Refusal {
        kind: RefusalKind::Process,
        fd: None,
        object,
        reason: reason.to_owned(),
        remedy: remedy.to_owned(),
    }
}

fn namespaces<'a>(main: &'a Survey, member: &'a Survey) -> impl Iterator<Item = Refusal> + 'a {
    let other = member.namespaces.iter().filter(|(name, link)| {
        main.namespaces.iter().any(|(known, main)| known == name && main != link)
    });
    other.map(|(name, _)| {
        let reason = format!("lives in a {name} namespace of its own");
        refusal(String::new(), &reason, "let it end first, or checkpoint it by itself")
    })
}

/// Copies of the two would each have their own.
fn common(member: &Survey) -> Option<Refusal> {
    let common = member.kin.common.join(", ");
    let reason = format!("has {common} in common with its parent (clone(2))");
    let remedy = "let it end first, or start it by fork(2)";
    (!common.is_empty()).then(|| refusal(String::new(), &reason, remedy))
}

/// A copy of it is made by fork(2), and waited for as such (wait(2), `__WCLONE`).
fn ends_otherwise(member: &Survey) -> Option<Refusal> {
    let signal = member.stat.exit_signal;
    let reason = format!("tells its parent of its end by signal {signal}, not SIGCHLD (clone(2))");
    let remedy = "let it end first, or start it by fork(2)";
    (signal != libc::SIGCHLD).then(|| refusal(String::new(), &reason, remedy))
}

/// A session is only ever inherited or begun: from the parent as it is, or as it was before it began
/// its own.
fn session(tree: &SurveyedTree, index: usize) -> Option<Refusal> {
    let session = |index: usize| own(&tree.members[index].status.ns_sid);
    let id = |index: usize| own(&tree.members[index].status.ns_pid);
    let parent = tree.parents[index]?;
    let led_here = (0..tree.members.len()).any(|other| id(other) == session(index));
    let born_in = match tree.parents[parent] {
        Some(grandparent) => session(grandparent) == session(index),
        None => !led_here,
    };
    let began_one = session(parent) == id(parent);
    let fits =
        session(index) == id(index) || session(index) == session(parent) || began_one && born_in;
    (!fits).then(|| {
        let reason = format!("belongs to session {}, which it can only inherit", session(index));
        refusal(String::new(), &reason, "let it end first")
    })
}

/// The leader that moves on takes its number with it: nobody else can lead that group.
fn group(tree: &SurveyedTree, index: usize) -> Option<Refusal> {
    let group = |member: &Survey| own(&member.status.ns_pgid);
    let wanted = group(&tree.members[index]);
    let leader = tree.members.iter().find(|member| own(&member.status.ns_pid) == wanted)?;
    (group(leader) != wanted).then(|| {
        let reason = format!("belongs to process group {wanted}, whose leader has left it");
        refusal(String::new(), &reason, "let it end first")
    })
}

fn own(ids: &[NsPid]) -> NsPid {
    ids.last().copied().unwrap_or(NsPid(0))
}
