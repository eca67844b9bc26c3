//! What a shell or a supervisor does with `tub restore`: real-time signals, stopping, continuing, a
//! terminal.

use crate::round_trip::restored;
use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::Signal;
use std::cell::Cell;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use tub_testkit::{
    Flavour, Instance, Pids, Process, Restore, Scratch, Subject, Tub, as_user, code, every,
    run_bounded, subject_binary, wait_for,
};

/// SIGRTMIN + 3 of both C libraries, and one that nobody catches.
const CAUGHT: &str = "37";
const DEADLY: &str = "40";

fn queue(pid: i32, signal: &str, value: &str) {
    let mut command = Command::new(subject_binary());
    let status = command.args(["--queue", &pid.to_string(), signal, value]).status().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn real_time_signals_reach_the_service_in_order_and_with_their_values() {
    every(&Flavour::LAZY, |flavour| {
        let copy = restored("signal-echo", flavour);
        for value in ["71", "72", "73"] {
            queue(copy.command_pid(), CAUGHT, value);
        }
        for value in ["71", "72", "73"] {
            copy.prints(&format!("caught {CAUGHT} with {value}"));
        }
        copy.go(&flavour.promises());
        copy.verdict();
    });
}

#[test]
fn death_by_a_real_time_signal_is_mirrored() {
    every(&Flavour::LAZY, |flavour| {
        let mut copy = restored("signal-echo", flavour);
        queue(copy.command_pid(), DEADLY, "0");
        let status = copy.wait();
        assert_eq!(status.code(), Some(128 + 40), "{}", copy.tell());
    });
}

/// The state letters of `tub restore` and of the service.
fn states(copy: &Instance) -> (char, char) {
    let state = |path: std::path::PathBuf| {
        let stat = std::fs::read_to_string(path).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('?')
    };
    let command = Process::find(copy.command_pid()).expect("it runs");
    (state(command.proc("stat")), state(copy.process().proc("stat")))
}

fn both(copy: &Instance, wanted: fn(char) -> bool) {
    let found = wait_for(Duration::from_secs(20), || {
        let (command, service) = states(copy);
        (wanted(command) && wanted(service)).then_some(())
    });
    assert!(found.is_some(), "states {:?}\n{}", states(copy), copy.tell());
}

/// As a shell's `kill -TSTP %1` and `bg` do it.
#[test]
fn stopping_and_continuing_the_restore_does_it_to_the_service() {
    every(&Flavour::LAZY, |flavour| {
        let mut original = Subject::new("signal-echo", flavour.user).start();
        let image = original.dir().join("image");
        original.checkpoint_and_end(&image);
        // A group of its own: in an orphaned one nobody is stopped by a terminal's signals.
        let copy = Restore::of(&original, &image, flavour).in_group_of_its_own().start();
        let restore = Process::find(copy.command_pid()).expect("it runs");
        for _ in 0..2 {
            copy.goes_on();
            restore.signal(Signal::SIGTSTP);
            both(&copy, |state| state == 'T');
            restore.signal(Signal::SIGCONT);
            both(&copy, |state| state != 'T');
        }
        copy.goes_on();
        copy.go(&flavour.promises());
        copy.verdict();
    });
}

/// Who stops the service itself does not need us, and continues it without us.
#[test]
fn stopping_the_service_itself_leaves_the_restore_at_its_post() {
    every(&[Flavour::LAZY[0], Flavour::LAZY[3]], |flavour| {
        let copy = restored("signal-echo", flavour);
        copy.process().signal(Signal::SIGSTOP);
        let stopped = wait_for(Duration::from_secs(20), || (states(&copy).1 == 'T').then_some(()));
        assert!(stopped.is_some(), "{}", copy.tell());
        assert_ne!(states(&copy).0, 'T');
        copy.process().signal(Signal::SIGCONT);
        copy.goes_on();
        copy.go(&flavour.promises());
        copy.verdict();
    });
}

/// A terminal with a shell that has job control.
struct Terminal {
    keyboard: File,
    screen: Arc<Mutex<String>>,
    /// Bytes of the screen that were waited for.
    seen: Cell<usize>,
    shell: std::process::Child,
}

impl Terminal {
    /// A shell that runs `script`; `$0` and `$@` are the words of `command`.
    fn run(script: &str, command: &Command) -> Self {
        let OpenptyResult { master, slave } = openpty(None, None).unwrap();
        let stream = || Stdio::from(slave.try_clone().unwrap());
        let mut shell = Command::new("setsid");
        shell.args(["--ctty", "sh", "-m", "-c", script]);
        shell.arg(command.get_program()).args(command.get_args());
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.stdin(stream()).stdout(stream()).stderr(stream());
        let shell = shell.spawn().unwrap();
        let keyboard = File::from(master);
        let mut output = keyboard.try_clone().unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&screen);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // EIO when the last process has closed its end.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self { keyboard, screen, seen: Cell::new(0), shell }
    }

    fn types(&mut self, key: u8) {
        self.keyboard.write_all(&[key]).unwrap();
    }

    /// Waits for `text` behind all that was waited for before.
    #[track_caller]
    fn shows(&self, text: &str) {
        let found = wait_for(Duration::from_secs(60), || {
            let screen = self.screen.lock().unwrap();
            let at = screen[self.seen.get()..].find(text)?;
            self.seen.set(self.seen.get() + at + text.len());
            Some(())
        });
        assert!(found.is_some(), "no {text:?} on the screen:\n{}", self.screen.lock().unwrap());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

#[test]
fn a_terminals_keys_do_what_they_did() {
    const CTRL_C: u8 = 3;
    const CTRL_Z: u8 = 26;
    const CTRL_BACKSLASH: u8 = 28;
    // Only root may open the terminal of somebody else, which an ordinary user's would be here.
    every(&[Flavour::LAZY[0], Flavour::LAZY[2]], |flavour| {
        let mut original = Subject::new("signal-echo", flavour.user).start();
        let image = original.dir().join("image");
        original.checkpoint_and_end(&image);
        let command = Restore::of(&original, &image, flavour).tub().command();
        let script = r#""$0" "$@"; echo stopped $?; fg >/dev/null; echo ended $?"#;
        let mut terminal = Terminal::run(script, &command);
        terminal.shows("count ");
        terminal.types(CTRL_C);
        terminal.shows("caught 2");
        terminal.types(CTRL_Z);
        // SIGTSTP or, since it is we who stop ourselves, SIGSTOP: as shells show it.
        terminal.shows("stopped 1");
        // Before that it is not in the foreground, and would not be meant.
        terminal.shows("count ");
        terminal.types(CTRL_BACKSLASH);
        terminal.shows(&format!("ended {}", 128 + Signal::SIGQUIT as i32));
    });
}

#[test]
fn the_terminal_opened_once_more_is_that_of_the_restore() {
    every(&[Flavour::LAZY[0], Flavour::LAZY[2]], |flavour| {
        let dir = Scratch::new(flavour.user);
        let state = dir.make_dir("state");
        let mut command = as_user(flavour.user, subject_binary());
        command.arg("terminal").arg(&state);
        let terminal = Terminal::run(r#""$0" "$@"; echo ended $?"#, &command);
        let ready = || fs::read_to_string(state.join("ready")).ok();
        let pid = wait_for(Duration::from_secs(60), ready).unwrap();
        let image = dir.join("image");
        let tub = Tub::new(flavour.user, "checkpoint").arg(pid).arg("--image").arg(&image);
        tub.run().succeeds();
        terminal.shows("ended 137");

        let restore = || {
            let pids = if flavour.pids == Pids::Keep { "keep" } else { "new" };
            Tub::new(flavour.user, "restore").arg(&image).args(&["--pids", pids])
        };
        let words = ["terminal /dev/", "no standard stream", "restore on a terminal"];
        // Whoever runs the tests may have one.
        let without = restore().command_under(Path::new("setsid"), &["--wait"]);
        run_bounded(without, Duration::from_secs(60)).fails_with(code::HOST_LACKS, &words);
        fs::write(state.join("go"), flavour.promises()).unwrap();
        let terminal = Terminal::run(r#""$0" "$@"; echo ended $?"#, &restore().command());
        for text in ["by name", "controlling", "verdict: same", "ended 0"] {
            terminal.shows(text);
        }
    });
}
