//! Signals: their state inside the process, and their way to it from outside.

use crate::round_trip::{restored, round_trips};
use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tub_testkit::{
    Flavour, Instance, Process, Restore, Scratch, Subject, as_user, every, wait_for,
};

#[test]
fn actions_masks_stacks_and_pending_signals_survive() {
    round_trips("signals", &Flavour::LAZY);
}

/// Rust's runtime ignores SIGPIPE and catches SIGSEGV, and shells have what they start ignore others: that is
/// `tub`'s, and no concern of a program that has done nothing of the kind.
#[test]
fn actions_of_the_restoring_side_are_not_the_services() {
    every(&Flavour::LAZY, |flavour| {
        let dir = Arc::new(Scratch::new(flavour.user));
        let mut command = as_user(flavour.user, Path::new("/bin/sleep"));
        command.arg("1000");
        let mut original = Instance::start("sleep", &dir, command, |_| Some(()));
        let named = |process: Process| {
            let comm = std::fs::read_to_string(process.proc("comm")).unwrap_or_default();
            (comm == "sleep\n").then_some(())
        };
        wait_for(Duration::from_secs(20), || named(original.process())).unwrap();
        let actions = |process: Process| {
            let status = std::fs::read_to_string(process.proc("status")).unwrap();
            let lines = status
                .lines()
                .filter(|line| line.starts_with("SigIgn:") || line.starts_with("SigCgt:"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let before = actions(original.process());
        let image = original.dir().join("image");
        original.checkpoint_and_end(&image);
        let restore = Restore::of(&original, &image, flavour).after("trap '' HUP USR1 RTMIN");
        let restore = restore.start();
        assert_eq!(actions(restore.process()), before, "{}", restore.tell());
    });
}

/// Shells do not: they wait for children themselves.
const IGNORING: &str = "exec env --ignore-signal=CHLD \"$@\"; true";

/// Then its children leave nothing to wait for, unless somebody says otherwise.
#[test]
fn the_exit_code_is_mirrored_where_sigchld_is_ignored() {
    every(&Flavour::LAZY, |flavour| {
        let mut original = Subject::new("exit", flavour.user).options(&["7"]).start();
        let image = original.dir().join("image");
        original.checkpoint_and_end(&image);
        let mut copy = Restore::of(&original, &image, flavour).after(IGNORING).start();
        copy.go(&flavour.promises());
        let status = copy.wait();
        assert_eq!(status.code(), Some(7), "{}", copy.tell());
    });
}

/// Whoever supervises `tub restore` supervises the service: what it sends arrives.
#[test]
fn signals_sent_to_the_restore_reach_the_service() {
    every(&Flavour::LAZY, |flavour| {
        let copy = restored("signal-echo", flavour);
        let restore =
            Process::find(copy.command_pid()).expect("tub restore runs in the foreground");
        for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGUSR2] {
            restore.signal(signal);
            copy.prints(&format!("caught {}", signal as i32));
        }
        copy.go(&flavour.promises());
        copy.verdict();
    });
}

#[test]
fn signals_sent_to_the_service_itself_reach_it() {
    every(&Flavour::LAZY, |flavour| {
        let copy = restored("signal-echo", flavour);
        copy.process().signal(Signal::SIGUSR2);
        copy.prints(&format!("caught {}", Signal::SIGUSR2 as i32));
        copy.go(&flavour.promises());
        copy.verdict();
    });
}

#[test]
fn the_exit_code_is_mirrored() {
    every(&Flavour::LAZY, |flavour| {
        for code in ["0", "7", "255"] {
            let mut original = Subject::new("exit", flavour.user).options(&[code]).start();
            let image = original.dir().join("image");
            original.checkpoint_and_end(&image);
            let mut copy = Restore::of(&original, &image, flavour).start();
            copy.go(&flavour.promises());
            let status = copy.wait();
            assert_eq!(status.code(), code.parse().ok(), "{}", copy.tell());
        }
    });
}

#[test]
fn death_by_a_signal_is_mirrored_as_a_shell_does() {
    every(&Flavour::LAZY, |flavour| {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let mut copy = restored("signal-echo", flavour);
            copy.process().signal(signal);
            let status = copy.wait();
            assert_eq!(status.signal(), None, "the restore itself was ended: {}", copy.tell());
            assert_eq!(status.code(), Some(128 + signal as i32), "{}", copy.tell());
        }
    });
}

#[test]
fn terminating_the_restore_terminates_the_service() {
    every(&Flavour::LAZY, |flavour| {
        let mut copy = restored("signal-echo", flavour);
        Process::find(copy.command_pid()).expect("it runs").signal(Signal::SIGTERM);
        let status = copy.wait();
        assert_eq!(status.code(), Some(128 + Signal::SIGTERM as i32), "{}", copy.tell());
    });
}
