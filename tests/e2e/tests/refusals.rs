//! Bad input at a checkpoint: a clear error, and nothing lost.
//!
//! Every test ends by seeing that the process goes on, and most let it pass its own check.

use crate::round_trip::gets_up_well;
use nix::mount::{MsFlags, mount, umount};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tub_testkit::{
    Container, Flavour, Instance, Restore, Scratch, Subject, Tub, User, as_user, code, every,
    is_root, run_bounded, skipped, subject_binary, wait_for,
};

/// Both users.
const USERS: [Flavour; 2] = [Flavour::ALL[0], Flavour::ALL[1]];

/// No trace of an image, nor of the attempt to write one.
fn nothing_is_left(dir: &Path) {
    let names: Vec<_> =
        fs::read_dir(dir).unwrap().flatten().map(|entry| entry.file_name()).collect();
    let left = names.iter().filter(|name| {
        let name = name.to_string_lossy();
        name.contains("image") || name.contains(".tub")
    });
    assert_eq!(left.count(), 0, "left over in {}: {names:?}", dir.display());
}

#[test]
fn a_process_that_does_not_exist() {
    let scratch = Scratch::new(User::Ordinary);
    let image = scratch.join("image");
    // Above the highest pid_max that the kernel takes (2^22).
    let tub = Tub::new(User::Ordinary, "checkpoint").arg("4194305").arg("--image").arg(&image);
    tub.run().fails_with(code::NO_SUCH_PROCESS, &["4194305"]);
    nothing_is_left(scratch.path());
}

#[test]
fn a_process_that_is_not_ours() {
    if !is_root() {
        return skipped("needs root");
    }
    let theirs = Subject::new("counter", User::Root).start();
    let scratch = Scratch::new(User::Ordinary);
    let image = scratch.join("image");
    let pid = theirs.pid().to_string();
    let tub = Tub::new(User::Ordinary, "checkpoint").arg(&pid).arg("--image").arg(&image);
    tub.run().fails_with(code::NO_SUCH_PROCESS, &[&pid]);
    nothing_is_left(scratch.path());
    theirs.goes_on();
    theirs.go("");
    theirs.verdict();
}

#[test]
fn a_pid_that_is_no_number() {
    let tub = Tub::new(User::Ordinary, "checkpoint").args(&["tomcat", "--image", "/tmp/x"]);
    let finished = tub.run();
    assert_eq!(finished.status.code(), Some(code::USAGE), "{finished}");
}

/// The checkpoint of a counter to `image` fails with CANNOT_WRITE and `words`, and changes nothing.
fn cannot_write(original: Instance, image: &Path, words: &[&str]) {
    original.goes_on();
    let mut all = vec![image.to_str().unwrap()];
    all.extend(words);
    original.checkpoint(image, &[]).fails_with(code::CANNOT_WRITE, &all);
    original.goes_on();
    original.go("");
    original.verdict();
}

#[test]
fn an_image_directory_that_holds_something_else() {
    every(&USERS, |flavour| {
        let original = Subject::new("counter", flavour.user).start();
        let image = original.dir().make_dir("image");
        fs::write(image.join("precious"), "do not lose me").unwrap();
        cannot_write(original, &image, &["is there"]);
    });
}

#[test]
fn an_image_directory_that_is_the_image_of_another_process() {
    let flavour = Flavour::USUAL;
    let other = Subject::new("counter", flavour.user).start();
    let image = other.dir().join("image");
    other.checkpoint(&image, &["--leave-running"]).succeeds();
    let original = Subject::new("counter", flavour.user).start();
    original.checkpoint(&image, &[]).fails_with(code::CANNOT_WRITE, &["already there"]);
    original.goes_on();
    Tub::new(flavour.user, "verify").arg(&image).run().succeeds();
    let copy = Restore::of(&other, &image, flavour).start();
    copy.goes_on();
}

