//! The application's side: the control socket and its conversations.
//!
//! In: an [`Application`]. Out: its answers, on a socket in a directory of the user's own.
//! Invariant: when the engine sees the end of the connection that committed, no descriptor of
//! this module is open any more and the socket's path is gone.
//! Not here: what a round of notifications is, and who waits on the mailbox.
//!
//! One thread accepts, one more serves each conversation, so that a round that hangs in one
//! conversation does not keep another from asking what is going on.

use crate::bounded::connect_within;
use crate::find::is_control_path;
use crate::message::{
    DecodeError, Event, LINE_LIMIT_BYTES, OpenResource, Operation, Prepared, Refusal, RefusalKind,
    Status, answer_to_line,
};
use nix::sys::socket::{Shutdown, getsockopt, shutdown, sockopt::PeerCredentials};
use nix::unistd::Uid;
use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

/// How long a peer may be silent before its conversation is ended.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// How many conversations there may be at once; more are closed unheard.
const CONVERSATION_LIMIT: usize = 16;

/// Upcalls into a runtime need some room; only what is touched costs memory.
const STACK_BYTES: usize = 1 << 20;

/// A socket that refuses is stale, unless it is so young that its owner may be about to listen.
const STALE_AGE: Duration = Duration::from_secs(60);

/// KERNEL: length of `sun_path` without its end (unix(7)).
const SOCKET_PATH_LIMIT: usize = 107;

/// Who is on the other end of a conversation, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process id in our PID namespace; 0 where it has none.
    pub pid: i32,
    /// Its effective user id in our user namespace.
    pub uid: u32,
}

/// What takes part in checkpoints. Called from several threads at once.
pub trait Application: Sync {
    /// What the application is doing. Returns at once.
    fn status(&self) -> Status;

    /// Tells every resource that a checkpoint is near, within `timeout`, and gets ready for the
    /// image.
    ///
    /// # Errors
    /// A [`Refusal`]: the application goes on, and every resource told before has been told so.
    fn prepare(&self, peer: Peer, timeout: Duration) -> Result<Prepared, Refusal>;

    /// Undoes a `prepare` that succeeded: there will be no image.
    ///
    /// # Errors
    /// A [`Refusal`], where the resources could not be told in time. The application goes on all
    /// the same.
    fn abort(&self, message: &str, failures: &[OpenResource]) -> Result<(), Refusal>;

    /// Waits on the mailbox for at most `deadline` after a `prepare` that succeeded, and returns
    /// when the process may be spoken to again. All control descriptors are closed by then.
    fn commit(&self, deadline: Duration);

    /// The control socket is at `path` from now on. Whoever can tell that the process ends removes
    /// it then; what is left is removed by the next process to start.
    fn listening(&self, path: PathBuf) {
        let _ = path;
    }
}

