//! Where the JVM's archive of classes lies.

mod support;

use std::path::Path;
use std::process::Command;
use support::{Scratch, agent, compile, jdks, run};

/// The address of the archive in a JVM with these options, with the agent or without.
fn address(jdk: &Path, scratch: &Scratch, with_agent: bool, options: &[&str]) -> u64 {
    let mut command = Command::new(jdk.join("bin/java"));
    if with_agent {
        let mut option = std::ffi::OsString::from("-agentpath:");
        option.push(agent());
        command.arg(option);
    }
    command.args(options).args(["-cp", ".", "Archive"]);
    command.current_dir(&scratch.0).env("HOME", &scratch.0).env_remove("JAVA_TOOL_OPTIONS");
    let said = run(&mut command).expect("java succeeds");
    u64::from_str_radix(said.trim(), 16).unwrap_or_else(|_| panic!("{jdk:?}: {said}"))
}

#[test]
fn it_stays_where_it_was_made_for_unless_somebody_wants_it_elsewhere() {
    for jdk in jdks() {
        let scratch = Scratch::new("archive");
        compile(&jdk, "Archive.java", None, &scratch.0);
        let at = |agent, options: &[&str]| address(&jdk, &scratch, agent, options);
        let unlocked = "-XX:+UnlockDiagnosticVMOptions";
        let made_for = at(false, &[unlocked, "-XX:ArchiveRelocationMode=0"]);
        assert_eq!(at(true, &[]), made_for, "{jdk:?}");
        let elsewhere = at(true, &[unlocked, "-XX:ArchiveRelocationMode=1"]);
        assert_ne!(elsewhere, made_for, "{jdk:?}");
    }
}
