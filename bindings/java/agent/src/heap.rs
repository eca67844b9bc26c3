//! Finds objects of given classes in the heap, as nobody keeps a list of them.
//!
//! In: classes. Out: the living instances of these and of their subclasses.
//! Invariant: no tag is left behind, and a heap is walked only where a descriptor must be told
//! of or closed, and where the agent comes late: never at a checkpoint that goes well without rules.
//! Not here: what the objects are (`Owners.java`).
//!
//! JVM: `IterateThroughHeap` reports instances of one class, or of all whose class has a tag; the
//! callback can give each a tag, by which `GetObjectsWithTags` hands them out.

use crate::jvm::{Env, Jvm, JvmError, JvmtiEnv, Object, checked};
use jni_sys::{jint, jlong, jobject};
use std::ffi::c_void;
use std::ptr;

/// What classes and instances are marked with while they are looked for. Tags belong to our
/// environment of JVMTI alone.
const CLASS: jlong = 1;
const INSTANCE: jlong = 2;

/// JVM: `JVMTI_HEAP_FILTER_CLASS_UNTAGGED` of `jvmti.h`.
const FILTER_CLASS_UNTAGGED: jint = 0x20;

/// JVM: `can_tag_objects`, bit 0 of jvmtiCapabilities.
const CAPABILITY_TAGS: usize = 0;

type Visit = unsafe extern "C" fn(jlong, jlong, *mut jlong, jint, *mut c_void) -> jint;

/// `jvmtiHeapCallbacks`: the first member, and the 15 that nobody here asks for.
#[repr(C)]
struct HeapCallbacks {
    iteration: Visit,
    unused: [*const c_void; 15],
}

/// The JVM hands out an object: not for a class, whose own class is not asked for.
unsafe extern "C" fn visit(
    _class_tag: jlong,
    _size: jlong,
    tag: *mut jlong,
    _length: jint,
    _user: *mut c_void,
) -> jint {
    // SAFETY: the JVM passes a place for the tag, valid during the call.
    unsafe { tag.write(INSTANCE) };
    0
}

/// Instances of `types` and their subclasses, as an array of `Object`.
pub(crate) fn instances<'a>(
    jvm: &Jvm,
    env: Env<'a>,
    types: &[Object<'_>],
) -> Result<Object<'a>, JvmError> {
    let found = jvm.with_capability(CAPABILITY_TAGS, || marked(jvm, env, types))?;
    env.object_array(&found)
}

fn marked<'a>(jvm: &Jvm, env: Env<'a>, types: &[Object<'_>]) -> Result<Vec<Object<'a>>, JvmError> {
    let classes: Vec<Object<'_>> = loaded_classes(jvm, env)?
        .into_iter()
        .filter(|class| types.iter().any(|wanted| env.is_assignable(class, wanted)))
        .collect();
    for class in &classes {
        set_tag(jvm, class.as_raw(), CLASS)?;
    }
    let walked = walk(jvm).and_then(|()| tagged(jvm, env));
    for class in &classes {
        set_tag(jvm, class.as_raw(), 0)?;
    }
    let found = walked?;
    for object in &found {
        set_tag(jvm, object.as_raw(), 0)?;
    }
    Ok(found)
}

fn loaded_classes<'a>(jvm: &Jvm, env: Env<'a>) -> Result<Vec<Object<'a>>, JvmError> {
    type Function = unsafe extern "C" fn(*mut JvmtiEnv, *mut jint, *mut *mut jobject) -> jint;
    // SAFETY: slot 78 is GetLoadedClasses(jvmtiEnv*, jint*, jclass**).
    let get = unsafe { std::mem::transmute::<*const c_void, Function>(jvm.slot(78)) };
    let (mut count, mut classes) = (0, ptr::null_mut());
    // SAFETY: places for both results that live during the call.
    let status = unsafe { get(jvm.jvmti(), &raw mut count, &raw mut classes) };
    checked("GetLoadedClasses", status)?;
    take(jvm, env, count, classes)
}

