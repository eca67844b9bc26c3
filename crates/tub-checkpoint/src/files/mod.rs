//! Descriptors: from what /proc and the process itself say to the model.
//!
//! In: the surveys of frozen processes, and calls made by them. Out: descriptions and descriptors.
//! Invariant: descriptors that share a description name the same one, whichever process has them.
//! Not here: what is refused (see [`crate::refuse`]); whatever comes here has passed it.

mod description;
mod epoll;
mod inotify;
mod options;
mod pipe;
mod socket;

use crate::caller::Caller;
use crate::memory_files::MemoryFiles;
use crate::refuse::{Refusal, RefusalKind, TcpPolicy};
use crate::same::same_description;
use crate::{Error, Result, Survey, SurveyedFd};
use description::open_file;
use std::cmp::Ordering;
use std::collections::HashMap;
use tub_model::{Fd, FileKind, OpenFile, Socket, UnixSocket, UnixState};
use tub_units::{FdNumber, HostPid};

/// What the caller wants of descriptors that cannot be stored as they are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FilePolicy {
    /// TCP connections.
    pub(crate) tcp: TcpPolicy,
}

/// The open file descriptions of all processes, found so far.
#[derive(Debug)]
pub(crate) struct Descriptions<'a> {
    files: Vec<OpenFile>,
    /// Of each, where it was found first.
    firsts: Vec<(HostPid, &'a SurveyedFd)>,
    /// Those that look alike: all objects behind anonymous inodes of a kind do, of which there may be
    /// thousands. In the kernel's order as long as it tells.
    alike: HashMap<Look<'a>, Vec<usize>>,
    /// Whether it has told every time.
    ordered: bool,
    policy: FilePolicy,
    /// What stands in the way, as far as only the process itself could tell.
    refusals: Vec<Refusal>,
}

impl<'a> Descriptions<'a> {
    /// None so far.
    pub(crate) fn new(policy: FilePolicy) -> Self {
        let (files, firsts, refusals) = (Vec::new(), Vec::new(), Vec::new());
        Self { files, firsts, alike: HashMap::new(), ordered: true, policy, refusals }
    }

    /// All descriptors of one process.
    pub(crate) fn collect(
        &mut self,
        survey: &'a Survey,
        caller: &mut Caller<'_>,
        memory_files: &MemoryFiles,
    ) -> Result<Vec<Fd>> {
        let mut fds: Vec<Fd> = Vec::with_capacity(survey.fds.len());
        let first_new = self.files.len();
        for fd in &survey.fds {
            let file = match self.known(survey, fd, caller)? {
                Ok(index) => index,
                Err(place) => {
                    let file = open_file(
                        survey,
                        fd,
                        caller,
                        (self.policy, memory_files),
                        &mut self.refusals,
                    )?;
                    self.files.push(file);
                    self.firsts.push((survey.pid, fd));
                    let index = self.files.len() - 1;
                    self.alike.entry(Look::of(fd)).or_default().insert(place, index);
                    index
                }
            };
            let close_on_exec = fd.info.flags.cast_signed() & libc::O_CLOEXEC != 0;
            fds.push(Fd { number: FdNumber(fd.number), close_on_exec, file });
        }
        let news = self.firsts[first_new..].iter().zip(&mut self.files[first_new..]);
        for (&(_, first), file) in news {
            let FileKind::Epoll { targets } = &mut file.kind else { continue };
            for (at, target) in targets.iter_mut().enumerate() {
                let all = &first.info.epoll;
                let watched = epoll::watched(survey.pid, &survey.fds, first.number, all, at);
                let number = watched.map(|fd| fd.number);
                match fds.iter().find(|fd| Some(fd.number.0) == number) {
                    Some(fd) => target.file = fd.file,
                    None => self.refusals.push(lost_target(survey.pid, first, target.fd)),
                }
            }
        }
        Ok(fds)
    }

