//! `tub inspect`: what an image holds.
//!
//! In: a directory. Out: a page for people, or one JSON object.
//! Invariant: only looks; an image of anybody will do, and nothing in it is believed beyond its
//! checksums.
//! Not here: whether it would restore (`verify`).

use crate::criu;
use crate::report::{Code, Failure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use tub_image::{ErrorKind, Image};
use tub_model::{
    Backing, Checkpoint, FileKind, OpenFile, Protection, Socket, Task, TcpState, UnixSocket,
    UnixState, Vma,
};

/// Tell what an image holds: threads, memory by kind, descriptors, resources, host, origin.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The image.
    dir: PathBuf,
    /// Print one JSON object, with everything but registers and pages.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    if criu::is_image(&args.dir) {
        return criu::inspect(&args.dir, args.json);
    }
    let image = Image::open_foreign(&args.dir).map_err(|error| {
        bad_image(format!("image {} cannot be inspected", args.dir.display()), &error)
    })?;
    if args.json {
        println!("{}", describe_json(&image));
    } else {
        print!("{}", describe(&image));
    }
    Ok(ExitCode::SUCCESS)
}

/// The failure for an image that cannot be opened, with advice by kind.
pub(crate) fn bad_image(what: String, error: &tub_image::Error) -> Failure {
    let hint = match error.kind() {
        ErrorKind::NotFound => "check the path",
        ErrorKind::NotAnImage { .. } => {
            "an image is a directory with inventory.tub and pages.tub, as `tub checkpoint` writes it"
        }
        ErrorKind::Truncated { .. } | ErrorKind::Altered { .. } | ErrorKind::Malformed { .. } => {
            "the image was damaged after it was written: copy it again, or take a new checkpoint"
        }
        ErrorKind::UnknownVersion { .. } | ErrorKind::UnknownRecord { .. } => {
            "use the release that wrote it, or a newer one"
        }
        ErrorKind::OtherArchitecture { .. } | ErrorKind::OtherPageSize { .. } => {
            "take the checkpoint on a host like this one"
        }
        ErrorKind::NotOurs { .. } => {
            "whoever can write to an image runs code as its user: own it and close it \
             (chown, chmod go-w), if you trust what is in it"
        }
        _ => "",
    };
    Failure::new(what, error, Code::BadImage).hint(hint)
}

/// The page for people.
fn describe(image: &Image) -> String {
    let checkpoint = &image.checkpoint;
    let origin = &checkpoint.provenance;
    let host = &checkpoint.host;
    let mut page = String::new();
    let mut line = |label: &str, text: String| {
        let _ = writeln!(page, "{label:<14}{}", safe(&text));
    };
    line("image", image.dir.display().to_string());
    line("id", format!("{}, generation {}", hex(&origin.image_id), origin.generation));
    let when = utc(origin.created_unix_ns / 1_000_000_000);
    line("taken", format!("{when} by tub {}", origin.tool_version));
    line("size", sizes(image));
    for task in &checkpoint.tasks {
        line("process", format!("{} (pid {})", task.exe.path, task.pid));
        let [uid, ..] = task.credentials.uids;
        let [gid, ..] = task.credentials.gids;
        line("", format!("in {} as uid {uid}, gid {gid}", task.cwd));
        if checkpoint.tasks.len() > 1 {
            line("", relations(checkpoint, task));
        }
    }
    for zombie in &checkpoint.zombies {
        let parent = checkpoint.tasks.get(zombie.parent).map_or(0, |parent| parent.pid.0);
        let how = format!("{} (pid {}), child of {parent}", zombie.name, zombie.pid);
        line("zombie", format!("{how}, ended with status {:#x}", zombie.status));
    }
    match &checkpoint.coordination {
        None => line("coordination", "none: the application was not told".into()),
        Some(coordination) => {
            line("runtime", coordination.runtime.clone());
            line("resources", list(coordination.resources.iter().map(String::as_str)));
        }
    }
    for task in &checkpoint.tasks {
        line("threads", list(task.threads.iter().map(|thread| thread.name.as_str())));
        for (index, (kind, sum)) in memory_by_kind(task).into_iter().enumerate() {
            let label = if index == 0 { "memory" } else { "" };
            let (count, size, saved) = (sum.mappings, size(sum.bytes), size(sum.saved_bytes));
            line(label, format!("{kind:<14}{count:>5} mappings {size:>10}, {saved:>10} saved"));
        }
        for (index, fd) in task.fds.iter().enumerate() {
            let label = if index == 0 { "descriptors" } else { "" };
            let what = checkpoint.files.get(fd.file).map_or_else(String::new, describe_file);
            line(label, format!("{:>4}  {what}", fd.number.0));
        }
    }
    line("host", format!("{} Linux {}", host.arch, host.kernel_release));
    line("", format!("{}, xsave area {} bytes", host.cpu_model, host.xsave_bytes));
    if !image.unread.is_empty() {
        line("unread", format!("{} optional records of a newer release", image.unread.len()));
    }
    page
}

