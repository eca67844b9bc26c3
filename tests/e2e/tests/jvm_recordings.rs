//! Flight recordings that the command line has started, through a checkpoint and in several copies at once.

use crate::http::{first_answer, free_port, get};
use crate::jvm::on_each_jdk;
use crate::jvm_jdk::Crac;
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tub_testkit::{Finished, Instance, code, run_bounded, wait_for};

impl Crac {
    fn tool(&self, name: &str, words: &[&str]) -> Finished {
        let mut command = self.program(name);
        command.args(words);
        run_bounded(command, Duration::from_secs(60)).succeeds()
    }

    /// Files of recordings in a directory, by name.
    fn recordings(&self, dir: &str) -> Vec<PathBuf> {
        let files = fs::read_dir(self.dir.join(dir)).unwrap().flatten().map(|entry| entry.path());
        let mut found: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|it| it == "jfr")).collect();
        found.sort();
        found
    }

    /// How many events of a kind a recording holds.
    fn events(&self, recording: &Path, kind: &str) -> usize {
        let words = ["print", "--events", kind, recording.to_str().unwrap()];
        let printed = self.tool("jfr", &words).stdout;
        printed.lines().filter(|line| line.starts_with("jdk.") && line.ends_with('{')).count()
    }

    fn copy(&self, options: &[&str]) -> Instance {
        let port = free_port();
        let mut command = self.program("java");
        command.arg("-XX:CRaCRestoreFrom=cr").args(options);
        command.env("SERVICE_PORT", port.to_string());
        let ready = |_: &str| get(port, "/").is_ok().then_some(());
        Instance::start("crac jdk restored", &self.dir, command, ready)
    }
}

/// The first JDK whose recordings may say something at the end.
const REPORTS_SINCE: u32 = 25;

/// Ends it as a supervisor does, so that it leaves what it has recorded; returns what it has said.
fn end(crac: &Crac, mut instance: Instance) -> String {
    instance.process().signal(Signal::SIGTERM);
    let status = instance.ends_within(Duration::from_secs(60));
    assert!(status.is_some(), "no end\n{}\n{:?}", instance.tell(), crac.recordings("."));
    instance.output()
}

#[test]
fn a_recording_from_the_command_line_goes_on_in_each_copy_with_files_of_its_own() {
    on_each_jdk(|jdk| {
        let crac = Crac::make(jdk);
        let repository = crac.dir.make_dir("repository");
        let reports = jdk.version >= REPORTS_SINCE;
        let report = if reports { ",report-on-exit=jvm-information" } else { "" };
        let options = [
            "-XX:CRaCCheckpointTo=cr",
            &format!("-XX:StartFlightRecording=name=app,filename=app.jfr,settings=profile{report}"),
            &format!("-XX:FlightRecorderOptions=repository={}", repository.display()),
        ];
        let (mut original, port) = crac.service(&options, "plain");
        assert_eq!(first_answer(port, "/work").as_deref(), Some("1088890"));
        let is_recording = |instance: &Instance| {
            let told = crac.tool("jcmd", &[&instance.pid().to_string(), "JFR.check"]).stdout;
            assert!(told.contains("Recording 1: name=app"), "{told}\n{}", instance.tell());
            assert!(told.contains("(running)"), "{told}");
        };
        is_recording(&original);
        crac.jcmd(original.pid()).succeeds();
        original.wait();
        let first = crac.dir.join("app.jfr");
        assert_eq!(crac.recordings("."), std::slice::from_ref(&first));
        // What was recorded before is there, and where it was recorded nothing is left behind.
        assert!(crac.events(&first, "jdk.GarbageCollection") > 0);
        assert_eq!(fs::read_dir(&repository).unwrap().count(), 0);
        let before = fs::read(&first).unwrap();

        // One process id inside of them, in one directory, at once.
        let copies = [(); 2].map(|()| crac.copy(&[]));
        let names: Vec<_> = fs::read_dir(&repository).unwrap().flatten().collect();
        assert_eq!(names.len(), 2, "{names:?}");
        let [one, other] = copies;
        for told in [one, other].map(|copy| end(&crac, copy)) {
            assert_eq!(told.contains("JVM Information"), reports, "{told}");
        }
        let both = crac.recordings(".");
        assert_eq!(both.len(), 3, "{both:?}");
        for own in both.iter().filter(|path| **path != first) {
            assert!(crac.events(own, "jdk.ActiveSetting") > 0, "{}", own.display());
            // It begins anew: the original's start is in the original's file.
            assert_eq!(crac.events(own, "jdk.JVMInformation"), 1, "{}", own.display());
        }
        assert!(fs::read(&first).unwrap() == before, "the original's file was written to");
        assert_eq!(fs::read_dir(&repository).unwrap().count(), 0);

        // Tools find it by its number and its name, in a copy of a copy too.
        let mut copy = crac.copy(&["-XX:CRaCRestoreEngineOptions=pids=new"]);
        for generation in 1..=2 {
            is_recording(&copy);
            let pid = copy.pid().to_string();
            for by in ["name=app", "name=1"] {
                let dump = crac.dir.join(format!("dump-{generation}-{by}.jfr"));
                let file = format!("filename={}", dump.display());
                crac.tool("jcmd", &[&pid, "JFR.dump", by, &file]);
                assert!(crac.events(&dump, "jdk.ActiveSetting") > 0, "{by}");
            }
            if generation == 1 {
                crac.jcmd(copy.pid()).succeeds();
                copy.wait();
                copy = crac.copy(&["-XX:CRaCRestoreEngineOptions=pids=new"]);
            }
        }
        end(&crac, copy);
        // Those of the original, of two copies, of a copy and of its copy; and four dumps.
        assert_eq!(crac.recordings(".").len(), 9, "{:?}", crac.recordings("."));
    });
}

