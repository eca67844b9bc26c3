//! Faults at every call of a checkpoint and of a restore: nothing is lost, and nothing is left.
//!
//! A few evenly spaced calls by default; all of them with `TUB_FAULTS=all` (`cargo xtask faults`), and with `TUB_FAULTS=2/5` the
//! second of five parts, which together are all (`cargo xtask faults --part 2/5`).

use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tub_image::Image;
use tub_testkit::{
    Call, Fault, Finished, Flavour, Instance, Memory, Pids, Process, Restore, Subject, Traced, Tub,
    User, code, every, is_root, left_over, skipped, strace, wait_for,
};

/// How many calls of each kind of run are tried by default.
const SAMPLE: usize = 8;

/// What is left of a killed `tub` is put right by others, who need a moment.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// What `TUB_FAULTS` asks for: one of so many parts of all calls, counted from 1; nothing by default.
fn part() -> Option<(usize, usize)> {
    let wish = std::env::var("TUB_FAULTS").ok()?;
    if wish == "all" {
        return Some((1, 1));
    }
    let part = wish.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
    let part = part.filter(|(k, n)| (1..=*n).contains(k));
    Some(part.unwrap_or_else(|| panic!("TUB_FAULTS={wish}: neither \"all\" nor a part as 2/5")))
}

/// The calls to be tried out of all that were seen.
pub(crate) fn chosen(calls: Vec<Call>) -> Vec<Call> {
    if let Some((k, n)) = part() {
        // Each nth, so that every part goes through the whole of the run.
        let some: Vec<_> = calls.iter().skip(k - 1).step_by(n).cloned().collect();
        eprintln!("{} of {} calls", some.len(), calls.len());
        return some;
    }
    // Off the start of each eighth, where the same kind of call would be met again and again.
    let at = |index: usize| calls.get((calls.len() * (10 * index + 7)) / (10 * SAMPLE)).cloned();
    (0..SAMPLE).filter_map(at).collect()
}

/// Both kinds of faults at `call`; errors first.
fn faults(call: &Call) -> Vec<Fault> {
    let kinds = call.errors();
    let errors = kinds.iter().take(if part().is_some() { kinds.len() } else { 1 });
    errors.map(|errno| Fault::Error(errno)).chain([Fault::Kill]).collect()
}

/// Tries every call with every fault, all of them even if some go wrong.
///
/// # Panics
///
/// If any went wrong, naming all of those.
fn each_fault(calls: &[Call], mut test: impl FnMut(&Call, Fault)) {
    let mut failed = Vec::new();
    let (began, mut told) = (Instant::now(), Instant::now());
    for (done, call) in calls.iter().enumerate() {
        if told.elapsed() > Duration::from_secs(30) {
            told = Instant::now();
            let (all, took) = (calls.len(), began.elapsed().as_secs());
            eprintln!("{done} of {all} calls in {took} s, {} went wrong", failed.len());
        }
        for fault in faults(call) {
            if catch_unwind(AssertUnwindSafe(|| test(call, fault))).is_err() {
                failed.push(format!("{fault:?} at {call}"));
            }
        }
    }
    assert!(failed.is_empty(), "went wrong: {}", failed.join("; "));
}

/// Ended in words, or was killed; never fell over.
#[track_caller]
fn ended_in_words(finished: &Finished) {
    let code = finished.status.code();
    // Before `main`, the libraries end a program that they cannot even set up in words of their own:
    // the C library with 127 (glibc's _startup_fatal), Rust's where the main thread gets no stack for
    // signals. Where even the first megabyte of memory is refused, Rust's allocator aborts.
    let early = code == Some(127)
        || ["memory allocation", "alternat"].iter().any(|word| finished.stderr.contains(word));
    assert!(early || !finished.stderr.contains("panicked at"), "fell over: {finished}");
    let silent = finished.stderr.is_empty();
    assert!(
        code.is_none()
            || code == Some(0)
            || early
            || silent
            || finished.stderr.starts_with("tub: "),
        "no words: {finished}"
    );
}

