//! A checkpoint that uses every field and every variant.

use tub_model::*;
use tub_units::{AddrRange, FdNumber, NsPid, RemoteAddr};

/// Addresses `start..end` in pages from 4 MiB on.
pub(super) fn pages(start: u64, end: u64) -> AddrRange {
    AddrRange::new(0x40_0000 + start * 4096, 0x40_0000 + end * 4096).unwrap()
}

/// What memory holds: pages with a number divisible by 3 are zeros, as are 40 to 69.
pub(super) fn memory(range: AddrRange) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in (range.start()..range.end()).step_by(4096) {
        let page = (address - 0x40_0000) / 4096;
        let zero = page % 3 == 0 || (40..70).contains(&page);
        let fill = if zero { 0 } else { u8::try_from(page % 251).unwrap() };
        bytes.extend_from_slice(&[fill; 4096]);
    }
    bytes
}

fn file(path: &str) -> FileIdentity {
    FileIdentity {
        path: path.into(),
        dev: 0xfe00,
        ino: 77,
        size_bytes: 123_456,
        mtime_ns: -1_700_000_000_000_000_001,
    }
}

pub(super) fn checkpoint() -> Checkpoint {
    Checkpoint {
        provenance: Provenance {
            tool_version: "0.1.0".into(),
            created_unix_ns: 1_760_000_000_123_456_789,
            generation: 3,
            image_id: *b"0123456789abcdef",
            labels: vec![("stage".into(), "production".into()), ("empty".into(), String::new())],
            metrics: vec![("requests".into(), "25000".into())],
        },
        host: HostFacts {
            arch: "x86_64".into(),
            kernel_release: "6.18.0".into(),
            boot_id: "01234567-89ab-cdef-0123-456789abcdef".into(),
            page_bytes: 4096,
            cpu_model: "Example CPU ü".into(),
            cpu_features: vec!["avx2".into(), "sse2".into()],
            xsave_features: 0x2e7,
            xsave_bytes: 2432,
            vdso: VdsoFacts {
                hash: u64::MAX,
                span_bytes: 0x8000,
                vvar_bytes: 0x6000,
                functions: vec![VdsoFunction { name: "__vdso_time".into(), offset_bytes: 0x700 }],
            },
        },
        clocks: Clocks { monotonic_ns: 1, boottime_ns: 2, realtime_ns: u64::MAX },
        coordination: Some(Coordination {
            mailbox: pages(10, 11),
            runtime: "OpenJDK 64-Bit Server VM 17".into(),
            resources: vec!["com.acme.Pool@1f".into(), String::new()],
        }),
        files: files(),
        memory_files: memory_files(),
        tasks: vec![task(), child()],
        zombies: vec![Zombie {
            pid: NsPid(4251),
            parent: 1,
            group: NsPid(4242),
            session: NsPid(0),
            name: "sleep".into(),
            status: 0x100,
        }],
    }
}

