//! Our engine as a CRaC JDK uses it: `c/jvm.c` plays the JVM's part, call by call, and is itself what is
//! checkpointed and restored.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tub_testkit::{
    Finished, Flavour, Instance, Memory, Pids, Scratch, Tub, User, as_user, crac_engine, every,
    product, run_bounded, skipped,
};

/// A JVM's stand-in, compiled here.
struct Jvm {
    dir: Arc<Scratch>,
    program: PathBuf,
    user: User,
}

impl Jvm {
    fn new(user: User) -> Option<Self> {
        let dir = Arc::new(Scratch::new(user));
        let program = dir.join("jvm");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("c/jvm.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-Wall", "-Wextra", "-Werror", "-O1", "-pthread", "-o"]);
        compiler.arg(&program).arg(&source).arg("-ldl");
        let Ok(status) = compiler.status() else {
            skipped("no C compiler");
            return None;
        };
        assert!(status.success(), "{} does not compile", source.display());
        let _ = fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755));
        Some(Self { dir, program, user })
    }

    /// `help` of an engine at `library`.
    fn help(&self, library: &Path) -> Finished {
        let mut command = as_user(self.user, &self.program);
        command.arg(library).arg("help");
        // A command of the same name that is there by chance is not under test.
        command.env("PATH", "/usr/bin:/bin").env_remove("TUB_COMMAND");
        run_bounded(command, Duration::from_secs(30)).succeeds()
    }

    fn command(&self, words: &[&str], options: &[&str]) -> Command {
        let mut command = as_user(self.user, &self.program);
        command.arg(crac_engine()).args(words);
        command.arg(format!("tub_location={}", product().tub.display())).args(options);
        command
    }

    /// Starts the original, whose images are `image-1`, `image-2`, … in `image`'s place.
    fn start(&self, image: &Path, options: &[&str]) -> Instance {
        let words = ["checkpoint", image.to_str().unwrap(), self.dir.path().to_str().unwrap()];
        let command = self.command(&words, options);
        let ready = |printed: &str| printed.contains("ready 1\n").then_some(());
        Instance::start("jvm", &self.dir, command, ready)
    }

    /// Has every life that waits there go on to its `round`th checkpoint.
    fn go(&self, round: u32) {
        let path = self.dir.join(format!("go-{round}"));
        fs::write(path, "").unwrap();
    }

    fn restore(&self, image: &Path, data: &str, mask: &str, options: &[&str]) -> Command {
        self.command(&["restore", image.to_str().unwrap(), data, mask], options)
    }

    /// Becomes what the image holds, and waits until it has looked around.
    fn get_up(&self, image: &Path, data: &str, round: u32, flavour: Flavour) -> Instance {
        let pids = format!("pids={}", flavour.pids.word());
        let memory = format!("direct_map={}", flavour.memory != Memory::Eager);
        let command = self.restore(image, data, "255", &[&pids, &memory]);
        let well = format!("well {round}\n");
        let ready = |printed: &str| printed.contains(&well).then_some(());
        Instance::start("jvm restored", &self.dir, command, ready)
    }

    fn refuses(&self, image: &Path, mask: &str) -> Finished {
        run_bounded(self.restore(image, "", mask, &[]), Duration::from_secs(30))
    }
}

const WAYS: [Flavour; 3] = [
    Flavour::USUAL,
    Flavour { user: User::Root, pids: Pids::Keep, memory: Memory::Lazy },
    Flavour { user: User::Ordinary, pids: Pids::New, memory: Memory::Eager },
];

#[test]
fn it_is_checkpointed_and_gets_up_with_what_the_restoring_one_gave() {
    every(&WAYS, |flavour| {
        let Some(jvm) = Jvm::new(flavour.user) else { return };
        let image = jvm.dir.join("image");
        let mut original = jvm.start(&image, &[]);
        jvm.go(1);
        assert_eq!(original.wait().signal(), Some(9), "{}", original.tell());
        let first = jvm.dir.join("image-1");
        assert_eq!(fs::read_to_string(first.join("engine")).unwrap(), "tubengine");
        let json = Tub::new(flavour.user, "inspect").arg(&first).arg("--json").run().succeeds();
        for word in ["cpu.arch", "amd64", "bitmap:cpu.features", "0780", "vm.uptime", "CRaC JDK"] {
            assert!(json.stdout.contains(word), "no {word} in {}", json.stdout);
        }

        // Two at once, each with its own; and one that was given nothing.
        let copies = ["for the first", "2"].map(|data| {
            let copy = jvm.get_up(&first, data, 1, flavour);
            copy.prints(&format!("round 1: 0, {} bytes [{data}]", data.len()));
            copy
        });
        jvm.get_up(&first, "", 1, flavour).prints("round 1: 0, 0 bytes []");
        let [mut copy, other] = copies;
        drop(other);

        // A copy is checkpointed again, and its copy knows nothing of the first restore.
        jvm.go(2);
        copy.wait();
        let second = jvm.dir.join("image-2");
        jvm.get_up(&second, "again", 2, flavour).prints("round 2: 0, 5 bytes [again]");
        let again = Tub::new(flavour.user, "inspect").arg(&second).arg("--json").run().succeeds();
        assert!(json.stdout.contains("vm.first"), "{json}");
        assert!(again.stdout.contains("vm.uptime"), "{again}");
        assert!(!again.stdout.contains("vm.first"), "scores are of one attempt: {again}");
    });
}

