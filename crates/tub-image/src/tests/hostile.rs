//! Images made by hand, whole and well-formed, that ask for what no process has: each is refused
//! before anything of it is opened or mapped, and no writer would have finished it.

use super::{Scratch, sample, write};
use crate::layout::{HEADER_BYTES, Header, hash};
use crate::{ErrorKind, INVENTORY_FILE, Image, Replace, inventory};
use tub_model::*;
use tub_units::{AddrRange, FdNumber, NsPid, RemoteAddr};

type Change = fn(&mut Checkpoint);

/// Words of the refusal, and what is asked for.
const CASES: &[(&str, Change)] = &[
    // Files elsewhere than where they seem to be.
    ("\"usr/bin/java\" is not absolute", |c| c.tasks[0].exe.path = "usr/bin/java".into()),
    ("is not absolute", |c| c.tasks[0].exe.path = "/usr\0/bin".into()),
    ("takes a detour", |c| c.tasks[0].cwd = "/srv/../root".into()),
    ("takes a detour", |c| c.tasks[0].cwd = "/srv/./app".into()),
    ("takes a detour", |c| c.tasks[1].exe.path = "/usr//bin/java".into()),
    ("takes a detour", |c| regular(c).path = "/app/../etc/shadow".into()),
    ("takes a detour", |c| set(c, 1, FileKind::Directory { path: "/..".into(), offset_bytes: 0 })),
    ("takes a detour", |c| mapped(c).path = "/data/../etc/passwd".into()),
    ("has 5000 bytes", |c| regular(c).path = format!("/{}", "x".repeat(4999))),
    // Files that a restore would create.
    ("none that a restore may create", |c| *scratch(c).0 = "/home/ann/.ssh/authorized_keys".into()),
    ("none that a restore may create", |c| *scratch(c).0 = "/tmp/hsperfdata_ann/.profile".into()),
    ("none that a restore may create", |c| *scratch(c).0 = "/tmp/hsperfdata_/17".into()),
    ("has the mode 4700", |c| *scratch(c).1 = 0o4700),
    ("has the mode 6755", |c| unix_name(c).file.as_mut().unwrap().mode = 0o6755),
    ("has the mode 4640", |c| {
        let modes = c.files.iter_mut().filter_map(|file| match &mut file.kind {
            FileKind::Deleted { mode, .. } => Some(mode),
            _ => None,
        });
        modes.for_each(|mode| *mode |= 0o4000);
        c.memory_files.iter_mut().for_each(|file| file.mode |= 0o4000);
    }),
    ("none of the kernel's", |c| {
        set(c, 12, FileKind::Kernel { path: "/dev/mem".into(), offset_bytes: 0 });
    }),
    // Devices that do something, or have a state.
    ("none without a state", |c| set(c, 2, FileKind::Device { path: "/dev/watchdog".into() })),
    ("none without a state", |c| set(c, 2, FileKind::Device { path: "/dev/sda".into() })),
    // Sockets.
    ("unix socket has 109 bytes", |c| unix_name(c).bytes = vec![b'/'; 109]),
    ("none of an internet socket", |c| tcp(c).0.push('x')),
    ("option 64 of level 0", |c| option(c, 0, 64)), // IPT_SO_SET_REPLACE: the host's firewall
    ("option 64 of level 41", |c| option(c, 41, 64)),
    ("option 26 of level 1", |c| option(c, 1, 26)), // SO_ATTACH_FILTER: takes a pointer
    ("option 1 of level 263", |c| option(c, 263, 1)),
    // Waits and work without end.
    ("pipe of 65536 bytes holds 65537", |c| {
        let FileKind::Pipe { content, .. } = &mut c.files[4].kind else { panic!("a pipe") };
        *content = vec![vec![1; 65_536], vec![1]];
    }),
    ("inotify watch 2147483647", |c| watch(c, i32::MAX)),
    ("inotify watch 0", |c| watch(c, 0)),
    ("with the status 13", |c| c.zombies[0].status = 0x13), // SIGSTOP
    ("with the status 7f", |c| c.zombies[0].status = 0x7f),
    ("with the status 92", |c| c.zombies[0].status = 0x92), // SIGCONT, with a core dump
    ("with the status 109", |c| c.zombies[0].status = 0x109),
    ("with the status ffff", |c| c.zombies[0].status = 0xffff),
    ("with the status 80", |c| c.zombies[0].status = 0x80),
    // Numbers beyond any table.
    ("beyond any table", |c| c.tasks[0].fds[2].number = FdNumber(i32::MAX)),
    ("descriptor -1 follows -1", |c| c.tasks[0].fds[0].number = FdNumber(-1)),
    ("4194305 is no thread id", |c| c.tasks[0].threads[1].tid = NsPid((4 << 20) + 1)),
    ("watches file 1000000 of", |c| {
        let FileKind::Epoll { targets } = &mut c.files[6].kind else { panic!("an epoll set") };
        targets[0].file = 1_000_000;
    }),
    // Signals and timers.
    ("action of signal 65", |c| c.tasks[0].signal_actions[0].signal = 65),
    ("action of signal 9", |c| c.tasks[0].signal_actions[0].signal = 9),
    ("signal 0 is pending", |c| c.tasks[0].pending_signals[0] = SigInfo([0; 128])),
    ("signal -1 is pending", |c| c.tasks[0].threads[0].pending_signals[0] = SigInfo([255; 128])),
    ("timer 0 sends signal 99", |c| c.tasks[0].posix_timers[0].signal = 99),
    ("timer -1 sends", |c| c.tasks[0].posix_timers[0].id = -1),
    ("interval timer 3", |c| c.tasks[0].interval_timers[0].which = 3),
    // Privileges: what the caller may become is decided by the plan; these would fool the kernel.
    ("id means none", |c| c.tasks[0].credentials.uids[1] = u32::MAX),
    ("id means none", |c| c.tasks[0].credentials.gids[2] = u32::MAX),
    ("id means none", |c| c.tasks[0].credentials.groups.push(u32::MAX)),
    ("65538 groups", |c| c.tasks[0].credentials.groups.extend(vec![7; 65_536])),
    ("not permitted", |c| c.tasks[0].credentials.capabilities = [1 << 21, 0, 0]),
    ("OOM score adjustment -1001", |c| c.tasks[0].oom_score_adj = -1001),
    ("has the mode 7777", |c| c.tasks[0].umask = 0o7777),
    // Address space.
    ("beyond user addresses", |c| {
        let last = c.tasks[0].vmas.last_mut().unwrap();
        last.range = AddrRange::new(0x7fff_ffff_0000, 0x8000_0000_0000).unwrap();
    }),
    ("beyond user addresses", |c| {
        let last = c.tasks[0].vmas.last_mut().unwrap();
        last.range = AddrRange::new(0xffff_8000_0000_0000, 0xffff_8000_0000_1000).unwrap();
    }),
    ("out of order", |c| c.tasks[0].vmas[1].range = c.tasks[0].vmas[0].range),
    ("heap is said to lie at 9-6", |c| c.tasks[0].mm.start_brk = 9),
    ("command line is said", |c| c.tasks[0].mm.arg_end = u64::MAX),
    ("stack is said", |c| c.tasks[0].mm.start_stack = 1 << 63),
    ("auxiliary vector has 8192", |c| c.tasks[0].mm.auxv = vec![0; 8192]),
    ("no memory of the application's own", |c| {
        c.coordination.as_mut().unwrap().mailbox = sample::pages(220, 221);
    }),
    ("no memory of the application's own", |c| {
        c.coordination.as_mut().unwrap().mailbox = sample::pages(1000, 1001);
    }),
    // Registers that would kill whoever loads them.
    ("no code is at", |c| general(c)[16] = 0),
    ("no code is at", |c| general(c)[16] = 1 << 63),
    ("no code is at", |c| general(c)[16] = sample::pages(12, 13).start()),
    ("segments 23 and 2b", |c| general(c)[17] = 0x23),
    ("segments 33 and 0", |c| general(c)[20] = 0),
    ("segment base", |c| general(c)[21] = 0xffff_8000_0000_0000),
    ("segment base", |c| general(c)[22] = 1 << 47),
    ("components 407 of 2e7", |c| xsave(c)[513] = 4),
    ("reserved bits", |c| xsave(c)[527] = 0x80), // the compacted form
    ("reserved bits", |c| xsave(c)[575] = 1),
    ("MXCSR", |c| xsave(c)[27] = 1),
    ("restartable sequences", |c| rseq(c, 0x10)),
    ("restartable sequences", |c| rseq(c, sample::pages(220, 221).start())),
    ("restartable sequences", |c| rseq(c, u64::MAX - 8)),
];

