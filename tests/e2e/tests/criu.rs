//! CRIU as the engine: the same words, the same coordination, its own limits.

use crate::jvm::{Service, WARM_UP, on_each_jdk};
use crate::namespaces::inside;
use crate::protocol::Application;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;
use tub_testkit::{
    Flavour, Memory, Pids, Process, Restore, Subject, Tub, User, code, criu, is_root, skipped,
    wait_for,
};

const FLAVOUR: Flavour = Flavour { user: User::Root, pids: Pids::Keep, memory: Memory::Auto };

#[test]
fn a_jvm_is_told_before_and_after_and_gets_up_several_times_at_once() {
    let Some(criu) = criu() else { return };
    let criu = ["--criu", criu.to_str().unwrap()];
    on_each_jdk(|jdk| {
        let mut original = Service::start_as(User::Root, jdk, "plain", &[]);
        let pid = original.ask("/pid");
        let image = original.image("image");
        let options = ["--engine", "criu", criu[0], criu[1]];
        original.instance.checkpoint(&image, &options).succeeds();
        original.instance.wait();
        let page = Tub::new(User::Root, "inspect").arg(&image).run().succeeds().stdout;
        assert!(page.contains("criu 4.") && page.contains("generation 1"), "{page}");
        let copies = [(); 2].map(|()| original.restore_with(&image, FLAVOUR, &criu));
        for copy in &copies {
            assert_eq!(copy.ask("/count"), (WARM_UP + 1).to_string());
            copy.is_well();
            assert_eq!(copy.ask("/pid"), pid);
            assert_eq!(copy.ask("/told"), "before server\nafter server\n");
            assert_eq!(copy.ask("/env?GREETING"), "anew");
        }
        // CRIU does not take what it has given a namespace of its own. Ours does: the second
        // generation is native, and the application does not notice.
        let image = original.image("image-2");
        copies[0].instance.checkpoint(&image, &options).fails_with(code::FAILED, &["CRIU"]);
        copies[0].is_well();
        copies[0].instance.checkpoint(&image, &[]).succeeds();
        let again = original.restore(&image, FLAVOUR);
        again.is_well();
        let told = "before server\nafter server\n".repeat(3);
        assert_eq!(again.ask("/told"), told, "once for each attempt");
    });
}

#[test]
fn a_jvm_that_criu_leaves_running_is_told_so() {
    let Some(criu) = criu() else { return };
    on_each_jdk(|jdk| {
        let original = Service::start_as(User::Root, jdk, "plain", &[]);
        let image = original.image("image");
        let options = ["--engine", "criu", "--criu", criu.to_str().unwrap(), "--leave-running"];
        original.instance.checkpoint(&image, &options).succeeds();
        original.is_well();
        assert_eq!(original.ask("/told"), "before server\nafter server\n");
        // What CRIU refuses is told in its own words, and the service goes on.
        let image = original.image("refused");
        let mut options = options.to_vec();
        options.push("--criu-option=--no-such-option");
        original.instance.checkpoint(&image, &options).fails_with(code::FAILED, &["CRIU", "dump"]);
        assert!(!image.exists());
        original.is_well();
    });
}

#[test]
fn what_criu_does_not_know_is_refused_by_name() {
    let Some(criu) = criu() else { return };
    let criu = criu.to_str().unwrap();
    let mut original = Subject::new("counter", User::Root).start();
    let image = original.dir().join("image");
    original.checkpoint(&image, &["--engine", "criu", "--criu", criu]).succeeds();
    original.wait();
    let restore = |options: &[&str]| {
        let tub = Tub::new(User::Root, "restore").arg(&image).args(&["--criu", criu]);
        tub.args(options).run()
    };
    restore(&["--pids", "new"]).fails_with(code::USAGE, &["criu", "--pids new"]);
    restore(&["--memory", "lazy"]).fails_with(code::USAGE, &["criu", "--memory lazy"]);
    restore(&["--dry-run"]).fails_with(code::USAGE, &["criu", "--dry-run"]);
    restore(&["--", "x"]).fails_with(code::USAGE, &["arguments"]);
    // What is somebody else's to write to never reaches CRIU.
    use std::os::unix::fs::PermissionsExt;
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(&image, open).unwrap();
    restore(&[]).fails_with(code::BAD_IMAGE, &["others may write"]);
    std::fs::set_permissions(&image, std::fs::Permissions::from_mode(0o700)).unwrap();
    // A damaged image is told in CRIU's words, and leaves nobody behind.
    std::fs::write(image.join("pstree.img"), "no image").unwrap();
    restore(&[]).fails_with(code::FAILED, &["CRIU", "criu/"]);
}

