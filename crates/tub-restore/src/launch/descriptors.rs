//! Lays out the descriptor table of the process being reborn.
//!
//! In: the steps of the plan, in the process itself. Out: a table that holds what the image says,
//! and the launcher's own descriptors above. Invariant: nothing is opened that the caller could
//! not open himself, no link at the end of a path is followed, nothing is created but what the
//! plan says is scratch.

use super::LaunchError;
use crate::plan::{FileStep, MappedFile, RestorePlan};
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, UnixAddr, bind, listen, socket,
    socketpair,
};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{Whence, lseek};
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use tub_model::{FileIdentity, FileKind, InotifyWatch, OpenFile, Socket, SocketOption};
use tub_sys::Errno;

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

/// Performs all steps of `plan`, after [`claim`].
pub(super) fn lay_out(plan: &RestorePlan) -> Result<(), LaunchError> {
    let spare = plan.spare;
    let system = |what| move |source| LaunchError::System { what, source };
    // From here on only the spare numbers and the standard streams are ours.
    let last = u32::try_from(spare.handshake - 1).unwrap_or(2);
    if last >= 3 {
        tub_sys::close_range(3, last).map_err(system("descriptor table"))?;
    }
    let first = u32::try_from(spare.pages + 1).unwrap_or(u32::MAX);
    tub_sys::close_range(first, u32::MAX).map_err(system("descriptor table"))?;
    let exe = open_existing(&plan.exe, false)?;
    place(exe, spare.executable, true)?;
    for (number, file) in (spare.first_file..).zip(&plan.mapped_files) {
        let fd = match file {
            MappedFile::Existing { file, writable } => open_existing(file, *writable)?,
            MappedFile::Scratch { .. } => open_scratch(file, spare.pages)?,
        };
        place(fd, number, true)?;
    }
    plan.file_steps.iter().try_for_each(perform)
}

/// The image may have more descriptors than our soft limit allows; what it had itself is set later.
fn raise_limit(last: i32) {
    let wanted = u64::try_from(last).unwrap_or(0) + 16;
    let limit = tub_sys::own_limits().into_iter().find(|limit| limit.0 == libc::RLIMIT_NOFILE);
    if let Some((resource, soft, hard)) = limit
        && soft < wanted
    {
        let _ = tub_sys::set_own_limit(resource, hard, hard);
    }
}

fn place(fd: OwnedFd, number: i32, close_on_exec: bool) -> Result<(), LaunchError> {
    tub_sys::move_to(fd, number, close_on_exec).map_err(|source| LaunchError::Descriptor {
        object: format!("descriptor number {number}"),
        source,
    })
}

/// Opens a file that must be the one that the image knows.
fn open_existing(file: &FileIdentity, writable: bool) -> Result<OwnedFd, LaunchError> {
    let access = if writable { OFlag::O_RDWR } else { OFlag::O_RDONLY };
    let fd = open_path(&file.path, access)?;
    check_identity(&fd, file)?;
    Ok(fd)
}

fn open_path(path: &str, flags: OFlag) -> Result<OwnedFd, LaunchError> {
    let flags = flags | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    // Not O_NOFOLLOW: the kernel keeps it among the flags that the process sees. The path is one
    // that the kernel gave, in which nothing was a link.
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let opened = match openat2(AT_FDCWD, path, how) {
        // Linux before 5.6, or a container profile that does not know it.
        Err(Errno::ENOSYS | Errno::EPERM) => open(path, flags | OFlag::O_NOFOLLOW, Mode::empty()),
        opened => opened,
    };
    opened.map_err(|source| match source {
        Errno::ENOENT => {
            LaunchError::FileChanged { path: path.to_owned(), problem: "is gone".to_owned() }
        }
        Errno::ELOOP => LaunchError::FileChanged {
            path: path.to_owned(),
            problem: "leads through a link now, which is not followed".to_owned(),
        },
        source => LaunchError::Descriptor { object: format!("file {path}"), source },
    })
}

