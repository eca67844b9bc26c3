//! `tub inspect`: what an image holds, why it is as big as it is, and what in it is delicate.
//!
//! In: a directory. Out: a page for people, or one JSON object.
//! Invariant: only looks; an image of anybody will do, and nothing in it is believed beyond its
//! checksums. Values of variables and arguments are never shown.
//! Not here: whether it would restore (`verify`).

mod anatomy;
mod json;
mod page;
mod secrets;

use crate::foreign;
use crate::report::{Code, Failure};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use tub_image::{ErrorKind, Image};
use tub_model::{Backing, FileKind, OpenFile, Protection, Socket, TcpState, UnixSocket, UnixState};

/// Tell what an image holds: memory by purpose, threads, descriptors, secrets, host, origin.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The image.
    dir: PathBuf,
    /// Print one JSON object, with everything but registers and pages (docs/inspect.md).
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    if foreign::is_image(&args.dir) {
        return foreign::inspect(&args.dir, args.json);
    }
    let image = Image::open_foreign(&args.dir).map_err(|error| {
        bad_image(format!("image {} cannot be inspected", args.dir.display()), &error)
    })?;
    if args.json {
        println!("{}", json::describe(&image));
    } else {
        print!("{}", page::describe(&image));
    }
    Ok(ExitCode::SUCCESS)
}

/// The failure for an image that cannot be opened, with advice by kind.
pub(crate) fn bad_image(what: String, error: &tub_image::Error) -> Failure {
    Failure::new(what, error, Code::BadImage).hint(image_advice(error))
}

/// What to do about an image that cannot be opened.
pub(crate) fn image_advice(error: &tub_image::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "check the path",
        ErrorKind::NotAnImage { .. } => {
            "an image is a directory with inventory.tub and pages.tub, as `tub checkpoint` writes it"
        }
        ErrorKind::Truncated { .. } | ErrorKind::Altered { .. } | ErrorKind::Malformed { .. } => {
            "the image was damaged after it was written: copy it again, or take a new checkpoint"
        }
        ErrorKind::UnknownVersion { .. }
        | ErrorKind::UnknownFlags { .. }
        | ErrorKind::UnknownRecord { .. } => "use the release that wrote it, or a newer one",
        ErrorKind::OtherArchitecture { .. } | ErrorKind::OtherPageSize { .. } => {
            "take the checkpoint on a host like this one"
        }
        ErrorKind::NotOurs { .. } => {
            "whoever can write to an image runs code as its user: own it and close it \
             (chown, chmod go-w), if you trust what is in it"
        }
        _ => "",
    }
}

fn path(backing: &Backing) -> Option<&str> {
    match backing {
        Backing::PrivateFile { file, .. } | Backing::SharedFile { file, .. } => Some(&file.path),
        Backing::SharedScratchFile { path, .. } => Some(path),
        Backing::Anonymous | Backing::MemoryFile { .. } | Backing::Vdso => None,
    }
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
            let held = match content.iter().map(Vec::len).sum::<usize>() {
                0 => String::new(),
                bytes => format!(", {bytes} bytes in it"),
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
        FileKind::PidFd { of: Some(pid) } => format!("pidfd of process {pid}"),
        FileKind::PidFd { of: None } => "pidfd of a process that has ended".into(),
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
        let page = page::describe(&Image::open(&copy.0).unwrap());
        for expected in [
            "id            30313233343536373839616263646566, generation 3\n",
            "taken         2025-10-09 08:53:20 UTC by tub 0.1.0\n",
            "process       /usr/bin/java (pid 4242)\n",
            "              in /srv/app as uid 1000, gid 1\n",
            "runtime       OpenJDK 64-Bit Server VM 17\n",
            "resources     2: com.acme.Pool@1f, \n",
            "threads       3: java, a) b (c, \n",
            "memory        anonymous         3 mappings  380.0 KiB, ",
            " stored of  328.0 KiB saved\n",
            " stored, 360.0 KiB of anonymous, 40a000-464000 rw-\n",
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
        let object = json::describe(&Image::open(&copy.0).unwrap());
        assert_eq!(object["generation"], 3);
        let task = &object["tasks"][0];
        assert_eq!(task["threads"].as_array().unwrap().len(), 3);
        assert_eq!(task["descriptors"][1]["what"], "file /app/app.jar at 18446744073709551615");
        assert_eq!(task["memory"]["private file"]["mappings"], 2);
        assert_eq!(task["memory"]["private file"]["saved_bytes"], 5 * 4096);
        let stored = |of: &serde_json::Value| of["stored_bytes"].as_u64().unwrap();
        let kinds = task["memory"].as_object().unwrap().values().map(stored).sum::<u64>();
        let mappings = task["mappings"].as_array().unwrap().iter().map(stored).sum::<u64>();
        assert!(kinds > 0 && kinds == mappings);
        assert_eq!(object["format"], 1);
        assert_eq!(object["coordination"]["resources"][0], "com.acme.Pool@1f");
    }

    #[test]
    fn a_pipe_holds_bytes_however_many_packets_they_are() {
        let content = vec![vec![1; 300], vec![2; 21]];
        let (id, capacity_bytes, both_ends) = (7, 65_536, true);
        let (path, write_end) = (None, false);
        let kind = FileKind::Pipe { path, id, write_end, capacity_bytes, content, both_ends };
        let file = OpenFile { flags: 0, owner: None, locks: Vec::new(), kind };
        assert_eq!(describe_file(&file), "pipe 7, reading end, 321 bytes in it");
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
