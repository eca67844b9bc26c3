//! Does what the rules say with the descriptors that the application has left open.
//!
//! In: the rules, and what is open when all before-hooks have run. Out: what the engine is to
//! restore; what is closed; what is out of the way and opened again before the after-hooks.
//! Invariant: all that is refused is refused before anything is touched; nothing of the runtime's own
//! is touched, whatever a rule says.
//! Not here: the rules (`policies`), and what the engine makes of descriptors.
//!
//! The engine opens files that can be written, and sockets that listen, by itself and at once. A file
//! that is only read may be another one when the copy gets up, which the engine would refuse; so
//! `reopen` takes it out of the way before the image.

use crate::descriptor::{self, Descriptor, FileState, is_stand_in};
use crate::failure::Failure;
use crate::policies::{Action, Policies, Rule};
use crate::socket;
use std::fs;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long the owner of a connection may take to find that it has ended, and to close it.
const OWNER_PATIENCE: Duration = Duration::from_millis(100);

/// How often to look whether it has.
const OWNER_POLL: Duration = Duration::from_millis(2);

/// A file out of the way.
#[derive(Debug)]
struct Parked {
    descriptor: Descriptor,
    state: FileState,
}

/// See the module. One for the life of a process, since what is closed stays closed.
#[derive(Debug, Default)]
pub(crate) struct LeftOpen {
    policies: Policies,
    kept: Vec<Descriptor>,
    parked: Vec<Parked>,
    /// Numbers whose place is taken, for as long as their owners have not given them back.
    closed: Vec<RawFd>,
}

/// What `reopen` means for a descriptor.
enum Reopening {
    /// The engine opens it again.
    ByTheEngine,
    /// We do.
    ByUs,
}

impl LeftOpen {
    /// Follows rules. Gives what they forbid, and then nothing has been done; or what could not be
    /// done.
    pub(crate) fn apply(&mut self, policies: Policies, own: &[RawFd]) -> Vec<Failure> {
        self.kept.clear();
        self.closed.retain(|&number| is_stand_in(number));
        self.policies = policies;
        if self.policies.is_empty() {
            return Vec::new();
        }
        let policies = &self.policies;
        let (mut failures, mut close, mut park) = (Vec::new(), Vec::new(), Vec::new());
        let (mut warnings, mut listeners) = (Vec::new(), Vec::new());
        for descriptor in Descriptor::all() {
            let number = descriptor.number;
            if own.contains(&number) || self.closed.contains(&number) {
                continue;
            }
            let Some(rule) = rule_for(policies, &descriptor) else { continue };
            if rule.warns && rule.action != Action::Error {
                warnings.push(what(&descriptor));
            }
            match rule.action {
                Action::Error => failures.push(refusal(policies, rule, &descriptor)),
                Action::Ignore => self.kept.push(descriptor),
                Action::Close => close.push(descriptor),
                Action::Reopen => match reopening(&descriptor) {
                    Ok(Reopening::ByTheEngine) => {
                        if descriptor.socket.family == "inet" {
                            listeners.push(number);
                        }
                        self.kept.push(descriptor);
                    }
                    Ok(Reopening::ByUs) => park.push(descriptor),
                    Err(reason) => {
                        let reason = format!("{reason} ({})", policies.place(rule));
                        failures.push(cannot("reopen", &descriptor, &reason));
                    }
                },
            }
        }
        if !failures.is_empty() {
            self.kept.clear();
            return failures;
        }
        warnings.iter().for_each(|what| warn(what));
        // Who made its listener without SO_REUSEADDR would not get its port again for a minute after
        // its connections have ended.
        listeners.into_iter().for_each(socket::share_port);
        for descriptor in park {
            match descriptor.park() {
                Ok(state) => self.parked.push(Parked { descriptor, state }),
                Err(error) => failures.push(cannot("close", &descriptor, &error.to_string())),
            }
        }
        failures.extend(self.close_all(&close));
        failures
    }

    /// Closes descriptors whose owners go on as if they had them: connections end for their owners
    /// first, who may then close them in order; the number of what is left is taken by a stand-in.
    fn close_all(&mut self, all: &[Descriptor]) -> Vec<Failure> {
        let is_waited_on = |descriptor: &&Descriptor| {
            let socket = &descriptor.socket;
            // Who has a listener in an event loop finds it silent, and no error to stop for.
            let blocks = FileState::of(descriptor.number)
                .is_ok_and(|state| state.flags & libc::O_NONBLOCK == 0);
            descriptor.is_socket() && (blocks || socket.is_stream && !socket.is_listening)
        };
        let ended: Vec<&Descriptor> = all.iter().filter(is_waited_on).collect();
        for descriptor in &ended {
            if descriptor.socket.family == "inet" && !descriptor.socket.is_listening {
                socket::share_port(descriptor.number);
            }
            socket::end(descriptor.number);
        }
        let start = Instant::now();
        while start.elapsed() < OWNER_PATIENCE && ended.iter().any(|it| it.is_the_same()) {
            thread::sleep(OWNER_POLL);
        }
        let mut failures = Vec::new();
        // One that is another by now was closed by its owner.
        for descriptor in all.iter().filter(|descriptor| descriptor.is_the_same()) {
            match descriptor.park() {
                Ok(_) => self.closed.push(descriptor.number),
                Err(error) if descriptor.is_the_same() => {
                    failures.push(cannot("close", descriptor, &error.to_string()));
                }
                Err(_) => {}
            }
        }
        failures
    }

    /// Numbers of what the engine is to restore, also of what stands in the place of others.
    pub(crate) fn numbers(&self) -> Vec<RawFd> {
        let kept = self.kept.iter().map(|descriptor| descriptor.number);
        let parked = self.parked.iter().map(|file| file.descriptor.number);
        kept.chain(parked).chain(self.closed.iter().copied()).collect()
    }

