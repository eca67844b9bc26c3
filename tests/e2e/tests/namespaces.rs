//! Namespaces around and inside of each other: who takes a checkpoint, and where a copy gets up.

use std::fs;
use std::path::Path;
use std::time::Duration;
use tub_testkit::{
    Flavour, Instance, Restore, Scratch, Subject, Tub, User, as_user, every, is_root, product,
    run_bounded, skipped, subject_binary,
};

/// A whole life in PID 1's shadow: original, checkpoint, copy. The copy must find itself unchanged.
const LIFE: &str = r#"
"$2" counter "$1/state" >"$1/out" 2>&1 &
original=$!
tries=0
until [ -e "$1/state/ready" ]; do
    tries=$((tries + 1)); [ $tries -lt 1200 ] || exit 90; sleep 0.05
done
"$3" checkpoint $original --image "$1/image" || exit 91
printf %s 'restored same-ids continuous-clock exact-memory' >"$1/state/go.new"
mv "$1/state/go.new" "$1/state/go"
"$3" restore "$1/image" >"$1/copy" 2>&1 || { cat "$1/copy"; exit 92; }
grep -q '^verdict: same$' "$1/copy"
"#;

/// `LIFE` as `user`, in as many PID namespaces inside each other.
fn life(user: User, depth: usize) {
    let scratch = Scratch::new(user);
    scratch.make_dir("state");
    let mut command = as_user(user, Path::new("unshare"));
    for level in 0..depth {
        if level > 0 {
            command.arg("unshare");
        }
        if user == User::Ordinary {
            command.args(["--user", "--map-current-user"]);
        }
        command.args(["--pid", "--fork", "--mount-proc"]);
    }
    command.args(["sh", "-c", LIFE, "sh"]).arg(scratch.path());
    command.arg(subject_binary()).arg(&product().tub);
    run_bounded(command, Duration::from_secs(120)).succeeds();
}

#[test]
fn ids_are_kept_within_pid_namespaces_within_pid_namespaces() {
    every(&[Flavour::LAZY[0], Flavour::LAZY[1]], |flavour| {
        life(flavour.user, 1);
        life(flavour.user, 2);
    });
}

/// From outside of the instance's namespaces, by somebody who has no name inside of them.
#[test]
fn root_takes_a_checkpoint_of_an_ordinary_users_instance() {
    if !is_root() {
        return skipped("needs root");
    }
    let flavour = Flavour::LAZY[1];
    let mut original = Subject::new("counter", flavour.user).start();
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    let copy = Restore::of(&original, &image, flavour).start();
    copy.goes_on();
    let by_root = Scratch::new(User::Root);
    let second = by_root.join("image");
    let pid = copy.pid().to_string();
    Tub::new(User::Root, "checkpoint").arg(&pid).arg("--image").arg(&second).run().succeeds();
    copy.go(&flavour.promises());
    // Root may become whom the image is of.
    let copy = Tub::new(User::Root, "restore").arg(&second).run().succeeds();
    assert!(copy.stdout.lines().any(|line| line == "verdict: same"), "{copy}");
}

/// What shuts out namespaces must say how to do without them.
#[test]
fn where_there_are_no_namespaces_new_ids_are_suggested() {
    let flavour = Flavour::USUAL;
    let mut original = Subject::new("counter", flavour.user).start();
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    let limits = ["user.max_user_namespaces", "user.max_pid_namespaces"];
    // A user namespace of one's own is where an ordinary user can forbid more of them.
    let forbid = limits.map(|name| format!("echo 0 >/proc/sys/{}", name.replace('.', "/")));
    let script = format!("{} && exec setpriv --bounding-set -all \"$@\"", forbid.join(" && "));
    let mut command = as_user(flavour.user, Path::new("unshare"));
    command.args(["--user", "--map-root-user", "sh", "-c", &script, "sh"]);
    command.arg(&product().tub).arg("restore").arg(&image);
    let told = run_bounded(command, Duration::from_secs(60));
    assert!(told.stderr.contains("--pids new"), "{told}");
    assert!(!told.status.success(), "{told}");
}

/// A restored service that restores another one: namespaces, init and clocks within its own.
#[test]
fn a_restored_instance_restores_another_image() {
    const SCRIPT: &str =
        r#": >ready; until [ -e go ]; do :; done; "$1" restore "$2"; echo it ended $?"#;
    every(&[Flavour::LAZY[0], Flavour::LAZY[1]], |flavour| {
        let mut inner = Subject::new("counter", flavour.user).start();
        let inner_image = inner.dir().join("image");
        inner.checkpoint_and_end(&inner_image);
        let dir = std::sync::Arc::new(Scratch::new(flavour.user));
        let state = dir.make_dir("state");
        let mut command = as_user(flavour.user, Path::new("/bin/sh"));
        command.args(["-c", SCRIPT, "sh"]).arg(&product().tub).arg(&inner_image);
        command.current_dir(&state);
        let ready = state.join("ready");
        let mut original = Instance::start("sh", &dir, command, |_| ready.exists().then_some(()));
        let image = dir.join("image");
        original.checkpoint_and_end(&image);
        inner.go(&flavour.promises());
        let mut copy = Restore::of(&original, &image, flavour).start();
        copy.go(&flavour.promises());
        copy.prints("verdict: same");
        copy.prints("it ended 0");
        assert!(copy.wait().success(), "{}", copy.tell());
    });
}

#[test]
fn a_working_directory_that_is_gone_is_named() {
    every(&[Flavour::LAZY[1], Flavour::LAZY[2]], |flavour| {
        let mut original = Subject::new("attributes", flavour.user).start();
        let image = original.dir().join("image");
        original.checkpoint_and_end(&image);
        fs::remove_dir_all(original.dir().join("state/deep")).unwrap();
        let told = Restore::of(&original, &image, flavour).tub().run();
        told.fails_with(tub_testkit::code::HOST_LACKS, &["working directory", "deep/er"]);
    });
}

/// Closed standard streams stay closed: what the restoring process has there is not the service's.
#[test]
fn a_closed_standard_stream_stays_closed() {
    // A shell, for a program of ours opens /dev/null in their place when it starts.
    const SCRIPT: &str = "exec <&- 2>&-; : >ready; until [ -e go ]; do :; done; echo verdict: same";
    every(&[Flavour::LAZY[1], Flavour::LAZY[2]], |flavour| {
        let dir = std::sync::Arc::new(Scratch::new(flavour.user));
        let state = dir.make_dir("state");
        let mut command = as_user(flavour.user, Path::new("/bin/sh"));
        command.args(["-c", SCRIPT]).current_dir(&state);
        let ready = state.join("ready");
        let mut original = Instance::start("sh", &dir, command, |_| ready.exists().then_some(()));
        let image = dir.join("image");
        original.checkpoint_and_end(&image);
        let copy = Restore::of(&original, &image, flavour).start();
        let open = |number: i32| {
            std::fs::symlink_metadata(copy.process().proc("fd").join(number.to_string())).is_ok()
        };
        assert!(!open(0) && open(1) && !open(2), "{}", copy.tell());
        copy.go(&flavour.promises());
        copy.verdict();
    });
}
