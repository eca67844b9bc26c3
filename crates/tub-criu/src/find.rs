//! Which CRIU, and whether it works here.

use crate::{Error, log};
use nix::sys::signal::Signal;
use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Names the program, instead of PATH.
const VARIABLE: &str = "TUB_CRIU";

/// A CRIU that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Criu {
    program: PathBuf,
    version: String,
}

impl Criu {
    /// The wished one, else the one that `TUB_CRIU` names, else the one in PATH.
    ///
    /// # Errors
    ///
    /// There is none, or it does not answer as CRIU does.
    pub fn find(wished: Option<&Path>) -> Result<Self, Error> {
        let named = || env::var_os(VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
        let in_path = || {
            let path = env::var_os("PATH")?;
            // Where distributions put it, which not everybody has in PATH.
            let system = ["/usr/local/sbin", "/usr/sbin"].map(PathBuf::from);
            let places = env::split_paths(&path).chain(system);
            places.map(|dir| dir.join("criu")).find(|program| program.is_file())
        };
        let program = wished.map(Path::to_owned).or_else(named).or_else(in_path);
        let program = program.ok_or(Error::NotFound)?;
        let output = run(&program, ["--version"])?;
        let said = String::from_utf8_lossy(&output.stdout);
        let version = said.lines().find_map(|line| line.strip_prefix("Version: "));
        match version {
            Some(version) => Ok(Self { version: version.trim().to_owned(), program }),
            None => {
                let said = said.lines().next().unwrap_or("nothing").to_owned();
                Err(Error::NotCriu { path: program, said })
            }
        }
    }

    /// Its version: `4.2.1`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where it is.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Asks it whether this host has what it needs.
    ///
    /// # Errors
    ///
    /// [`Error::Unusable`], with the last that it said.
    pub fn check(&self) -> Result<(), Error> {
        let output = run(&self.program, ["check"])?;
        if output.status.success() {
            return Ok(());
        }
        let text = said(&output);
        let errors = log::last_errors(&text);
        let last = || text.lines().rev().find(|line| !line.trim().is_empty());
        let reason = match errors.last() {
            Some(error) => error.clone(),
            None => last().map_or_else(|| output.status.to_string(), |line| line.trim().to_owned()),
        };
        Err(Error::Unusable { version: self.version.clone(), reason })
    }

    pub(crate) fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(verb);
        command
    }

    /// The failure of a run whose log is at `path`; what it printed if it has not come to a log.
    pub(crate) fn failed(&self, verb: String, path: &Path, said: &str) -> Error {
        let log = std::fs::read(path).unwrap_or_default();
        let mut lines = log::last_errors(&String::from_utf8_lossy(&log));
        if lines.is_empty() {
            lines = log::last_errors(said);
        }
        if lines.is_empty() {
            let last = said.lines().rev().find(|line| !line.trim().is_empty());
            lines = vec![last.unwrap_or("it did not say why").to_owned()];
        }
        Error::Failed { version: self.version.clone(), verb, lines }
    }

    /// The failure of a run that somebody else ended.
    pub(crate) fn was_ended(&self, verb: String, signal: Signal) -> Error {
        let lines = vec![format!("it was ended by {signal}")];
        Error::Failed { version: self.version.clone(), verb, lines }
    }
}

pub(crate) fn said(output: &Output) -> String {
    let text = [&*output.stdout, &*output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

fn run<S: AsRef<OsStr>>(
    program: &Path,
    words: impl IntoIterator<Item = S>,
) -> Result<Output, Error> {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null());
    command.output().map_err(|source| cannot_run(program, source))
}

pub(crate) fn cannot_run(program: &Path, source: io::Error) -> Error {
    Error::CannotRun { path: program.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_answer_as_criu_does_is_none() {
        let found = Criu::find(Some(Path::new("/bin/echo")));
        assert!(matches!(found, Err(Error::NotCriu { .. })), "{found:?}");
        let found = Criu::find(Some(Path::new("/nonexistent/criu")));
        assert!(matches!(found, Err(Error::CannotRun { .. })), "{found:?}");
    }
}