/// Whose child a process is, and in which group and session.
fn relations(checkpoint: &Checkpoint, task: &Task) -> String {
    let parent = task.parent.and_then(|parent| checkpoint.tasks.get(parent));
    let mut text = match parent {
        Some(parent) => format!("parent {}", parent.pid),
        None => "the main process".to_owned(),
    };
    if task.leads_session() {
        text.push_str(", leads a session");
    } else if task.group == task.pid {
        text.push_str(", leads a process group");
    } else {
        let _ = write!(text, ", process group {}", task.group);
    }
    if let Some(signal) = task.stopped {
        let _ = write!(text, ", stopped by signal {signal}");
    }
    text
}

/// Everything but registers and pages, as one object.
fn describe_json(image: &Image) -> Value {
    let checkpoint = &image.checkpoint;
    let origin = &checkpoint.provenance;
    let host = &checkpoint.host;
    let tasks = checkpoint.tasks.iter().map(|task| task_json(task, &checkpoint.files));
    json!({
        "image": image.dir.display().to_string(),
        "id": hex(&origin.image_id),
        "generation": origin.generation,
        "tool_version": origin.tool_version,
        "created_unix_ns": origin.created_unix_ns,
        "inventory_bytes": image.inventory_bytes,
        "pages_bytes": image.pages_bytes,
        "stored_bytes": stored_bytes(image),
        "runs": image.runs.iter().map(Vec::len).sum::<usize>(),
        "coordination": checkpoint.coordination.as_ref().map(|coordination| json!({
            "runtime": coordination.runtime,
            "resources": coordination.resources,
        })),
        "tasks": tasks.collect::<Vec<_>>(),
        "zombies": checkpoint.zombies.iter().map(|zombie| json!({
            "pid": zombie.pid.0,
            "parent": zombie.parent,
            "name": zombie.name,
            "status": zombie.status,
        })).collect::<Vec<_>>(),
        "host": {
            "arch": host.arch,
            "kernel_release": host.kernel_release,
            "boot_id": host.boot_id,
            "page_bytes": host.page_bytes,
            "cpu_model": host.cpu_model,
            "cpu_features": host.cpu_features,
            // Words of 64 bits do not survive readers that have only doubles.
            "xsave_features": format!("{:#x}", host.xsave_features),
            "xsave_bytes": host.xsave_bytes,
            "vdso_hash": format!("{:#x}", host.vdso.hash),
        },
        "unread_records": image.unread.len(),
    })
}

