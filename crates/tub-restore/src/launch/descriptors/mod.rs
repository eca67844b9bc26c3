//! Lays out the descriptor table of the process being reborn.
//!
//! In: the steps of the plan, in the process itself. Out: a table that holds what the image says,
//! and the launcher's own descriptors above. Invariant: nothing is opened that the caller could
//! not open himself, no link at the end of a path is followed, nothing is created but what the
//! plan says is scratch.

mod deleted;
mod file;
mod handover;
mod inotify;
mod memory;
mod pidfd;
mod pipe;
pub(super) mod scratch;
mod socket;
mod terminal;

use super::LaunchError;
use crate::plan::{End, FileStep, MappedFile, NUMBERS_ABOVE, RestorePlan, SpareFds, TaskPlan};
use file::{check_identity, open_existing, open_kernel, open_kind, open_path};
use nix::fcntl::OFlag;
use nix::unistd::{Whence, lseek};
use scratch::open_scratch;
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use tub_model::{FileKind, FileLock, LockHolder, OpenFile, Socket, TcpState, UnixState};
use tub_sys::Errno;
use tub_units::{HostPid, NsPid};

/// Moves the launcher's own descriptors to the numbers that the plan has for them.
pub(super) fn claim(
    plan: &RestorePlan,
    pages: &File,
    handshake: &OwnedFd,
) -> Result<(), LaunchError> {
    raise_limit(plan.spare.last);
    let spare = plan.spare;
    // Either may stand where the other is to go, so both are moved out of the way first.
    let aside = |fd: i32| {
        tub_sys::duplicate_above(fd, spare.last + 1)
            .map_err(|source| LaunchError::System { what: "descriptor", source })
    };
    let (handshake, pages) = (aside(handshake.as_raw_fd())?, aside(pages.as_raw_fd())?);
    place(handshake, spare.handshake, true)?;
    place(pages, spare.pages, true)
}

/// Makes all open file descriptions of `plan`, after [`claim`].
pub(super) fn open_all(plan: &RestorePlan, own_mounts: bool) -> Result<(), LaunchError> {
    let spare = plan.spare;
    let system = |what| move |source| LaunchError::System { what, source };
    // From here on only the spare numbers and the standard streams are ours.
    let last = u32::try_from(spare.handshake - 1).unwrap_or(2);
    if last >= 3 {
        tub_sys::close_range(3, last).map_err(system("descriptor table"))?;
    }
    let first = u32::try_from(spare.pages + 1).unwrap_or(u32::MAX);
    tub_sys::close_range(first, u32::MAX).map_err(system("descriptor table"))?;
    for (number, file) in (spare.first_file..).zip(&plan.mapped_files) {
        let fd = match file {
            MappedFile::Existing { file, writable } => open_existing(file, *writable)?,
            MappedFile::Scratch { .. } => {
                let fd = open_scratch(file, spare.pages)?;
                if own_mounts {
                    scratch::show_inside(file);
                }
                fd
            }
            MappedFile::Memory { file, content, .. } => memory::open(file, content, spare.pages)?,
            MappedFile::ReadOnly { of, .. } => {
                memory::open_again(spare, *of, OFlag::O_RDONLY).map_err(system("read-only file"))?
            }
        };
        place(fd, number, true)?;
    }
    if let Some(number) = spare.mapped {
        let (mapped, mapping) = nix::unistd::pipe().map_err(system("pipe"))?;
        // Either may stand where the other is to go.
        let aside = |fd: OwnedFd| {
            tub_sys::duplicate_above(fd.as_raw_fd(), spare.last + 1).map_err(system("pipe"))
        };
        let (mapped, mapping) = (aside(mapped)?, aside(mapping)?);
        place(mapped, number, true)?;
        place(mapping, number + 1, true)?;
    }
    let nobody_yet = |_| None;
    plan.file_steps.iter().try_for_each(|step| perform(step, spare, &nobody_yet))?;
    // Last, since it may take away the right to open it once more.
    memory::set_modes(plan)
}

