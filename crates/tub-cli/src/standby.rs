//! `tub restore --standby`: instances parked until somebody wants one.
//!
//! In: the arguments of a restore. Out: a keeper in the foreground; and each of its attendants, which are
//! this command again under another name.

use crate::report::{Code, Failure};
use crate::restore::{self, Args};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use tubthumping::RestoreError;
use tubthumping::standby::{self, Event, KeeperError, KeeperOptions, PlaceError};

pub(crate) fn keep(args: &Args, standby: usize) -> Result<ExitCode, Failure> {
    let dir = &args.dir;
    let failed = |error: &dyn std::error::Error, code| {
        let what = format!("image {} cannot be kept on standby", dir.display());
        Failure::new(what, error, code).state("nothing is parked; what was released runs on")
    };
    let system = |error: std::io::Error| failed(&error, Code::Failed);
    // What cannot be had is said at once, not by every attendant.
    tubthumping::fits(&restore::options(args)?).map_err(|error| restore::failure(dir, &error))?;
    let control = args.control.clone().unwrap_or_else(|| standby::control_socket(dir));
    let mut attendant = vec![std::env::current_exe().map_err(system)?.into_os_string()];
    // The same words, for another command.
    attendant.push("attend".into());
    attendant.extend(words_of_restore());
    let options = KeeperOptions { dir: dir.clone(), standby, control: control.clone(), attendant };
    let ended = standby::keep(options, &mut |event| tell(&event, standby, &control));
    ended.map(|()| ExitCode::SUCCESS).or_else(|error| match error {
        // Its attendant has said everything.
        KeeperError::NotParked { status, .. } => Ok(ExitCode::from(status)),
        error => Err(failed(&error, code(&error)).hint(hint(&error))),
    })
}

/// All words of our own command line behind the name of the command.
fn words_of_restore() -> impl Iterator<Item = OsString> {
    std::env::args_os().skip(2)
}

fn tell(event: &Event<'_>, standby: usize, control: &Path) {
    match event {
        Event::Ready => {
            println!("{standby} on standby: tub release {}", control.display());
        }
        Event::Released { pid } => eprintln!("tub: released process {pid}"),
        Event::Lost { pid } => {
            eprintln!("tub: warning: parked process {pid} has ended; another one takes its place");
        }
        Event::LaunchFailed { .. } => {
            eprintln!("tub: warning: an instance could not be parked; it is tried again");
        }
        Event::NotAllowed { uid } => {
            eprintln!("tub: warning: user {uid} asked for an instance, and was turned away");
        }
    }
}

fn code(error: &KeeperError) -> Code {
    match error {
        KeeperError::Place(PlaceError::InUse { .. }) => Code::Busy,
        KeeperError::Place(PlaceError::NoSocket { .. } | PlaceError::Directory { .. }) => {
            Code::Usage
        }
        KeeperError::ImageChanged { .. } | KeeperError::Image { .. } => Code::BadImage,
        _ => Code::Failed,
    }
}

fn hint(error: &KeeperError) -> &'static str {
    match error {
        KeeperError::Place(PlaceError::InUse { .. }) => "name another place: --control SOCKET",
        KeeperError::Place(_) => "name a place in a directory of yours: --control SOCKET",
        KeeperError::ImageChanged { .. } => "start it again, with the image that is to be used",
        _ => "",
    }
}

/// What each attendant runs.
pub(crate) fn attend(args: &Args) -> Result<ExitCode, Failure> {
    let options = restore::options(args)?;
    let warn = &mut |warning: &str| eprintln!("tub: warning: {warning}");
    let attended = standby::attend(options, warn);
    attended.map(|()| ExitCode::SUCCESS).map_err(|error| {
        let failure = restore::failure(&args.dir, &error);
        if matches!(error, RestoreError::Plan(_)) {
            return failure.hint("restore it without --standby, or let it close that before");
        }
        failure
    })
}
