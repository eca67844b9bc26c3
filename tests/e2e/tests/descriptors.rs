//! Descriptors of every kind that an image can hold.

use crate::round_trip::{gets_up_well, round_trips};
use nix::sys::socket::{getsockopt, sockopt};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tub_testkit::{
    Flavour, Instance, Memory, Pids, Restore, Scratch, Subject, Tub, User, as_user, code, every,
    is_root, skipped, wait_for,
};

#[test]
fn files_keep_position_flags_and_sharing() {
    round_trips("files", &Flavour::LAZY);
}

#[test]
fn epoll_sets_keep_their_targets() {
    round_trips("epoll", &Flavour::LAZY);
}

#[test]
fn event_descriptors_keep_their_counts() {
    round_trips("eventfd", &Flavour::LAZY);
}

/// All of a kind look alike, and are told apart without comparing each with each.
#[test]
fn thousands_of_a_kind_let_nobody_stand_still_for_long() {
    let original = Subject::new("eventfd", User::Ordinary).options(&["many"]).start();
    let image = original.dir().join("first");
    let took = original.checkpoint(&image, &["--leave-running", "--json"]).succeeds();
    let took: serde_json::Value = serde_json::from_str(&took.stdout).unwrap();
    let frozen_us = took["frozen_us"].as_u64().unwrap();
    // A tenth of a second, and twice as much in a debug build; 3 s before, each with each.
    assert!(frozen_us < 900_000, "{frozen_us} us");
    gets_up_well(original, Flavour::USUAL);
}

#[test]
fn pipes_keep_their_bytes() {
    round_trips("pipes", &Flavour::LAZY);
}

#[test]
fn a_pipe_without_writer_still_ends() {
    round_trips("pipe-eof", &Flavour::LAZY);
}

#[test]
fn sockets_listen_again() {
    round_trips("sockets", &Flavour::LAZY);
}

#[test]
fn file_locks_are_held_again() {
    round_trips("locks", &Flavour::LAZY);
}

#[test]
fn signals_of_descriptors_find_their_owner() {
    round_trips("owners", &Flavour::LAZY);
}

#[test]
fn paths_fifos_and_files_without_a_name() {
    round_trips("paths", &Flavour::LAZY);
}

#[test]
fn watches_keep_their_numbers() {
    round_trips("watches", &Flavour::LAZY);
}

#[test]
fn handles_of_processes_name_who_they_named() {
    round_trips("pidfds", &Flavour::LAZY);
}

#[test]
fn nobody_is_told_of_the_end_of_who_is_nobody() {
    round_trips("pidfd-of-nobody", &Flavour::LAZY);
}

#[test]
fn epoll_entries_outlive_their_numbers() {
    round_trips("epoll-odd", &Flavour::LAZY);
}

#[test]
fn unix_sockets_keep_what_lies_in_them() {
    round_trips("unix", &Flavour::LAZY);
}

#[test]
fn internet_sockets_without_a_connection() {
    round_trips("inet", &Flavour::LAZY);
}

/// How memory comes back makes no difference, but for what is both: files that are mapped as well.
#[test]
fn descriptors_beside_exact_memory() {
    let eager = Flavour { memory: Memory::Eager, ..Flavour::USUAL };
    for name in ["epoll-odd", "files", "locks", "paths", "unix"] {
        round_trips(name, &[eager]);
    }
}

#[test]
fn tcp_connections_end_where_that_is_the_policy() {
    every(&Flavour::LAZY, |flavour| {
        let original = Subject::new("tcp-closed", flavour.user).start();
        let image = original.dir().join("image");
        original.checkpoint(&image, &[]).fails_with(code::REFUSED, &["127.0.0.1", "--tcp close"]);
        original.checkpoint(&image, &["--tcp", "close"]).succeeds();
        let copy = Restore::of(&original, &image, flavour).start();
        copy.go(&flavour.promises());
        copy.verdict();
    });
}

/// `/dev/stdout` of a pipeline is a description of its own of the pipe that the restore replaces.
#[test]
fn the_pipe_of_a_standard_stream_opened_once_more() {
    const SCRIPT: &str = "exec 5>/dev/stdout; : >ready; until [ -e go ]; do :; done; echo five >&5";
    // The pipe is ours: only root may open it from there.
    every(&[Flavour::LAZY[0], Flavour::LAZY[2]], |flavour| {
        let dir = Scratch::new(flavour.user);
        let state = dir.make_dir("state");
        let mut command = as_user(flavour.user, Path::new("/bin/sh"));
        command.args(["-c", SCRIPT]).current_dir(&state).stdout(Stdio::piped());
        let mut original = command.stderr(Stdio::null()).spawn().unwrap();
        let ready = || state.join("ready").exists().then_some(());
        assert!(wait_for(Duration::from_secs(60), ready).is_some());
        let image = dir.join("image");
        let pid = original.id().to_string();
        let taken = Tub::new(flavour.user, "checkpoint").arg(pid).arg("--image").arg(&image).run();
        let _ = original.kill();
        original.wait().unwrap();
        taken.succeeds();
        std::fs::write(state.join("go"), "").unwrap();
        let pids = if flavour.pids == Pids::Keep { "keep" } else { "new" };
        let restore = Tub::new(flavour.user, "restore").arg(&image).args(&["--pids", pids]);
        assert_eq!(restore.run().succeeds().stdout, "five\n");
    });
}

