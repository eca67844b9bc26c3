//! A parent and a child, and every kind of descriptor that two processes can share.
//!
//! What is one open file description stays one; what only the child holds is still only the
//! child's; and each can still name the other by the handle that it had of it.

use crate::stage::{Promise, Stage};
use crate::sys;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

const PATIENCE_MS: i32 = 20_000;

/// Everything that both have.
struct Shared {
    file: File,
    log: File,
    locked: File,
    event: OwnedFd,
    epoll: OwnedFd,
    pipe: (File, File),
    /// Of the parent, and of nobody.
    handles: [OwnedFd; 2],
    /// Tells the parent of its events.
    telling: OwnedFd,
}

/// `kin`: one of each.
pub(crate) fn kin(stage: &'static Stage) -> io::Result<()> {
    sys::block(&[libc::SIGUSR1, libc::SIGUSR2]);
    for name in ["file", "log", "shared", "posix", "ofd", "own"] {
        fs::write(stage.path(name), [b'.'; 64])?;
    }
    let open = |name: &str| File::options().read(true).write(true).open(stage.path(name));
    let epoll = sys::epoll_create()?;
    let event = sys::eventfd(0, 0)?;
    sys::epoll_ctl(&epoll, libc::EPOLL_CTL_ADD, &event, libc::EPOLLIN, 1)?;
    let parent = std::process::id().cast_signed();
    let Some(gone) = sys::fork()? else { sys::exit(0) };
    let handles = [sys::pidfd(parent)?, sys::pidfd(gone)?];
    sys::wait(gone, 0)?;
    sys::fcntl(&handles[0], libc::F_SETFL, libc::O_NONBLOCK)?;
    let mut shared = Shared {
        file: open("file")?,
        log: open("log")?,
        locked: open("shared")?,
        event,
        epoll,
        pipe: sys::pipe(0)?,
        handles,
        telling: sys::socketpair(libc::SOCK_STREAM)?.0,
    };
    sys::owner(&shared.telling, Some((BY_PROCESS, parent)))?;
    sys::flock(&shared.locked, libc::LOCK_EX)?;
    let (ours, theirs) = sys::socketpair(libc::SOCK_SEQPACKET)?;
    let (mut said, line) = sys::pipe(0)?;

    let Some(child) = sys::fork()? else {
        drop((ours, said));
        let mut line = line;
        if let Err(error) = self::child(stage, &mut shared, File::from(theirs), &line, parent) {
            stage.differs(format!("could not go on: {error}"));
        }
        for difference in stage.differences() {
            let _ = writeln!(line, "child: {difference}");
        }
        sys::exit(0)
    };
    drop((theirs, line));
    let mut ours = File::from(ours);
    // What belongs to the number, and not to what it stands for.
    sys::fcntl(&shared.handles[0], libc::F_SETFD, 0)?;
    let Some(ended) = sys::fork()? else { sys::exit(3) };
    sys::wait_for_zombie(ended)?;
    let (of_child, of_self, of_zombie) =
        (sys::pidfd(child)?, sys::pidfd(parent)?, sys::pidfd(ended)?);
    let Some(gone) = sys::fork()? else { sys::exit(0) };
    let of_nobody = sys::pidfd(gone)?;
    sys::wait(gone, 0)?;
    let again = of_child.try_clone()?;
    let telling_child = sys::socketpair(libc::SOCK_STREAM)?.0;
    sys::owner(&telling_child, Some((BY_PROCESS, child)))?;
    let own_epoll = sys::epoll_create()?;
    sys::epoll_ctl(&own_epoll, libc::EPOLL_CTL_ADD, &of_child, libc::EPOLLIN, 0xc41d)?;
    // Two messages wait in each direction; the child says so when it has its locks.
    ours.write_all(b"to the child")?;
    ours.write_all(b"and more")?;
    said.read_exact(&mut [0])?;

    stage.across()?;

    let message = |from: &mut File| -> io::Result<String> {
        let mut text = [0; 64];
        let bytes = from.read(&mut text)?;
        Ok(String::from_utf8_lossy(&text[..bytes]).into_owned())
    };
    stage.same("message that waited", &"from the child".to_owned(), &message(&mut ours)?);
    stage.same("and its neighbour", &"once more".to_owned(), &message(&mut ours)?);
    // The child has moved the position and set the flag before it says this.
    stage.same("child is done", &"moved".to_owned(), &message(&mut ours)?);
    stage.same("position", &40, &shared.file.stream_position()?);
    let flags = sys::fcntl(&shared.log, libc::F_GETFL, 0)?;
    stage.holds("flags that the child has set", flags & libc::O_APPEND != 0);
    for (handle, nonblocking) in shared.handles.iter().zip([false, true]) {
        let flags = sys::fcntl(handle, libc::F_GETFL, 0)? & libc::O_NONBLOCK != 0;
        stage.same("flags of a handle that the child has changed", &nonblocking, &flags);
    }
    let closes = sys::fcntl(&shared.handles[0], libc::F_GETFD, 0)?;
    stage.same("our number of the shared handle is not closed on exec", &0, &closes);
    let mut count = [0; 8];
    File::from(shared.event.try_clone()?).read_exact(&mut count)?;
    stage.same("count of the child", &41, &u64::from_ne_bytes(count));
    let mut byte = [0; 5];
    shared.pipe.0.read_exact(&mut byte)?;
    stage.same("pipe", b"early", &byte);
    // The child has changed the word under which the set knows it.
    File::from(shared.event.try_clone()?).write_all(&1_u64.to_ne_bytes())?;
    let ready = sys::epoll_wait(&shared.epoll, PATIENCE_MS)?;
    stage.same("shared epoll set", &vec![(libc::EPOLLIN as u32, 2)], &ready);
    locks(stage)?;
    // The lock of a shared description is given up by whoever asks first.
    sys::flock(&shared.locked, libc::LOCK_UN)?;
    let refused = sys::flock(open("shared")?, libc::LOCK_EX).map_err(|error| error.kind());
    stage.same("flock given up", &Ok(()), &refused);

    told(stage, "what both have", &shared.telling, parent);
    told(stage, "what only the parent has", &telling_child, child);

    let alive = |pidfd: &OwnedFd| sys::poll(pidfd.as_fd(), libc::POLLIN, 0);
    stage.same("child lives", &0, &alive(&of_child)?);
    stage.same("so do we", &0, &alive(&of_self)?);
    stage.same("child is no zombie", &Some(false), &sys::has_ended(&of_child).ok());
    stage.same("zombie is one", &Some(true), &sys::has_ended(&of_zombie).ok());
    let asked = sys::has_ended(&of_nobody).map_err(|error| error.raw_os_error());
    stage.same("nobody is nobody's child", &Err(Some(libc::ECHILD)), &asked);
    stage.holds("nobody has ended", alive(&of_nobody)? & libc::POLLIN != 0);
    let lost = sys::signal_by(&of_nobody, 0).map_err(|error| error.raw_os_error());
    stage.same("nobody cannot be told", &Err(Some(libc::ESRCH)), &lost);
    let taken = sys::take(&[libc::SIGUSR2], Duration::from_secs(20))?;
    stage.same("signal of the child", &Some(libc::SIGUSR2), &taken.map(|taken| taken.signal));
    sys::signal_by(&of_self, libc::SIGUSR1)?;
    let taken = sys::take(&[libc::SIGUSR1], Duration::from_secs(20))?;
    stage.same("signal of our own", &Some(libc::SIGUSR1), &taken.map(|taken| taken.signal));
    stage.same("handle of the child waits", &Vec::new(), &sys::epoll_wait(&own_epoll, 0)?);
    // It waits for this.
    sys::signal_by(&again, libc::SIGUSR1)?;
    let ready = sys::epoll_wait(&own_epoll, PATIENCE_MS)?;
    stage.same("end of the child", &vec![(libc::EPOLLIN as u32, 0xc41d)], &ready);
    stage.same("now it has ended", &Some(true), &sys::has_ended(&of_child).ok());

    let mut text = String::new();
    said.read_to_string(&mut text)?;
    for line in text.lines() {
        stage.differs(line.to_owned());
    }
    Ok(())
}