/// What is left of the wait is waited after it, the time in the image not counted; and the file is the one that was
/// asked for where no other life has one.
#[test]
fn a_recording_that_waits_for_its_start_begins_when_it_is_due_in_the_original_and_in_a_copy() {
    const DELAY: Duration = Duration::from_secs(20);
    on_each_jdk(|jdk| {
        let crac = Crac::make(jdk);
        let is_in = |instance: &Instance, state: &str| {
            let told = crac.tool("jcmd", &[&instance.pid().to_string(), "JFR.check"]).stdout;
            (told.contains("Recording 1: name=late") && told.contains(state)).then_some(told)
        };
        let waits = |instance: &Instance| {
            let told = is_in(instance, "(delayed)");
            let told = told.unwrap_or_else(|| panic!("it does not wait\n{}", instance.tell()));
            assert!(told.contains("duration=1h"), "{told}");
        };
        let schedule = |instance: &Instance, file: &str| {
            let delay = format!("delay={}s", DELAY.as_secs());
            let file = format!("filename={file}");
            let pid = instance.pid().to_string();
            let words = [&pid, "JFR.start", "name=late", "settings=profile", "duration=1h"];
            let words = [&words[..], &[&delay, &file]].concat();
            crac.tool("jcmd", &words);
        };
        let begins = |instance: Instance| {
            let begun = wait_for(Duration::from_secs(60), || is_in(&instance, "(running)"));
            assert!(begun.is_some(), "no start\n{}", instance.tell());
            end(&crac, instance);
        };
        let (refusing, _) = crac.service(&["-XX:CRaCCheckpointTo=refused"], "file");
        let (mut original, _) = crac.service(&["-XX:CRaCCheckpointTo=cr"], "plain");

        schedule(&original, "copied.jfr");
        crac.jcmd(original.pid()).succeeds();
        original.wait();
        // Nothing was recorded.
        assert_eq!(crac.recordings("."), Vec::<PathBuf>::new());
        let taken = Instant::now();

        schedule(&refusing, "original.jfr");
        crac.jcmd(refusing.pid()).fails_with(code::REFUSED, &["left-open.log"]);
        waits(&refusing);
        begins(refusing);
        assert_eq!(crac.recordings("."), [crac.dir.join("original.jfr")]);
        assert!(crac.events(&crac.dir.join("original.jfr"), "jdk.ActiveSetting") > 0);

        std::thread::sleep(DELAY.saturating_sub(taken.elapsed()));
        let mut copy = crac.copy(&["-XX:CRaCRestoreEngineOptions=pids=new"]);
        waits(&copy);
        // As long as it waits, for another copy as well.
        crac.jcmd(copy.pid()).succeeds();
        copy.wait();
        assert_eq!(crac.recordings(".").len(), 1, "{:?}", crac.recordings("."));
        let copy = crac.copy(&["-XX:CRaCRestoreEngineOptions=pids=new"]);
        waits(&copy);
        begins(copy);
        let all = crac.recordings(".");
        assert_eq!(all.len(), 2, "{all:?}");
        let name = all[0].file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("copied-2"), "{name}");
        assert!(crac.events(&all[0], "jdk.ActiveSetting") > 0);
    });
}

/// `-XX:StartFlightRecording` may be set at a restore, as on a CRaC JDK.
#[test]
fn a_restore_starts_a_recording_that_the_image_knows_nothing_of() {
    on_each_jdk(|jdk| {
        let crac = Crac::make(jdk);
        let (mut original, _) = crac.service(&["-XX:CRaCCheckpointTo=cr"], "plain");
        crac.jcmd(original.pid()).succeeds();
        original.wait();
        let options = "name=late,filename=with a blank.jfr,settings=profile,maxage=1h";
        let option = format!("-XX:StartFlightRecording:{options}");
        let copy = crac.copy(&[&option, "-XX:CRaCRestoreEngineOptions=pids=new"]);
        let pid = copy.pid().to_string();
        let told = wait_for(Duration::from_secs(60), || {
            let told = crac.tool("jcmd", &[&pid, "JFR.check"]).stdout;
            (told.contains("name=late") && told.contains("(running)")).then_some(told)
        });
        let told = told.unwrap_or_else(|| panic!("no recording\n{}", copy.tell()));
        assert!(told.contains("maxage=1h"), "{told}");
        end(&crac, copy);
        assert!(crac.events(&crac.dir.join("with a blank.jfr"), "jdk.ActiveSetting") > 0);
        // What the recorder does not take is told of, and the copy runs.
        let copy = crac.copy(&["-XX:StartFlightRecording=settings=none-such"]);
        let told = wait_for(Duration::from_secs(60), || {
            let told = copy.complaints();
            told.contains("none-such").then_some(told)
        });
        assert!(told.is_some(), "nothing is said\n{}", copy.tell());
    });
}
