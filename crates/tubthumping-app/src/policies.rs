//! Resource policies: what becomes of descriptors that the application leaves open, by the rules of
//! a file in CRaC's form (`docs/policies.md`).
//!
//! In: the text of the file, and descriptors. Out: the rule for each.
//! Invariant: what is not understood is refused with its line, never skipped: a rule that did
//! nothing would be found out in production. The Java shim reads the same files
//! (`ResourcePolicies.java`); `tests/fixtures/policies` holds both to the same.
//! Not here: what is done with a descriptor (`left_open`).

mod pattern;

use crate::descriptor::Descriptor;
use crate::outcome::Outcome;
use regex_lite::Regex;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

/// Names the file.
const VARIABLE: &str = "TUB_POLICY";

/// Which kinds of descriptors a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Files, directories, devices, and FIFOs with a name.
    File,
    /// Pipes without a name.
    Pipe,
    /// Sockets.
    Socket,
    /// All, by number or by name.
    Filedescriptor,
}

/// What becomes of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It refuses the checkpoint.
    Error,
    /// The engine restores it, or says that it cannot.
    Ignore,
    /// It is closed before the image.
    Close,
    /// It is there again before the after-hooks.
    Reopen,
}

/// One block of the file.
#[derive(Debug)]
pub struct Rule {
    /// What it is for.
    pub kind: Type,
    /// What it says.
    pub action: Action,
    /// Whether it is told of when it is followed.
    pub warns: bool,
    /// The first and the last line of its block.
    pub lines: (usize, usize),
    selectors: Vec<Selector>,
}

/// The rules of a file, in order.
#[derive(Debug, Default)]
pub struct Policies {
    file: String,
    text: String,
    rules: Vec<Rule>,
}

/// Finds the address of a host by its name.
pub type Resolve<'a> = &'a dyn Fn(&str) -> Option<IpAddr>;

impl Policies {
    /// The rules that hold now: those of the file that the environment names. In a copy, the
    /// environment of its restore comes first.
    pub(crate) fn current(outcome: &Outcome) -> Result<Self, String> {
        let given = match outcome {
            Outcome::Restored(restored) => {
                let named = restored.environment.iter().rev();
                named.clone().find(|(name, _)| name == VARIABLE).map(|(_, value)| value.clone())
            }
            Outcome::Resumed(_) | Outcome::Failed => None,
        };
        let is_said = |file: &OsString| !file.is_empty();
        let file = given.filter(is_said).or_else(|| std::env::var_os(VARIABLE).filter(is_said));
        file.map_or(Ok(Self::default()), |file| Self::read(Path::new(&file)))
    }

    fn read(path: &Path) -> Result<Self, String> {
        let what = format!("File {} used in variable {VARIABLE}", path.display());
        match fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(format!("{what} does not exist"));
            }
            Ok(found) if !found.is_file() => return Err(format!("{what} is not a regular file")),
            _ => {}
        }
        let text = fs::read(path).map_err(|error| format!("{what} cannot be read: {error}"))?;
        Self::parse(&path.display().to_string(), &String::from_utf8_lossy(&text), &resolve)
    }

    /// The rules of a text that stands in `file`.
    ///
    /// # Errors
    /// The first thing that is not understood, with its lines.
    pub fn parse(file: &str, text: &str, resolve: Resolve<'_>) -> Result<Self, String> {
        let mut rules = Vec::new();
        let mut block = Block::new(file, 1);
        let mut number = 0;
        for raw in lines(text) {
            number += 1;
            // Java(since 1.0): what String.trim takes away.
            let line = raw.trim_matches(|character| character <= ' ');
            if line == "---" {
                rules.extend(block.finish(number - 1, resolve)?);
                block = Block::new(file, number + 1);
            } else if !line.is_empty() && !line.starts_with('#') {
                block.add(number, line)?;
            }
        }
        rules.extend(block.finish(number, resolve)?);
        Ok(Self { file: file.to_owned(), text: text.to_owned(), rules })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether another file says the same.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        self.text == other.text
    }

    /// Which of the file's rules it is, for people.
    pub(crate) fn place(&self, rule: &Rule) -> String {
        format!("rule on lines {}-{} of {}", rule.lines.0, rule.lines.1, self.file)
    }

    /// The first rule that fits a descriptor. As with CRaC, rules for numbers are for what no rule
    /// for its kind fits.
    pub fn of(&self, descriptor: &Descriptor) -> Option<&Rule> {
        let kind = if descriptor.is_socket() {
            Some(Type::Socket)
        } else if descriptor.is_pipe() {
            Some(Type::Pipe)
        } else if descriptor.is_file() {
            Some(Type::File)
        } else {
            None
        };
        let first = |kind| self.first(kind, descriptor);
        kind.and_then(first).or_else(|| first(Type::Filedescriptor))
    }

    /// The first rule of a type that fits.
    pub(crate) fn first(&self, kind: Type, descriptor: &Descriptor) -> Option<&Rule> {
        let fits = |rule: &&Rule| {
            rule.kind == kind && rule.selectors.iter().all(|selector| selector.fits(descriptor))
        };
        self.rules.iter().find(fits)
    }
}

