//! What is open besides plain files: paths only, FIFOs, files without a name, files of the kernel,
//! pipes in packet mode, watched directories.

use crate::pattern;
use crate::stage::Stage;
use crate::sys;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};

/// `paths`: one of each.
pub(crate) fn paths(stage: &'static Stage) -> io::Result<()> {
    fs::create_dir(stage.path("dir"))?;
    fs::write(stage.path("dir/inside"), "found")?;
    std::os::unix::fs::symlink("nowhere", stage.path("link"))?;
    let path_only = |name: &str, more: i32| {
        OpenOptions::new().read(true).custom_flags(libc::O_PATH | more).open(stage.path(name))
    };
    let dir = path_only("dir", libc::O_DIRECTORY)?;
    let link = path_only("link", libc::O_NOFOLLOW)?;

    sys::fifo(&stage.path("fifo"))?;
    let mut both = OpenOptions::new().read(true).write(true).open(stage.path("fifo"))?;
    let mut reader = File::open(stage.path("fifo"))?;
    let writer = OpenOptions::new().write(true).open(stage.path("fifo"))?;
    both.write_all(b"in the fifo")?;

    // One that nobody has ever written to.
    sys::fifo(&stage.path("quiet"))?;
    let nonblocking = libc::O_NONBLOCK;
    let listening =
        OpenOptions::new().read(true).custom_flags(nonblocking).open(stage.path("quiet"))?;
    let told = sys::poll(listening.as_fd(), libc::POLLIN, 0)?;
    stage.same("events of a quiet FIFO before", &0, &told);

    let gone = stage.path("gone");
    let mut unnamed =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o640).open(&gone)?;
    unnamed.write_all(&pattern::bytes(100_000, 90))?;
    unnamed.seek(SeekFrom::Start(5))?;
    let mut apart = File::open(&gone)?;
    apart.seek(SeekFrom::Start(99_990))?;
    fs::remove_file(&gone)?;

    // Nobody may open it any more, not even we.
    let shut = stage.path("shut");
    let locked_out =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&shut)?;
    locked_out.write_all_at(&pattern::bytes(10_000, 91), 0)?;
    let mut locked_out_too = File::open(&shut)?;
    locked_out_too.seek(SeekFrom::Start(9_000))?;
    fs::remove_file(&shut)?;
    locked_out.set_permissions(fs::Permissions::from_mode(0o001))?;

    // A file that is there, under a name by which the kernel marks those that are not.
    let alive = stage.path("alive (deleted)");
    fs::write(&alive, [7; 4096])?;
    let file = OpenOptions::new().read(true).write(true).open(&alive)?;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let mut mapped = sys::Mapping::file(&file, 1, prot, libc::MAP_SHARED)?;
    drop(file);

    let mut status = File::open("/proc/self/status")?;
    status.read_exact(&mut [0; 6])?;
    let own = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open("/proc/self")?;
    let meminfo = File::open("/proc/meminfo")?;

    let (mut packets_in, mut packets_out) = sys::pipe(libc::O_DIRECT | libc::O_NONBLOCK)?;
    packets_out.write_all(b"one")?;
    packets_out.write_all(b"second")?;
    packets_out.write_all(&[9; 4000])?;
    // A single packet, whose end is not where the pipe's is.
    let (mut lone_in, mut lone_out) = sys::pipe(libc::O_DIRECT | libc::O_NONBLOCK)?;
    lone_out.write_all(b"single")?;
    // Two reading ends of one pipe that share nothing but the pipe.
    let (twice_in, mut twice_out) = sys::pipe(0)?;
    let again = File::open(format!("/proc/self/fd/{}", twice_in.as_raw_fd()))?;
    sys::fcntl(&again, libc::F_SETFL, libc::O_NONBLOCK)?;

    stage.across()?;

    let inside = format!("/proc/self/fd/{}/inside", dir.as_raw_fd());
    stage.same("through a path", &"found".to_owned(), &fs::read_to_string(inside)?);
    stage.same("reading a path", &Some(libc::EBADF), &(&dir).read(&mut [0]).err().and_then(code));
    let target = fs::read_link(format!("/proc/self/fd/{}", link.as_raw_fd()))?;
    stage.same("a link itself", &stage.path("link"), &target);

    let mut text = [0; 11];
    reader.read_exact(&mut text)?;
    stage.same("bytes in a FIFO", b"in the fifo", &text);
    (&writer).write_all(b"more")?;
    both.read_exact(&mut text[..4])?;
    stage.same("through a FIFO", &b"more"[..], &text[..4]);
    fs::write(stage.path("fifo"), "by name").ok();
    reader.read_exact(&mut text[..7])?;
    stage.same("through its name", &b"by name"[..], &text[..7]);

    let told = sys::poll(listening.as_fd(), libc::POLLIN, 0)?;
    stage.same("events of a quiet FIFO", &0, &told);
    let mut loud = OpenOptions::new().write(true).open(stage.path("quiet"))?;
    loud.write_all(b"!")?;
    (&listening).read_exact(&mut text[..1])?;
    stage.same("its first byte", &b"!"[..], &text[..1]);
    drop(loud);
    let told = sys::poll(listening.as_fd(), libc::POLLIN, 0)?;
    stage.same("its writer has gone", &libc::POLLHUP, &told);

    let meta = unnamed.metadata()?;
    stage.same("links of a deleted file", &0, &meta.nlink());
    stage.same("its rights", &0o640, &(meta.mode() & 0o7777));
    stage.same("its position", &5, &unnamed.stream_position()?);
    let mut content = vec![0; 100_000];
    unnamed.read_exact_at(&mut content, 0)?;
    stage.holds("its content", content == pattern::bytes(100_000, 90));
    stage.same("position of its other description", &99_990, &apart.stream_position()?);
    unnamed.write_all_at(b"shared", 99_990)?;
    let mut shared = [0; 6];
    apart.read_exact(&mut shared)?;
    stage.same("both are one file", b"shared", &shared);
    stage.holds("nobody can see it", !gone.exists());
    let refused = (&apart).write(b"x").err().and_then(code);
    stage.same("writing to what is open for reading", &Some(libc::EBADF), &refused);

    stage.same("rights that forbid all", &0o001, &(locked_out.metadata()?.mode() & 0o7777));
    locked_out.read_exact_at(&mut content[..10_000], 0)?;
    stage.holds("content in spite of them", content[..10_000] == pattern::bytes(10_000, 91));
    stage.same("position in spite of them", &9_000, &locked_out_too.stream_position()?);
    locked_out.write_all_at(b"seen", 9_000)?;
    locked_out_too.read_exact(&mut shared[..4])?;
    stage.same("one file in spite of them", &b"seen"[..], &shared[..4]);

    mapped.words_mut(0, 1)[0] = u64::from_ne_bytes(*b"survived");
    stage.same("a mapped file that is there", &b"survived"[..], &fs::read(&alive)?[..8]);

    let mut rest = String::new();
    status.read_to_string(&mut rest)?;
    let me = format!("\nPid:\t{}\n", std::process::id());
    stage.holds("own status", rest.contains(&me) || !proc_is_ours());
    let comm = fs::read_to_string(format!("/proc/self/fd/{}/comm", own.as_raw_fd()))?;
    stage.same("own directory in /proc", &fs::read_to_string("/proc/self/comm")?, &comm);
    stage.holds("memory information", (&meminfo).read(&mut [0; 64])? > 0);

    let mut packet = [0; 8192];
    for expected in [3, 6, 4000] {
        stage.same("packet", &expected, &packets_in.read(&mut packet)?);
    }
    packets_out.write_all(b"a")?;
    packets_out.write_all(b"b")?;
    stage.same("packet mode goes on", &1, &packets_in.read(&mut packet)?);
    stage.same("start of a single packet", &2, &lone_in.read(&mut packet[..2])?);
    lone_out.write_all(b"next")?;
    stage.same("what is left of it is gone", &4, &lone_in.read(&mut packet)?);
    stage.same("the packet after it", &b"next"[..], &packet[..4]);
    twice_out.write_all(b"12")?;
    let (mut first, mut other) = ([0], [0]);
    (&twice_in).read_exact(&mut first)?;
    (&again).read_exact(&mut other)?;
    stage.same("two ends of one pipe", &(*b"1", *b"2"), &(first, other));
    let empty = (&again).read(&mut [0]).err().and_then(code);
    stage.same("O_NONBLOCK of only one of them", &Some(libc::EAGAIN), &empty);
    Ok(())
}

