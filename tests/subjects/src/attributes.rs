//! What a process is apart from memory and descriptors: directory, masks, limits, names, rights.

use crate::stage::{Promise, Stage};
use crate::sys;
use crate::thread;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// ADDR_NO_RANDOMIZE of personality(2).
const NO_RANDOMISATION: u64 = 0x0004_0000;

/// MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED and MEMBARRIER_CMD_PRIVATE_EXPEDITED of membarrier(2).
const REGISTER_PRIVATE_EXPEDITED: i32 = 1 << 4;
const PRIVATE_EXPEDITED: i32 = 1 << 3;

/// Class best-effort, level 6, of ioprio_set(2).
const IO_PRIORITY: i32 = 2 << 13 | 6;

static NAMED: AtomicBool = AtomicBool::new(false);
static CUT: AtomicBool = AtomicBool::new(false);

/// Sets everything to something unusual that needs no right, and compares. `attributes cut-off`: and a name
/// that is no text.
pub(crate) fn attributes(stage: &'static Stage) -> io::Result<()> {
    let directory = stage.path("deep/er");
    fs::create_dir_all(&directory)?;
    std::env::set_current_dir(&directory)?;
    // Made before anything is changed, and so without any of it.
    let plain = thread::spawn(move || plain_thread(stage));
    while !PLAIN.load(Ordering::SeqCst) {
        thread::yield_now();
    }
    sys::set_umask(0o027);
    sys::lead_session()?;
    fs::write("/proc/self/comm", "tub: subject")?;
    fs::write("/proc/self/oom_score_adj", "321")?;
    let (_, hard) = sys::limit(libc::RLIMIT_NOFILE)?;
    sys::set_limit(libc::RLIMIT_NOFILE, 517.min(hard), hard)?;
    sys::set_limit(libc::RLIMIT_CORE, 0, sys::limit(libc::RLIMIT_CORE)?.1)?;
    // Upwards from what it starts with: down again takes a right.
    let nice = (sys::nice() + 5).min(18);
    let nicest = (nice + 6).min(19);
    sys::set_nice(nice)?;
    sys::set_scheduler(libc::SCHED_BATCH)?;
    sys::prctl(libc::PR_SET_THP_DISABLE, 1)?;
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1)?;
    sys::personality(Some(NO_RANDOMISATION))?;
    sys::prctl(libc::PR_SET_TIMERSLACK, 123_456)?;
    sys::prctl(libc::PR_SET_PDEATHSIG, 10)?;
    sys::prctl(libc::PR_SET_KEEPCAPS, 1)?;
    sys::set_memory_failure_policy(libc::PR_MCE_KILL_EARLY)?;
    sys::set_io_priority(IO_PRIORITY)?;
    fs::write("/proc/self/coredump_filter", "0x7f")?;
    let barriers = sys::membarrier(REGISTER_PRIVATE_EXPEDITED);
    let thread = thread::Builder::new().name("a thread".to_owned()).spawn(move || {
        let outcome = sys::set_nice(nicest)
            .and_then(|()| sys::set_scheduler(libc::SCHED_IDLE | libc::SCHED_RESET_ON_FORK));
        let allowed = sys::affinity().unwrap_or_default();
        let pinned = allowed.iter().max().map(|&last| vec![last]).unwrap_or_default();
        stage.works("pinning of a thread", sys::set_affinity(&pinned));
        stage.works("slack of a thread", sys::prctl(libc::PR_SET_TIMERSLACK, 77_000));
        stage.works("nice value and policy of a thread", outcome);
        NAMED.store(true, Ordering::SeqCst);
        while !stage.is_over() {
            thread::sleep(Duration::from_millis(10));
        }
        let comm = fs::read_to_string("/proc/thread-self/comm");
        let comm = stage.works("name of a thread", comm).unwrap_or_default();
        stage.same("name of a thread", &"a thread\n", &comm.as_str());
        stage.same("nice value of a thread", &nicest, &sys::nice());
        let policy = libc::SCHED_IDLE | libc::SCHED_RESET_ON_FORK;
        stage.same("policy of a thread", &Some(policy), &sys::scheduler().ok());
        stage.same("affinity of a thread", &Some(pinned), &sys::affinity().ok());
        let slack = sys::prctl(libc::PR_GET_TIMERSLACK, 0).ok();
        stage.same("slack of a thread", &Some(77_000), &slack);
    })?;
    while !NAMED.load(Ordering::SeqCst) {
        thread::yield_now();
    }
    let cut = (stage.option(0) == Some("cut-off")).then(|| {
        let thread = thread::spawn(move || name_cut_off(stage));
        while !CUT.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        thread
    });
    let limits = fs::read_to_string("/proc/self/limits")?;
    let rights = rights()?;

    stage.across()?;

    stage.same("working directory", &directory, &std::env::current_dir()?);
    stage.same("umask", &0o027, &sys::umask());
    stage.same("session", &sys::gettid(), &sys::session()?);
    let comm = fs::read_to_string("/proc/self/comm")?;
    stage.same("name", &"tub: subject\n", &comm.as_str());
    let score = fs::read_to_string("/proc/self/oom_score_adj")?;
    stage.same("oom_score_adj", &"321\n", &score.as_str());
    stage.same("limits", &limits, &fs::read_to_string("/proc/self/limits")?);
    stage.same("nice value", &nice, &sys::nice());
    stage.same("scheduling policy", &libc::SCHED_BATCH, &sys::scheduler()?);
    stage.same("THP disabled", &1, &sys::prctl(libc::PR_GET_THP_DISABLE, 0)?);
    stage.same("no_new_privs", &1, &sys::prctl(libc::PR_GET_NO_NEW_PRIVS, 0)?);
    stage.same("child subreaper", &1, &sys::prctl_int(libc::PR_GET_CHILD_SUBREAPER)?);
    stage.same("dumpable", &1, &sys::prctl(libc::PR_GET_DUMPABLE, 0)?);
    stage.same("timer slack", &123_456, &sys::prctl(libc::PR_GET_TIMERSLACK, 0)?);
    stage.same("keepcaps", &1, &sys::prctl(libc::PR_GET_KEEPCAPS, 0)?);
    let policy = sys::prctl(libc::PR_MCE_KILL_GET, 0)?;
    stage.same("policy for broken memory", &libc::PR_MCE_KILL_EARLY, &policy);
    stage.same("I/O priority", &IO_PRIORITY, &sys::io_priority()?);
    let filter = fs::read_to_string("/proc/self/coredump_filter")?;
    stage.same("what a core dump holds", &"0000007f\n", &filter.as_str());
    // With new ids the parent is `tub restore`, which the process must not outlive.
    let kept = stage.promised(Promise::SameIds) || !stage.promised(Promise::Restored);
    let signal = if kept { 10 } else { libc::SIGKILL };
    stage.same("parent death signal", &signal, &sys::prctl_int(libc::PR_GET_PDEATHSIG)?);
    if barriers.is_ok() {
        stage.works("membarrier after registration", sys::membarrier(PRIVATE_EXPEDITED));
    }
    let personality = i32::try_from(NO_RANDOMISATION).expect("fits");
    stage.same("personality", &personality, &sys::personality(None)?);
    stage.same("user, groups and capabilities", &rights, &self::rights()?);
    stage.holds("thread ends", thread.join().is_ok());
    if let Some(cut) = cut {
        stage.holds("thread with a name cut off ends", cut.join().is_ok());
    }
    stage.holds("plain thread ends", plain.join().is_ok());
    Ok(())
}

