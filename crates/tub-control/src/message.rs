//! The messages, and how they are written as lines of JSON.
//!
//! In: values, or one line. Out: one line, or values.
//! Invariant: each line carries `"v"`; it is looked at before anything else.
//! Not here: sockets.

use serde::{Deserialize, Serialize};
use tub_units::AddrRange;

/// The version of the protocol that this crate speaks.
pub const VERSION: u32 = 1;

/// The longest line that either side accepts, in bytes. A class path may be long; nothing else is.
pub const LINE_LIMIT_BYTES: u64 = 4 << 20;

/// What the engine asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Operation {
    /// The engine will not take the image; the application goes on.
    Abort {
        /// Why, for people.
        message: String,
        /// What stood in the way, one entry for each object.
        #[serde(default)]
        failures: Vec<OpenResource>,
    },
    /// The image will be taken now; the answer is the end of the connection.
    Commit {
        /// How long the application waits for its mailbox before it goes on by itself.
        deadline_ms: u64,
    },
    /// Tell every resource that a checkpoint is near.
    Prepare {
        /// How long the resources may take together.
        timeout_ms: u64,
    },
    /// What the application is doing.
    Status,
}

/// What the application answers when all is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// All resources have been told; the image can be taken.
    Prepared(Prepared),
    /// All resources have been told that the application goes on.
    Resumed,
    /// What the application is doing.
    Status(Status),
}

/// Where an application stands between two checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All resources have returned; a checkpoint can be asked for.
    Running,
    /// A round of notifications is under way.
    Preparing,
    /// Everything has been told and waits for the engine.
    Prepared,
}

/// The answer to [`Operation::Status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Where the application stands.
    pub state: State,
    /// The runtime, for people: `"OpenJDK 64-Bit Server VM 17.0.15+6"`.
    pub runtime: String,
    /// The registered resources in order of registration, for people.
    pub resources: Vec<String>,
    /// How many checkpoints lie behind this process.
    pub generation: u64,
    /// Where it asks for its image, if it does.
    pub image: Option<String>,
    /// Whether that is a name with placeholders of CRaC's, to be filled in when the image is taken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub placeholders: bool,
}

/// The answer to [`Operation::Prepare`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// Where the engine leaves its letter.
    pub mailbox: MailboxPlace,
    /// Descriptors of the runtime's own, which the application never opened.
    pub private_fds: Vec<i32>,
    /// What becomes of files and sockets that the application left open.
    pub open: OpenRule,
    /// Files and directories that may stay open whatever [`Prepared::open`] says.
    pub allowed_paths: Vec<String>,
    /// The runtime, for people.
    pub runtime: String,
    /// The resources told, in order of registration, for people.
    pub resources: Vec<String>,
    /// What the runtime has measured of itself, to be kept with the image: numbers as text, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<(String, String)>,
}

/// Where the mailbox lies in the application's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxPlace {
    /// First address.
    pub address: u64,
    /// Length in bytes.
    pub bytes: u64,
}

impl MailboxPlace {
    /// The place as whole pages, or `None` where it is not: an application may say anything.
    pub fn range(self) -> Option<AddrRange> {
        let range = AddrRange::with_len(self.address, self.bytes)?;
        (range.is_page_aligned() && !range.is_empty()).then_some(range)
    }
}

/// What becomes of files and sockets that the application left open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpenRule {
    /// They refuse the checkpoint: the contract of CRaC.
    #[default]
    Refuse,
    /// The engine brings back what it can.
    Restore,
}

/// An object that the engine found in its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenResource {
    /// What kind of object it is.
    pub kind: OpenResourceKind,
    /// Its descriptor, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fd: Option<i32>,
    /// Its path or address, or what is wrong, for people.
    pub detail: String,
}

/// What kind of object stood in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpenResourceKind {
    /// Something with a path.
    File,
    /// Anything else.
    Resource,
    /// Something with an address.
    Socket,
}

/// The answer when something is not well. The application goes on, and every resource that had
/// been told of the checkpoint has been told so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Whose fault it is.
    pub kind: RefusalKind,
    /// Why, for people.
    pub message: String,
    /// What the resources said, flat.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<ResourceFailure>,
}

