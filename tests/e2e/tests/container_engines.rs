//! Real engines of containers: `tub container` around checkpoints of Podman's and Docker's.

use crate::jdk::{Jdk, jdks};
use crate::jvm::copied_classes;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tub_testkit::{Scratch, User, agent, alone, containers, product, run_bounded, skipped};

/// Scripts that run inside; each says what failed.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/containers");

/// Libraries of the JDK that a service needs, and whose own needs its container must hold.
const LIBRARIES: [&str; 6] = ["java", "net", "nio", "zip", "management", "jimage"];

/// A file system for a container, with what `jdk` and a shell need of the host's libraries.
fn file_system(jdk: &Jdk, root: &Path, at: &Path) {
    for name in ["bin", "lib64", "proc", "sys", "dev", "etc", "tub", "jdk", "classes", "tmp"] {
        fs::create_dir_all(at.join(name)).unwrap();
    }
    let busybox = ["usr/bin/busybox", "bin/busybox"].map(|name| root.join(name));
    let busybox = busybox.iter().find(|path| path.exists()).expect("it is among the packages");
    fs::copy(busybox, at.join("bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", at.join("bin/sh")).unwrap();
    fs::write(at.join("etc/passwd"), "root:x:0:0::/tmp:/bin/sh\n").unwrap();
    let mut programs = vec![jdk.java(), jdk.home.join("lib/server/libjvm.so")];
    programs.extend(LIBRARIES.map(|name| jdk.home.join(format!("lib/lib{name}.so"))));
    programs.extend(agent().map(Path::to_path_buf));
    let needed: BTreeSet<PathBuf> =
        programs.iter().flat_map(|program| libraries(program)).collect();
    for library in needed.iter().filter(|library| !library.starts_with(&jdk.home)) {
        let copy = at.join(library.strip_prefix("/").unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(library, copy).unwrap();
    }
}

/// Paths that ldd(1) names: `libc.so.6 => /lib/… (0x…)`, and the loader itself.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let mut command = Command::new("ldd");
    command.arg(program);
    let said = run_bounded(command, Duration::from_secs(20)).succeeds().stdout;
    let words = said.split_whitespace().filter(|word| word.starts_with('/'));
    words.map(PathBuf::from).collect()
}

fn inside(script: &str) {
    let Some(root) = containers() else { return };
    // Debian's JDK has its configuration elsewhere; the newest one is whole.
    let Some(jdk) = jdks().into_iter().max_by_key(|jdk| jdk.version) else {
        return skipped("there is no JDK");
    };
    let layout = product().tub.ancestors().nth(2).filter(|dir| dir.join("lib").exists());
    let Some(layout) = layout else {
        return skipped("`tub` was not laid out with its agent, as `cargo xtask test` does");
    };
    let _alone = alone("containers");
    let work = Scratch::new(User::Root);
    for name in ["lib", "tub", "jdk"] {
        work.make_dir(name);
    }
    copied_classes(&jdk, &work);
    file_system(&jdk, &root, &work.make_dir("fs"));
    for name in ["common.sh", script] {
        fs::copy(Path::new(SCRIPTS).join(name), work.join(name)).unwrap();
    }
    let mut command = Command::new("bash");
    command.arg(Path::new(SCRIPTS).join("enter.sh")).arg(&root).arg(work.path());
    let bind = format!("tub={} jdk={}", layout.display(), jdk.home.display());
    command.env("BINDS", bind);
    command.args(["bash", &format!("/w/{script}")]);
    run_bounded(command, Duration::from_secs(240)).succeeds();
}

#[test]
fn a_service_in_podman_is_checkpointed_and_gets_up_several_times_at_once() {
    inside("podman.sh");
}

#[test]
fn a_service_in_docker_is_checkpointed_and_gets_up_again() {
    inside("docker.sh");
}