#[test]
fn a_lock_that_somebody_holds_is_named() {
    every(&[Flavour::ALL[0], Flavour::USUAL], |flavour| {
        let original = Subject::new("locks", flavour.user).start();
        let image = original.dir().join("image");
        original.checkpoint(&image, &["--leave-running"]).succeeds();
        let pid = original.pid().to_string();
        let words = ["/state/flock", "/state/posix", "/state/ofd", "bytes 10 to 109", &pid];
        Restore::of(&original, &image, flavour).tub().run().fails_with(code::HOST_LACKS, &words);
        original.go("");
        original.verdict();
    });
}

/// Whoever opens a FIFO waits for its other end, which may never come.
#[test]
fn a_fifo_in_the_place_of_a_file_is_named_and_not_waited_for() {
    let flavour = Flavour::USUAL;
    let mut original = Subject::new("files", flavour.user).start();
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    for name in ["data", "log", "both"] {
        let path = original.dir().join("state").join(name);
        let aside = path.with_extension("aside");
        std::fs::rename(&path, &aside).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
        original.dir().give(&path);
        let path_shown = path.display().to_string();
        let restore = Restore::of(&original, &image, flavour).tub();
        restore.run().fails_with(code::BAD_IMAGE, &[&path_shown, "is of another type now"]);
        std::fs::rename(&aside, &path).unwrap();
    }
    let copy = Restore::of(&original, &image, flavour).start();
    copy.go(&flavour.promises());
    copy.verdict();
}

/// What lies at the place of a FIFO by now is neither taken for it nor written to.
#[test]
fn a_file_in_the_place_of_a_fifo_is_named_and_left_alone() {
    let flavour = Flavour::USUAL;
    let mut original = Subject::new("paths", flavour.user).start();
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    for name in ["quiet", "fifo"] {
        let path = original.dir().join("state").join(name);
        let aside = path.with_extension("aside");
        std::fs::rename(&path, &aside).unwrap();
        std::fs::write(&path, "precious").unwrap();
        original.dir().give(&path);
        let path_shown = path.display().to_string();
        let restore = Restore::of(&original, &image, flavour).tub();
        restore.run().fails_with(code::BAD_IMAGE, &[&path_shown, "is of another type now"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::rename(&aside, &path).unwrap();
    }
}

/// Whether anybody listens behind a socket's file is found out by knocking.
#[test]
fn a_listener_that_takes_no_more_connections_is_not_waited_for() {
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
    use nix::sys::socket::{bind, connect, listen, socket};
    use std::os::fd::AsRawFd;
    let flavour = Flavour::USUAL;
    let mut original = Subject::new("sockets", flavour.user).start();
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    let path = original.dir().join("state/unix.sock");
    let owner = std::fs::metadata(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let address = UnixAddr::new(&path).unwrap();
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fresh = || socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
    let busy = fresh();
    bind(busy.as_raw_fd(), &address).unwrap();
    listen(&busy, Backlog::new(1).unwrap()).unwrap();
    let (uid, gid) = (owner.uid(), owner.gid());
    std::os::unix::fs::chown(&path, Some(uid), Some(gid)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut callers = Vec::new();
    loop {
        let caller = fresh();
        if connect(caller.as_raw_fd(), &address).is_err() {
            break;
        }
        callers.push(caller);
    }
    let restore = Restore::of(&original, &image, flavour).tub();
    let words = ["listening unix socket", "state/unix.sock", "EADDRINUSE"];
    restore.run().fails_with(code::HOST_LACKS, &words);
    assert!(path.exists(), "somebody listens there");
}

/// A server that clients know by its user (`requirepeer=` of PostgreSQL's).
const LISTENER: &str = "import socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind('\\0' + sys.argv[1])
listener.listen()
print('listening', flush=True)
while True: time.sleep(1)";

#[test]
fn clients_see_who_listens_and_not_who_has_restored() {
    let python = Path::new("/usr/bin/python3");
    if !is_root() || !python.exists() {
        return skipped("no root, who restores for others, or no /usr/bin/python3");
    }
    every(&[Flavour::LAZY[0], Flavour::LAZY[2]], |flavour| {
        let dir = Arc::new(Scratch::new(flavour.user));
        dir.make_dir("state");
        // Below a directory of root's the user could make no file.
        let name = format!("tub-listener-{}", dir.path().display());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let mut command = as_user(flavour.user, Path::new("/usr/bin/setpriv"));
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.arg(python).args(["-c", LISTENER, &name]);
        let is_ready = |said: &str| said.contains("listening").then_some(());
        let mut original = Instance::start("listener", &dir, command, is_ready);
        let listens = |at: &Instance| {
            let client = UnixStream::connect_addr(&address).unwrap();
            let seen = getsockopt(&client, sockopt::PeerCredentials).unwrap();
            let expected = (at.pid(), 65534, 65534);
            assert_eq!((seen.pid(), seen.uid(), seen.gid()), expected, "{}", at.tell());
        };
        listens(&original);
        let image = original.dir().join("image");
        original.checkpoint_and_end(&image);
        listens(&Restore::of(&original, &image, flavour).start());
    });
}
