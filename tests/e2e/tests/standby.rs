//! Instances on standby: parked as long as nobody wants them, let go one by one, gone with their keeper.

use crate::namespaces::inside;
use crate::protocol::Application;
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::Duration;
use tub_testkit::{
    Finished, Flavour, Instance, Process, Scratch, Subject, Tub, User, alone, as_user, code, every,
    is_root, skipped, wait_for,
};

/// How long anything may take that takes no time.
const SOON: Duration = Duration::from_secs(20);

/// A `tub restore --standby` under way. Everything that it has released ends with the value.
pub(crate) struct Keeper {
    child: Child,
    process: Process,
    user: User,
    socket: PathBuf,
    out: PathBuf,
    err: PathBuf,
    released: Vec<Process>,
}

impl Keeper {
    /// Keeps `standby` instances of `image`, with the socket at its usual place.
    pub(crate) fn start(
        dir: &Scratch,
        image: &Path,
        flavour: Flavour,
        standby: usize,
        words: &[&str],
    ) -> Self {
        let keeper = Self::launch(dir, image, flavour, standby, words);
        let ready = wait_for(SOON, || keeper.output().contains("on standby:").then_some(()));
        assert!(ready.is_some(), "never ready\n{}", keeper.tell());
        keeper
    }

    fn launch(
        dir: &Scratch,
        image: &Path,
        flavour: Flavour,
        standby: usize,
        words: &[&str],
    ) -> Self {
        let mut command = Tub::new(flavour.user, "restore")
            .arg(image)
            .args(&["--standby", &standby.to_string()])
            .args(&["--pids", flavour.pids.word(), "--memory", flavour.memory.word()])
            .args(words)
            .command();
        let number = fs::read_dir(dir.path()).unwrap().count();
        let file = |name: &str| {
            let path = dir.join(format!("keeper-{name}.{number}"));
            let file = File::options().create(true).append(true).open(&path).unwrap();
            dir.give(&path);
            (path, file)
        };
        let ((out, stdout), (err, stderr)) = (file("out"), file("err"));
        let child = command.stdout(stdout).stderr(stderr).spawn().unwrap();
        let process = Process::find(i32::try_from(child.id()).unwrap()).expect("it has just begun");
        let mut socket = image.as_os_str().to_owned();
        socket.push(".standby");
        let (socket, released) = (socket.into(), Vec::new());
        Self { child, process, user: flavour.user, socket, out, err, released }
    }

