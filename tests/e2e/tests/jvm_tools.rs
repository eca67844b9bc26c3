//! Tools that look at JVMs from outside: they find copies by their ids on the host, any number at once.

use crate::jdk::Jdk;
use crate::jvm::{Service, on_each_jdk};
use nix::sys::signal::Signal;
use std::time::Duration;
use tub_testkit::{Finished, Flavour, Pids, User, as_user, run_bounded};

fn tool(jdk: &Jdk, name: &str, words: &[&str]) -> Finished {
    let mut command = as_user(User::Ordinary, &jdk.home.join("bin").join(name));
    command.args(words);
    run_bounded(command, Duration::from_secs(60)).succeeds()
}

fn is_listed(jdk: &Jdk, service: &Service) -> bool {
    let line = format!("{} Service", service.instance.pid());
    tool(jdk, "jps", &[]).stdout.lines().any(|listed| listed == line)
}

/// `jps` lists it, and `jstat` reads counters that go on counting.
fn is_seen(jdk: &Jdk, service: &Service) {
    assert!(is_listed(jdk, service), "jps does not list it\n{}", service.instance.tell());
    let collections = || {
        let pid = service.instance.pid().to_string();
        let finished = tool(jdk, "jstat", &["-J-Djstat.showUnsupported=true", "-snap", &pid]);
        let finished = finished.stdout;
        let line =
            finished.lines().find(|line| line.starts_with("sun.gc.collector.1.invocations="));
        let line = line.unwrap_or_else(|| panic!("no such counter in: {finished}"));
        line.rsplit('=').next().unwrap().parse::<u64>().unwrap()
    };
    let before = collections();
    service.is_well();
    assert!(collections() > before, "the counters stand still");
    let gc = tool(jdk, "jstat", &["-gc", &service.instance.pid().to_string()]);
    assert_eq!(gc.stdout.lines().count(), 2, "{gc}");
}

#[test]
fn tools_find_copies_at_once_and_a_copy_of_a_copy() {
    on_each_jdk(|jdk| {
        let original =
            Service::start_on(User::Ordinary, jdk, "plain", (&[], &["-XX:+UseSerialGC"], &[]));
        let image = original.image("image");
        original.instance.checkpoint(&image, &["--leave-running"]).succeeds();
        let new = Flavour { pids: Pids::New, ..Flavour::USUAL };
        let kept = Flavour::USUAL;
        let mut copies = [kept, kept, new, new].map(|flavour| original.restore(&image, flavour));
        for service in copies.iter().chain([&original]) {
            is_seen(jdk, service);
        }
        for copy in &copies[2..] {
            let version = tool(jdk, "jcmd", &[&copy.instance.pid().to_string(), "VM.version"]);
            assert!(version.stdout.contains(&format!("JDK {}", jdk.version)), "{version}");
        }

        // An image takes away the file of what it ends, and its copy has one of its own.
        for (at, flavour) in [(0, kept), (2, new)] {
            let image = copies[at].image(&format!("second-{at}"));
            copies[at].instance.checkpoint_and_end(&image);
            assert!(!is_listed(jdk, &copies[at]), "what has ended is listed");
            copies[at] = copies[at].restore(&image, flavour);
            is_seen(jdk, &copies[at]);
        }

        // Each removes its own file at its end and nobody else's, whatever id it has inside.
        let mut copies = Vec::from(copies);
        while let Some(mut copy) = copies.pop() {
            copy.instance.process().signal(Signal::SIGTERM);
            copy.instance.wait();
            assert!(!is_listed(jdk, &copy), "its file is left behind");
            assert!(copies.iter().chain([&original]).all(|other| is_listed(jdk, other)));
        }
        is_seen(jdk, &original);
    });
}
