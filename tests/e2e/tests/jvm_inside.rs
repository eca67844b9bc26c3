//! What the JDK has open, mapped or remembered for itself, and the tools that look into a JVM: in the
//! original, in a copy, and in a copy of the copy.

use crate::jdk::Jdk;
use crate::jvm::on_each_jdk_and_21;
use crate::jvm_program::Program;
use std::time::Duration;
use tub_testkit::{Flavour, Instance, Pids, Restore, User, as_user, run_bounded};

/// The server that accepts all the time stays.
const RULES: &str = "type: socket\nlistening: true\naction: ignore\nwarn: false\n";

/// The tools of the JDK reach a JVM.
fn is_reached_by_tools(jdk: &Jdk, instance: &Instance) {
    let pid = instance.pid().to_string();
    let tool = |name: &str, words: &[&str], expected: &str| {
        let mut command = as_user(User::Ordinary, &jdk.home.join("bin").join(name));
        command.args(words);
        let finished = run_bounded(command, Duration::from_secs(60)).succeeds();
        assert!(finished.stdout.contains(expected), "no {expected:?}: {finished}");
    };
    tool("jcmd", &[&pid, "VM.version"], &format!("JDK {}", jdk.version));
    tool("jstack", &[&pid], "\"main\"");
    tool("jmap", &["-histo", &pid], "java.lang.String");
}

#[test]
fn what_the_jdk_has_for_itself_goes_on_for_two_generations() {
    on_each_jdk_and_21(|jdk| {
        let program = Program::new(jdk, "Inside");
        program.write("policy", RULES);
        program.write("hosts", "127.0.0.1 host.of.the.test\n");
        let path = |name: &str| program.dir.join(name).display().to_string();
        let flags = [
            "-Xlog:gc*:file=gc.log".to_owned(),
            // Names that the JVM fills in; and without the word that says it is a file.
            "-Xlog:gc:by-id-%p.log".to_owned(),
            "-XX:+UnlockDiagnosticVMOptions".to_owned(),
            "-XX:+LogVMOutput".to_owned(),
            "-Xlog:gc:file=\"by-time-%t.log\":uptime:filecount=2".to_owned(),
            // A kind of selector that is seldom chosen, by its class.
            "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED".to_owned(),
            format!("-Djdk.crac.resource-policies={}", path("policy")),
            format!("-Djdk.net.hosts.file={}", path("hosts")),
            format!("-XX:FlightRecorderOptions:repository={}", path("recordings")),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let program = program.flags(&flags);
        let mut life = program.start_with(&[], |command| {
            command.env("TZ", "UTC");
        });
        is_reached_by_tools(jdk, &life);
        // One more, that no option of the command line knows of.
        let mut log = as_user(User::Ordinary, &jdk.home.join("bin/jcmd"));
        log.args([&life.pid().to_string(), "VM.log", "output=later-%p.log", "what=gc"]);
        run_bounded(log, Duration::from_secs(60)).succeeds();
        for (generation, pids) in [(1, Pids::Keep), (2, Pids::New)] {
            program.write("hosts", &format!("127.0.0.{} host.of.the.test\n", generation + 1));
            let image = program.dir.join(format!("image-{generation}"));
            life.checkpoint_and_end(&image);
            let restore = Restore::of(&life, &image, Flavour { pids, ..Flavour::USUAL });
            life = restore.args(&["--env", "TZ=Asia/Tokyo"]).start();
            life.go(&format!("look {generation}"));
            life.prints(&format!("looked {generation}"));
            is_reached_by_tools(jdk, &life);
        }
        life.go("end");
        life.verdict();
    });
}
