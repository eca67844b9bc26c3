//! What becomes of a process's program and libraries: deleted or replaced while they run, or on a
//! file system that forbids code.

use crate::jdk::{Jdk, jdks};
use crate::jvm::Service;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tub_testkit::{
    Finished, Flavour, Instance, Memory, Pids, Restore, Scratch, User, alone, as_user, code, every,
    product, run_bounded, subject_binary,
};

/// A subject that runs a program of its own.
fn on_a_copy(name: &str, user: User) -> Instance {
    let dir = Arc::new(Scratch::new(user));
    let program = dir.join("program");
    fs::copy(subject_binary(), &program).unwrap();
    dir.give(&program);
    let state = dir.make_dir("state");
    let ready = state.join("ready");
    let mut command = as_user(user, &program);
    command.arg(name).arg(state);
    Instance::start(name, &dir, command, |_| ready.exists().then_some(()))
}

#[test]
fn a_program_that_was_deleted_or_replaced_while_it_ran() {
    const ROOT: Flavour = Flavour { user: User::Root, pids: Pids::New, memory: Memory::Lazy };
    every(&[Flavour::USUAL, ROOT], |flavour| {
        for replaced in [false, true] {
            let mut life = on_a_copy("memory", flavour.user);
            let program = life.dir().join("program");
            fs::remove_file(&program).unwrap();
            if replaced {
                fs::copy("/bin/true", &program).unwrap();
            }
            // What is memory at first stays so: the second image knows of no file.
            for generation in ["first", "second"] {
                let image = life.dir().join(generation);
                life.checkpoint_and_end(&image);
                let next = Restore::of(&life, &image, flavour).start();
                let told = next.complaints().contains("was deleted while it ran");
                assert_eq!(told, generation == "first", "{}", next.tell());
                life = next;
            }
            life.go(&flavour.promises());
            life.verdict();
        }
    });
}

/// As a package manager does: all files are others afterwards, and the JVM has them mapped and open.
#[test]
fn a_jvm_that_is_upgraded_under_its_feet() {
    let _alone = alone("jvm");
    let Some(jdk) = jdks().into_iter().next() else { return };
    let dir = Scratch::new(User::Ordinary);
    let home = dir.join("jdk");
    let install = || {
        // Links where they may be made, which is quicker.
        let mut copy = Command::new("sh");
        let words =
            r#"rm -rf "$2" && { cp -al "$1" "$2" || { rm -rf "$2" && cp -a "$1" "$2"; }; }"#;
        copy.args(["-c", words, "sh"]).arg(&jdk.home).arg(&home);
        run_bounded(copy, Duration::from_secs(120)).succeeds();
    };
    install();
    let mut service = Service::start(&Jdk { version: jdk.version, home: home.clone() }, "plain");
    install();
    let image = service.image("image");
    service.instance.checkpoint_and_end(&image);
    service.restore(&image, Flavour::USUAL).is_well();
}

/// Runs `script` in a mount namespace of its own, in which it may mount. It is given a directory,
/// the subject and `tub`.
fn with_mounts(user: User, script: &str) -> Finished {
    let scratch = Scratch::new(user);
    let mut command = as_user(user, Path::new("unshare"));
    if user == User::Ordinary {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", &format!("{LIFE}{script}"), "sh"]).arg(scratch.path());
    command.arg(subject_binary()).arg(&product().tub);
    run_bounded(command, Duration::from_secs(120))
}

/// `live` starts the subject `$program` and takes `$image` of it.
const LIFE: &str = r#"
live() {
    mkdir -p "$state"
    "$program" memory "$state" >"$dir/out" 2>&1 &
    original=$!
    tries=0
    until [ -e "$state/ready" ]; do
        tries=$((tries + 1)); [ $tries -lt 1200 ] || exit 90; sleep 0.05
    done
    "$tub" checkpoint $original --image "$image" || exit 91
}
dir=$1 program=$2 tub=$3 state=$1/state image=$1/image
"#;

#[test]
fn an_image_on_a_file_system_mounted_noexec() {
    every(&[Flavour::LAZY[0], Flavour::LAZY[1]], |flavour| {
        let script = r#"
            mkdir "$dir/noexec" && mount -t tmpfs -o noexec,size=200m tmpfs "$dir/noexec" || exit 89
            for memory in lazy eager auto; do
                state=$dir/state-$memory image=$dir/noexec/$memory
                live
                printf restored >"$state/go"
                "$tub" restore --pids new --memory $memory "$image" >"$dir/copy" || exit 92
                grep -q '^verdict: same$' "$dir/copy" || exit 93
            done
        "#;
        with_mounts(flavour.user, script).succeeds();
    });
}

#[test]
fn a_program_on_a_file_system_that_forbids_code_now() {
    every(&[Flavour::LAZY[0], Flavour::LAZY[1]], |flavour| {
        let script = r#"
            mkdir "$dir/programs" && mount -t tmpfs -o size=200m tmpfs "$dir/programs" || exit 89
            cp "$program" "$dir/programs/one" && program=$dir/programs/one
            live
            mount -o remount,bind,noexec "$dir/programs" || exit 88
            exec "$tub" restore --pids new "$image"
        "#;
        let refused = with_mounts(flavour.user, script);
        let words = ["/programs/one", "mounted noexec", "mount that one with exec"];
        refused.fails_with(code::BAD_IMAGE, &words);
    });
}
