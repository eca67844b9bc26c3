//! A tree of processes: groups, sessions, zombies, a stopped one; what they share, they go on
//! sharing.
//!
//! ```text
//!   main ┬ worker         shares a file, an epoll set, pipes, sockets, memory with main
//!        │   └ nested     leads a group
//!        ├ guest          in the group of nested
//!        ├ orphaned       in a group whose leader is gone
//!        ├ leader         leads a session
//!        │   └ follower   in that session
//!        ├ sleeper        stopped
//!        └ three zombies  one has exited with 7, one was killed, one by a real-time signal
//! ```

use crate::pattern;
use crate::stage::{Promise, Stage};
use crate::sys::{self, Mapping, PAGE_WORDS};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// All but main and the zombies.
const NAMES: [&str; 7] = ["worker", "nested", "guest", "orphaned", "leader", "follower", "sleeper"];
/// Pages that main and worker share until one of them writes.
const COPIED_PAGES: usize = 256;
/// The page that the worker has written to.
const WRITTEN_PAGE: usize = 100;
const PR_SET_PDEATHSIG: i32 = 1;
const PR_GET_PDEATHSIG: i32 = 2;

static CHILDREN_ENDED: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_child(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    CHILDREN_ENDED.fetch_add(1, Ordering::SeqCst);
}

/// Who a process is, as it sees it itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    pid: i32,
    parent: i32,
    group: i32,
    session: i32,
}

impl Identity {
    fn now() -> io::Result<Self> {
        Ok(Self {
            pid: std::process::id().cast_signed(),
            parent: sys::parent(),
            group: sys::group()?,
            session: sys::session()?,
        })
    }

    /// Which of the ids are the same number: what holds whatever the numbers are.
    fn shape(self) -> (bool, bool) {
        (self.group == self.pid, self.session == self.pid)
    }
}

/// The pipes that every descendant has inherited.
#[derive(Debug)]
struct Lines {
    /// Ends when main lets all go.
    hold: File,
    /// Where everybody tells what differs.
    report: File,
    /// Where everybody says that it is in place.
    ready: File,
}

/// The life of a descendant: sets itself up, says so, waits for *go* and checks itself.
fn live(
    stage: &Stage,
    lines: &mut Lines,
    name: &str,
    set_up: impl FnOnce() -> io::Result<()>,
    check: impl FnOnce(&Stage) -> io::Result<()>,
) -> ! {
    let lived = || -> io::Result<()> {
        set_up()?;
        let before = Identity::now()?;
        lines.ready.write_all(b".")?;
        stage.wait_for_go()?;
        let after = Identity::now()?;
        if stage.promised(Promise::SameIds) {
            stage.same("pid", &before.pid, &after.pid);
            stage.same("parent", &before.parent, &after.parent);
            // That of the others is led by somebody outside of the tree.
            if ["nested", "guest", "orphaned", "leader", "follower"].contains(&name) {
                stage.same("group", &before.group, &after.group);
            }
        }
        stage.same("leads group, leads session", &before.shape(), &after.shape());
        check(stage)
    };
    if let Err(error) = lived() {
        stage.differs(format!("could not go on: {error}"));
    }
    // Each line in one write, so that it stays whole among those of the others.
    let differences = stage.differences().into_iter();
    for line in
        differences.map(|line| format!("{name}: {line}\n")).chain([format!("{name} is done\n")])
    {
        let _ = lines.report.write_all(line.as_bytes());
    }
    // Nobody leaves before all have looked at each other.
    let _ = lines.hold.read_to_end(&mut Vec::new());
    sys::exit(0)
}

