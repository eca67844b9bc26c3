//! Real engines of containers: `tub container` around checkpoints of Podman's and Docker's, and our own
//! engine inside of containers with nothing but their defaults.

use crate::frameworks::Example;
use crate::jdk::{Jdk, jdks};
use crate::jvm::copied_classes;
use crate::language::python_site;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tub_testkit::{
    Alone, Scratch, User, agent, alone, c_library, containers, product, run_bounded, skipped,
};

/// Scripts that run inside; each says what failed.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/containers");

/// Libraries of the JDK that a service needs, and whose own needs its container must hold.
const LIBRARIES: [&str; 6] = ["java", "net", "nio", "zip", "management", "jimage"];

/// Debian's own, whose files lie in two directories.
const PYTHON: &str = "/usr/bin/python3";

/// What the scripts call in containers.
const APPLETS: [&str; 7] = ["cat", "grep", "kill", "pidof", "sh", "sleep", "wc"];

/// What a script runs on: the root file system of the engines, and a directory for their containers,
/// which lies at `/w` there.
struct Stage {
    engines: PathBuf,
    work: Scratch,
    jdk: Option<Jdk>,
    /// The product as it was laid out.
    layout: PathBuf,
    _alone: Alone,
}

impl Stage {
    /// With the file system of a container in `fs`, which holds a shell and the product.
    fn new() -> Option<Self> {
        let engines = containers()?;
        let layout = product().tub.ancestors().nth(2).filter(|dir| dir.join("lib").exists());
        let Some(layout) = layout.map(Path::to_path_buf) else {
            skipped("`tub` was not laid out with its agent, as `cargo xtask test` does");
            return None;
        };
        let work = Scratch::new(User::Root);
        for name in ["lib", "tub", "jdk"] {
            work.make_dir(name);
        }
        let stage = Self { engines, work, jdk: None, layout, _alone: alone("containers") };
        let dirs = "bin etc proc sys dev tmp jdk classes application tub/bin tub/lib";
        dirs.split(' ').for_each(|name| fs::create_dir_all(stage.fs(name)).unwrap());
        let busybox = ["usr/bin/busybox", "bin/busybox"].map(|name| stage.engines.join(name));
        let busybox = busybox.iter().find(|path| path.exists()).expect("it is among the packages");
        fs::copy(busybox, stage.fs("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", stage.fs("bin").join(applet)).unwrap();
        }
        fs::write(stage.fs("etc/passwd"), "root:x:0:0::/tmp:/bin/sh\n").unwrap();
        for file in ["bin/tub", "lib/libtub_java_agent.so", "lib/tub-shim.jar"] {
            if stage.layout.join(file).exists() {
                fs::copy(stage.layout.join(file), stage.fs("tub").join(file)).unwrap();
            }
        }
        Some(stage)
    }

    fn fs(&self, name: &str) -> PathBuf {
        self.work.join("fs").join(name)
    }

    /// The libraries that `programs` need, but for those below `except`.
    fn add_libraries(&self, programs: &[PathBuf], except: &Path) {
        let mut command = Command::new("ldd");
        command.args(programs);
        let said = run_bounded(command, Duration::from_secs(60)).succeeds().stdout;
        // `libc.so.6 => /lib/… (0x…)`, and the loader itself; with a `:`, which of the programs it is.
        let words = said.split_whitespace().filter(|word| word.starts_with('/'));
        let libraries: BTreeSet<&str> = words.filter(|word| !word.ends_with(':')).collect();
        for library in libraries.into_iter().filter(|path| !Path::new(path).starts_with(except)) {
            let copy = self.fs(library.trim_start_matches('/'));
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(library, copy).unwrap();
        }
    }

