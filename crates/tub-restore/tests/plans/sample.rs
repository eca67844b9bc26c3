//! Small processes made by hand, and a host to restore them on.
//!
//! Not here: what becomes of them.

use tub_image::PageRun;
use tub_model::{
    AlternateStack, Backing, Checkpoint, Clocks, Controls, Coordination, Credentials, DiscardKind,
    Discarder, EpollTarget, Fd, FileIdentity, FileKind, HostFacts, IntervalTimer, Limit, Lock,
    MmFields, OpenFile, Protection, Provenance, Registers, Rseq, Scheduling, SignalAction, Task,
    Thread, Vma,
};
use tub_restore::plan::{MemoryFacts, PlanError, PlanFacts, PlanWishes, RestorePlan, plan};
use tub_units::{AddrRange, FdNumber, NsPid, RemoteAddr};

pub(crate) fn range(start: u64, end: u64) -> AddrRange {
    AddrRange::new(start, end).unwrap()
}

pub(crate) fn file(path: &str) -> FileIdentity {
    FileIdentity { path: path.to_owned(), dev: 1, ino: 2, size_bytes: 0x10000, mtime_ns: 5 }
}

pub(crate) fn vma(range: AddrRange, rights: &str, backing: Backing, saved: &[AddrRange]) -> Vma {
    Vma {
        range,
        protection: Protection {
            read: rights.contains('r'),
            write: rights.contains('w'),
            execute: rights.contains('x'),
        },
        backing,
        grows_down: false,
        no_reserve: false,
        droppable: false,
        sealed: false,
        lock: Lock::None,
        advice: Vec::new(),
        saved: saved.to_vec(),
        guards: Vec::new(),
    }
}

pub(crate) fn thread(tid: i32, name: &str) -> Thread {
    let mut general = [0; 27];
    general[16] = 0x40_1000;
    general[21] = 0x1000_0000 + u64::from(tid.cast_unsigned()) * 0x800;
    Thread {
        tid: NsPid(tid),
        name: name.to_owned(),
        registers: Registers { general, xsave: vec![0; 832] },
        signal_mask: 0,
        pending_signals: Vec::new(),
        alternate_stack: AlternateStack::default(),
        clear_child_tid: RemoteAddr(general[21] + 720),
        robust_list: (RemoteAddr(general[21] + 736), 24),
        robust_held: 0,
        waits_for_owner: false,
        rseq: Some(Rseq {
            address: RemoteAddr(general[21] + 2464),
            size_bytes: 32,
            signature: 0x5305_3053,
        }),
        scheduling: Scheduling::default(),
        timer_slack_ns: 0,
        wait: None,
    }
}

pub(crate) fn discarder(path: &str, kind: DiscardKind) -> Discarder {
    Discarder { path: path.to_owned(), kind }
}

