//! Trees of processes: one image, all members, all that they share.

use crate::http::{first_answer, free_port, get};
use crate::round_trip::round_trips;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tub_image::Image;
use tub_testkit::{
    Flavour, Instance, Memory, Pids, Process, Restore, Scratch, Subject, Tub, User, as_user, every,
    skipped, wait_for,
};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_tree_keeps_its_shape_and_what_it_shares() {
    round_trips("tree", &Flavour::ALL);
}

#[test]
fn parent_and_child_share_descriptors_and_keep_apart_what_each_holds() {
    round_trips("kin", &Flavour::ALL);
}

#[test]
fn parent_and_child_go_on_talking_through_memory_that_no_file_system_holds() {
    round_trips("commons", &Flavour::ALL);
}

#[test]
fn pages_that_parent_and_child_share_are_stored_once() {
    let mut original = Subject::new("tree", User::Ordinary).start();
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    let opened = Image::open_foreign(&image).unwrap();
    let worker = 1;
    assert_eq!(opened.checkpoint.tasks[worker].parent, Some(0));
    let parent: Vec<_> = opened.runs[0].iter().map(|run| (run.offset_bytes, run.range)).collect();
    let is_shared = |offset: u64| {
        parent.iter().any(|(start, range)| (*start..*start + range.len()).contains(&offset))
    };
    let shared = opened.runs[worker].iter().filter(|run| is_shared(run.offset_bytes));
    let shared: u64 = shared.map(|run| run.range.pages()).sum();
    // Of the 256 pages that the subject fills, the worker has written to one.
    assert!(shared >= 255, "{shared} pages are shared");
    opened.verify_pages().unwrap();
    Tub::new(User::Ordinary, "verify").arg(&image).run().succeeds();
    let page = Tub::new(User::Ordinary, "inspect").arg(&image).run().succeeds();
    let said = page.to_string();
    for expected in ["parent", "leads a session", "zombie", "stopped by signal 19"] {
        assert!(said.contains(expected), "{expected:?} is not in:\n{said}");
    }
}

#[test]
fn a_part_of_a_tree_that_shares_a_pipe_with_the_rest_is_refused() {
    let original = Subject::new("tree", User::Ordinary).start();
    let worker = children(original.process())[0];
    let image = original.dir().join("part");
    let tub = Tub::new(User::Ordinary, "checkpoint").arg(worker.pid().to_string());
    tub.arg("--image").arg(&image).run().fails_with(tub_testkit::code::REFUSED, &["pipe"]);
    assert!(!image.exists());
    original.go("same-ids continuous-clock exact-memory");
    original.verdict();
}

/// A master that forks workers, which all accept on one listening socket.
const PREFORK: &str = r#"
import os, socket, sys
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen(64)
def work():
    served = 0
    while True:
        connection, _ = listener.accept()
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(4096)
        path = request.split()[1]
        served += 1
        body = b"%d %d" % (os.getpid(), served)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        connection.close()
        if path == b"/leave":
            os._exit(3)
def start():
    if os.fork() == 0:
        work()
for _ in range(3):
    start()
while True:
    pid, status = os.wait()
    print("a worker left with", os.waitstatus_to_exitcode(status), flush=True)
    start()
"#;

