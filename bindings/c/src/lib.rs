//! Taking part in checkpoints, for C and all that can call it.
//!
//! In: calls as `include/tub.h` declares them. Out: the same as `tubthumping-app`, whose words these
//! are. Invariant: nothing here unwinds into C; whatever is handed out is valid for as long as its
//! comment says. Not here: any rule of a round.

#![allow(non_camel_case_types, reason = "the names are those of tub.h")]

mod outcome;
mod report;

use outcome::Owned;
pub use outcome::{TUB_FAILED, TUB_RESTORED, TUB_RESUMED, tub_outcome};
pub use report::{
    tub_report, tub_report_count, tub_report_free, tub_report_has_image, tub_report_message,
    tub_report_outcome, tub_report_resource, tub_report_type,
};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use tubthumping_app::{
    HookError, Outcome, Registration, Resource, Runtime, global_context, start_as,
};

/// Takes what failed in a hook. Valid during the call of the hook only.
#[derive(Debug)]
pub struct tub_failures {
    list: Vec<(String, String)>,
}

/// A hook that is called before the image is taken, on a thread of the library's.
pub type tub_before = Option<unsafe extern "C" fn(data: *mut c_void, failures: *mut tub_failures)>;

/// A hook that is called after it, in the original and in every copy. `outcome` is valid during the
/// call.
pub type tub_after = Option<
    unsafe extern "C" fn(
        data: *mut c_void,
        outcome: *const tub_outcome,
        failures: *mut tub_failures,
    ),
>;

/// Called once with a resource's data, when it has been unregistered and no hook of it will be called any
/// more; on any thread.
pub type tub_release = Option<unsafe extern "C" fn(data: *mut c_void)>;

/// A resource of C's.
struct Foreign {
    before: tub_before,
    after: tub_after,
    data: *mut c_void,
    release: tub_release,
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: `release` was registered with `data` for this, and a value is dropped once.
            unsafe { release(self.data) };
        }
    }
}

// SAFETY: whoever registers says that hooks and data may be used on another thread (tub_register).
unsafe impl Send for Foreign {}
// SAFETY: as above; hooks are called one at a time.
unsafe impl Sync for Foreign {}

impl Resource for Foreign {
    fn before_checkpoint(&self) -> Result<(), HookError> {
        let Some(hook) = self.before else { return Ok(()) };
        let mut failures = tub_failures { list: Vec::new() };
        // SAFETY: `hook` was registered with `data` for this; `failures` lives during the call.
        unsafe { hook(self.data, &raw mut failures) };
        failures.into_result()
    }

    fn after_restore(&self, outcome: &Outcome) -> Result<(), HookError> {
        let Some(hook) = self.after else { return Ok(()) };
        let mut failures = tub_failures { list: Vec::new() };
        let outcome = Owned::new(outcome);
        // SAFETY: as above; `outcome` lives during the call too.
        unsafe { hook(self.data, outcome.as_ptr(), &raw mut failures) };
        failures.into_result()
    }
}

impl tub_failures {
    fn into_result(self) -> Result<(), HookError> {
        match self.list.len() {
            0 => Ok(()),
            _ => Err(HookError::of(self.list)),
        }
    }
}

/// The text that a pointer leads to; NULL is none.
///
/// # Safety
/// `text` is NULL or leads to a string that ends with NUL and stays as it is during the call.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not NULL; the rest is asked of the caller.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn registrations() -> MutexGuard<'static, HashMap<u64, Registration>> {
    static ALL: OnceLock<Mutex<HashMap<u64, Registration>>> = OnceLock::new();
    ALL.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes part in checkpoints from now on: opens the control socket. `runtime` is what the engine is
/// told about this program, for people. Returns NULL, or why it cannot take part: a text that stays
/// valid. Calls after the first change nothing and return the same.
///
/// # Safety
/// `runtime` is a string that ends with NUL, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tub_start(runtime: *const c_char, own_pipes: bool) -> *const c_char {
    static FAILED: OnceLock<Option<CString>> = OnceLock::new();
    // SAFETY: asked of the caller.
    let mut name = unsafe { text(runtime) };
    if name.is_empty() {
        "C".clone_into(&mut name);
    }
    let started = start_as(Runtime { name, own_pipes });
    let failed = FAILED.get_or_init(|| CString::new(started.err()?.to_string()).ok());
    failed.as_ref().map_or(std::ptr::null(), |text| text.as_ptr())
}

/// Registers a resource: it is told before each checkpoint in reverse order of registration, and
/// after it in order. Each function may be NULL. Returns its id, by which it is unregistered; never 0.
///
/// # Safety
/// `name` is a string that ends with NUL. The hooks may be called with `data` on another thread until
/// `release` is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tub_register(
    name: *const c_char,
    before: tub_before,
    after: tub_after,
    data: *mut c_void,
    release: tub_release,
) -> u64 {
    // SAFETY: asked of the caller.
    let name = unsafe { text(name) };
    let registration = global_context().register(&name, Foreign { before, after, data, release });
    let id = registration.id();
    registrations().insert(id, registration);
    id
}

/// Unregisters a resource. If a checkpoint is under way it is still told of that one. Returns whether
/// it was registered.
#[unsafe(no_mangle)]
pub extern "C" fn tub_unregister(id: u64) -> bool {
    // Dropped when the lock has been given back: `release` may register another.
    let registration = registrations().remove(&id);
    registration.is_some()
}

/// Says in a hook that it failed: any name for the kind of the failure, and a message. May be said
/// several times.
///
/// # Safety
/// `failures` is the argument of the hook that is running; both texts are strings that end with NUL,
/// or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tub_fail(
    failures: *mut tub_failures,
    kind: *const c_char,
    message: *const c_char,
) {
    // SAFETY: asked of the caller.
    let kind = unsafe { text(kind) };
    // SAFETY: as above.
    let message = unsafe { text(message) };
    // SAFETY: asked of the caller; a hook runs on one thread.
    if let Some(failures) = unsafe { failures.as_mut() } {
        failures.list.push((kind, message));
    }
}

/// Asks for a checkpoint of this process, and waits until it goes on. Returns TUB_RESUMED in the
/// original, TUB_RESTORED in a copy, both only if all went well; TUB_FAILED otherwise. What failed, and
/// how the process goes on, is in `*report`, which is to be freed with tub_report_free; `report` may be
/// NULL.
///
/// # Safety
/// `report` is NULL, or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tub_checkpoint(report: *mut *mut tub_report) -> c_int {
    let (state, made) = tub_report::new(tubthumping_app::checkpoint());
    if !report.is_null() {
        // SAFETY: not NULL; the rest is asked of the caller.
        unsafe { report.write(Box::into_raw(made)) };
    }
    state
}