    /// Index of the description behind `fd`, or, if it has not been met before, its place among those that
    /// look alike.
    fn known(
        &mut self,
        survey: &Survey,
        fd: &SurveyedFd,
        caller: &mut Caller<'_>,
    ) -> Result<std::result::Result<usize, usize>> {
        let Some(alike) = self.alike.get(&Look::of(fd)) else { return Ok(Err(0)) };
        let (mut low, mut high) = (0, alike.len());
        while self.ordered && low < high {
            let middle = low + (high - low) / 2;
            let (pid, first) = self.firsts[alike[middle]];
            let own = (survey.pid, fd.number);
            match tub_sys::compare_descriptions(own, (pid, first.number)) {
                Ok(Ordering::Equal) => return Ok(Ok(alike[middle])),
                Ok(Ordering::Less) => high = middle,
                Ok(Ordering::Greater) => low = middle + 1,
                Err(_) => self.ordered = false,
            }
        }
        if self.ordered {
            return Ok(Err(low));
        }
        for &index in alike {
            let (pid, first) = self.firsts[index];
            if same_description(caller, (pid, first), (survey.pid, fd))? {
                return Ok(Ok(index));
            }
        }
        Ok(Err(alike.len()))
    }

    /// All of them, by index.
    ///
    /// # Errors
    ///
    /// Everything that stands in the way.
    pub(crate) fn into_files(mut self, pid: HostPid) -> Result<Vec<OpenFile>> {
        only_the_first_carries_content(&mut self.files);
        let foreign = self.foreign_peers();
        self.refusals.extend(foreign);
        if self.refusals.is_empty() {
            return Ok(self.files);
        }
        Err(Error::Refused { pid, refusals: self.refusals, frozen: true })
    }

    /// Unix sockets that are connected to one outside. Standard streams may be.
    fn foreign_peers(&self) -> Vec<Refusal> {
        let unix = |file: &'_ OpenFile| match &file.kind {
            FileKind::Socket(Socket::Unix(unix)) => Some((unix.id, unix.state.clone())),
            _ => None,
        };
        let ids: Vec<u64> = self.files.iter().filter_map(unix).map(|(id, _)| id).collect();
        let foreign = |file: &OpenFile| {
            let state = unix(file).map(|(_, state)| state);
            matches!(state, Some(UnixState::Connected { peer }) if !ids.contains(&peer))
        };
        let all = self.files.iter().zip(&self.firsts);
        all.filter(|(file, (_, fd))| fd.number > 2 && foreign(file))
            .map(|(file, (_, fd))| Refusal {
                kind: RefusalKind::Socket,
                fd: Some(fd.number),
                object: unix_name(file),
                reason: "is connected to a socket of another process".to_owned(),
                remedy: "close it before the checkpoint".to_owned(),
            })
            .collect()
    }
}

fn unix_name(file: &OpenFile) -> String {
    match &file.kind {
        FileKind::Socket(Socket::Unix(UnixSocket { name: Some(name), .. })) => {
            format!("unix socket {}", String::from_utf8_lossy(&name.bytes).replace('\0', "@"))
        }
        _ => "unnamed unix socket".to_owned(),
    }
}

fn lost_target(pid: HostPid, epoll: &SurveyedFd, number: FdNumber) -> Refusal {
    let asked = (pid, epoll.number);
    let lives_on = match tub_sys::same_description(asked, asked) {
        Ok(_) => "lives on in another process",
        // Default Docker and Podman.
        Err(_) => "cannot be found among the others where kcmp(2) is forbidden",
    };
    Refusal {
        kind: RefusalKind::Resource,
        fd: Some(epoll.number),
        object: epoll.link.clone(),
        reason: format!(
            "is an epoll set that watches descriptor {number}, which was closed and {lives_on}"
        ),
        remedy: "remove it from the set before closing it".to_owned(),
    }
}

/// A deleted file may be open more than once; its content is kept once.
fn only_the_first_carries_content(files: &mut [OpenFile]) {
    let mut seen = Vec::new();
    for file in files {
        if let FileKind::Deleted { dev, ino, content, .. } = &mut file.kind {
            if seen.contains(&(*dev, *ino)) {
                content.clear();
            }
            seen.push((*dev, *ino));
        }
    }
}

/// What two descriptors have in common that share a description.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Look<'a> {
    inode: (u64, u64, u64),
    pos: u64,
    flags: i32,
    /// Of what has no path, which somebody might change meanwhile.
    kind: Option<&'a str>,
    eventfd: Option<i32>,
    signals: Option<u64>,
}

impl<'a> Look<'a> {
    fn of(fd: &'a SurveyedFd) -> Self {
        Self {
            inode: (fd.dev, fd.ino, fd.rdev),
            pos: fd.info.pos,
            flags: fd.info.flags.cast_signed() & !libc::O_CLOEXEC,
            kind: fd.link.starts_with("anon_inode:").then_some(&*fd.link),
            eventfd: fd.info.eventfd.and_then(|eventfd| eventfd.id),
            signals: fd.info.sigmask,
        }
    }
}