/// The references of an array that the JVM has allocated, which is given back.
fn take<'a>(
    jvm: &Jvm,
    env: Env<'a>,
    count: jint,
    array: *mut jobject,
) -> Result<Vec<Object<'a>>, JvmError> {
    type Function = unsafe extern "C" fn(*mut JvmtiEnv, *mut u8) -> jint;
    // SAFETY: slot 47 is Deallocate(jvmtiEnv*, unsigned char*).
    let free = unsafe { std::mem::transmute::<*const c_void, Function>(jvm.slot(47)) };
    let count = usize::try_from(count).unwrap_or(0);
    let mut objects = Vec::with_capacity(count);
    for at in 0..count {
        // SAFETY: the function that made the array has said how many references are in it.
        let place = unsafe { array.add(at) };
        // SAFETY: as above.
        let raw = unsafe { place.read() };
        // SAFETY: local references of this thread's, which the JVM has made for the caller.
        objects.extend(unsafe { env.argument(raw) });
    }
    // SAFETY: the array came from the JVM's allocator, and nobody looks at it any more.
    checked("Deallocate", unsafe { free(jvm.jvmti(), array.cast()) })?;
    Ok(objects)
}

fn set_tag(jvm: &Jvm, object: jobject, tag: jlong) -> Result<(), JvmError> {
    type Function = unsafe extern "C" fn(*mut JvmtiEnv, jobject, jlong) -> jint;
    // SAFETY: slot 107 is SetTag(jvmtiEnv*, jobject, jlong).
    let set = unsafe { std::mem::transmute::<*const c_void, Function>(jvm.slot(107)) };
    // SAFETY: a live reference of this thread's.
    checked("SetTag", unsafe { set(jvm.jvmti(), object, tag) })
}

fn walk(jvm: &Jvm) -> Result<(), JvmError> {
    type Function = unsafe extern "C" fn(
        *mut JvmtiEnv,
        jint,
        jobject,
        *const HeapCallbacks,
        *const c_void,
    ) -> jint;
    // SAFETY: slot 116 is IterateThroughHeap(jvmtiEnv*, jint filter, jclass,
    // const jvmtiHeapCallbacks*, const void*).
    let iterate = unsafe { std::mem::transmute::<*const c_void, Function>(jvm.slot(116)) };
    let callbacks = HeapCallbacks { iteration: visit, unused: [ptr::null(); 15] };
    let (jvmti, every) = (jvm.jvmti(), ptr::null_mut());
    // SAFETY: `HeapCallbacks` is as long as jvmtiHeapCallbacks, whose first member is the callback
    // of this function, and it lives during the call; no class means all, as the filter has it.
    let status =
        unsafe { iterate(jvmti, FILTER_CLASS_UNTAGGED, every, &raw const callbacks, ptr::null()) };
    checked("IterateThroughHeap", status)
}

fn tagged<'a>(jvm: &Jvm, env: Env<'a>) -> Result<Vec<Object<'a>>, JvmError> {
    type Function = unsafe extern "C" fn(
        *mut JvmtiEnv,
        jint,
        *const jlong,
        *mut jint,
        *mut *mut jobject,
        *mut *mut jlong,
    ) -> jint;
    // SAFETY: slot 114 is GetObjectsWithTags(jvmtiEnv*, jint, const jlong*, jint*, jobject**,
    // jlong**).
    let get = unsafe { std::mem::transmute::<*const c_void, Function>(jvm.slot(114)) };
    let (mut count, mut objects) = (0, ptr::null_mut());
    let (jvmti, no_tags, wanted) = (jvm.jvmti(), ptr::null_mut(), INSTANCE);
    // SAFETY: one tag, and places for the results; null where the tags are not wanted.
    let status =
        unsafe { get(jvmti, 1, &raw const wanted, &raw mut count, &raw mut objects, no_tags) };
    checked("GetObjectsWithTags", status)?;
    take(jvm, env, count, objects)
}