    /// Opens again what is out of the way, in the original as in a copy. Gives what could not be: it
    /// is closed then.
    pub(crate) fn reopen(&mut self) -> Vec<Failure> {
        let mut failures = Vec::new();
        for Parked { descriptor, state } in std::mem::take(&mut self.parked) {
            let number = descriptor.number;
            // Its owner may have closed it meanwhile, and somebody opened another.
            if !is_stand_in(number) {
                continue;
            }
            let path = descriptor.path.as_os_str().as_bytes();
            if let Err(error) = descriptor::reopen(number, path, state) {
                failures.push(cannot("reopen", &descriptor, &error.to_string()));
                self.closed.push(number);
            }
        }
        failures
    }

    /// Follows the rules that a restore has changed, in the copy. Gives what they forbid, which is
    /// closed, too.
    pub(crate) fn restored(&mut self, now: Policies) -> Vec<Failure> {
        if now.is_empty() || now.same_as(&self.policies) {
            return Vec::new();
        }
        let (mut failures, mut close) = (Vec::new(), Vec::new());
        let is_to_go = |descriptor: &Descriptor, failures: &mut Vec<Failure>| {
            let Some(rule) = rule_for(&now, descriptor) else { return false };
            if rule.action == Action::Error {
                failures.push(refusal(&now, rule, descriptor));
            }
            matches!(rule.action, Action::Error | Action::Close)
        };
        for descriptor in std::mem::take(&mut self.kept) {
            if is_to_go(&descriptor, &mut failures) {
                close.extend(Descriptor::of(descriptor.number));
            }
        }
        let (gone, parked): (Vec<_>, Vec<_>) = std::mem::take(&mut self.parked)
            .into_iter()
            .partition(|file| is_to_go(&file.descriptor, &mut failures));
        self.closed.extend(gone.iter().map(|file| file.descriptor.number));
        self.parked = parked;
        failures.extend(self.close_all(&close));
        failures
    }
}

/// Pairs of unix sockets without names are how runtimes talk to themselves: they are reached by a rule
/// for their number alone.
fn rule_for<'a>(policies: &'a Policies, descriptor: &Descriptor) -> Option<&'a Rule> {
    use crate::policies::Type;
    let socket = &descriptor.socket;
    let is_pair = socket.family == "unix"
        && socket.local.is_empty()
        && socket.remote.is_empty()
        && socket.is_stream
        && !socket.is_listening;
    if is_pair { policies.first(Type::Filedescriptor, descriptor) } else { policies.of(descriptor) }
}

fn reopening(descriptor: &Descriptor) -> Result<Reopening, &'static str> {
    if descriptor.is_socket() {
        return if descriptor.socket.is_listening {
            Ok(Reopening::ByTheEngine)
        } else {
            Err("a socket that does not listen cannot be made again from one end")
        };
    }
    let is_read_only = || FileState::of(descriptor.number).is_ok_and(FileState::is_read_only);
    if descriptor.kind != "regular" || !descriptor.is_file() || !is_read_only() {
        return Ok(Reopening::ByTheEngine);
    }
    let there = fs::metadata(&descriptor.path);
    if there.is_ok_and(|there| (there.dev(), there.ino()) == descriptor.identity) {
        Ok(Reopening::ByUs)
    } else {
        Err("its path does not lead to it any more")
    }
}

fn refusal(policies: &Policies, rule: &Rule, descriptor: &Descriptor) -> Failure {
    let place = policies.place(rule);
    let text = format!("{} (descriptor {}; {place})", what(descriptor), descriptor.number);
    Failure::new(type_of(descriptor), text)
}

fn cannot(verb: &str, descriptor: &Descriptor, reason: &str) -> Failure {
    let text = format!("Cannot {verb} {}: {reason}", what(descriptor));
    Failure::new(type_of(descriptor), text)
}

fn type_of(descriptor: &Descriptor) -> &'static str {
    if descriptor.is_socket() {
        "CheckpointOpenSocketException"
    } else if descriptor.is_file() {
        "CheckpointOpenFileException"
    } else {
        "CheckpointOpenResourceException"
    }
}

/// In the words that the engine has for what nobody's rule is for.
fn what(descriptor: &Descriptor) -> String {
    let socket = &descriptor.socket;
    let end = |address: &str, port: &str| match address.contains(':') {
        true => format!("[{address}]:{port}"),
        false => format!("{address}:{port}"),
    };
    let local = || end(&socket.local, &socket.local_port);
    match socket.family.as_str() {
        "inet" => {
            let protocol = if socket.is_stream { "TCP" } else { "UDP" };
            if socket.is_listening {
                return format!("listening {protocol} socket on {}", local());
            }
            let to = match socket.remote.as_str() {
                "" => "nobody".to_owned(),
                remote => end(remote, &socket.remote_port),
            };
            format!("{protocol} socket {} to {to}", local())
        }
        "unix" if socket.is_listening => format!("listening unix socket on {}", socket.local),
        "unix" if !socket.local.is_empty() => format!("unix socket {}", socket.local),
        "unix" if !socket.remote.is_empty() => format!("unix socket to {}", socket.remote),
        "unix" => "unnamed unix socket".to_owned(),
        _ if descriptor.is_file() => descriptor.name(),
        _ => descriptor.description(),
    }
}

fn warn(what: &str) {
    use std::io::Write;
    static HINTED: AtomicBool = AtomicBool::new(false);
    let mut text = format!("tub: {what} was not closed by the application.\n");
    if !HINTED.swap(true, Ordering::Relaxed) {
        text.push_str("tub: To have no such warnings, add 'warn: false' to the rule.\n");
    }
    // Not `eprintln!`, which panics where nobody listens.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests;