    fn output(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    pub(crate) fn tell(&self) -> String {
        let err = fs::read_to_string(&self.err).unwrap_or_default();
        format!("keeper's output:\n{}\nand:\n{err}", self.output())
    }

    fn ask(&self, words: &[&str]) -> Finished {
        Tub::new(self.user, "release").arg(&self.socket).args(words).run()
    }

    /// Has one let go.
    #[track_caller]
    pub(crate) fn release(&mut self, words: &[&str]) -> Process {
        let finished = self.ask(words).succeeds();
        let pid = finished.stdout.trim().parse().unwrap_or(0);
        let found = Process::find(pid);
        let found = found.unwrap_or_else(|| panic!("{finished}: no process\n{}", self.tell()));
        self.released.push(found);
        found
    }

    #[track_caller]
    pub(crate) fn status(&self) -> serde_json::Value {
        let finished = self.ask(&["--status", "--json"]).succeeds();
        serde_json::from_str(&finished.stdout).unwrap()
    }

    /// Main processes and attendants of what is parked, once there are `count` of them.
    #[track_caller]
    pub(crate) fn parked(&self, count: usize) -> Vec<[Process; 2]> {
        let parked = wait_for(SOON, || {
            let status = self.status();
            let parked = status["parked"].as_array()?;
            let process = |id: &serde_json::Value| Process::find(i32::try_from(id.as_i64()?).ok()?);
            let each = |one: &serde_json::Value| {
                Some([process(&one["pid"])?, process(&one["attendant"])?])
            };
            let all: Vec<_> = parked.iter().filter_map(each).collect();
            (all.len() == count).then_some(all)
        });
        parked.unwrap_or_else(|| panic!("never {count} parked: {}\n{}", self.status(), self.tell()))
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        self.process.signal(signal);
        let ended = wait_for(SOON, || self.child.try_wait().ok().flatten());
        ended.unwrap_or_else(|| panic!("does not end\n{}", self.tell()))
    }

    /// Waits until everything released has ended, each with the verdict that all is as it was.
    #[track_caller]
    fn verdicts(&self) {
        for process in &self.released {
            assert!(process.is_gone_within(Duration::from_secs(60)), "no end\n{}", self.tell());
        }
        let output = self.output();
        let same = output.lines().filter(|line| *line == "verdict: same").count();
        assert_eq!(same, self.released.len(), "{}", self.tell());
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.process.signal(Signal::SIGKILL);
        let _ = self.child.wait();
        for process in &self.released {
            process.signal(Signal::SIGKILL);
            process.is_gone_within(SOON);
        }
    }
}

fn image_of(name: &str, flavour: Flavour) -> (Instance, PathBuf) {
    let mut original = Subject::new(name, flavour.user).start();
    let image = original.dir().join("image");
    original.checkpoint_and_end(&image);
    (original, image)
}

fn kept_for_seconds(name: &str) {
    let _alone = alone("time");
    every(&Flavour::LAZY, |flavour| {
        let (original, image) = image_of(name, flavour);
        let mut keeper = Keeper::start(original.dir(), &image, flavour, 1, &[]);
        thread::sleep(Duration::from_secs(3));
        keeper.release(&[]);
        original.go(&flavour.promises());
        keeper.verdicts();
    });
}

#[test]
fn timers_do_not_expire_while_an_instance_is_parked() {
    kept_for_seconds("timers");
}

#[test]
fn waits_go_on_from_the_release() {
    kept_for_seconds("waits-unnamed");
}

#[test]
fn threads_ids_memory_and_signals_are_there_after_a_release() {
    every(&Flavour::ALL, |flavour| {
        for name in ["threads-200", "memory", "signals"] {
            let (original, image) = image_of(name, flavour);
            let mut keeper = Keeper::start(original.dir(), &image, flavour, 1, &[]);
            keeper.release(&[]);
            original.go(&flavour.promises());
            keeper.verdicts();
        }
    });
}

#[test]
fn a_trained_image_is_parked_with_its_hot_pages() {
    every(&Flavour::LAZY, |flavour| {
        let (original, image) = image_of("memory", flavour);
        Tub::new(flavour.user, "train").arg(&image).args(&["--", "true"]).run().succeeds();
        let mut keeper = Keeper::start(original.dir(), &image, flavour, 2, &[]);
        keeper.parked(2);
        for one in keeper.status()["parked"].as_array().unwrap() {
            let number = |name: &str| one["memory"][name].as_u64().unwrap();
            assert!(number("anonymous_bytes") > 100_000, "{one}");
            assert!(number("pss_bytes") >= number("anonymous_bytes") / 2, "{one}");
            assert!(number("keeping_bytes") > 0, "{one}");
        }
        keeper.release(&[]);
        original.go(&flavour.promises());
        keeper.verdicts();
    });
}

#[test]
fn each_released_instance_is_somebody_else() {
    every(&Flavour::LAZY, |flavour| {
        let mut application = Application::start(flavour.user);
        let image = application.instance.dir().join("image");
        application.instance.checkpoint_and_end(&image);
        let dir = application.instance.dir();
        let words = ["--env", "COLOR=red", "--", "all"];
        let mut keeper = Keeper::start(dir, &image, flavour, 3, &words);
        keeper.release(&[]);
        keeper.release(&["--env", "COLOR=blue", "--", "one", "two"]);
        let pidfile = dir.join("one.pid");
        let third = keeper.release(&["--pidfile", pidfile.to_str().unwrap()]);
        assert_eq!(fs::read_to_string(&pidfile).unwrap(), format!("{}\n", third.pid()));
        let told = |start: &str, count: usize| {
            let lines = wait_for(SOON, || {
                let output = keeper.output();
                let all = output.lines().filter(|line| line.starts_with(start));
                let all: Vec<String> = all.map(str::to_owned).collect();
                (all.len() == count).then_some(all)
            });
            lines.unwrap_or_else(|| panic!("not {count} times {start:?}\n{}", keeper.tell()))
        };
        let random: BTreeSet<_> = told("random ", 3).into_iter().collect();
        assert_eq!(random.len(), 3, "{random:?}");
        let mut words = told("after one ", 3);
        words.sort();
        let expected =
            ["restored 1 [blue] [one,two]", "restored 1 [red] [all]", "restored 1 [red] [all]"];
        assert_eq!(words, expected.map(|words| format!("after one {words}")));
        // A request that no instance could fulfil leaves all of them parked.
        let long = "x".repeat(100_000);
        let refused = keeper.ask(&["--", &long, &long]);
        refused.fails_with(code::USAGE, &["request is longer than"]);
        assert_eq!(keeper.released.len(), 3);
    });
}

#[test]
fn three_are_released_at_once_and_three_others_take_their_places() {
    every(&Flavour::LAZY[1..3], |flavour| {
        let (original, image) = image_of("counter", flavour);
        let mut keeper = Keeper::start(original.dir(), &image, flavour, 3, &[]);
        let before: BTreeSet<i32> = keeper.parked(3).iter().map(|[main, _]| main.pid()).collect();
        let mut callers: Vec<_> = (0..3)
            .map(|_| {
                let mut caller = UnixStream::connect(&keeper.socket).unwrap();
                caller.set_read_timeout(Some(SOON)).unwrap();
                // Any line will do, and the shortest has one byte.
                caller.write_all(b"\n").unwrap();
                caller
            })
            .collect();
        let mut released = BTreeSet::new();
        for caller in &mut callers {
            let mut answer = [0; 512];
            let bytes = caller.read(&mut answer).unwrap();
            let answer: serde_json::Value = serde_json::from_slice(&answer[..bytes]).unwrap();
            assert_eq!(answer["event"], "released", "{answer}");
            let pid = i32::try_from(answer["pid"].as_i64().unwrap()).unwrap();
            released.insert(pid);
            keeper.released.push(Process::find(pid).unwrap());
        }
        assert_eq!(released, before);
        let others: BTreeSet<i32> = keeper.parked(3).iter().map(|[main, _]| main.pid()).collect();
        assert!(others.is_disjoint(&before), "{others:?} {before:?}");
        assert_eq!(keeper.status()["released"], 3);
    });
}

/// Launching costs as much as what is released does until its first answer, on the same processors.
#[test]
fn a_replacement_leaves_the_processors_to_the_released_one() {
    every(&[Flavour::USUAL], |flavour| {
        let (original, image) = image_of("counter", flavour);
        let mut keeper = Keeper::start(original.dir(), &image, flavour, 1, &[]);
        let before = since_boot();
        keeper.release(&[]);
        let [[_, attendant]] = keeper.parked(1)[..] else { unreachable!() };
        let waited = attendant.started().saturating_sub(before);
        // A quarter of a second; both times are rounded down to whole ticks.
        assert!(waited >= Duration::from_millis(240), "only {waited:?}");
    });
}

/// Time since the boot of the machine, in whole hundredths of a second (proc_uptime(5)).
fn since_boot() -> Duration {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    Duration::from_secs_f64(text.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn a_parked_instance_that_dies_is_replaced() {
    every(&Flavour::LAZY[..3], |flavour| {
        let (original, image) = image_of("counter", flavour);
        let mut keeper = Keeper::start(original.dir(), &image, flavour, 2, &[]);
        let [[main, _], [other, attendant]] = keeper.parked(2)[..] else { unreachable!() };
        main.signal(Signal::SIGKILL);
        attendant.signal(Signal::SIGKILL);
        assert!(main.is_gone_within(SOON) && other.is_gone_within(SOON), "{}", keeper.tell());
        let lost = wait_for(SOON, || (keeper.status()["lost"] == 2).then_some(()));
        assert!(lost.is_some(), "{}", keeper.tell());
        keeper.parked(2);
        keeper.release(&[]);
    });
}

#[test]
fn what_is_parked_ends_with_its_keeper_and_what_was_released_does_not() {
    every(&Flavour::LAZY, |flavour| {
        for signal in [Signal::SIGKILL, Signal::SIGTERM] {
            let (original, image) = image_of("counter", flavour);
            let mut keeper = Keeper::start(original.dir(), &image, flavour, 2, &[]);
            let released = keeper.release(&[]);
            let parked: Vec<Process> = keeper.parked(2).concat();
            let all: Vec<Process> =
                parked.iter().flat_map(Process::descendants).chain(parked.clone()).collect();
            let status = keeper.end(signal);
            assert_eq!(status.success(), signal == Signal::SIGTERM, "{status}\n{}", keeper.tell());
            for process in all {
                assert!(process.is_gone_within(SOON), "left over: {}", process.describe());
            }
            // A keeper that was killed leaves its socket; the next one takes its place.
            let left =
                fs::symlink_metadata(&keeper.socket).is_ok_and(|s| s.file_type().is_socket());
            assert_eq!(left, signal == Signal::SIGKILL);
            let before = counted(&keeper);
            let goes_on = wait_for(SOON, || (counted(&keeper) > before + 3).then_some(()));
            assert!(goes_on.is_some() && released.is_alive(), "{}", keeper.tell());
            drop(Keeper::start(original.dir(), &image, flavour, 1, &[]));
        }
    });
}

fn counted(keeper: &Keeper) -> usize {
    keeper.output().lines().filter(|line| line.starts_with("count ")).count()
}

#[test]
fn only_its_own_user_and_root_are_listened_to() {
    if !is_root() {
        skipped("needs root: two users are wanted");
        return;
    }
    let (original, image) = image_of("counter", Flavour::LAZY[0]);
    let keeper = Keeper::start(original.dir(), &image, Flavour::LAZY[0], 1, &[]);
    let mode = fs::metadata(&keeper.socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "{mode:o}");
    // The harness's directories let nobody else in; that is taken back for the sake of the argument.
    fs::set_permissions(original.dir().path(), fs::Permissions::from_mode(0o755)).unwrap();
    let ask = || Tub::new(User::Ordinary, "release").arg(&keeper.socket).run();
    let words = ["no keeper answers", "only the keeper's own user"];
    ask().fails_with(code::NO_SUCH_PROCESS, &words);
    fs::set_permissions(&keeper.socket, fs::Permissions::from_mode(0o666)).unwrap();
    ask().fails_with(code::NO_SUCH_PROCESS, &["only user 0 and root may ask"]);
    assert_eq!(keeper.parked(1).len(), 1);
    assert!(keeper.tell().contains("user 65534 asked"), "{}", keeper.tell());
}

/// Whoever waits at a full house's door costs nothing.
#[test]
fn a_keeper_with_as_many_callers_as_it_takes_is_at_rest() {
    let (original, image) = image_of("counter", Flavour::USUAL);
    let keeper = Keeper::start(original.dir(), &image, Flavour::USUAL, 1, &[]);
    let mut callers: Vec<UnixStream> =
        (0..270).map(|_| UnixStream::connect(&keeper.socket).unwrap()).collect();
    thread::sleep(Duration::from_millis(300));
    let ticks = || {
        let stat = fs::read(keeper.process.proc("stat")).unwrap();
        let stat = String::from_utf8_lossy(&stat).into_owned();
        let times: Vec<u64> = stat[stat.rfind(')').unwrap()..]
            .split(' ')
            .skip(12)
            .take(2)
            .map(|ticks| ticks.parse().unwrap())
            .collect();
        times.iter().sum::<u64>()
    };
    let before = ticks();
    thread::sleep(Duration::from_secs(1));
    let used = ticks() - before;
    assert!(used < 20, "{used} hundredths of a second of processor time in one second");
    // The last one is served as soon as there is room.
    let mut last = callers.pop().unwrap();
    drop(callers);
    last.set_read_timeout(Some(SOON)).unwrap();
    last.write_all(b"{\"op\":\"status\"}\n").unwrap();
    let mut answer = [0; 17];
    last.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"{\"event\":\"status\"");
}

/// A health check with a short timeout, say.
#[test]
fn whoever_leaves_before_he_is_served_takes_nobodys_place() {
    let (original, image) = image_of("counter", Flavour::USUAL);
    let keeper = Keeper::start(original.dir(), &image, Flavour::USUAL, 1, &[]);
    for _ in 0..3 {
        // So that all of them have left when the keeper hears of them.
        keeper.process.signal(Signal::SIGSTOP);
        for _ in 0..100 {
            let mut caller = UnixStream::connect(&keeper.socket).unwrap();
            caller.write_all(b"\n").unwrap();
        }
        keeper.process.signal(Signal::SIGCONT);
        thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(keeper.parked(1).len(), 1);
    assert_eq!(keeper.status()["released"], 0);
}

#[test]
fn a_socket_stands_only_where_nobody_else_can_put_one() {
    every(&[Flavour::USUAL], |flavour| {
        let (original, image) = image_of("counter", flavour);
        let open = original.dir().make_dir("open");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let at = |control: &Path| {
            let words = ["--standby", "1", "--control"];
            let restore = Tub::new(flavour.user, "restore").arg(&image).args(&words);
            restore.arg(control).run()
        };
        at(&open.join("s")).fails_with(code::USAGE, &["others could take the socket's place"]);
        let file = original.dir().join("file");
        fs::write(&file, "mine").unwrap();
        at(&file).fails_with(code::USAGE, &["exists and is no socket"]);
        let keeper = Keeper::start(original.dir(), &image, flavour, 1, &[]);
        at(&keeper.socket).fails_with(code::BUSY, &["is the socket of a keeper that is alive"]);
        // The image leads to its keeper as well.
        Tub::new(flavour.user, "release").arg(&image).arg("--status").run().succeeds();
    });
}

#[test]
fn an_image_that_was_replaced_or_removed_ends_its_keeper() {
    every(&[Flavour::USUAL], |flavour| {
        for replace in [false, true] {
            let (original, image) = image_of("counter", flavour);
            let mut keeper = Keeper::start(original.dir(), &image, flavour, 1, &[]);
            let [[main, _]] = keeper.parked(1)[..] else { unreachable!() };
            fs::rename(&image, original.dir().join("away")).unwrap();
            if replace {
                let (_second, other) = image_of("counter", flavour);
                fs::rename(other, &image).unwrap();
            }
            let words = ["was replaced or removed", "start the keeper again"];
            keeper.ask(&[]).fails_with(code::BAD_IMAGE, &words);
            let status = wait_for(SOON, || keeper.child.try_wait().ok().flatten());
            assert_eq!(status.and_then(|status| status.code()), Some(code::BAD_IMAGE));
            assert!(main.is_gone_within(SOON) && !keeper.socket.exists());
        }
    });
}

#[test]
fn what_cannot_stand_by_is_refused_by_name() {
    every(&Flavour::LAZY[1..3], |flavour| {
        for (subject, words) in [
            ("kin", "processes: only one can be on standby"),
            ("sockets", "on standby nobody would answer there"),
        ] {
            let (original, image) = image_of(subject, flavour);
            let mut keeper = Keeper::launch(original.dir(), &image, flavour, 2, &[]);
            let status = wait_for(SOON, || keeper.child.try_wait().ok().flatten());
            let code = status.and_then(|status| status.code());
            assert!(keeper.tell().contains(words), "{subject}: {}", keeper.tell());
            assert!(code.is_some_and(|code| code != 0) && !keeper.socket.exists(), "{code:?}");
        }
    });
}

/// One that is released, and killed, in a container whose first process is the keeper.
const FIRST_PROCESS: &str = r#"
"$3" checkpoint $original --image "$1/image" || exit 91
(
    tries=0
    until pid=$("$3" release "$1/image" 2>/dev/null); do
        tries=$((tries + 1)); [ $tries -lt 400 ] || exit; sleep 0.05
    done
    kill -KILL "$pid"
    tries=0
    while grep -q '^State:.Z' /proc/[0-9]*/status 2>/dev/null; do
        tries=$((tries + 1)); [ $tries -lt 200 ] || { echo left: $(grep -l '^State:.Z' /proc/[0-9]*/status); break; }
        sleep 0.05
    done
    echo looked
    kill -TERM 1
) &
exec "$3" restore "$1/image" --standby 1
"#;

#[test]
fn a_keeper_that_is_the_first_process_of_a_container_reaps_what_it_has_released() {
    let finished = inside(User::Ordinary, 1, FIRST_PROCESS);
    let said = finished.succeeds().stdout;
    assert!(said.contains("looked") && !said.contains("left:"), "{said}");
}

/// For want of descriptors, processes or memory, which others may give back.
#[test]
fn an_attendant_that_cannot_be_started_ends_nothing_that_is_parked() {
    let flavour = Flavour::LAZY[1];
    let (original, image) = image_of("counter", flavour);
    let mut keeper = Keeper::start(original.dir(), &image, flavour, 2, &[]);
    let [first, _] = keeper.parked(2)[0];
    let limit = |files: u32| {
        let mut prlimit = as_user(flavour.user, Path::new("/usr/bin/prlimit"));
        prlimit.args([
            "--pid",
            &keeper.process.pid().to_string(),
            &format!("--nofile={files}:1024"),
        ]);
        assert!(prlimit.status().unwrap().success());
    };
    // When the end of one is closed there is room for a caller, and not for a pair of sockets.
    let open = fs::read_dir(keeper.process.proc("fd")).unwrap().count();
    limit(u32::try_from(open).unwrap());
    first.signal(Signal::SIGKILL);
    let complaint = || {
        let status = keeper.status();
        let failure = status["failure"].as_str()?.contains("attendant cannot be started");
        failure.then_some(())
    };
    assert!(wait_for(SOON, complaint).is_some(), "{}\n{}", keeper.status(), keeper.tell());
    assert_eq!(keeper.status()["parked"].as_array().unwrap().len(), 1, "{}", keeper.tell());
    limit(1024);
    keeper.parked(2);
    keeper.release(&[]);
    original.go(&flavour.promises());
    keeper.verdicts();
}