impl Refusal {
    /// A refusal without failures of resources.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), failures: Vec::new() }
    }
}

/// Whose fault a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RefusalKind {
    /// Another checkpoint is under way.
    Busy,
    /// The peer is another user.
    NotAllowed,
    /// The peer broke the protocol.
    Protocol,
    /// A resource threw.
    ResourceFailed,
    /// The runtime could not take part.
    Runtime,
    /// A resource did not return in time.
    TimedOut,
    /// The peer speaks another version.
    Version,
    /// A kind that this version does not know.
    #[serde(other)]
    Unknown,
}

/// What a resource threw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceFailure {
    /// Type of the exception, in the words of its language.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Its message.
    pub message: String,
    /// The resource that threw, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
}

/// What `encode` makes of `message` and of as many of `failures` as fit into it; where some are left out,
/// the message says so.
///
/// # Errors
/// That of `encode`, where there is no room for any.
pub(crate) fn as_many_as_fit<T, E>(
    message: &str,
    failures: &[OpenResource],
    encode: impl Fn(String, Vec<OpenResource>) -> Result<T, E>,
) -> Result<T, E> {
    let all = failures.len();
    let mut named = all;
    loop {
        let left_out = if named < all {
            format!(" ({named} of {all} objects are named)")
        } else {
            String::new()
        };
        match encode(format!("{message}{left_out}"), failures[..named].to_vec()) {
            Err(_) if named > 0 => named /= 2,
            encoded => return encoded,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Request {
    v: u32,
    #[serde(flatten)]
    operation: Operation,
}

/// Looked at first, so that a message of another version is recognised whatever else is in it.
#[derive(Deserialize)]
struct Envelope {
    v: u32,
}

#[derive(Deserialize)]
struct Verdict {
    ok: bool,
}

#[derive(Serialize, Deserialize)]
struct Success {
    v: u32,
    ok: bool,
    #[serde(flatten)]
    event: Event,
}

#[derive(Serialize, Deserialize)]
struct Failure {
    v: u32,
    ok: bool,
    error: Refusal,
}

/// Why a line could not be understood.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It is not a message of the protocol.
    #[error("the line is no message of the protocol")]
    Malformed(#[source] serde_json::Error),
    /// It is a message of another version.
    #[error("the message has version {found}, understood is {VERSION}")]
    Version {
        /// The version that the message names.
        found: u32,
    },
}

impl Operation {
    /// The request as one line with its end.
    pub fn to_line(&self) -> Vec<u8> {
        line(&Request { v: VERSION, operation: self.clone() })
    }

    /// The request that a line holds.
    ///
    /// # Errors
    /// [`DecodeError`], where the line is of another version or none at all.
    pub fn from_line(line: &[u8]) -> Result<Self, DecodeError> {
        check_version(line)?;
        serde_json::from_slice::<Request>(line)
            .map(|request| request.operation)
            .map_err(DecodeError::Malformed)
    }
}

/// An answer as one line with its end.
pub fn answer_to_line(answer: &Result<Event, Refusal>) -> Vec<u8> {
    match answer {
        Ok(event) => line(&Success { v: VERSION, ok: true, event: event.clone() }),
        Err(error) => line(&Failure { v: VERSION, ok: false, error: error.clone() }),
    }
}

/// The answer that a line holds.
///
/// # Errors
/// [`DecodeError`], where the line is of another version or none at all.
pub fn answer_from_line(line: &[u8]) -> Result<Result<Event, Refusal>, DecodeError> {
    check_version(line)?;
    let verdict: Verdict = serde_json::from_slice(line).map_err(DecodeError::Malformed)?;
    if verdict.ok {
        let success: Success = serde_json::from_slice(line).map_err(DecodeError::Malformed)?;
        Ok(Ok(success.event))
    } else {
        let failure: Failure = serde_json::from_slice(line).map_err(DecodeError::Malformed)?;
        Ok(Err(failure.error))
    }
}

fn check_version(line: &[u8]) -> Result<(), DecodeError> {
    let envelope: Envelope = serde_json::from_slice(line).map_err(DecodeError::Malformed)?;
    if envelope.v == VERSION { Ok(()) } else { Err(DecodeError::Version { found: envelope.v }) }
}

fn line<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(message)
        .expect("a message has string keys only, which is all that JSON asks for");
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: Vec<u8>) -> String {
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn requests_look_as_specified() {
        assert_eq!(text(Operation::Status.to_line()), "{\"v\":1,\"op\":\"status\"}\n");
        assert_eq!(
            text(Operation::Prepare { timeout_ms: 60_000 }.to_line()),
            "{\"v\":1,\"op\":\"prepare\",\"timeout_ms\":60000}\n"
        );
        assert_eq!(
            text(Operation::Commit { deadline_ms: 5 }.to_line()),
            "{\"v\":1,\"op\":\"commit\",\"deadline_ms\":5}\n"
        );
        let abort = Operation::Abort {
            message: "no".into(),
            failures: vec![OpenResource {
                kind: OpenResourceKind::File,
                fd: Some(7),
                detail: "/var/log/app.log".into(),
            }],
        };
        let line = abort.to_line();
        assert_eq!(
            text(line.clone()),
            "{\"v\":1,\"op\":\"abort\",\"message\":\"no\",\"failures\":\
             [{\"kind\":\"file\",\"fd\":7,\"detail\":\"/var/log/app.log\"}]}\n"
        );
        assert_eq!(Operation::from_line(&line).unwrap(), abort);
    }

    #[test]
    fn answers_survive_the_journey() {
        let prepared = Ok(Event::Prepared(Prepared {
            mailbox: MailboxPlace { address: 0x7000_0000, bytes: 1 << 20 },
            private_fds: vec![3, 4],
            open: OpenRule::Refuse,
            allowed_paths: vec!["/usr/lib/jvm".into()],
            runtime: "a runtime".into(),
            resources: vec!["Pool@1f".into()],
            metrics: vec![("vm.uptime".into(), "1500".into())],
        }));
        let refused = Err(Refusal {
            kind: RefusalKind::ResourceFailed,
            message: "1 resource failed".into(),
            failures: vec![ResourceFailure {
                type_name: "java.lang.IllegalStateException".into(),
                message: "busy".into(),
                resource: None,
            }],
        });
        for answer in [prepared, refused, Ok(Event::Resumed)] {
            assert_eq!(answer_from_line(&answer_to_line(&answer)).unwrap(), answer);
        }
        assert_eq!(
            text(answer_to_line(&Err(Refusal::new(RefusalKind::TimedOut, "late")))),
            "{\"v\":1,\"ok\":false,\"error\":{\"kind\":\"timed-out\",\"message\":\"late\"}}\n"
        );
    }

    #[test]
    fn another_version_is_recognised_whatever_else_it_says() {
        let error = Operation::from_line(b"{\"v\":2,\"verb\":17}").unwrap_err();
        assert!(matches!(error, DecodeError::Version { found: 2 }), "{error}");
        let error = Operation::from_line(b"{\"op\":\"status\"}").unwrap_err();
        assert!(matches!(error, DecodeError::Malformed(_)), "{error}");
    }

    #[test]
    fn a_kind_of_a_later_release_is_still_a_refusal() {
        let line = b"{\"v\":1,\"ok\":false,\"error\":{\"kind\":\"tired\",\"message\":\"m\"}}";
        let refusal = answer_from_line(line).unwrap().unwrap_err();
        assert_eq!(refusal, Refusal::new(RefusalKind::Unknown, "m"));
    }

    #[test]
    fn a_mailbox_is_whole_pages() {
        let place = |address, bytes| MailboxPlace { address, bytes }.range();
        assert!(place(0x1000, 0x1000).is_some());
        assert!(place(0x1001, 0x1000).is_none());
        assert!(place(0x1000, 0).is_none());
        assert!(place(u64::MAX - 0xfff, 0x2000).is_none());
    }
}