fn code(error: io::Error) -> Option<i32> {
    error.raw_os_error()
}

/// Whether /proc shows our own PID namespace: default Podman forbids a new one.
fn proc_is_ours() -> bool {
    let me = std::process::id().to_string();
    fs::read_link("/proc/self").is_ok_and(|link| link.to_str() == Some(&me))
}

/// `watches`: inotify with numbers that have gaps, of a directory, a file, and a link itself.
pub(crate) fn watches(stage: &'static Stage) -> io::Result<()> {
    fs::create_dir(stage.path("watched"))?;
    fs::write(stage.path("watched/file"), "")?;
    std::os::unix::fs::symlink("file", stage.path("watched/link"))?;
    let inotify = sys::inotify()?;
    let file = sys::watch(&inotify, &stage.path("watched/file"), libc::IN_MODIFY)?;
    let lost = sys::watch(&inotify, &stage.path("ready.lost"), libc::IN_OPEN);
    stage.holds("watching what is not there", lost.is_err());
    let gap = sys::watch(&inotify, &stage.path("watched"), libc::IN_DELETE)?;
    sys::unwatch(&inotify, gap)?;
    let dir = sys::watch(&inotify, &stage.path("watched"), libc::IN_CREATE | libc::IN_ONLYDIR)?;
    let mask = libc::IN_ATTRIB | libc::IN_DELETE_SELF | libc::IN_DONT_FOLLOW;
    let link = sys::watch(&inotify, &stage.path("watched/link"), mask)?;
    let mut events = File::from(inotify);
    // The removed watch has announced its end.
    stage.same("end of a watch", &vec![(gap, libc::IN_IGNORED)], &read_events(&mut events)?);

    stage.across()?;

    stage.same("no event", &vec![], &read_events(&mut events)?);
    fs::write(stage.path("watched/new"), "")?;
    stage.same("event of a directory", &vec![(dir, libc::IN_CREATE)], &read_events(&mut events)?);
    OpenOptions::new().append(true).open(stage.path("watched/file"))?.write_all(b"x")?;
    stage.same("event of a file", &vec![(file, libc::IN_MODIFY)], &read_events(&mut events)?);
    fs::remove_file(stage.path("watched/link"))?;
    let found = read_events(&mut events)?;
    stage.holds("event of a link", found.contains(&(link, libc::IN_DELETE_SELF)));
    let next = sys::watch(&events, &stage.path("watched/new"), libc::IN_OPEN)?;
    stage.holds("numbers go on", next > link);
    Ok(())
}

/// Watch numbers and masks of what has happened.
fn read_events(inotify: &mut File) -> io::Result<Vec<(i32, u32)>> {
    let mut buffer = [0; 4096];
    let bytes = match inotify.read(&mut buffer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        other => other?,
    };
    let mut events = Vec::new();
    let mut rest = &buffer[..bytes];
    // struct inotify_event: watch, mask, cookie, length of the name, name.
    while rest.len() >= 16 {
        let word = |at: usize| [rest[at], rest[at + 1], rest[at + 2], rest[at + 3]];
        events.push((i32::from_ne_bytes(word(0)), u32::from_ne_bytes(word(4))));
        let length = usize::try_from(u32::from_ne_bytes(word(12))).unwrap_or(0);
        rest = rest.get(16 + length..).unwrap_or_default();
    }
    Ok(events)
}
