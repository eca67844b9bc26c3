//! Whether single values are ones that a process can have.
//!
//! In: parts of a checkpoint. Out: nothing, or what cannot be.
//! Invariant: what passes here can be handed to the kernel, which has the last word on rights; it
//! cannot make the launcher wait for ever, act on what is not the process's, or die of a signal.
//! Not here: whether the parts fit together (`structure`), and whether the host fits (`tub-host`).
//!
//! No process has such values, so a checkpoint never does: whoever meets them here looks at an
//! image that somebody has made by hand.

use tub_model::{
    Backing, Checkpoint, Credentials, FileKind, Measured, MmFields, OpenFile, SigInfo, Socket,
    SocketOption, Task, Thread, UnixName, Vma,
};
use tub_units::AddrRange;

/// Checks everything; the first thing that cannot be comes back as a sentence.
pub(crate) fn check(checkpoint: &Checkpoint) -> Result<(), String> {
    for file in &checkpoint.files {
        check_file(file)?;
    }
    for file in &checkpoint.memory_files {
        check_mode(&file.kind.describe(), file.mode)?;
    }
    for zombie in &checkpoint.zombies {
        check_end(zombie.status).map_err(|what| format!("zombie {}: {what}", zombie.pid))?;
    }
    for task in &checkpoint.tasks {
        check_task(task).map_err(|what| format!("process {}: {what}", task.pid))?;
        for thread in &task.threads {
            let features = checkpoint.host.xsave_features;
            check_thread(thread, task, features)
                .map_err(|what| format!("thread {}: {what}", thread.tid))?;
        }
    }
    match &checkpoint.coordination {
        Some(coordination) => check_mailbox(coordination.mailbox, &checkpoint.tasks),
        None => Ok(()),
    }
}

/// End of the addresses that a process can map, on x86-64 with four-level page tables and without
/// asking for more (Documentation/arch/x86/x86_64/mm.rst): the last page is never mapped.
pub(crate) const USER_END: u64 = 0x7fff_ffff_f000;

/// KERNEL(since 2.6): `linux/limits.h`, with the final NUL.
const PATH_MAX: usize = 4096;

/// A path as the kernel gives it (`d_path`): absolute, without links, detours or empty parts, so
/// that it means the same file whoever reads it.
pub(crate) fn check_path(path: &str) -> Result<(), String> {
    let shown = || path.chars().take(100).collect::<String>();
    if !path.starts_with('/') || path.contains('\0') {
        return Err(format!("path {:?} is not absolute", shown()));
    }
    if path.len() >= PATH_MAX {
        return Err(format!("path {:?}… has {} bytes", shown(), path.len()));
    }
    let mut parts = path[1..].split('/');
    if path != "/" && parts.any(|part| matches!(part, "" | "." | "..")) {
        return Err(format!("path {:?} takes a detour", shown()));
    }
    Ok(())
}

/// Permission bits, without set-uid, set-gid and sticky: nothing that a restore creates has them.
fn check_mode(what: &str, mode: u32) -> Result<(), String> {
    if mode & !0o777 == 0 { Ok(()) } else { Err(format!("{what} has the mode {mode:o}")) }
}

fn check_task(task: &Task) -> Result<(), String> {
    check_mode("mask for new files", task.umask)?;
    if !(-1000..=1000).contains(&task.oom_score_adj) {
        return Err(format!("OOM score adjustment {}", task.oom_score_adj));
    }
    check_credentials(&task.credentials)?;
    check_bounds(&task.mm)?;
    check_path(&task.exe.path)?;
    check_path(&task.cwd)?;
    for vma in &task.vmas {
        match &vma.backing {
            Backing::PrivateFile { file, .. } | Backing::SharedFile { file, .. } => {
                check_path(&file.path)?;
            }
            Backing::SharedScratchFile { path, mode } => {
                check_path(path)?;
                check_mode(path, *mode)?;
                if !is_performance_data(path) {
                    return Err(format!("file {path:?} is none that a restore may create"));
                }
            }
            Backing::Anonymous | Backing::MemoryFile { .. } | Backing::Vdso => {}
        }
    }
    for action in &task.signal_actions {
        // sigaction(2): SIGKILL and SIGSTOP have no actions.
        if !is_signal(action.signal) || matches!(action.signal, 9 | 19) {
            return Err(format!("action of signal {}", action.signal));
        }
    }
    task.pending_signals.iter().try_for_each(check_pending)?;
    for timer in &task.posix_timers {
        if timer.id < 0 || !(0..=SIGNAL_MAX).contains(&timer.signal) {
            return Err(format!("timer {} sends signal {}", timer.id, timer.signal));
        }
        if let Some(Measured::Process(id)) = timer.measures()
            && id.0 != 0
            && id != task.pid
        {
            return Err(format!("timer {} measures process {id}", timer.id));
        }
    }
    match task.interval_timers.iter().find(|timer| !(0..=2).contains(&timer.which)) {
        Some(timer) => Err(format!("interval timer {}", timer.which)),
        None => Ok(()),
    }
}