#[test]
fn tcp_connections_end_under_criu_where_that_is_the_policy() {
    let Some(criu) = criu() else { return };
    let options = ["--engine", "criu", "--criu", criu.to_str().unwrap()];
    let mut original = Subject::new("tcp-closed", User::Root).start();
    let image = original.dir().join("image");
    original.checkpoint(&image, &options).fails_with(code::FAILED, &["CRIU", "TCP"]);
    original.checkpoint(&image, &[&options[..], &["--tcp", "close"]].concat()).succeeds();
    original.wait();
    let copy = Restore::of(&original, &image, FLAVOUR).args(&options[2..]).start();
    copy.go(&FLAVOUR.promises());
    copy.verdict();
}

/// What a supervisor outside of the namespace started, as in containers: `unshare` here.
#[test]
fn a_session_from_outside_of_the_namespace_is_named() {
    let Some(criu) = criu() else { return };
    let script = format!(
        "\"$3\" checkpoint $original --image \"$1/image\" --engine criu --criu '{}'; code=$?
         kill -0 $original && [ ! -e \"$1/image\" ] || exit 91
         exit $code",
        criu.display()
    );
    inside(User::Root, 1, &script).fails_with(code::REFUSED, &["session", "setsid(1)"]);
}

#[test]
fn criu_detached_outlives_the_command_and_a_killed_command_leaves_nobody() {
    let Some(criu) = criu() else { return };
    let criu = criu.to_str().unwrap();
    let mut original = Subject::new("counter", User::Root).start();
    let image = original.dir().join("image");
    original.checkpoint(&image, &["--engine", "criu", "--criu", criu]).succeeds();
    original.wait();
    let restore = Restore::of(&original, &image, FLAVOUR).args(&["--criu", criu]);
    let detached = restore.clone().args(&["--detach"]).start();
    detached.goes_on();
    drop(detached);
    let copy = restore.start();
    copy.goes_on();
    let (process, command) = (copy.process(), copy.command_pid());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(command), nix::sys::signal::SIGKILL).unwrap();
    assert!(process.is_gone_within(Duration::from_secs(10)), "{}", process.describe());
}

#[test]
fn a_criu_that_cannot_be_had_is_named() {
    let original = Subject::new("counter", User::Ordinary).start();
    let image = original.dir().join("image");
    let missing = ["--engine", "criu", "--criu", "/nonexistent/criu"];
    original
        .checkpoint(&image, &missing)
        .fails_with(code::HOST_LACKS, &["/nonexistent/criu", "TUB_CRIU"]);
    original.goes_on();
    if !is_root() {
        return skipped("CRIU for an ordinary user, which needs root to be told apart");
    }
    let Some(criu) = criu() else { return };
    // Whoever cannot use CRIU is told before the application is.
    let options = ["--engine", "criu", "--criu", criu.to_str().unwrap()];
    let refused = original.checkpoint(&image, &options);
    assert_eq!(refused.status.code(), Some(code::HOST_LACKS), "{refused}");
    original.goes_on();
    assert!(!image.exists());
}