fn task() -> Task {
    Task {
        pid: NsPid(4242),
        parent: None,
        group: NsPid(4242),
        session: NsPid(4200),
        stopped: None,
        parent_death_signal: 9,
        exe: file("/usr/bin/java"),
        exe_deleted: false,
        cwd: "/srv/app".into(),
        umask: 0o22,
        credentials: Credentials {
            uids: [1000, 1001, 1002, 1003],
            gids: [1, 2, 3, u32::MAX - 1],
            groups: vec![4, 24],
            capabilities: [1 << 40, 1 << 40 | 2, 3],
        },
        dumpable: 1,
        no_new_privs: true,
        thp_disable: true,
        child_subreaper: true,
        personality: 0x40000,
        oom_score_adj: -17,
        controls: Controls {
            secure_bits: 16,
            membarrier: 1 << 4,
            memory_failure: 2,
            no_write_execute: 1,
            core_filter: 0x33,
            tiles: true,
        },
        limits: vec![Limit { resource: 7, soft: 1024, hard: u64::MAX }],
        mm: MmFields {
            start_code: 1,
            end_code: 2,
            start_data: 3,
            end_data: 4,
            start_brk: 5,
            brk: 6,
            start_stack: 7,
            arg_start: 8,
            arg_end: 9,
            env_start: 10,
            env_end: 11,
            auxv: (0..=255).collect(),
            lock_future: Lock::OnFault,
        },
        vmas: vmas(),
        discarders: discarders(),
        signal_actions: vec![SignalAction {
            signal: 11,
            handler: 0x7fff_0000_1234,
            flags: 0x0c00_0004,
            restorer: 5,
            mask: u64::MAX,
        }],
        pending_signals: vec![pending(7)],
        interval_timers: vec![IntervalTimer { which: 2, value_us: 3, interval_us: 4 }],
        posix_timers: vec![PosixTimer {
            id: 0,
            clock: -6,
            notify: 4,
            signal: 34,
            value: u64::MAX,
            target: NsPid(4243),
            value_ns: 5,
            interval_ns: 6,
        }],
        fds: vec![
            Fd { number: FdNumber(0), close_on_exec: false, file: 3 },
            Fd { number: FdNumber(5), close_on_exec: true, file: 0 },
            Fd { number: FdNumber(6), close_on_exec: false, file: 0 },
        ],
        threads: vec![thread(4242, "java"), thread(4243, "a) b (c"), thread(4300, "")],
    }
}

/// The second task: stopped, and with other pages at addresses that the first one has, too.
fn child() -> Task {
    Task {
        pid: NsPid(4250),
        parent: Some(0),
        session: NsPid(4242),
        stopped: Some(19),
        parent_death_signal: 0,
        posix_timers: vec![],
        vmas: vec![vma(pages(1, 3), Backing::Anonymous, vec![pages(1, 3)]), vdso()],
        fds: vec![Fd { number: FdNumber(7), close_on_exec: false, file: 0 }],
        threads: vec![thread(4250, "worker")],
        ..task()
    }
}

fn vma(range: AddrRange, backing: Backing, saved: Vec<AddrRange>) -> Vma {
    Vma {
        range,
        protection: Protection { read: true, write: true, execute: false },
        backing,
        grows_down: false,
        no_reserve: true,
        droppable: false,
        sealed: false,
        lock: Lock::None,
        advice: vec![14, 18],
        saved,
        guards: vec![],
    }
}

fn discarders() -> Vec<Discarder> {
    let discarder = |path: &str, kind| Discarder { path: path.into(), kind };
    vec![
        discarder("/lib/libjemalloc.so.2", DiscardKind::Allocator),
        discarder("/lib/libjvm.so", DiscardKind::Imports),
        discarder("/lib/odd.so", DiscardKind::Unknown),
        discarder("/usr/bin/java", DiscardKind::Static),
    ]
}

fn vmas() -> Vec<Vma> {
    let private = Backing::PrivateFile { file: file("/lib/a b\n.so"), offset_bytes: 4096 };
    let shared = Backing::SharedFile { file: file("/data/log"), offset_bytes: 0, may_write: true };
    let scratch = Backing::SharedScratchFile { path: "/tmp/hsperfdata_app/1".into(), mode: 0o600 };
    let mut stack = vma(pages(200, 210), Backing::Anonymous, vec![pages(204, 210)]);
    stack.grows_down = true;
    let mut odd = vma(pages(212, 216), Backing::Anonymous, vec![pages(212, 213)]);
    odd.droppable = true;
    odd.sealed = true;
    odd.lock = Lock::Resident;
    odd.guards = vec![pages(213, 214), pages(215, 216)];
    let view =
        |shared| Backing::MemoryFile { file: 0, offset_bytes: 8192, shared, may_write: shared };
    vec![
        vma(pages(0, 4), private.clone(), vec![]),
        // Two stretches with a page between them that the file still owns.
        vma(pages(4, 10), private, vec![pages(4, 7), pages(8, 10)]),
        // Short zeros, long zeros, zeros at both ends.
        vma(pages(10, 100), Backing::Anonymous, vec![pages(12, 91), pages(93, 94)]),
        // Directly after the one before: a run must not span both.
        vma(pages(100, 101), Backing::Anonymous, vec![pages(100, 101)]),
        vma(pages(110, 118), scratch, vec![pages(110, 118)]),
        vma(pages(120, 121), shared, vec![]),
        stack,
        odd,
        vdso(),
        vma(pages(230, 234), view(true), vec![]),
        vma(pages(234, 236), view(false), vec![pages(235, 236)]),
    ]
}