/// What the JVM calls its performance data: `/tmp/hsperfdata_USER/PID` (JVM(since 1.4.2):
/// os/posix/perfMemory_posix.cpp). The only files that a restore creates.
/// One that found its name taken is a file in memory of that name ever after.
fn is_performance_data(path: &str) -> bool {
    if path == "/memfd:tub-scratch" {
        return true;
    }
    let mut parts = path.rsplit('/');
    let (file, directory) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    !file.is_empty()
        && file.bytes().all(|byte| byte.is_ascii_digit())
        && directory.strip_prefix("hsperfdata_").is_some_and(|user| !user.is_empty())
}

/// KERNEL: `asm-generic/signal.h`, _NSIG.
const SIGNAL_MAX: i32 = 64;

fn is_signal(signal: i32) -> bool {
    (1..=SIGNAL_MAX).contains(&signal)
}

fn check_pending(info: &SigInfo) -> Result<(), String> {
    let signal = i32::from_le_bytes([info.0[0], info.0[1], info.0[2], info.0[3]]);
    if is_signal(signal) { Ok(()) } else { Err(format!("signal {signal} is pending")) }
}

/// Signals that end nobody by default: those that are ignored, and those that stop or continue (signal(7)).
const ENDS_NOBODY: [i32; 8] = [17, 18, 19, 20, 21, 22, 23, 28];

/// A status as wait(2) tells it of somebody who has ended. A restore ends a process in the same way, and
/// whoever were to end by a signal that stops would keep it waiting.
fn check_end(status: i32) -> Result<(), String> {
    const CORE_DUMPED: i32 = 0x80;
    let exited = status & !0xff00 == 0;
    let signal = status & !CORE_DUMPED;
    if exited || is_signal(signal) && !ENDS_NOBODY.contains(&signal) {
        return Ok(());
    }
    Err(format!("nobody ends with the status {status:x}"))
}

/// KERNEL: `linux/limits.h`.
const NGROUPS_MAX: usize = 65_536;

fn check_credentials(credentials: &Credentials) -> Result<(), String> {
    let Credentials { uids, gids, groups, capabilities: [effective, permitted, _] } = credentials;
    // setresuid(2) and setresgid(2) take this one for "leave it as it is": as the caller's.
    if uids.iter().chain(gids).chain(groups).any(|&id| id == u32::MAX) {
        return Err("a user or group id means none".into());
    }
    if groups.len() > NGROUPS_MAX {
        return Err(format!("{} groups", groups.len()));
    }
    // capabilities(7): the effective set is a part of the permitted one.
    if effective & !permitted != 0 {
        return Err("capabilities are in effect that are not permitted".into());
    }
    Ok(())
}

/// More than the kernel's vector ever had (`AT_VECTOR_SIZE` is about 50 pairs of words).
const AUXV_BYTES_MAX: usize = 4096;

/// KERNEL(since 4.3): kernel/sys.c, `validate_prctl_map_addr`.
fn check_bounds(mm: &MmFields) -> Result<(), String> {
    let pairs = [
        ("code", mm.start_code, mm.end_code),
        ("data", mm.start_data, mm.end_data),
        ("heap", mm.start_brk, mm.brk),
        ("command line", mm.arg_start, mm.arg_end),
        ("environment", mm.env_start, mm.env_end),
    ];
    for (what, start, end) in pairs {
        if start > end || end > USER_END {
            return Err(format!("{what} is said to lie at {start:x}-{end:x}"));
        }
    }
    if mm.start_stack > USER_END {
        return Err(format!("stack is said to start at {:x}", mm.start_stack));
    }
    if mm.auxv.len() > AUXV_BYTES_MAX || !mm.auxv.len().is_multiple_of(16) {
        return Err(format!("auxiliary vector has {} bytes", mm.auxv.len()));
    }
    Ok(())
}

/// Indices into `struct user_regs_struct` (sys/user.h).
const RIP: usize = 16;
const CS: usize = 17;
const SS: usize = 20;
const FS_BASE: usize = 21;
const GS_BASE: usize = 22;

