//! `org.crac`, offered to applications that come without a copy of their own.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Java, JavaOptions, Scratch, agent, compile, jdks, run};
use tub_control::mailbox::{Restored, encode_restored};

fn facade() -> PathBuf {
    Path::new(env!("OUT_DIR")).join("tub-facade.jar")
}

#[test]
fn an_application_without_the_facade_is_given_one() {
    for jdk in jdks() {
        let scratch = Scratch::new("facade-offered");
        compile(&jdk, "Facade.java", Some(&facade()), &scratch.0);
        let mut java = Java::start(&jdk, scratch, &JavaOptions::default(), &[], "Facade");
        java.expect_all(&["bean -1 -1", "before", "after false"]);
        java.expect("failed C/R is not configured");
        java.expect("ready");
        let restored = Restored {
            instance: "0".repeat(32),
            generation: 1,
            seed: "0".repeat(64),
            restore_unix_ms: 1_700_000_000_000,
        };
        java.checkpoint(&encode_restored(&restored, &[], &[]).unwrap());
        java.expect_all(&["before", "after true"]);
    }
}

/// What a program finds; `words` name it and its class path.
fn found(jdk: &Path, scratch: &Scratch, words: &[&str]) -> String {
    let mut option = std::ffi::OsString::from("-agentpath:");
    option.push(agent());
    let mut command = Command::new(jdk.join("bin/java"));
    command.arg(option).args(words).current_dir(&scratch.0).env("TMPDIR", &scratch.0);
    command.env("HOME", &scratch.0).env_remove("JAVA_TOOL_OPTIONS");
    run(&mut command).expect("java succeeds").trim_end().to_owned()
}

#[test]
fn an_own_copy_comes_first_and_the_offer_can_be_declined() {
    for jdk in jdks() {
        let scratch = Scratch::new("facade-own");
        compile(&jdk, "Which.java", None, &scratch.0);
        let jar = |words: &[&str]| {
            let mut command = Command::new(jdk.join("bin/jar"));
            run(command.args(words).current_dir(&scratch.0)).expect("jar succeeds");
        };
        let offered = found(&jdk, &scratch, &["-cp", ".", "Which"]);
        assert!(offered.contains("tub-facade"), "{offered}");
        let declined = ["-Dtubthumping.facade=false", "-cp", ".", "Which"];
        assert_eq!(found(&jdk, &scratch, &declined), "none");
        // Of its class path.
        fs::copy(facade(), scratch.0.join("crac-1.5.0.jar")).unwrap();
        let own = found(&jdk, &scratch, &["-cp", ".:crac-1.5.0.jar", "Which"]);
        assert!(own.ends_with("/crac-1.5.0.jar"), "{own}");
        // Within its jar, where its own loader would find it after all that its parent has.
        fs::create_dir_all(scratch.0.join("BOOT-INF/lib")).unwrap();
        fs::rename(scratch.0.join("crac-1.5.0.jar"), scratch.0.join("BOOT-INF/lib/crac-1.5.0.jar"))
            .unwrap();
        jar(&["--create", "--file", "fat.jar", "--main-class", "Which", "Which.class", "BOOT-INF"]);
        assert_eq!(found(&jdk, &scratch, &["-jar", "fat.jar"]), "none");
        jar(&["--create", "--file", "thin.jar", "--main-class", "Which", "Which.class"]);
        let offered = found(&jdk, &scratch, &["-jar", "thin.jar"]);
        assert!(offered.contains("tub-facade"), "{offered}");
    }
}