#[test]
fn it_goes_on_beside_its_image_if_it_is_told_to() {
    let Some(jvm) = Jvm::new(User::Ordinary) else { return };
    let original = jvm.start(&jvm.dir.join("image"), &["keep_running=true"]);
    jvm.go(1);
    original.prints("round 1: 0, 0 bytes []");
    original.prints("well 1");
    jvm.go(2);
    original.prints("well 2");
    let image = jvm.dir.join("image-2");
    let copy = jvm.get_up(&image, "x", 2, Flavour { pids: Pids::New, ..Flavour::USUAL });
    copy.prints("round 2: 0, 1 bytes [x]");
}

#[test]
fn what_an_image_lacks_is_told_by_name() {
    let Some(jvm) = Jvm::new(User::Ordinary) else { return };
    let original = jvm.start(&jvm.dir.join("image"), &["keep_running=true"]);
    jvm.go(1);
    original.prints("well 1");
    let image = jvm.dir.join("image-1");
    let failed = jvm.refuses(&image, "0");
    assert_eq!(
        failed.stdout, "restore: -1\nfailed cpu.arch\nfailed cpu.features: 2 bytes, 07\n",
        "{failed}"
    );
    for why in ["cpu.arch is amd64, other is required", "cpu.features is 0780"] {
        assert!(failed.stderr.contains(why), "{failed}");
    }
    // A bit less than the image has, and it is told which.
    let failed = jvm.refuses(&image, "3");
    assert_eq!(failed.stdout, "restore: -1\nfailed cpu.features: 2 bytes, 07\n", "{failed}");
    let failed = jvm.refuses(&jvm.dir.join("none"), "255");
    assert_eq!(failed.stdout, "restore: -1\n", "{failed}");
    assert!(failed.stderr.contains("tub engine: image "), "{failed}");
}

#[test]
fn a_checkpoint_that_fails_is_told_and_leaves_everything_as_it_was() {
    let Some(jvm) = Jvm::new(User::Ordinary) else { return };
    // There is no such directory.
    let original = jvm.start(&jvm.dir.join("none/image"), &[]);
    jvm.go(1);
    original.prints("round 1: -1, 0 bytes []");
    original.prints("well 1");
    assert!(original.complaints().contains("none"), "{}", original.tell());
    drop(original);

    let Some(jvm) = Jvm::new(User::Ordinary) else { return };
    let original = jvm.start(&jvm.dir.join("image"), &["args=--no-such-option"]);
    jvm.go(1);
    original.prints("round 1: -1, 0 bytes []");
    original.prints("well 1");
    assert!(original.complaints().contains("--no-such-option"), "{}", original.tell());
    let files: Vec<_> = fs::read_dir(jvm.dir.join("image-1")).unwrap().flatten().collect();
    assert_eq!(files.len(), 1, "the JDK's own file: {files:?}");
}

#[test]
fn an_engine_that_is_killed_is_noticed() {
    let Some(jvm) = Jvm::new(User::Ordinary) else { return };
    let killed = jvm.dir.join("tub");
    fs::write(&killed, "#!/bin/sh\nkill -9 $$\n").unwrap();
    fs::set_permissions(&killed, fs::Permissions::from_mode(0o755)).unwrap();
    let location = format!("tub_location={}", killed.display());
    let original = jvm.start(&jvm.dir.join("image"), &[&location]);
    jvm.go(1);
    original.prints("round 1: -1, 0 bytes []");
    original.prints("well 1");
    assert!(original.complaints().contains("without a word"), "{}", original.tell());
}

#[test]
fn it_says_what_it_is_and_what_can_be_configured() {
    let Some(jvm) = Jvm::new(User::Ordinary) else { return };
    let said = jvm.help(crac_engine());
    for line in [
        "* keep_running=<true/false> (default: false) - let the process go on after the checkpoint.",
        "option image_location 3 <path> (no default) where the image goes, or is.",
        "extension restore data",
        "extension image constraints",
        "extension image score",
        "extension user data",
        "extension description",
        "extension checkpointable data",
    ] {
        assert!(said.stdout.lines().any(|printed| printed == line), "no {line:?}: {said}");
    }
    assert!(said.stdout.starts_with("tubthumping "), "{said}");
}

/// As it is laid out, and linked from there into a JDK.
#[test]
fn it_finds_its_command_beside_it() {
    let Some(jvm) = Jvm::new(User::Ordinary) else { return };
    let (bin, lib) = (jvm.dir.make_dir("bin"), jvm.dir.make_dir("lib"));
    let library = lib.join("libtubengine.so");
    fs::copy(crac_engine(), &library).unwrap();
    let linked = jvm.dir.make_dir("jdk").join("libtubengine.so");
    symlink(&library, &linked).unwrap();
    for library in [&library, &linked] {
        let said = jvm.help(library);
        assert!(said.stdout.ends_with("status 0\n"), "there is none: {said}");
    }
    symlink(&product().tub, bin.join("tub")).unwrap();
    for library in [&library, &linked] {
        let said = jvm.help(library);
        assert!(said.stdout.ends_with("status 2\n"), "{said}");
    }
}
