//! The mailbox: how the engine tells a process that has no descriptor left what became of it.
//!
//! In: a letter. Out: the bytes that the engine writes to the start of the mailbox; and back.
//! Invariant: a letter that does not fit is refused, never cut short.
//! Not here: who writes where, and who waits (the engine; the bindings).
//!
//! ```text
//!  0        4          8         12         16         20      32
//!  ┌────────┬──────────┬─────────┬──────────┬──────────┬───────┬──────┬─────────────┬────────┬──────┐
//!  │ state  │ json_len │ env_len │ args_len │ data_len │ 3 × 0 │ json │ K=V␀ K=V␀ … │ ARG␀ … │ data │
//!  └────────┴──────────┴─────────┴──────────┴──────────┴───────┴──────┴─────────────┴────────┴──────┘
//!  u32 each, in the byte order of the machine; state is the futex that the application waits on
//! ```

use crate::OpenResource;
use crate::message::as_many_as_fit;
use serde::{Deserialize, Serialize};

/// Length of the mailbox that an application offers, in bytes.
pub const MAILBOX_BYTES: usize = 1 << 20;

/// Length of the header in bytes.
pub const HEADER_BYTES: usize = 32;

/// State of a mailbox that nobody has written to.
pub const WAITING: u32 = 0;

const RESUMED: u32 = 1;
const RESTORED: u32 = 2;
const FAILED: u32 = 3;

/// The original goes on, and an image was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// Where the image is.
    pub image: String,
    /// How many checkpoints lie behind this process.
    pub generation: u64,
}

/// This is a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Random, 32 hexadecimal digits: tells one copy from another.
    pub instance: String,
    /// How many checkpoints lie behind this process.
    pub generation: u64,
    /// Random, 64 hexadecimal digits: to seed generators with.
    pub seed: String,
    /// CLOCK_REALTIME at which the restore command started, in milliseconds since 1970.
    pub restore_unix_ms: u64,
}

/// The original goes on, and there is no image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Why, for people.
    pub message: String,
    /// What stood in the way, one entry for each object.
    #[serde(default)]
    pub failures: Vec<OpenResource>,
}

/// What a mailbox holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Letter {
    /// Nothing yet.
    Waiting,
    /// The original goes on, and an image was taken.
    Resumed(Resumed),
    /// This is a copy.
    Restored {
        /// What the restore tells it.
        restored: Restored,
        /// The environment of the restore command: `K=V`, any bytes but NUL.
        environment: Vec<Vec<u8>>,
        /// New arguments: any bytes but NUL.
        arguments: Vec<Vec<u8>>,
        /// Whatever the restore command was given for it, as it is.
        data: Vec<u8>,
    },
    /// The original goes on, and there is no image.
    Failed(Failed),
}

/// A letter that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the letter has {bytes} bytes, the mailbox {MAILBOX_BYTES}")]
pub struct TooLong {
    /// Length of the letter in bytes.
    pub bytes: usize,
}

/// Bytes that are no letter.
#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    /// The parts are longer than the mailbox.
    #[error("the letter says that it has {bytes} bytes, the mailbox has {available}")]
    Length {
        /// What the header adds up to.
        bytes: u64,
        /// What there is.
        available: usize,
    },
    /// The JSON part is not what the state asks for.
    #[error("the letter of state {state} cannot be read")]
    Malformed {
        /// State that the header names.
        state: u32,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The state is unknown.
    #[error("the letter has the unknown state {state}")]
    State {
        /// State that the header names.
        state: u32,
    },
}

/// The letter that tells the original that its image was taken and that it goes on.
///
/// # Errors
/// [`TooLong`], where it does not fit.
pub fn encode_resumed(resumed: &Resumed) -> Result<Vec<u8>, TooLong> {
    encode(RESUMED, [&json(resumed), &[], &[], &[]])
}

/// The letter that tells the original that there is no image and that it goes on. Of what stood in the way
/// it names as much as fits, and says so: without a letter the original would wait until its deadline.
///
/// # Errors
/// [`TooLong`], where not even the message fits.
pub fn encode_failed(failed: &Failed) -> Result<Vec<u8>, TooLong> {
    as_many_as_fit(&failed.message, &failed.failures, |message, failures| {
        encode(FAILED, [&json(&Failed { message, failures }), &[], &[], &[]])
    })
}