/// Why no control socket could be had.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The directory belongs to somebody else, or others may enter it.
    #[error("{path}: the directory is not ours alone (owner {uid}, mode {mode:04o})")]
    Directory {
        /// Its path.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// A system call failed.
    #[error("{path}: cannot {operation}")]
    Io {
        /// Path of the object.
        path: PathBuf,
        /// What could not be done with it.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Where control sockets of this user belong: `tub-UID` in `TMPDIR`, or in `/tmp` where that is
/// unset, relative, or too long for the address of a socket.
pub fn default_directory() -> PathBuf {
    let name = format!("tub-{}", Uid::effective());
    let socket_name_bytes = "/0123456789abcdef.sock".len();
    std::env::var_os("TMPDIR")
        .map(|tmpdir| PathBuf::from(tmpdir).join(&name))
        .filter(|path| path.is_absolute())
        .filter(|path| path.as_os_str().len() + socket_name_bytes <= SOCKET_PATH_LIMIT)
        .unwrap_or_else(|| Path::new("/tmp").join(name))
}

/// Serves conversations for as long as the process lives, on one socket after another: each
/// commit closes it, and it comes back under a new name once the application goes on.
///
/// # Errors
/// [`ServeError`], where the socket cannot be made.
pub fn serve<A: Application>(directory: &Path, application: &A) -> Result<Infallible, ServeError> {
    let mut door = Door::open(directory)?;
    remove_stale_sockets(directory);
    loop {
        application.listening(door.path.clone());
        if let Some(deadline) = serve_until_commit(door, application) {
            application.commit(deadline);
        }
        door = reopen(directory)?;
    }
}

/// Opens the next socket. An application that lacks descriptors or memory at this moment would take part in
/// no checkpoint any more.
fn reopen(directory: &Path) -> Result<Door, ServeError> {
    loop {
        match Door::open(directory) {
            Err(ServeError::Io { source, .. }) if is_shortage(&source) => {
                thread::sleep(Duration::from_millis(20));
            }
            opened => return opened,
        }
    }
}

/// Serves conversations until one of them commits. Returns its deadline when every descriptor
/// is closed; `None` where the socket broke.
fn serve_until_commit<A: Application>(door: Door, application: &A) -> Option<Duration> {
    let house = House { door, guests: Mutex::default(), committed: Mutex::default() };
    thread::scope(|scope| {
        for number in 0_u64.. {
            let stream = match house.door.listener.accept() {
                Ok((stream, _)) => Arc::new(stream),
                Err(_) if house.is_committed() => break,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) if is_shortage(&error) => {
                    thread::sleep(Duration::from_millis(20));
                    continue;
                }
                Err(_) => break,
            };
            if house.is_committed() {
                break;
            }
            if !house.admit(number, &stream) {
                continue;
            }
            let house = &house;
            // Where there is no thread to be had, dropping the stream tells the peer.
            let spawned = thread::Builder::new()
                .name("tub control".into())
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, move || {
                    Conversation { stream, house, application, engagement: None }.run();
                    house.guests().remove(&number);
                });
            if spawned.is_err() {
                house.guests().remove(&number);
            }
        }
        house.ask_guests_to_leave();
    });
    // Everybody has left. The socket goes first, so that the end of the last connection, which
    // the engine waits for, means that nothing is left.
    let House { door, committed, .. } = house;
    drop(door);
    let commit = committed.into_inner().unwrap_or_else(PoisonError::into_inner)?;
    drop(commit.stream);
    Some(commit.deadline)
}

/// One socket and everybody who talks through it.
struct House {
    door: Door,
    guests: Mutex<HashMap<u64, Arc<UnixStream>>>,
    committed: Mutex<Option<Commit>>,
}

/// The conversation that ends this socket, kept open until all else is closed.
struct Commit {
    stream: Arc<UnixStream>,
    deadline: Duration,
}

impl House {
    fn guests(&self) -> MutexGuard<'_, HashMap<u64, Arc<UnixStream>>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, number: u64, stream: &Arc<UnixStream>) -> bool {
        let mut guests = self.guests();
        let room = guests.len() < CONVERSATION_LIMIT;
        if room {
            guests.insert(number, Arc::clone(stream));
        }
        room
    }

    fn is_committed(&self) -> bool {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn commit(&self, stream: Arc<UnixStream>, deadline: Duration) {
        *self.committed.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Commit { stream, deadline });
        // KERNEL: shutting a listening unix socket down wakes the accept that blocks on it, with
        // EINVAL; closing it would not. Where it fails, the next client to come wakes it.
        let _ = shutdown(self.door.listener.as_raw_fd(), Shutdown::Both);
    }

    fn ask_guests_to_leave(&self) {
        let committed = self.committed.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in self.guests().values() {
            let stays =
                committed.as_ref().is_some_and(|commit| Arc::ptr_eq(&commit.stream, stream));
            if !stays {
                // A peer that is gone already needs no telling.
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        }
    }
}

/// What a peer has been promised by a successful `prepare`.
struct Engagement {
    /// How long its verdict may take.
    patience: Duration,
}

struct Conversation<'a, A> {
    stream: Arc<UnixStream>,
    house: &'a House,
    application: &'a A,
    engagement: Option<Engagement>,
}

