//! Where an image may be put, what it may replace, and what a failure leaves: nothing.

use super::{Scratch, append_pages, sample, write};
use crate::{ErrorKind, INVENTORY_FILE, Image, ImageWriter, PAGES_FILE, Replace, Zeros};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::os::unix::fs::FileExt;
use std::path::Path;
use tub_model::{Backing, Checkpoint, FileKind, MemoryFileKind};
use tub_units::{AddrRange, FdNumber, NsPid, RemoteAddr};

fn refusal(dir: &Path, replace: Replace) -> ErrorKind {
    let error = ImageWriter::create(dir, replace).unwrap_err();
    assert!(!error.to_string().ends_with('.'), "{error}");
    error.kind().clone()
}

#[test]
fn an_empty_directory_is_taken_over() {
    let scratch = Scratch::new();
    let dir = scratch.path("image");
    std::fs::create_dir(&dir).unwrap();
    write(&dir.join(""), Replace::Never, &sample::checkpoint()).unwrap();
    Image::open(&dir).unwrap();
    assert_eq!(scratch.names(), ["image"]);
}

#[test]
fn what_is_no_image_is_never_replaced() {
    let scratch = Scratch::new();
    let refused = |name: &str, expected: &str| {
        for replace in [Replace::Never, Replace::AnyImage, Replace::ImageWithId([0; 16])] {
            let kind = refusal(&scratch.path(name), replace);
            let ErrorKind::ExistsOther { what } = kind else { panic!("{name}: {kind:?}") };
            assert!(what.contains(expected), "{name}: {what}");
        }
    };
    std::fs::write(scratch.path("file"), b"precious").unwrap();
    refused("file", "a file");
    std::os::unix::fs::symlink("nowhere", scratch.path("link")).unwrap();
    refused("link", "symbolic link");
    std::fs::create_dir(scratch.path("home")).unwrap();
    std::fs::write(scratch.path("home").join("thesis.txt"), b"precious").unwrap();
    refused("home", "thesis.txt");
    // An image with somebody's file beside it.
    write(&scratch.path("image"), Replace::Never, &sample::checkpoint()).unwrap();
    std::fs::write(scratch.path("image").join("notes"), b"precious").unwrap();
    refused("image", "notes");
    std::fs::create_dir(scratch.path("look-alike")).unwrap();
    std::fs::write(scratch.path("look-alike").join(INVENTORY_FILE), b"precious").unwrap();
    refused("look-alike", "none of ours");
    assert_eq!(scratch.names(), ["file", "home", "image", "link", "look-alike"]);
}

/// Whoever may write to the parent may put it there while the original stands still.
#[test]
fn a_fifo_that_looks_like_an_image_is_no_image_and_not_waited_for() {
    let scratch = Scratch::new();
    let dir = scratch.path("image");
    std::fs::create_dir(&dir).unwrap();
    let mode = nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR;
    nix::unistd::mkfifo(&dir.join(INVENTORY_FILE), mode).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(refusal(&dir, Replace::AnyImage)));
    let kind = told.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
    assert!(matches!(kind, ErrorKind::ExistsOther { .. }), "{kind:?}");
}

/// A training that was killed between the two leaves its recording under its other name.
#[test]
fn what_a_killed_training_leaves_is_part_of_the_image() {
    let scratch = Scratch::new();
    let dir = scratch.path("image");
    write(&dir, Replace::Never, &sample::checkpoint()).unwrap();
    std::fs::write(dir.join("hot.tub.new"), b"half").unwrap();
    write(&dir, Replace::AnyImage, &sample::checkpoint()).unwrap();
    Image::open(&dir).unwrap();
    assert_eq!(scratch.names(), ["image"]);
}