/// Makes the descriptor table of `task`, after [`open_all`]. `pids` are the ids of all that were born,
/// if there are any others.
pub(super) fn lay_out(
    plan: &RestorePlan,
    task: &TaskPlan,
    pids: &[AtomicI32],
) -> Result<(), LaunchError> {
    if let Some(exe) = &task.exe {
        place(open_existing(exe, false)?, plan.spare.executable, true)?;
    }
    let born = |of: NsPid| {
        let at = plan.births.iter().position(|birth| birth.pid == of)?;
        let pid = pids.get(at).map(|pid| pid.load(Ordering::Acquire));
        Some(HostPid(pid.unwrap_or_else(|| nix::unistd::getpid().as_raw())))
    };
    task.file_steps.iter().try_for_each(|step| perform(step, plan.spare, &born))
}

/// The image may have more descriptors than our soft limit allows; what it had itself is set later.
fn raise_limit(last: i32) {
    let wanted = u64::try_from(last).unwrap_or(0) + NUMBERS_ABOVE;
    let limit = tub_sys::own_limits().into_iter().find(|limit| limit.0 == libc::RLIMIT_NOFILE);
    if let Some((resource, soft, hard)) = limit
        && soft < wanted
    {
        // Above the hard one it takes a privilege.
        let raised = hard.max(wanted);
        let _ = tub_sys::set_own_limit(resource, raised, raised)
            .or_else(|_| tub_sys::set_own_limit(resource, hard, hard));
    }
}

fn place(fd: OwnedFd, number: i32, close_on_exec: bool) -> Result<(), LaunchError> {
    tub_sys::move_to(fd, number, close_on_exec).map_err(|source| LaunchError::Descriptor {
        object: format!("descriptor number {number}"),
        source,
    })
}

