//! Options of CRaC's in each of their places, by the `java` and `jcmd` that `tub jdk` makes.

use crate::http::{first_answer, free_port, get};
use crate::images::rewritten;
use crate::jvm::on_each_jdk;
use crate::jvm_jdk::Crac;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;
use tub_testkit::{Finished, Instance, code, run_bounded};

/// A feature that no processor has, so that none here lacks another one for it.
const OF_TOMORROW: &str = "zz_of_tomorrow";

/// What runs in the place of an image that cannot be used: it ends with 7.
const INSTEAD: [&str; 2] = ["Service$Farewell", "anew"];

/// From a variable and a jar to an image, by the jar's name, and back; with everything that a command line of
/// a CRaC JDK may say besides.
#[test]
fn a_jar_is_checkpointed_by_its_name_with_all_options_in_a_variable() {
    on_each_jdk(|jdk| {
        let crac = Crac::make(jdk);
        // A name that no other test has, as jcmd looks at all JVMs of the user's.
        let name = format!("launched-{}-{}.jar", std::process::id(), jdk.version);
        let jar = crac.dir.join(&name);
        let mut command = Command::new(jdk.home.join("bin/jar"));
        command.args(["--create", "--main-class", "Service", "--file"]).arg(&jar);
        command.arg("-C").arg(&crac.classes).arg(".");
        run_bounded(command, Duration::from_secs(60)).succeeds();
        crac.dir.give(&jar);
        let port = free_port();
        let mut command = crac.program("java");
        command.env(
            "JDK_JAVA_OPTIONS",
            "-XX:CRaCCheckpointTo=cr-%c-%m -XX:CRaCMinPid=300 -XX:+CRaCPrintResourcesOnCheckpoint \
             -XX:+CRaCTraceStartupTime -XX:+UnlockDiagnosticVMOptions -XX:+CRaCResetStartTime \
             -XX:CPUFeatures=native -Dfrom='a variable'",
        );
        command.args(["-Xmx256m", "-jar"]).arg(&jar).args([&port.to_string(), "plain"]);
        let ready = |_: &str| get(port, "/").is_ok().then_some(());
        let mut original = Instance::start("crac jdk", &crac.dir, command, ready);
        assert_eq!(first_answer(port, "/count").as_deref(), Some("1"));
        let metrics = crac.dir.join("metrics");
        fs::write(&metrics, "warm=0.5\nrounds=3\n").unwrap();
        let mut command = crac.program("jcmd");
        command.args([&name, "JDK.checkpoint"]).arg(format!("metrics=@{}", metrics.display()));
        run_bounded(command, Duration::from_secs(60)).succeeds();
        assert_eq!(original.wait().signal(), Some(9));

        let processors = std::thread::available_parallelism().unwrap();
        let image = format!("cr-{processors}-256M");
        assert!(crac.dir.join(&image).is_dir(), "no {image}\n{}", original.tell());
        let other = free_port();
        let mut command = crac.program("java");
        command.arg(format!("-XX:CRaCRestoreFrom={image}"));
        command.env("JDK_JAVA_OPTIONS", "-XX:CRaCRestoreEngineOptions=pids=new,memory=eager");
        command.env("SERVICE_PORT", other.to_string());
        let ready = |_: &str| get(other, "/").is_ok().then_some(());
        let copy = Instance::start("crac jdk restored", &crac.dir, command, ready);
        assert_eq!(first_answer(other, "/count").as_deref(), Some("2"));
        let told = copy.output();
        assert!(told.contains("STARTUPTIME"), "{told}");
    });
}

/// The images are as another host's processor would have made them.
#[test]
fn an_image_for_another_processor_is_refused_or_passed_over() {
    on_each_jdk(|jdk| {
        let crac = Crac::make(jdk);
        let (mut original, _) = crac.service(&["-XX:CRaCCheckpointTo=cr"], "plain");
        crac.jcmd(original.pid()).succeeds();
        original.wait();
        let image = crac.dir.join("cr");
        rewritten(&crac.dir, &image, "more", |checkpoint| {
            checkpoint.host.cpu_features.push(OF_TOMORROW.to_owned());
        });
        // All of them have it, and code makes use of it.
        rewritten(&crac.dir, &image, "less", |checkpoint| {
            checkpoint.host.cpu_features.retain(|feature| feature != "sse4_2");
        });
        // What a kernel says of itself is nobody's feature.
        rewritten(&crac.dir, &image, "older", |checkpoint| {
            checkpoint.host.cpu_features.retain(|feature| feature != "hypervisor");
        });
        let restore = |image: &str, options: &[&str]| -> Finished {
            let from = format!("-XX:CRaCRestoreFrom={image}");
            let words = [&[from.as_str()], options, &["-cp", crac.classes.to_str().unwrap()]];
            crac.java(&[&words.concat()[..], &INSTEAD].concat())
        };
        let is_run = |finished: Finished, is_anew: bool| {
            assert_eq!(finished.status.code(), Some(7), "{finished}");
            assert_eq!(finished.stderr.contains("starting anew"), is_anew, "{finished}");
        };
        let message = "-XX:CheckCPUFeaturesMessage=take another image: %c, %s, %m.";
        let exact = "-XX:CheckCPUFeatures=exact";

        restore("more", &[]).fails_with(code::BAD_IMAGE, &["lacks", OF_TOMORROW]);
        let worded = restore("more", &[message]);
        let worded = worded.fails_with(code::BAD_IMAGE, &["take another image: ", OF_TOMORROW]);
        // Features here, stored, and common: only the stored ones have it.
        assert_eq!(worded.stderr.matches(OF_TOMORROW).count(), 1, "{worded}");
        is_run(restore("more", &["-XX:+CRaCIgnoreRestoreIfUnavailable"]), true);

        is_run(restore("less", &[]), false);
        restore("less", &[exact]).fails_with(code::BAD_IMAGE, &["has sse4_2 as well"]);
        restore("less", &[exact, message])
            .fails_with(code::BAD_IMAGE, &["take another image: ", "sse4_2"]);
        is_run(restore("less", &[exact, "-XX:+CRaCIgnoreRestoreIfUnavailable"]), true);
        is_run(restore("older", &[exact]), false);
    });
}
