//! How an application goes on after a checkpoint.
//!
//! In: a letter. Out: the same as a value. Not here: how it came.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use tub_control::mailbox::Letter;

/// How this process goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As the original, of which there is an image.
    Resumed(Resumed),
    /// As a copy.
    Restored(Restored),
    /// As the original; there is no image.
    Failed,
}

/// The original goes on, and there is an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// Where it is.
    pub image: PathBuf,
    /// How many checkpoints lie behind the process.
    pub generation: u64,
}

/// This process is a copy.
#[derive(Clone, PartialEq, Eq)]
pub struct Restored {
    /// Random, 32 hexadecimal digits: tells one copy from another.
    pub instance: String,
    /// How many checkpoints lie behind the process.
    pub generation: u64,
    /// Random and secret: to seed generators with.
    pub seed: [u8; 32],
    /// When the restore command started, in milliseconds since 1970.
    pub restore_unix_ms: u64,
    /// The environment of the restore command. Nothing of it has been applied.
    pub environment: Vec<(OsString, OsString)>,
    /// New arguments: the words after `tub restore DIR --`.
    pub arguments: Vec<OsString>,
}

impl fmt::Debug for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The seed is secret, and the environment may be.
        f.debug_struct("Restored")
            .field("instance", &self.instance)
            .field("generation", &self.generation)
            .field("arguments", &self.arguments)
            .finish_non_exhaustive()
    }
}

impl Outcome {
    /// How many checkpoints lie behind the process, if this one succeeded.
    pub fn generation(&self) -> Option<u64> {
        match self {
            Self::Resumed(resumed) => Some(resumed.generation),
            Self::Restored(restored) => Some(restored.generation),
            Self::Failed => None,
        }
    }

    pub(crate) fn of(letter: Letter) -> Self {
        match letter {
            Letter::Waiting | Letter::Failed(_) => Self::Failed,
            Letter::Resumed(resumed) => Self::Resumed(Resumed {
                image: resumed.image.into(),
                generation: resumed.generation,
            }),
            Letter::Restored { restored, environment, arguments, .. } => Self::Restored(Restored {
                instance: restored.instance,
                generation: restored.generation,
                seed: seed(&restored.seed),
                restore_unix_ms: restored.restore_unix_ms,
                environment: environment.into_iter().filter_map(variable).collect(),
                arguments: arguments.into_iter().map(OsString::from_vec).collect(),
            }),
        }
    }
}

/// 64 hexadecimal digits as bytes; the engine is trusted to give as many.
fn seed(digits: &str) -> [u8; 32] {
    let digit = |index: usize| {
        let byte = digits.as_bytes().get(index).copied().unwrap_or(b'0');
        char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok()).unwrap_or(0)
    };
    std::array::from_fn(|index| digit(2 * index) << 4 | digit(2 * index + 1))
}

fn variable(pair: Vec<u8>) -> Option<(OsString, OsString)> {
    let at = pair.iter().position(|&byte| byte == b'=')?;
    let (name, value) = (pair[..at].to_vec(), pair[at + 1..].to_vec());
    (!name.is_empty()).then(|| (OsString::from_vec(name), OsString::from_vec(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_read_from_its_digits() {
        let digits: String = (0..32).map(|byte| format!("{:02x}", byte * 7)).collect();
        assert_eq!(seed(&digits), std::array::from_fn(|i| u8::try_from(i * 7).unwrap()));
    }

    #[test]
    fn variables_have_names() {
        let read = |text: &str| variable(text.as_bytes().to_vec());
        assert_eq!(read("A=b=c"), Some(("A".into(), "b=c".into())));
        assert_eq!((read("=x"), read("x")), (None, None));
    }
}