/// Everything at once, since a tree is one thing.
pub(crate) fn tree(stage: &'static Stage) -> io::Result<()> {
    // Neither a file nor a socket of the harness: what differs is told through pipes.
    let (hold, keep) = sys::pipe(0)?;
    let (mut told, report) = sys::pipe(0)?;
    let (mut all_ready, ready) = sys::pipe(0)?;
    let (mut number_in, mut number_out) = sys::pipe(0)?;
    let mut lines = Lines { hold, report, ready };
    let path = stage.path("shared");
    std::fs::write(&path, pattern::bytes(4096, 80))?;
    let mut shared = File::options().read(true).write(true).open(&path)?;
    let mut seen = Mapping::file(&shared, 1, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED)?;
    let mut copied =
        Mapping::anonymous(COPIED_PAGES, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE)?;
    pattern::fill(copied.words_mut(0, COPIED_PAGES), 81);
    let (ours, theirs) = sys::socketpair(libc::SOCK_STREAM)?;
    let (watched_in, mut watched_out) = sys::pipe(0)?;
    let epoll = sys::epoll_create()?;
    sys::epoll_ctl(&epoll, libc::EPOLL_CTL_ADD, &watched_in, libc::EPOLLIN, 0xfeed)?;
    let mut members = 0;
    let mut fork = || {
        members += 1;
        sys::fork()
    };

    if fork()?.is_none() {
        drop(keep);
        worker(stage, lines, &mut shared, (&mut seen, &mut copied), (theirs, epoll), number_out);
    }
    let mut nested = String::new();
    // The number of nested's group comes with a newline.
    let mut byte = [0];
    while number_in.read(&mut byte)? == 1 && byte != *b"\n" {
        nested.push(char::from(byte[0]));
    }
    let nested: i32 = nested.parse().map_err(io::Error::other)?;
    number_out.flush()?;
    if fork()?.is_none() {
        drop(keep);
        live(stage, &mut lines, "guest", || sys::join_group(nested), |_| Ok(()));
    }
    let gone = sys::fork()?;
    let Some(gone) = gone else {
        sys::join_group(0)?;
        let (mut wait, _keep) = sys::pipe(0)?;
        let _ = wait.read(&mut byte);
        sys::exit(0)
    };
    while !sys::leads_group(gone)? {
        std::thread::sleep(Duration::from_millis(1));
    }
    if fork()?.is_none() {
        drop(keep);
        live(stage, &mut lines, "orphaned", || sys::join_group(gone), |_| Ok(()));
    }
    if fork()?.is_none() {
        drop(keep);
        session_leader(stage, lines);
    }
    let Some(sleeper) = sys::fork()? else {
        drop(keep);
        // Says nothing before it is stopped, nor checks itself before it is let go on.
        sys::raise(libc::SIGSTOP)?;
        live(stage, &mut lines, "sleeper", || Ok(()), |_| Ok(()));
    };
    let Some(exited) = sys::fork()? else { sys::exit(7) };
    let Some(killed) = sys::fork()? else {
        sys::raise(libc::SIGKILL)?;
        sys::exit(1)
    };
    let real_time = libc::SIGRTMIN() + 1;
    let Some(killed_in_time) = sys::fork()? else {
        sys::raise(real_time)?;
        sys::exit(1)
    };
    // The worker's and the session leader's children are two more.
    all_ready.read_exact(&mut vec![0; members + 2])?;
    sys::kill(gone, libc::SIGKILL)?;
    sys::wait(gone, 0)?;
    sys::wait(sleeper, libc::WUNTRACED)?;
    sys::wait_for_zombie(exited)?;
    sys::wait_for_zombie(killed)?;
    sys::wait_for_zombie(killed_in_time)?;
    sys::handle(libc::SIGCHLD, count_child, libc::SA_NOCLDSTOP | libc::SA_RESTART, &[])?;
    let before = Identity::now()?;
    let children = children()?;
    shared.seek(io::SeekFrom::Start(100))?;

    stage.across()?;

    let after = Identity::now()?;
    stage.same("children told of", &0, &CHILDREN_ENDED.load(Ordering::SeqCst));
    if stage.promised(Promise::SameIds) {
        stage.same("pid", &before.pid, &after.pid);
        stage.same("children", &children, &self::children()?);
    }
    stage.same("number of children", &children.len(), &self::children()?.len());
    let mut ended: Vec<_> = (0..4).filter_map(|_| sys::wait(-1, libc::WNOHANG).ok()?).collect();
    ended.sort_by_key(|(_, status)| *status);
    let statuses: Vec<i32> = ended.iter().map(|(_, status)| *status).collect();
    stage.same("how zombies ended", &vec![libc::SIGKILL, real_time, 7 << 8], &statuses);
    if stage.promised(Promise::SameIds) {
        let pids: Vec<i32> = ended.iter().map(|(pid, _)| *pid).collect();
        stage.same("zombies", &vec![killed, killed_in_time, exited], &pids);
    }
    share(stage, &mut shared, (&mut seen, &copied), &mut File::from(ours), &mut watched_out)?;
    let stopped = self::children()?.into_iter().filter(|pid| is_stopped(*pid));
    let stopped: Vec<i32> = stopped.collect();
    stage.same("number of stopped children", &1, &stopped.len());
    for pid in stopped {
        sys::kill(pid, libc::SIGCONT)?;
    }

    drop(lines);
    let (mut text, mut part) = (String::new(), [0; 4096]);
    while text.matches(" is done\n").count() < NAMES.len() {
        match told.read(&mut part)? {
            0 => break,
            bytes => text.push_str(&String::from_utf8_lossy(&part[..bytes])),
        }
    }
    drop(keep);
    for name in NAMES {
        stage.holds(&format!("{name} told"), text.contains(&format!("{name} is done\n")));
    }
    for line in text.lines().filter(|line| !line.ends_with(" is done")) {
        stage.differs(line.to_owned());
    }
    Ok(())
}

