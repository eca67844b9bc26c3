//! Coordination alone: `tub prepare`, an image that somebody else takes, `tub resume`.

use crate::http::get;
use crate::jvm::{Service, on_each_jdk};
use crate::jvm_random::{draws, first_draws};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tub_testkit::{
    Finished, Instance, Process, Subject, Tub, User, code, criu, product, run_bounded, wait_for,
};

const TOLD_ONCE: &str = "before server\nafter server\n";

fn tub(verb: &str, instance: &Instance, user: User, options: &[&str]) -> Finished {
    Tub::new(user, verb).arg(instance.pid().to_string()).args(options).run()
}

/// How many checkpoints lie behind a process, as it says itself.
fn generation(user: User, pid: i32) -> Option<u64> {
    let status = Tub::new(user, "status").arg(pid.to_string()).arg("--json").run().succeeds();
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    status["coordination"]["generation"].as_u64()
}

#[test]
fn what_is_prepared_waits_and_goes_on_when_told() {
    on_each_jdk(|jdk| {
        for user in [User::Root, User::Ordinary] {
            let service = Service::start_as(user, jdk, "plain", &[]);
            let said = |verb, options: &[&str]| tub(verb, &service.instance, user, options);
            said("prepare", &[]).succeeds();
            assert!(get(service.port, "/").is_err(), "it still listens");
            said("prepare", &[]).fails_with(code::BUSY, &["prepared already", "tub resume"]);
            let told = said("resume", &[]).succeeds();
            assert!(told.stdout.contains("goes on\n"), "{told}");
            service.is_well();
            assert_eq!(service.ask("/told"), TOLD_ONCE);
            assert_eq!(generation(user, service.instance.pid()), Some(1));
            said("resume", &[]).fails_with(code::NO_SUCH_PROCESS, &["tub prepare"]);
            // No image after all.
            said("prepare", &[]).succeeds();
            said("resume", &["--failed", "the disk was full"]).succeeds();
            service.is_well();
            assert_eq!(service.ask("/told"), TOLD_ONCE.repeat(2));
            assert_eq!(generation(user, service.instance.pid()), Some(1), "there was no image");
        }
    });
}

/// Whoever prepared it died, or forgot it.
#[test]
fn what_nobody_resumes_goes_on_by_itself() {
    on_each_jdk(|jdk| {
        let service = Service::start(jdk, "plain");
        tub("prepare", &service.instance, User::Ordinary, &["--within", "1"]).succeeds();
        let answer = || get(service.port, "/").ok();
        assert!(wait_for(Duration::from_secs(60), answer).is_some(), "{}", service.instance.tell());
        service.is_well();
        assert_eq!(service.ask("/told"), TOLD_ONCE);
        let said = tub("resume", &service.instance, User::Ordinary, &[]).succeeds();
        assert!(said.stdout.contains("goes on already"), "{said}");
    });
}

#[test]
fn what_is_left_open_is_refused_here_as_well() {
    on_each_jdk(|jdk| {
        let service = Service::start(jdk, "file");
        tub("prepare", &service.instance, User::Ordinary, &[])
            .fails_with(code::REFUSED, &["left-open.log"]);
        service.is_well();
    });
}

#[test]
fn who_takes_no_part_needs_no_preparation() {
    let original = Subject::new("counter", User::Ordinary).start();
    let said = tub("prepare", &original, User::Ordinary, &[]).succeeds();
    assert!(said.stdout.contains("takes no part"), "{said}");
    tub("resume", &original, User::Ordinary, &[])
        .fails_with(code::NO_SUCH_PROCESS, &["tub prepare"]);
    original.goes_on();
}

/// A `criu restore` in the foreground, which reaps what it restored. Both end with the test.
pub(crate) struct Copy {
    criu: Child,
    pid: i32,
}

impl Copy {
    pub(crate) fn start(mut restore: Command, pid: i32) -> Self {
        Self { criu: restore.spawn().unwrap(), pid }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Some(process) = Process::find(self.pid) {
            process.signal(nix::sys::signal::Signal::SIGKILL);
        }
        let ended = || self.criu.try_wait().ok().flatten();
        if wait_for(Duration::from_secs(10), ended).is_none() {
            let _ = self.criu.kill();
            let _ = self.criu.wait();
        }
    }
}

