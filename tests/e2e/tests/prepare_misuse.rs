//! `tub prepare` and `tub resume` where something goes wrong in between: who is killed, who is stopped, who
//! is somebody else, and two at once.

use crate::protocol::Application;
use nix::sys::signal::Signal;
use std::thread;
use std::time::Duration;
use tub_testkit::{Finished, Scratch, Tub, User, code, is_root, skipped};

fn tub(verb: &str, application: &Application, user: User, options: &[&str]) -> Finished {
    Tub::new(user, verb).arg(application.instance.pid().to_string()).args(options).run()
}

/// As a container that is killed before its image is taken.
#[test]
fn what_is_killed_while_it_is_prepared_is_not_told_to_go_on() {
    let mut application = Application::start(User::Ordinary);
    tub("prepare", &application, User::Ordinary, &[]).succeeds();
    application.instance.process().signal(Signal::SIGKILL);
    application.instance.wait();
    let resume = || tub("resume", &application, User::Ordinary, &[]);
    resume().fails_with(code::NO_SUCH_PROCESS, &["goes on by itself"]);
    // And the note of it is gone as well.
    resume().fails_with(code::NO_SUCH_PROCESS, &["no note of `tub prepare`"]);
}

/// Where an image goes is said by whoever takes it, if that is root, who may write anywhere.
#[test]
fn root_goes_where_no_process_of_another_user_asks_for() {
    if !is_root() {
        return skipped("two users, which need root");
    }
    let place = Scratch::new(User::Ordinary);
    let image = place.join("image");
    let path = image.to_str().unwrap();
    let application = Application::start_with(User::Ordinary, &["--image", path]);
    let refused = tub("checkpoint", &application, User::Root, &["--leave-running"]);
    refused.fails_with(code::USAGE, &[path, "--image DIR", "not stopped"]);
    assert!(!image.exists());
    application.has_printed("before ", 0);
    tub("checkpoint", &application, User::Ordinary, &["--leave-running"]).succeeds();
    assert!(image.exists());
}

/// Each of them is told: `tub checkpoint` returns when the application answers again, and not before.
#[test]
fn checkpoints_one_right_after_another_are_all_told() {
    let application = Application::start(User::Ordinary);
    let dir = application.instance.dir();
    for round in 1..=5 {
        let image = dir.join(format!("image-{round}"));
        let took = application.instance.checkpoint(&image, &["--leave-running"]).succeeds();
        assert!(took.stdout.contains("it goes on"), "{took}");
        let said = Tub::new(User::Ordinary, "inspect").arg(&image).run().succeeds().stdout;
        assert!(said.contains("runtime       Rust"), "{said}");
    }
    application.has_printed("after three resumed", 5);
    let sim = ["--engine", "sim"];
    for _ in 0..3 {
        application.instance.checkpoint(&dir.join("none"), &sim).succeeds();
    }
    application.has_printed("after three resumed", 8);
}