/// Neither an image nor a half one, or a whole one.
#[track_caller]
pub(crate) fn whole_or_nothing(image: &Path, what: &str) -> bool {
    let dir = image.parent().unwrap();
    let leftover = || {
        let names = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.file_name());
        names.into_iter().find(|name| name.to_string_lossy().contains(".tub-"))
    };
    let clean = wait_for(SOON, || leftover().is_none().then_some(()));
    assert!(clean.is_some(), "{what}: {:?} is left over", leftover());
    if !image.exists() {
        return false;
    }
    let whole = Image::open_foreign(image).and_then(|image| image.verify_pages());
    assert!(whole.is_ok(), "{what}: a half image was taken for a whole one: {whole:?}");
    true
}

/// Runs freely: no thread of it is stopped, nobody traces it.
#[track_caller]
pub(crate) fn runs_freely(original: &Instance, what: &str) {
    let free = wait_for(SOON, || {
        let status = fs::read_to_string(original.process().proc("status")).ok()?;
        let line = |name| status.lines().find_map(|line| line.strip_prefix(name));
        let stopped = line("State:")?.trim_start().starts_with(['t', 'T', 'Z']);
        (!stopped && line("TracerPid:")?.trim() == "0").then_some(())
    });
    assert!(free.is_some(), "{what}: it does not run freely\n{}", original.tell());
}

pub(crate) fn checkpoint(
    strace: &Path,
    original: &Instance,
    image: &Path,
    options: &[&str],
) -> Traced {
    let tub = Tub::new(original.dir().user(), "checkpoint").arg(original.pid().to_string());
    Traced::new(strace, tub.arg("--image").arg(image).args(options))
}

/// A fault at every chosen call of a checkpoint of `subject` that leaves the original running: one
/// process endures many of them.
fn sweep_checkpoint(subject: &Subject) {
    let Some(strace) = strace() else { return };
    let traced = |original: &Instance| {
        checkpoint(&strace, original, &original.dir().join("image"), &["--leave-running"])
    };
    let (finished, calls) = traced(&subject.start()).calls();
    finished.succeeds();
    let calls = chosen(calls);
    for (index, some) in calls.chunks(50).enumerate() {
        if part().is_some() {
            eprintln!("{} of {} calls are done", index * 50, calls.len());
        }
        let original = subject.start();
        let image = original.dir().join("image");
        let traced = traced(&original);
        each_fault(some, |call, fault| {
            // It waits two minutes for the word to go on, unless we are seen to live.
            original.wait_on();
            let finished = traced.inject(call, fault);
            let what = format!("{fault:?} at {call}: {finished}");
            let there = whole_or_nothing(&image, &what);
            if there {
                fs::remove_dir_all(&image).unwrap();
            }
            runs_freely(&original, &what);
            ended_in_words(&finished);
            assert!(there || !finished.status.success(), "no image, yet success: {what}");
        });
        // It can be checkpointed still, and has lost nothing.
        original.checkpoint(&image, &["--leave-running"]).succeeds();
        assert!(whole_or_nothing(&image, "in the end"));
        original.go("");
        original.verdict();
    }
}

#[test]
fn a_fault_at_any_call_of_a_checkpoint_harms_nobody() {
    every(&[Flavour::ALL[0], Flavour::ALL[1]], |flavour| {
        sweep_checkpoint(&Subject::new("counter", flavour.user));
    });
}

/// Registers of every kind, one of which would tell.
///
/// Their threads spin: at an ordinary priority nine of them would leave `tub` a small part of two processors,
/// and a sweep would take hours.
#[test]
fn a_fault_at_any_call_of_a_checkpoint_spoils_no_register() {
    sweep_checkpoint(&Subject::new("registers", User::Ordinary).options(&["nice"]));
}

