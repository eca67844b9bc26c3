//! Bad input at a restore: images that are not what they should be.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tub_image::{Image, ImageWriter, Replace, Zeros};
use tub_model::{Checkpoint, FileKind};
use tub_testkit::{Finished, Flavour, Instance, Pids, Restore, Scratch, Subject, Tub, User, code};
use tub_units::RemoteAddr;

/// A good image of a small subject, and the directory in which it may be altered.
pub(crate) struct Made {
    pub(crate) original: Instance,
    image: PathBuf,
}

impl Made {
    fn new() -> Self {
        Self::of(Subject::new("counter", User::Ordinary).start())
    }

    pub(crate) fn of(mut original: Instance) -> Self {
        let image = original.dir().join("image");
        original.checkpoint_and_end(&image);
        Self { original, image }
    }

    /// A copy of the image under `name`.
    fn copy(&self, name: &str) -> PathBuf {
        let copy = self.original.dir().make_dir(name);
        for entry in fs::read_dir(&self.image).unwrap().flatten() {
            let to = copy.join(entry.file_name());
            fs::copy(entry.path(), &to).unwrap();
            self.original.dir().give(&to);
        }
        copy
    }

    /// A whole and sound image under `name`, with a checkpoint that was `changed`.
    pub(crate) fn changed(&self, name: &str, change: impl FnOnce(&mut Checkpoint)) -> PathBuf {
        rewritten(self.original.dir(), &self.image, name, change)
    }

    fn file(&self, image: &Path, name: &str) -> PathBuf {
        let path = image.join(name);
        assert!(path.exists(), "{} is part of an image", path.display());
        path
    }
}

/// A boot that was never ours: what a kernel tells once a boot is believed where it is the same.
pub(crate) const ANOTHER_BOOT: &str = "00000000-0000-4000-8000-000000000000";

/// A whole and sound image in `dir` under `name`, as `image` but for what was `changed`.
pub(crate) fn rewritten(
    dir: &Scratch,
    image: &Path,
    name: &str,
    change: impl FnOnce(&mut Checkpoint),
) -> PathBuf {
    let from = Image::open_foreign(image).unwrap();
    let image = dir.join(name);
    let mut writer = ImageWriter::create(&image, Replace::Never).unwrap();
    for run in from.runs.iter().flatten() {
        let mut bytes = vec![0; usize::try_from(run.range.len()).unwrap()];
        from.pages.read_exact_at(&mut bytes, run.offset_bytes).unwrap();
        let pages = writer.pages();
        pages.append(RemoteAddr(run.range.start()), &bytes, Zeros::Content).unwrap();
        pages.finish_range().unwrap();
    }
    writer.pages().finish_task().unwrap();
    let mut checkpoint = from.checkpoint;
    change(&mut checkpoint);
    writer.finish(&checkpoint).unwrap();
    for path in [image.clone(), image.join("inventory.tub"), image.join("pages.tub")] {
        dir.give(&path);
    }
    image
}

fn restore(image: &Path) -> Finished {
    Tub::new(User::Ordinary, "restore").arg(image).run()
}

fn verify(image: &Path) -> Finished {
    Tub::new(User::Ordinary, "verify").arg(image).run()
}

/// Neither restored nor called good, in words that name the image and say `words`.
fn is_bad(image: &Path, words: &[&str]) {
    let mut all = vec![image.to_str().unwrap()];
    all.extend(words);
    restore(image).fails_with(code::BAD_IMAGE, &all);
    let verified = verify(image);
    assert_eq!(verified.status.code(), Some(code::BAD_IMAGE), "{verified}");
}

#[test]
fn a_directory_that_does_not_exist() {
    let scratch = Scratch::new(User::Ordinary);
    is_bad(&scratch.join("missing"), &[]);
}

#[test]
fn a_directory_that_is_no_image() {
    let scratch = Scratch::new(User::Ordinary);
    is_bad(&scratch.make_dir("empty"), &[]);
    let other = scratch.make_dir("other");
    fs::write(
        other.join("inventory.tub"),
        "hello, I am a text file, and a long one at that. ".repeat(9),
    )
    .unwrap();
    fs::write(other.join("pages.tub"), "").unwrap();
    for name in ["inventory.tub", "pages.tub"] {
        scratch.give(&other.join(name));
    }
    is_bad(&other, &["not an image"]);
}

#[test]
fn a_truncated_inventory() {
    let made = Made::new();
    let whole = fs::metadata(made.file(&made.image, "inventory.tub")).unwrap().len();
    for len in [0, 8, 63, 64, whole / 2, whole - 1] {
        let image = made.copy(&format!("cut-{len}"));
        let file = OpenOptions::new().write(true).open(image.join("inventory.tub")).unwrap();
        file.set_len(len).unwrap();
        is_bad(&image, &[]);
    }
    Tub::new(User::Ordinary, "verify").arg(&made.image).run().succeeds();
}