/// Takes one step. `born` tells the id of a process of the image, once it is there.
fn perform(
    step: &FileStep,
    spare: SpareFds,
    born: &dyn Fn(NsPid) -> Option<HostPid>,
) -> Result<(), LaunchError> {
    match step {
        FileStep::Open { number, close_on_exec, file } => {
            let failed = |source| LaunchError::Descriptor {
                object: format!("descriptor {number}: {}", describe(&file.kind)),
                source,
            };
            let fd = reopen(file, spare, &failed)?;
            tub_sys::move_to(fd, *number, *close_on_exec).map_err(failed)?;
            finish(*number, file).map_err(failed)
        }
        FileStep::Reopen { of, number, close_on_exec, file } => {
            let failed = |source| LaunchError::Descriptor {
                object: format!("descriptor {number}: {}", describe(&file.kind)),
                source,
            };
            let fd = deleted::reopen(*of, file.flags).map_err(failed)?;
            tub_sys::move_to(fd, *number, *close_on_exec).map_err(failed)?;
            finish(*number, file).map_err(failed)
        }
        FileStep::PidFd { of, number, close_on_exec, flags } => {
            let failed = |source| LaunchError::Descriptor {
                object: format!("descriptor {number}: pidfd of process {of}"),
                source,
            };
            let pid = born(*of).ok_or(Errno::ESRCH).map_err(failed)?;
            let fd = tub_sys::pidfd_open(pid, pidfd::flags(*flags)).map_err(failed)?;
            tub_sys::move_to(fd, *number, *close_on_exec).map_err(failed)
        }
        FileStep::LetterBox { number } => {
            let failed = |source| LaunchError::Descriptor {
                object: format!("descriptor {number}: socket for handles of processes"),
                source,
            };
            let fd = handover::letter_box().map_err(failed)?;
            tub_sys::move_to(fd, *number, true).map_err(failed)
        }
        FileStep::Hand { number, letter_box, copies } => {
            handover::hand(*number, *letter_box, *copies).map_err(|source| {
                let object = format!("descriptor {number}: pidfd that other processes share");
                LaunchError::Descriptor { object, source }
            })
        }
        FileStep::Take { letter_box, number, close_on_exec } => {
            let failed = |source| LaunchError::Descriptor {
                object: format!("descriptor {number}: pidfd that another process shares"),
                source,
            };
            let fd = handover::take(*letter_box).map_err(failed)?;
            tub_sys::move_to(fd, *number, *close_on_exec).map_err(failed)
        }
        FileStep::Pipe { .. } => pipe::pipe(step),
        FileStep::UnixPair { a, b, keeps_file } => {
            let failed = |source| LaunchError::Descriptor {
                object: match b {
                    Some(b) => {
                        let (a, b) = (a.0.number, b.0.number);
                        format!("descriptors {a} and {b}: pair of unix sockets")
                    }
                    None => format!("descriptor {}: unix socket", a.0.number),
                },
                source,
            };
            let other = b.as_ref().map(|b| &b.1);
            let (one, other) = socket::open_pair(&a.1, other, *keeps_file).map_err(failed)?;
            pair_up((one, Some(a.0)), (other, b.as_ref().map(|b| b.0))).map_err(failed)
        }
        FileStep::UnixConnect { number, name } => {
            socket::connect_unix(*number, name).map_err(|source| {
                let to = String::from_utf8_lossy(name).replace('\0', "@");
                let object = format!("descriptor {number}: connection to unix socket {to}");
                LaunchError::Descriptor { object, source }
            })
        }
        FileStep::Duplicate { from, to, close_on_exec } => {
            tub_sys::duplicate_to(*from, *to, *close_on_exec).map_err(|source| {
                let object = format!("descriptor {to}: duplicate of {from}");
                LaunchError::Descriptor { object, source }
            })
        }
        FileStep::Terminal { like, number, close_on_exec, flags, path } => {
            let fd = terminal::open(*like, *number, *flags, path)?;
            tub_sys::move_to(fd, *number, *close_on_exec).map_err(|source| {
                let object = format!("descriptor {number}: terminal {path}");
                LaunchError::Descriptor { object, source }
            })
        }
        FileStep::Close(number) => {
            let number = u32::try_from(*number).unwrap_or(u32::MAX);
            tub_sys::close_range(number, number).map_err(|source| {
                let object = format!("descriptor {number}: end");
                LaunchError::Descriptor { object, source }
            })
        }
        FileStep::EpollAdd { epoll, via, target } => {
            let fd = target.fd.0;
            epoll_add(*epoll, *via, fd, target.events, target.data).map_err(|source| {
                let object = format!("descriptor {epoll}: epoll set's target {fd}");
                LaunchError::Descriptor { object, source }
            })
        }
        FileStep::EpollDrain { epoll } => {
            // Bounded: each entry that is ready disables itself.
            while tub_sys::epoll_drain(*epoll).is_ok_and(|taken| taken > 0) {}
            Ok(())
        }
        FileStep::OwnedByMe { number, kind, signal } => {
            let me = nix::unistd::getpid().as_raw();
            // SAFETY: the number was placed by an earlier step and stays open.
            let fd = unsafe { BorrowedFd::borrow_raw(*number) };
            let set = tub_sys::set_owner(fd, *kind, me);
            set.and_then(|()| tub_sys::set_owner_signal(fd, *signal)).map_err(|source| {
                let object = format!("descriptor {number}: owner of its signals");
                LaunchError::Descriptor { object, source }
            })
        }
        FileStep::Lock { number, path, lock } => {
            take_lock(*number, *lock).map_err(|source| match source {
                Errno::EAGAIN | Errno::EACCES => {
                    LaunchError::Locked { path: path.clone(), lock: lock.to_string() }
                }
                source => {
                    let object = format!("descriptor {number}: {lock} of {path}");
                    LaunchError::Descriptor { object, source }
                }
            })
        }
    }
}

/// Adds to an epoll set what `via` names, as `number`: for that, it is given that number for a
/// moment where it has another one now.
fn epoll_add(epoll: i32, via: i32, number: i32, events: u32, data: u64) -> Result<(), Errno> {
    if via == number {
        return tub_sys::epoll_add(epoll, number, events, data);
    }
    // SAFETY: F_GETFD of a number that may be closed is refused, and of any other harmless.
    let flags =
        nix::fcntl::fcntl(unsafe { BorrowedFd::borrow_raw(number) }, nix::fcntl::FcntlArg::F_GETFD);
    let aside = match flags {
        Ok(flags) => Some((tub_sys::duplicate_above(number, number + 1)?, flags != 0)),
        Err(_) => None,
    };
    tub_sys::duplicate_to(via, number, true)?;
    let added = tub_sys::epoll_add(epoll, number, events, data);
    match aside {
        Some((before, close_on_exec)) => tub_sys::move_to(before, number, close_on_exec)?,
        None => tub_sys::close_range(number.cast_unsigned(), number.cast_unsigned())?,
    }
    added
}

