//! Plans as golden text: what a plan does, in which order, for small processes made by hand.
//!
//! A plan is pure, so these tests need no privilege and no process. To accept a change after having
//! read it: `BLESS=1 cargo test -p tub-restore --test plans`.

#![expect(clippy::unwrap_used, reason = "a test may end where it finds what it did not expect")]

use tub_image::PageRun;
use tub_model::*;
use tub_restore::plan::{
    ClockPlan, Ids, MemoryFacts, MemoryMode, PlanError, PlanFacts, PlanOp, PlanWishes, RestorePlan,
    Stdio, auto_memory, lower, plan,
};
use tub_restorer_abi::Stub;
use tub_units::{AddrRange, FdNumber, NsPid, RemoteAddr};

fn range(start: u64, end: u64) -> AddrRange {
    AddrRange::new(start, end).unwrap()
}

fn file(path: &str) -> FileIdentity {
    FileIdentity { path: path.to_owned(), dev: 1, ino: 2, size_bytes: 0x10000, mtime_ns: 5 }
}

fn vma(range: AddrRange, rights: &str, backing: Backing, saved: &[AddrRange]) -> Vma {
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

fn thread(tid: i32, name: &str) -> Thread {
    let mut general = [0; 27];
    general[16] = 0x40_1000;
    general[21] = 0x7000_0000 + u64::from(tid.cast_unsigned()) * 0x1000;
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

fn discarder(path: &str, kind: DiscardKind) -> Discarder {
    Discarder { path: path.to_owned(), kind }
}

/// A JVM in miniature: a program, a library with written data, a heap, a stack, two threads.
fn checkpoint() -> Checkpoint {
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

fn runs() -> Vec<Vec<PageRun>> {
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

fn facts() -> PlanFacts {
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
        capabilities: [0; 3],
        limits: vec![Limit { resource: 7, soft: 1024, hard: 2048 }],
        timer_ids: true,
        other_vdso: None,
        memory: MemoryFacts { guards: true, droppable: true, seals: true },
        blob_bytes: 1000,
        terminal: false,
    }
}

fn planned(facts: &PlanFacts, wishes: PlanWishes) -> Result<RestorePlan, PlanError> {
    plan(&checkpoint(), &runs(), facts, wishes)
}

fn assert_golden(name: &str, actual: &str) {
    let path = format!("{}/tests/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(golden, actual, "{path} differs; read the difference, then BLESS=1");
}

/// A thread that waits goes on in a stub, which gives it back its own register afterwards.
#[test]
fn a_wait_goes_on_in_a_stub() {
    let mut checkpoint = checkpoint();
    let thread = &mut checkpoint.tasks[0].threads[1];
    thread.registers.general[12] = 5000;
    thread.wait =
        Some(RemainingWait { register: 12, remaining_ns: 1_499_999_999, milliseconds: true });
    let plan = plan(&checkpoint, &runs(), &facts(), PlanWishes::default()).unwrap();
    assert!(plan.to_string().contains("resume         1 waiting 1499999999 ns more"));
    let lowered = lower(&plan, &plan.tasks[0]);
    let code = lowered.stubs.first_chunk().unwrap();
    let stub = Stub { register: 12, original: 5000, return_to: 0x40_1002 };
    assert_eq!(Stub::from_bytes(code), Some(stub));
    // Registers lie in the frame in the order of struct sigcontext: rdx, then rax, rcx, rsp, rip.
    let words: Vec<u64> = lowered
        .data
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
        .collect();
    let rip = words.iter().position(|&word| word == lowered.stubs_at).unwrap();
    assert_eq!(words[rip - 4], 1500);
    let blob = plan.tasks[0].blob;
    assert!(blob.contains(lowered.stubs_at + 31) && lowered.stubs_at + 32 <= lowered.header);
}

#[test]
fn a_lazy_restore_with_kept_ids() {
    let wishes = PlanWishes { mailbox: vec![1; 64], ..PlanWishes::default() };
    assert_golden("lazy-keep", &planned(&facts(), wishes).unwrap().to_string());
}

#[test]
fn an_exact_restore_with_new_ids_and_no_namespaces() {
    let facts = PlanFacts {
        user_namespace: false,
        time_namespace: false,
        set_executable: false,
        clone3: false,
        ..facts()
    };
    let wishes = PlanWishes {
        ids: Ids::New,
        memory: MemoryMode::Eager,
        stdio: Stdio::Inherit,
        ..PlanWishes::default()
    };
    assert_golden("exact-new", &planned(&facts, wishes).unwrap().to_string());
}

/// The JVM with a worker that shares its log and holds the other end of its pipe, in a group whose
/// leader has gone, and that worker's child, stopped, in a session of its own; and a zombie.
fn tree() -> (Checkpoint, Vec<Vec<PageRun>>) {
    let mut image = checkpoint();
    let fd = |number, file| Fd { number: FdNumber(number), close_on_exec: false, file };
    let main = image.tasks[0].clone();
    let child = |pid, parent| Task {
        pid: NsPid(pid),
        parent: Some(parent),
        vmas: vec![main.vmas[3].clone()],
        threads: vec![thread(pid, "worker")],
        signal_actions: Vec::new(),
        interval_timers: Vec::new(),
        ..main.clone()
    };
    let worker = Task {
        group: NsPid(150),
        parent_death_signal: 15,
        fds: vec![fd(1, 3), fd(2, 1), fd(4, 2), fd(7, 4)],
        ..child(200, 0)
    };
    let nested = Task {
        group: NsPid(300),
        session: NsPid(300),
        stopped: Some(19),
        fds: vec![fd(0, 0)],
        ..child(300, 1)
    };
    image.tasks[0].fds.retain(|fd| fd.file != 3);
    image.tasks.extend([worker, nested]);
    image.zombies.push(Zombie {
        pid: NsPid(201),
        parent: 0,
        group: NsPid(100),
        session: NsPid(100),
        name: "sh".to_owned(),
        status: 0x100,
    });
    let mut runs = runs();
    let heap = runs[0][2];
    runs.extend([vec![heap], vec![heap]]);
    (image, runs)
}

#[test]
fn a_tree_with_kept_ids() {
    let (image, runs) = tree();
    let plan = plan(&image, &runs, &facts(), PlanWishes::default()).unwrap();
    assert_golden("tree-keep", &plan.to_string());
}

#[test]
fn a_tree_with_new_ids() {
    let (image, runs) = tree();
    let wishes = PlanWishes { ids: Ids::New, stdio: Stdio::Image, ..PlanWishes::default() };
    let plan = plan(&image, &runs, &facts(), wishes).unwrap();
    assert_golden("tree-new", &plan.to_string());
}

#[test]
fn a_session_that_can_only_be_inherited_is_refused() {
    let (mut image, runs) = tree();
    image.tasks[1].session = NsPid(300);
    image.tasks[1].group = NsPid(300);
    let error = plan(&image, &runs, &facts(), PlanWishes::default()).err();
    assert_eq!(error, Some(PlanError::Session { pid: 200, session: 300 }));
}

#[test]
fn no_mapping_of_a_plan_touches_the_blob() {
    let plan = planned(&facts(), PlanWishes::default()).unwrap();
    for op in plan.tasks[0].programs.iter().flat_map(|program| &program.ops) {
        let touched = match op {
            PlanOp::MapAnonymous { range, .. }
            | PlanOp::MapPages { range, .. }
            | PlanOp::ReadPages { range, .. }
            | PlanOp::MapFile { range, .. }
            | PlanOp::Protect { range, .. }
            | PlanOp::Unmap(range) => *range,
            _ => continue,
        };
        assert!(!touched.overlaps(plan.tasks[0].blob), "{op}");
    }
}

#[test]
fn memory_is_never_writable_and_executable() {
    for memory in [MemoryMode::Lazy, MemoryMode::Eager] {
        for store_is_noexec in [false, true] {
            let facts = PlanFacts { store_is_noexec, ..facts() };
            let plan = planned(&facts, PlanWishes { memory, ..PlanWishes::default() }).unwrap();
            for op in plan.tasks[0].programs.iter().flat_map(|program| &program.ops) {
                if let PlanOp::MapAnonymous { protection, .. }
                | PlanOp::MapPages { protection, .. }
                | PlanOp::MapFile { protection, .. }
                | PlanOp::Protect { protection, .. } = op
                {
                    assert!(!(protection.write && protection.execute), "{op}");
                }
            }
        }
    }
}

/// What the kernel would have at the end of each operation, page by page, next to what the original
/// had there.
#[test]
fn no_page_has_a_right_too_many_at_any_time() {
    for (memory, store_is_noexec) in
        [(MemoryMode::Lazy, false), (MemoryMode::Lazy, true), (MemoryMode::Eager, false)]
    {
        let mut image = checkpoint();
        // Code in anonymous memory, as a just-in-time compiler leaves it, and code beside which it
        // writes on.
        let (code, both) = (range(0x2000_0000, 0x2001_0000), range(0x3000_0000, 0x3001_0000));
        let saved = [range(0x2000_0000, 0x2000_5000)];
        let at = image.tasks[0].vmas.len() - 2;
        image.tasks[0].vmas.insert(at, vma(both, "rwx", Backing::Anonymous, &[both]));
        image.tasks[0].vmas.insert(at, vma(code, "rx", Backing::Anonymous, &saved));
        let mut runs = runs();
        let stack = runs[0].pop().unwrap();
        runs[0].push(PageRun { range: saved[0], offset_bytes: 0x18000, hash: 0 });
        runs[0].push(PageRun { range: both, offset_bytes: 0x1d000, hash: 0 });
        runs[0].push(stack);
        let facts = PlanFacts { store_is_noexec, ..facts() };
        let wishes = PlanWishes { memory, ..PlanWishes::default() };
        let plan = plan(&image, &runs, &facts, wishes).unwrap();
        for op in plan.tasks[0].programs.iter().flat_map(|program| &program.ops) {
            let (PlanOp::MapAnonymous { range, protection, .. }
            | PlanOp::MapPages { range, protection, .. }
            | PlanOp::MapFile { range, protection, .. }
            | PlanOp::Protect { range, protection }) = op
            else {
                continue;
            };
            let original = image.tasks[0].vmas.iter().find(|vma| vma.range.covers(*range)).unwrap();
            let original = original.protection;
            let both = protection.write && protection.execute;
            assert!(!both || original.write && original.execute, "{op}");
            assert!(!protection.execute || original.execute, "{op}");
        }
        // And in the end each has what it had.
        for vma in image.tasks[0].vmas.iter().filter(|vma| vma.backing != Backing::Vdso) {
            let mut last = None;
            for op in &plan.tasks[0].programs[0].ops {
                if let PlanOp::MapAnonymous { range, protection, .. }
                | PlanOp::MapPages { range, protection, .. }
                | PlanOp::MapFile { range, protection, .. }
                | PlanOp::Protect { range, protection } = op
                    && range.contains(vma.range.start())
                {
                    last = Some(*protection);
                }
            }
            assert_eq!(last, Some(vma.protection), "{}", vma.range);
        }
    }
}

#[test]
fn guards_locks_and_seals_come_last_in_this_order() {
    let mut image = checkpoint();
    let heap = image.tasks[0].vmas.iter_mut().find(|vma| vma.range.start() == 0x1000_0000).unwrap();
    heap.guards = vec![range(0x1003_0000, 0x1003_1000)];
    heap.lock = Lock::OnFault;
    heap.sealed = true;
    let heap = heap.range;
    image.tasks[0].mm.lock_future = Lock::Resident;
    let limit = |soft, hard| Limit { resource: 8, soft, hard };
    let with_limit = |hard| PlanFacts { limits: vec![limit(4096, hard)], ..facts() };
    let ops = |facts: &PlanFacts| {
        let plan = plan(&image, &runs(), facts, PlanWishes::default()).unwrap();
        (plan.tasks[0].programs[0].ops.clone(), plan.warnings)
    };
    let (all, warnings) = ops(&with_limit(1 << 30));
    assert!(!warnings.iter().any(|warning| warning.contains("locked")), "{warnings:?}");
    let at = |op: &PlanOp| all.iter().position(|other| other == op).unwrap();
    let lock = PlanOp::Lock { range: heap, on_fault: true, untouchable: true };
    let order = [
        at(&PlanOp::SetLimit(limit(1 << 30, 1 << 30))),
        at(&PlanOp::Guard(range(0x1003_0000, 0x1003_1000))),
        at(&lock),
        at(&PlanOp::Seal(heap)),
        at(&PlanOp::LockFuture { on_fault: false }),
        // The limit is what it would have been.
        at(&PlanOp::SetLimit(limit(4096, 1 << 30))),
    ];
    assert!(order.is_sorted(), "{order:?}");

    let (all, warnings) = ops(&with_limit(4096));
    assert!(warnings.iter().any(|warning| warning.contains("ulimit -l")), "{warnings:?}");
    let locks = |op: &PlanOp| matches!(op, PlanOp::Lock { .. } | PlanOp::LockFuture { .. });
    assert!(!all.iter().any(locks));

    let without = MemoryFacts { guards: false, ..facts().memory };
    let facts = PlanFacts { memory: without, ..facts() };
    let error = plan(&image, &runs(), &facts, PlanWishes::default()).err();
    assert_eq!(error, Some(PlanError::Guards { range: heap }));
}

#[test]
fn nothing_that_may_fail_comes_after_the_point_of_no_return() {
    let plan = planned(&facts(), PlanWishes::default()).unwrap();
    let after = plan.tasks[0].programs[0].ops.iter().skip_while(|op| **op != PlanOp::AwaitGo);
    for op in after {
        let harmless = matches!(
            op,
            PlanOp::AwaitGo
                | PlanOp::ArmPosixTimer(_)
                | PlanOp::SetIntervalTimer(_)
                | PlanOp::Close { .. }
                | PlanOp::Meet(_)
                | PlanOp::Resume { .. }
        );
        assert!(harmless, "{op}");
    }
}

#[test]
fn every_lowered_plan_fits_its_range() {
    for memory in [MemoryMode::Lazy, MemoryMode::Eager] {
        let wishes = PlanWishes { memory, mailbox: vec![3; 5000], ..PlanWishes::default() };
        let plan = planned(&facts(), wishes).unwrap();
        let task = &plan.tasks[0];
        let lowered = lower(&plan, task);
        assert!(lowered.data.len() as u64 <= task.blob.len() - plan.code_bytes);
    }
}

#[test]
fn hot_pages_are_shared_between_two_threads_and_only_private_writable_ones_are_taken() {
    // A page of the text, one before and three in the heap, one of the stack.
    let hot = vec![
        range(0x40_0000, 0x40_1000),
        range(0x0fff_f000, 0x1000_1000),
        range(0x1000_4000, 0x1000_6000),
        range(0x7ffe_0002_0000, 0x7ffe_0002_1000),
    ];
    let plan = planned(&facts(), PlanWishes { hot, ..PlanWishes::default() }).unwrap();
    let populated = |index: usize| -> Vec<AddrRange> {
        let ops = plan.tasks[0].programs[index].ops.iter();
        ops.filter_map(|op| if let PlanOp::Populate(range) = op { Some(*range) } else { None })
            .collect()
    };
    assert_eq!(populated(0), [range(0x1000_0000, 0x1000_1000)]);
    assert_eq!(populated(1), [range(0x1000_4000, 0x1000_6000)]);
}

#[test]
fn an_exact_restore_ignores_advice_about_hot_pages() {
    let hot = vec![range(0x1000_0000, 0x1000_1000)];
    let wishes = PlanWishes { hot, memory: MemoryMode::Eager, ..PlanWishes::default() };
    let plan = planned(&facts(), wishes).unwrap();
    let ops = plan.tasks[0].programs.iter().flat_map(|program| &program.ops);
    assert!(!ops.into_iter().any(|op| matches!(op, PlanOp::Populate(_))));
}

/// Whoever has a second thread cannot enter a time namespace, and what counts time must not begin
/// before.
#[test]
fn on_standby_everything_but_memory_waits_for_the_release() {
    let hot = vec![range(0x1000_0000, 0x1000_1000)];
    let wishes = PlanWishes { standby: true, hot, ..PlanWishes::default() };
    let plan = planned(&facts(), wishes).unwrap();
    assert_golden("standby", &plan.to_string());
    let lowered = lower(&plan, &plan.tasks[0]);
    assert!(lowered.data.len() as u64 <= plan.tasks[0].blob.len() - plan.code_bytes);
    let ops = &plan.tasks[0].programs[0].ops;
    let at = |wanted: fn(&PlanOp) -> bool| ops.iter().position(wanted).unwrap();
    let parked = at(|op| matches!(op, PlanOp::ReportParked));
    let released = at(|op| matches!(op, PlanOp::AwaitRelease { clocks: true }));
    assert!(at(|op| matches!(op, PlanOp::Populate(_))) < parked && parked < released);
    assert!(ops[released..].iter().all(|op| !matches!(op, PlanOp::AwaitGo | PlanOp::Touch(_))));
    assert!(at(|op| matches!(op, PlanOp::Spawn { .. })) > released);
    assert!(!ops.iter().any(|op| matches!(op, PlanOp::FillMailbox { .. })));
}

#[test]
fn what_would_answer_for_nobody_cannot_stand_by() {
    let wishes = || PlanWishes { standby: true, ..PlanWishes::default() };
    let mut image = checkpoint();
    let tcp = |state| {
        let (protocol, address) = (6, "127.0.0.1:80".to_owned());
        FileKind::Socket(Socket::Tcp { protocol, address, state, options: Vec::new() })
    };
    let number = FdNumber(11);
    image.tasks[0].fds.push(Fd { number, close_on_exec: false, file: image.files.len() });
    let open = |kind| OpenFile { flags: 2, owner: None, locks: Vec::new(), kind };
    image.files.push(open(tcp(TcpState::Listening { backlog: 5 })));
    let error = plan(&image, &runs(), &facts(), wishes()).err();
    let address = "127.0.0.1:80".to_owned();
    assert_eq!(error, Some(PlanError::StandbySocket { number: 11, address }));
    image.files.pop();
    let unix = |bytes: &[u8]| {
        let name = Some(UnixName { bytes: bytes.to_vec(), file: None });
        let (inbox, options) = (Vec::new(), Vec::new());
        let state = UnixState::Listening { backlog: 5 };
        Socket::Unix(UnixSocket { kind: 1, id: 1, name, state, shutdown: 0, inbox, options })
    };
    image.files.push(open(FileKind::Socket(unix(b"\0name"))));
    let error = plan(&image, &runs(), &facts(), wishes()).err();
    let address = "@name".to_owned();
    assert_eq!(error, Some(PlanError::StandbySocket { number: 11, address }));
    image.files.pop();
    image.files.push(open(tcp(TcpState::Dead)));
    assert!(plan(&image, &runs(), &facts(), wishes()).is_ok());
}

#[test]
fn the_clock_never_runs_backwards() {
    let saved = checkpoint().clocks;
    let (monotonic_ns, boottime_ns) = (saved.monotonic_ns, saved.boottime_ns);
    // Any host that has run for as long will do.
    let same = PlanFacts { time_namespace: false, monotonic_ns, boottime_ns, ..facts() };
    let plan = planned(&same, PlanWishes::default()).unwrap();
    assert_eq!(plan.clocks, ClockPlan::Jump);
    assert_eq!(plan.warnings[0], "clocks jump forward: no time namespace can be had here");
    for behind in [
        PlanFacts { monotonic_ns: monotonic_ns - 1, ..same.clone() },
        PlanFacts { boottime_ns: boottime_ns - 1, ..same },
    ] {
        let error = planned(&behind, PlanWishes::default()).err();
        assert_eq!(error, Some(PlanError::ClockBackwards { seconds: 1 }));
        let wishes = PlanWishes { clocks_may_go_back: true, ..PlanWishes::default() };
        let plan = planned(&behind, wishes).unwrap();
        assert_eq!(plan.clocks, ClockPlan::Jump);
        assert!(plan.warnings[0].starts_with("clocks go back by 1 s"), "{:?}", plan.warnings);
    }
}

#[test]
fn nobody_restores_a_root_process_as_an_ordinary_user() {
    let mut image = checkpoint();
    image.tasks[0].credentials.uids = [0; 4];
    let error = plan(&image, &runs(), &facts(), PlanWishes::default()).err();
    assert_eq!(error, Some(PlanError::ForeignUser { image: 0, caller: 1000 }));
}

#[test]
fn a_restore_never_gains_a_capability() {
    let mut image = checkpoint();
    image.tasks[0].credentials.capabilities = [u64::MAX; 3];
    let facts = PlanFacts { capabilities: [1 << 10, 1 << 10, 0], ..facts() };
    let plan = plan(&image, &runs(), &facts, PlanWishes::default()).unwrap();
    let expected = PlanOp::SetCapabilities([1 << 10, 1 << 10, 0]);
    assert!(plan.tasks[0].programs.iter().all(|program| program.ops.contains(&expected)));
}

fn timer(id: i32, target: i32) -> PosixTimer {
    PosixTimer {
        id,
        clock: 1,
        notify: 4,
        signal: 34,
        value: 0,
        target: NsPid(target),
        value_ns: 5,
        interval_ns: 0,
    }
}

/// Operations on timers in the plan of a process with these.
fn timer_ops(timers: &[PosixTimer], ids: Ids, timer_ids: bool) -> Vec<String> {
    let mut checkpoint = checkpoint();
    checkpoint.tasks[0].posix_timers = timers.to_vec();
    let facts = PlanFacts { timer_ids, ..facts() };
    let wishes = PlanWishes { ids, ..PlanWishes::default() };
    let plan = plan(&checkpoint, &runs(), &facts, wishes).unwrap();
    // It also has room for all of them.
    lower(&plan, &plan.tasks[0]);
    let text = plan.to_string();
    text.lines().map(str::trim).filter(|line| line.contains("timer-")).map(str::to_owned).collect()
}

#[test]
fn older_kernels_count_up_to_the_id_of_a_timer() {
    let ops = timer_ops(&[timer(0, 100), timer(2, 101)], Ids::Keep, false);
    let expected = [
        "timer-create   0 clock 1 signal 34",
        "timer-create   1 clock 1 signal 34",
        "timer-delete   1",
        "timer-create   2 clock 1 signal 34",
        "timer-arm      0 in 5 ns every 0 ns",
        "timer-arm      2 in 5 ns every 0 ns",
    ];
    assert_eq!(ops, expected);
    timer_ops(&[timer(4000, 100)], Ids::Keep, false);
}

#[test]
fn a_thread_says_itself_which_id_its_timer_is_to_signal() {
    let ops = timer_ops(&[timer(0, 101), timer(1, 999)], Ids::New, true);
    assert_eq!(ops.iter().filter(|op| op.starts_with("timer-aim")).count(), 1, "{ops:?}");
    assert_eq!(ops.last().unwrap(), "timer-aim      0");
}

/// One program or library that may count on zeros is enough, whatever the runtime.
#[test]
fn memory_is_lazy_only_where_everything_that_discards_pages_bears_it() {
    let decided = |discarders: &[(&str, DiscardKind)]| {
        let mut image = checkpoint();
        let discarders = discarders.iter().map(|&(path, kind)| discarder(path, kind));
        image.tasks[0].discarders = discarders.collect();
        auto_memory(&image.tasks[0])
    };
    let known = ("/lib/libjvm.so", DiscardKind::Imports);
    for lazy in [decided(&[]), decided(&[known, ("/j/libnio.so", DiscardKind::Imports)])] {
        assert!(lazy.lazy && lazy.reason.contains("libjvm.so"), "{lazy}");
    }
    for other in [
        ("/app/libfast.so", DiscardKind::Imports),
        ("/lib/libjemalloc.so.2", DiscardKind::Imports),
        ("/opt/node", DiscardKind::Allocator),
        ("/opt/tool", DiscardKind::Static),
        ("/lib/libnio.so", DiscardKind::Unknown),
    ] {
        let exact = decided(&[known, other]);
        assert!(!exact.lazy && exact.reason.contains(other.0), "{exact}");
    }
    let mut unknown = checkpoint();
    unknown.tasks[0].vmas.retain(|vma| !matches!(vma.backing, Backing::PrivateFile { .. }));
    assert!(!auto_memory(&unknown.tasks[0]).lazy);
}

/// V8 makes memory executable that it has written, which the page store would forbid there.
#[test]
fn a_page_store_that_forbids_code_is_mapped_for_jvms_only() {
    let is_lazy = |runtime: &str, memory| {
        let mut image = checkpoint();
        image.tasks[0].discarders.clear();
        for vma in &mut image.tasks[0].vmas {
            if let Backing::PrivateFile { file, .. } = &mut vma.backing {
                runtime.clone_into(&mut file.path);
            }
        }
        let facts = PlanFacts { store_is_noexec: true, ..facts() };
        let wishes = PlanWishes { memory, ..PlanWishes::default() };
        plan(&image, &runs(), &facts, wishes).unwrap().tasks[0].memory.lazy
    };
    assert!(is_lazy("/lib/libjvm.so", MemoryMode::Auto));
    assert!(!is_lazy("/usr/bin/node", MemoryMode::Auto));
    assert!(is_lazy("/usr/bin/node", MemoryMode::Lazy));
}