/// Size and time of modification: what survives the copy of a file into a container image. Layers
/// keep whole seconds only.
fn check_identity(fd: &OwnedFd, file: &FileIdentity) -> Result<(), LaunchError> {
    let object = || format!("file {}", file.path);
    let stat = fstat(fd).map_err(|source| LaunchError::Descriptor { object: object(), source })?;
    let changed = |problem: String| LaunchError::FileChanged { path: file.path.clone(), problem };
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size != file.size_bytes {
        return Err(changed(format!("has {size} bytes, not {} any more", file.size_bytes)));
    }
    let saved = (file.mtime_ns.div_euclid(1_000_000_000), file.mtime_ns.rem_euclid(1_000_000_000));
    let exact = stat.st_mtime_nsec == saved.1 || stat.st_mtime_nsec == 0 || saved.1 == 0;
    if stat.st_mtime != saved.0 || !exact {
        return Err(changed("was modified after the checkpoint".to_owned()));
    }
    Ok(())
}

/// Makes a scratch file with its saved content. Where its name is taken, by another instance of the
/// same image, the file has no name.
fn open_scratch(file: &MappedFile, pages: i32) -> Result<OwnedFd, LaunchError> {
    let MappedFile::Scratch { path, mode, size_bytes, start, content } = file else {
        return Err(LaunchError::System { what: "scratch file", source: Errno::EINVAL });
    };
    let failed = |source| LaunchError::Descriptor { object: format!("file {path}"), source };
    let made = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(*mode)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path);
    let fd = match made {
        Ok(file) => file,
        Err(_) => File::from(
            nix::sys::memfd::memfd_create(c"tub-scratch", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)
                .map_err(failed)?,
        ),
    };
    let io = |error: std::io::Error| failed(Errno::from_raw(error.raw_os_error().unwrap_or(5)));
    fd.set_len(*size_bytes).map_err(io)?;
    // SAFETY: the number was placed by `lay_out`; it is given back below, unclosed.
    let store = unsafe { File::from_raw_fd(pages) };
    let mut page = [0u8; 4096];
    let copied = content.iter().try_for_each(|run| {
        let mut done = 0;
        while done < run.range.len() {
            store.read_exact_at(&mut page, run.offset_bytes + done)?;
            fd.write_all_at(&page, run.range.start() - start + done)?;
            done += page.len() as u64;
        }
        Ok(())
    });
    let _ = store.into_raw_fd();
    copied.map_err(io)?;
    Ok(fd.into())
}

fn perform(step: &FileStep) -> Result<(), LaunchError> {
    match step {
        FileStep::Open { number, close_on_exec, file } => {
            let failed = |source| LaunchError::Descriptor {
                object: format!("descriptor {number}: {}", describe(&file.kind)),
                source,
            };
            let fd = reopen(file, &failed)?;
            tub_sys::move_to(fd, *number, *close_on_exec).map_err(failed)?;
            finish(*number, file).map_err(failed)
        }
        FileStep::Pipe { read, write, capacity_bytes, content } => {
            let end = |end: &Option<(i32, bool, i32)>| {
                end.map_or("closed".to_owned(), |(number, ..)| number.to_string())
            };
            let failed = |source| LaunchError::Descriptor {
                object: format!("pipe with ends {} and {}", end(read), end(write)),
                source,
            };
            let (from, to) = nix::unistd::pipe().map_err(failed)?;
            let _ = tub_sys::set_pipe_capacity(to.as_raw_fd(), *capacity_bytes);
            if !content.is_empty() {
                let written = nix::unistd::write(&to, content).map_err(failed)?;
                if written < content.len() {
                    return Err(failed(Errno::ENOSPC));
                }
            }
            pair_up((from, *read), (to, *write)).map_err(failed)
        }
        FileStep::UnixPair { kind, a, b } => {
            let failed = |source| LaunchError::Descriptor {
                object: format!("descriptors {} and {}: pair of unix sockets", a.0, b.0),
                source,
            };
            let flags = SockFlag::SOCK_CLOEXEC;
            let kind = socket_kind(*kind).map_err(failed)?;
            let (one, other) =
                socketpair(AddressFamily::Unix, kind, None, flags).map_err(failed)?;
            pair_up((one, Some(*a)), (other, Some(*b))).map_err(failed)
        }
        FileStep::Duplicate { from, to, close_on_exec } => {
            tub_sys::duplicate_to(*from, *to, *close_on_exec).map_err(|source| {
                let object = format!("descriptor {to}: duplicate of {from}");
                LaunchError::Descriptor { object, source }
            })
        }
        FileStep::EpollAdd { epoll, target } => {
            let fd = target.fd.0;
            tub_sys::epoll_add(*epoll, fd, target.events, target.data).map_err(|source| {
                let object = format!("descriptor {epoll}: epoll set's target {fd}");
                LaunchError::Descriptor { object, source }
            })
        }
    }
}

