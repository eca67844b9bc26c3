//! Allocators that give pages back to the kernel and count on what they find when they take them
//! again: programs on them stay correct in every mode but the one that says it is not exact.

use crate::jvm::{Service, on_each_jdk};
use crate::round_trip::gets_up_well;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tub_testkit::{
    Flavour, Instance, Memory, Pids, Restore, Scratch, Subject, Tub, User, as_user, every, skipped,
};

const AUTO: Flavour = Flavour::USUAL;
const EAGER: Flavour = Flavour { user: User::Ordinary, pids: Pids::New, memory: Memory::Eager };
const LAZY: Flavour = Flavour { user: User::Ordinary, pids: Pids::Keep, memory: Memory::Lazy };

/// A library, and variables that set it.
pub(crate) type Allocator = (&'static str, &'static [(&'static str, &'static str)]);

/// With the settings by which they give back at once what is freed.
pub(crate) const JEMALLOC: Allocator =
    ("libjemalloc.so.2", &[("MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0")]);
pub(crate) const MIMALLOC: Allocator = (
    "libmimalloc.so.2",
    &[
        ("MIMALLOC_PAGE_RESET", "1"),
        ("MIMALLOC_RESET_DELAY", "0"),
        ("MIMALLOC_DECOMMIT_DELAY", "0"),
        ("MIMALLOC_PURGE_DELAY", "0"),
    ],
);

/// Where a library lies that programs can be started with.
fn preloaded(library: &str) -> Option<PathBuf> {
    let dirs =
        ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let found = dirs.iter().map(|dir| Path::new(dir).join(library)).find(|path| path.exists());
    if found.is_none() {
        skipped(&format!("no {library}: `cargo xtask setup` installs it"));
    }
    found
}

/// The subject on an allocator, if there is one.
pub(crate) fn subject((library, settings): (&str, &[(&str, &str)]), user: User) -> Option<Subject> {
    let path = preloaded(library)?;
    let subject = Subject::new("allocator", user).env("LD_PRELOAD", path.to_str()?);
    Some(settings.iter().fold(subject, |subject, (name, value)| subject.env(name, value)))
}

/// What `tub inspect` says of `--memory auto`: whether it is lazy, and why.
pub(crate) fn auto_memory(image: &Path) -> (bool, String) {
    let json = Tub::new(User::Root, "inspect").arg(image).arg("--json").run().succeeds();
    let object: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let auto = &object["tasks"][0]["auto_memory"];
    (auto["lazy"].as_bool().unwrap(), auto["reason"].as_str().unwrap().to_owned())
}

fn maps_the_image(instance: &Instance) -> bool {
    std::fs::read_to_string(instance.process().proc("maps")).unwrap().contains("/pages.tub")
}

#[test]
fn programs_on_allocators_that_purge_stay_correct() {
    for allocator in [JEMALLOC, MIMALLOC] {
        every(&[AUTO, EAGER], |flavour| {
            let Some(subject) = subject(allocator, flavour.user) else { return };
            gets_up_well(subject.start(), flavour);
        });
    }
}

/// Without it the test above would prove nothing. (mimalloc keeps book of what it ever wrote to, and
/// clears it: under `lazy` it stays correct as well.)
#[test]
fn jemalloc_takes_pages_of_the_image_for_zeros_where_lazy_memory_is_asked_for() {
    let Some(subject) = subject(JEMALLOC, LAZY.user) else { return };
    let mut original = subject.start();
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    let mut copy = Restore::of(&original, &image, LAZY).start();
    copy.go(&LAZY.promises());
    assert!(!copy.wait().success(), "{}", copy.tell());
    assert!(copy.output().contains("words that are not zero in a new block"), "{}", copy.tell());
}

/// A runtime that is known, on an allocator that is not.
#[test]
fn a_jvm_on_jemalloc_is_not_mapped_from_the_image() {
    let Some(jemalloc) = preloaded(JEMALLOC.0) else { return };
    let jemalloc = jemalloc.to_str().unwrap();
    on_each_jdk(|jdk| {
        let mut service = Service::start_in(jdk, "plain", &[("LD_PRELOAD", jemalloc)]);
        let image = service.image("image");
        service.instance.checkpoint_and_end(&image);
        let (lazy, reason) = auto_memory(&image);
        assert!(!lazy && reason.contains("/libjemalloc.so.2 is an allocator"), "{reason}");
        let copy = service.restore(&image, AUTO);
        copy.is_well();
        assert!(!maps_the_image(&copy.instance), "mapped from the image");
    });
}

/// A program of Python's that does by itself what the subject does.
const SCRIPT: &str = r#"
import ctypes, os, sys, time
libc = ctypes.CDLL(None)
libc.calloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
SIZES = [16 << 10, 100 << 10, 1 << 20, 3 << 20] * 4
def filled():
    blocks = [(libc.calloc(size, 1), size) for size in SIZES]
    zero = all(ctypes.string_at(at, size) == bytes(size) for at, size in blocks)
    for at, size in blocks:
        ctypes.memset(at, 0x55, size)
    return blocks, zero
blocks, before = filled()
print("ready", flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.005)
for at, size in blocks:
    libc.free(at)
_, after = filled()
print("zero before:", before, "after:", after, flush=True)
print("verdict:", "same" if before and after else "different", flush=True)
sys.exit(0 if before and after else 1)
"#;

#[test]
fn python_is_lazy_and_stays_correct_on_jemalloc() {
    let python = Path::new("/usr/bin/python3");
    if !python.exists() {
        return skipped("no /usr/bin/python3");
    }
    let life = |environment: &[(&str, &str)], flavour| {
        let dir = Arc::new(Scratch::new(User::Ordinary));
        let go = dir.make_dir("state").join("go");
        let mut command = as_user(User::Ordinary, python);
        command.args(["-c", SCRIPT]).arg(go).envs(environment.iter().copied());
        let ready = |out: &str| out.contains("ready\n").then_some(());
        let mut original = Instance::start("python", &dir, command, ready);
        let image = original.dir().join("image");
        original.checkpoint_and_end(&image);
        let mut copy = Restore::of(&original, &image, flavour).start();
        let mapped = maps_the_image(&copy);
        copy.go(&flavour.promises());
        let correct = copy.wait().success();
        (correct, mapped, auto_memory(&image))
    };
    let (correct, mapped, (lazy, reason)) = life(&[], AUTO);
    assert!(
        correct && mapped && lazy && reason.contains("/python3"),
        "{correct} {mapped} {reason}"
    );
    let Some(jemalloc) = preloaded(JEMALLOC.0) else { return };
    let environment = [&[("LD_PRELOAD", jemalloc.to_str().unwrap())], JEMALLOC.1].concat();
    let (correct, mapped, (lazy, reason)) = life(&environment, AUTO);
    assert!(
        correct && !mapped && !lazy && reason.contains("jemalloc"),
        "{correct} {mapped} {reason}"
    );
    // What is asked for is done.
    let (correct, mapped, _) = life(&environment, LAZY);
    assert!(!correct && mapped, "{correct} {mapped}");
}