/// A thread with a name as the kernel cuts off those of more than 15 bytes, in the middle of a letter.
fn name_cut_off(stage: &Stage) {
    let named = fs::write("/proc/thread-self/comm", b"0123456789abcd\xc3");
    stage.works("naming of a thread", named);
    CUT.store(true, Ordering::SeqCst);
    while !stage.is_over() {
        thread::sleep(Duration::from_millis(10));
    }
    let comm = stage.works("a name cut off", fs::read("/proc/thread-self/comm"));
    let comm = String::from_utf8_lossy(&comm.unwrap_or_default()).replace('\u{fffd}', "?");
    stage.same("a name cut off", &"0123456789abcd?\n", &comm.as_str());
}

static PLAIN: AtomicBool = AtomicBool::new(false);

/// A thread that has changed nothing, whatever the main one did since.
fn plain_thread(stage: &Stage) {
    let found = || {
        let slack = sys::prctl(libc::PR_GET_TIMERSLACK, 0).ok();
        (sys::nice(), sys::scheduler().ok(), slack, sys::affinity().ok(), sys::io_priority().ok())
    };
    let before = found();
    PLAIN.store(true, Ordering::SeqCst);
    while !stage.is_over() {
        thread::sleep(Duration::from_millis(10));
    }
    stage.same("scheduling of a thread that changed nothing", &before, &found());
}

/// The lines of `/proc/self/status` that say what the process may do.
fn rights() -> io::Result<Vec<String>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let wanted = ["Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:", "NoNewPrivs:"];
    let lines = status.lines().filter(|line| wanted.iter().any(|w| line.starts_with(w)));
    Ok(lines.map(str::to_owned).collect())
}