type Placed = (OwnedFd, Option<(i32, bool, i32)>);

/// Places two ends that were made together; one without a number is closed. The number of either
/// may be where the other one happens to be open now, so both are moved out of the way first.
fn pair_up(a: Placed, b: Placed) -> Result<(), Errno> {
    let highest = [&a, &b].into_iter().filter_map(|(_, end)| Some((*end)?.0)).max().unwrap_or(2);
    let mut ends = Vec::with_capacity(2);
    for (fd, end) in [a, b] {
        if let Some(end) = end {
            ends.push((tub_sys::duplicate_above(fd.as_raw_fd(), highest + 1)?, end));
        }
    }
    for (fd, (number, close_on_exec, flags)) in ends {
        tub_sys::move_to(fd, number, close_on_exec)?;
        tub_sys::set_status_flags(number, flags)?;
    }
    Ok(())
}

/// Opens a description anew.
fn reopen(file: &OpenFile, failed: &dyn Fn(Errno) -> LaunchError) -> Result<OwnedFd, LaunchError> {
    let dropped = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_TRUNC;
    let flags = OFlag::from_bits_retain(file.flags) - dropped;
    let nonblocking = file.flags & libc::O_NONBLOCK;
    match &file.kind {
        FileKind::Regular { file: identity, .. } => {
            let fd = open_path(&identity.path, flags)?;
            // A file open for writing may have grown since: the log that everybody appends to.
            if flags & OFlag::O_ACCMODE == OFlag::O_RDONLY {
                check_identity(&fd, identity)?;
            }
            let stat = fstat(&fd).map_err(failed)?;
            if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
                let problem = "is no regular file any more".to_owned();
                return Err(LaunchError::FileChanged { path: identity.path.clone(), problem });
            }
            Ok(fd)
        }
        FileKind::Directory { path, .. } | FileKind::Device { path } => open_path(path, flags),
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
        FileKind::Inotify { watches } => inotify(watches).map_err(failed),
        FileKind::Socket(socket) => open_socket(socket).map_err(failed),
        FileKind::Terminal { .. } | FileKind::Pipe { .. } => Err(failed(Errno::EOPNOTSUPP)),
    }
}

/// What can only be set once the description is in place.
fn finish(number: i32, file: &OpenFile) -> Result<(), Errno> {
    // SAFETY: `number` was placed by our caller and stays open; it is only borrowed here.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    match &file.kind {
        FileKind::Regular { offset_bytes, .. } => {
            let offset = i64::try_from(*offset_bytes).map_err(|_| Errno::EOVERFLOW)?;
            lseek(fd, offset, Whence::SeekSet)?;
        }
        // A position in a directory may mean nothing any more; then it is read from the start.
        FileKind::Directory { offset_bytes, .. } if *offset_bytes > 0 => {
            let offset = i64::try_from(*offset_bytes).map_err(|_| Errno::EOVERFLOW)?;
            let _ = lseek(fd, offset, Whence::SeekSet);
        }
        FileKind::TimerFd { ticks, value_ns, interval_ns, .. } => {
            tub_sys::timerfd_arm(fd, *value_ns, *interval_ns)?;
            if *ticks > 0 {
                tub_sys::timerfd_set_ticks(fd, *ticks)?;
            }
        }
        FileKind::Socket(_) | FileKind::Inotify { .. } => {
            tub_sys::set_status_flags(number, file.flags)?;
        }
        _ => {}
    }
    Ok(())
}

/// The kernel hands out watch numbers in ascending order from 1, never one again: numbers in
/// between are used up with a watch that is removed at once.
fn inotify(watches: &[InotifyWatch]) -> Result<OwnedFd, Errno> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
    for watch in watches {
        let mask = AddWatchFlags::from_bits_retain(watch.mask);
        loop {
            let got = inotify.add_watch(watch.path.as_str(), mask)?;
            let number = watch_number(got);
            if number >= watch.number {
                break;
            }
            inotify.rm_watch(got)?;
        }
    }
    // SAFETY: the number is that of `inotify`, which is forgotten in the next line.
    let fd = unsafe { OwnedFd::from_raw_fd(inotify.as_fd().as_raw_fd()) };
    std::mem::forget(inotify);
    // Removing watches has queued IN_IGNORED events that the process never asked for.
    let mut rubbish = [0u8; 4096];
    let flags = libc::O_NONBLOCK;
    tub_sys::set_status_flags(fd.as_raw_fd(), flags)?;
    while nix::unistd::read(&fd, &mut rubbish).is_ok_and(|bytes| bytes > 0) {}
    Ok(fd)
}