fn task_json(task: &Task, files: &[OpenFile]) -> Value {
    let thread = |thread: &tub_model::Thread| json!({"tid": thread.tid.0, "name": thread.name});
    let vma = |vma: &Vma| {
        json!({
            "range": vma.range.to_string(),
            "protection": protection(vma.protection),
            "kind": kind(vma),
            "path": path(&vma.backing),
            "bytes": vma.range.len(),
            "saved_bytes": saved_bytes(vma),
        })
    };
    let fd = |fd: &tub_model::Fd| {
        json!({
            "fd": fd.number.0,
            "description": fd.file,
            "close_on_exec": fd.close_on_exec,
            "what": files.get(fd.file).map(describe_file),
        })
    };
    let by_kind = memory_by_kind(task).into_iter().map(|(kind, sum)| {
        let Sum { mappings, bytes, saved_bytes } = sum;
        let sum = json!({"mappings": mappings, "bytes": bytes, "saved_bytes": saved_bytes});
        (kind.to_owned(), sum)
    });
    json!({
        "pid": task.pid.0,
        "parent": task.parent,
        "group": task.group.0,
        "session": task.session.0,
        "stopped_by": task.stopped,
        "exe": task.exe.path,
        "cwd": task.cwd,
        "uids": task.credentials.uids,
        "gids": task.credentials.gids,
        "groups": task.credentials.groups,
        "threads": task.threads.iter().map(thread).collect::<Vec<_>>(),
        "memory": by_kind.collect::<serde_json::Map<_, _>>(),
        "mappings": task.vmas.iter().map(vma).collect::<Vec<_>>(),
        "descriptors": task.fds.iter().map(fd).collect::<Vec<_>>(),
        "posix_timers": task.posix_timers.len(),
        "pending_signals": task.pending_signals.len(),
    })
}

#[derive(Default)]
struct Sum {
    mappings: u64,
    bytes: u64,
    saved_bytes: u64,
}

fn memory_by_kind(task: &Task) -> BTreeMap<&'static str, Sum> {
    let mut kinds: BTreeMap<_, Sum> = BTreeMap::new();
    for vma in &task.vmas {
        let sum = kinds.entry(kind(vma)).or_default();
        sum.mappings += 1;
        sum.bytes += vma.range.len();
        sum.saved_bytes += saved_bytes(vma);
    }
    kinds
}

fn kind(vma: &Vma) -> &'static str {
    match vma.backing {
        Backing::Anonymous if vma.grows_down => "stack",
        Backing::Anonymous => "anonymous",
        Backing::PrivateFile { .. } => "private file",
        Backing::SharedFile { .. } => "shared file",
        Backing::SharedScratchFile { .. } => "scratch file",
        Backing::MemoryFile { shared: true, .. } => "shared memory",
        Backing::MemoryFile { .. } => "private memory file",
        Backing::Vdso => "vdso",
    }
}

fn path(backing: &Backing) -> Option<&str> {
    match backing {
        Backing::PrivateFile { file, .. } | Backing::SharedFile { file, .. } => Some(&file.path),
        Backing::SharedScratchFile { path, .. } => Some(path),
        Backing::Anonymous | Backing::MemoryFile { .. } | Backing::Vdso => None,
    }
}

fn saved_bytes(vma: &Vma) -> u64 {
    vma.saved.iter().map(|range| range.len()).sum()
}

fn protection(protection: Protection) -> String {
    let Protection { read, write, execute } = protection;
    let letters = [(read, 'r'), (write, 'w'), (execute, 'x')];
    letters.map(|(has, letter)| if has { letter } else { '-' }).iter().collect()
}