#[test]
fn truncated_pages() {
    let made = Made::new();
    let image = made.copy("cut");
    let file = OpenOptions::new().write(true).open(made.file(&image, "pages.tub")).unwrap();
    // Mapping past the end of a file is what kills with SIGBUS, later and far away.
    file.set_len(file.metadata().unwrap().len() - 4096).unwrap();
    is_bad(&image, &[]);
}

#[test]
fn an_altered_inventory() {
    let made = Made::new();
    let bytes = fs::read(made.file(&made.image, "inventory.tub")).unwrap();
    for at in [70, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
        let image = made.copy(&format!("altered-{at}"));
        let file = OpenOptions::new().write(true).open(image.join("inventory.tub")).unwrap();
        file.write_all_at(&[bytes[at] ^ 0x10], at as u64).unwrap();
        is_bad(&image, &[]);
    }
}

#[test]
fn altered_pages_are_found_by_verify() {
    let made = Made::new();
    let image = made.copy("altered");
    let path = made.file(&image, "pages.tub");
    let bytes = fs::read(&path).unwrap();
    let at = bytes.iter().position(|byte| *byte != 0).unwrap();
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
    let verified = verify(&image);
    assert_eq!(verified.status.code(), Some(code::BAD_IMAGE), "{verified}");
}

#[test]
fn an_unknown_version() {
    let made = Made::new();
    let image = made.copy("future");
    // The header is 8 bytes of magic, then the major version (see FORMAT.md of tub-image).
    let file = OpenOptions::new().write(true).open(made.file(&image, "inventory.tub")).unwrap();
    file.write_all_at(&99_u16.to_le_bytes(), 8).unwrap();
    restore(&image).fails_with(code::BAD_IMAGE, &["version", "99"]);
}

#[test]
fn an_image_from_another_host() {
    let made = Made::new();
    // The way itself does no harm.
    let same = made.changed("same", |_| {});
    let copy = Restore::of(&made.original, &same, Flavour::USUAL).start();
    copy.goes_on();
    drop(copy);
    let image = made.changed("foreign", |checkpoint| {
        checkpoint.host.boot_id = ANOTHER_BOOT.to_owned();
        checkpoint.host.cpu_features.push("zz_of_tomorrow".to_owned());
        checkpoint.host.xsave_features |= 1 << 40;
        checkpoint.host.vdso.hash ^= 1;
        checkpoint.host.vdso.functions.clear();
    });
    // Every reason at once.
    is_bad(&image, &["zz_of_tomorrow", "xsave", "vdso"]);
    // Clones of a virtual machine have one boot in common, and may find themselves elsewhere.
    let image = made.changed("clone", |checkpoint| checkpoint.host.xsave_features |= 1 << 40);
    is_bad(&image, &["xsave"]);
}

#[test]
fn an_image_from_before_a_reboot() {
    let made = Made::new();
    let image = made.changed("old", |checkpoint| {
        checkpoint.host.boot_id = ANOTHER_BOOT.to_owned();
        // As if that host had been up for ten years.
        checkpoint.clocks.monotonic_ns += 10 * 365 * 86_400 * 1_000_000_000;
        checkpoint.clocks.boottime_ns += 10 * 365 * 86_400 * 1_000_000_000;
    });
    // A time namespace carries the clock on (design decision E9). If it went back instead, every
    // thread that sleeps until a point in time would sleep for ten years.
    for pids in [Pids::Keep, Pids::New] {
        let flavour = Flavour { pids, ..Flavour::USUAL };
        let copy = Restore::of(&made.original, &image, flavour).start();
        copy.goes_on();
        copy.go(&flavour.promises());
        copy.verdict();
    }
}

#[test]
fn a_file_that_others_may_write() {
    use std::os::unix::fs::PermissionsExt;
    let made = Made::new();
    let image = made.copy("open");
    let path = made.file(&image, "inventory.tub");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    restore(&image).fails_with(code::BAD_IMAGE, &["inventory.tub"]);
}

#[test]
fn where_nothing_is_the_path_is_doubted() {
    let scratch = Scratch::new(User::Ordinary);
    let nothing = scratch.join("nothing");
    restore(&nothing).fails_with(code::BAD_IMAGE, &["nothing is there", "check the path"]);
}