fn watch_number(watch: nix::sys::inotify::WatchDescriptor) -> i32 {
    // nix keeps the number to itself, but for Debug.
    format!("{watch:?}")
        .chars()
        .filter(char::is_ascii_digit)
        .collect::<String>()
        .parse()
        .unwrap_or(i32::MAX)
}

fn socket_kind(kind: i32) -> Result<SockType, Errno> {
    SockType::try_from(kind & 0xf)
}

fn open_socket(saved: &Socket) -> Result<OwnedFd, Errno> {
    let cloexec = SockFlag::SOCK_CLOEXEC;
    match saved {
        Socket::UnixOrphan { kind } => {
            let kind = socket_kind(*kind)?;
            let (kept, _closed) = socketpair(AddressFamily::Unix, kind, None, cloexec)?;
            Ok(kept)
        }
        Socket::UnixListener { kind, address, mode } => {
            let fd = socket(AddressFamily::Unix, socket_kind(*kind)?, cloexec, None)?;
            if let Some(name) = address.strip_prefix('@') {
                bind(fd.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
            } else {
                bind_path(&fd, address, *mode)?;
            }
            listen(&fd, Backlog::MAXCONN)?;
            Ok(fd)
        }
        Socket::TcpListener { address, backlog, options } => {
            let fd = inet_socket(address, SockType::Stream, options)?;
            let backlog = i32::try_from(*backlog).unwrap_or(i32::MAX).min(4096);
            listen(&fd, Backlog::new(backlog)?)?;
            Ok(fd)
        }
        Socket::Udp { address, options } => inet_socket(address, SockType::Datagram, options),
        Socket::UnixPair { .. } => Err(Errno::EOPNOTSUPP),
    }
}

/// Binds to a path. A socket that nobody listens on any more, left over from the original or an
/// earlier instance, is replaced.
fn bind_path(fd: &OwnedFd, path: &str, mode: u32) -> Result<(), Errno> {
    let address = UnixAddr::new(path)?;
    match bind(fd.as_raw_fd(), &address) {
        Err(Errno::EADDRINUSE) => {
            let refused = std::os::unix::net::UnixStream::connect(path)
                .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
            if !refused {
                return Err(Errno::EADDRINUSE);
            }
            nix::unistd::unlink(path)?;
            bind(fd.as_raw_fd(), &address)?;
        }
        other => other?,
    }
    let _ = std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode));
    Ok(())
}

fn inet_socket(address: &str, kind: SockType, options: &[SocketOption]) -> Result<OwnedFd, Errno> {
    let address: SocketAddr = address.parse().map_err(|_| Errno::EINVAL)?;
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    for option in options {
        tub_sys::set_socket_option(fd.as_fd(), option.level, option.name, &option.value)?;
    }
    if kind == SockType::Stream || address.port() != 0 {
        bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    }
    Ok(fd)
}

fn describe(kind: &FileKind) -> String {
    match kind {
        FileKind::Regular { file, .. } => format!("file {}", file.path),
        FileKind::Directory { path, .. } => format!("directory {path}"),
        FileKind::Device { path } => format!("device {path}"),
        FileKind::Terminal { path } => format!("terminal {path}"),
        FileKind::Pipe { .. } => "pipe".to_owned(),
        FileKind::EventFd { .. } => "eventfd".to_owned(),
        FileKind::Epoll { .. } => "epoll set".to_owned(),
        FileKind::TimerFd { .. } => "timerfd".to_owned(),
        FileKind::SignalFd { .. } => "signalfd".to_owned(),
        FileKind::Inotify { .. } => "inotify".to_owned(),
        FileKind::Socket(Socket::TcpListener { address, .. }) => {
            format!("listening TCP socket on {address}")
        }
        FileKind::Socket(Socket::Udp { address, .. }) => format!("UDP socket on {address}"),
        FileKind::Socket(Socket::UnixListener { address, .. }) => {
            format!("listening unix socket on {address}")
        }
        FileKind::Socket(_) => "unix socket".to_owned(),
    }
}