/// Its socket is closed meanwhile, as that of one that takes no part.
#[test]
fn what_is_prepared_is_told_from_what_takes_no_part() {
    let application = Application::start(User::Ordinary);
    let status = || tub("status", &application, User::Ordinary, &[]).succeeds().stdout;
    tub("prepare", &application, User::Ordinary, &[]).succeeds();
    assert!(status().contains("prepared: it waits for its image"), "{}", status());
    let json = tub("status", &application, User::Ordinary, &["--json"]).succeeds().stdout;
    assert!(json.contains(r#""prepared":true"#), "{json}");
    tub("resume", &application, User::Ordinary, &[]).succeeds();
    assert!(!status().contains("prepared"), "{}", status());
}

/// The note of it lies with whoever prepared it, in the place for temporary files of that time.
#[test]
fn what_is_prepared_is_found_from_elsewhere_and_by_root() {
    let application = Application::start(User::Ordinary);
    let elsewhere = application.instance.dir().make_dir("elsewhere");
    let pid = application.instance.pid().to_string();
    let status = |user| {
        let tub = Tub::new(user, "status").arg(&pid);
        tub.after(&format!("export TMPDIR={}", elsewhere.display())).run().succeeds().stdout
    };
    let users = if is_root() { vec![User::Ordinary, User::Root] } else { vec![User::Ordinary] };
    for (round, user) in (1..).zip(users) {
        tub("prepare", &application, User::Ordinary, &[]).succeeds();
        assert!(status(user).contains("prepared: it waits"), "{}", status(user));
        let resume = Tub::new(user, "resume").arg(&pid);
        let resume = resume.after(&format!("export TMPDIR={}", elsewhere.display())).run();
        assert!(resume.succeeds().stdout.contains("goes on\n"));
        application.has_printed("after three resumed", round);
        assert!(!status(user).contains("prepared"), "{}", status(user));
    }
}

#[test]
fn what_is_stopped_while_it_is_prepared_goes_on_when_it_is_continued() {
    let application = Application::start(User::Ordinary);
    tub("prepare", &application, User::Ordinary, &[]).succeeds();
    application.instance.process().signal(Signal::SIGSTOP);
    let silent = tub("resume", &application, User::Ordinary, &["--timeout", "1"]);
    silent.fails_with(code::TIMED_OUT, &["--timeout"]);
    application.instance.process().signal(Signal::SIGCONT);
    // The letter was there already; asking once more does no harm.
    application.has_printed("after three resumed 1", 1);
    let said = tub("resume", &application, User::Ordinary, &[]).succeeds();
    assert!(said.stdout.contains("goes on"), "{said}");
    application.has_printed("after three", 1);
}

/// For longer than it would have waited: it looks for its letter before it looks at the clock.
#[test]
fn what_is_stopped_beyond_its_time_has_the_letter_that_came_meanwhile() {
    let application = Application::start(User::Ordinary);
    tub("prepare", &application, User::Ordinary, &["--within", "2"]).succeeds();
    application.instance.process().signal(Signal::SIGSTOP);
    thread::sleep(Duration::from_millis(2500));
    let silent = tub("resume", &application, User::Ordinary, &["--timeout", "1"]);
    silent.fails_with(code::TIMED_OUT, &["--timeout"]);
    application.instance.process().signal(Signal::SIGCONT);
    application.has_printed("after three resumed 1", 1);
}

#[test]
fn one_of_two_that_prepare_at_once_is_told_that_it_is_busy() {
    let application = Application::start(User::Ordinary);
    let both = thread::scope(|scope| {
        let prepare = || tub("prepare", &application, User::Ordinary, &[]);
        [scope.spawn(prepare), scope.spawn(prepare)].map(|one| one.join().unwrap())
    });
    let (done, refused): (Vec<_>, Vec<_>) = both.into_iter().partition(|one| one.status.success());
    assert_eq!(done.len(), 1, "{done:?} {refused:?}");
    for refused in refused {
        refused.fails_with(code::BUSY, &["prepare"]);
    }
    application.has_printed("before one", 1);
    tub("resume", &application, User::Ordinary, &[]).succeeds();
    application.has_printed("after three resumed 1", 1);
}

#[test]
fn another_user_neither_prepares_nor_resumes() {
    if !is_root() {
        skipped("two users, which need root");
        return;
    }
    let application = Application::start(User::Root);
    let refused = tub("prepare", &application, User::Ordinary, &[]);
    let refused = refused.fails_with(code::NO_SUCH_PROCESS, &["cannot be prepared", "not ours"]);
    assert!(!refused.stderr.contains("the image could not be taken"), "{refused}");
    tub("prepare", &application, User::Root, &[]).succeeds();
    let refused = tub("resume", &application, User::Ordinary, &[]);
    refused.fails_with(code::NO_SUCH_PROCESS, &["of the same user"]);
    application.has_printed("before one", 1);
    application.has_printed("after ", 0);
    tub("resume", &application, User::Root, &["--failed", "nobody came"]).succeeds();
    application.has_printed("after three failed", 1);
}