#[test]
fn a_file_that_the_image_refers_to_has_changed_or_gone() {
    let mut original = Subject::new("files", User::Ordinary).start();
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    let data = original.dir().join("state/data");
    let bytes = fs::read(&data).unwrap();
    fs::write(&data, &bytes[1..]).unwrap();
    fs::remove_file(original.dir().join("state/log")).unwrap();
    // Both at once.
    restore(&image).fails_with(code::BAD_IMAGE, &["state/data", "state/log"]);
    let verified = verify(&image);
    assert!(!verified.status.success(), "{verified}");
}

#[test]
fn a_file_in_the_place_of_a_socket_stays() {
    let mut original = Subject::new("sockets", User::Ordinary).start();
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    let place = original.dir().join("state/unix.sock");
    fs::remove_file(&place).unwrap();
    fs::write(&place, "precious").unwrap();
    original.dir().give(&place);
    for pids in [Pids::Keep, Pids::New] {
        let flavour = Flavour { pids, ..Flavour::USUAL };
        let tub = Restore::of(&original, &image, flavour).tub();
        tub.run().fails_with(code::HOST_LACKS, &["unix.sock", "in use"]);
        assert_eq!(fs::read(&place).unwrap(), b"precious");
    }
}

#[test]
fn inspecting_and_verifying_a_good_image() {
    let made = Made::new();
    verify(&made.image).succeeds();
    let text = Tub::new(User::Ordinary, "inspect").arg(&made.image).run().succeeds();
    assert!(text.stdout.contains("tub-subject"), "{text}");
    let json = Tub::new(User::Ordinary, "inspect").arg(&made.image).arg("--json").run().succeeds();
    let parsed: Result<serde_json::Value, _> = serde_json::from_str(&json.stdout);
    assert!(parsed.is_ok_and(|value| value.is_object()), "{json}");
    let copy = Restore::of(&made.original, &made.image, Flavour::USUAL).start();
    copy.goes_on();
}

#[test]
fn inspect_names_secrets_and_never_their_values() {
    let mut original = Subject::new("counter", User::Ordinary)
        .env("DB_PASSWORD", "hunter2")
        .env("SERVICE_URL", "https://app:hunter2@example.org/")
        .env("MODE", "hunter2")
        .start();
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    let page = Tub::new(User::Ordinary, "inspect").arg(&image).run().succeeds();
    let json = Tub::new(User::Ordinary, "inspect").arg(&image).arg("--json").run().succeeds();
    for told in [&page, &json] {
        assert!(told.stdout.contains("DB_PASSWORD"), "{told}");
        assert!(told.stdout.contains("SERVICE_URL"), "{told}");
        assert!(!told.stdout.contains("MODE"), "{told}");
        assert!(!told.stdout.contains("hunter2"), "{told}");
    }
    let object: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let task = &object["tasks"][0];
    assert_eq!(task["secret_variables"].as_array().unwrap().len(), 2, "{json}");
    // What is stored is in some mapping, and all of it is on the disk.
    let stored = |of: &serde_json::Value| of["stored_bytes"].as_u64().unwrap();
    let kinds: u64 = task["memory"].as_object().unwrap().values().map(stored).sum();
    assert!(kinds > 0 && kinds <= stored(&object), "{json}");
}

#[test]
fn an_instance_holds_no_descriptor_of_the_restoring_process() {
    let made = Made::new();
    // Without FD_CLOEXEC, so that whatever we start inherits it: a careless parent.
    let secret = made.original.dir().join("secret");
    fs::write(&secret, "secret").unwrap();
    let file = fs::File::open(&secret).unwrap();
    let careless = nix::unistd::dup(&file).unwrap();
    for pids in [Pids::Keep, Pids::New] {
        let flavour = Flavour { pids, ..Flavour::USUAL };
        let copy = Restore::of(&made.original, &made.image, flavour).start();
        copy.goes_on();
        let visible = copy.visible();
        let leaked = visible.descriptors.values().find(|target| target.ends_with("/secret"));
        assert_eq!(leaked, None, "{visible:?}");
    }
    drop(careless);
}

/// A path in `/proc` is one of the kernel's files only where it follows none of the links there; and whatever it
/// leads to is not waited for.
#[test]
fn a_file_of_the_kernels_that_leads_to_a_fifo_is_not_waited_for() {
    let made = Made::of(Subject::new("paths", User::Ordinary).start());
    let fifo = made.original.dir().join("state/quiet");
    let leads = format!("/proc/self/root{}", fifo.display());
    let image = made.changed("leads-astray", |checkpoint| {
        let status = checkpoint.files.iter_mut().find_map(|file| match &mut file.kind {
            FileKind::Kernel { path, .. } if path == "/proc/self/status" => Some(path),
            _ => None,
        });
        *status.unwrap() = leads.clone();
    });
    restore(&image).fails_with(code::HOST_LACKS, &[&leads, "ELOOP"]);
}
