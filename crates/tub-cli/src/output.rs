//! Printing, for whoever listens.
//!
//! In: text. Out: the standard streams. Invariant: that nobody listens changes nothing of what is done.
//! The standard library's macros panic there: `tub check | head` would abort, and so would a
//! checkpoint whose image is complete, or a restore that has a warning to give. The macros here take
//! their names, so that the others are not to be had in this crate.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::sync::Mutex;

/// The first reason why something did not get to standard output, where that is no mere lack of
/// interest.
static LOST: Mutex<Option<io::Error>> = Mutex::new(None);

pub(crate) fn out(text: Arguments<'_>) {
    note(io::stdout().lock().write_fmt(text));
}

pub(crate) fn err(text: Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// Whether something that was printed on standard output is lost, and why. A reader that has closed
/// its pipe has had enough.
pub(crate) fn lost() -> Option<io::Error> {
    note(io::stdout().flush());
    LOST.lock().ok()?.take()
}

fn note(result: io::Result<()>) {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            if let Ok(mut lost) = LOST.lock() {
                lost.get_or_insert(error);
            }
        }
        _ => {}
    }
}

macro_rules! print {
    ($($text:tt)*) => { $crate::output::out(format_args!($($text)*)) };
}

macro_rules! println {
    ($($text:tt)*) => { $crate::output::out(format_args!("{}\n", format_args!($($text)*))) };
}

macro_rules! eprintln {
    ($($text:tt)*) => { $crate::output::err(format_args!("{}\n", format_args!($($text)*))) };
}