/// The lines of a text, whatever ends them: those ends that `\R` of Java's expressions knows.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let is_end = |c: char| {
            matches!(c, '\n' | '\u{b}' | '\u{c}' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
        };
        let Some(at) = text.find(is_end) else {
            rest = None;
            return Some(text);
        };
        let (line, end) = text.split_at(at);
        let after = end.strip_prefix("\r\n");
        rest = after.or_else(|| end.char_indices().nth(1).map(|(next, _)| &end[next..]));
        rest = rest.or(Some(""));
        Some(line)
    })
}

/// The first address of a host, one of v4 if it has any.
fn resolve(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let found: Vec<IpAddr> =
        (bare, 0).to_socket_addrs().ok()?.map(|address| address.ip()).collect();
    found.iter().find(|address| address.is_ipv4()).or(found.first()).copied()
}

/// Which end of a socket.
#[derive(Clone, Copy, Debug)]
enum End {
    Local,
    Remote,
}

impl End {
    fn of(self, descriptor: &Descriptor) -> &str {
        match self {
            Self::Local => &descriptor.socket.local,
            Self::Remote => &descriptor.socket.remote,
        }
    }

    fn port(self, descriptor: &Descriptor) -> &str {
        match self {
            Self::Local => &descriptor.socket.local_port,
            Self::Remote => &descriptor.socket.remote_port,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Family {
    Inet,
    V4,
    V6,
    Unix,
}

/// What a rule asks of a descriptor.
#[derive(Debug)]
enum Selector {
    Path(Regex),
    Family(Family),
    /// `None` is any.
    Address(End, Option<IpAddr>),
    Port(End, Option<String>),
    SocketPath(End, Regex),
    Listening(bool),
    Value(i32),
    Named(Regex),
}

impl Selector {
    fn fits(&self, descriptor: &Descriptor) -> bool {
        let socket = &descriptor.socket;
        let is_inet = socket.family == "inet";
        match self {
            Self::Path(glob) => glob.is_match(&descriptor.name()),
            Self::Family(Family::Inet) => is_inet,
            Self::Family(Family::Unix) => socket.family == "unix",
            Self::Family(Family::V4) => is_inet && has_address_of(&socket.local, IpAddr::is_ipv4),
            Self::Family(Family::V6) => is_inet && has_address_of(&socket.local, IpAddr::is_ipv6),
            Self::Address(_, None) | Self::Port(_, None) => is_inet,
            Self::Address(end, Some(wanted)) => {
                let found = address(end.of(descriptor));
                is_inet
                    && found.is_some_and(|found| {
                        found == *wanted || found.is_unspecified() && wanted.is_unspecified()
                    })
            }
            Self::Port(end, Some(wanted)) => end.port(descriptor) == wanted,
            Self::SocketPath(end, glob) => {
                socket.family == "unix" && glob.is_match(end.of(descriptor))
            }
            Self::Listening(wanted) => socket.is_listening == *wanted,
            Self::Value(number) => descriptor.number == *number,
            Self::Named(pattern) => {
                pattern.is_match(&descriptor.description()) || pattern.is_match(&descriptor.name())
            }
        }
    }
}

/// A v4 address in v6 clothes is one of v4.
fn address(numeric: &str) -> Option<IpAddr> {
    numeric.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// A socket for any address of v6 is one for any address of v4 as well.
fn has_address_of(numeric: &str, version: impl Fn(&IpAddr) -> bool) -> bool {
    address(numeric).is_some_and(|address| address.is_unspecified() || version(&address))
}

/// One block while it is read.
struct Block<'a> {
    file: &'a str,
    from: usize,
    /// By key, with the line of each.
    values: BTreeMap<String, (String, usize)>,
}

impl<'a> Block<'a> {
    fn new(file: &'a str, from: usize) -> Self {
        Self { file, from, values: BTreeMap::new() }
    }

    fn add(&mut self, number: usize, line: &str) -> Result<(), String> {
        let Some((key, value)) = line.split_once(": ").filter(|(key, _)| !key.is_empty()) else {
            return Err(self.invalid(number, &format!("cannot parse line {number}: {line}")));
        };
        let trimmed = |text: &str| text.trim_matches(|character| character <= ' ').to_owned();
        self.values.insert(trimmed(key).to_lowercase(), (trimmed(value), number));
        Ok(())
    }

    /// The rule that the block is, if it is one; `to` is its last line.
    fn finish(&self, to: usize, resolve: Resolve<'_>) -> Result<Option<Rule>, String> {
        if self.values.is_empty() {
            return Ok(None);
        }
        let kind = match self.constant("type", to)?.as_str() {
            "file" => Type::File,
            "pipe" => Type::Pipe,
            "socket" => Type::Socket,
            "filedescriptor" => Type::Filedescriptor,
            _ => return Err(self.bad("type", to, "not known")),
        };
        let action = match self.constant("action", to)?.as_str() {
            "error" => Action::Error,
            "ignore" => Action::Ignore,
            "close" => Action::Close,
            "reopen" => Action::Reopen,
            _ => return Err(self.bad("action", to, "not known")),
        };
        let warns = self.values.get("warn").is_none_or(|(text, _)| text.to_lowercase() != "false");
        let mut selectors = Vec::new();
        let (name, keys) = keys_of(kind);
        for key in self.values.keys().filter(|key| !KEYS_OF_ALL.contains(&key.as_str())) {
            if !keys.contains(&key.as_str()) {
                return Err(self.bad(key, to, &format!("not known for type {name}")));
            }
        }
        if kind == Type::Filedescriptor && action == Action::Reopen {
            return Err(self.bad("action", to, "not possible for type filedescriptor"));
        }
        for key in keys.iter().copied().filter(|key| self.values.contains_key(*key)) {
            let (value, _) = &self.values[key];
            let selector = selector(key, value, resolve).map_err(|why| self.bad(key, to, &why))?;
            selectors.push(selector);
        }
        if kind == Type::Filedescriptor && selectors.is_empty() {
            return Err(self.invalid(to, "no 'value' or 'regex'"));
        }
        Ok(Some(Rule { kind, action, warns, lines: (self.from, to), selectors }))
    }

    fn constant(&self, key: &str, to: usize) -> Result<String, String> {
        let value = self.values.get(key).map(|(value, _)| value.to_lowercase());
        value.ok_or_else(|| self.invalid(to, &format!("no '{key}'")))
    }

    fn bad(&self, key: &str, to: usize, why: &str) -> String {
        let (value, line) = &self.values[key];
        self.invalid(to, &format!("line {line}: {key} '{value}' is {why}"))
    }

    fn invalid(&self, to: usize, problem: &str) -> String {
        let Self { file, from, .. } = self;
        format!("Invalid rule in policies file {file} on lines {from}-{to}: {problem}")
    }
}

const KEYS_OF_ALL: [&str; 3] = ["type", "action", "warn"];

/// The name of a type, and which keys it has.
const fn keys_of(kind: Type) -> (&'static str, &'static [&'static str]) {
    match kind {
        Type::File => ("file", &["path"]),
        Type::Pipe => ("pipe", &[]),
        Type::Filedescriptor => ("filedescriptor", &["value", "regex"]),
        Type::Socket => (
            "socket",
            &[
                "family",
                "localaddress",
                "remoteaddress",
                "localport",
                "remoteport",
                "localpath",
                "remotepath",
                "listening",
            ],
        ),
    }
}

/// What a key with its value asks for; or what the value is instead.
fn selector(key: &str, value: &str, resolve: Resolve<'_>) -> Result<Selector, String> {
    let not_understood = || "not understood".to_owned();
    let number = || value.parse::<i32>().map_err(|_| not_understood());
    let address = || match value {
        "*" => Ok(None),
        host => {
            resolve(host).map(|address| Some(address.to_canonical())).ok_or_else(not_understood)
        }
    };
    let port = || match value {
        "*" => Ok(None),
        _ => number().map(|port| Some(port.to_string())),
    };
    Ok(match key {
        "path" => Selector::Path(pattern::glob(value)?),
        "family" => Selector::Family(match value.to_lowercase().as_str() {
            "ip" | "inet" => Family::Inet,
            "ipv4" | "inet4" => Family::V4,
            "ipv6" | "inet6" => Family::V6,
            "unix" => Family::Unix,
            _ => return Err(not_understood()),
        }),
        "localaddress" => Selector::Address(End::Local, address()?),
        "remoteaddress" => Selector::Address(End::Remote, address()?),
        "localport" => Selector::Port(End::Local, port()?),
        "remoteport" => Selector::Port(End::Remote, port()?),
        "localpath" => Selector::SocketPath(End::Local, pattern::glob(value)?),
        "remotepath" => Selector::SocketPath(End::Remote, pattern::glob(value)?),
        "listening" => Selector::Listening(match value.to_lowercase().as_str() {
            "true" => true,
            "false" => false,
            _ => return Err(not_understood()),
        }),
        "value" => Selector::Value(number()?),
        _ => Selector::Named(Regex::new(value).map_err(|error| error.to_string())?),
    })
}

#[cfg(test)]
mod tests;
