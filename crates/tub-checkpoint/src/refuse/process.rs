//! What of a process as such stands in the way: its state, its threads' rights, its directories.
//!
//! In: a [`Survey`]. Out: [`Refusal`]s.
//! Not here: mappings and descriptors.

use super::descriptor::astray_reason;
use super::{Refusal, RefusalKind};
use crate::Survey;
use tub_model::Measured;
use tub_procfs::status::StatusRecord;
use tub_units::NsPid;

/// linux/sched.h.
const SCHED_DEADLINE: u32 = 6;

pub(super) fn process(survey: &Survey, all: &mut Vec<Refusal>) {
    let mut refuse = |object: String, reason: &str, remedy: &str| {
        all.push(Refusal {
            kind: RefusalKind::Process,
            fd: None,
            object,
            reason: reason.to_owned(),
            remedy: remedy.to_owned(),
        });
    };
    let status = &survey.status;
    // A descendant stays stopped, and its parent is there to let it go on.
    if "ZX".contains(status.state) || status.state == 'T' && !survey.kin.descendant {
        let what = if status.state == 'T' { "is stopped" } else { "has ended" };
        refuse(format!("process {}", survey.pid), what, "send it SIGCONT if it is stopped");
    }
    if survey.is_32_bit {
        refuse(format!("program {}", survey.exe), "is 32-bit code", "build it for x86-64");
    }
    for thread in &survey.threads {
        let others = differences(&thread.status, status);
        if !others.is_empty() {
            let reason = format!("has other {} than the main thread", others.join(", "));
            let name = format!("thread {} ({})", thread.tid, thread.stat.comm);
            refuse(name, &reason, "let all threads have the same");
        }
        if !thread.apart.is_empty() {
            let name = format!("thread {} ({})", thread.tid, thread.stat.comm);
            let reason = format!("has {} of its own (unshare(2))", thread.apart.join(", "));
            refuse(name, &reason, "let it end first");
        }
        if thread.stat.policy == SCHED_DEADLINE {
            let name = format!("thread {} ({})", thread.tid, thread.stat.comm);
            let reason = "runs under SCHED_DEADLINE, whose times are not stored";
            refuse(name, reason, "give it another policy before the checkpoint");
        }
    }
    if let Some(reason) = filters(survey) {
        let remedy = "start it without them, or run tub under the same ones";
        refuse("seccomp filters".to_owned(), &reason, remedy);
    }
    for timer in &survey.timers {
        let reason = match Measured::of(timer.clock) {
            Some(Measured::Thread(NsPid(0))) => {
                "measures the processor time of the thread that made it, and the kernel does not tell which"
            }
            Some(Measured::Process(id)) if id.0 != 0 && Some(&id) != status.ns_pid.last() => {
                "measures the processor time of another process"
            }
            _ => continue,
        };
        let remedy = "stop the profiler or whoever made it";
        refuse(format!("timer {}", timer.id), reason, remedy);
    }
    if survey.root != "/" {
        refuse(format!("root directory {}", survey.root), "is not /", "run tub inside of it");
    }
    if survey.cwd_is_gone {
        let name = survey.cwd.trim_end_matches(" (deleted)");
        let remedy = "let it change to one that is there, or make it again and let it change to it";
        refuse(format!("working directory {name}"), "was deleted", remedy);
    } else if !survey.cwd_is_there {
        let name = format!("working directory {}", survey.cwd);
        refuse(name, astray_reason(&survey.cwd), "let it change to another one");
    }
}

/// What a thread has to itself. setuid(2) and its like change a thread, and so does seccomp(2); a
/// C library sees to the former that all follow, and nobody to the latter.
fn differences(thread: &StatusRecord, main: &StatusRecord) -> Vec<&'static str> {
    let capabilities = |status: &StatusRecord| (status.cap_eff, status.cap_prm, status.cap_inh);
    let filters = |status: &StatusRecord| (status.seccomp, status.seccomp_filters);
    [
        (thread.uids != main.uids, "users"),
        (thread.gids != main.gids || thread.groups != main.groups, "groups"),
        (capabilities(thread) != capabilities(main), "capabilities"),
        (filters(thread) != filters(main), "seccomp filters"),
        // The main thread's becomes everybody's, so only to have it alone would be lost.
        (thread.no_new_privs && !main.no_new_privs, "no_new_privs"),
    ]
    .into_iter()
    .filter_map(|(differs, what)| differs.then_some(what))
    .collect()
}

/// Why the seccomp filters of a process are not those under which we run ourselves, and under which
/// its copies would run. Nobody may look into them from under a filter (ptrace(2),
/// PTRACE_SECCOMP_GET_FILTER); but who has as many in the same control groups, is in the same
/// container or service, which has set them up.
fn filters(survey: &Survey) -> Option<String> {
    let mode = |status: &StatusRecord| status.seccomp.unwrap_or(0);
    let count = |status: &StatusRecord| status.seccomp_filters.unwrap_or(mode(status).min(1));
    if mode(&survey.status) == 0 {
        return None;
    }
    let read = |who: &str, name: &str| std::fs::read(format!("/proc/{who}/{name}")).ok();
    let own = read("self", "status").and_then(|bytes| tub_procfs::status::parse(&bytes).ok())?;
    if (mode(&own), count(&own)) != (mode(&survey.status), count(&survey.status)) {
        let (theirs, ours) = (count(&survey.status), count(&own));
        return Some(format!("cannot be stored: it runs under {theirs}, and tub under {ours}"));
    }
    let theirs = read(&survey.pid.to_string(), "cgroup");
    (theirs != read("self", "cgroup")).then(|| {
        "cannot be stored, and may not be those that tub runs under: it is in other control groups"
            .to_owned()
    })
}