fn set(c: &mut Checkpoint, index: usize, kind: FileKind) {
    c.files[index].kind = kind;
}

fn regular(c: &mut Checkpoint) -> &mut FileIdentity {
    let FileKind::Regular { file, .. } = &mut c.files[0].kind else { panic!("a regular file") };
    file
}

fn mapped(c: &mut Checkpoint) -> &mut FileIdentity {
    let backings = c.tasks[0].vmas.iter_mut().map(|vma| &mut vma.backing);
    let mut files = backings.filter_map(|backing| match backing {
        Backing::SharedFile { file, .. } => Some(file),
        _ => None,
    });
    files.next().expect("a shared file")
}

fn scratch(c: &mut Checkpoint) -> (&mut String, &mut u32) {
    let backings = c.tasks[0].vmas.iter_mut().map(|vma| &mut vma.backing);
    let mut files = backings.filter_map(|backing| match backing {
        Backing::SharedScratchFile { path, mode } => Some((path, mode)),
        _ => None,
    });
    files.next().expect("a scratch file")
}

fn unix_name(c: &mut Checkpoint) -> &mut UnixName {
    let mut names = c.files.iter_mut().filter_map(|file| match &mut file.kind {
        FileKind::Socket(Socket::Unix(UnixSocket { name: Some(name), .. })) => Some(name),
        _ => None,
    });
    names.find(|name| name.file.is_some()).expect("a unix socket with a file")
}

