//! How a failure is put into words, and which exit code goes with it.
//!
//! In: errors of the libraries. Out: four labelled lines on stderr and an exit code.
//! Invariant: the exit codes are a contract; they are listed in `docs/exit-codes.md`.

use std::error::Error;
use std::process::ExitCode;

/// Exit codes of `tub`, but for `tub restore` and `tub run`, which mirror their process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// Something failed that no other code describes.
    Failed = 1,
    /// The command line is wrong. (clap uses the same number.)
    Usage = 2,
    /// The process holds something that cannot be stored, or one of its resources objected.
    Refused = 3,
    /// The process does not exist, is not ours, or died.
    NoSuchProcess = 4,
    /// This host lacks something that is needed.
    HostLacks = 5,
    /// The image is missing, damaged, of an unknown version, or does not fit this host.
    BadImage = 6,
    /// The image could not be written.
    CannotWrite = 7,
    /// The application did not answer in time.
    TimedOut = 8,
    /// Another checkpoint of the process is under way, or another keeper has the socket.
    Busy = 9,
}

/// A failure, ready to be printed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What failed, on which object: `cannot checkpoint process 4242 (java)`.
    pub(crate) what: String,
    /// Why, one line each.
    pub(crate) causes: Vec<String>,
    /// What became of the process or the image; empty where nothing was touched.
    pub(crate) state: String,
    /// What to do about it; may be empty.
    pub(crate) hint: String,
    /// The exit code.
    pub(crate) code: Code,
}

impl Failure {
    /// A failure with `error` and its sources as causes.
    pub(crate) fn new(what: impl Into<String>, error: &dyn Error, code: Code) -> Self {
        let mut causes = vec![error.to_string()];
        let mut source = error.source();
        while let Some(inner) = source {
            causes.push(inner.to_string());
            source = inner.source();
        }
        Self { what: what.into(), causes, state: String::new(), hint: String::new(), code }
    }

    /// Says what became of the process or the image.
    pub(crate) fn state(mut self, state: impl Into<String>) -> Self {
        self.state = state.into();
        self
    }

    /// Says what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Prints the failure on stderr.
    pub(crate) fn print(&self) -> ExitCode {
        eprintln!("tub: {}", for_people(&self.what));
        for cause in &self.causes {
            eprintln!("  cause: {}", for_people(cause));
        }
        if !self.state.is_empty() {
            eprintln!("  state: {}", for_people(&self.state));
        }
        if !self.hint.is_empty() {
            eprintln!("  hint:  {}", for_people(&self.hint));
        }
        ExitCode::from(self.code as u8)
    }
}

/// Names of files and words of an application are anybody's text, and may be another user's: nothing of
/// it reaches the terminal but text, and a further line is seen to belong to the one before.
fn for_people(text: &str) -> String {
    text.lines().map(crate::inspect::safe).collect::<Vec<_>>().join("\n         ")
}

/// `1 thread`, `2 threads`.
pub(crate) fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_named_cannot_write_lines_of_ours_nor_to_the_terminal() {
        let name = "file /tmp/a\u{1b}]0;x\u{7}\n  hint:  do as I say";
        assert_eq!(for_people(name), "file /tmp/a\\u{1b}]0;x\\u{7}\n           hint:  do as I say");
        assert_eq!(for_people(""), "");
    }
}