/// The letter that tells a copy that it is one. `environment` is a block of `K=V`, each ended by
/// NUL, as in `/proc/PID/environ`; `arguments` likewise, as in `/proc/PID/cmdline`.
///
/// # Errors
/// [`TooLong`], where it does not fit: the environment of the restore command is the only part
/// that can be long.
pub fn encode_restored(
    restored: &Restored,
    environment: &[u8],
    arguments: &[u8],
) -> Result<Vec<u8>, TooLong> {
    encode_restored_with(restored, environment, arguments, &[])
}

/// The same, with anything else that the restore command was given for the application.
///
/// # Errors
/// [`TooLong`], where it does not fit.
pub fn encode_restored_with(
    restored: &Restored,
    environment: &[u8],
    arguments: &[u8],
    data: &[u8],
) -> Result<Vec<u8>, TooLong> {
    encode(RESTORED, [&json(restored), environment, arguments, data])
}

/// How many bytes the letter in a mailbox has, by its header; `None` where that is none.
///
/// A mailbox is far larger than most letters, and every page that is read costs a copy time.
pub fn letter_bytes(header: &[u8]) -> Option<usize> {
    let lengths = header.get(4..20)?.as_chunks::<4>().0;
    let body: u64 = lengths.iter().map(|length| u64::from(u32::from_ne_bytes(*length))).sum();
    usize::try_from(HEADER_BYTES as u64 + body).ok()
}