#[test]
fn an_image_is_replaced_only_when_asked_for() {
    let scratch = Scratch::new();
    let dir = scratch.path("image");
    let mut checkpoint = sample::checkpoint();
    let old_id = checkpoint.provenance.image_id;
    write(&dir, Replace::Never, &checkpoint).unwrap();
    let exists = ErrorKind::ExistsImage { image_id: Some(old_id) };
    assert_eq!(refusal(&dir, Replace::Never), exists);
    assert_eq!(refusal(&dir, Replace::ImageWithId([9; 16])), exists);

    // Somebody has the old image mapped, and it has been trained.
    let old = Image::open(&dir).unwrap();
    old.record_hot(&[sample::pages(4, 5)]).unwrap();
    checkpoint.provenance.image_id = [9; 16];
    write(&dir, Replace::ImageWithId(old_id), &checkpoint).unwrap();
    let new = Image::open(&dir).unwrap();
    assert_eq!(new.checkpoint.provenance.image_id, [9; 16]);
    assert_eq!(new.hot(), []);
    let mut page = [0; 4096];
    old.pages.read_exact_at(&mut page, old.runs[0][0].offset_bytes).unwrap();
    assert!(page == *sample::memory(old.runs[0][0].range).first_chunk().unwrap());

    checkpoint.provenance.image_id = [10; 16];
    write(&dir, Replace::AnyImage, &checkpoint).unwrap();
    assert_eq!(Image::open(&dir).unwrap().checkpoint.provenance.image_id, [10; 16]);
    assert_eq!(scratch.names(), ["image"]);
}

#[test]
fn an_image_behind_a_link_is_replaced_where_it_is() {
    let scratch = Scratch::new();
    let mut checkpoint = sample::checkpoint();
    write(&scratch.path("v1"), Replace::Never, &checkpoint).unwrap();
    std::os::unix::fs::symlink("v1", scratch.path("current")).unwrap();
    checkpoint.provenance.image_id = [9; 16];
    write(&scratch.path("current"), Replace::AnyImage, &checkpoint).unwrap();
    assert!(scratch.path("current").is_symlink());
    assert_eq!(Image::open(&scratch.path("v1")).unwrap().checkpoint, checkpoint);
}

#[test]
fn a_damaged_image_is_replaced_by_nobody_who_asks_for_its_id() {
    let scratch = Scratch::new();
    let dir = scratch.path("image");
    let checkpoint = sample::checkpoint();
    write(&dir, Replace::Never, &checkpoint).unwrap();
    std::fs::remove_file(dir.join(PAGES_FILE)).unwrap();
    let id = checkpoint.provenance.image_id;
    let damaged = ErrorKind::ExistsImage { image_id: None };
    assert_eq!(refusal(&dir, Replace::ImageWithId(id)), damaged);
    write(&dir, Replace::AnyImage, &checkpoint).unwrap();
}

#[test]
fn a_place_that_cannot_be_is_refused() {
    let scratch = Scratch::new();
    let missing = scratch.path("missing").join("image");
    assert_eq!(refusal(&missing, Replace::Never), ErrorKind::ParentMissing);
    assert_eq!(refusal(Path::new("/"), Replace::Never), ErrorKind::NoName);
    assert_eq!(refusal(&scratch.path("missing").join(".."), Replace::Never), ErrorKind::NoName);
    assert_eq!(refusal(Path::new(""), Replace::Never), ErrorKind::NoName);
}

#[test]
fn an_unfinished_image_leaves_nothing() {
    let scratch = Scratch::new();
    let mut writer = ImageWriter::create(&scratch.path("image"), Replace::Never).unwrap();
    assert_eq!(scratch.names().len(), 1);
    assert!(scratch.names()[0].starts_with(".image.tub-"), "{:?}", scratch.names());
    writer.pages().append(RemoteAddr(4096), &[1; 4096], Zeros::Implied).unwrap();
    drop(writer);
    assert_eq!(scratch.names(), [""; 0]);
}

#[test]
fn the_leftover_of_a_crash_is_no_obstacle() {
    let scratch = Scratch::new();
    let writer = ImageWriter::create(&scratch.path("image"), Replace::Never).unwrap();
    std::mem::forget(writer);
    let leftover = scratch.names().remove(0);
    write(&scratch.path("image"), Replace::Never, &sample::checkpoint()).unwrap();
    assert_eq!(scratch.names(), [leftover.as_str(), "image"]);
    let error = Image::open(&scratch.path(&leftover)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NotAnImage { .. }));
}

#[test]
fn what_a_killed_writer_left_is_removed_by_the_next() {
    let scratch = Scratch::new();
    let leftover = scratch.path(".image.tub-4194305-0");
    let other = scratch.path(".image2.tub-4194305-0");
    for dir in [&leftover, &other] {
        std::fs::create_dir(dir).unwrap();
        std::fs::write(dir.join(PAGES_FILE), "half").unwrap();
    }
    // What no writer of ours makes is not touched, nor is what somebody writes to.
    let precious = scratch.path(".image.tub-1-1");
    std::fs::create_dir(&precious).unwrap();
    std::fs::write(precious.join("precious"), "").unwrap();
    let busy = ImageWriter::create(&scratch.path("image"), Replace::Never).unwrap();
    let still = busy.temporary().file_name().unwrap().to_owned();
    write(&scratch.path("image"), Replace::Never, &sample::checkpoint()).unwrap();
    let mut expected =
        [".image.tub-1-1", ".image2.tub-4194305-0", "image", still.to_str().unwrap()];
    expected.sort_unstable();
    assert_eq!(scratch.names(), expected);
}