#[test]
fn an_image_path_that_is_a_file() {
    let original = Subject::new("counter", User::Ordinary).start();
    let image = original.dir().join("image");
    fs::write(&image, "a file").unwrap();
    cannot_write(original, &image, &[]);
    // `original` is gone now, and its directory with it; what counts was seen before.
}

#[test]
fn an_image_directory_that_is_empty_is_used() {
    let mut original = Subject::new("counter", User::Ordinary).start();
    let image = original.dir().make_dir("image");
    original.checkpoint_and_end(&image);
    let copy = Restore::of(&original, &image, Flavour::USUAL).start();
    copy.goes_on();
}

#[test]
fn an_image_directory_without_parent() {
    let original = Subject::new("counter", User::Ordinary).start();
    let image = original.dir().join("missing/image");
    cannot_write(original, &image, &["parent directory does not exist"]);
}

#[test]
fn an_image_directory_that_may_not_be_written() {
    if !is_root() {
        return skipped("needs root, to make a directory that the user may not write to");
    }
    let original = Subject::new("counter", User::Ordinary).start();
    let closed = original.dir().join("closed");
    // Root's, with the usual rights.
    fs::create_dir(&closed).unwrap();
    cannot_write(original, &closed.join("image"), &["not writable"]);
}

/// A small tmpfs, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `kib` KiB at `path`, owned by whom `options` says; `None` where mounting is not allowed.
    fn mount(path: PathBuf, kib: u32) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let options = format!("size={kib}k,mode=0777");
        let mounted =
            mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()));
        match mounted {
            Ok(()) => Some(Self(path)),
            Err(error) => {
                skipped(&format!("a small tmpfs cannot be mounted: {error}"));
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount(&self.0);
    }
}

#[test]
fn a_disk_that_is_full() {
    if !is_root() {
        return skipped("needs root, to mount a small tmpfs");
    }
    every(&USERS, |flavour| {
        let original = Subject::new("memory", flavour.user).start();
        // 8 MiB of patterns alone do not fit; nothing at all fits into the second one.
        for kib in [4096, 8] {
            let path = original.dir().join(format!("disk-{kib}"));
            let Some(disk) = SmallDisk::mount(path, kib) else { return };
            let image = disk.0.join("image");
            let finished = original.checkpoint(&image, &[]);
            finished.fails_with(code::CANNOT_WRITE, &["image", "space"]);
            nothing_is_left(&disk.0);
        }
        // With room, the very same process can still be checkpointed.
        gets_up_well(original, flavour);
    });
}

/// A process that holds `kinds` is refused, naming all of `words` at once, and does not notice.
fn is_refused(kinds: &[&str], words: &[&str]) {
    is_refused_of(&USERS, kinds, words);
}

/// The same where only `users` can have them.
fn is_refused_of(users: &[Flavour], kinds: &[&str], words: &[&str]) {
    every(users, |flavour| {
        let original = Subject::new("refused", flavour.user).options(kinds).start();
        original.goes_on();
        let image = original.dir().join("image");
        original.checkpoint(&image, &[]).fails_with(code::REFUSED, words);
        nothing_is_left(original.dir().path());
        original.goes_on();
        original.go("");
        original.verdict();
    });
}

#[test]
fn a_connected_socket() {
    is_refused(&["tcp"], &["127.0.0.1"]);
}

#[test]
fn a_child_with_a_terminal() {
    is_refused(&["child"], &["descriptor 0", "(sleep)", "ptmx"]);
}

#[test]
fn a_terminal_that_is_not_a_standard_stream() {
    is_refused(&["pty"], &["pt"]);
}

#[test]
fn an_io_uring() {
    is_refused(&["io_uring"], &["io_uring"]);
}

#[test]
fn a_large_file_that_was_deleted() {
    is_refused(&["deleted"], &["/state/deleted", "67108865 bytes"]);
}

#[test]
fn descriptors_that_no_image_can_hold() {
    let kinds = ["lease", "rights", "namespace"];
    is_refused(&kinds, &["/state/leased has a lease", "descriptors under way", "net:["]);
}

