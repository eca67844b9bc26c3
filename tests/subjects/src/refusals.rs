//! State that no image can hold: the checkpoint must be refused before anything is frozen, and
//! the process must not notice.

use crate::counter::heartbeat;
use crate::stage::Stage;
use crate::sys;
use crate::thread;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::Duration;

const PR_SET_NO_NEW_PRIVS: i32 = 38;

/// `refused KIND…`, each of `tcp`, `child` (with a terminal of its own), `pty`, `io_uring`, `deleted`, `lease`, `rights`,
/// `namespace`, `events`, `named`, `netlink-group`,
/// `thread-rights`, `thread-filter`, `thread-timer`, `thread-files`, `thread-directories`, `thread-namespace`,
/// `directory`, `stranger`, `queue`, `secret`, `huge`, `system-v`, `aio`, `userfaultfd`, `counter`, `no-text`,
/// `deadline`, `mounted-over`, `child-files`, `child-directories`, `child-memory`, `fault-range`, `huge-page`,
/// `key`, `dispatch`, `shadow-stack`, `device`, `ring`, `mapped-under`, `thread-handle`, `directory-no-text`,
/// `directory-under`, `program`, `mapped-no-text`, `vfork`, `child-signal`: holds them and counts. What cannot be had here
/// is left out, and the file `lacking` says why.
pub(crate) fn refused(stage: &'static Stage) -> io::Result<()> {
    let mut tcp: Option<(TcpStream, TcpStream)> = None;
    let mut child: Option<Child> = None;
    let mut held: Vec<OwnedFd> = Vec::new();
    let mut children: Vec<i32> = Vec::new();
    for kind in (0..).map_while(|index| stage.option(index)) {
        match kind {
            "tcp" => tcp = Some(connected()?),
            "child" => {
                child = Some(Command::new("sleep").arg("100").stdin(sys::pty()?).spawn()?);
            }
            "pty" => held.push(sys::pty()?),
            "io_uring" => held.push(sys::io_uring()?),
            "deleted" => held.push(deleted(stage)?.into()),
            "lease" => held.push(leased(stage)?.into()),
            "rights" => held.extend(rights_under_way()?),
            "namespace" => held.push(File::open("/proc/self/ns/net")?.into()),
            "events" => held.push(unread_events(stage)?),
            "named" => held.extend(named_sender(stage)?),
            "thread-rights" => in_a_thread(|| sys::prctl(PR_SET_NO_NEW_PRIVS, 1).map(drop))?,
            "thread-filter" => in_a_thread(sys::filter_nothing)?,
            "thread-timer" => {
                sys::PosixTimer::new(libc::CLOCK_THREAD_CPUTIME_ID, libc::SIGURG, 0)?;
            }
            "directory" => {
                fs::create_dir(stage.path("gone"))?;
                std::env::set_current_dir(stage.path("gone"))?;
                fs::remove_dir(stage.path("gone"))?;
            }
            "directory-no-text" => {
                let path = stage.path("").join(OsStr::from_bytes(b"no\xff\xfetext"));
                fs::create_dir(&path)?;
                std::env::set_current_dir(&path)?;
            }
            "directory-under" => {
                for name in ["under", "over"] {
                    fs::create_dir(stage.path(name))?;
                }
                std::env::set_current_dir(stage.path("under"))?;
                sys::mount_over(&stage.path("over"), &stage.path("under"))?;
            }
            "program" => match sys::socket_with_program() {
                Ok(socket) => held.push(socket),
                Err(error) => or_lacking(stage, kind, Err(error))?,
            },
            "stranger" => held.push(sys::pidfd(sys::parent())?),
            "thread-files" => in_a_thread(|| sys::unshare(libc::CLONE_FILES))?,
            "thread-directories" => in_a_thread(|| sys::unshare(libc::CLONE_FS))?,
            "thread-namespace" => in_a_thread(|| sys::unshare(libc::CLONE_NEWUTS))?,
            "queue" => held.push(sys::message_queue()?),
            "secret" => sys::secret_memory()?,
            "huge" => held.push(sys::memfd(c"huge", libc::MFD_HUGETLB)?),
            "system-v" => sys::attach_shared()?,
            "aio" => sys::asynchronous_io()?,
            "userfaultfd" => held.push(sys::userfaultfd()?),
            "counter" => held.push(sys::performance_counter()?),
            "no-text" => held.push(no_text(stage)?.into()),
            "deadline" => in_a_thread(sys::deadline)?,
            "mounted-over" => held.push(mounted_over(stage)?.into()),
            "child-files" => children.push(sys::forked_with(libc::CLONE_FILES)?),
            "child-directories" => children.push(sys::forked_with(libc::CLONE_FS)?),
            "child-memory" => children.push(sys::forked_with(libc::CLONE_VM)?),
            "child-signal" => children.push(sys::forked_to_end_with(0, libc::SIGURG)?),
            "fault-range" => held.push(sys::userfaultfd_range()?),
            "huge-page" => or_lacking(stage, kind, sys::huge_page())?,
            "dispatch" => or_lacking(stage, kind, in_a_thread(sys::dispatch_system_calls))?,
            "key" => or_lacking(stage, kind, sys::page_with_key())?,
            "shadow-stack" => or_lacking(stage, kind, sys::shadow_stack())?,
            "device" => or_lacking(stage, kind, device())?,
            "vfork" => {
                // The thread waits for the end of its child, and for nothing else (vfork(2)).
                thread::spawn(|| sys::forked_with(libc::CLONE_VM | libc::CLONE_VFORK));
                thread::sleep(Duration::from_millis(200));
            }
            "ring" => sys::packet_ring()?,
            "mapped-no-text" => sys::map_for_ever(&mapped_no_text(stage)?.into())?,
            "mapped-under" => sys::map_for_ever(&mounted_over(stage)?.into())?,
            "thread-handle" => or_lacking(stage, kind, in_a_thread(handle_of_this_thread))?,
            "netlink-group" => held.push(netlink_group()?),
            _ => return Err(io::Error::other(format!("unknown kind {kind}"))),
        }
    }
    let heart = heartbeat(stage);

    stage.across()?;

    stage.holds("heart beats to the end", heart.join().is_ok());
    if let Some((mut here, mut there)) = tcp {
        here.write_all(b"still")?;
        let mut text = [0; 5];
        there.read_exact(&mut text)?;
        stage.same("through the connection", b"still", &text);
    }
    if let Some(mut child) = child {
        stage.same("child lives", &None, &child.try_wait()?.map(|status| status.to_string()));
        child.kill()?;
        child.wait()?;
    }
    for child in children {
        stage.works("ending of a child", sys::kill(child, libc::SIGKILL));
        sys::wait(child, libc::__WALL)?;
    }
    for fd in held {
        stage.works("closing", fd.try_clone());
    }
    Ok(())
}

