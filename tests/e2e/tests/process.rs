//! The process as such: ids, names, limits, what /proc says of it, and many threads.

use crate::round_trip::{gets_up_well, restored, round_trips};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tub_testkit::{
    Flavour, Instance, Memory, Pids, Process, Restore, Scratch, Subject, User, as_user, every,
    is_root, skipped, wait_for,
};

#[test]
fn directory_masks_limits_names_and_rights_survive() {
    round_trips("attributes", &Flavour::LAZY);
}

/// A JVM has such ones for its threads where their names are of letters beyond ASCII.
#[test]
fn a_thread_whose_name_was_cut_off_within_a_letter() {
    every(&Flavour::LAZY[..2], |flavour| {
        let original = Subject::new("attributes", flavour.user).options(&["cut-off"]).start();
        gets_up_well(original, flavour);
    });
}

#[test]
fn ids_are_kept_or_work_as_new_ones() {
    round_trips("ids", &Flavour::ALL);
}

#[test]
fn command_line_environment_and_executable_are_those_of_before() {
    every(&Flavour::ALL, |flavour| {
        let subject = Subject::new("identity", flavour.user).options(&["an argument", ""]);
        let mut original = subject.env("TUB_TEST", "one=two").start();
        let image = original.dir().join("image");
        original.checkpoint_and_end(&image);
        let copy = Restore::of(&original, &image, flavour).start();
        // From outside as well: this is what `ps` shows.
        let cmdline = std::fs::read(copy.process().proc("cmdline")).unwrap();
        assert!(cmdline.ends_with(b"\0an argument\0\0"), "{cmdline:?}");
        copy.go(&flavour.promises());
        copy.verdict();
    });
}

#[test]
fn two_hundred_threads_survive() {
    round_trips("threads-200", &Flavour::LAZY);
}

/// And checkpointed at once again, when the last of them may hardly be back.
#[test]
fn a_thousand_threads_survive_twice() {
    every(&[Flavour::LAZY[1], Flavour::LAZY[2]], |flavour| {
        let mut life = Subject::new("threads-1000", flavour.user).start();
        for generation in 1..=2 {
            let image = life.dir().join(format!("image-{generation}"));
            life.checkpoint_and_end(&image);
            life = Restore::of(&life, &image, flavour).start();
        }
        life.go(&flavour.promises());
        life.verdict();
    });
}

/// For a lock, a child, room, a signal, another's word; and until a point in time.
#[test]
fn calls_that_wait_for_somebody_still_wait() {
    round_trips("blocked", &Flavour::LAZY);
}

/// As mutexes that know their owner.
#[test]
fn futexes_that_know_their_owner_are_waited_for_where_ids_are_kept() {
    round_trips("owned-futexes", &[Flavour::LAZY[0], Flavour::LAZY[1]]);
}

/// Their owners' ids stand in them, so ids must be kept.
#[test]
fn mutexes_that_know_their_owner_survive_where_ids_are_kept() {
    round_trips("mutexes", &[Flavour::LAZY[0], Flavour::LAZY[1]]);
}

/// The limits of the restoring side win, and the user is told.
#[test]
fn a_limit_that_shrinks_is_told_of() {
    for flavour in [Flavour::LAZY[1], Flavour::LAZY[2]] {
        let mut original = Subject::new("counter", flavour.user).start();
        let image = original.dir().join("image");
        original.checkpoint_and_end(&image);
        let copy = Restore::of(&original, &image, flavour).after("ulimit -n 300").start();
        let complaints = copy.complaints();
        let (said, limits) = ("limit of open files shrinks from", copy.process().proc("limits"));
        assert!(complaints.contains(said) && complaints.contains("to 300"), "{complaints}");
        let limits = std::fs::read_to_string(limits).unwrap();
        let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["300", "300"]);
        copy.go(&flavour.promises());
        copy.verdict();
    }
}

/// As far as the kernel knows who owns what.
#[test]
fn mutexes_that_will_not_know_their_owner_are_told_of() {
    let flavour = Flavour { pids: Pids::New, ..Flavour::USUAL };
    let mut original = Subject::new("mutexes", flavour.user).start();
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    // With glibc a waiter for a robust one ends it at once.
    let copy = Restore::of(&original, &image, flavour).try_start();
    let complaints = copy.map_or_else(|told| told, |copy| copy.complaints());
    assert!(complaints.contains("holds 2 robust mutexes"), "{complaints}");
    let waits = complaints.matches("waits for a priority-inheriting mutex").count();
    assert_eq!(waits, 2, "{complaints}");
}

#[test]
fn a_busy_program_loses_no_step() {
    every(&Flavour::ALL, |flavour| {
        let copy = restored("counter", flavour);
        copy.goes_on();
        copy.go(&flavour.promises());
        copy.verdict();
    });
}

/// Lines of `/proc/PID/status` that say who a process is and what it may do.
fn rights(process: Process) -> Vec<String> {
    let status = std::fs::read_to_string(process.proc("status")).unwrap();
    let wanted = ["Uid:", "Gid:", "Groups:", "CapPrm:", "CapEff:"];
    let lines = status.lines().filter(|line| wanted.iter().any(|start| line.starts_with(start)));
    lines.map(|line| line.trim().to_owned()).collect()
}

/// A `sleep` that root has started with `words` of setpriv(1), and root's copies of it.
fn keeps_its_rights(words: &[&str]) {
    if !is_root() {
        return skipped("only root gives rights to others");
    }
    let ways = [Pids::Keep, Pids::New];
    every(&ways.map(|pids| Flavour { user: User::Root, pids, memory: Memory::Eager }), |flavour| {
        let dir = Arc::new(Scratch::new(flavour.user));
        let mut command = as_user(flavour.user, Path::new("/usr/bin/setpriv"));
        command.args(words).args(["/bin/sleep", "1000"]).current_dir("/");
        let mut original = Instance::start("sleep", &dir, command, |_| Some(()));
        let sleeps = || {
            let comm = std::fs::read_to_string(original.process().proc("comm")).unwrap_or_default();
            (comm == "sleep\n").then_some(())
        };
        wait_for(Duration::from_secs(20), sleeps).unwrap();
        let before = rights(original.process());
        let image = original.dir().join("image");
        original.checkpoint_and_end(&image);
        let copy = Restore::of(&original, &image, flavour).start();
        assert_eq!(rights(copy.process()), before, "{}", copy.tell());
    });
}

/// As `AmbientCapabilities=` of systemd(1) gives it to a service of a user of its own.
#[test]
fn a_user_with_a_capability_keeps_it() {
    let one = "+net_bind_service";
    let user = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    keeps_its_rights(&[&user[..], &["--inh-caps", one, "--ambient-caps", one]].concat());
}

#[test]
fn root_with_other_groups_than_roots_keeps_them() {
    keeps_its_rights(&["--groups", "65533,4321"]);
}
