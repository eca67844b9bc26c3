//! Inotify instances with their watches.
//!
//! In: a surveyed descriptor. Out: its watches by path, or why it cannot be stored.

use crate::caller::Caller;
use crate::{Result, Survey, SurveyedFd};
use tub_model::{FileKind, InotifyWatch};

pub(super) fn inotify(
    survey: &Survey,
    fd: &SurveyedFd,
    caller: &mut Caller<'_>,
) -> Result<std::result::Result<FileKind, &'static str>> {
    let mut lying = [0u8; 8];
    let number = u64::from(fd.number.cast_unsigned());
    let _ =
        caller.call_on(libc::SYS_ioctl, &mut lying, |at| [number, libc::FIONREAD, at, 0, 0, 0])?;
    if u64::from_ne_bytes(lying) > 0 {
        return Ok(Err("is an inotify instance that holds events not read yet"));
    }
    let mut watches = Vec::new();
    for record in &fd.info.inotify {
        let Some(path) = survey.watched.path(record.dev, record.ino) else {
            return Ok(Err("is an inotify instance that watches a file whose path is not found"));
        };
        let path = path.to_owned();
        watches.push(InotifyWatch { number: record.wd, path, mask: record.mask });
    }
    Ok(Ok(FileKind::Inotify { watches }))
}