/// `F_OWNER_PID`.
const BY_PROCESS: i32 = 1;

/// Checks who is told of a descriptor's events: `pid`, where ids are the same.
fn told(stage: &Stage, what: &str, fd: &OwnedFd, pid: i32) {
    if stage.promised(Promise::SameIds) || !stage.promised(Promise::Restored) {
        let owner = sys::owner(fd, None).ok();
        stage.same(&format!("who is told of {what}"), &Some((BY_PROCESS, pid)), &owner);
    }
}

/// `pidfds`: of a process alone: its own, a zombie's, and one of somebody whom nobody remembers.
pub(crate) fn pidfds(stage: &'static Stage) -> io::Result<()> {
    sys::block(&[libc::SIGUSR1]);
    let Some(ended) = sys::fork()? else { sys::exit(3) };
    sys::wait_for_zombie(ended)?;
    let Some(gone) = sys::fork()? else { sys::exit(0) };
    let of_nobody = sys::pidfd(gone)?;
    sys::wait(gone, 0)?;
    let (of_self, of_zombie) = (sys::pidfd(std::process::id().cast_signed())?, sys::pidfd(ended)?);
    let again = of_self.try_clone()?;
    sys::fcntl(&again, libc::F_SETFL, libc::O_NONBLOCK)?;
    let epoll = sys::epoll_create()?;
    for (data, pidfd) in (1..).zip([&of_self, &of_zombie, &of_nobody]) {
        sys::epoll_ctl(&epoll, libc::EPOLL_CTL_ADD, pidfd, libc::EPOLLIN, data)?;
    }

    stage.across()?;

    let flags = sys::fcntl(&of_self, libc::F_GETFL, 0)?;
    stage.holds("flags through the duplicate", flags & libc::O_NONBLOCK != 0);
    let ready = sys::epoll_wait(&epoll, PATIENCE_MS)?;
    let ready: Vec<u64> = ready.iter().map(|(_, data)| *data).collect();
    stage.same("who has ended", &vec![2, 3], &ready);
    stage.same("zombie", &Some(true), &sys::has_ended(&of_zombie).ok());
    let lost = sys::signal_by(&of_nobody, 0).map_err(|error| error.raw_os_error());
    stage.same("nobody", &Err(Some(libc::ESRCH)), &lost);
    sys::signal_by(&of_self, libc::SIGUSR1)?;
    let taken = sys::take(&[libc::SIGUSR1], Duration::from_secs(20))?;
    stage.same("signal of our own", &Some(libc::SIGUSR1), &taken.map(|taken| taken.signal));
    let status = sys::wait(-1, libc::WNOHANG)?.map(|(_, status)| status);
    stage.same("how the zombie ended", &Some(3 << 8), &status);
    Ok(())
}

