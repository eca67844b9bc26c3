//! What a checkpoint had to say to whoever asked for it.
//!
//! In: a result of `tubthumping_app::checkpoint`. Out: texts, by number.
//! Invariant: texts live as long as the report. Not here: the checkpoint.

use crate::outcome::{Owned, TUB_FAILED, tub_outcome};
use std::ffi::{CString, c_char, c_int};
use std::ptr;
use tubthumping_app::{Error, ErrorKind, Outcome};

/// What failed in a checkpoint, and how the process goes on.
#[derive(Debug)]
pub struct tub_report {
    outcome: Option<Box<Owned>>,
    has_image: bool,
    /// Kind, message, and resource (or none) of each.
    failures: Vec<(CString, CString, Option<CString>)>,
}

fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}

impl tub_report {
    pub(crate) fn new(result: Result<Outcome, Error>) -> (c_int, Box<Self>) {
        match result {
            Ok(outcome) => {
                let outcome = Owned::new(&outcome);
                let state = outcome.state();
                let failures = Vec::new();
                (state, Box::new(Self { outcome: Some(outcome), has_image: true, failures }))
            }
            Err(error) => {
                let failures = error.failures.iter().map(|failure| {
                    let resource = failure.resource.as_deref().map(c_string);
                    (c_string(&failure.type_name), c_string(&failure.message), resource)
                });
                let has_image = error.kind == ErrorKind::RestoreException;
                let failures = failures.collect();
                (TUB_FAILED, Box::new(Self { outcome: None, has_image, failures }))
            }
        }
    }
}

/// How many failures there are.
///
/// # Safety
/// `report` comes from tub_checkpoint and has not been freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tub_report_count(report: *const tub_report) -> usize {
    // SAFETY: asked of the caller.
    unsafe { report.as_ref() }.map_or(0, |report| report.failures.len())
}

/// Whether there is an image although something failed: resources failed afterwards, what other
/// languages call RestoreException. Otherwise it is a CheckpointException.
///
/// # Safety
/// As for tub_report_count.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tub_report_has_image(report: *const tub_report) -> bool {
    // SAFETY: asked of the caller.
    unsafe { report.as_ref() }.is_some_and(|report| report.has_image)
}

/// How the process goes on, or NULL where something failed. Valid until the report is freed.
///
/// # Safety
/// As for tub_report_count.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tub_report_outcome(report: *const tub_report) -> *const tub_outcome {
    // SAFETY: asked of the caller.
    let outcome = unsafe { report.as_ref() }.and_then(|report| report.outcome.as_ref());
    outcome.map_or(ptr::null(), |outcome| outcome.as_ptr())
}

/// What kind of failure number `index` is: CheckpointOpenFileException,
/// CheckpointOpenSocketException, CheckpointOpenResourceException, TimeoutException, or what the hook
/// said. NULL where there is no such number. Valid until the report is freed.
///
/// # Safety
/// As for tub_report_count.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tub_report_type(report: *const tub_report, index: usize) -> *const c_char {
    // SAFETY: asked of the caller.
    let failure = unsafe { report.as_ref() }.and_then(|report| report.failures.get(index));
    failure.map_or(ptr::null(), |failure| failure.0.as_ptr())
}

/// The message of failure number `index`: of a descriptor its path or address. Otherwise as
/// tub_report_type.
///
/// # Safety
/// As for tub_report_count.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tub_report_message(
    report: *const tub_report,
    index: usize,
) -> *const c_char {
    // SAFETY: asked of the caller.
    let failure = unsafe { report.as_ref() }.and_then(|report| report.failures.get(index));
    failure.map_or(ptr::null(), |failure| failure.1.as_ptr())
}

/// The resource that failure number `index` is of; NULL where it is of none.
///
/// # Safety
/// As for tub_report_count.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tub_report_resource(
    report: *const tub_report,
    index: usize,
) -> *const c_char {
    // SAFETY: asked of the caller.
    let failure = unsafe { report.as_ref() }.and_then(|report| report.failures.get(index));
    failure.and_then(|failure| failure.2.as_ref()).map_or(ptr::null(), |text| text.as_ptr())
}

/// Frees a report; NULL is none.
///
/// # Safety
/// `report` comes from tub_checkpoint and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tub_report_free(report: *mut tub_report) {
    if !report.is_null() {
        // SAFETY: made by Box::into_raw in tub_checkpoint, and freed once, as the caller says.
        drop(unsafe { Box::from_raw(report) });
    }
}
