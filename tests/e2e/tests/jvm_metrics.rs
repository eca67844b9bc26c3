//! What a CRaC JDK stores with an image about its JVM (crac-java.md, section 5.6): by its names, in its units.

use crate::http::{first_answer, free_port, get};
use crate::jvm::{on_each_jdk, unix_ms};
use crate::jvm_jdk::Crac;
use std::collections::BTreeMap;
use std::time::Duration;
use tub_testkit::{Instance, Tub, User, run_bounded};

/// Those that are HotSpot's counters, by the same names.
const COUNTERS: [&str; 14] = [
    "java.cls.loadedClasses",
    "java.cls.sharedLoadedClasses",
    "java.cls.unloadedClasses",
    "java.cls.sharedUnloadedClasses",
    "sun.cls.appClassLoadCount",
    "sun.ci.totalCompiles",
    "sun.ci.totalBailouts",
    "sun.ci.totalInvalidates",
    "sun.ci.osrCompiles",
    "sun.ci.standardCompiles",
    "sun.ci.osrBytes",
    "sun.ci.standardBytes",
    "sun.ci.nmethodSize",
    "sun.ci.nmethodCodeSize",
];

type Numbers = BTreeMap<String, f64>;

fn stored(crac: &Crac, image: &str) -> Numbers {
    let told = Tub::new(User::Ordinary, "inspect").arg(crac.dir.join(image)).arg("--json").run();
    let told: serde_json::Value = serde_json::from_str(&told.succeeds().stdout).unwrap();
    let pairs: Vec<(String, String)> = serde_json::from_value(told["metrics"].clone()).unwrap();
    let count = pairs.len();
    let numbers: Numbers =
        pairs.into_iter().map(|(name, value)| (name, value.parse().unwrap())).collect();
    assert_eq!(numbers.len(), count, "a name twice: {numbers:?}");
    numbers
}

/// What HotSpot's own tool says of the same.
fn counted(crac: &Crac, pid: i32) -> Numbers {
    let mut command = crac.program("jcmd");
    command.args([&pid.to_string(), "PerfCounter.print"]);
    let told = run_bounded(command, Duration::from_secs(60)).succeeds().stdout;
    let pairs = told.lines().filter_map(|line| line.split_once('='));
    pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}

#[test]
fn what_the_jvm_has_measured_of_itself_is_kept_with_each_image() {
    on_each_jdk(|jdk| {
        let crac = Crac::make(jdk);
        let before = unix_ms() as f64;
        let (mut original, port) = crac.service(&["-XX:CRaCCheckpointTo=cr-%g"], "plain");
        for count in 1..=50 {
            assert_eq!(first_answer(port, "/count"), Some(count.to_string()));
        }
        let counters = counted(&crac, original.pid());
        crac.jcmd_with(original.pid(), &["metrics=mine=0.5,vm.maxMemory=7"]).succeeds();
        original.wait();
        let first = stored(&crac, "cr-1");
        for name in COUNTERS {
            // It has gone on counting, and never back.
            assert!(first[name] >= counters[name], "{name}: {first:?} against {counters:?}");
            // A method more that is compiled while it runs is one of all: of the few before it says nothing.
            let all = name.replace("sun.ci.osr", "sun.ci.standard");
            let before = counters[name] + if all == name { 0.0 } else { counters[&all] };
            assert!(first[name] <= before * 3.0 + 1000.0, "{name}: {first:?}");
        }
        let ms = counters["java.ci.totalTime"] * 1000.0 / counters["sun.os.hrt.frequency"];
        assert!((ms.floor()..ms * 3.0 + 1000.0).contains(&first["java.ci.totalTime"]), "{first:?}");
        // What was asked for comes first.
        assert_eq!((first["mine"], first["vm.maxMemory"]), (0.5, 7.0));
        assert_eq!(first["jdk.crac.globalContext.size"], 1.0);
        assert_eq!(first["vm.uptimeSinceRestore"], -1.0);
        assert_eq!(first["vm.uptime"], first["vm.uptimeSinceBoot"]);
        let lived = unix_ms() as f64 - before;
        for name in ["vm.uptime", "vm.processCpuTime"] {
            assert!((1.0..lived * 2.0).contains(&first[name]), "{name} in {lived}: {first:?}");
        }
        assert!((before..before + lived).contains(&first["vm.bootTime"]), "{before}: {first:?}");
        let processors = std::thread::available_parallelism().unwrap().get() as f64;
        assert_eq!(first["vm.availableProcessors"], processors);
        let heap = first["vm.totalMemory"];
        assert!((1.0..heap).contains(&first["vm.freeMemory"]) && heap <= 256e6 * 1.1, "{first:?}");

        // A copy counts on from there, but for its own time.
        let port = free_port();
        let mut command = crac.program("java");
        command.arg("-XX:CRaCRestoreFrom=cr-1").env("SERVICE_PORT", port.to_string());
        let ready = |_: &str| get(port, "/").is_ok().then_some(());
        let mut copy = Instance::start("crac jdk restored", &crac.dir, command, ready);
        crac.jcmd(copy.pid()).succeeds();
        copy.wait();
        let second = stored(&crac, "cr-2");
        for name in COUNTERS {
            assert!(second[name] >= first[name], "{name}: {second:?} against {first:?}");
        }
        assert_eq!(second["vm.bootTime"], first["vm.bootTime"]);
        assert_eq!(second["vm.uptime"], second["vm.uptimeSinceRestore"]);
        assert!((1.0..second["vm.uptimeSinceBoot"]).contains(&second["vm.uptime"]), "{second:?}");
        assert!(!second.contains_key("mine") && second["vm.maxMemory"] > 7.0, "{second:?}");

        // Without counters there is what can be asked otherwise, and an image.
        let options = ["-XX:CRaCCheckpointTo=cr", "-XX:-UsePerfData"];
        let (mut original, _) = crac.service(&options, "plain");
        crac.jcmd(original.pid()).succeeds();
        original.wait();
        let without = stored(&crac, "cr");
        let common: Vec<_> =
            first.keys().filter(|name| name.starts_with("vm.") || name.contains("crac")).collect();
        assert_eq!(without.keys().collect::<Vec<_>>(), common);
        assert_eq!(common.len(), 10);
    });
}