impl<A: Application> Conversation<'_, A> {
    fn run(mut self) {
        let ending = self.talk();
        if self.engagement.is_some() {
            // Whatever happened, the application must go on. Nobody is left to hear a refusal.
            let _ = self.application.abort(ending, &[]);
        }
    }

    /// Talks until the conversation ends, and says how it did.
    fn talk(&mut self) -> &'static str {
        let stream = Arc::clone(&self.stream);
        if stream.set_write_timeout(Some(IDLE_LIMIT)).is_err() {
            return "the connection to the engine broke";
        }
        let peer = match admitted_peer(&stream) {
            Ok(peer) => peer,
            Err(refusal) => {
                self.answer(&Err(refusal));
                return "the engine is another user";
            }
        };
        let mut reader = BufReader::new(&*stream);
        loop {
            let patience = self.engagement.as_ref().map_or(IDLE_LIMIT, |e| e.patience);
            let mut line = Vec::new();
            if stream.set_read_timeout(Some(patience)).is_err() {
                return "the connection to the engine broke";
            }
            match reader.by_ref().take(LINE_LIMIT_BYTES).read_until(b'\n', &mut line) {
                Ok(0) => return "the engine went away",
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return "the engine said nothing for too long";
                }
                Err(_) => return "the connection to the engine broke",
            }
            let operation = match Operation::from_line(&line) {
                Ok(operation) => operation,
                Err(error) => {
                    self.answer(&Err(not_understood(&error)));
                    return "the engine broke the protocol";
                }
            };
            let answered = match (operation, &self.engagement) {
                (Operation::Status, _) => {
                    self.answer(&Ok(Event::Status(self.application.status())))
                }
                (Operation::Prepare { .. }, Some(_)) => self.answer(&Err(Refusal::new(
                    RefusalKind::Busy,
                    "this conversation has prepared a checkpoint already",
                ))),
                (Operation::Prepare { timeout_ms }, None) => {
                    let timeout = Duration::from_millis(timeout_ms);
                    let answer = self.application.prepare(peer, timeout);
                    if answer.is_ok() {
                        self.engagement = Some(Engagement { patience: timeout.max(IDLE_LIMIT) });
                    }
                    self.answer(&answer.map(Event::Prepared))
                }
                (Operation::Abort { .. } | Operation::Commit { .. }, None) => {
                    self.answer(&Err(Refusal::new(
                        RefusalKind::Protocol,
                        "nothing has been prepared in this conversation",
                    )))
                }
                (Operation::Abort { message, failures }, Some(_)) => {
                    self.engagement = None;
                    let answer = self.application.abort(&message, &failures);
                    self.answer(&answer.map(|()| Event::Resumed))
                }
                (Operation::Commit { deadline_ms }, Some(_)) => {
                    self.engagement = None;
                    let deadline = Duration::from_millis(deadline_ms);
                    self.house.commit(Arc::clone(&self.stream), deadline);
                    return "committed";
                }
            };
            if !answered {
                return "the engine went away";
            }
        }
    }

    /// Whether the answer could be given.
    fn answer(&self, answer: &Result<Event, Refusal>) -> bool {
        (&*self.stream).write_all(&answer_to_line(answer)).is_ok()
    }
}

fn not_understood(error: &DecodeError) -> Refusal {
    match error {
        DecodeError::Version { .. } => Refusal::new(RefusalKind::Version, error.to_string()),
        DecodeError::Malformed(source) => {
            Refusal::new(RefusalKind::Protocol, format!("{error}: {source}"))
        }
    }
}

/// The peer, if it is the same user or root, which may be one that has no name in our user namespace.
fn admitted_peer(stream: &UnixStream) -> Result<Peer, Refusal> {
    let credentials = getsockopt(stream, PeerCredentials).map_err(|errno| {
        Refusal::new(
            RefusalKind::Runtime,
            format!("the peer's credentials cannot be read: {errno}"),
        )
    })?;
    let peer = Peer { pid: credentials.pid(), uid: credentials.uid() };
    let ours = Uid::effective().as_raw();
    if peer.uid == ours || peer.uid == 0 || is_nameless(peer.uid) && came_through_our_door(stream) {
        Ok(peer)
    } else {
        Err(Refusal::new(
            RefusalKind::NotAllowed,
            format!("user {} may not speak to a process of user {ours}", peer.uid),
        ))
    }
}

/// Whether `uid` is what the kernel shows for users that our user namespace has no name for: root
/// outside of a restored instance of an ordinary user is one (user_namespaces(7), "overflowuid").
fn is_nameless(uid: u32) -> bool {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let overflow = read("/proc/sys/kernel/overflowuid").trim().parse().unwrap_or(65534);
    uid == overflow && !is_mapped(&read("/proc/self/uid_map"), uid)
}

/// Whether a `uid_map` has a name for `uid`: each line is a first id inside, one outside, a count.
fn is_mapped(map: &str, uid: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return false;
        };
        uid.checked_sub(first).is_some_and(|offset| offset < count)
    })
}

