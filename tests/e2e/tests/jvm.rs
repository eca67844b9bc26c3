//! A service on a stock JVM, from `tub run` to several instances at once.
//!
//! Each test runs on every JDK of 17 and 25 that is installed, as an ordinary user.

use crate::allocators::auto_memory;
use crate::http::{first_answer, free_port, get};
use crate::jdk::{Jdk, jdks, jdks_and_21};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tub_testkit::{
    Flavour, Instance, Memory, Pids, Restore, Scratch, Tub, User, agent, alone, code, run_bounded,
};

/// Requests that warm the service up.
pub(crate) const WARM_UP: usize = 200;

/// A service under way.
pub(crate) struct Service {
    pub(crate) instance: Instance,
    pub(crate) port: u16,
}

impl Service {
    /// Compiles it, starts it by `tub run` in `mode`, and warms it up.
    pub(crate) fn start(jdk: &Jdk, mode: &str) -> Self {
        Self::start_with(jdk, mode, &[])
    }

    /// The same, with options of `tub run`.
    pub(crate) fn start_with(jdk: &Jdk, mode: &str, options: &[&str]) -> Self {
        Self::start_as(User::Ordinary, jdk, mode, options)
    }

    /// The same, as `user`.
    pub(crate) fn start_as(user: User, jdk: &Jdk, mode: &str, options: &[&str]) -> Self {
        Self::start_on(user, jdk, mode, (options, &[], &[]))
    }

    /// The same, with more in its environment.
    pub(crate) fn start_in(jdk: &Jdk, mode: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_on(User::Ordinary, jdk, mode, (&[], &[], environment))
    }

    /// The same, with options of `tub run` and of the JVM, and more in its environment.
    pub(crate) fn start_on(
        user: User,
        jdk: &Jdk,
        mode: &str,
        all_options: (&[&str], &[&str], &[(&str, &str)]),
    ) -> Self {
        Self::launch(user, jdk, mode, all_options, None)
    }

    fn launch(
        user: User,
        jdk: &Jdk,
        mode: &str,
        (options, of_jvm, environment): (&[&str], &[&str], &[(&str, &str)]),
        inherited: Option<u32>,
    ) -> Self {
        let dir = Arc::new(Scratch::new(user));
        let classes = copied_classes(jdk, &dir);
        let port = free_port();
        let left_open = dir.join("left-open.log");
        let mut tub = Tub::new(user, "run");
        if let Some(number) = inherited {
            tub = tub.after(&format!("exec {number}>inherited"));
        }
        let tub = tub.args(options).arg("--").arg(jdk.java());
        let tub = tub.args(of_jvm).args(&["-Xmx256m", "-cp"]).arg(classes).arg("Service");
        let mut command = tub.arg(port.to_string()).arg(mode).arg(left_open).command();
        // What it leaves for others (caches, hsperfdata) goes where it may write.
        command.env("HOME", dir.path()).env("TMPDIR", dir.path());
        command.env("GREETING", "from the start").env("KEPT", "from the start");
        command.envs(environment.iter().copied());
        command.current_dir(dir.path());
        if let Some(agent) = agent() {
            command.env("TUB_AGENT", agent);
        }
        let instance =
            Instance::start("jvm service", &dir, command, |_| get(port, "/").is_ok().then_some(()));
        let service = Self { instance, port };
        for expected in 1..=WARM_UP {
            assert_eq!(service.ask("/count"), expected.to_string());
        }
        service
    }

    /// Starts it with an inherited descriptor, which leads to a file in its directory.
    pub(crate) fn start_inheriting(jdk: &Jdk, number: u32, options: &[&str]) -> Self {
        Self::launch(User::Ordinary, jdk, "plain", (options, &[], &[]), Some(number))
    }

    /// Another life of it, from `image`, on a port of its own.
    pub(crate) fn restore(&self, image: &std::path::Path, flavour: Flavour) -> Self {
        self.restore_with(image, flavour, &[])
    }

    /// The same, with more options of `tub restore`.
    pub(crate) fn restore_with(
        &self,
        image: &std::path::Path,
        flavour: Flavour,
        options: &[&str],
    ) -> Self {
        let port = free_port();
        let environment = format!("SERVICE_PORT={port}");
        let restore = Restore::of(&self.instance, image, flavour).args(options);
        let instance =
            restore.args(&["--env", &environment]).args(&["--env", "GREETING=anew"]).start();
        Self { instance, port }
    }

    pub(crate) fn ask(&self, path: &str) -> String {
        let answer = first_answer(self.port, path);
        answer.unwrap_or_else(|| panic!("no answer to {path}\n{}", self.instance.tell()))
    }

    /// Answers right in every respect, and from where the original stood.
    pub(crate) fn is_well(&self) {
        assert_eq!(self.ask("/"), "hello");
        assert_eq!(self.ask("/work"), "1088890", "{}", self.instance.tell());
    }

    pub(crate) fn image(&self, name: &str) -> PathBuf {
        self.instance.dir().join(name)
    }