/// By SIGKILL before it has frozen anything, and while all threads stand still: it calls a script at both moments.
#[test]
fn a_criu_that_is_killed_in_the_middle_leaves_an_application_that_is_told_and_goes_on() {
    let Some(criu) = criu() else { return };
    let options = ["--engine", "criu", "--criu", criu.to_str().unwrap()];
    let application = Application::start(User::Root);
    let dir = application.instance.dir();
    let (script, image) = (dir.join("script"), dir.join("image"));
    for (times, moment) in [(1, "pre-dump"), (2, "post-dump")] {
        let state = format!("/proc/{}/stat", application.instance.pid());
        let text = format!(
            "#!/bin/sh\n[ \"$CRTOOLS_SCRIPT_ACTION\" = {moment} ] || exit 0\n\
             cut -d ' ' -f 3 {state} > {}/seen\nkill -KILL $PPID\n",
            dir.path().display()
        );
        write_script(&script, &text);
        let with_script = format!("--criu-option=--action-script={}", script.display());
        let killed =
            application.instance.checkpoint(&image, &[&options[..], &[&with_script]].concat());
        killed.fails_with(code::FAILED, &["CRIU", "it was ended by SIGKILL", "goes on"]);
        let state = std::fs::read_to_string(dir.join("seen")).unwrap();
        assert_eq!(state.trim() == "t", moment == "post-dump", "{moment}: {state}");
        application.has_printed("after three failed", times);
        nothing_is_left(dir.path());
        let mut conversation = application.speak();
        conversation.asks(
            r#"{"v":1,"op":"status"}"#,
            r#"{"v":1,"ok":true,"event":"status","state":"running""#,
        );
    }
    let running = [&options[..], &["--leave-running"]].concat();
    application.instance.checkpoint(&image, &running).succeeds();
    application.has_printed("after three resumed 1", 1);
}

/// The command, as by whoever wants memory: before CRIU has frozen anything, and while all threads stand still and
/// everything is written. Left alone, CRIU would have gone on, and ended the original.
#[test]
fn a_command_that_is_killed_takes_criu_with_it_and_the_application_is_told() {
    let Some(criu) = criu() else { return };
    let options = ["--engine", "criu", "--criu", criu.to_str().unwrap()];
    let application = Application::start(User::Root);
    let dir = application.instance.dir();
    let (script, image) = (dir.join("script"), dir.join("image"));
    for (times, moment) in [(1, "pre-dump"), (2, "post-dump")] {
        // CRIU waits for its script: as long as it is let.
        let text = format!(
            "#!/bin/sh\n[ \"$CRTOOLS_SCRIPT_ACTION\" = {moment} ] || exit 0\n\
             echo $PPID > {dir}/criu\nkill -KILL $(cut -d ' ' -f 4 /proc/$PPID/stat)\nexec sleep 5\n",
            dir = dir.path().display()
        );
        write_script(&script, &text);
        let with_script = format!("--criu-option=--action-script={}", script.display());
        let killed =
            application.instance.checkpoint(&image, &[&options[..], &[&with_script]].concat());
        assert_eq!(killed.status.signal(), Some(9), "{killed}");
        application.has_printed("after three failed", times);
        let criu = std::fs::read_to_string(dir.join("criu")).unwrap();
        let criu = Process::find(criu.trim().parse().unwrap());
        let gone = criu.is_none_or(|criu| criu.is_gone_within(Duration::from_secs(10)));
        assert!(gone, "{moment}: CRIU lives");
        nothing_is_left(dir.path());
        let mut conversation = application.speak();
        conversation.asks(
            r#"{"v":1,"op":"status"}"#,
            r#"{"v":1,"ok":true,"event":"status","state":"running""#,
        );
    }
    let running = [&options[..], &["--leave-running"]].concat();
    application.instance.checkpoint(&image, &running).succeeds();
    application.has_printed("after three resumed 1", 1);
}

fn write_script(script: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(script, text).unwrap();
    std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o700)).unwrap();
}

/// Of an image that there was to be.
#[track_caller]
fn nothing_is_left(dir: &Path) {
    let gone = || {
        let left = std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.file_name());
        let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains("image")).collect();
        left.is_empty().then_some(())
    };
    let gone = wait_for(Duration::from_secs(10), gone);
    assert!(gone.is_some(), "an image, or a part of it, in {}", dir.display());
}
