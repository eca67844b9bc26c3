//! Parses `/proc/PID/fdinfo/FD`.
//!
//! In: bytes. Out: an [`FdInfoRecord`] with what the kernel adds for special descriptors.
//! Invariant: lines with keys that are not listed here are passed over; what the descriptor is,
//! the link `/proc/PID/fd/FD` says and not this file.

use crate::error::{Place, Result};
use crate::text::{Fields, Number, from_kernel_dev, lines, number};
use alloc::vec::Vec;

/// What `fdinfo` says about a descriptor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FdInfoRecord {
    /// `pos`: read and write position in bytes.
    pub pos: u64,
    /// `flags`: `O_*` status flags and access mode; `O_CLOEXEC` here is the descriptor's.
    pub flags: u32,
    /// `mnt_id`.
    pub mnt_id: i32,
    /// `ino`; absent before Linux 5.14.
    pub ino: Option<u64>,
    /// Of an eventfd.
    pub eventfd: Option<EventFdRecord>,
    /// Of an epoll: what it watches.
    pub epoll: Vec<EpollRecord>,
    /// Of a timerfd.
    pub timerfd: Option<TimerFdRecord>,
    /// Of a signalfd: signals accepted, bit n-1 for signal n.
    pub sigmask: Option<u64>,
    /// Of an inotify: its watches, ascending by number.
    pub inotify: Vec<InotifyRecord>,
    /// File locks and leases held through it.
    pub locks: Vec<LockRecord>,
    /// Of a unix socket: descriptors that lie in its queue; absent before Linux 5.5.
    pub scm_fds: Option<u32>,
    /// Of a pidfd: whom it names, as the reader sees it; -1 for one who has ended and was waited
    /// for, 0 for one whom the reader does not see.
    pub pidfd: Option<i32>,
}

/// A line `lock:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRecord {
    /// Whose it is.
    pub kind: LockKind,
    /// `WRITE` rather than `READ`.
    pub exclusive: bool,
    /// First byte.
    pub start: u64,
    /// Last byte; `None` for the end of the file, wherever that is.
    pub end: Option<u64>,
}

/// Kinds of file locks (`fs/locks.c`, lock_get_status).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// `flock(2)`: of the open file description, over the whole file.
    Flock,
    /// `fcntl(F_SETLK)`: of the process.
    Posix,
    /// `fcntl(F_OFD_SETLK)`: of the open file description.
    OpenFile,
    /// `fcntl(F_SETLEASE)` and whatever else there may be.
    Lease,
}

/// The lines of an eventfd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventFdRecord {
    /// `eventfd-count`.
    pub count: u64,
    /// `eventfd-id`: that of the object, which only duplicates share; absent before Linux 5.2.
    pub id: Option<i32>,
    /// `eventfd-semaphore`; absent before Linux 6.5.
    pub semaphore: Option<bool>,
}

/// A line `tfd:` of an epoll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpollRecord {
    /// The descriptor as it was when added; it may mean another file by now.
    pub tfd: i32,
    /// `EPOLL*` bits.
    pub events: u32,
    /// The caller's word.
    pub data: u64,
    /// Position of the file watched.
    pub pos: u64,
    /// Its inode.
    pub ino: u64,
    /// Its device, as `stat(2)` gives it.
    pub dev: u64,
}

/// The lines of a timerfd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimerFdRecord {
    /// `clockid`.
    pub clock: i32,
    /// `ticks`: expirations not read yet.
    pub ticks: u64,
    /// `settime flags`.
    pub settime_flags: u32,
    /// `it_value`: nanoseconds until it next fires; 0 when disarmed.
    pub value_ns: u64,
    /// `it_interval`: period in nanoseconds.
    pub interval_ns: u64,
}

/// A line `inotify` of an inotify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InotifyRecord {
    /// Watch number.
    pub wd: i32,
    /// Inode watched.
    pub ino: u64,
    /// Its device, as `stat(2)` gives it.
    pub dev: u64,
    /// `IN_*` mask.
    pub mask: u32,
    /// Type of the file handle, for `open_by_handle_at(2)`; `None` where there is no handle.
    pub handle_type: Option<i32>,
    /// Bytes of the file handle.
    pub handle: Vec<u8>,
}