    /// Fails to be checkpointed with `code` and `words`, and is well afterwards.
    pub(crate) fn refuses(&self, options: &[&str], code: i32, words: &[&str]) {
        let image = self.image("refused");
        self.instance.checkpoint(&image, options).fails_with(code, words);
        assert!(!image.exists(), "an image was left");
        self.is_well();
    }
}

/// The directory with the compiled service: once for each JDK, since javac takes longer than most
/// tests.
fn classes(jdk: &Jdk) -> PathBuf {
    static COMPILED: Mutex<BTreeMap<u32, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    compiled.entry(jdk.version).or_insert_with(|| compile(jdk)).clone()
}

/// A copy of them in `dir`, where the user can reach them wherever the checkout is.
pub(crate) fn copied_classes(jdk: &Jdk, dir: &Scratch) -> PathBuf {
    let copies = dir.make_dir("classes");
    for entry in fs::read_dir(classes(jdk)).unwrap().flatten() {
        let copy = copies.join(entry.file_name());
        fs::copy(entry.path(), &copy).unwrap();
        dir.give(&copy);
    }
    copies
}

fn compile(jdk: &Jdk) -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    // Processes of several test runs may compile at the same time: each into its own.
    let classes = target.join(format!("service-{}-{}", jdk.version, std::process::id()));
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/java");
    let mut command = Command::new(jdk.home.join("bin/javac"));
    command.arg("-d").arg(&classes).args(["-sourcepath", sources]);
    command.arg(Path::new(sources).join("Service.java"));
    run_bounded(command, Duration::from_secs(120)).succeeds();
    classes
}

/// Runs `test` on each JDK, one at a time: a JVM uses both processors of a small machine.
pub(crate) fn on_each_jdk(test: impl Fn(&Jdk)) {
    on_all_of(jdks, test);
}

/// The same, and on the 21 that `cargo xtask setup` gets: a sample of the tests, as each takes a third more.
pub(crate) fn on_each_jdk_and_21(test: impl Fn(&Jdk)) {
    on_all_of(jdks_and_21, test);
}

fn on_all_of(jdks: fn() -> Vec<Jdk>, test: impl Fn(&Jdk)) {
    let _alone = alone("jvm");
    for jdk in jdks() {
        eprintln!("on JDK {} ({})", jdk.version, jdk.home.display());
        test(&jdk);
    }
}

#[test]
fn a_service_gets_up_several_times_at_once() {
    on_each_jdk(|jdk| {
        let mut original = Service::start(jdk, "plain");
        let image = original.image("image");
        original.instance.checkpoint_and_end(&image);
        let (lazy, reason) = auto_memory(&image);
        assert!(lazy && reason.contains("/libjvm.so"), "{reason}");
        let copies = [(); 3].map(|()| original.restore(&image, Flavour::USUAL));
        for copy in &copies {
            // Each goes on where the original stood, and none sees the others' requests.
            assert_eq!(copy.ask("/count"), (WARM_UP + 1).to_string());
            copy.is_well();
            assert_eq!(copy.ask("/told"), "before server\nafter server\n");
            assert_eq!(copy.ask("/env?GREETING"), "anew");
            // What the restore does not mention stays as it was.
            assert_eq!(copy.ask("/env?KEPT"), "from the start");
        }
    });
}

#[test]
fn a_service_gets_up_in_every_way() {
    on_each_jdk(|jdk| {
        let mut original = Service::start(jdk, "plain");
        let pid = original.ask("/pid");
        let image = original.image("image");
        original.instance.checkpoint_and_end(&image);
        for flavour in Flavour::ALL {
            // The image is the ordinary user's; root may restore it as well, but not the reverse.
            if flavour.user == User::Root {
                continue;
            }
            let copy = original.restore(&image, flavour);
            copy.is_well();
            if flavour.pids == Pids::Keep {
                assert_eq!(copy.ask("/pid"), pid);
            }
        }
    });
}

#[test]
fn a_service_goes_through_three_generations() {
    on_each_jdk(|jdk| {
        let mut life = Service::start(jdk, "plain");
        for generation in 1..=3 {
            let image = life.image(&format!("image-{generation}"));
            life.instance.checkpoint_and_end(&image);
            life = life.restore(&image, Flavour::USUAL);
            assert_eq!(life.ask("/count"), (WARM_UP + generation).to_string());
            life.is_well();
        }
        assert_eq!(life.ask("/told"), "before server\nafter server\n".repeat(3));
    });
}

/// Its heap is a memory file, on JDK 17 mapped at three addresses at once.
#[test]
fn a_service_on_zgc_gets_up_several_times_at_once() {
    on_each_jdk(|jdk| {
        let mut original =
            Service::start_on(User::Ordinary, jdk, "plain", (&[], &["-XX:+UseZGC"], &[]));
        let image = original.image("image");
        original.instance.checkpoint_and_end(&image);
        let ways = [Flavour::USUAL, Flavour { pids: Pids::New, ..Flavour::USUAL }];
        let mut copies = ways.map(|flavour| original.restore(&image, flavour));
        for copy in &copies {
            assert_eq!(copy.ask("/count"), (WARM_UP + 1).to_string());
            copy.is_well();
            assert_eq!(copy.ask("/told"), "before server\nafter server\n");
        }
        let image = copies[0].image("second");
        copies[0].instance.checkpoint_and_end(&image);
        let second = copies[0].restore(&image, Flavour::USUAL);
        assert_eq!(second.ask("/count"), (WARM_UP + 2).to_string());
        second.is_well();
    });
}

