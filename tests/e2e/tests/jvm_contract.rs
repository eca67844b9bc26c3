//! CRaC's contract in its corners, by checkpoints that a program asks for itself.

use crate::jvm::{on_each_jdk, on_each_jdk_and_21};
use crate::jvm_program::Program;
use tub_testkit::{Flavour, Pids, Restore};

#[test]
fn order_and_errors_are_those_of_crac() {
    on_each_jdk_and_21(|jdk| {
        let program = Program::new(jdk, "Contract");
        let image = program.dir.join("image");
        let log = program.dir.join("logging");
        let lines = "handlers=java.util.logging.ConsoleHandler\njdk.crac.level=FINE\n\
                     java.util.logging.ConsoleHandler.level=FINE\n";
        program.write("logging", lines);
        let program = program.run_options(&["--image", image.to_str().unwrap()]).flags(&[
            "-Djdk.crac.globalContext.impl=BlockingOrderedContext",
            "-Djdk.crac.trace-startup-time=true",
            &format!("-Djava.util.logging.config.file={}", log.display()),
        ]);
        let original = program.start_with(&[], |command| {
            command.env("TUB_CHECKPOINT_OPTIONS", "--leave-running --replace");
        });
        let told = original.complaints();
        for text in ["Starting checkpoint", "beforeCheckpoint erring", "afterRestore first"] {
            assert!(told.contains(text), "{told}");
        }
        assert!(!original.output().contains("STARTUPTIME"), "the original is no copy");
        let restores = [Pids::Keep, Pids::New].map(|pids| {
            let flavour = Flavour { pids, ..Flavour::USUAL };
            Restore::of(&original, &image, flavour)
        });
        original.go("original");
        original.verdict();
        for restore in restores {
            let copy = restore.start();
            copy.prints("ready");
            let out = copy.output();
            let stages: Vec<&str> = out
                .lines()
                .filter_map(|line| line.strip_prefix("STARTUPTIME "))
                .filter_map(|line| line.split_once(' '))
                .map(|(_, stage)| stage)
                .collect();
            assert_eq!(stages, ["restore", "restore-finish"], "{out}");
            copy.go("copy");
            copy.verdict();
        }
    });
}

/// Of `javax.crac`, whose resources each have one of `jdk.crac` that stands for them.
#[test]
fn a_resource_that_two_threads_register_at_once_is_told_once() {
    on_each_jdk(|jdk| {
        let program = Program::new(jdk, "Registered");
        let mut original = program.start(&[]);
        let image = program.dir.join("image");
        original.checkpoint_and_end(&image);
        let copy = Restore::of(&original, &image, Flavour::USUAL).start();
        copy.go("on");
        copy.verdict();
    });
}