/// Parses all of the file.
///
/// # Errors
/// A line with a known key that is not as described in `proc_pid_fdinfo(5)`.
pub fn parse(bytes: &[u8]) -> Result<FdInfoRecord> {
    let mut record = FdInfoRecord::default();
    let mut seen = [false; 3];
    for (place, line) in lines("fdinfo", bytes) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let key = &line[..colon];
        let mut fields = Fields::new(place, &line[colon + 1..]);
        match key {
            b"pos" => (record.pos, seen[0]) = (position(&mut fields)?, true),
            b"flags" => (record.flags, seen[1]) = (fields.number(8, "flags")?, true),
            b"mnt_id" => (record.mnt_id, seen[2]) = (fields.number(10, "mnt_id")?, true),
            b"ino" => record.ino = Some(fields.number(10, "ino")?),
            // KERNEL(since 3.8): fs/eventfd.c prints the count as hexadecimal, without a prefix.
            b"eventfd-count" => {
                record.eventfd.get_or_insert_default().count =
                    fields.number(16, "eventfd-count")?;
            }
            b"eventfd-id" => {
                let id = Some(fields.number(10, "eventfd-id")?);
                record.eventfd.get_or_insert_default().id = id;
            }
            b"eventfd-semaphore" => {
                let semaphore = fields.number::<u8>(10, "eventfd-semaphore")? != 0;
                record.eventfd.get_or_insert_default().semaphore = Some(semaphore);
            }
            b"tfd" => record.epoll.push(epoll(fields)?),
            b"clockid" => timer(&mut record).clock = fields.number(10, "clockid")?,
            b"ticks" => timer(&mut record).ticks = fields.number(10, "ticks")?,
            b"settime flags" => {
                timer(&mut record).settime_flags = fields.number(8, "settime flags")?;
            }
            b"it_value" => timer(&mut record).value_ns = timespec(place, &line[colon + 1..])?,
            b"it_interval" => {
                timer(&mut record).interval_ns = timespec(place, &line[colon + 1..])?;
            }
            b"sigmask" => record.sigmask = Some(fields.number(16, "sigmask")?),
            b"lock" => record.locks.push(lock(fields)?),
            // KERNEL(since 5.3): kernel/fork.c, pidfd_show_fdinfo; a line "NSpid" follows.
            b"Pid" => record.pidfd = Some(fields.number(10, "Pid")?),
            b"scm_fds" => record.scm_fds = Some(fields.number(10, "scm_fds")?),
            _ if key.starts_with(b"inotify ") => record.inotify.push(inotify(place, line)?),
            _ => {}
        }
    }
    for (seen, key) in seen.into_iter().zip(["pos", "flags", "mnt_id"]) {
        if !seen {
            return Err(Place::file("fdinfo").missing(key));
        }
    }
    record.inotify.sort_by_key(|watch| watch.wd);
    Ok(record)
}

/// The kernel prints a signed position; a few character devices use the upper half.
fn position(fields: &mut Fields<'_>) -> Result<u64> {
    Ok(fields.number::<i64>(10, "pos")?.cast_unsigned())
}

fn timer(record: &mut FdInfoRecord) -> &mut TimerFdRecord {
    record.timerfd.get_or_insert_default()
}

/// `tfd:        8 events:       19 data:     7f2100000008  pos:0 ino:40e sdev:10`, after the key.
fn epoll(mut fields: Fields<'_>) -> Result<EpollRecord> {
    let tfd = fields.number(10, "tfd")?;
    fields.label("events:")?;
    let events = fields.number(16, "events")?;
    fields.label("data:")?;
    let data = fields.number(16, "data")?;
    fields.label("pos:")?;
    let pos = position(&mut fields)?;
    fields.label("ino:")?;
    let ino = fields.number(16, "ino")?;
    fields.label("sdev:")?;
    let dev = from_kernel_dev(fields.number(16, "sdev")?);
    Ok(EpollRecord { tfd, events, data, pos, ino, dev })
}