/// One open file description, in words.
fn describe_file(file: &OpenFile) -> String {
    match &file.kind {
        FileKind::Memory { file, .. } => format!("memory file no. {file}"),
        FileKind::Regular { file, offset_bytes } => format!("file {} at {offset_bytes}", file.path),
        FileKind::Directory { path, .. } => format!("directory {path}"),
        FileKind::Device { path } => format!("device {path}"),
        FileKind::Terminal { path } => format!("terminal {path}"),
        FileKind::Pipe { id, write_end, content, .. } => {
            let end = if *write_end { "writing" } else { "reading" };
            let held = if content.is_empty() {
                String::new()
            } else {
                format!(", {} bytes in it", content.len())
            };
            format!("pipe {id}, {end} end{held}")
        }
        FileKind::EventFd { count, .. } => format!("eventfd with {count}"),
        FileKind::Epoll { targets } => {
            let fds = targets.iter().map(|target| target.fd.to_string()).collect::<Vec<_>>();
            format!("epoll of {}", list(fds.iter().map(String::as_str)))
        }
        FileKind::TimerFd { value_ns: 0, .. } => "timerfd, disarmed".into(),
        FileKind::TimerFd { value_ns, .. } => {
            format!("timerfd, due in {} ms", value_ns / 1_000_000)
        }
        FileKind::SignalFd { mask } => format!("signalfd for {} signals", mask.count_ones()),
        FileKind::Inotify { watches } => {
            format!("inotify of {}", list(watches.iter().map(|watch| watch.path.as_str())))
        }
        FileKind::Socket(socket) => match socket {
            Socket::Unix(unix) => unix_socket(unix),
            Socket::Tcp { address, state, .. } => match state {
                TcpState::Listening { .. } => format!("listening TCP socket {address}"),
                TcpState::Fresh => format!("TCP socket {address}, not connected"),
                TcpState::Dead => "TCP socket whose connection is over".into(),
            },
            Socket::Udp { address, peer: None, .. } => format!("UDP socket {address}"),
            Socket::Udp { address, peer: Some(peer), .. } => {
                format!("UDP socket {address}, connected to {peer}")
            }
            Socket::Netlink { protocol, .. } => format!("netlink socket of protocol {protocol}"),
        },
        FileKind::Deleted { path, content, .. } => {
            format!("{path}, deleted, {} bytes", content.len())
        }
        FileKind::PathOnly { path } => format!("path {path}"),
        FileKind::Kernel { path, .. } => format!("{path}, of the kernel"),
        FileKind::Outside { what } => format!("{what}, outside"),
    }
}

fn unix_socket(unix: &UnixSocket) -> String {
    let name = unix.name.as_ref().map_or("unix socket".to_owned(), |name| {
        format!("unix socket {}", String::from_utf8_lossy(&name.bytes).replace('\0', "@"))
    });
    let waiting: usize = unix.inbox.iter().map(Vec::len).sum();
    let state = match &unix.state {
        UnixState::Unconnected => String::new(),
        UnixState::Listening { .. } => return format!("listening {name}"),
        UnixState::Connected { peer } => format!(" {}, connected to {peer}", unix.id),
        UnixState::Orphan => " whose peer is closed".to_owned(),
        UnixState::Outside { name } => {
            format!(", connected to {}", String::from_utf8_lossy(name).replace('\0', "@"))
        }
    };
    let waiting = if waiting > 0 { format!(", {waiting} bytes to read") } else { String::new() };
    format!("{name}{state}{waiting}")
}

/// Names in an image are anybody's text: control characters must not reach the terminal.
pub(crate) fn safe(text: &str) -> String {
    let shown = |character: char| {
        if character.is_control() {
            character.escape_default().to_string()
        } else {
            character.into()
        }
    };
    text.chars().map(shown).collect()
}

/// How many, and which: `3: a, b, c`.
fn list<'a>(items: impl Iterator<Item = &'a str>) -> String {
    let items: Vec<&str> = items.collect();
    if items.is_empty() {
        return "none".into();
    }
    format!("{}: {}", items.len(), items.join(", "))
}

fn sizes(image: &Image) -> String {
    format!(
        "{} on disk: inventory {}, pages {} in {} runs",
        size(image.inventory_bytes + stored_bytes(image)),
        size(image.inventory_bytes),
        size(stored_bytes(image)),
        image.runs.iter().map(Vec::len).sum::<usize>()
    )
}

/// What `pages.tub` takes on the disk; its holes are pages of zeros.
fn stored_bytes(image: &Image) -> u64 {
    // `st_blocks` counts 512 bytes on Linux, whatever the file system (`stat(2)`).
    image.pages.metadata().map_or(image.pages_bytes, |metadata| metadata.blocks() * 512)
}