#[test]
fn a_trained_image_is_replaced_as_a_whole() {
    let scratch = Scratch::new();
    let dir = scratch.path("image");
    write(&dir, Replace::Never, &sample::checkpoint()).unwrap();
    std::fs::write(dir.join(crate::HOT_FILE), "advice").unwrap();
    write(&dir, Replace::AnyImage, &sample::checkpoint()).unwrap();
    assert_eq!(scratch.names(), ["image"]);
    assert!(!dir.join(crate::HOT_FILE).exists());
}

#[test]
fn a_place_taken_in_the_meantime_is_not_overwritten() {
    let scratch = Scratch::new();
    let dir = scratch.path("image");
    let mut slow = ImageWriter::create(&dir, Replace::Never).unwrap();
    let mut checkpoint = sample::checkpoint();
    write(&dir, Replace::Never, &checkpoint).unwrap();
    checkpoint.provenance.image_id = [9; 16];
    append_pages(&mut slow, &checkpoint).unwrap();
    let error = slow.finish(&checkpoint).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ExistsImage { .. }), "{error}");
    assert_eq!(Image::open(&dir).unwrap().checkpoint, sample::checkpoint());
    assert_eq!(scratch.names(), ["image"]);
}

#[test]
fn parts_that_do_not_fit_together_are_never_finished() {
    let pages = sample::pages;
    type Spoil = fn(&mut Checkpoint);
    let cases: &[(&str, Spoil)] = &[
        ("no task", |c| c.tasks.clear()),
        ("4 tasks and memory files, and pages of 5", |c| {
            c.tasks.pop();
            c.zombies.clear();
        }),
        ("main task has a parent", |c| c.tasks[0].parent = Some(0)),
        ("4250 does not come after a parent", |c| c.tasks[1].parent = Some(1)),
        ("4250 does not come after a parent", |c| c.tasks[1].parent = None),
        ("zombie 4251 has no parent", |c| c.zombies[0].parent = 2),
        ("two threads", |c| {
            c.tasks[1].pid = NsPid(4243);
            c.tasks[1].threads[0].tid = NsPid(4243);
        }),
        ("two threads", |c| c.zombies[0].pid = NsPid(4242)),
        ("watches file 99 of", |c| {
            let FileKind::Epoll { targets } = &mut c.files[6].kind else { panic!() };
            targets[0].file = 99;
        }),
        ("no thread", |c| c.tasks[0].threads.clear()),
        ("main thread", |c| c.tasks[0].pid = NsPid(7)),
        ("two threads", |c| c.tasks[0].threads[1].tid = NsPid(4300)),
        ("0 is no thread id", |c| c.tasks[0].threads[1].tid = NsPid(0)),
        ("xsave", |c| c.tasks[0].threads[1].registers.xsave.truncate(100)),
        ("impossible name", |c| c.tasks[0].threads[1].name = "sixteen bytes long".into()),
        ("descriptor 5 is file 99", |c| c.tasks[0].fds[1].file = 99),
        ("descriptor 5 follows 5", |c| c.tasks[0].fds[2].number = FdNumber(5)),
        ("not absolute", |c| c.tasks[0].cwd = "relative".into()),
        ("out of order", |c| c.tasks[0].vmas.swap(0, 1)),
        ("leaves its mapping", |c| {
            c.tasks[0].vmas[6].saved[0] = AddrRange::new(0x4c_c000, 0x4d_3000).unwrap()
        }),
        ("not made of pages", |c| {
            c.tasks[0].vmas[5].range = AddrRange::new(0x478_001, 0x479_000).unwrap()
        }),
        ("is saved", |c| {
            c.tasks[0].vmas[7].guards = vec![AddrRange::new(0x4d_4000, 0x4d_5000).unwrap()]
        }),
        ("leaves its mapping", |c| {
            c.tasks[0].vmas[7].guards = vec![AddrRange::new(0x4d_7000, 0x4d_9000).unwrap()]
        }),
        ("impossible offset", |c| {
            let Backing::PrivateFile { offset_bytes, .. } = &mut c.tasks[0].vmas[1].backing else {
                panic!("a private file mapping")
            };
            *offset_bytes = 4097;
        }),
        ("not within a saved range", |c| c.tasks[0].vmas[3].saved.clear()),
        ("memory file 3 of 3", |c| {
            for file in &mut c.files {
                if let FileKind::Memory { file, .. } = &mut file.kind {
                    *file = 3;
                }
            }
        }),
        ("names process 9", |c| {
            c.files.last_mut().unwrap().kind = FileKind::PidFd { of: Some(NsPid(9)) }
        }),
        ("impossible name", |c| {
            c.memory_files[0].kind = MemoryFileKind::Memfd { name: "x".repeat(250) }
        }),
        ("leaves memory file", |c| c.memory_files[0].size_bytes = 0x42_0000),
        ("private file mapping are missing", |c| {
            c.tasks[0].vmas[0].saved = vec![AddrRange::new(0x40_0000, 0x40_1000).unwrap()];
        }),
    ];
    let whole = sample::checkpoint();
    assert_eq!(whole.tasks[0].vmas[6].saved[0], pages(204, 210));
    for &(expected, spoil) in cases {
        let scratch = Scratch::new();
        let mut writer = ImageWriter::create(&scratch.path("image"), Replace::Never).unwrap();
        append_pages(&mut writer, &whole).unwrap();
        let mut checkpoint = whole.clone();
        spoil(&mut checkpoint);
        let error = writer.finish(&checkpoint).unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert_eq!(scratch.names(), [""; 0]);
    }
}

