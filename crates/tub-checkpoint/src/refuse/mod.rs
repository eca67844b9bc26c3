//! What stands in the way of a checkpoint, all of it at once.
//!
//! In: a [`Survey`]. Out: [`Refusal`]s. Pure.
//! Invariant: whatever `collect` cannot store is named here; `collect` relies on it.

mod descriptor;
mod policy;
mod process;
mod socket;
mod tree;

pub use descriptor::DELETED_BYTES_MAX;
pub(crate) use descriptor::{
    descriptor, has_other_end, is_deleted, is_pidfd, kernel_file, named_by, shares_with_stdio,
};
pub use policy::{OpenPolicy, application_open};
pub use socket::TcpPolicy;
pub(crate) use socket::socket_name;
pub use tree::unsupported_tree;

use crate::{Survey, SurveyedFd, Unmappable};
use descriptor::astray_reason;
use nix::sys::stat::SFlag;
use std::fmt;
use tub_procfs::maps::Perms;
use tub_procfs::smaps::SmapsRecord;

/// One thing that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of object it is.
    pub kind: RefusalKind,
    /// Its descriptor, if it has one.
    pub fd: Option<i32>,
    /// Which object: a path, an address.
    pub object: String,
    /// Why it stands in the way.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

/// What kind of object stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// Something of the process as a whole.
    Process,
    /// A mapping.
    Memory,
    /// A file.
    File,
    /// A socket.
    Socket,
    /// Another descriptor.
    Resource,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fd) = self.fd {
            write!(f, "descriptor {fd}: ")?;
        }
        write!(f, "{} {}", self.object, self.reason)?;
        if !self.remedy.is_empty() {
            write!(f, " ({})", self.remedy)?;
        }
        Ok(())
    }
}

/// The descriptors over which a process and the engine talk (`docs/control-protocol.md`). It closes
/// them before the image is taken, so they stand in nobody's way.
pub fn control_sockets(survey: &Survey) -> Vec<i32> {
    let is_control = |fd: &&SurveyedFd| {
        let path = survey.unix.get(&fd.ino).and_then(|unix| unix.path.as_deref());
        let mut parts = path.unwrap_or_default().rsplit('/');
        parts.next().is_some_and(|name| name.ends_with(".sock"))
            && parts
                .next()
                .and_then(|dir| dir.strip_prefix("tub-"))
                .is_some_and(|uid| !uid.is_empty() && uid.bytes().all(|byte| byte.is_ascii_digit()))
    };
    // A file may have the number of somebody's socket.
    let sockets = survey.fds.iter().filter(|fd| fd.is(SFlag::S_IFSOCK));
    sockets.filter(is_control).map(|fd| fd.number).collect()
}

/// What the engine cannot store, whoever opened it. `closing` are descriptors that will be gone.
pub fn unsupported(survey: &Survey, closing: &[i32], tcp: TcpPolicy) -> Vec<Refusal> {
    let mut all = Vec::new();
    process::process(survey, &mut all);
    for mapping in &survey.mappings {
        all.extend(memory(survey, mapping));
    }
    for fd in &survey.fds {
        if (fd.number > 2 || survey.kin.descendant) && !closing.contains(&fd.number) {
            all.extend(descriptor(survey, fd, tcp));
        }
    }
    all
}

/// What the kernel calls files of memfd_secret(2).
const SECRET_MEMORY: &str = "/secretmem";
pub(crate) const SECRET_MEMORY_REASON: &str =
    "is secret memory, which nobody else can read (memfd_secret(2))";

/// Reason and remedy of a mapped device.
const DEVICE: (&str, &str) = ("maps a device", "close the device before the checkpoint");

/// Memory that can be run and not read has a key of the kernel's own choice (KERNEL(since 4.9):
/// `execute_only_pkey`), and gets another from it in a copy.
const fn is_execute_only(perms: Perms) -> bool {
    perms.execute && !perms.read && !perms.write
}

fn memory(survey: &Survey, mapping: &SmapsRecord) -> Option<Refusal> {
    let map = &mapping.map;
    let name = map.path.as_deref().unwrap_or("");
    let flags = &mapping.vm_flags;
    let (reason, remedy) = if flags.has("ht") {
        ("is on huge pages of a pool, which are not supported yet", "")
    } else if flags.has("io") || flags.has("pf") {
        if name.starts_with("[v") {
            return None;
        }
        DEVICE
    } else if flags.has("ss") {
        ("is a shadow stack, which is not supported yet", "")
    } else if flags.has("um") || flags.has("uw") || flags.has("ui") {
        ("is registered with userfaultfd", "")
    } else if mapping.protection_key != 0 && !is_execute_only(map.perms) {
        (
            "has a protection key, which is not supported yet",
            "give it key 0 again before the checkpoint (pkey_mprotect(2))",
        )
    } else if name.starts_with("/SYSV") {
        ("is System V shared memory", "detach it before the checkpoint")
    } else if map.deleted && name == SECRET_MEMORY {
        (SECRET_MEMORY_REASON, "let go of it before the checkpoint")
    } else if name == "/[aio]"
        || name == "[uprobes]"
        || map.inode != 0 && !name.starts_with('/')
        || name.starts_with("anon_inode:")
    {
        ("belongs to a kernel object that cannot be stored", "close it before the checkpoint")
    } else if let Some(Unmappable::Device) = survey.unmappable.get(name) {
        DEVICE
    } else if let Some(Unmappable::Astray) = survey.unmappable.get(name) {
        (astray_reason(name), "unmap it, or unmount what covers it, before the checkpoint")
    } else {
        return None;
    };
    Some(Refusal {
        kind: RefusalKind::Memory,
        fd: None,
        object: format!("mapping {} {name}", map.range),
        reason: reason.to_owned(),
        remedy: remedy.to_owned(),
    })
}
