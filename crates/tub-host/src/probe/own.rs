//! What a process may do with itself: what a restore is made of.
//!
//! In: helpers for what cannot be undone. Out: probes.

use super::helper::{self, Helper};
use super::{EVERYTHING, KEEP_IDS, NOTHING, Probe, RESTORE, said, tried};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statvfs::{FsFlags, statvfs};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Everything that takes no other process.
pub(super) fn probes(helper: &Helper<'_>, image_dir: &Path) -> Vec<Probe> {
    let bounds = helper.run(helper::MEMORY_BOUNDS);
    let personality = helper.run(helper::PERSONALITY);
    let executable = helper.run(helper::EXECUTABLE);
    let has =
        |there: bool| if there { Ok(()) } else { Err("this kernel does not know it".to_owned()) };
    vec![
        tried(
            "kernel support for checkpoints",
            kernel_support(),
            "neither checkpoint nor restore: the kernel lacks CONFIG_CHECKPOINT_RESTORE",
            EVERYTHING,
        ),
        tried(
            "vdso at a chosen place",
            said(tub_sys::try_vdso_mapping()),
            "no image can be restored (ARCH_MAP_VDSO_64)",
            RESTORE,
        ),
        tried(
            "bounds of memory",
            bounds.outcome(helper::MEMORY_BOUNDS),
            "no image can be restored (PR_SET_MM_MAP)",
            RESTORE,
        ),
        tried(
            "name of the executable",
            executable.outcome(helper::EXECUTABLE),
            "/proc/PID/exe of restored processes names tub",
            NOTHING,
        ),
        tried(
            "personality",
            personality.outcome(helper::PERSONALITY),
            "processes that changed their personality, as setarch does, cannot be restored",
            NOTHING,
        ),
        tried(
            "clone3",
            has(tub_sys::has_clone3()),
            "threads are made by clone; ids cannot be kept: use --pids new",
            KEEP_IDS,
        ),
        tried(
            "timers with chosen ids",
            has(tub_sys::has_timer_restore_ids()),
            "processes whose POSIX timers have gaps between their ids cannot be restored \
             (Linux 6.15 or later)",
            NOTHING,
        ),
        tried(
            "populating pages before use",
            has(tub_sys::knows_advice(POPULATE_WRITE)),
            "`tub train` gains nothing (MADV_POPULATE_WRITE, Linux 5.14 or later)",
            NOTHING,
        ),
        tried(
            "guard pages without mappings",
            has(tub_sys::knows_advice(tub_sys::MADV_GUARD_INSTALL)),
            "an image of a process that has some cannot be restored (Linux 6.13 or later)",
            NOTHING,
        ),
        tried(
            "sealed memory",
            has(tub_sys::has_mseal()),
            "an image of a process that has some cannot be restored (mseal, Linux 6.10 or later)",
            NOTHING,
        ),
        tried(
            "droppable memory",
            has(tub_sys::has_droppable()),
            "an image of a process that has some cannot be restored (Linux 6.11 or later)",
            NOTHING,
        ),
        tried(
            "memory files",
            said(memfd_create(c"tub-check", MFdFlags::MFD_CLOEXEC)),
            "processes with memory shared by several mappings cannot be restored (memfd_create)",
            NOTHING,
        ),
        tried(
            "adopting orphans",
            said(tub_sys::try_subreaper()),
            "processes that adopt orphans cannot be restored (PR_SET_CHILD_SUBREAPER)",
            NOTHING,
        ),
        tried(
            "executable mappings of images",
            executable_mappings(image_dir),
            "compiled code is copied instead of mapped: restores are slower and share less",
            NOTHING,
        ),
    ]
}

/// linux/mman.h: MADV_POPULATE_WRITE.
const POPULATE_WRITE: i32 = 23;

/// KERNEL(since 3.10): `/proc/PID/timers` exists only with CONFIG_CHECKPOINT_RESTORE, which
/// `ARCH_MAP_VDSO_64` and `PR_SET_MM_MAP` depend on as well.
fn kernel_support() -> Result<(), String> {
    fs::metadata("/proc/self/timers").map(drop).map_err(|error| error.to_string())
}

/// By a nameless file of ours in `dir`; where we may not write there, by how it is mounted.
fn executable_mappings(dir: &Path) -> Result<(), String> {
    let failed = |reason: &dyn std::fmt::Display| format!("{}: {reason}", dir.display());
    let nameless = File::options()
        .read(true)
        .write(true)
        .custom_flags(nix::fcntl::OFlag::O_TMPFILE.bits())
        .mode(0o600)
        .open(dir);
    if let Ok(file) = nameless {
        let mapped = tub_sys::try_executable_mapping(file.as_fd());
        return mapped.map_err(|errno| failed(&errno));
    }
    let found = statvfs(dir).map_err(|errno| failed(&errno))?;
    if found.flags().contains(FsFlags::ST_NOEXEC) {
        return Err(failed(&"on a file system mounted noexec"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_there_is_no_place_for_images() {
        let error = executable_mappings(Path::new("/nonexistent")).unwrap_err();
        assert!(error.starts_with("/nonexistent: "), "{error}");
        executable_mappings(&std::env::temp_dir()).unwrap();
    }

    #[test]
    fn this_kernel_has_what_the_tests_of_the_engine_need() {
        assert_eq!(kernel_support(), Ok(()));
        assert_eq!(said(tub_sys::try_subreaper()), Ok(()));
    }
}