fn memory_files() -> Vec<MemoryFile> {
    let file =
        |kind, saved| MemoryFile { kind, size_bytes: 0x50_0001, mode: 0o640, seals: 5, saved };
    vec![
        file(MemoryFileKind::Memfd { name: "java_heap".into() }, vec![pages(1, 3), pages(40, 90)]),
        file(MemoryFileKind::SharedAnonymous, vec![]),
        file(MemoryFileKind::Deleted { path: "/var/tmp/x".into() }, vec![pages(4, 6)]),
    ]
}

fn vdso() -> Vma {
    let mut vdso = vma(pages(220, 228), Backing::Vdso, vec![pages(226, 228)]);
    vdso.protection = Protection { read: true, write: false, execute: true };
    vdso
}

fn files() -> Vec<OpenFile> {
    let option = SocketOption { level: 1, name: 15, value: vec![1, 0, 0, 0] };
    let kinds = vec![
        FileKind::Regular { file: file("/app/app.jar"), offset_bytes: u64::MAX },
        FileKind::Directory { path: "/srv".into(), offset_bytes: 2 },
        FileKind::Device { path: "/dev/urandom".into() },
        FileKind::Terminal { path: "/dev/pts/0".into() },
        FileKind::Pipe {
            path: Some("/run/fifo".into()),
            id: 9646,
            write_end: true,
            capacity_bytes: 65536,
            content: vec![b"in flight\0\xff".to_vec(), vec![]],
            both_ends: true,
        },
        FileKind::EventFd { count: u64::MAX - 1, semaphore: true },
        FileKind::Epoll {
            targets: vec![EpollTarget {
                fd: FdNumber(5),
                file: 0,
                events: 0xc000_0019,
                data: u64::MAX,
            }],
        },
        FileKind::TimerFd { clock: 1, ticks: 2, settime_flags: 3, value_ns: 4, interval_ns: 5 },
        FileKind::SignalFd { mask: 0x4200 },
        FileKind::Inotify {
            watches: vec![InotifyWatch { number: 2, path: "/etc".into(), mask: 0x300 }],
        },
        FileKind::Memory { file: 1, offset_bytes: 5 },
        FileKind::Deleted {
            path: "/tmp/gone".into(),
            dev: 1,
            ino: 2,
            mode: 0o640,
            content: b"left".to_vec(),
            offset_bytes: 3,
        },
        FileKind::PathOnly { path: "/srv/app".into() },
        FileKind::Kernel { path: "/proc/self/stat".into(), offset_bytes: 1 },
        FileKind::Outside { what: "unix socket".into() },
        FileKind::Socket(Socket::Tcp {
            protocol: 6,
            address: "[::]:8080".into(),
            state: TcpState::Listening { backlog: 50 },
            options: vec![option.clone()],
        }),
        FileKind::Socket(Socket::Tcp {
            protocol: 262,
            address: "0.0.0.0:0".into(),
            state: TcpState::Fresh,
            options: vec![],
        }),
        FileKind::Socket(Socket::Tcp {
            protocol: 6,
            address: "0.0.0.0:0".into(),
            state: TcpState::Dead,
            options: vec![],
        }),
        FileKind::Socket(Socket::Udp {
            address: "0.0.0.0:0".into(),
            peer: Some("127.0.0.1:53".into()),
            options: vec![option.clone()],
        }),
        FileKind::Socket(Socket::Netlink {
            kind: 3,
            protocol: 0,
            port: 4242,
            groups: 5,
            options: vec![option.clone()],
        }),
        FileKind::PidFd { of: Some(NsPid(4242)) },
        FileKind::PidFd { of: None },
    ];
    let unix = [
        UnixState::Unconnected,
        UnixState::Listening { backlog: 4 },
        UnixState::Connected { peer: 11 },
        UnixState::Orphan,
        UnixState::Outside { name: b"/dev/log".to_vec() },
    ];
    let file = Some(SocketFile { mode: 0o660, uid: 1, gid: u32::MAX });
    let unix = unix.into_iter().map(|state| {
        FileKind::Socket(Socket::Unix(UnixSocket {
            kind: 5,
            id: 10,
            name: Some(UnixName { bytes: b"\0abstract\xff".to_vec(), file }),
            state,
            shutdown: 2,
            inbox: vec![b"one".to_vec(), vec![]],
            options: vec![option.clone()],
        }))
    });
    let owner = Some(FileOwner { kind: 1, id: NsPid(4242), signal: 34 });
    let lock = |holder| FileLock { holder, exclusive: true, start: 10, end: Some(109) };
    let locks = vec![
        lock(LockHolder::Flock),
        lock(LockHolder::Description),
        FileLock { end: None, ..lock(LockHolder::Task(NsPid(4242))) },
    ];
    let open = |kind| OpenFile { flags: -0x8000, owner, locks: locks.clone(), kind };
    kinds.into_iter().chain(unix).map(open).collect()
}

