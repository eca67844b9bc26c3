//! What is said on the socket of a keeper, and between keeper and attendants.
//!
//! In: values. Out: JSON, one object a line on the socket (`docs/standby.md` is its description), one a
//! message between keeper and attendant. Pure.

use serde::{Deserialize, Serialize};
use std::ffi::OsString;

/// Longest request in bytes, its newline included.
pub(super) const REQUEST_BYTES_MAX: usize = 128 * 1024;

/// What a caller asks for. An empty line is a release with nothing to tell the instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub(super) enum Request {
    /// Let one go.
    Release(Wishes),
    /// Tell how many there are.
    Status,
}

/// What a released instance is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wishes {
    /// Variables on top of the keeper's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) env: Vec<(String, String)>,
    /// New arguments for the application.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) args: Vec<String>,
}

impl Wishes {
    pub(super) fn environment(&self) -> Vec<(OsString, OsString)> {
        self.env.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    pub(super) fn arguments(&self) -> Vec<OsString> {
        self.args.iter().map(OsString::from).collect()
    }
}

/// What a caller is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum Answer {
    /// It runs.
    Released(Released),
    /// How many there are.
    Status(Status),
    /// Nothing was released.
    Failed(Failed),
}

/// An instance that was let go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// Its main process, as the keeper sees it.
    pub pid: i32,
    /// Microseconds from its attendant's hearing of it until all its threads ran.
    pub running_us: u64,
}

/// Why nothing was released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failed {
    pub(super) kind: FailureKind,
    /// In words.
    pub(super) error: String,
}

/// Kinds of failures of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FailureKind {
    /// The request cannot be understood, or not be fulfilled by any instance.
    Request,
    /// Somebody else's keeper.
    NotAllowed,
    /// The image is not the one whose instances are parked.
    ImageChanged,
    /// The instance was killed while it was parked.
    Killed,
    /// The instance did not come to life.
    Instance,
    /// None is parked, and none could be.
    NoneParked,
}

/// How many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The image.
    pub image: String,
    /// How many are wanted.
    pub standby: usize,
    /// Those that are parked.
    pub parked: Vec<ParkedInstance>,
    /// How many are being launched.
    pub launching: usize,
    /// How many were released so far.
    pub released: u64,
    /// How many ended while they were parked, and were replaced.
    pub lost: u64,
    /// Why the last launch failed, if it did.
    pub failure: Option<String>,
}

/// A parked instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedInstance {
    /// Its main process, as the keeper sees it.
    pub pid: i32,
    /// Who keeps it: its attendant.
    pub attendant: i32,
    /// Its memory; `None` where it has just ended.
    pub memory: Option<Memory>,
}

/// Memory of a parked instance, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Its own, which is no page of a file: what one more of them costs.
    pub anonymous_bytes: u64,
    /// All that is mapped, with what is shared divided by the number of those who share it.
    pub pss_bytes: u64,
    /// All that is mapped.
    pub rss_bytes: u64,
    /// Anonymous memory of its init and its attendant.
    pub keeping_bytes: u64,
}

/// What an attendant tells its keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "kebab-case")]
pub(super) enum Told {
    /// The instance is parked.
    Parked { pid: i32, init: i32 },
    /// It was let go.
    Released(Released),
    /// The instance, or the request, failed. It is still parked where `parked` says so.
    Failed { failed: Failed, parked: bool },
}

/// A request from its line.
pub(super) fn request(line: &[u8]) -> Result<Request, Failed> {
    if line.trim_ascii().is_empty() {
        return Ok(Request::Release(Wishes::default()));
    }
    serde_json::from_slice(line).map_err(|error| Failed {
        kind: FailureKind::Request,
        error: format!("request cannot be understood: {error}"),
    })
}

/// A value as its line.
pub(super) fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("these values have string keys only");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_what_the_page_says() {
        let release = |env: &[(&str, &str)], args: &[&str]| {
            let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            Ok(Request::Release(Wishes { env, args: args.iter().map(|&a| a.to_owned()).collect() }))
        };
        assert_eq!(request(b""), release(&[], &[]));
        assert_eq!(request(b"{\"op\":\"release\"}"), release(&[], &[]));
        let all = b"{\"op\":\"release\",\"env\":[[\"K\",\"V\"]],\"args\":[\"a\"]}";
        assert_eq!(request(all), release(&[("K", "V")], &["a"]));
        assert_eq!(request(b"{\"op\":\"status\"}"), Ok(Request::Status));
        let error = request(b"{\"op\":\"dance\"}").unwrap_err();
        assert_eq!(error.kind, FailureKind::Request);
    }

    #[test]
    fn answers_are_what_the_page_says() {
        let released = Answer::Released(Released { pid: 7, running_us: 800 });
        let expected = b"{\"event\":\"released\",\"pid\":7,\"running_us\":800}\n";
        assert_eq!(line(&released), expected);
        let kind = FailureKind::ImageChanged;
        let failed = Answer::Failed(Failed { kind, error: "it was".to_owned() });
        let expected = b"{\"event\":\"failed\",\"kind\":\"image-changed\",\"error\":\"it was\"}\n";
        assert_eq!(line(&failed), expected);
    }
}