fn take_lock(number: i32, lock: FileLock) -> Result<(), Errno> {
    // SAFETY: the number was placed by an earlier step and stays open.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let range = (lock.start, lock.end);
    match lock.holder {
        LockHolder::Flock => tub_sys::flock(fd, lock.exclusive),
        LockHolder::Description => tub_sys::record_lock(fd, true, lock.exclusive, range),
        LockHolder::Task(_) => tub_sys::record_lock(fd, false, lock.exclusive, range),
    }
}

type Placed = (OwnedFd, Option<End>);

/// Places two ends that were made together; one without a number is closed. The number of either
/// may be where the other one happens to be open now, so both are moved out of the way first.
fn pair_up(a: Placed, b: Placed) -> Result<(), Errno> {
    let highest =
        [&a, &b].into_iter().filter_map(|(_, end)| Some((*end)?.number)).max().unwrap_or(2);
    let mut ends = Vec::with_capacity(2);
    for (fd, end) in [a, b] {
        if let Some(end) = end {
            ends.push((tub_sys::duplicate_above(fd.as_raw_fd(), highest + 1)?, end));
        }
    }
    for (fd, end) in ends {
        tub_sys::move_to(fd, end.number, end.close_on_exec)?;
        tub_sys::set_status_flags(end.number, end.flags)?;
    }
    Ok(())
}

/// Opens a description anew.
fn reopen(
    file: &OpenFile,
    spare: SpareFds,
    failed: &dyn Fn(Errno) -> LaunchError,
) -> Result<OwnedFd, LaunchError> {
    let dropped = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_TRUNC;
    let flags = OFlag::from_bits_retain(file.flags) - dropped;
    let nonblocking = file.flags & libc::O_NONBLOCK;
    match &file.kind {
        FileKind::Regular { file: identity, .. } => {
            let fd = open_kind(&identity.path, flags, libc::S_IFREG)?;
            // A file open for writing may have grown since: the log that everybody appends to.
            if flags & OFlag::O_ACCMODE == OFlag::O_RDONLY {
                check_identity(&fd, identity)?;
            }
            Ok(fd)
        }
        FileKind::Memory { file, .. } => memory::open_again(spare, *file, flags).map_err(failed),
        FileKind::Directory { path, .. } => open_kind(path, flags, libc::S_IFDIR),
        FileKind::Device { path } => open_kind(path, flags, libc::S_IFCHR),
        FileKind::PathOnly { path } => open_path(path, flags | OFlag::O_PATH),
        FileKind::Kernel { path, .. } => open_kernel(path, flags).map_err(failed),
        FileKind::Deleted { path, mode, content, .. } => {
            deleted::open(path, *mode, content, file.flags).map_err(failed)
        }
        FileKind::EventFd { count, semaphore } => {
            let semaphore = if *semaphore { libc::EFD_SEMAPHORE } else { 0 };
            tub_sys::eventfd(*count, semaphore | nonblocking | libc::EFD_CLOEXEC).map_err(failed)
        }
        FileKind::Epoll { .. } => {
            let flags = nix::sys::epoll::EpollCreateFlags::EPOLL_CLOEXEC;
            nix::sys::epoll::Epoll::new(flags).map(|epoll| epoll.0).map_err(failed)
        }
        FileKind::TimerFd { clock, .. } => {
            tub_sys::timerfd(*clock, nonblocking | libc::TFD_CLOEXEC).map_err(failed)
        }
        FileKind::SignalFd { mask } => {
            tub_sys::signalfd(*mask, nonblocking | libc::SFD_CLOEXEC).map_err(failed)
        }
        FileKind::Inotify { watches } => inotify::inotify(watches).map_err(failed),
        FileKind::Socket(socket) => socket::open_socket(socket).map_err(failed),
        FileKind::PidFd { of: None } => pidfd::of_nobody(file.flags).map_err(failed),
        FileKind::PidFd { of: Some(_) }
        | FileKind::Terminal { .. }
        | FileKind::Outside { .. }
        | FileKind::Pipe { .. } => Err(failed(Errno::EOPNOTSUPP)),
    }
}

