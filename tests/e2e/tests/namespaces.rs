//! Namespaces around and inside of each other: who takes a checkpoint, and where a copy gets up.

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tub_testkit::{
    Finished, Flavour, Instance, Pids, Process, Restore, Scratch, Subject, Tub, User, as_user,
    every, is_root, product, run_bounded, skipped, subject_binary, wait_for,
};

/// What the kernel tidies up by itself needs a moment on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// Starts a subject in a PID namespace, and waits until it is ready.
const START: &str = r#"
"$2" counter "$1/state" >"$1/out" 2>&1 &
original=$!
tries=0
until [ -e "$1/state/ready" ]; do
    tries=$((tries + 1)); [ $tries -lt 1200 ] || exit 90; sleep 0.05
done
"#;

/// A whole life in PID 1's shadow: original, checkpoint, copy. The copy must find itself unchanged.
const LIFE: &str = r#"
"$3" checkpoint $original --image "$1/image" || exit 91
printf %s 'restored same-ids continuous-clock exact-memory' >"$1/state/go.new"
mv "$1/state/go.new" "$1/state/go"
"$3" restore "$1/image" >"$1/copy" 2>&1 || { cat "$1/copy"; exit 92; }
grep -q '^verdict: same$' "$1/copy"
"#;

/// `script` as `user`, in as many PID namespaces inside each other, with a subject: its directory in
/// `$1`, its program in `$2`, its id in `$original`, and ours in `$3`.
pub(crate) fn inside(user: User, depth: usize, script: &str) -> Finished {
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
    command.args(["sh", "-c", &format!("{START}{script}"), "sh"]).arg(scratch.path());
    command.arg(subject_binary()).arg(&product().tub);
    run_bounded(command, Duration::from_secs(120))
}

#[test]
fn ids_are_kept_within_pid_namespaces_within_pid_namespaces() {
    every(&[Flavour::LAZY[0], Flavour::LAZY[1]], |flavour| {
        inside(flavour.user, 1, LIFE).succeeds();
        inside(flavour.user, 2, LIFE).succeeds();
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

/// Whoever loses its parent becomes a child of PID 1, and nobody else would reap it.
#[test]
fn init_reaps_whoever_lost_its_parent() {
    const SCRIPT: &str = ": >ready; until [ -e go ]; do :; done
        for one in 1 2 3 4 5 6; do (sleep 1 &); done; until [ -e end ]; do read -t 1 one <>fifo; done; :";
    every(&[Flavour::LAZY[0], Flavour::LAZY[1]], |flavour| {
        let dir = Arc::new(Scratch::new(flavour.user));
        let state = dir.make_dir("state");
        let fifo = state.join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        dir.give(&fifo);
        let mut command = as_user(flavour.user, Path::new("/bin/bash"));
        command.args(["-c", SCRIPT]).current_dir(&state);
        let ready = state.join("ready");
        let mut original = Instance::start("bash", &dir, command, |_| ready.exists().then_some(()));
        let image = dir.join("image");
        original.checkpoint_and_end(&image);
        let mut copy = Restore::of(&original, &image, flavour).start();
        copy.go("");
        let status = fs::read_to_string(copy.process().proc("status")).unwrap();
        let init = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim();
        let children = format!("/proc/{init}/task/{init}/children");
        // Zombies included (proc_tid_children(5)).
        let children = || fs::read_to_string(&children).unwrap_or_default().split(' ').count() - 1;
        assert!(wait_for(SOON, || (children() > 1).then_some(())).is_some(), "{}", copy.tell());
        let reaped = wait_for(SOON, || (children() == 1).then_some(()));
        assert!(reaped.is_some(), "{} children of init\n{}", children(), copy.tell());
        fs::write(state.join("end"), "").unwrap();
        assert!(copy.wait().success(), "{}", copy.tell());
    });
}

/// Namespaces of `copy` that are not ours.
fn namespaces(copy: &Instance) -> Vec<PathBuf> {
    let links = |pid: String| {
        let kinds = ["mnt", "pid", "pid_for_children", "time", "time_for_children", "user"];
        kinds.map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap_or_default())
    };
    let ours = links("self".to_owned());
    links(copy.pid().to_string()).into_iter().filter(|link| !ours.contains(link)).collect()
}

/// Processes that are in one of `namespaces`, and mounts that hold one.
///
/// One that has ended counts no more: in a container whose first program reaps nobody's orphans the
/// init of an instance stays as a zombie when its `tub restore` was killed.
fn held(namespaces: &[PathBuf]) -> Vec<String> {
    let mut found = Vec::new();
    let has_ended = |process: &Path| {
        let status = fs::read_to_string(process.join("status")).unwrap_or_default();
        status.contains("State:\tZ")
    };
    for process in fs::read_dir("/proc").unwrap().flatten() {
        if has_ended(&process.path()) {
            continue;
        }
        let links = fs::read_dir(process.path().join("ns")).into_iter().flatten().flatten();
        let targets = links.filter_map(|link| fs::read_link(link.path()).ok());
        if targets.into_iter().any(|target| namespaces.contains(&target)) {
            found.push(process.file_name().to_string_lossy().into_owned());
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let name = |namespace: &PathBuf| namespace.to_string_lossy().into_owned();
    found.extend(namespaces.iter().map(name).filter(|name| mounts.contains(name)));
    found
}

#[test]
fn nothing_of_an_instances_namespaces_is_left() {
    every(&Flavour::LAZY, |flavour| {
        let mut original = Subject::new("counter", flavour.user).start();
        let image = original.dir().join("image");
        original.checkpoint_and_end(&image);
        let restore = Restore::of(&original, &image, flavour);
        // It ends by itself, is killed, or its `tub restore` is.
        for end in 0..3 {
            let copy = restore.start();
            copy.goes_on();
            let namespaces = namespaces(&copy);
            assert!(!namespaces.is_empty() || flavour.pids == Pids::New, "{}", copy.tell());
            match end {
                0 => {
                    copy.go(&flavour.promises());
                    copy.verdict();
                }
                1 => drop(copy),
                _ => {
                    let command = Process::find(copy.command_pid()).unwrap();
                    command.signal(Signal::SIGKILL);
                    assert!(command.is_gone_within(SOON), "{}", copy.tell());
                    // With new ids it outlives the command; it is no longer needed. The command
                    // itself holds its user namespace until we have waited for it.
                    copy.process().signal(Signal::SIGKILL);
                    drop(copy);
                }
            }
            let left = wait_for(SOON, || held(&namespaces).is_empty().then_some(()));
            assert!(left.is_some(), "end {end}: {:?} of {namespaces:?}", held(&namespaces));
        }
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
