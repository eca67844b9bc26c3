//! Our engine as a CRaC JDK loads it: `-XX:CRaCEngine=/…/lib/libtubengine.so`.
//!
//! In: calls of CRLib, version 2, by a JVM. Out: an image of that JVM, or another process in its place.
//! Invariant: nothing here unwinds into C; every table is static.
//! Not here: coordination, which is the JDK's own; what each extension keeps (`constraints`, `conf`).

mod abi;
mod conf;
mod constraints;
mod engine;
mod extensions;

use abi::{Api, ConfPointer, VERSION};
use conf::Conf;
use std::ffi::{CStr, OsStr, c_char, c_int};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr::null;

static API: Api = Api {
    create_conf,
    destroy_conf,
    checkpoint,
    restore,
    can_configure,
    configure,
    get_extension: extensions::get_extension,
};

/// The entry point: the table of functions, or null for a version or a size that is not ours.
#[unsafe(no_mangle)]
pub extern "C" fn crlib_api(version: c_int, size: usize) -> *const Api {
    if version == VERSION && size <= size_of::<Api>() { &raw const API } else { null() }
}

extern "C" fn create_conf() -> ConfPointer {
    Box::into_raw(Box::<Conf>::default()).cast()
}

unsafe extern "C" fn destroy_conf(conf: ConfPointer) {
    if !conf.is_null() {
        // SAFETY: it came from `create_conf`, and its owner does not use it any more.
        drop(unsafe { Box::from_raw(conf.cast::<Conf>()) });
    }
}

/// The configuration behind a pointer.
///
/// # Safety
/// It came from `create_conf`, was not destroyed, and nobody else uses it during the call.
unsafe fn conf<'a>(pointer: ConfPointer) -> &'a mut Conf {
    // SAFETY: asked of the caller.
    unsafe { &mut *pointer.cast() }
}

/// The text behind a pointer; what is no UTF-8 has no name that we know.
///
/// # Safety
/// It leads to a string that ends with NUL and stays as it is while the answer is used.
unsafe fn text<'a>(pointer: *const c_char) -> Option<&'a str> {
    // SAFETY: asked of the caller.
    unsafe { CStr::from_ptr(pointer) }.to_str().ok()
}

/// Bytes behind a pointer.
///
/// # Safety
/// It leads to `size` bytes that stay as they are while the answer is used, unless `size` is 0.
unsafe fn bytes<'a>(pointer: *const u8, size: usize) -> &'a [u8] {
    if size == 0 || pointer.is_null() {
        return &[];
    }
    // SAFETY: not null; the rest is asked of the caller.
    unsafe { std::slice::from_raw_parts(pointer, size) }
}

unsafe extern "C" fn checkpoint(pointer: ConfPointer) -> c_int {
    // SAFETY: CRLib asks the caller for it.
    let conf = unsafe { conf(pointer) };
    engine::checkpoint(conf).map_or_else(|why| failed(&why), |()| 0)
}

unsafe extern "C" fn restore(pointer: ConfPointer) -> c_int {
    // SAFETY: as above.
    let conf = unsafe { conf(pointer) };
    failed(&engine::restore(conf))
}

/// The JVM tells its user only that something failed.
fn failed(why: &str) -> c_int {
    // Not `eprintln!`, which panics where nobody listens.
    let _ = std::io::stderr().write_all(format!("tub engine: {why}\n").as_bytes());
    -1
}

unsafe extern "C" fn can_configure(_: ConfPointer, key: *const c_char) -> bool {
    // SAFETY: CRLib asks the caller for a string.
    conf::is_key(unsafe { CStr::from_ptr(key) })
}

unsafe extern "C" fn configure(
    pointer: ConfPointer,
    key: *const c_char,
    value: *const c_char,
) -> bool {
    // SAFETY: CRLib asks the caller for it.
    let conf = unsafe { conf(pointer) };
    // SAFETY: as above.
    let key = unsafe { text(key) };
    // SAFETY: as above.
    let value = unsafe { text(value) };
    key.zip(value).is_some_and(|(key, value)| conf.configure(key, value))
}

/// Where this library is.
fn library() -> Option<PathBuf> {
    // SAFETY: a struct of pointers, for which zeros are a value.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: dladdr(3) takes any address, and writes to `info`.
    let found = unsafe { libc::dladdr((&raw const API).cast(), &raw mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: dladdr(3): a string of the loader's, which lives as long as the library.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(OsStr::from_bytes(name.to_bytes()).into())
}