/// What can only be set once the description is in place.
fn finish(number: i32, file: &OpenFile) -> Result<(), Errno> {
    // SAFETY: `number` was placed by our caller and stays open; it is only borrowed here.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    match &file.kind {
        FileKind::Regular { offset_bytes, .. }
        | FileKind::Memory { offset_bytes, .. }
        | FileKind::Deleted { offset_bytes, .. } => {
            let offset = i64::try_from(*offset_bytes).map_err(|_| Errno::EOVERFLOW)?;
            lseek(fd, offset, Whence::SeekSet)?;
        }
        // A position in a directory may mean nothing any more; then it is read from the start.
        FileKind::Directory { offset_bytes, .. } | FileKind::Kernel { offset_bytes, .. }
            if *offset_bytes > 0 =>
        {
            let offset = i64::try_from(*offset_bytes).map_err(|_| Errno::EOVERFLOW)?;
            let _ = lseek(fd, offset, Whence::SeekSet);
        }
        FileKind::TimerFd { ticks, settime_flags, value_ns, interval_ns, .. } => {
            tub_sys::timerfd_arm(fd, *settime_flags, *value_ns, *interval_ns)?;
            if *ticks > 0 {
                tub_sys::timerfd_set_ticks(fd, *ticks)?;
            }
        }
        _ => {}
    }
    match &file.kind {
        // It has no flags that could be set, and no other call works on it.
        FileKind::PathOnly { .. } => Ok(()),
        FileKind::Socket(_) | FileKind::Inotify { .. } | FileKind::Epoll { .. } => {
            tub_sys::set_status_flags(number, file.flags)
        }
        // open(2) takes all flags but this one.
        _ if file.flags & libc::O_ASYNC != 0 => tub_sys::set_status_flags(number, file.flags),
        _ => Ok(()),
    }
}

fn describe(kind: &FileKind) -> String {
    match kind {
        FileKind::Regular { file, .. } => format!("file {}", file.path),
        FileKind::Memory { .. } => "memory file".to_owned(),
        FileKind::Directory { path, .. } => format!("directory {path}"),
        FileKind::Device { path } => format!("device {path}"),
        FileKind::Terminal { path } => format!("terminal {path}"),
        FileKind::Pipe { .. } => "pipe".to_owned(),
        FileKind::EventFd { .. } => "eventfd".to_owned(),
        FileKind::Epoll { .. } => "epoll set".to_owned(),
        FileKind::TimerFd { .. } => "timerfd".to_owned(),
        FileKind::SignalFd { .. } => "signalfd".to_owned(),
        FileKind::Inotify { .. } => "inotify".to_owned(),
        FileKind::PidFd { .. } => "pidfd".to_owned(),
        FileKind::Deleted { path, .. } => format!("file {path}, which was deleted"),
        FileKind::PathOnly { path } => format!("path {path}"),
        FileKind::Kernel { path, .. } => format!("file {path} of the kernel"),
        FileKind::Outside { what } => what.clone(),
        FileKind::Socket(Socket::Tcp { address, state: TcpState::Listening { .. }, .. }) => {
            format!("listening TCP socket on {address}")
        }
        FileKind::Socket(Socket::Tcp { address, .. }) => format!("TCP socket on {address}"),
        FileKind::Socket(Socket::Udp { address, .. }) => format!("UDP socket on {address}"),
        FileKind::Socket(Socket::Netlink { protocol, .. }) => {
            format!("netlink socket of protocol {protocol}")
        }
        FileKind::Socket(Socket::Unix(unix)) => {
            let name = unix.name.as_ref().map(|name| String::from_utf8_lossy(&name.bytes));
            let name = name.unwrap_or_default().replace('\0', "@");
            match unix.state {
                UnixState::Listening { .. } => format!("listening unix socket on {name}"),
                _ => format!("unix socket {name}"),
            }
        }
    }
}