#[test]
fn what_only_the_process_itself_can_tell() {
    let kinds = ["events", "named", "netlink-group"];
    let words = ["events not read yet", "senders with names", "in.sock", "groups above 32"];
    is_refused(&kinds, &words);
}

#[test]
fn what_single_threads_have_to_themselves() {
    let words = ["has other no_new_privs than", "has other seccomp filters, no_new_privs than"];
    is_refused(&["thread-rights", "thread-filter"], &words);
    is_refused(&["thread-timer"], &["timer 0", "processor time of the thread that made it"]);
}

#[test]
fn what_threads_do_not_have_in_common() {
    is_refused(&["thread-files"], &["thread ", "has descriptors of its own"]);
    let words = ["thread ", "has root, working directory and umask of its own"];
    is_refused(&["thread-directories"], &words);
}

#[test]
fn what_processes_have_in_common() {
    for (kind, what) in [
        ("child-files", "has descriptors in common with its parent"),
        ("child-directories", "has root, working directory and umask in common with its parent"),
        ("child-memory", "has memory in common with its parent"),
    ] {
        is_refused(&[kind], &["process ", what]);
    }
}

#[test]
fn a_child_that_ends_with_another_signal() {
    is_refused(&["child-signal"], &["process ", "of its end by signal 23, not SIGCHLD"]);
}

#[test]
fn memory_and_objects_that_only_the_kernel_knows() {
    let kinds = ["secret", "huge", "queue", "system-v", "aio", "no-text"];
    let words = [
        "/secretmem is secret memory",
        "/memfd:huge (deleted) is on huge pages",
        "is a POSIX message queue",
        "is System V shared memory",
        "/[aio] belongs to a kernel object",
        "has a name that is no UTF-8",
    ];
    is_refused(&kinds, &words);
    is_refused(&["userfaultfd"], &["is a userfaultfd"]);
}

/// The same for what not every kernel or machine has.
fn is_refused_where_there_is_such(users: &[Flavour], kind: &str, words: &[&str]) {
    every(users, |flavour| {
        let original = Subject::new("refused", flavour.user).options(&[kind]).start();
        if let Ok(lacking) = fs::read_to_string(original.dir().join("state/lacking")) {
            skipped(&lacking);
        } else {
            let image = original.dir().join("image");
            original.checkpoint(&image, &[]).fails_with(code::REFUSED, words);
            nothing_is_left(original.dir().path());
        }
        original.goes_on();
        original.go("");
        original.verdict();
    });
}

#[test]
fn memory_that_userfaultfd_answers_for() {
    is_refused(&["fault-range"], &["is registered with userfaultfd", "is a userfaultfd"]);
}

#[test]
fn a_handle_of_a_single_thread() {
    let words = ["descriptor 3: pidfd of ", "names a thread"];
    is_refused_where_there_is_such(&USERS, "thread-handle", &words);
}

/// Without it, what the key forbids would be allowed in the copy.
#[test]
fn memory_with_a_protection_key() {
    let words = ["mapping ", "has a protection key", "pkey_mprotect(2)"];
    is_refused_where_there_is_such(&USERS, "key", &words);
}

/// Found before it is lent any call: that would have been given to the thread, as a signal.
#[test]
fn a_thread_that_is_given_its_own_system_calls() {
    let words = ["thread ", "is given its own system calls", "PR_SET_SYSCALL_USER_DISPATCH"];
    is_refused_where_there_is_such(&USERS, "dispatch", &words);
}

#[test]
fn a_shadow_stack() {
    is_refused_where_there_is_such(&USERS, "shadow-stack", &["is a shadow stack"]);
}

#[test]
fn memory_of_a_device() {
    if !is_root() {
        return skipped("needs root, to map a device");
    }
    is_refused_where_there_is_such(&USERS[..1], "device", &["mapping ", "maps a device"]);
    is_refused_of(&USERS[..1], &["ring"], &["socket:[", "belongs to a kernel object"]);
}