/// `pidfd-of-nobody`: a handle of a child that has ended and was waited for, and nothing else that would
/// have children tell of their end.
pub(crate) fn pidfd_of_nobody(stage: &'static Stage) -> io::Result<()> {
    sys::block(&[libc::SIGCHLD]);
    let Some(gone) = sys::fork()? else { sys::exit(0) };
    let of_nobody = sys::pidfd(gone)?;
    sys::wait(gone, 0)?;
    while sys::take(&[libc::SIGCHLD], Duration::ZERO)?.is_some() {}

    stage.across()?;

    let told = sys::take(&[libc::SIGCHLD], Duration::ZERO)?.map(|taken| taken.signal);
    stage.same("end of a child that there never was", &None, &told);
    let lost = sys::signal_by(&of_nobody, 0).map_err(|error| error.raw_os_error());
    stage.same("nobody", &Err(Some(libc::ESRCH)), &lost);
    Ok(())
}

/// What of the child's locks its parent can see: they are the child's, and not its own.
fn locks(stage: &Stage) -> io::Result<()> {
    let open = |name: &str| File::options().read(true).write(true).open(stage.path(name));
    let busy = Err(io::ErrorKind::WouldBlock);
    for name in ["shared", "own"] {
        let refused = sys::flock(open(name)?, libc::LOCK_SH).map_err(|error| error.kind());
        stage.same(&format!("flock of {name}"), &busy, &refused);
    }
    let holder = |name, start| {
        let kind = sys::record_lock(&open(name)?, libc::F_GETLK, libc::F_WRLCK, start, 1);
        kind.map(|(kind, _)| kind)
    };
    stage.same("POSIX lock of the child", &Some(libc::F_WRLCK), &holder("posix", 5).ok());
    stage.same("beside it", &Some(libc::F_UNLCK), &holder("posix", 20).ok());
    stage.same("lock of the child's description", &Some(libc::F_RDLCK), &holder("ofd", 9).ok());
    Ok(())
}

