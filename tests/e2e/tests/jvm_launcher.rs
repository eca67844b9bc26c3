//! Options of CRaC's in each of their places, by the `java` and `jcmd` that `tub jdk` makes.

use crate::http::{first_answer, free_port, get};
use crate::images::{ANOTHER_BOOT, rewritten};
use crate::jvm::on_each_jdk;
use crate::jvm_jdk::Crac;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tub_testkit::{Finished, Instance, Tub, User, code, criu, run_bounded};

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
            checkpoint.host.boot_id = ANOTHER_BOOT.to_owned();
            checkpoint.host.cpu_features.push(OF_TOMORROW.to_owned());
        });
        // All of them have it, and code makes use of it.
        rewritten(&crac.dir, &image, "less", |checkpoint| {
            checkpoint.host.boot_id = ANOTHER_BOOT.to_owned();
            checkpoint.host.cpu_features.retain(|feature| feature != "sse4_2");
        });
        // What a kernel says of itself is nobody's feature.
        rewritten(&crac.dir, &image, "older", |checkpoint| {
            checkpoint.host.boot_id = ANOTHER_BOOT.to_owned();
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

/// The file is read as HotSpot reads it: quotes keep blanks together, and nothing else is special.
#[test]
fn options_stand_in_a_file_of_vm_options() {
    on_each_jdk(|jdk| {
        let crac = Crac::make(jdk);
        let write = |name: &str, text: &str| {
            fs::write(crac.dir.join(name), text).unwrap();
            format!("-XX:VMOptionsFile={name}")
        };
        let start = write(
            "start",
            "-XX:CRaCCheckpointTo='my cr'\t-XX:+UseSerialGC\n\"-Dquoted=a\\.b c\" -Dhash=#1\n",
        );
        let (mut original, port) = crac.service(&[&start, "-Dafter=it"], "plain");
        let properties = |pid: i32| {
            let mut command = crac.program("jcmd");
            command.args([&pid.to_string(), "VM.system_properties"]);
            run_bounded(command, Duration::from_secs(60)).succeeds().stdout
        };
        let told = properties(original.pid());
        for line in ["quoted=a\\\\.b c", "hash=\\#1", "after=it"] {
            assert!(told.lines().any(|it| it == line), "no {line:?} in:\n{told}");
        }
        let mut flags = crac.program("jcmd");
        flags.args([&original.pid().to_string(), "VM.flags"]);
        let flags = run_bounded(flags, Duration::from_secs(60)).succeeds();
        assert!(flags.stdout.contains("-XX:+UseSerialGC"), "{flags}");
        assert_eq!(first_answer(port, "/count").as_deref(), Some("1"));
        crac.jcmd(original.pid()).succeeds();
        assert_eq!(original.wait().signal(), Some(9));
        assert!(crac.dir.join("my cr").is_dir(), "no image\n{}", original.tell());

        let restore = write("restore", "-XX:CRaCRestoreFrom=\"my cr\"\n-Dwhom=all\n");
        let finished = crac.java(&[&restore, "Service$Farewell", "a b"]);
        assert_eq!(finished.status.code(), Some(7), "{finished}");
        assert!(finished.stdout.contains("farewell a b to all"), "{finished}");
        // One without options of CRaC's is the stock JVM's to read.
        let plain = write("plain", "-XX:+UseSerialGC -XX:+PrintFlagsFinal\n");
        let flags = crac.java(&[&plain, "-version"]).succeeds().stdout;
        let line = flags.lines().find(|line| line.contains(" UseSerialGC "));
        assert!(line.is_some_and(|line| line.contains("= true")), "{line:?}");
    });
}

/// Inherited descriptors are closed at the start, but for those named by a number, or by the path that
/// they lead to; those refuse no checkpoint, and a copy has them.
#[test]
fn inherited_descriptors_are_ignored_by_their_numbers_and_paths() {
    on_each_jdk(|jdk| {
        let crac = Crac::make(jdk);
        let named = crac.dir.path().canonicalize().unwrap().join("by-path");
        // Every program gets them: opened so that none changes the files, which a copy would refuse.
        let crac = crac.after("exec 6>>closed 7>>by-number 8>>by-path 9<by-path");
        let ignored = format!("-XX:CRaCIgnoredFileDescriptors=7,{}", named.display());
        // Of two the last has the word.
        let overruled = "-XX:CRaCIgnoredFileDescriptors=6";
        let options = ["-XX:CRaCCheckpointTo=cr", overruled, &ignored];
        let (mut original, _) = crac.service(&options, "plain");
        let leads = |instance: &Instance| {
            let name = |number: u32| {
                let path = fs::read_link(instance.process().proc(&format!("fd/{number}"))).ok()?;
                let name = path.file_name()?.to_str()?.to_owned();
                // The JVM may have something of its own there.
                ["closed", "by-number", "by-path"].contains(&&*name).then_some(name)
            };
            [6, 7, 8, 9].map(|number| name(number).unwrap_or_default())
        };
        let expected = ["", "by-number", "by-path", "by-path"];
        assert_eq!(leads(&original), expected, "{}", original.tell());
        crac.jcmd(original.pid()).succeeds();
        original.wait();
        let port = free_port();
        let mut command = crac.program("java");
        command.args(["-XX:CRaCRestoreFrom=cr", "-XX:CRaCRestoreEngineOptions=pids=new"]);
        command.env("SERVICE_PORT", port.to_string());
        let ready = |_: &str| get(port, "/").is_ok().then_some(());
        let copy = Instance::start("crac jdk restored", &crac.dir, command, ready);
        let below = copy.process().descendants();
        let is_java = |it: &&tub_testkit::Process| {
            // A JDK that is only unpacked is run by a loader of its own.
            let is_java = |name: String| name.trim_end() == "java" || name.starts_with("ld-linux");
            fs::read_to_string(it.proc("comm")).is_ok_and(is_java)
        };
        let java = below.iter().find(is_java).expect("no JVM below the command");
        let kept = [7, 8, 9].map(|number| fs::read_link(java.proc(&format!("fd/{number}"))));
        let kept = kept.map(|path| path.unwrap().file_name().unwrap().to_owned());
        assert_eq!(kept, ["by-number", "by-path", "by-path"], "{}", copy.tell());
        // Without the option they are closed, all of them.
        drop(copy);
        let (original, _) = crac.service(&["-XX:CRaCCheckpointTo=cr"], "plain");
        assert_eq!(leads(&original), [""; 4], "{}", original.tell());
    });
}

/// The place may be another one for each restore, whoever asks for the copy's image.
#[test]
fn a_restore_says_where_the_image_of_the_copy_goes() {
    on_each_jdk(|jdk| {
        let crac = Crac::make(jdk);
        let (mut original, _) = crac.service(&["-XX:CRaCCheckpointTo=cr"], "plain");
        crac.jcmd(original.pid()).succeeds();
        original.wait();
        let image = crac.dir.join("cr");
        let id = |image: &Path| Tub::new(User::Ordinary, "inspect").arg(image).run().succeeds();
        let first = id(&image).stdout;
        for (pattern, by_jcmd, expected) in
            [("next-%02g-%%", true, "next-02-%"), ("inside-%g", false, "inside-2")]
        {
            let port = free_port();
            let mut command = crac.program("java");
            command.arg("-XX:CRaCRestoreFrom=cr").arg(format!("-XX:CRaCCheckpointTo={pattern}"));
            command.env("SERVICE_PORT", port.to_string());
            let ready = |_: &str| get(port, "/").is_ok().then_some(());
            let mut copy = Instance::start("crac jdk restored", &crac.dir, command, ready);
            if by_jcmd {
                crac.jcmd(copy.pid()).succeeds();
            } else {
                assert_eq!(first_answer(port, "/checkpoint").as_deref(), Some("asked for"));
            }
            copy.wait();
            let next = crac.dir.join(expected);
            assert!(next.is_dir(), "no {expected}\n{}", copy.tell());
            assert!(id(&next).stdout.contains("generation 2"));
        }
        assert_eq!(id(&image).stdout, first, "the first image is another one");
        let words = ["-XX:CRaCRestoreFrom=cr", "-XX:CRaCCheckpointTo=cr-%p"];
        crac.java(&words).fails_with(code::FAILED, &["%p is not known at a restore"]);
    });
}

/// CRIU as the engine, found as CRaC JDKs are told of it, with words of its own.
#[test]
fn criu_is_the_engine_by_the_options_of_a_crac_jdk() {
    let Some(criu) = criu() else { return };
    on_each_jdk(|jdk| {
        let crac = Crac::make_as(User::Root, jdk);
        let located = format!("-XX:CRaCEngineOptions=criu_location={}", criu.display());
        let options = [
            "-XX:CRaCCheckpointTo=cr",
            "-XX:CRaCEngine=criu",
            &located,
            "-XX:CRaCCheckpointEngineOptions=args=-v4",
        ];
        let (mut original, port) = crac.service(&options, "plain");
        assert_eq!(first_answer(port, "/count").as_deref(), Some("1"));
        crac.jcmd(original.pid()).succeeds();
        assert_eq!(original.wait().signal(), Some(9));
        let image = crac.dir.join("cr");
        let page = Tub::new(User::Root, "inspect").arg(&image).run().succeeds().stdout;
        assert!(page.contains("criu 4."), "{page}");

        let port = free_port();
        let mut command = crac.program("java");
        command.args(["-XX:CRaCRestoreFrom=cr", "-XX:CRaCEngine=criu", &located]);
        command.env("SERVICE_PORT", port.to_string());
        let ready = |_: &str| get(port, "/").is_ok().then_some(());
        let copy = Instance::start("crac jdk restored", &crac.dir, command, ready);
        assert_eq!(first_answer(port, "/count").as_deref(), Some("2"));
        assert_eq!(first_answer(port, "/work").as_deref(), Some("1088890"));
        assert_eq!(first_answer(port, "/told").as_deref(), Some("before server\nafter server\n"));
        drop(copy);
        // What cannot be had with it is said, and what has no image is started anew.
        let words = ["-XX:CRaCRestoreFrom=cr", &located, "-XX:CRaCRestoreEngineOptions=pids=new"];
        crac.java(&words).fails_with(code::USAGE, &["criu", "--pids new"]);
    });
}