/// Whether the socket lies in a directory that is ours alone. Then whoever has connected to it without
/// being us may pass by file permissions (CAP_DAC_OVERRIDE over us), and is root in a namespace around
/// ours.
fn came_through_our_door(stream: &UnixStream) -> bool {
    let Ok(address) = stream.local_addr() else { return false };
    let directory = address.as_pathname().and_then(Path::parent);
    directory
        .is_some_and(|directory| fs::symlink_metadata(directory).is_ok_and(|f| is_ours_alone(&f)))
}

fn is_ours_alone(directory: &fs::Metadata) -> bool {
    let open_to_others = directory.mode() & 0o077 != 0;
    directory.is_dir() && directory.uid() == Uid::effective().as_raw() && !open_to_others
}

/// Whether an `accept` failed for want of descriptors or memory, which may pass.
fn is_shortage(error: &io::Error) -> bool {
    use nix::errno::Errno;
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EINTR)
    )
}

/// Makes `directory`, or finds it to be the user's alone: anybody can make one of its name in `/tmp`
/// before us.
///
/// # Errors
/// [`ServeError`], where it is somebody else's, or cannot be made.
pub fn make_directory(directory: &Path) -> Result<(), ServeError> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed(directory, "make the directory")(source));
        }
        _ => {}
    }
    let found = fs::symlink_metadata(directory).map_err(failed(directory, "look at it"))?;
    let mode = found.mode() & 0o7777;
    if is_ours_alone(&found) {
        Ok(())
    } else {
        Err(ServeError::Directory { path: directory.into(), uid: found.uid(), mode })
    }
}

fn failed(path: &Path, operation: &'static str) -> impl FnOnce(io::Error) -> ServeError {
    let path = path.to_owned();
    move |source| ServeError::Io { path, operation, source }
}

/// A listening socket, and its path for as long as it is open.
struct Door {
    listener: UnixListener,
    path: PathBuf,
}

impl Door {
    fn open(directory: &Path) -> Result<Self, ServeError> {
        make_directory(directory)?;
        // The kernel's randomness and no generator of this process: copies of one image would
        // draw the same name.
        let mut random = [0; 8];
        let source = Path::new("/dev/urandom");
        File::open(source)
            .and_then(|mut file| file.read_exact(&mut random))
            .map_err(failed(source, "read from it"))?;
        let path = directory.join(format!("{:016x}.sock", u64::from_ne_bytes(random)));
        let listener = UnixListener::bind(&path).map_err(failed(&path, "listen there"))?;
        Ok(Self { listener, path })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // A path that somebody else has removed is as gone as it should be.
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes what processes left behind that were killed. Errors are no concern: what stays is
/// found again by the next process.
fn remove_stale_sockets(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_old = fs::symlink_metadata(&path)
            .and_then(|found| found.modified())
            .ok()
            .and_then(|made| SystemTime::now().duration_since(made).ok())
            .is_some_and(|age| age > STALE_AGE);
        let fits = path.as_os_str().as_bytes().len() <= SOCKET_PATH_LIMIT;
        if is_control_path(&path) && is_old && fits {
            // One with a full queue is somebody's, and is not waited for.
            let refused = connect_within(&path, Duration::ZERO)
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
            if refused {
                let _ = fs::remove_file(&path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_of_users_names_those_in_its_ranges() {
        let own = "     65534      65534          1\n";
        assert!(is_mapped(own, 65534) && !is_mapped(own, 0) && !is_mapped(own, 65535));
        let all = "         0          0 4294967295\n";
        assert!(is_mapped(all, 0) && is_mapped(all, 65534));
        let container = "0 100000 1000\n1000 1000 1\n";
        assert!(is_mapped(container, 1000) && !is_mapped(container, 1001));
        assert!(!is_mapped("", 0) && !is_mapped("x y z\n", 0));
    }

    #[test]
    fn only_a_directory_of_ours_alone_vouches_for_who_comes_through_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = std::env::temp_dir().join(format!("tub-door-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&dir).unwrap();
        let listener = UnixListener::bind(dir.join("door.sock")).unwrap();
        let _peer = UnixStream::connect(dir.join("door.sock")).unwrap();
        let (stream, _) = listener.accept().unwrap();
        assert!(came_through_our_door(&stream));
        fs::set_permissions(&dir, PermissionsExt::from_mode(0o711)).unwrap();
        assert!(!came_through_our_door(&stream));
        fs::remove_dir_all(&dir).unwrap();
        let (unnamed, _) = UnixStream::pair().unwrap();
        assert!(!came_through_our_door(&unnamed));
    }
}