/// What main and worker share, seen from main.
fn share(
    stage: &Stage,
    shared: &mut File,
    (seen, copied): (&mut Mapping, &Mapping),
    line: &mut File,
    watched: &mut File,
) -> io::Result<()> {
    let own = pattern::first_difference(copied.words(0, COPIED_PAGES), 81);
    stage.same("first difference of the own copy", &None, &own);
    seen.words_mut(0, 1)[0] = 0x7ea;
    stage.same("position", &100, &shared.stream_position()?);
    watched.write_all(b"!")?;
    line.write_all(b"go")?;
    let mut answer = [0; 4];
    line.read_exact(&mut answer)?;
    stage.same("answer of the worker", b"done", &answer);
    stage.same("position after the worker has read", &110, &shared.stream_position()?);
    Ok(())
}

fn worker(
    stage: &Stage,
    mut lines: Lines,
    shared: &mut File,
    (seen, copied): (&mut Mapping, &mut Mapping),
    (line, epoll): (OwnedFd, OwnedFd),
    mut number: File,
) -> ! {
    copied.words_mut(WRITTEN_PAGE, 1).fill(7);
    match sys::fork() {
        Ok(None) => live(
            stage,
            &mut lines,
            "nested",
            || {
                sys::join_group(0)?;
                number.write_all(format!("{}\n", std::process::id()).as_bytes())
            },
            |_| Ok(()),
        ),
        Ok(Some(_)) => {}
        Err(error) => stage.differs(format!("fork: {error}")),
    }
    let die = || sys::prctl(PR_SET_PDEATHSIG, libc::SIGUSR1 as u64).map(drop);
    live(stage, &mut lines, "worker", die, |stage| {
        let signal = sys::prctl_int(PR_GET_PDEATHSIG)?;
        stage.same("parent-death signal", &libc::SIGUSR1, &signal);
        let mut line = File::from(line);
        let mut word = [0; 2];
        line.read_exact(&mut word)?;
        stage.same("word of main", b"go", &word);
        let own = copied.words(WRITTEN_PAGE, 1);
        stage.holds("page written before", own.iter().all(|word| *word == 7));
        let words = copied.words(0, COPIED_PAGES);
        let (before, rest) = words.split_at(WRITTEN_PAGE * PAGE_WORDS);
        stage.same("pages before it", &None, &pattern::first_difference(before, 81));
        let last = pattern::word(81, words.len() as u64 - 1);
        stage.same("a page after it", &last, &rest[rest.len() - 1]);
        stage.same("shared memory", &0x7ea, &seen.words(0, 1)[0]);
        let ready = sys::epoll_wait(&epoll, 10_000)?;
        stage.same("epoll", &vec![(libc::EPOLLIN as u32, 0xfeed)], &ready);
        let mut bytes = [0; 10];
        shared.read_exact(&mut bytes)?;
        line.write_all(b"done")
    })
}

fn session_leader(stage: &Stage, mut lines: Lines) -> ! {
    if let Err(error) = sys::lead_session() {
        stage.differs(format!("setsid: {error}"));
    }
    let session = std::process::id().cast_signed();
    match sys::fork() {
        Ok(None) => live(
            stage,
            &mut lines,
            "follower",
            || Ok(()),
            move |stage| {
                if stage.promised(Promise::SameIds) {
                    stage.same("session", &session, &sys::session()?);
                }
                stage.same("session is the parent's", &sys::parent(), &sys::session()?);
                Ok(())
            },
        ),
        Ok(Some(_)) => {}
        Err(error) => stage.differs(format!("fork: {error}")),
    }
    live(stage, &mut lines, "leader", || Ok(()), |_| Ok(()))
}

/// The children of the one thread.
fn children() -> io::Result<Vec<i32>> {
    let text = std::fs::read_to_string("/proc/thread-self/children")?;
    Ok(text.split_whitespace().filter_map(|word| word.parse().ok()).collect())
}

fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T"))
}