/// `lock:   1: POSIX  ADVISORY  WRITE 4711 fe:00:1234 0 EOF`, after the key.
fn lock(mut fields: Fields<'_>) -> Result<LockRecord> {
    fields.next("number")?;
    lock_of(fields).map(|(lock, ..)| lock)
}

/// `POSIX  ADVISORY  WRITE 4711 fe:00:1234 0 EOF`: the lock, whose it is, and the file.
pub(crate) fn lock_of(mut fields: Fields<'_>) -> Result<(LockRecord, i32, &[u8])> {
    let kind = match fields.next("kind")? {
        b"FLOCK" => LockKind::Flock,
        b"POSIX" => LockKind::Posix,
        b"OFDLCK" => LockKind::OpenFile,
        _ => LockKind::Lease,
    };
    fields.next("mode")?;
    let exclusive = fields.next("type")? == b"WRITE";
    let pid = fields.number(10, "pid")?;
    let file = fields.next("file")?;
    let start = fields.number(10, "start")?;
    let end = match fields.next("end")? {
        b"EOF" => None,
        text => Some(number(text, 10).ok_or_else(|| fields.place().malformed("end", text))?),
    };
    Ok((LockRecord { kind, exclusive, start, end }, pid, file))
}

/// `inotify wd:1 ino:f ... sdev:fe00000 mask:300 ... fhandle-bytes:8 fhandle-type:1 f_handle:77…`
fn inotify(place: Place, line: &[u8]) -> Result<InotifyRecord> {
    let value = |key: &'static str| {
        line.split(u8::is_ascii_whitespace)
            .find_map(|field| field.strip_prefix(key.as_bytes())?.strip_prefix(b":"))
    };
    fn hex<T: Number>(place: Place, key: &'static str, text: Option<&[u8]>) -> Result<T> {
        let text = text.ok_or_else(|| place.missing(key))?;
        number(text, 16).ok_or_else(|| place.malformed(key, text))
    }
    let handle_type = match value("fhandle-type") {
        Some(text) => Some(hex(place, "fhandle-type", Some(text))?),
        None => None,
    };
    let handle = value("f_handle").unwrap_or_default();
    let handle = handle
        .chunks(2)
        .map(|digits| number(digits, 16).ok_or_else(|| place.malformed("f_handle", handle)))
        .collect::<Result<Vec<u8>>>()?;
    Ok(InotifyRecord {
        wd: hex(place, "wd", value("wd"))?,
        ino: hex(place, "ino", value("ino"))?,
        dev: from_kernel_dev(hex(place, "sdev", value("sdev"))?),
        mask: hex(place, "mask", value("mask"))?,
        handle_type,
        handle,
    })
}

