//! What the agent is to those who do not know it: the JVM, the facade, JMX.
#![expect(clippy::unwrap_used, reason = "the helpers of a test panic as its body does")]

mod support;

use std::path::PathBuf;
use std::process::Command;
use support::{Java, JavaOptions, SOON, Scratch, agent, compile, jdks, refusal, run};
use tub_control::mailbox::{Restored, encode_restored};
use tub_control::{Client, RefusalKind};

/// A release of the facade from a repository of Maven's.
fn facade(version: &str, scratch: &Scratch) -> Option<PathBuf> {
    // Through a file, since a goal's own parameters change their names from release to release.
    let pom = scratch.0.join("pom.xml");
    // The first releases went by another name.
    let (group, artifact) =
        if version == "0.1.3" { ("io.github.crac", "org-crac") } else { ("org.crac", "crac") };
    let text = format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>t</groupId><artifactId>t</artifactId>\
         <version>1</version><dependencies><dependency><groupId>{group}</groupId>\
         <artifactId>{artifact}</artifactId><version>{version}</version></dependency></dependencies>\
         </project>"
    );
    std::fs::write(&pom, text).unwrap();
    let fetched = run(Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(&pom)
        .args(["dependency:copy-dependencies", "-DoutputDirectory=."]));
    let jar = scratch.0.join(format!("{artifact}-{version}.jar"));
    if fetched.is_none() || !jar.is_file() {
        println!("skipped: org.crac {version} cannot be had: no Maven, or no repository");
        return None;
    }
    Some(jar)
}

#[test]
fn the_facade_finds_the_implementation() {
    for version in ["0.1.3", "1.3.0", "1.4.0", "1.5.0"] {
        let fetched = Scratch::new(&format!("facade-{version}"));
        let Some(jar) = facade(version, &fetched) else { continue };
        for jdk in jdks() {
            let scratch = Scratch::new(&format!("facade-{version}-classes"));
            compile(&jdk, "Facade.java", Some(&jar), &scratch.0);
            let options = JavaOptions::default();
            let mut java = Java::start(&jdk, scratch, &options, &[&jar], "Facade");
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
            java.status();
            java.tell("object");
            java.expect("objects");
            let refused = refusal(java.client().prepare(SOON));
            assert_eq!(refused.kind, RefusalKind::ResourceFailed);
            assert_eq!(refused.failures[0].message, "the facade's resource objects");
        }
    }
}

#[test]
fn the_bean_is_a_platform_bean_on_every_jdk() {
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "bean");
        assert_eq!(java.ask("bean"), "bean -1 -1");
    }
}

#[test]
fn the_hooks_pass_the_verifier_and_change_no_number() {
    for jdk in jdks() {
        // Off by default for the JDK's own classes. Product flag until 13, diagnostic since.
        let flags = ["-XX:+UnlockDiagnosticVMOptions", "-XX:+BytecodeVerificationLocal"];
        let options = JavaOptions { name: "hooks", flags: &flags, ..JavaOptions::default() };
        let mut hooked = Java::subject_with(&jdk, &options);
        // The agent has nothing to complain of, so that the JVM takes part.
        hooked.status();
        assert_eq!(hooked.ask("seed"), "seed -3095447905682661842");
    }
}

#[test]
fn an_application_without_checkpoints_notices_nothing() {
    for jdk in jdks() {
        let mut java = Java::subject(&jdk, "harmless");
        // The socket is up, and goes away with the JVM.
        java.status();
        let directory = java.sockets().pop().unwrap();
        java.tell("end-main");
        let (code, rest) = java.wait();
        assert_eq!((code, rest), (Some(0), vec!["main ends".to_owned()]));
        assert!(!directory.exists());
    }
}

#[test]
fn the_agent_can_be_loaded_into_a_running_jvm() {
    for jdk in jdks() {
        // The shim's own classes are the application's here, until the agent brings them.
        let scratch = Scratch::new("attach");
        std::fs::write(
            scratch.0.join("Plain.java"),
            "public class Plain { public static void main(String[] a) throws Exception {\
             System.out.println(\"ready\"); System.in.read(); } }",
        )
        .unwrap();
        let source = scratch.0.join("Plain.java");
        run(Command::new(jdk.join("bin/javac")).arg("-d").arg(&scratch.0).arg(source)).unwrap();
        let options = JavaOptions { with_agent: false, ..JavaOptions::default() };
        let mut java = Java::start(&jdk, scratch, &options, &[], "Plain");
        java.expect("ready");
        assert!(Client::find(java.pid()).unwrap().is_none());
        let said = run(Command::new(jdk.join("bin/jcmd"))
            .arg(java.pid().to_string())
            .arg("JVMTI.agent_load")
            .arg(agent()));
        let said = said.expect("jcmd has failed");
        assert!(said.contains("return code: 0"), "{said}");
        java.client().prepare(SOON).unwrap();
    }
}