#[test]
fn the_time_of_the_restore_is_known_to_management() {
    on_each_jdk(|jdk| {
        let mut original = Service::start(jdk, "plain");
        assert_eq!(original.ask("/restored"), "-1");
        let image = original.image("image");
        original.instance.checkpoint_and_end(&image);
        let before = unix_ms();
        let copy = original.restore(&image, Flavour::USUAL);
        let restored: u128 = copy.ask("/restored").parse().unwrap();
        assert!((before..=unix_ms()).contains(&restored), "{restored} is not after {before}");
    });
}

pub(crate) fn unix_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

#[test]
fn the_original_goes_on_if_told_to_be_left_running() {
    on_each_jdk(|jdk| {
        let original = Service::start(jdk, "plain");
        let image = original.image("image");
        original.instance.checkpoint(&image, &["--leave-running"]).succeeds();
        original.is_well();
        assert_eq!(original.ask("/restored"), "-1", "resumed is not restored");
        let copy = original.restore(&image, Flavour::USUAL);
        copy.is_well();
        original.is_well();
    });
}

#[test]
fn a_resource_that_throws_is_named_and_the_service_goes_on() {
    on_each_jdk(|jdk| {
        let service = Service::start(jdk, "throws");
        service.refuses(&[], code::REFUSED, &["IllegalStateException", "not in the mood"]);
        // All of them were told, and told again (crac-java.md, section 2).
        let told = service.ask("/told");
        assert!(told.contains("after server"), "{told}");
    });
}

#[test]
fn a_resource_that_hangs_is_named_and_the_service_goes_on() {
    on_each_jdk(|jdk| {
        let service = Service::start(jdk, "hangs");
        service.refuses(&["--timeout", "3"], code::TIMED_OUT, &["sleepy"]);
    });
}

#[test]
fn a_file_left_open_is_named_and_the_service_goes_on() {
    on_each_jdk(|jdk| {
        let service = Service::start(jdk, "file");
        service.refuses(&[], code::REFUSED, &["left-open.log"]);
    });
}

#[test]
fn a_socket_left_open_is_named_and_the_service_goes_on() {
    on_each_jdk(|jdk| {
        let service = Service::start(jdk, "socket");
        service.refuses(&[], code::REFUSED, &["127.0.0.1"]);
    });
}

#[test]
fn what_was_left_open_is_restored_where_that_is_the_policy() {
    on_each_jdk(|jdk| {
        let mut original = Service::start_with(jdk, "file", &["--open", "restore"]);
        let image = original.image("image");
        original.instance.checkpoint_and_end(&image);
        original.restore(&image, Flavour::USUAL).is_well();
    });
}

/// The same service on a JVM without anything of ours, as `user` and with options of the JVM.
pub(crate) fn ignorant_service(user: User, jdk: &Jdk, mode: &str, options: &[&str]) -> Service {
    let dir = Arc::new(Scratch::new(user));
    let classes = copied_classes(jdk, &dir);
    let port = free_port();
    let mut command = tub_testkit::as_user(user, &jdk.java());
    command.args(options).args(["-Xmx256m", "-cp"]).arg(classes);
    command.args(["Service", &port.to_string(), mode]);
    command.env("HOME", dir.path()).env("TMPDIR", dir.path()).current_dir(dir.path());
    let instance =
        Instance::start("plain jvm", &dir, command, |_| get(port, "/").is_ok().then_some(()));
    let service = Service { instance, port };
    for expected in 1..=WARM_UP {
        assert_eq!(service.ask("/count"), expected.to_string());
    }
    service
}

/// The control run: the service passes its own checks without a checkpoint.
#[test]
fn the_service_is_well_without_a_checkpoint() {
    on_each_jdk(|jdk| {
        let service = ignorant_service(User::Ordinary, jdk, "plain", &[]);
        service.is_well();
        assert_eq!(service.ask("/told"), "");
        assert_eq!(service.ask("/pid"), service.instance.pid().to_string());
    });
}

#[test]
fn a_jvm_that_knows_nothing_of_us_is_restored_natively() {
    on_each_jdk(|jdk| {
        let mut original = ignorant_service(User::Ordinary, jdk, "plain", &[]);
        let image = original.image("image");
        original.instance.checkpoint(&image, &["--no-attach"]).succeeds();
        original.instance.wait();
        for memory in [Memory::Auto, Memory::Eager] {
            let flavour = Flavour { memory, ..Flavour::USUAL };
            let instance = Restore::of(&original.instance, &image, flavour).start();
            // Its listening socket came back with it, so it answers where it always did.
            let copy = Service { instance, port: original.port };
            assert_eq!(copy.ask("/count"), (WARM_UP + 1).to_string());
            copy.is_well();
        }
    });
}