/// `(3599, 953301989)` in nanoseconds.
fn timespec(place: Place, text: &[u8]) -> Result<u64> {
    let text = text.trim_ascii();
    let malformed = || place.malformed("timespec", text);
    let inner = text.strip_prefix(b"(").and_then(|text| text.strip_suffix(b")"));
    let inner = inner.ok_or_else(malformed)?;
    let comma = inner.iter().position(|&byte| byte == b',').ok_or_else(malformed)?;
    let seconds = number::<u64>(inner[..comma].trim_ascii(), 10).ok_or_else(malformed)?;
    let nanos = number::<u64>(inner[comma + 1..].trim_ascii(), 10).ok_or_else(malformed)?;
    seconds.checked_mul(1_000_000_000).and_then(|ns| ns.checked_add(nanos)).ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! fixture {
        ($fd:literal) => {
            include_bytes!(concat!("../../../tests/fixtures/proc/6.18/subject/fdinfo/", $fd))
        };
    }

    #[test]
    fn a_regular_file_with_a_lock() {
        let info = parse(fixture!("3")).unwrap();
        assert_eq!(info.pos, 8192);
        assert_eq!(info.flags, 0o2_100_002);
        assert!(info.ino.is_some());
        let [lock] = info.locks[..] else { panic!("{:?}", info.locks) };
        assert_eq!((lock.kind, lock.exclusive), (LockKind::Posix, true));
        assert_eq!((lock.start, lock.end), (10, Some(109)));
        let flock =
            b"pos:\t0\nflags:\t02\nmnt_id:\t1\nlock:\t1: FLOCK  ADVISORY  READ 9 00:1a:3 0 EOF\n";
        let [lock] = parse(flock).unwrap().locks[..] else { panic!("no lock") };
        assert_eq!((lock.kind, lock.exclusive, lock.end), (LockKind::Flock, false, None));
        assert_eq!(parse(fixture!("4")).unwrap().flags & 0o2000, 0o2000);
    }

    #[test]
    fn an_eventfd_with_a_count() {
        let info = parse(fixture!("8")).unwrap();
        assert_eq!(
            info.eventfd,
            Some(EventFdRecord { count: 7, id: Some(1), semaphore: Some(true) })
        );
        let max = b"pos:\t0\nflags:\t02\nmnt_id:\t1\neventfd-count: fffffffffffffffe\n";
        assert_eq!(parse(max).unwrap().eventfd.unwrap().count, u64::MAX - 1);
    }

    #[test]
    fn a_timerfd_that_runs() {
        let timer = parse(fixture!("9")).unwrap().timerfd.unwrap();
        assert_eq!(timer.clock, 1);
        assert_eq!(timer.interval_ns, 5_250_000_000);
        assert!(timer.value_ns > 3_500_000_000_000 && timer.value_ns < 3_600_000_000_000);
    }

    #[test]
    fn a_signalfd() {
        let info = parse(fixture!("11")).unwrap();
        assert_eq!(info.sigmask, Some(1 << (10 - 1) | 1 << (15 - 1)));
    }

    #[test]
    fn an_inotify_with_two_watches() {
        let info = parse(fixture!("12")).unwrap();
        assert_eq!(info.inotify.len(), 2);
        assert_eq!((info.inotify[0].wd, info.inotify[0].mask), (1, 0x300));
        assert_eq!((info.inotify[1].wd, info.inotify[1].ino), (2, 0x13));
        assert!(info.inotify.iter().all(|watch| watch.dev == 0xfe00));
        assert_eq!(info.inotify[1].handle_type, Some(1));
        assert_eq!(info.inotify[1].handle, [0x13, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn an_epoll_that_watches_an_eventfd_and_a_pipe() {
        let info = parse(fixture!("15")).unwrap();
        assert_eq!(info.epoll.len(), 2);
        assert_eq!((info.epoll[0].tfd, info.epoll[0].events), (8, 0x19));
        assert_eq!((info.epoll[1].tfd, info.epoll[1].events), (13, 0xc000_0019));
        assert_eq!(Some(info.epoll[1].ino), parse(fixture!("13")).unwrap().ino);
    }

    #[test]
    fn an_epoll_of_a_jvm_keeps_the_callers_word() {
        let jvm = include_bytes!("../../../tests/fixtures/proc/6.18/jvm/fdinfo/5");
        let info = parse(jvm).unwrap();
        assert_eq!(info.epoll.iter().map(|target| target.tfd).collect::<Vec<_>>(), [6, 4]);
        assert!(info.epoll.iter().all(|target| target.data >> 32 != 0));
    }

    #[test]
    fn nothing_makes_it_panic() {
        for fixture in [&fixture!("12")[..], fixture!("15"), fixture!("9"), fixture!("8")] {
            for end in 0..fixture.len() {
                let _ = parse(&fixture[..end]);
            }
        }
        let odd =
            b"pos:\t0\nflags:\t02\nmnt_id:\t1\ninotify wd:1 ino:1 sdev:1 mask:1 f_handle:123\n";
        assert_eq!(parse(odd).unwrap().inotify[0].handle, [0x12, 3]);
        assert!(parse(b"pos:\t0\nflags:\t02\n").is_err());
    }
}