#[test]
fn a_fault_at_the_end_of_the_original_leaves_one_of_both() {
    let Some(strace) = strace() else { return };
    let start = || Subject::new("counter", User::Ordinary).start();
    let mut original = start();
    let (finished, calls) =
        checkpoint(&strace, &original, &original.dir().join("first"), &[]).calls();
    finished.succeeds();
    // What comes before the image is in place is the same as when the original is left running.
    let from = calls.iter().position(|call| call.name.starts_with("rename")).unwrap();
    original = start();
    each_fault(&chosen(calls[from..].to_vec()), |call, fault| {
        let image = original.dir().join("image");
        let finished = checkpoint(&strace, &original, &image, &[]).inject(call, fault);
        let what = format!("{fault:?} at {call}: {finished}");
        let there = whole_or_nothing(&image, &what);
        let lives = !original.process().is_gone_within(Duration::from_millis(300));
        assert!(there || lives, "neither image nor original: {what}");
        if lives {
            runs_freely(&original, &what);
            original.goes_on();
            let _ = fs::remove_dir_all(&image);
        } else {
            let copy = Restore::of(&original, &image, Flavour::USUAL).start();
            copy.go(&Flavour::USUAL.promises());
            copy.verdict();
            original = start();
        }
        ended_in_words(&finished);
        assert!(!lives || !finished.status.success(), "said to have ended, and lives: {what}");
    });
    original.go("");
    original.verdict();
}

#[test]
fn an_original_that_cannot_be_ended_is_told_of() {
    let Some(strace) = strace() else { return };
    let original = Subject::new("counter", User::Ordinary).start();
    let image = original.dir().join("image");
    // The first one asks whether it may be.
    let last = Call { name: "kill".to_owned(), nth: 2 };
    let traced = checkpoint(&strace, &original, &image, &[]);
    let words = ["cannot be ended", "image is complete", "goes on beside it"];
    traced.inject(&last, Fault::Error("EPERM")).fails_with(code::FAILED, &words);
    assert!(whole_or_nothing(&image, "not ended"));
    runs_freely(&original, "not ended");
    original.goes_on();
    original.go("");
    original.verdict();
}

#[test]
fn a_fault_at_any_call_of_a_restore_leaves_nobody() {
    let ways = [
        Flavour { pids: Pids::Keep, ..Flavour::USUAL },
        Flavour { pids: Pids::New, memory: Memory::Eager, ..Flavour::USUAL },
        Flavour::ALL[0],
    ];
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    every(&ways, |flavour| {
        let Some(strace) = strace() else { return };
        let mut original = Subject::new("counter", flavour.user).start();
        original.goes_on();
        let image = original.dir().join("image");
        original.checkpoint_and_end(&image);
        // It ends at once after it got up.
        original.go(&flavour.promises());
        let traced = Traced::with_children(&strace, Restore::of(&original, &image, flavour).tub());
        let (finished, calls) = traced.calls();
        finished.succeeds();
        let before = mounts();
        each_fault(&chosen(calls), |call, fault| {
            let finished = traced.inject(call, fault);
            let what = format!("{fault:?} at {call}: {finished}");
            let left = || left_over(original.dir().path(), &[]);
            let gone = wait_for(SOON, || left().is_empty().then_some(()));
            let tell = |pid: &i32| Process::find(*pid).map(|process| process.describe());
            assert!(
                gone.is_some(),
                "{what}: left over: {:?}",
                left().iter().map(tell).collect::<Vec<_>>()
            );
            // The restored program may have been hit as well, and says so itself.
            let its_own = ["thread '", "tub-subject: ", "The futex facility"];
            let its_own = its_own.iter().any(|word| finished.stderr.contains(word));
            if !finished.stdout.contains("verdict: ") && !its_own {
                ended_in_words(&finished);
                assert!(!finished.status.success(), "no verdict, yet success: {what}");
            }
        });
        assert_eq!(mounts(), before, "mounts were left");
        assert!(whole_or_nothing(&image, "in the end"));
        let copy = Restore::of(&original, &image, flavour).start();
        copy.goes_on();
        copy.go(&flavour.promises());
        copy.verdict();
    });
}