/// `criu VERB`, as somebody calls it who does not know us.
pub(crate) fn call_criu(criu: &Path, verb: &str, images: &Path) -> Command {
    let mut command = Command::new(criu);
    command.arg(verb).arg("--images-dir").arg(images);
    command.args(["--shell-job", "--file-locks", "--ext-unix-sk", "--manage-cgroups=ignore"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Nobody calls `tub prepare`: CRIU runs an action script, which is `tub`.
#[test]
fn an_action_script_of_crius_has_the_application_prepare_and_go_on() {
    let Some(criu) = criu() else { return };
    on_each_jdk(|jdk| {
        let mut original = Service::start_as(User::Root, jdk, "plain", &[]);
        let pid = original.instance.pid();
        let dump = |name: &str, words: &[&str]| {
            let images = original.instance.dir().make_dir(name);
            let mut dump = call_criu(&criu, "dump", &images);
            dump.args(["--tree", &pid.to_string(), "--action-script"]).arg(&product().tub);
            dump.args(words);
            (images, run_bounded(dump, Duration::from_secs(60)))
        };
        dump("running", &["--leave-running"]).1.succeeds();
        original.is_well();
        assert_eq!(original.ask("/told"), TOLD_ONCE);
        assert_eq!(generation(User::Root, pid), Some(1));
        // Another script fails after ours: CRIU says so to nobody, and its end tells.
        let failed = dump("failed", &["--action-script", "/bin/false"]).1;
        assert!(!failed.status.success(), "{failed}");
        original.is_well();
        assert_eq!(original.ask("/told"), TOLD_ONCE.repeat(2));
        assert_eq!(generation(User::Root, pid), Some(1));
        let (images, ended) = dump("ended", &[]);
        ended.succeeds();
        original.instance.wait();
        let mut restore = call_criu(&criu, "restore", &images);
        restore.arg("--action-script").arg(&product().tub);
        let copy = Copy::start(restore, pid);
        original.is_well();
        assert_eq!(original.ask("/told"), TOLD_ONCE.repeat(3));
        assert_eq!(generation(User::Root, pid), Some(2));
        drop(copy);
    });
}

/// What the application left open is told to whoever reads CRIU's log, and CRIU takes no image.
#[test]
fn an_action_script_of_crius_refuses_what_was_left_open() {
    let Some(criu) = criu() else { return };
    on_each_jdk(|jdk| {
        let service = Service::start_as(User::Root, jdk, "file", &[]);
        let images = service.instance.dir().make_dir("refused");
        let mut dump = call_criu(&criu, "dump", &images);
        dump.args(["--tree", &service.instance.pid().to_string(), "--action-script"]);
        dump.arg(&product().tub).stderr(Stdio::piped());
        let said = run_bounded(dump, Duration::from_secs(60));
        assert!(!said.status.success(), "{said}");
        assert!(said.stderr.contains("left-open.log"), "{said}");
        service.is_well();
    });
}

/// A CRIU that knows nothing of us: the copy notices by itself.
#[test]
fn a_copy_that_criu_brings_back_alone_notices_it() {
    let Some(criu) = criu() else { return };
    let command = |verb: &str, images: &Path| call_criu(&criu, verb, images);
    on_each_jdk(|jdk| {
        let mut original = Service::start_as(User::Root, jdk, "draws", &[]);
        let before = first_draws(&original);
        let pid = original.instance.pid();
        let images = original.instance.dir().make_dir("criu");
        tub("prepare", &original.instance, User::Root, &[]).succeeds();
        let mut dump = command("dump", &images);
        dump.args(["--tree", &pid.to_string()]);
        run_bounded(dump, Duration::from_secs(60)).succeeds();
        original.instance.wait();
        let mut drawn = Vec::new();
        for life in 0..2 {
            let copy = Copy::start(command("restore", &images), pid);
            original.is_well();
            assert_eq!(original.ask("/told"), TOLD_ONCE, "life {life}");
            assert_eq!(generation(User::Root, pid), Some(1));
            drawn.push(draws(&original));
            drop(copy);
        }
        for (kind, value) in &drawn[0] {
            assert_ne!(Some(value), before.get(kind), "{kind} repeats itself");
            let is_the_same = Some(value) == drawn[1].get(kind);
            assert_eq!(is_the_same, kind.starts_with("fixed "), "{kind} in two copies");
        }
    });
}