#[test]
fn memory_on_huge_pages() {
    const POOL: &str = "/proc/sys/vm/nr_hugepages";
    if !is_root() {
        return skipped("needs root, to have huge pages set aside");
    }
    let set_aside = fs::read_to_string(POOL).unwrap();
    let more = set_aside.trim().parse::<u32>().unwrap() + 2;
    fs::write(POOL, more.to_string()).unwrap();
    let tried = std::panic::catch_unwind(|| {
        is_refused_where_there_is_such(&USERS, "huge-page", &["is on huge pages of a pool"]);
    });
    fs::write(POOL, set_aside).unwrap();
    assert!(tried.is_ok(), "memory on huge pages: see above");
}

/// Known from its mapping alone: the descriptor is closed.
#[test]
fn a_mapped_file_that_something_was_mounted_over() {
    if !is_root() {
        return skipped("needs root, to mount a file over another");
    }
    let words = ["mapping ", "state/below is not what its path leads to", "unmount what covers it"];
    is_refused_of(&USERS[..1], &["mapped-under"], &words);
}

#[test]
fn what_takes_a_right_to_have() {
    if !is_root() {
        return skipped("needs root");
    }
    let kinds = ["mounted-over", "counter", "thread-namespace", "deadline"];
    let words = [
        "state/below is not what its path leads to",
        "is a performance counter",
        "has namespaces of its own",
        "runs under SCHED_DEADLINE",
    ];
    is_refused_of(&USERS[..1], &kinds, &words);
}

#[test]
fn a_program_of_32_bits() {
    // An ELF header, one program header, and code: pause(2) for ever.
    const PROGRAM: [&str; 4] = [
        "7f454c460101010000000000000000000200030001000000548004083400000000000000000000003400",
        "20000100000000000000",
        "010000000000000000800408008004085d0000005d0000000500000000100000",
        "b81d000000cd80ebf7",
    ];
    let digits = PROGRAM.concat();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let scratch = Scratch::new(User::Ordinary);
    let program = scratch.join("program");
    fs::write(&program, digits.as_bytes().chunks(2).map(byte).collect::<Vec<_>>()).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    scratch.give(&program);
    let mut command = as_user(User::Ordinary, &program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut original) = command.spawn() else {
        return skipped("this kernel runs no 32-bit code");
    };
    let pid = original.id().to_string();
    let runs =
        || fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "program\n");
    let running = wait_for(Duration::from_secs(60), || runs().then_some(()));
    let tub = Tub::new(User::Ordinary, "checkpoint").arg(&pid).arg("--image");
    let refused = tub.arg(scratch.join("image")).run();
    let lives = original.try_wait().unwrap().is_none();
    let _ = original.kill();
    original.wait().unwrap();
    assert!(running.is_some() && lives, "{refused}");
    refused.fails_with(code::REFUSED, &["/program is 32-bit code"]);
    nothing_is_left(scratch.path());
}

/// Its own id leads nowhere any more, and yet it lives.
#[test]
fn a_process_whose_main_thread_has_ended() {
    let scratch = Scratch::new(User::Ordinary);
    let state = scratch.make_dir("state");
    let mut command = as_user(User::Ordinary, subject_binary());
    command.arg("without-main").arg(&state).stdout(Stdio::null()).stdin(Stdio::null());
    let mut original = command.spawn().unwrap();
    let ready = || state.join("ready").exists().then_some(());
    let ready = wait_for(Duration::from_secs(60), ready);
    let pid = original.id().to_string();
    let tub = Tub::new(User::Ordinary, "checkpoint").arg(&pid).arg("--image");
    let refused = tub.arg(scratch.join("image")).run();
    fs::write(state.join("go"), "").unwrap();
    let ended = wait_for(Duration::from_secs(60), || original.try_wait().unwrap());
    let _ = original.kill();
    assert!(ready.is_some() && ended.is_some_and(|status| status.success()), "{ended:?}");
    let words = ["main thread of process", "has ended, and others go on", "pthread_join"];
    refused.fails_with(code::REFUSED, &words);
    nothing_is_left(scratch.path());
}