/// Runs `act` on a thread with mounts of its own; false, with the reason printed, where we may not.
fn with_mount(
    dir: &Path,
    flags: MsFlags,
    data: &'static str,
    act: impl FnOnce() + Send + 'static,
) -> bool {
    let dir = dir.to_owned();
    let outcome = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )?;
        mount(Some("tmpfs"), &dir, Some("tmpfs"), flags, Some(data))?;
        act();
        Ok::<(), nix::Error>(())
    });
    match outcome.join() {
        Ok(Ok(())) => true,
        Ok(Err(errno)) => {
            println!("skipped: cannot mount a tmpfs of our own: {errno}");
            false
        }
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

#[test]
fn a_full_disk_is_called_so_and_nothing_is_left() {
    let scratch = Scratch::new();
    let disk = scratch.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let inside = disk.clone();
    with_mount(&disk, MsFlags::empty(), "size=128k", move || {
        // Too many pages.
        let mut writer = ImageWriter::create(&inside.join("image"), Replace::Never).unwrap();
        let memory = vec![1; 2 << 20];
        let error = writer.pages().append(RemoteAddr(4096), &memory, Zeros::Implied).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NoSpace, "{error}");
        drop(writer);
        assert_eq!(std::fs::read_dir(&inside).unwrap().count(), 0);
        // Room for the pages, but not for the inventory.
        let mut checkpoint = sample::checkpoint();
        for vma in checkpoint.tasks.iter_mut().flat_map(|task| &mut task.vmas) {
            vma.saved.clear();
        }
        let threads = 0..100;
        let threads = threads.map(|index| sample::thread(5000 + index, "worker"));
        checkpoint.tasks[0].threads.extend(threads);
        let error = write(&inside.join("image"), Replace::Never, &checkpoint).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NoSpace, "{error}");
        assert_eq!(std::fs::read_dir(&inside).unwrap().count(), 0);
    });
}

#[test]
fn a_read_only_file_system_is_not_writable() {
    let scratch = Scratch::new();
    let disk = scratch.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let inside = disk.join("image");
    with_mount(&disk, MsFlags::MS_RDONLY, "", move || {
        assert_eq!(refusal(&inside, Replace::Never), ErrorKind::NotWritable);
    });
}

#[test]
fn a_mount_point_is_refused_before_anything_is_written() {
    let scratch = Scratch::new();
    let disk = scratch.path("a b");
    std::fs::create_dir(&disk).unwrap();
    let inside = disk.clone();
    with_mount(&disk, MsFlags::empty(), "", move || {
        assert_eq!(refusal(&inside, Replace::Never), ErrorKind::MountPoint);
        write(&inside.join("image"), Replace::Never, &sample::checkpoint()).unwrap();
    });
    assert_eq!(scratch.names(), ["a b"]);
}