#[test]
fn tub_killed_at_points_in_time_during_checkpoints() {
    let original = Subject::new("counter", User::Ordinary).start();
    let image = original.dir().join("image");
    for step in 0..12 {
        let pid = original.pid().to_string();
        let tub = Tub::new(User::Ordinary, "checkpoint").arg(&pid).arg("--image").arg(&image);
        let started = tub.arg("--leave-running").start(original.dir().path());
        std::thread::sleep(Duration::from_millis(2 * step));
        if let Some(tub) = Process::find(started.pid()) {
            tub.signal(Signal::SIGKILL);
        }
        let what = started.finish().to_string();
        if whole_or_nothing(&image, &what) {
            fs::remove_dir_all(&image).unwrap();
        }
        runs_freely(&original, &what);
    }
    original.goes_on();
    original.go("");
    original.verdict();
}

#[test]
fn a_process_killed_at_points_in_time_during_its_checkpoint() {
    for step in 0..12 {
        let original = Subject::new("counter", User::Ordinary).start();
        let image = original.dir().join("image");
        let pid = original.pid().to_string();
        let tub = Tub::new(User::Ordinary, "checkpoint").arg(&pid).arg("--image").arg(&image);
        let started = tub.start(original.dir().path());
        std::thread::sleep(Duration::from_millis(2 * step));
        original.process().signal(Signal::SIGKILL);
        let finished = started.finish();
        let what = finished.to_string();
        let succeeded = finished.status.success();
        if !succeeded {
            // Nobody is told that it goes on, whichever of many calls has failed.
            finished.fails_with(code::NO_SUCH_PROCESS, &[&pid, "there is no such process"]);
        }
        assert_eq!(whole_or_nothing(&image, &what), succeeded, "{what}");
    }
}

/// Gives the calling thread, and what it starts, a file system of its own at `dir`.
fn own_file_system(dir: &Path, flags: MsFlags, data: &str) -> bool {
    if !is_root() {
        skipped("needs root");
        return false;
    }
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    let mounted = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(None::<&str>, "/", None::<&str>, private, None::<&str>))
        .and_then(|()| mount(Some("tmpfs"), dir, Some("tmpfs"), flags, Some(data)));
    if let Err(errno) = mounted {
        skipped(&format!("no file system of our own: {errno}"));
    }
    mounted.is_ok()
}

/// The checkpoint of a counter into a file system that cannot take it fails in `words`, and leaves
/// nothing; then, with `mend`, it can be taken.
fn cannot_be_written(flags: MsFlags, data: &'static str, words: &'static [&'static str]) {
    // The mounts are those of this thread alone, and go with it.
    let test = move || {
        let original = Subject::new("memory", User::Root).start();
        let disk = original.dir().make_dir("disk");
        if !own_file_system(&disk, flags, data) {
            return;
        }
        let image = disk.join("image");
        original.checkpoint(&image, &[]).fails_with(code::CANNOT_WRITE, words);
        assert!(!whole_or_nothing(&image, "no room"));
        assert_eq!(fs::read_dir(&disk).unwrap().count(), 0);
        runs_freely(&original, "no room");
        umount(&disk).unwrap();
        original.checkpoint(&image, &["--leave-running"]).succeeds();
        original.go("");
        original.verdict();
    };
    std::thread::spawn(test).join().unwrap();
}

#[test]
fn a_file_system_that_fills_up() {
    cannot_be_written(MsFlags::empty(), "size=1m,mode=0777", &["no space is left", "goes on"]);
}

#[test]
fn a_file_system_that_is_read_only() {
    cannot_be_written(MsFlags::MS_RDONLY, "mode=0777", &["Read-only"]);
}

#[test]
fn a_limit_on_the_size_of_files() {
    let original = Subject::new("memory", User::Ordinary).start();
    let image = original.dir().join("image");
    let tub = Tub::new(User::Ordinary, "checkpoint").arg(original.pid().to_string());
    let command = tub.arg("--image").arg(&image);
    let limited = command.command_under(Path::new("/usr/bin/prlimit"), &["--fsize=1000000"]);
    if !PathBuf::from("/usr/bin/prlimit").exists() {
        return skipped("no prlimit(1)");
    }
    let finished = tub_testkit::run_bounded(limited, Duration::from_secs(60));
    finished.fails_with(code::CANNOT_WRITE, &["File too large", "goes on"]);
    assert!(!whole_or_nothing(&image, "a limit"));
    original.go("");
    original.verdict();
}
