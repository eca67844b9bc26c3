//! A warm service on a JVM, and the floor: such a service that no engine touches.
//!
//! In: a command line that starts with `java`. Out: a process that takes part in checkpoints, has
//! answered and is warm.
//! Invariant: whatever an image or a floor is taken of was started and warmed in the same way.
//! Not here: which service it is.

use super::subject::{Engine, Original, Place, Rise};
use crate::failure::{Failure, Result};
use crate::measure::Question;
use crate::process::run_quietly;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a service is started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start<'a> {
    /// Its command line, without us.
    pub(super) command: &'a [OsString],
    /// Options of `tub run`.
    pub(super) options: &'a [OsString],
    pub(super) question: Question<'a>,
    /// Requests that make it warm.
    pub(super) warm_up: u32,
}

impl Start<'_> {
    /// Starts one, called `name`, and warms it. Gives the directory of its control socket, too.
    pub(super) fn warm(
        &self,
        place: &Place,
        engine: Engine,
        name: &str,
    ) -> Result<(Original, PathBuf)> {
        let temporary = place.path(&format!("tmp-{}", name.replace(' ', "-")));
        fs::create_dir(&temporary).map_err(|error| Failure::io("create", &temporary, &error))?;
        let uid = match (engine, place.stage.uid) {
            (Engine::Native, Some(uid)) => {
                place.stage.give(&temporary)?;
                uid
            }
            _ => own_uid()?,
        };
        let command = self.prepared(place, engine, &temporary);
        let mut original = Original::start(place, engine, name, self.question, &command)?;
        original.prober().load(self.warm_up)?;
        Ok((original, temporary.join(format!("tub-{uid}"))))
    }

    /// The command line with `tub run`. Its control socket goes below `temporary`.
    fn prepared(&self, place: &Place, engine: Engine, temporary: &Path) -> Vec<OsString> {
        let mut variable = OsString::from("TMPDIR=");
        variable.push(temporary);
        let mut words = vec!["env".into(), variable, place.stage.layout.tub().into()];
        words.push("run".into());
        words.extend_from_slice(self.options);
        words.push("--".into());
        let (java, rest) = self.command.split_first().expect("a command line has a first word");
        words.push(java.clone());
        if engine == Engine::Criu {
            // It wants the file of the performance data as it was, and the JVM removes it at its end.
            words.push("-XX:+PerfDisableSharedMem".into());
        }
        words.extend_from_slice(rest);
        words
    }

    /// A floor: a fresh process each time, since only the first opening of its connector is like that
    /// of a process that gets up. `requests` are put on it afterwards.
    pub(super) fn floor(&self, place: &Place, name: &str, requests: u32) -> Result<Rise> {
        let (mut original, sockets) = self.warm(place, Engine::Native, name)?;
        let mut rise = Rise::after(original.prober().floor(&sockets)?);
        if requests > 0 {
            rise.load = Some(original.prober().load(requests)?);
        }
        original.stop()?;
        Ok(rise)
    }
}

/// Our own uid, where nobody else's is used.
fn own_uid() -> Result<u32> {
    let text = run_quietly(Command::new("id").arg("-u"))?;
    text.trim().parse().map_err(|_| Failure::new(format!("id -u: {text:?}")))
}