#[test]
fn a_working_directory_that_was_deleted() {
    is_refused(&["directory"], &["working directory", "state/gone was deleted", "let it change"]);
}

/// As one that waits for a disk: all others stand still until it is given up.
#[test]
fn a_thread_that_does_not_stop() {
    let original = Subject::new("refused", User::Ordinary).options(&["vfork"]).start();
    original.goes_on();
    let words = ["did not stop within", "was thawed and goes on", "try again"];
    original.checkpoint(&original.dir().join("image"), &[]).fails_with(code::TIMED_OUT, &words);
    nothing_is_left(original.dir().path());
    original.goes_on();
    original.go("");
    original.verdict();
}

#[test]
fn a_mapped_file_whose_name_is_no_text() {
    is_refused(&["mapped-no-text"], &["mapping ", "has a name that is no UTF-8"]);
}

/// The kernel shows no other path of it, and nothing can be told from a name that is no text.
#[test]
fn a_working_directory_whose_name_is_no_text() {
    let words = ["working directory", "has a name that is no UTF-8", "let it change"];
    is_refused(&["directory-no-text"], &words);
}

#[test]
fn a_working_directory_under_another_one() {
    if !is_root() {
        return skipped("needs root, to mount something over it");
    }
    let words = ["working directory", "state/under is not what its path leads to", "let it change"];
    is_refused_of(&USERS[..1], &["directory-under"], &words);
}

/// Of the other kind of filter the kernel tells the length; of this one it says that it may not be seen.
#[test]
fn a_socket_whose_filter_is_a_program() {
    let subject = Subject::new("refused", User::Root).options(&["program"]).start();
    if let Ok(why) = fs::read_to_string(subject.dir().join("state/lacking")) {
        return skipped(&why);
    }
    is_refused_of(&USERS[..1], &["program"], &["UDP socket", "has a packet filter"]);
}

#[test]
fn a_pidfd_of_a_stranger() {
    is_refused(&["stranger"], &["descriptor 3: pidfd of ", "not part of the tree"]);
}

/// As many as tub's own, but of another service, for all that anybody can tell.
#[test]
fn seccomp_filters_in_other_control_groups() {
    if !is_root() {
        return skipped("needs root, to make a control group");
    }
    let user = User::ContainedRoot(Container::Podman);
    let original = Subject::new("counter", user).start();
    let image = original.dir().join("image");
    original.checkpoint(&image, &["--leave-running"]).succeeds();
    let hierarchies = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
    let group = hierarchies.iter().find_map(|root| {
        let group = Path::new(root).join(format!("tub-test-{}", original.pid()));
        fs::create_dir(&group).ok()?;
        // The kernel makes it; elsewhere than in a hierarchy there is none.
        let procs = fs::File::options().write(true).open(group.join("cgroup.procs"));
        let moved =
            procs.and_then(|mut procs| procs.write_all(original.pid().to_string().as_bytes()));
        if moved.is_err() {
            fs::remove_dir(&group).unwrap();
        }
        moved.is_ok().then_some(group)
    });
    let Some(group) = group else { return skipped("no control group can be made here") };
    let told = original.checkpoint(&original.dir().join("other"), &[]);
    drop(original);
    let removed = wait_for(Duration::from_secs(10), || fs::remove_dir(&group).ok());
    assert!(removed.is_some(), "{} is left", group.display());
    told.fails_with(code::REFUSED, &["seccomp filters", "other control groups"]);
}

#[test]
fn all_reasons_are_told_at_once() {
    is_refused(&["tcp", "child", "pty", "io_uring"], &["127.0.0.1", "sleep", "pt", "io_uring"]);
}