/// Notes for the harness what this kernel or this machine does not have.
fn or_lacking(stage: &Stage, kind: &str, made: io::Result<()>) -> io::Result<()> {
    match made {
        Ok(()) => Ok(()),
        Err(error) => fs::write(stage.path("lacking"), format!("no {kind} here: {error}")),
    }
}

/// A handle of the calling thread, which stays open.
fn handle_of_this_thread() -> io::Result<()> {
    sys::pidfd_of_thread().map(std::mem::forget)
}

/// Maps what memory of a device this machine lets us map, and does not touch it: the first that a PCI
/// device offers (`/sys/bus/pci/devices/*/resource*`), or a disk's.
fn device() -> io::Result<()> {
    let devices = fs::read_dir("/sys/bus/pci/devices").into_iter().flatten().flatten();
    let resource =
        |device: fs::DirEntry| (0..6).map(move |n| device.path().join(format!("resource{n}")));
    let disks = ["/dev/loop0", "/dev/zram0", "/dev/ram0"].map(PathBuf::from);
    let mut last = io::Error::other("no device");
    for path in devices.flat_map(resource).chain(disks) {
        let opened = File::options().read(true).write(true).open(path);
        match opened.and_then(|file| sys::map_for_ever(&file.into())) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connected() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let here = TcpStream::connect(listener.local_addr()?)?;
    Ok((here, listener.accept()?.0))
}

fn leased(stage: &Stage) -> io::Result<File> {
    let path = stage.path("leased");
    fs::write(&path, "whoever writes breaks the lease")?;
    let file = File::open(&path)?;
    sys::fcntl(&file, libc::F_SETLEASE, libc::F_RDLCK)?;
    Ok(file)
}

/// A pair of sockets with a descriptor on its way through them.
fn rights_under_way() -> io::Result<[OwnedFd; 2]> {
    let (from, to) = sys::socketpair(libc::SOCK_STREAM)?;
    sys::send_descriptor(&from, &to)?;
    Ok([from, to])
}

fn unread_events(stage: &Stage) -> io::Result<OwnedFd> {
    let inotify = sys::inotify()?;
    sys::watch(&inotify, &stage.path(""), libc::IN_CREATE)?;
    fs::write(stage.path("event"), "")?;
    Ok(inotify)
}

/// A datagram whose sender has a name, which only that sender could send again.
fn named_sender(stage: &Stage) -> io::Result<[OwnedFd; 2]> {
    let inbox = UnixDatagram::bind(stage.path("in.sock"))?;
    let sender = UnixDatagram::bind(stage.path("out.sock"))?;
    sender.send_to(b"from me", stage.path("in.sock"))?;
    Ok([inbox.into(), sender.into()])
}

/// A file whose name is no text.
fn no_text(stage: &Stage) -> io::Result<File> {
    let path = stage.path("").join(OsStr::from_bytes(b"no\xff\xfetext"));
    File::options().read(true).write(true).create(true).truncate(true).open(path)
}

/// The same, with a page to map.
fn mapped_no_text(stage: &Stage) -> io::Result<File> {
    let file = no_text(stage)?;
    file.set_len(4096)?;
    Ok(file)
}

/// A file over which another one is mounted, for this process only.
fn mounted_over(stage: &Stage) -> io::Result<File> {
    for name in ["below", "above"] {
        fs::write(stage.path(name), name)?;
    }
    let file = File::options().read(true).write(true).open(stage.path("below"))?;
    sys::mount_over(&stage.path("above"), &stage.path("below"))?;
    Ok(file)
}

/// `without-main`: the main thread has ended, and another one goes on.
pub(crate) fn without_main(stage: &'static Stage) -> io::Result<()> {
    thread::spawn(move || {
        let result = stage.across();
        stage.works("waiting", result);
        // Nobody is left to return to.
        let same = matches!(stage.verdict(), Ok(true));
        sys::exit(if same { 0 } else { 1 })
    });
    sys::end_this_thread()
}

/// A thread that changes what is its own, and lives on.
fn in_a_thread(change: fn() -> io::Result<()>) -> io::Result<()> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let _ = tell.send(change());
        loop {
            thread::park();
        }
    });
    told.recv().map_err(io::Error::other)?
}

/// A member of a multicast group that has no bit in the socket's address.
fn netlink_group() -> io::Result<OwnedFd> {
    const SOL_NETLINK: i32 = 270;
    const RTNLGRP_STATS: i32 = 36;
    let socket = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
    sys::set_socket_option(&socket, SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, RTNLGRP_STATS)?;
    Ok(socket)
}

fn deleted(stage: &Stage) -> io::Result<File> {
    let path = stage.path("deleted");
    fs::write(&path, "nobody can open this again")?;
    let file = File::options().read(true).write(true).open(&path)?;
    // More than an image takes in.
    file.set_len((64 << 20) + 1)?;
    fs::remove_file(&path)?;
    Ok(file)
}