/// The selectors of 64-bit user code: arch/x86/include/asm/segment.h, `__USER_CS`, `__USER_DS`.
const USER_CS: u64 = 0x33;
const USER_DS: u64 = 0x2b;

/// Offsets in an xsave area: Intel SDM vol. 1, 10.5.1 and 13.4.2.
const MXCSR: usize = 24;
const XSTATE_BV: usize = 512;
const XSAVE_HEADER_END: usize = 576;

fn check_thread(thread: &Thread, task: &Task, features: u64) -> Result<(), String> {
    let general = &thread.registers.general;
    // Whatever else were loaded, the first instruction would be a fault.
    if (general[CS] & 0xffff, general[SS] & 0xffff) != (USER_CS, USER_DS) {
        return Err(format!(
            "segments {:x} and {:x} are not user code's",
            general[CS], general[SS]
        ));
    }
    let rip = general[RIP];
    let mapping = task.vmas.iter().find(|vma| vma.range.contains(rip));
    // The vdso and its data are one mapping, with the protection of its first page.
    let is_code = |vma: &Vma| vma.protection.execute || vma.backing == Backing::Vdso;
    if !mapping.is_some_and(is_code) {
        return Err(format!("no code is at {rip:x}, where it would go on"));
    }
    if let Some(base) = [general[FS_BASE], general[GS_BASE]].iter().find(|base| **base >= USER_END)
    {
        return Err(format!("segment base {base:x} is no user address"));
    }
    check_xsave(&thread.registers.xsave, features)?;
    thread.pending_signals.iter().try_for_each(check_pending)?;
    if let Some(rseq) = thread.rseq {
        let area = AddrRange::with_len(rseq.address.0, rseq.size_bytes.into());
        let holds = |area: AddrRange| {
            task.vmas.iter().any(|vma| vma.range.covers(area) && vma.protection.write)
        };
        if !area.is_some_and(holds) {
            // The kernel writes there on the way to user code, and kills who has no memory there.
            return Err(format!("area for restartable sequences at {} is no memory", rseq.address));
        }
    }
    Ok(())
}

/// What the processor refuses to load would kill the thread at its first step.
fn check_xsave(area: &[u8], features: u64) -> Result<(), String> {
    let Some(header) = area.get(XSTATE_BV..XSAVE_HEADER_END) else {
        return Err(format!("xsave area has {} bytes", area.len()));
    };
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&header[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    if word(0) & !features != 0 {
        return Err(format!("xsave area has components {:x} of {features:x}", word(0)));
    }
    // The second word is that of the compacted form, which ptrace does not give; the rest is
    // reserved.
    if header[8..].iter().any(|&byte| byte != 0) {
        return Err("xsave area has reserved bits set".into());
    }
    let mxcsr =
        u32::from_le_bytes([area[MXCSR], area[MXCSR + 1], area[MXCSR + 2], area[MXCSR + 3]]);
    if mxcsr > 0xffff { Err(format!("MXCSR has reserved bits set: {mxcsr:x}")) } else { Ok(()) }
}

/// The engine writes into the mailbox before anybody runs.
fn check_mailbox(mailbox: AddrRange, tasks: &[Task]) -> Result<(), String> {
    let holds = |vma: &tub_model::Vma| {
        vma.range.covers(mailbox) && vma.protection.write && vma.backing == Backing::Anonymous
    };
    match tasks.first() {
        Some(main) if main.vmas.iter().any(holds) => Ok(()),
        _ => Err(format!("mailbox {mailbox} is no memory of the application's own")),
    }
}

/// A watch with a high number costs one system call for each number before it.
const WATCH_MAX: i32 = 1 << 20;

/// KERNEL: `linux/un.h`, UNIX_PATH_MAX: an abstract name may be as long, a path is shorter by one.
const UNIX_NAME_BYTES: usize = 108;

fn check_file(file: &OpenFile) -> Result<(), String> {
    if let Some(owner) = file.owner
        && !(0..=SIGNAL_MAX).contains(&owner.signal)
    {
        return Err(format!("a file signals its owner with {}", owner.signal));
    }
    match &file.kind {
        FileKind::Regular { file, .. } => check_path(&file.path),
        FileKind::Directory { path, .. } | FileKind::PathOnly { path } => check_path(path),
        FileKind::Deleted { path, mode, .. } => {
            check_path(path)?;
            check_mode(path, *mode)
        }
        FileKind::Kernel { path, .. } => {
            check_path(path)?;
            let known = path.starts_with("/proc/") || path.starts_with("/sys/");
            if known { Ok(()) } else { Err(format!("file {path:?} is none of the kernel's")) }
        }
        FileKind::Device { path } => {
            // The rest has a state, or does something when it is opened.
            check_path(path)?;
            let known = path.rsplit('/').next().is_some_and(|name| DEVICES.contains(&name));
            if known { Ok(()) } else { Err(format!("device {path:?} is none without a state")) }
        }
        FileKind::Pipe { path, capacity_bytes, content, .. } => {
            if let Some(path) = path {
                check_path(path)?;
            }
            let held: usize = content.iter().map(Vec::len).sum();
            let fits = u32::try_from(held).is_ok_and(|held| held <= *capacity_bytes);
            if fits { Ok(()) } else { Err(format!("pipe of {capacity_bytes} bytes holds {held}")) }
        }
        FileKind::Inotify { watches } => {
            for watch in watches {
                check_path(&watch.path)?;
                if !(1..=WATCH_MAX).contains(&watch.number) {
                    return Err(format!("inotify watch {}", watch.number));
                }
            }
            Ok(())
        }
        FileKind::Socket(socket) => check_socket(socket),
        FileKind::Terminal { .. }
        | FileKind::Memory { .. }
        | FileKind::Outside { .. }
        | FileKind::EventFd { .. }
        | FileKind::Epoll { .. }
        | FileKind::TimerFd { .. }
        | FileKind::SignalFd { .. }
        | FileKind::PidFd { .. } => Ok(()),
    }
}

/// Names of devices that are the same to everybody, at any time (admin-guide/devices.txt).
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "kmsg"];

