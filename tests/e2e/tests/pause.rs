//! The engine `pause`: the process stops where it is, and goes on once, as a restored one.

use crate::protocol::Application;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use tub_testkit::{
    Finished, Flavour, Instance, Memory, Pids, Restore, Subject, Tub, User, code, is_root, skipped,
};

const PAUSE: [&str; 2] = ["--engine", "pause"];

fn usual(user: User) -> Flavour {
    Flavour { user, pids: Pids::Keep, memory: Memory::Auto }
}

impl Application {
    fn paused_at(&self) -> PathBuf {
        self.instance.dir().join("paused")
    }

    /// Stops it, and demands that it is stopped.
    #[track_caller]
    fn pause(&self) {
        let said = self.instance.checkpoint(&self.paused_at(), &PAUSE).succeeds();
        assert!(said.stdout.contains("is paused"), "{said}");
        let state = fs::read_to_string(self.instance.process().proc("stat")).unwrap();
        assert!(state.contains(") T "), "{state}");
    }

    fn say(&self, verb: &str, options: &[&str]) -> Finished {
        Tub::new(self.instance.dir().user(), verb).arg(self.paused_at()).args(options).run()
    }

    fn restore(&self) -> Instance {
        let flavour = usual(self.instance.dir().user());
        let restore = Restore::of(&self.instance, &self.paused_at(), flavour);
        restore.args(&["--env", "COLOR=red"]).new_args(&["a", "b c"]).start()
    }
}

#[test]
fn what_is_paused_goes_on_as_restored_and_once() {
    for user in [User::Ordinary, User::Root] {
        let application = Application::start(user);
        let pid = application.instance.pid();
        application.pause();
        let page = application.say("inspect", &[]).succeeds().stdout;
        for part in
            ["engine        pause", "generation 1", &format!("process       {pid}"), "paused:"]
        {
            assert!(page.contains(part), "no {part:?} in {page}");
        }
        let json = application.say("inspect", &["--json"]).succeeds().stdout;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["engine"], "pause");
        assert_eq!(json["coordination"]["resources"][0], "one");
        assert!(application.say("verify", &[]).succeeds().stdout.contains("would go on"));
        application.has_printed("after ", 0);

        let copy = application.restore();
        assert_eq!(copy.pid(), pid);
        // Its output goes where it did.
        application.has_printed("after three restored 1 [red] [a,b c]", 1);
        application.has_printed("random ", 1);
        for verb in ["restore", "verify"] {
            application.say(verb, &[]).fails_with(code::BAD_IMAGE, &["restored already", "once"]);
        }
        let page = application.say("inspect", &[]).succeeds().stdout;
        assert!(page.contains("restored already"), "{page}");

        // Into the same place again, as with images. The command that waits mirrors how it ends.
        application.pause();
        application.has_printed("before one", 2);
        application.say("restore", &["--detach"]).succeeds();
        application.has_printed("after three restored 2 [", 1);
        let mut copy = copy;
        application.instance.process().signal(Signal::SIGTERM);
        let status = copy.ends_within(Duration::from_secs(30)).expect("it ended with the process");
        assert_eq!(status.code(), Some(128 + 15), "{status}\n{}", copy.complaints());
    }
}

#[test]
fn signals_are_passed_on_and_the_exit_status_is_mirrored() {
    let mut application = Application::start(User::Ordinary);
    application.pause();
    let mut copy = application.restore();
    application.has_printed("after three restored 1", 1);
    nix::sys::signal::kill(Pid::from_raw(copy.command_pid()), Signal::SIGUSR2).unwrap();
    let ended = application.instance.ends_within(Duration::from_secs(30)).expect("it got SIGUSR2");
    assert_eq!(ended.signal(), Some(Signal::SIGUSR2 as i32));
    // Its parent has taken the status by now, in all likelihood before the command could look.
    let status = copy.ends_within(Duration::from_secs(30)).expect("it ended with the process");
    if !status.success() && copy.complaints().contains("only its parent") {
        skipped("the exit status of a process that its parent waits for (Linux 6.15)");
    } else {
        assert_eq!(status.code(), Some(128 + Signal::SIGUSR2 as i32), "{}", copy.complaints());
    }

    let application = Application::start(User::Ordinary);
    application.pause();
    let mut copy = application.restore();
    application.has_printed("after three restored 1", 1);
    application.instance.go("end");
    let status = copy.ends_within(Duration::from_secs(30)).expect("it ended with the process");
    assert_eq!(status.code(), Some(0), "{}", copy.complaints());
}

#[test]
fn one_of_two_restores_at_once_has_it_go_on() {
    let application = Application::start(User::Ordinary);
    application.pause();
    let both = thread::scope(|scope| {
        let restore = || application.say("restore", &["--detach"]);
        [scope.spawn(restore), scope.spawn(restore)].map(|one| one.join().unwrap())
    });
    let (done, refused): (Vec<_>, Vec<_>) = both.into_iter().partition(|one| one.status.success());
    assert_eq!(done.len(), 1, "{done:?} {refused:?}");
    for refused in refused {
        refused.fails_with(code::BAD_IMAGE, &["process"]);
    }
    application.has_printed("after three restored 1", 1);
    application.has_printed("after three", 1);
}