    /// What a JVM needs, the example for Spring Boot, and a service of the tests. The JDK itself lies
    /// at `/w/jdk`. `false`, with the reason printed, where there is none.
    fn add_java(&mut self) -> bool {
        // Debian's JDK has its configuration elsewhere; the newest one is whole.
        let Some(jdk) = jdks().into_iter().max_by_key(|jdk| jdk.version) else {
            skipped("there is no JDK");
            return false;
        };
        let mut programs = vec![jdk.java(), jdk.home.join("lib/server/libjvm.so")];
        programs.extend(LIBRARIES.map(|name| jdk.home.join(format!("lib/lib{name}.so"))));
        programs.extend(agent().map(Path::to_path_buf));
        self.add_libraries(&programs, &jdk.home);
        copied_classes(&jdk, &self.work);
        self.jdk = Some(jdk);
        // To `application`; it says itself where it is not built.
        let _ = Example::named("spring-boot").install(&self.work);
        true
    }

    /// Debian's Python and the example for it. `false`, with the reason printed, where there is none.
    fn add_python(&self) -> bool {
        let ask = "import sys, ssl, ctypes, sysconfig; print(sysconfig.get_path('stdlib'))";
        let asked = Command::new(PYTHON).args(["-c", ask]).output();
        let Some(asked) = asked.ok().filter(|output| output.status.success()) else {
            skipped("no Python in /usr/bin");
            return false;
        };
        let library = PathBuf::from(String::from_utf8(asked.stdout).unwrap().trim());
        let mut programs = vec![PathBuf::from(PYTHON), c_library().to_owned()];
        let modules = fs::read_dir(library.join("lib-dynload")).into_iter().flatten().flatten();
        programs.extend(modules.map(|entry| entry.path()));
        self.add_libraries(&programs, Path::new("/nowhere"));
        let site = python_site(Path::new(PYTHON), &self.work);
        let examples = Path::new(SCRIPTS).ancestors().nth(3).unwrap().join("examples");
        for (from, to) in [
            (PathBuf::from(PYTHON), "usr/bin/python3"),
            (library.clone(), library.to_str().unwrap().trim_start_matches('/')),
            (site, "app"),
            (examples.join("python-service/service.py"), "app/service.py"),
            (Path::new(SCRIPTS).join("told.py"), "app/told.py"),
        ] {
            fs::create_dir_all(self.fs(to).parent().unwrap()).unwrap();
            // Links within the library are kept, since some lead out of it; what is named is not one.
            let status = Command::new("cp").arg("-RH").arg(from).arg(self.fs(to)).status();
            assert!(status.is_ok_and(|status| status.success()), "{to} cannot be copied");
        }
        true
    }

    /// Runs a script with the engines, and whatever it started ends with it.
    fn play(&self, script: &str, words: &[&str]) {
        for name in ["common.sh", script] {
            fs::copy(Path::new(SCRIPTS).join(name), self.work.join(name)).unwrap();
        }
        let mut command = Command::new("bash");
        command.arg(Path::new(SCRIPTS).join("enter.sh")).arg(&self.engines).arg(self.work.path());
        let mut binds = format!("tub={}", self.layout.display());
        if let Some(jdk) = &self.jdk {
            binds.push_str(&format!(" jdk={}", jdk.home.display()));
        }
        command.env("BINDS", binds).args(["bash", &format!("/w/{script}")]).args(words);
        run_bounded(command, Duration::from_secs(240)).succeeds();
    }
}

/// Whatever of Java and Python can be had; nothing where neither can.
fn inside(script: &str, words: &[&str]) {
    let Some(mut stage) = Stage::new() else { return };
    let java = stage.add_java();
    let python = stage.add_python();
    let of = |is_there: bool, word: &'static str| if is_there { word } else { "-" };
    let words = [words, &[of(java, "java"), of(python, "python")]].concat();
    stage.play(script, &words);
}

#[test]
fn a_service_in_podman_is_checkpointed_and_gets_up_several_times_at_once() {
    inside("podman.sh", &[]);
}

#[test]
fn a_service_in_docker_is_checkpointed_and_gets_up_again() {
    inside("docker.sh", &[]);
}

#[test]
fn our_engine_in_default_docker_and_its_image_in_an_image_of_dockers() {
    inside("baked.sh", &["docker"]);
}

#[test]
fn our_engine_in_default_podman_and_its_image_in_an_image_of_podmans() {
    inside("baked.sh", &["podman"]);
}