/// Root with the right to trace everybody, and without the one to end anybody.
#[test]
fn a_process_that_may_be_frozen_but_not_ended() {
    if !is_root() {
        return skipped("needs root, to give up CAP_KILL");
    }
    let original = Subject::new("counter", User::Ordinary).start();
    let by_root = Scratch::new(User::Root);
    let image = by_root.join("image");
    let tub = |options: &[&str]| {
        let pid = original.pid().to_string();
        let tub = Tub::new(User::Root, "checkpoint").arg(pid).arg("--image").arg(&image);
        let words = ["--bounding-set=-kill", "--inh-caps=-kill"];
        let command = tub.args(options).command_under(Path::new("setpriv"), &words);
        run_bounded(command, Duration::from_secs(60))
    };
    tub(&[]).fails_with(code::REFUSED, &["not ended", "--leave-running", "CAP_KILL"]);
    nothing_is_left(by_root.path());
    original.goes_on();
    tub(&["--leave-running"]).succeeds();
    original.goes_on();
    original.go("");
    original.verdict();
}

#[test]
fn a_second_checkpoint_while_one_runs() {
    every(&USERS, |flavour| {
        let original = Subject::new("memory", flavour.user).start();
        let dir = original.dir();
        let pid = original.pid().to_string();
        let start = |name: &str| {
            let logs = dir.join(format!("{name}-logs"));
            fs::create_dir(&logs).unwrap();
            let tub = Tub::new(flavour.user, "checkpoint").arg(&pid).arg("--image");
            tub.arg(dir.join(name)).arg("--leave-running").start(&logs)
        };
        // Started together: whichever comes second must be told so, or come after the first.
        let both = [start("image-a"), start("image-b")].map(tub_testkit::Started::finish);
        let succeeded = both.iter().filter(|finished| finished.status.success()).count();
        assert!(succeeded >= 1, "{}\n{}", both[0], both[1]);
        for finished in both {
            if !finished.status.success() {
                finished.fails_with(code::BUSY, &[&pid]);
            }
        }
        gets_up_well(original, flavour);
    });
}

#[test]
fn killing_the_checkpoint_leaves_the_process_alone() {
    every(&USERS, |flavour| {
        let original = Subject::new("memory", flavour.user).start();
        for delay_ms in [1, 5, 15, 30, 60] {
            let logs = original.dir().join(format!("logs-{delay_ms}"));
            fs::create_dir(&logs).unwrap();
            let image = original.dir().join(format!("killed-{delay_ms}"));
            let tub = Tub::new(flavour.user, "checkpoint").arg(original.pid().to_string());
            let started = tub.arg("--image").arg(&image).arg("--leave-running").start(&logs);
            std::thread::sleep(Duration::from_millis(delay_ms));
            // Dropping kills it.
            drop(started);
            assert!(original.process().is_alive(), "died with its checkpoint\n{}", original.tell());
            if image.exists() {
                // What has its name is whole.
                Tub::new(flavour.user, "verify").arg(&image).run().succeeds();
            }
        }
        original.go("");
        original.verdict();
    });
}

/// A checkpoint that runs out of descriptors while the process stands still.
#[test]
fn a_checkpoint_that_fails_late_leaves_no_memory_behind() {
    let original = Subject::new("pipes", User::Ordinary).start();
    let image = original.dir().join("image");
    let size = || {
        let status = fs::read_to_string(format!("/proc/{}/status", original.pid())).unwrap();
        status.lines().find(|line| line.starts_with("VmSize:")).unwrap().to_owned()
    };
    let before = size();
    let mut failed_late = 0;
    for limit in 6..40 {
        let tub = Tub::new(User::Ordinary, "checkpoint").arg(original.pid().to_string());
        let tub = tub.arg("--image").arg(&image).arg("--leave-running");
        let finished = tub.after(&format!("ulimit -n {limit}")).run();
        if finished.status.success() {
            break;
        }
        failed_late += i32::from(finished.stderr.contains("was thawed and goes on"));
        assert_eq!(size(), before, "with {limit} descriptors: {finished}");
    }
    assert!(failed_late > 0, "no checkpoint failed while the process stood still");
    original.go("");
    original.verdict();
}
