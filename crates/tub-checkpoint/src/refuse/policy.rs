//! What a CRaC JDK would complain of: what the application left open.
//!
//! In: a [`Survey`], the application's policy. Out: [`Refusal`]s. Pure.

use super::socket::{SS_CONNECTED, socket_name};
use super::{Refusal, RefusalKind, control_sockets, shares_with_stdio};
use crate::{Survey, SurveyedFd};
use nix::sys::stat::SFlag;

/// Which of its descriptors the application may leave open.
#[derive(Clone, Debug, Default)]
pub struct OpenPolicy {
    /// Descriptors that the runtime says are its own: the application never opened them.
    pub private_fds: Vec<i32>,
    /// Files and directories that may stay open.
    pub allowed_paths: Vec<String>,
    /// The same, by the start of their path.
    pub allowed_prefixes: Vec<String>,
}

/// What the application left open and a CRaC JDK would complain of: files and sockets that are not
/// the runtime's own. Everything private to the JDK stays: selectors, random devices, read-only
/// jars, the pre-close marker, the attach listener.
pub fn application_open(survey: &Survey, policy: &OpenPolicy) -> Vec<Refusal> {
    let closing = control_sockets(survey);
    survey
        .fds
        .iter()
        .filter(|fd| fd.number > 2 && !closing.contains(&fd.number))
        .filter(|fd| !policy.private_fds.contains(&fd.number))
        .filter(|fd| !shares_with_stdio(survey, fd))
        .filter_map(|fd| {
            let (kind, object) = opened_by_application(survey, fd, policy)?;
            Some(Refusal {
                kind,
                fd: Some(fd.number),
                object,
                reason: "was left open by the application".to_owned(),
                remedy: "close it in beforeCheckpoint, or run with --open restore".to_owned(),
            })
        })
        .collect()
}

fn opened_by_application(
    survey: &Survey,
    fd: &SurveyedFd,
    policy: &OpenPolicy,
) -> Option<(RefusalKind, String)> {
    if fd.is(SFlag::S_IFSOCK) {
        let unix = survey.unix.get(&fd.ino);
        let private = unix.is_some_and(|unix| match &unix.path {
            // The JDK's pre-close marker, and the pair by which a WatchService is woken.
            None => unix.state == SS_CONNECTED,
            // The attach listener (jcmd): its name is made of the process id.
            Some(path) => path.rsplit('/').next().is_some_and(|name| name.starts_with(".java_pid")),
        });
        return (!private).then(|| (RefusalKind::Socket, socket_name(survey, fd)));
    }
    if fd.is(SFlag::S_IFREG) || fd.is(SFlag::S_IFDIR) {
        let read_only = fd.info.flags.cast_signed() & libc::O_ACCMODE == libc::O_RDONLY;
        let archive = [".jar", ".jmod", ".war", ".zip"].iter().any(|end| fd.link.ends_with(end));
        let allowed = policy.allowed_paths.iter().any(|path| {
            fd.link
                .strip_prefix(path.trim_end_matches('/'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        let allowed = allowed
            || policy.allowed_prefixes.iter().any(|prefix| fd.link.starts_with(prefix.as_str()));
        // No Java API makes a memory file: ZGC has its heap in one.
        let memory_file = fd.link.starts_with("/memfd:");
        let private = allowed || memory_file || read_only && archive;
        return (!private).then(|| (RefusalKind::File, fd.link.clone()));
    }
    if fd.is(SFlag::S_IFIFO) {
        return Some((RefusalKind::Resource, fd.link.clone()));
    }
    None
}