/// Bytes for people, in powers of 1024 with one decimal.
pub(crate) fn size(bytes: u64) -> String {
    let tenths = |unit: u64| (bytes * 10 + unit / 2) / unit;
    let (tenths, unit) = match bytes {
        0..1024 => return format!("{bytes} B"),
        1024..0x10_0000 => (tenths(1 << 10), "KiB"),
        0x10_0000..0x4000_0000 => (tenths(1 << 20), "MiB"),
        _ => (bytes / (1 << 20) * 10 / 1024, "GiB"),
    };
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Seconds since 1970 as date and time.
pub(crate) fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days to a date in the proleptic Gregorian calendar, counted from 1 March of year 0, so that
    // the leap day is a year's last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// The image of format version 1 that tests look at, in a directory with safe modes.
#[cfg(test)]
pub(crate) mod fixture {
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};

    /// A copy; it goes away with its test.
    pub(crate) struct Copy(pub(crate) PathBuf);

    impl Copy {
        pub(crate) fn new(name: &str) -> Self {
            let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/images/v1");
            let to = std::env::temp_dir().join(format!("tub-cli-{name}-{}", std::process::id()));
            std::fs::create_dir(&to).unwrap();
            for name in [tub_image::INVENTORY_FILE, tub_image::PAGES_FILE] {
                std::fs::copy(from.join(name), to.join(name)).unwrap();
                let mode = PermissionsExt::from_mode(0o600);
                std::fs::set_permissions(to.join(name), mode).unwrap();
            }
            std::fs::set_permissions(&to, PermissionsExt::from_mode(0o700)).unwrap();
            Self(to)
        }
    }

    impl Drop for Copy {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_what_the_fixture_holds() {
        let copy = fixture::Copy::new("inspect-page");
        let page = describe(&Image::open(&copy.0).unwrap());
        for expected in [
            "id            30313233343536373839616263646566, generation 3\n",
            "taken         2025-10-09 08:53:20 UTC by tub 0.1.0\n",
            "process       /usr/bin/java (pid 4242)\n",
            "              in /srv/app as uid 1000, gid 1\n",
            "runtime       OpenJDK 64-Bit Server VM 17\n",
            "resources     2: com.acme.Pool@1f, \n",
            "threads       3: java, a) b (c, \n",
            "              stack             1 mappings   40.0 KiB,   24.0 KiB saved\n",
            "                 5  file /app/app.jar at 18446744073709551615\n",
            "descriptors      0  terminal /dev/pts/0\n",
            "host          x86_64 Linux 6.18.0\n",
        ] {
            assert!(page.contains(expected), "{expected:?} is not in:\n{page}");
        }
    }

    #[test]
    fn the_object_counts_the_same() {
        let copy = fixture::Copy::new("inspect-json");
        let object = describe_json(&Image::open(&copy.0).unwrap());
        assert_eq!(object["generation"], 3);
        let task = &object["tasks"][0];
        assert_eq!(task["threads"].as_array().unwrap().len(), 3);
        assert_eq!(task["descriptors"][1]["what"], "file /app/app.jar at 18446744073709551615");
        assert_eq!(task["memory"]["private file"]["mappings"], 2);
        assert_eq!(task["memory"]["private file"]["saved_bytes"], 5 * 4096);
        assert_eq!(object["coordination"]["resources"][0], "com.acme.Pool@1f");
    }

    #[test]
    fn what_cannot_be_opened_is_explained() {
        let args = Args { dir: "/nonexistent".into(), json: false };
        let failure = main(&args).unwrap_err();
        assert_eq!(failure.code, Code::BadImage);
        assert!(failure.causes[0].contains("nothing is there"), "{failure:?}");
        assert!(!failure.hint.is_empty());
    }

    #[test]
    fn sizes_dates_and_names_are_for_people() {
        assert_eq!(safe("a\u{1b}[2J\nb ü"), "a\\u{1b}[2J\\nb ü");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1.0 KiB");
        assert_eq!(size(47_500_000), "45.3 MiB");
        assert_eq!(size(3 << 30), "3.0 GiB");
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_772_323_200), "2026-03-01 00:00:00 UTC");
    }
}