fn child(
    stage: &Stage,
    shared: &mut Shared,
    mut ours: File,
    mut line: &File,
    parent: i32,
) -> io::Result<()> {
    let open = |name: &str| File::options().read(true).write(true).open(stage.path(name));
    let (posix, described, own) = (open("posix")?, open("ofd")?, open("own")?);
    sys::record_lock(&posix, libc::F_SETLK, libc::F_WRLCK, 0, 10)?;
    sys::record_lock(&described, libc::F_OFD_SETLK, libc::F_RDLCK, 8, 8)?;
    sys::flock(&own, libc::LOCK_EX)?;
    ours.write_all(b"from the child")?;
    ours.write_all(b"once more")?;
    shared.pipe.1.write_all(b"early")?;
    let of_parent = sys::pidfd(parent)?;
    let telling_parent = sys::socketpair(libc::SOCK_STREAM)?.0;
    sys::owner(&telling_parent, Some((BY_PROCESS, parent)))?;
    line.write_all(b".")?;

    stage.wait_for_go()?;

    for expected in ["to the child", "and more"] {
        let mut text = [0; 64];
        let bytes = ours.read(&mut text)?;
        stage.same("message that waited", &expected.as_bytes(), &&text[..bytes]);
    }
    told(stage, "what only the child has", &telling_parent, parent);
    told(stage, "what both have, seen by the child", &shared.telling, parent);
    let [of_parent_too, of_nobody] = &shared.handles;
    let flags = sys::fcntl(of_parent_too, libc::F_GETFL, 0)?;
    stage.holds("flags of the shared handle", flags & libc::O_NONBLOCK != 0);
    let closes = sys::fcntl(of_parent_too, libc::F_GETFD, 0)?;
    stage.same("its number here is closed on exec", &libc::FD_CLOEXEC, &closes);
    stage.works("finding the parent by the shared handle", sys::signal_by(of_parent_too, 0));
    let lost = sys::signal_by(of_nobody, 0).map_err(|error| error.raw_os_error());
    stage.same("nobody is nobody to both", &Err(Some(libc::ESRCH)), &lost);
    sys::fcntl(of_parent_too, libc::F_SETFL, 0)?;
    sys::fcntl(of_nobody, libc::F_SETFL, libc::O_NONBLOCK)?;
    shared.file.seek(io::SeekFrom::Start(40))?;
    sys::fcntl(&shared.log, libc::F_SETFL, libc::O_APPEND)?;
    sys::epoll_ctl(&shared.epoll, libc::EPOLL_CTL_MOD, &shared.event, libc::EPOLLIN, 2)?;
    File::from(shared.event.try_clone()?).write_all(&41_u64.to_ne_bytes())?;
    ours.write_all(b"moved")?;
    // It is no child of ours, but it can be told.
    let asked = sys::has_ended(&of_parent).map_err(|error| error.raw_os_error());
    stage.same("parent is nobody's child", &Err(Some(libc::ECHILD)), &asked);
    sys::signal_by(&of_parent, libc::SIGUSR2)?;
    let taken = sys::take(&[libc::SIGUSR1], Duration::from_secs(30))?;
    stage.same("signal of the parent", &Some(libc::SIGUSR1), &taken.map(|taken| taken.signal));
    Ok(())
}
