//! The vdso of another kernel.
//!
//! There is one kernel here, so its vdso is passed off as another one's: the image says that it
//! comes from elsewhere, and whatever the process knows of the old one is led to the new one.

use crate::images::{ANOTHER_BOOT, Made};
use tub_testkit::{Flavour, Memory, Pids, Restore, Subject, User, code, every};
use tub_units::NsPid;

const FEW: [Flavour; 2] =
    [Flavour::USUAL, Flavour { user: User::Root, pids: Pids::New, memory: Memory::Lazy }];

#[test]
fn a_process_that_grew_up_with_another_vdso() {
    every(&FEW, |flavour| {
        let made = Made::of(Subject::new("vdso", flavour.user).start());
        let foreign = made.changed("foreign", |checkpoint| {
            checkpoint.host.boot_id = ANOTHER_BOOT.to_owned();
            checkpoint.host.vdso.hash ^= 1;
        });
        let copy = Restore::of(&made.original, &foreign, flavour).start();
        // The old one is memory like any other now, and the kernel's lies elsewhere.
        let maps = std::fs::read_to_string(copy.process().proc("maps")).unwrap();
        let both: Vec<_> = maps.lines().filter(|line| line.contains(" rwx")).collect();
        assert!(both.is_empty(), "{both:#?}");
        assert_eq!(maps.lines().filter(|line| line.ends_with("[vdso]")).count(), 1, "{maps}");

        // The next image has both of them.
        let mut copy = copy;
        let image = copy.dir().join("second");
        copy.checkpoint_and_end(&image);
        let second = Restore::of(&copy, &image, flavour).start();
        second.go(&flavour.promises());
        second.verdict();
    });
}

/// Its code is there, but what it reads is not.
#[test]
fn a_thread_in_the_middle_of_another_vdso() {
    let made = Made::of(Subject::new("vdso", User::Ordinary).start());
    let mut tid = NsPid(0);
    let image = made.changed("inside", |checkpoint| {
        checkpoint.host.boot_id = ANOTHER_BOOT.to_owned();
        checkpoint.host.vdso.hash ^= 1;
        let task = &mut checkpoint.tasks[0];
        let vdso = task.vmas.iter().find(|vma| vma.backing == tub_model::Backing::Vdso).unwrap();
        tid = task.threads[0].tid;
        task.threads[0].registers.general[16] = vdso.saved[0].start() + 0x900;
    });
    let restore = Restore::of(&made.original, &image, Flavour::USUAL).tub();
    restore.run().fails_with(code::HOST_LACKS, &["vdso", &tid.to_string()]);
}

/// Images of processes whose vdso was not understood.
#[test]
fn a_vdso_whose_functions_are_unknown() {
    let made = Made::of(Subject::new("vdso", User::Ordinary).start());
    let image = made.changed("unknown", |checkpoint| {
        checkpoint.host.boot_id = ANOTHER_BOOT.to_owned();
        checkpoint.host.vdso.hash ^= 1;
        checkpoint.host.vdso.functions.clear();
    });
    let restore = Restore::of(&made.original, &image, Flavour::USUAL).tub();
    restore.run().fails_with(code::BAD_IMAGE, &["vdso"]);
}
