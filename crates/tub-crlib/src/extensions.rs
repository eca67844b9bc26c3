//! CRLib's extensions, each a table that is found by its name.
//!
//! In: a name; calls. Out: what is kept in the [`Conf`](crate::conf::Conf). Invariant: what is handed out
//! lives as long as the library, or as the configuration, or until it is destroyed by its own call.
//! Not here: rules (`constraints`, `conf`).

use crate::abi::{
    Availability, ConfOption, ConfPointer, Description, Fixed, Header, ImageConstraints,
    ImageScore, NEVER, READY, RestoreData, UserData,
};
use crate::constraints::{self, Comparison};
use crate::{bytes, conf, engine, text};
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uchar, c_void};
use std::ptr::{null, null_mut};
use tubthumping::RestoreOptions;

/// Of a table of type `T`.
const fn header<T>(name: &'static CStr) -> Header {
    Header { name: name.as_ptr(), size: size_of::<T>() }
}

static RESTORE_DATA: Fixed<RestoreData> = Fixed(RestoreData {
    header: header::<RestoreData>(c"restore data"),
    set: set_restore_data,
    get: get_restore_data,
});

static IMAGE_CONSTRAINTS: Fixed<ImageConstraints> = Fixed(ImageConstraints {
    header: header::<ImageConstraints>(c"image constraints"),
    set_label,
    set_bitmap,
    require_label,
    require_bitmap,
    is_failed,
    get_failed_bitmap,
});

static IMAGE_SCORE: Fixed<ImageScore> =
    Fixed(ImageScore { header: header::<ImageScore>(c"image score"), set: set_score });

static USER_DATA: Fixed<UserData> = Fixed(UserData {
    header: header::<UserData>(c"user data"),
    set: set_user_data,
    load: load_user_data,
    look_up: look_up_user_data,
    destroy: destroy_user_data,
});

static DESCRIPTION: Fixed<Description> = Fixed(Description {
    header: header::<Description>(c"description"),
    identity,
    description,
    configuration_doc,
    configurable_keys,
    supported_extensions,
    configuration_options,
});

static AVAILABILITY: Fixed<Availability> = Fixed(Availability {
    header: header::<Availability>(c"checkpointable data"),
    status: get_status,
});

static ALL: Fixed<[*const Header; 7]> = Fixed([
    &raw const RESTORE_DATA.0.header,
    &raw const IMAGE_CONSTRAINTS.0.header,
    &raw const IMAGE_SCORE.0.header,
    &raw const USER_DATA.0.header,
    &raw const DESCRIPTION.0.header,
    &raw const AVAILABILITY.0.header,
    null(),
]);

/// The extension of that name, if it is at least so large.
pub(crate) unsafe extern "C" fn get_extension(name: *const c_char, size: usize) -> *const Header {
    // SAFETY: CRLib asks the caller for a string.
    let name = unsafe { CStr::from_ptr(name) };
    let found = ALL.0.iter().filter(|header| !header.is_null()).find(|&&header| {
        // SAFETY: each leads to a static of this file.
        let header = unsafe { &*header };
        // SAFETY: the literal that it was made of.
        let known = unsafe { CStr::from_ptr(header.name) };
        known == name && size <= header.size
    });
    found.copied().unwrap_or(null())
}

unsafe extern "C" fn set_restore_data(
    pointer: ConfPointer,
    data: *const c_void,
    size: usize,
) -> bool {
    // SAFETY: CRLib asks the caller for it.
    let conf = unsafe { conf(pointer) };
    // SAFETY: as above.
    conf.data = unsafe { bytes(data.cast(), size) }.to_vec();
    !conf.data.is_empty()
}

unsafe extern "C" fn get_restore_data(
    pointer: ConfPointer,
    buffer: *mut c_void,
    size: usize,
) -> usize {
    // SAFETY: CRLib asks the caller for it.
    let conf = unsafe { conf(pointer) };
    // SAFETY: as above.
    unsafe { give(&conf.data, buffer.cast(), size) };
    conf.data.len()
}

/// Copies as much of `data` as there is room for.
///
/// # Safety
/// `buffer` leads to `size` bytes that may be written to.
unsafe fn give(data: &[u8], buffer: *mut u8, size: usize) {
    if !buffer.is_null() {
        // SAFETY: both have so many bytes at least, and what is ours is nobody else's buffer.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), buffer, data.len().min(size)) };
    }
}

unsafe extern "C" fn set_label(
    pointer: ConfPointer,
    name: *const c_char,
    value: *const c_char,
) -> bool {
    // SAFETY: CRLib asks the caller for it.
    let conf = unsafe { conf(pointer) };
    // SAFETY: as above.
    let name = unsafe { text(name) };
    // SAFETY: as above.
    let value = unsafe { text(value) };
    name.zip(value).is_some_and(|(name, value)| conf.told.label(name, value))
}

unsafe extern "C" fn set_bitmap(
    pointer: ConfPointer,
    name: *const c_char,
    value: *const c_uchar,
    size: usize,
) -> bool {
    // SAFETY: CRLib asks the caller for it.
    let conf = unsafe { conf(pointer) };
    // SAFETY: as above.
    let name = unsafe { text(name) };
    // SAFETY: as above.
    let bits = unsafe { bytes(value, size) };
    name.is_some_and(|name| conf.told.bitmap(name, bits))
}