/// A `siginfo_t`: its first field is the number of the signal.
fn pending(signal: u8) -> SigInfo {
    let mut bytes = [signal; 128];
    bytes[1..4].fill(0);
    SigInfo(bytes)
}

/// Registers full of differing bytes, as far as a processor takes them.
fn registers() -> Registers {
    let mut general = std::array::from_fn(|word| word as u64 * 0x0101_0101_0101_0101);
    // rip, in the vdso; cs; ss; fs_base; gs_base.
    for (at, value) in [(16, 0x4d_d123), (17, 0x33), (20, 0x2b), (21, 0x7f00_0000_0700), (22, 0)] {
        general[at] = value;
    }
    let mut xsave: Vec<u8> = (0..832_u32).map(|at| at.to_le_bytes()[0]).collect();
    xsave[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
    xsave[512..576].fill(0);
    xsave[512] = 7;
    Registers { general, xsave }
}

pub(super) fn thread(tid: i32, name: &str) -> Thread {
    Thread {
        tid: NsPid(tid),
        name: name.into(),
        registers: registers(),
        signal_mask: 1 << 63,
        pending_signals: vec![pending(1), pending(64)],
        alternate_stack: AlternateStack { address: 1, flags: 2, size_bytes: 8192 },
        clear_child_tid: RemoteAddr(0x7f00_0000_09d0),
        robust_list: (RemoteAddr(0x7f00_0000_09e0), 24),
        robust_held: 2,
        waits_for_owner: tid == 4243,
        rseq: (tid != 4300).then_some(Rseq {
            address: RemoteAddr(if tid == 4250 { 0x40_1a00 } else { 0x46_4a00 }),
            size_bytes: 32,
            signature: 0x5305_3053,
        }),
        scheduling: Scheduling {
            policy: 0,
            nice: -5,
            priority: 0,
            reset_on_fork: true,
            io_priority: 0x4004,
            affinity: vec![1 << 63, 2],
        },
        timer_slack_ns: 50_000,
        wait: (tid == 4243).then_some(RemainingWait {
            register: 12,
            remaining_ns: 1_500_000_000,
            milliseconds: true,
        }),
    }
}