fn check_socket(socket: &Socket) -> Result<(), String> {
    let options = match socket {
        Socket::Unix(unix) => {
            if let Some(UnixName { bytes, file }) = &unix.name {
                if bytes.len() > UNIX_NAME_BYTES {
                    return Err(format!("name of a unix socket has {} bytes", bytes.len()));
                }
                if let Some(file) = file {
                    check_mode("a socket", file.mode)?;
                }
            }
            &unix.options
        }
        Socket::Tcp { address, options, .. } => {
            check_address(address)?;
            options
        }
        Socket::Udp { address, peer, options } => {
            check_address(address)?;
            peer.iter().try_for_each(|peer| check_address(peer))?;
            options
        }
        Socket::Netlink { options, .. } => options,
    };
    options.iter().try_for_each(check_option)
}

fn check_address(address: &str) -> Result<(), String> {
    let parsed = address.parse::<std::net::SocketAddr>();
    parsed.map(drop).map_err(|_| format!("address {address:?} is none of an internet socket"))
}

/// More than any option has that is a value.
const OPTION_BYTES_MAX: usize = 256;

/// Options that are settings of the socket. Through the same call and level, root changes the
/// host's packet filter and routes: those are nobody's to restore.
fn check_option(option: &SocketOption) -> Result<(), String> {
    let SocketOption { level, name, value } = option;
    // asm-generic/socket.h: SO_ATTACH_FILTER 26, SO_DETACH_FILTER 27, SO_SNDBUFFORCE 32,
    // SO_RCVBUFFORCE 33, SO_LOCK_FILTER 44, SO_ATTACH_BPF 50, and both for REUSEPORT.
    const SOL_SOCKET: i32 = 1;
    const FORBIDDEN: [i32; 8] = [26, 27, 32, 33, 44, 50, 51, 52];
    // linux/netlink.h: 3 to 12 are settings, and memberships (1, 2) are kept as groups.
    const SOL_NETLINK: i32 = 270;
    // linux/in.h, linux/in6.h. From 64 on, the names of IPv4 are those of tables: IPT_BASE_CTL 64,
    // ARPT_BASE_CTL 96, EBT_BASE_CTL 128, MRT_BASE 200. IPv6 has settings from 66 on as well.
    const IPPROTO_IP: i32 = 0;
    const IPPROTO_TCP: i32 = 6;
    const IPPROTO_UDP: i32 = 17;
    const IPPROTO_IPV6: i32 = 41;
    let is_setting = match *level {
        SOL_SOCKET => !FORBIDDEN.contains(name),
        IPPROTO_IP => (1..64).contains(name),
        IPPROTO_IPV6 => (1..64).contains(name) || (66..100).contains(name),
        IPPROTO_TCP | IPPROTO_UDP => true,
        SOL_NETLINK => (3..=12).contains(name),
        _ => false,
    };
    if is_setting && value.len() <= OPTION_BYTES_MAX {
        return Ok(());
    }
    Err(format!("socket option {name} of level {level} is no setting of a socket"))
}
