//! CRLib's tables, version 2, as a CRaC JDK sees them.
//!
//! In: nothing. Out: layouts. Invariant: a table may only grow at its end, and its size tells how far it
//! goes. Not here: what the functions do.
//!
//! JVM: openjdk/crac, `src/hotspot/share/include/crlib`; written down from the facts:
//! names, order, types.

use std::ffi::{c_char, c_int, c_uchar, c_uint, c_void};

/// The version of this layout.
pub(crate) const VERSION: c_int = 2;

/// What `create_conf` gives, of which the JVM knows nothing.
pub(crate) type ConfPointer = *mut c_void;

/// The functions that an engine has at least.
#[repr(C)]
pub struct Api {
    pub(crate) create_conf: extern "C" fn() -> ConfPointer,
    pub(crate) destroy_conf: unsafe extern "C" fn(ConfPointer),
    pub(crate) checkpoint: unsafe extern "C" fn(ConfPointer) -> c_int,
    pub(crate) restore: unsafe extern "C" fn(ConfPointer) -> c_int,
    pub(crate) can_configure: unsafe extern "C" fn(ConfPointer, *const c_char) -> bool,
    pub(crate) configure: unsafe extern "C" fn(ConfPointer, *const c_char, *const c_char) -> bool,
    pub(crate) get_extension: unsafe extern "C" fn(*const c_char, usize) -> *const Header,
}

/// What every extension begins with.
#[repr(C)]
pub(crate) struct Header {
    pub(crate) name: *const c_char,
    /// Of the whole extension, in bytes.
    pub(crate) size: usize,
}

/// "restore data": bytes from the restoring process to the restored one.
#[repr(C)]
pub(crate) struct RestoreData {
    pub(crate) header: Header,
    pub(crate) set: unsafe extern "C" fn(ConfPointer, *const c_void, usize) -> bool,
    pub(crate) get: unsafe extern "C" fn(ConfPointer, *mut c_void, usize) -> usize,
}

/// "image constraints": what an image says of itself, and what a restore requires of it.
#[repr(C)]
pub(crate) struct ImageConstraints {
    pub(crate) header: Header,
    pub(crate) set_label: unsafe extern "C" fn(ConfPointer, *const c_char, *const c_char) -> bool,
    pub(crate) set_bitmap:
        unsafe extern "C" fn(ConfPointer, *const c_char, *const c_uchar, usize) -> bool,
    pub(crate) require_label:
        unsafe extern "C" fn(ConfPointer, *const c_char, *const c_char) -> bool,
    pub(crate) require_bitmap:
        unsafe extern "C" fn(ConfPointer, *const c_char, *const c_uchar, usize, c_int) -> bool,
    pub(crate) is_failed: unsafe extern "C" fn(ConfPointer, *const c_char) -> bool,
    pub(crate) get_failed_bitmap:
        unsafe extern "C" fn(ConfPointer, *const c_char, *mut c_uchar, usize) -> usize,
}

/// "image score": numbers that were measured, kept with the image.
#[repr(C)]
pub(crate) struct ImageScore {
    pub(crate) header: Header,
    pub(crate) set: unsafe extern "C" fn(ConfPointer, *const c_char, f64) -> bool,
}

/// "user data": named bytes, kept with the image, read without restoring it.
#[repr(C)]
pub(crate) struct UserData {
    pub(crate) header: Header,
    pub(crate) set: unsafe extern "C" fn(ConfPointer, *const c_char, *const c_void, usize) -> bool,
    pub(crate) load: unsafe extern "C" fn(ConfPointer) -> *mut c_void,
    pub(crate) look_up:
        unsafe extern "C" fn(*mut c_void, *const c_char, *mut *const c_void, *mut usize) -> bool,
    pub(crate) destroy: unsafe extern "C" fn(*mut c_void),
}

/// "description": who we are and what can be configured.
#[repr(C)]
pub(crate) struct Description {
    pub(crate) header: Header,
    pub(crate) identity: extern "C" fn(ConfPointer) -> *const c_char,
    pub(crate) description: extern "C" fn(ConfPointer) -> *const c_char,
    pub(crate) configuration_doc: extern "C" fn(ConfPointer) -> *const c_char,
    pub(crate) configurable_keys: extern "C" fn(ConfPointer) -> *const *const c_char,
    pub(crate) supported_extensions: extern "C" fn(ConfPointer) -> *const *const Header,
    pub(crate) configuration_options: extern "C" fn(ConfPointer) -> *const ConfOption,
}

/// "checkpointable data": whether a checkpoint can be taken.
#[repr(C)]
pub(crate) struct Availability {
    pub(crate) header: Header,
    pub(crate) status: unsafe extern "C" fn(ConfPointer) -> c_int,
}

/// No checkpoint will ever be possible.
pub(crate) const NEVER: c_int = 0;
/// A checkpoint can be taken.
pub(crate) const READY: c_int = 2;

/// One key that can be configured; a null key ends the list.
#[repr(C)]
pub(crate) struct ConfOption {
    pub(crate) key: *const c_char,
    pub(crate) flags: c_uint,
    pub(crate) value_type: *const c_char,
    pub(crate) default_value: *const c_char,
    pub(crate) description: *const c_char,
}

/// The option matters to a checkpoint.
pub(crate) const AT_CHECKPOINT: c_uint = 1;
/// The option matters to a restore.
pub(crate) const AT_RESTORE: c_uint = 2;

/// Something that never changes and whose pointers lead to what never changes.
pub(crate) struct Fixed<T>(pub(crate) T);

// SAFETY: only statics of this crate are made so; they are read, never written, and every pointer in them
// leads to a literal or to another such static.
unsafe impl<T> Sync for Fixed<T> {}