unsafe extern "C" fn require_label(
    pointer: ConfPointer,
    name: *const c_char,
    value: *const c_char,
) -> bool {
    // SAFETY: CRLib asks the caller for it.
    let conf = unsafe { conf(pointer) };
    // SAFETY: as above.
    let name = unsafe { text(name) };
    // SAFETY: as above.
    let value = unsafe { text(value) };
    name.zip(value).map(|(name, value)| conf.required.label(name, value)).is_some()
}

unsafe extern "C" fn require_bitmap(
    pointer: ConfPointer,
    name: *const c_char,
    value: *const c_uchar,
    size: usize,
    comparison: c_int,
) -> bool {
    // SAFETY: CRLib asks the caller for it.
    let conf = unsafe { conf(pointer) };
    // SAFETY: as above.
    let name = unsafe { text(name) };
    // SAFETY: as above.
    let bits = unsafe { bytes(value, size) };
    let wanted = name.zip(Comparison::of(comparison));
    wanted.map(|(name, how)| conf.required.bitmap(name, bits, how)).is_some()
}

unsafe extern "C" fn is_failed(pointer: ConfPointer, name: *const c_char) -> bool {
    // SAFETY: CRLib asks the caller for it.
    let conf = unsafe { conf(pointer) };
    // SAFETY: as above.
    let name = unsafe { text(name) };
    name.is_some_and(|name| conf.required.failed(name).is_some())
}

unsafe extern "C" fn get_failed_bitmap(
    pointer: ConfPointer,
    name: *const c_char,
    buffer: *mut c_uchar,
    size: usize,
) -> usize {
    // SAFETY: CRLib asks the caller for it.
    let conf = unsafe { conf(pointer) };
    // SAFETY: as above.
    let name = unsafe { text(name) };
    let bitmap = name.and_then(|name| conf.required.failed(name)?.bitmap.as_deref());
    let bitmap = bitmap.unwrap_or_default();
    // SAFETY: as above.
    unsafe { give(bitmap, buffer, size) };
    bitmap.len()
}

unsafe extern "C" fn set_score(pointer: ConfPointer, metric: *const c_char, value: f64) -> bool {
    // SAFETY: CRLib asks the caller for it.
    let conf = unsafe { conf(pointer) };
    // SAFETY: as above.
    let metric = unsafe { text(metric) };
    metric.is_some_and(|metric| conf.score(metric, value))
}

unsafe extern "C" fn set_user_data(
    pointer: ConfPointer,
    name: *const c_char,
    data: *const c_void,
    size: usize,
) -> bool {
    // SAFETY: CRLib asks the caller for it.
    let conf = unsafe { conf(pointer) };
    // SAFETY: as above.
    let name = unsafe { text(name) };
    // SAFETY: as above.
    let data = unsafe { bytes(data.cast(), size) };
    name.is_some_and(|name| conf.told.data(name, data))
}

/// Data of an image, by name.
type Storage = HashMap<String, Vec<u8>>;

unsafe extern "C" fn load_user_data(pointer: ConfPointer) -> *mut c_void {
    // SAFETY: CRLib asks the caller for it.
    let conf = unsafe { conf(pointer) };
    let Some(dir) = conf.image.clone() else { return null_mut() };
    let options = RestoreOptions { dir, ..RestoreOptions::default() };
    let Ok(labels) = engine::labels(&options) else { return null_mut() };
    let named = constraints::data_names(&labels)
        .filter_map(|name| Some((name.to_owned(), constraints::data(&labels, name)?)));
    Box::into_raw(Box::new(named.collect::<Storage>())).cast()
}

unsafe extern "C" fn look_up_user_data(
    storage: *mut c_void,
    name: *const c_char,
    data: *mut *const c_void,
    size: *mut usize,
) -> bool {
    // SAFETY: CRLib: it came from `load_user_data` and was not destroyed.
    let storage = unsafe { &*storage.cast::<Storage>() };
    // SAFETY: CRLib asks the caller for a string.
    let Some(found) = (unsafe { text(name) }).and_then(|name| storage.get(name)) else {
        return false;
    };
    // SAFETY: CRLib: it may be written to. The bytes live until the storage is destroyed.
    unsafe { data.write(found.as_ptr().cast()) };
    // SAFETY: as above.
    unsafe { size.write(found.len()) };
    true
}

unsafe extern "C" fn destroy_user_data(storage: *mut c_void) {
    if !storage.is_null() {
        // SAFETY: it came from `load_user_data`, and its owner does not use it any more.
        drop(unsafe { Box::from_raw(storage.cast::<Storage>()) });
    }
}

extern "C" fn identity(_: ConfPointer) -> *const c_char {
    const IDENTITY: &str = concat!("tubthumping ", env!("CARGO_PKG_VERSION"), "\0");
    IDENTITY.as_ptr().cast()
}

extern "C" fn description(_: ConfPointer) -> *const c_char {
    c"Tubthumping: an engine that needs no privilege, and maps memory as it is needed.".as_ptr()
}

extern "C" fn configuration_doc(_: ConfPointer) -> *const c_char {
    conf::documentation().as_ptr()
}

extern "C" fn configurable_keys(_: ConfPointer) -> *const *const c_char {
    conf::names()
}

extern "C" fn supported_extensions(_: ConfPointer) -> *const *const Header {
    ALL.0.as_ptr()
}

extern "C" fn configuration_options(_: ConfPointer) -> *const ConfOption {
    conf::options()
}

unsafe extern "C" fn get_status(pointer: ConfPointer) -> c_int {
    // SAFETY: CRLib asks the caller for it.
    let conf = unsafe { conf(pointer) };
    if engine::command(conf).is_some() { READY } else { NEVER }
}