#[test]
fn a_prefork_server_in_python_goes_on_serving() {
    let python = Path::new("/usr/bin/python3");
    if !python.exists() {
        return skipped("there is no /usr/bin/python3");
    }
    let ways = [
        Flavour { user: User::Root, pids: Pids::Keep, memory: Memory::Lazy },
        Flavour { user: User::Ordinary, pids: Pids::Keep, memory: Memory::Lazy },
        Flavour { user: User::Ordinary, pids: Pids::Keep, memory: Memory::Eager },
        Flavour { user: User::Ordinary, pids: Pids::New, memory: Memory::Lazy },
        Flavour::USUAL,
    ];
    every(&ways, |flavour| {
        let dir = Arc::new(Scratch::new(flavour.user));
        let port = free_port();
        let mut command = as_user(flavour.user, python);
        command.args(["-c", PREFORK, &port.to_string()]);
        let mut original = Instance::start("prefork", &dir, command, |_| Some(()));
        assert!(first_answer(port, "/").is_some(), "{}", original.tell());
        let image = original.dir().join("image");
        original.checkpoint_and_end(&image);

        let copy = Restore::of(&original, &image, flavour).start();
        assert_eq!(children(copy.process()).len(), 3, "{}", copy.tell());
        let mut pids = BTreeSet::new();
        for _ in 0..30 {
            let answer = get(port, "/").unwrap();
            pids.extend(answer.split_whitespace().next().map(str::to_owned));
        }
        assert!(!pids.is_empty());
        // The master still learns of the end of a worker, and makes another one.
        get(port, "/leave").unwrap();
        copy.prints("a worker left with 3");
        wait_for(PATIENCE, || (children(copy.process()).len() == 3).then_some(())).unwrap();
        assert!(get(port, "/").is_ok(), "{}", copy.tell());
        // With new ids nothing holds the tree together but itself.
        let workers = children(copy.process());
        drop(copy);
        for worker in workers {
            worker.signal(Signal::SIGKILL);
        }
    });
}

#[test]
fn a_shell_pipeline_loses_nothing() {
    let line = "i=0; while :; do i=$((i + 1)); echo $i; sleep 0.05; done | sed -u s/^/n=/ | cat";
    let ways = [
        Flavour { user: User::Root, pids: Pids::Keep, memory: Memory::Lazy },
        Flavour { user: User::Ordinary, pids: Pids::Keep, memory: Memory::Eager },
        Flavour { user: User::Ordinary, pids: Pids::Keep, memory: Memory::Lazy },
        Flavour::USUAL,
    ];
    every(&ways, |flavour| {
        let dir = Arc::new(Scratch::new(flavour.user));
        let mut command = as_user(flavour.user, Path::new("/bin/sh"));
        command.args(["-c", line]);
        let mut original =
            Instance::start("pipeline", &dir, command, |said| said.contains("n=5\n").then_some(()));
        let image = original.dir().join("image");
        original.checkpoint_and_end(&image);
        let before = original.output();

        let copy = Restore::of(&original, &image, flavour).start();
        let more = || (copy.output().lines().count() > 20).then_some(());
        wait_for(PATIENCE, more).unwrap_or_else(|| panic!("{}", copy.tell()));
        let after = copy.output();
        let whole = after.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for (number, said) in (1..).zip(before.lines().chain(whole.lines())) {
            assert_eq!(said, format!("n={number}"), "{}", copy.tell());
        }
    });
}

#[test]
fn a_process_that_never_stops_forking_is_caught_whole() {
    let line = "while :; do (true | true); /bin/true; echo count $((n = n + 1)); done";
    let user = User::Ordinary;
    let dir = Arc::new(Scratch::new(user));
    let mut command = as_user(user, Path::new("/bin/sh"));
    command.args(["-c", line]);
    let mut original =
        Instance::start("forks", &dir, command, |said| said.contains("count 3\n").then_some(()));
    for attempt in 0..5 {
        let image = original.dir().join(format!("image-{attempt}"));
        original.checkpoint(&image, &["--leave-running"]).succeeds();
        original.goes_on();
    }
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    Restore::of(&original, &image, Flavour::USUAL).start().goes_on();
}