#[test]
fn what_is_killed_while_it_is_paused_is_told_clearly() {
    let mut application = Application::start(User::Ordinary);
    application.pause();
    application.instance.process().signal(Signal::SIGKILL);
    application.instance.wait();
    for verb in ["restore", "verify"] {
        let gone = application.say(verb, &[]);
        gone.fails_with(code::NO_SUCH_PROCESS, &["has ended since it was paused"]);
    }
    let page = application.say("inspect", &[]).succeeds().stdout;
    assert!(page.contains("has ended since"), "{page}");
    // Its place can be had by whoever asks for it.
    let other = Application::start(User::Ordinary);
    let image = application.paused_at();
    other.instance.checkpoint(&image, &PAUSE).fails_with(code::CANNOT_WRITE, &["--replace"]);
    other.has_printed("before ", 0);
    other.instance.checkpoint(&image, &["--engine", "pause", "--replace"]).succeeds();
    application.say("restore", &["--detach"]).succeeds();
    other.has_printed("after three restored 1", 1);
}

#[test]
fn what_somebody_else_continues_is_not_written_to() {
    let application = Application::start(User::Ordinary);
    application.pause();
    application.instance.process().signal(Signal::SIGCONT);
    application
        .say("restore", &[])
        .fails_with(code::BAD_IMAGE, &["somebody else has continued it", "told nothing"]);
    application.has_printed("after ", 0);
    // Stopped again, it still waits.
    application.instance.process().signal(Signal::SIGSTOP);
    application.say("restore", &["--detach"]).succeeds();
    application.has_printed("after three restored 1", 1);
}

#[test]
fn another_user_has_nothing_go_on() {
    if !is_root() {
        return skipped("two users, which need root");
    }
    let application = Application::start(User::Root);
    application.pause();
    let restore = |dir: &PathBuf| Tub::new(User::Ordinary, "restore").arg(dir).run();
    restore(&application.paused_at()).fails_with(code::BAD_IMAGE, &["Permission denied"]);
    // A note of one's own about a process of somebody else's.
    let other = Application::start(User::Ordinary);
    let forged = other.instance.dir().make_dir("forged");
    let note = forged.join("paused.json");
    fs::copy(application.paused_at().join("paused.json"), &note).unwrap();
    other.instance.dir().give(&note);
    restore(&forged).fails_with(code::NO_SUCH_PROCESS, &["belongs to uid 0"]);
    // And one that somebody else could write to.
    let root = Tub::new(User::Root, "restore").arg(&forged).run();
    root.fails_with(code::BAD_IMAGE, &["it belongs to uid"]);
    application.has_printed("after ", 0);
    application.say("restore", &["--detach"]).succeeds();
    application.has_printed("after three restored 1", 1);
}

#[test]
fn what_makes_no_sense_with_a_pause_is_refused_by_name() {
    let application = Application::start(User::Ordinary);
    let image = application.paused_at();
    for (options, word) in
        [(&["--leave-running"][..], "--leave-running"), (&["--tcp", "close"], "--tcp close")]
    {
        let refused = application.instance.checkpoint(&image, &[&PAUSE[..], options].concat());
        refused.fails_with(code::USAGE, &["engine pause", word]);
    }
    let file = application.instance.dir().join("a-file");
    fs::write(&file, "text").unwrap();
    application.instance.checkpoint(&file, &PAUSE).fails_with(code::CANNOT_WRITE, &["a-file"]);
    let nowhere = application.instance.dir().join("no/where");
    application.instance.checkpoint(&nowhere, &PAUSE).fails_with(code::CANNOT_WRITE, &["no"]);
    application.has_printed("before ", 0);
    application.pause();
    let place = application.instance.dir().join("paused");
    let other = Application::start(User::Ordinary);
    let replace = ["--engine", "pause", "--replace"];
    other
        .instance
        .checkpoint(&place, &replace)
        .fails_with(code::CANNOT_WRITE, &["is paused there"]);
    other.has_printed("before ", 0);
    for (options, word) in [
        (&["--pids", "new"][..], "--pids new"),
        (&["--memory", "lazy"], "--memory"),
        (&["--memory", "eager"], "--memory"),
        (&["--stdio", "image"], "--stdio"),
        (&["--dry-run"], "--dry-run"),
    ] {
        application.say("restore", options).fails_with(code::USAGE, &["engine pause", word]);
    }
    let labelled = application.say("restore", &["--require-label", "a=b"]);
    labelled.fails_with(code::BAD_IMAGE, &["label a"]);
    application.has_printed("after ", 0);
    application.say("restore", &["--detach"]).succeeds();
    application.has_printed("after three restored 1", 1);
}

#[test]
fn who_takes_no_part_or_has_children_is_not_paused() {
    let counter = Subject::new("counter", User::Ordinary).start();
    let image = counter.dir().join("image");
    counter.checkpoint(&image, &PAUSE).fails_with(code::USAGE, &["nobody to tell"]);
    counter.goes_on();
    let tree = Subject::new("tree", User::Ordinary).start();
    let family = tree.process().descendants();
    tree.checkpoint(&image, &PAUSE).fails_with(code::REFUSED, &["descendant(s)"]);
    assert!(!image.exists());
    // One of them is in a session of its own, and outlives its parents.
    for member in family {
        member.signal(Signal::SIGKILL);
    }
}

/// Labels and numbers are kept, as with images.
#[test]
fn a_pause_has_labels() {
    let application = Application::start(User::Ordinary);
    let options = ["--engine", "pause", "--label", "stage=canary", "--metric", "warm=1"];
    application.instance.checkpoint(&application.paused_at(), &options).succeeds();
    let page = application.say("inspect", &[]).succeeds().stdout;
    assert!(page.contains("stage=canary"), "{page}");
    application
        .say("restore", &["--require-label", "stage=live"])
        .fails_with(code::BAD_IMAGE, &["stage"]);
    application.say("restore", &["--detach", "--require-label", "stage=canary"]).succeeds();
    application.has_printed("after three restored 1", 1);
}