fn tcp(c: &mut Checkpoint) -> (&mut String, &mut Vec<SocketOption>) {
    let mut sockets = c.files.iter_mut().filter_map(|file| match &mut file.kind {
        FileKind::Socket(Socket::Tcp { address, options, .. }) => Some((address, options)),
        _ => None,
    });
    sockets.next().expect("a TCP socket")
}

fn option(c: &mut Checkpoint, level: i32, name: i32) {
    tcp(c).1.push(SocketOption { level, name, value: vec![0; 40] });
}

fn watch(c: &mut Checkpoint, number: i32) {
    let FileKind::Inotify { watches } = &mut c.files[9].kind else { panic!("an inotify") };
    watches[0].number = number;
}

fn general(c: &mut Checkpoint) -> &mut [u64; 27] {
    &mut c.tasks[0].threads[1].registers.general
}

fn xsave(c: &mut Checkpoint) -> &mut [u8] {
    &mut c.tasks[0].threads[1].registers.xsave
}

fn rseq(c: &mut Checkpoint, address: u64) {
    c.tasks[0].threads[1].rseq.as_mut().unwrap().address = RemoteAddr(address);
}

#[test]
fn what_no_process_has_is_refused_by_reader_and_writer() {
    let scratch = Scratch::new();
    let dir = scratch.path("image");
    write(&dir, Replace::Never, &sample::checkpoint()).unwrap();
    let image = Image::open(&dir).unwrap();
    let path = dir.join(INVENTORY_FILE);
    let honest = std::fs::read(&path).unwrap();
    let header = Header::decode(honest[..HEADER_BYTES].try_into().unwrap());
    for &(expected, change) in CASES {
        let mut checkpoint = sample::checkpoint();
        change(&mut checkpoint);
        assert_ne!(checkpoint, image.checkpoint, "{expected}: nothing was changed");
        // Sealed with checksums that match, as a forger would.
        let body = inventory::encode(&checkpoint, &image.runs);
        let header = Header { body_bytes: body.len() as u64, body_hash: hash(&body), ..header };
        std::fs::write(&path, [&header.encode()[..], &body].concat()).unwrap();
        let error = Image::open(&dir).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Malformed { .. }), "{expected}: {error}");
        assert!(error.to_string().contains(expected), "{expected}: {error}");

        let error = write(&scratch.path("other"), Replace::Never, &checkpoint).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Malformed { .. } | ErrorKind::Misuse { .. }));
        assert_eq!(scratch.names(), ["image"], "{expected}");
    }
    std::fs::write(&path, honest).unwrap();
    Image::open(&dir).unwrap();
}

#[test]
fn special_files_in_place_of_the_directory_are_not_opened() {
    let scratch = Scratch::new();
    let fifo = scratch.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [fifo.as_path(), std::path::Path::new("/dev/null")] {
        let error = Image::open(path).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NotAnImage { .. }), "{error}");
    }
}