#[test]
fn a_member_that_cannot_be_made_is_named_and_ends_all() {
    for pids in [Pids::Keep, Pids::New] {
        let flavour = Flavour { pids, ..Flavour::USUAL };
        let dir = Arc::new(Scratch::new(flavour.user));
        let inside = dir.make_dir("inside");
        let mut command = as_user(flavour.user, Path::new("/bin/sh"));
        // The second one of the sleepers is made last, when the first one is there already.
        let line = "sleep 86421 & cd \"$1\" && sleep 86422 & sleep 0.2; echo ready; wait";
        command.args(["-c", line, "sh"]).arg(&inside);
        let mut original = Instance::start("members", &dir, command, |said| {
            said.contains("ready\n").then_some(())
        });
        let image = original.dir().join("image");
        original.checkpoint_and_end(&image);
        fs::remove_dir(&inside).unwrap();
        let restore = Restore::of(&original, &image, flavour);
        let words = ["of the image could not be made", "working directory"];
        restore.tub().run().fails_with(tub_testkit::code::HOST_LACKS, &words);
        let left = || sleepers().is_empty().then_some(());
        wait_for(PATIENCE, left).unwrap_or_else(|| panic!("{:?} are left", sleepers()));
    }
}

/// The sleepers of the test above.
fn sleepers() -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.starts_with(b"sleep\08642")
    })
    .collect()
}

/// The children of a process with one thread.
fn children(of: Process) -> Vec<Process> {
    let path = format!("/proc/{0}/task/{0}/children", of.pid());
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| Process::find(pid.parse().ok()?)).collect()
}

/// Kills the `nth` process that `first`, which stands still, and its descendants make, before it has done
/// anything; all others go on, until `first` has ended or it is late.
fn kill_newborn(first: Pid, nth: usize) {
    use nix::sys::ptrace::{self, Options};
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
    let forks = Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACECLONE;
    ptrace::seize(first, forks | Options::PTRACE_O_TRACEVFORK).unwrap();
    kill(first, Signal::SIGCONT).unwrap();
    let now = WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
    let mut family = vec![first];
    let ended = || {
        let left = now | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        // Of whom we trace, stops are told, too.
        let status = waitid(Id::Pid(first), left);
        matches!(status, Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)))
    };
    let deadline = Instant::now() + PATIENCE / 3;
    while !ended() && Instant::now() < deadline {
        for at in 0..family.len() {
            let pid = family[at];
            // Who else has ended is the parent's to wait for when we have done so; `first` is our own child.
            let wanted = if pid == first { now } else { now | WaitPidFlag::WEXITED };
            let Ok(WaitStatus::PtraceEvent(_, signal, event)) =
                waitid(Id::Pid(pid), wanted | WaitPidFlag::WSTOPPED)
            else {
                continue;
            };
            if [1, 2, 3].contains(&event) {
                let born = ptrace::getevent(pid).unwrap();
                family.push(Pid::from_raw(i32::try_from(born).unwrap()));
                if family.len() == nth + 1 {
                    kill(family[nth], Signal::SIGKILL).unwrap();
                }
            }
            // A stop of its own, and that of a newborn, is no signal.
            let passed = Some(signal).filter(|_| event == 0).filter(|s| *s != Signal::SIGSTOP);
            let _ = ptrace::cont(pid, passed);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whoever waits for it has not heard of it yet.
#[test]
fn a_process_that_is_killed_before_it_says_a_word_is_not_waited_for() {
    let mut original = Subject::new("tree", User::Ordinary).start();
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    // `tub`, the main process and, with ids that are kept, an init between the two come before.
    for (pids, nth) in [(Pids::New, 2), (Pids::Keep, 3)] {
        let flavour = Flavour { pids, ..Flavour::USUAL };
        let restore = Restore::of(&original, &image, flavour).after("kill -STOP $$").tub();
        let started = restore.start(original.dir().path());
        let first = Process::find(started.pid()).unwrap();
        let stands = || {
            let stat = fs::read_to_string(first.proc("stat")).ok()?;
            stat.rsplit(") ").next()?.starts_with('T').then_some(())
        };
        wait_for(PATIENCE, stands).unwrap();
        kill_newborn(Pid::from_raw(started.pid()), nth);
        let words = ["of the image could not be made", "was killed before it was parked"];
        started.finish().fails_with(tub_testkit::code::FAILED, &words);
    }
}