/// The letter that the bytes of a mailbox hold.
///
/// # Errors
/// [`LetterError`], where they hold none.
pub fn decode(mailbox: &[u8]) -> Result<Letter, LetterError> {
    let Some((header, body)) = mailbox.split_at_checked(HEADER_BYTES) else {
        return Err(LetterError::Length { bytes: HEADER_BYTES as u64, available: mailbox.len() });
    };
    let word = |index: usize| {
        let at = index * 4;
        u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let state = word(0);
    if state == WAITING {
        return Ok(Letter::Waiting);
    }
    let lengths = [word(1), word(2), word(3), word(4)];
    let bytes = letter_bytes(header).map_or(u64::MAX, |bytes| bytes as u64);
    if bytes > mailbox.len() as u64 {
        return Err(LetterError::Length { bytes, available: mailbox.len() });
    }
    let (json, rest) = body.split_at(lengths[0] as usize);
    let (environment, rest) = rest.split_at(lengths[1] as usize);
    let (arguments, rest) = rest.split_at(lengths[2] as usize);
    let data = &rest[..lengths[3] as usize];
    let malformed = |source| LetterError::Malformed { state, source };
    match state {
        RESUMED => serde_json::from_slice(json).map(Letter::Resumed).map_err(malformed),
        RESTORED => Ok(Letter::Restored {
            restored: serde_json::from_slice(json).map_err(malformed)?,
            environment: split_block(environment),
            arguments: split_block(arguments),
            data: data.to_vec(),
        }),
        FAILED => serde_json::from_slice(json).map(Letter::Failed).map_err(malformed),
        state => Err(LetterError::State { state }),
    }
}

/// Strings as one block, each ended by NUL.
pub fn join_block<S: AsRef<[u8]>>(strings: impl IntoIterator<Item = S>) -> Vec<u8> {
    let mut block = Vec::new();
    for string in strings {
        block.extend_from_slice(string.as_ref());
        block.push(0);
    }
    block
}

fn split_block(block: &[u8]) -> Vec<Vec<u8>> {
    block
        .split_inclusive(|&byte| byte == 0)
        .map(|s| s.strip_suffix(&[0]).unwrap_or(s).to_vec())
        .collect()
}

fn json<T: Serialize>(letter: &T) -> Vec<u8> {
    serde_json::to_vec(letter)
        .expect("a letter has string keys only, which is all that JSON asks for")
}

fn encode(state: u32, parts: [&[u8]; 4]) -> Result<Vec<u8>, TooLong> {
    let bytes = HEADER_BYTES + parts.iter().map(|part| part.len()).sum::<usize>();
    if bytes > MAILBOX_BYTES {
        return Err(TooLong { bytes });
    }
    let mut header = [0; HEADER_BYTES / 4];
    header[0] = state;
    for (word, part) in header[1..].iter_mut().zip(parts) {
        *word = u32::try_from(part.len()).map_err(|_| TooLong { bytes })?;
    }
    let header = header.iter().flat_map(|word| word.to_ne_bytes());
    Ok(header.chain(parts.concat()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OpenResourceKind;

    fn restored() -> Restored {
        Restored {
            instance: "0123456789abcdef0123456789abcdef".into(),
            generation: 3,
            seed: "00".repeat(32),
            restore_unix_ms: 1_790_000_000_000,
        }
    }

    #[test]
    fn letters_survive_the_journey() {
        let resumed = Resumed { image: "/images/a".into(), generation: 2 };
        let failed = Failed {
            message: "cannot write".into(),
            failures: vec![OpenResource {
                kind: OpenResourceKind::Socket,
                fd: Some(9),
                detail: "tcp 127.0.0.1:1".into(),
            }],
        };
        let environment = [b"A=1".to_vec(), b"B=\xff=".to_vec(), b"EMPTY=".to_vec()];
        let arguments = [b"".to_vec(), b"two words".to_vec()];
        let blocks = (join_block(&environment), join_block(&arguments));
        let letter = encode_restored_with(&restored(), &blocks.0, &blocks.1, b"\0\xff");
        let cases = [
            (encode_resumed(&resumed).unwrap(), Letter::Resumed(resumed)),
            (encode_failed(&failed).unwrap(), Letter::Failed(failed)),
            (
                letter.unwrap(),
                Letter::Restored {
                    restored: restored(),
                    environment: environment.to_vec(),
                    arguments: arguments.to_vec(),
                    data: b"\0\xff".to_vec(),
                },
            ),
        ];
        for (mut bytes, letter) in cases {
            bytes.resize(MAILBOX_BYTES, 0);
            assert_eq!(decode(&bytes).unwrap(), letter);
        }
    }

    #[test]
    fn an_untouched_mailbox_waits() {
        assert_eq!(decode(&[0; HEADER_BYTES]).unwrap(), Letter::Waiting);
    }

    #[test]
    fn a_letter_that_does_not_fit_is_refused() {
        let error = encode_restored(&restored(), &vec![b'x'; MAILBOX_BYTES], &[]).unwrap_err();
        assert!(error.bytes > MAILBOX_BYTES);
    }

    #[test]
    fn of_very_many_failures_as_many_are_named_as_fit() {
        let one = |fd| OpenResource {
            kind: OpenResourceKind::Socket,
            fd: Some(fd),
            detail: format!(
                "listening unix socket on /run/user/1000/a/rather/long/name/no-{fd}.sock"
            ),
        };
        let failures: Vec<_> = (3..20_003).map(one).collect();
        let failed = Failed { message: "it cannot be stored".into(), failures };
        let letter = decode(&encode_failed(&failed).unwrap()).unwrap();
        let Letter::Failed(told) = letter else { panic!("{letter:?}") };
        let named = told.failures.len();
        assert!(named > 4_000 && told.failures == failed.failures[..named], "{named}");
        let said = format!("it cannot be stored ({named} of 20000 objects are named)");
        assert_eq!(told.message, said);
        let endless = Failed { message: "x".repeat(MAILBOX_BYTES), failures: Vec::new() };
        assert!(encode_failed(&endless).is_err());
    }

    #[test]
    fn no_bytes_make_the_decoder_stumble() {
        let mut letter = encode_resumed(&Resumed { image: "i".into(), generation: 1 }).unwrap();
        letter[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
        letter[8..12].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(matches!(decode(&letter), Err(LetterError::Length { .. })));
        letter[0] = 77;
        letter[4..12].fill(0);
        assert!(matches!(decode(&letter), Err(LetterError::State { state: 77 })));
        letter[0] = 1;
        assert!(matches!(decode(&letter), Err(LetterError::Malformed { state: 1, .. })));
        assert!(matches!(decode(&[1]), Err(LetterError::Length { .. })));
    }
}
