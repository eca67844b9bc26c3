//! One descriptor of this process: what it is, and how it is put out of the way and opened again.
//!
//! In: `/proc/self/fd`. Out: [`Descriptor`]s, for rules to be compared with.
//! Invariant: a number that is taken from its owner stays taken, so that whoever uses it later gets
//! EBADF, and never what somebody else has opened meanwhile.
//! Not here: to whom a descriptor belongs (`descriptors`), what becomes of it (`left_open`).

pub use crate::socket::Socket;
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A descriptor above the standard streams, as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its number.
    pub number: RawFd,
    /// `regular`, `directory`, `character`, `block`, `fifo`, `socket` or `unknown`.
    pub kind: &'static str,
    /// What `/proc` calls it.
    pub path: PathBuf,
    /// Which file system it is on, and which file there.
    pub identity: (u64, u64),
    /// What it is as a socket, if it is one.
    pub socket: Socket,
}

/// How a file is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileState {
    /// The flags of open(2) that are left, O_CLOEXEC among them.
    pub flags: i32,
    /// Where it stands.
    pub offset: i64,
}

impl FileState {
    /// That of a descriptor of this process.
    ///
    /// # Errors
    /// There is no such descriptor.
    pub fn of(number: RawFd) -> io::Result<Self> {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
        let field =
            |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let flags = field("flags:").and_then(|flags| i32::from_str_radix(flags, 8).ok());
        let offset = field("pos:").and_then(|offset| offset.parse().ok());
        let state = flags.zip(offset).map(|(flags, offset)| Self { flags, offset });
        state.ok_or_else(|| io::Error::other("its state cannot be read"))
    }

    /// Whether it cannot be written.
    pub fn is_read_only(self) -> bool {
        self.flags & libc::O_ACCMODE == libc::O_RDONLY && self.flags & libc::O_PATH == 0
    }
}

impl Descriptor {
    /// All that are open.
    pub fn all() -> Vec<Self> {
        let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let named: Vec<(RawFd, PathBuf)> = entries
            .filter_map(|entry| {
                let number = entry.file_name().to_str()?.parse().ok()?;
                Some((number, fs::read_link(entry.path()).ok()?))
            })
            .collect();
        // Only now, when the directory that was read is closed: it was one of them.
        let above = named.into_iter().filter(|(number, _)| *number > 2);
        above.filter_map(|(number, path)| Self::new(number, path)).collect()
    }

    /// What a number leads to, if it does.
    pub(crate) fn of(number: RawFd) -> Option<Self> {
        Self::new(number, fs::read_link(format!("/proc/self/fd/{number}")).ok()?)
    }

    /// `None` where it was closed meanwhile.
    fn new(number: RawFd, path: PathBuf) -> Option<Self> {
        let stat = stat(number)?;
        let kind = match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => "regular",
            libc::S_IFDIR => "directory",
            libc::S_IFCHR => "character",
            libc::S_IFBLK => "block",
            libc::S_IFIFO => "fifo",
            libc::S_IFSOCK => "socket",
            _ => "unknown",
        };
        let socket = if kind == "socket" { Socket::of(number) } else { Socket::default() };
        Some(Self { number, kind, path, identity: (stat.st_dev, stat.st_ino), socket })
    }

    /// Its path as text.
    pub fn name(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// Whether it is a socket.
    pub fn is_socket(&self) -> bool {
        self.kind == "socket"
    }

    /// Whether it is a pipe without a name; the others count as files.
    pub fn is_pipe(&self) -> bool {
        self.kind == "fifo" && !self.path.is_absolute()
    }

    /// Whether it has a path of its own.
    pub fn is_file(&self) -> bool {
        self.path.is_absolute() && !self.is_socket()
    }

    /// In the words of a CRaC JDK for what no object of a language stands for.
    pub fn description(&self) -> String {
        format!("FD fd={} type={} path={}", self.number, self.kind, self.name())
    }

    /// Whether the number still leads to what it led to.
    pub fn is_the_same(&self) -> bool {
        stat(self.number).is_some_and(|stat| (stat.st_dev, stat.st_ino) == self.identity)
    }

    /// Puts something that can be neither read nor written in its place, so that the number stays
    /// taken. Gives how it was open.
    ///
    /// # Errors
    /// It is as it was.
    pub fn park(&self) -> io::Result<FileState> {
        // As late as can be: another thread may close a number, and another open it.
        if !self.is_the_same() {
            return Err(io::Error::other("it was closed meanwhile"));
        }
        park(self.number)
    }
}

/// [`Descriptor::park`], of whatever the number leads to now.
///
/// # Errors
/// It is as it was.
pub fn park(number: RawFd) -> io::Result<FileState> {
    let state = FileState::of(number)?;
    move_to(STAND_IN, libc::O_PATH | state.flags & libc::O_CLOEXEC, number)?;
    Ok(state)
}

/// What stands in the place of what is out of the way. KERNEL(since 2.6.39): whatever is asked of an
/// O_PATH descriptor but its path gives EBADF (open(2)).
const STAND_IN: &CStr = c"/";

/// Whether a number is taken by a stand-in.
pub(crate) fn is_stand_in(number: RawFd) -> bool {
    let target = fs::read_link(format!("/proc/self/fd/{number}"));
    target.is_ok_and(|target| target.as_os_str().as_bytes() == STAND_IN.to_bytes())
        && FileState::of(number).is_ok_and(|state| state.flags & libc::O_PATH != 0)
}

/// Opens a file at its old number as it was open.
///
/// # Errors
/// The number leads to what it led to.
pub fn reopen(number: RawFd, path: &[u8], state: FileState) -> io::Result<()> {
    let path = CString::new(path)?;
    move_to(&path, state.flags & !(libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC), number)?;
    // SAFETY: lseek(2) touches no memory.
    let reached = unsafe { libc::lseek(number, state.offset, libc::SEEK_SET) };
    if reached < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Closes one, which frees its number.
pub fn close(number: RawFd) {
    // SAFETY: close(2) of a number that a rule names: what else in this process uses it gets EBADF,
    // as the rule says it shall.
    unsafe { libc::close(number) };
}

fn move_to(path: &CStr, flags: i32, number: RawFd) -> io::Result<()> {
    // SAFETY: open(2) reads a path with an end.
    let opened = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) };
    if opened < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: dup3(2) touches no memory; whoever holds `number` is meant to find the new file there.
    let moved = unsafe { libc::dup3(opened, number, flags & libc::O_CLOEXEC) };
    let error = io::Error::last_os_error();
    // SAFETY: opened above, and known to nobody else.
    unsafe { libc::close(opened) };
    if moved < 0 { Err(error) } else { Ok(()) }
}

fn stat(number: RawFd) -> Option<libc::stat> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: fstat(2) fills in the struct that it is given.
    let status = unsafe { libc::fstat(number, stat.as_mut_ptr()) };
    // SAFETY: all zeros is a `stat` too, if it has not been filled in.
    let stat = unsafe { stat.assume_init() };
    (status == 0).then_some(stat)
}