/// A JVM in miniature: a program, a library with written data, a heap, a stack, two threads.
pub(crate) fn checkpoint() -> Checkpoint {
    let heap = range(0x1000_0000, 0x1010_0000);
    let mut stack = vma(
        range(0x7ffe_0000_0000, 0x7ffe_0002_1000),
        "rw",
        Backing::Anonymous,
        &[range(0x7ffe_0002_0000, 0x7ffe_0002_1000)],
    );
    stack.grows_down = true;
    let mut guard = vma(range(0x1010_0000, 0x1020_0000), "", Backing::Anonymous, &[]);
    guard.no_reserve = true;
    let library = |start, end, rights, offset_bytes, saved: &[AddrRange]| {
        let backing = Backing::PrivateFile { file: file("/lib/libjvm.so"), offset_bytes };
        vma(range(start, end), rights, backing, saved)
    };
    let pipe = |write_end, content: &[&[u8]]| OpenFile {
        flags: i32::from(write_end),
        owner: None,
        locks: Vec::new(),
        kind: FileKind::Pipe {
            path: None,
            id: 77,
            write_end,
            capacity_bytes: 65536,
            content: content.iter().map(|bytes| bytes.to_vec()).collect(),
            both_ends: true,
        },
    };
    let open = |flags, kind| OpenFile { flags, owner: None, locks: Vec::new(), kind };
    let log = FileKind::Regular { file: file("/var/log/app.log"), offset_bytes: 120 };
    let epoll = FileKind::Epoll {
        targets: vec![EpollTarget { fd: FdNumber(4), file: 2, events: 1, data: 0xdead_0004 }],
    };
    let fd = |number, file| Fd { number: FdNumber(number), close_on_exec: false, file };
    Checkpoint {
        provenance: Provenance {
            tool_version: "0.1.0".to_owned(),
            created_unix_ns: 1,
            generation: 1,
            image_id: [7; 16],
            labels: Vec::new(),
            metrics: Vec::new(),
        },
        host: HostFacts::default(),
        clocks: Clocks { monotonic_ns: 1_000, boottime_ns: 2_000, realtime_ns: 3_000 },
        coordination: Some(Coordination {
            mailbox: range(0x100f_0000, 0x1010_0000),
            runtime: "a JVM".to_owned(),
            resources: vec!["a connector".to_owned()],
        }),
        files: vec![
            open(0, FileKind::Device { path: "/dev/null".to_owned() }),
            open(0x8401, log),
            pipe(false, &[b"abc"]),
            pipe(true, &[]),
            open(2, epoll),
        ],
        zombies: Vec::new(),
        memory_files: Vec::new(),
        tasks: vec![Task {
            pid: NsPid(100),
            parent: None,
            group: NsPid(100),
            session: NsPid(100),
            stopped: None,
            parent_death_signal: 0,
            exe: file("/usr/bin/java"),
            exe_deleted: false,
            cwd: "/srv".to_owned(),
            umask: 0o022,
            credentials: Credentials {
                uids: [1000; 4],
                gids: [1000; 4],
                groups: Vec::new(),
                capabilities: [0; 3],
            },
            dumpable: 1,
            no_new_privs: false,
            thp_disable: false,
            child_subreaper: false,
            personality: 0,
            oom_score_adj: 0,
            controls: Controls { memory_failure: 2, core_filter: 0x33, ..Controls::default() },
            limits: vec![Limit { resource: 7, soft: 4096, hard: 8192 }],
            mm: MmFields { auxv: vec![0; 16], ..MmFields::default() },
            vmas: vec![
                library(0x40_0000, 0x40_8000, "rx", 0, &[]),
                library(0x40_8000, 0x41_0000, "r", 0x8000, &[range(0x40_8000, 0x40_d000)]),
                library(0x41_0000, 0x41_2000, "rw", 0xe000, &[range(0x41_0000, 0x41_1000)]),
                vma(heap, "rw", Backing::Anonymous, &[range(0x1000_0000, 0x1002_0000)]),
                guard,
                stack,
                vma(range(0x7fff_f000_0000, 0x7fff_f000_8000), "rx", Backing::Vdso, &[]),
            ],
            discarders: vec![discarder("/lib/libjvm.so", DiscardKind::Imports)],
            signal_actions: vec![SignalAction {
                signal: 11,
                handler: 0x40_2000,
                flags: 0x1400_0004,
                restorer: 0x40_3000,
                mask: 0,
            }],
            pending_signals: Vec::new(),
            interval_timers: vec![IntervalTimer { which: 0, value_us: 5_000, interval_us: 0 }],
            posix_timers: Vec::new(),
            fds: vec![fd(0, 0), fd(1, 1), fd(2, 1), fd(4, 2), fd(5, 3), fd(6, 4), fd(9, 1)],
            threads: vec![thread(100, "java"), thread(101, "GC Thread#0")],
        }],
    }
}

pub(crate) fn runs() -> Vec<Vec<PageRun>> {
    let run =
        |start, end, offset_bytes| PageRun { range: range(start, end), offset_bytes, hash: 0 };
    vec![vec![
        run(0x40_8000, 0x40_d000, 0),
        run(0x41_0000, 0x41_1000, 0x5000),
        run(0x1000_0000, 0x1001_0000, 0x6000),
        run(0x1001_f000, 0x1002_0000, 0x16000),
        run(0x7ffe_0002_0000, 0x7ffe_0002_1000, 0x17000),
    ]]
}

pub(crate) fn facts() -> PlanFacts {
    PlanFacts {
        user_namespace: true,
        time_namespace: true,
        set_executable: true,
        clone3: true,
        store_is_noexec: false,
        monotonic_ns: u64::MAX,
        boottime_ns: u64::MAX,
        uid: 1000,
        gid: 1000,
        groups: Some(Vec::new()),
        capabilities: [0; 3],
        limits: vec![Limit { resource: 7, soft: 1024, hard: 2048 }],
        timer_ids: true,
        other_vdso: None,
        memory: MemoryFacts { guards: true, droppable: true, seals: true },
        blob_bytes: 1000,
        terminal: false,
    }
}

pub(crate) fn planned(facts: &PlanFacts, wishes: PlanWishes) -> Result<RestorePlan, PlanError> {
    plan(&checkpoint(), &runs(), facts, wishes)
}
