//! What Java calls: the native methods of `tubthumping.crac.Agent`.
//!
//! In: calls of the shim. Out: lists of strings.
//! Invariant: nothing is thrown; what fails is said in the answer.
//! Not here: decisions. The JVM finds these functions by their names in the agent's library.

use crate::jvm::{Env, Jvm, Object};
use crate::strings::pack;
use crate::{DESK, attach, compilers, descriptors, free_space, heap};
use jni_sys::{JNIEnv, jboolean, jint, jlong, jobject};
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::time::Duration;
use tub_control::OpenResourceKind;
use tub_control::mailbox::Letter;
use tubthumping_app::descriptor::{self, FileState};
use tubthumping_app::engine;

/// `Agent.awaitVerdict()`.
#[unsafe(no_mangle)]
extern "system" fn Java_tubthumping_crac_Agent_awaitVerdict(
    env: *mut JNIEnv,
    _class: jobject,
) -> jobject {
    // A copy may have another one.
    let pid = std::process::id();
    let letter = DESK.await_letter();
    if let Letter::Restored { environment, .. } = &letter {
        attach::forget_original(pid);
        for variable in environment {
            set_variable(variable);
        }
        reread_time_zone();
    }
    answer(env, &pack(verdict(letter)))
}

/// How long a request waits for the control socket that an image before it has closed.
const DOOR_PATIENCE: Duration = Duration::from_secs(10);

/// `Agent.startEngine()`.
#[unsafe(no_mangle)]
extern "system" fn Java_tubthumping_crac_Agent_startEngine(
    env: *mut JNIEnv,
    _class: jobject,
) -> jobject {
    DESK.await_socket(DOOR_PATIENCE);
    let strings = match engine::start() {
        None => vec![b"unconfigured".to_vec()],
        Some(Err(message)) => vec![b"failed".to_vec(), message.into_bytes()],
        Some(Ok(started)) => vec![
            b"started".to_vec(),
            started.pid.to_string().into_bytes(),
            started.messages.into_os_string().as_encoded_bytes().to_vec(),
        ],
    };
    answer(env, &pack(strings))
}

/// `Agent.trimNativeHeap()`.
#[unsafe(no_mangle)]
extern "system" fn Java_tubthumping_crac_Agent_trimNativeHeap(_env: *mut JNIEnv, _class: jobject) {
    // SAFETY: malloc_trim(3) gives free memory back and may be called from any thread.
    unsafe { libc::malloc_trim(0) };
}

/// `Agent.collect(byte[])`.
#[unsafe(no_mangle)]
extern "system" fn Java_tubthumping_crac_Agent_collect(
    env: *mut JNIEnv,
    _class: jobject,
    collector: jobject,
) -> jboolean {
    // SAFETY: the JVM has passed the environment of this thread to this native method.
    let env = unsafe { Env::from_raw(env) };
    // SAFETY: the JVM has passed the argument to this native method.
    let collector = unsafe { env.argument(collector) };
    let (Some(jvm), Some(collector)) = (Jvm::get(), collector) else { return false };
    free_space::collect(jvm, &env.bytes(&collector)).unwrap_or(false)
}

/// `Agent.awaitCompilers(long)`.
#[unsafe(no_mangle)]
extern "system" fn Java_tubthumping_crac_Agent_awaitCompilers(
    _env: *mut JNIEnv,
    _class: jobject,
    limit_ms: jlong,
) -> jboolean {
    compilers::rest(Duration::from_millis(u64::try_from(limit_ms).unwrap_or(0)))
}

/// `Agent.openPackage(Module, byte[], Module)`.
#[unsafe(no_mangle)]
extern "system" fn Java_tubthumping_crac_Agent_openPackage(
    env: *mut JNIEnv,
    _class: jobject,
    module: jobject,
    name: jobject,
    reader: jobject,
) -> jboolean {
    // SAFETY: the JVM has passed the environment of this thread to this native method.
    let env = unsafe { Env::from_raw(env) };
    // SAFETY: the JVM has passed the argument to this native method.
    let module = unsafe { env.argument(module) };
    // SAFETY: as above.
    let name = unsafe { env.argument(name) };
    // SAFETY: as above.
    let reader = unsafe { env.argument(reader) };
    let (Some(jvm), Some(module), Some(name), Some(reader)) = (Jvm::get(), module, name, reader)
    else {
        return false;
    };
    let Ok(name) = CString::new(env.bytes(&name)) else { return false };
    let opened =
        jvm.export(&module, &name, &reader).and_then(|()| jvm.open(&module, &name, &reader));
    opened.is_ok()
}

/// `Agent.instances(Class[])`; null where that fails.
#[unsafe(no_mangle)]
extern "system" fn Java_tubthumping_crac_Agent_instances(
    env: *mut JNIEnv,
    _class: jobject,
    types: jobject,
) -> jobject {
    // SAFETY: the JVM has passed the environment of this thread to this native method.
    let env = unsafe { Env::from_raw(env) };
    // SAFETY: the JVM has passed the argument to this native method.
    let types = unsafe { env.argument(types) };
    let (Some(jvm), Some(types)) = (Jvm::get(), types) else { return ptr::null_mut() };
    let found = heap::instances(jvm, env, &env.elements(&types));
    found.map_or(ptr::null_mut(), Object::into_raw)
}

/// `Agent.hasState(Object, boolean)`.
///
/// JVM(since 17): the fields that `SecureGenerators.Members` has; same on 25.
#[unsafe(no_mangle)]
extern "system" fn Java_tubthumping_crac_Agent_hasState(
    env: *mut JNIEnv,
    _class: jobject,
    generator: jobject,
    is_sha1: jboolean,
) -> jboolean {
    // SAFETY: the JVM has passed the environment of this thread to this native method.
    let env = unsafe { Env::from_raw(env) };
    // SAFETY: the JVM has passed the argument to this native method.
    let Some(generator) = (unsafe { env.argument(generator) }) else { return true };
    let has_state = env.class_of(&generator).and_then(|class| {
        if is_sha1 {
            env.field(&generator, &class, c"state", c"[B").map(|state| state.is_some())
        } else {
            env.boolean_field(&generator, &class, c"instantiated")
        }
    });
    has_state.unwrap_or(true)
}

/// `Agent.openDescriptors()`.
#[unsafe(no_mangle)]
extern "system" fn Java_tubthumping_crac_Agent_openDescriptors(
    env: *mut JNIEnv,
    _class: jobject,
) -> jobject {
    answer(env, &pack(descriptors::open()))
}

/// `Agent.close(int)`.
#[unsafe(no_mangle)]
extern "system" fn Java_tubthumping_crac_Agent_close(
    _env: *mut JNIEnv,
    _class: jobject,
    number: jint,
) {
    descriptor::close(number);
}

/// `Agent.park(int)`.
#[unsafe(no_mangle)]
extern "system" fn Java_tubthumping_crac_Agent_park(
    env: *mut JNIEnv,
    _class: jobject,
    number: jint,
) -> jobject {
    let strings = match descriptor::park(number) {
        Ok(FileState { flags, offset }) => {
            vec!["parked".to_owned(), flags.to_string(), offset.to_string()]
        }
        Err(error) => vec!["failed".to_owned(), error.to_string()],
    };
    answer(env, &pack(strings))
}

/// `Agent.reopen(int, byte[], int, long)`.
#[unsafe(no_mangle)]
extern "system" fn Java_tubthumping_crac_Agent_reopen(
    env: *mut JNIEnv,
    _class: jobject,
    number: jint,
    path: jobject,
    flags: jint,
    offset: jlong,
) -> jobject {
    // SAFETY: the JVM has passed the environment of this thread to this native method.
    let border = unsafe { Env::from_raw(env) };
    // SAFETY: the JVM has passed the argument to this native method.
    let path = unsafe { border.argument(path) }.map(|path| border.bytes(&path));
    let state = FileState { flags, offset };
    let reopened = descriptor::reopen(number, &path.unwrap_or_default(), state);
    answer(env, &pack(reopened.err().map(|error| error.to_string())))
}

/// `Agent.lock(Object)`.
#[unsafe(no_mangle)]
extern "system" fn Java_tubthumping_crac_Agent_lock(
    env: *mut JNIEnv,
    _class: jobject,
    object: jobject,
) -> jboolean {
    monitor(env, object, true)
}

/// `Agent.unlock(Object)`.
#[unsafe(no_mangle)]
extern "system" fn Java_tubthumping_crac_Agent_unlock(
    env: *mut JNIEnv,
    _class: jobject,
    object: jobject,
) -> jboolean {
    monitor(env, object, false)
}

fn monitor(env: *mut JNIEnv, object: jobject, enter: bool) -> jboolean {
    // SAFETY: the JVM has passed the environment of this thread to the native method that calls.
    let env = unsafe { Env::from_raw(env) };
    // SAFETY: the JVM has passed the argument to the native method that calls.
    let object = unsafe { env.argument(object) };
    object.is_some_and(|object| env.monitor(&object, enter).is_ok())
}

fn answer(env: *mut JNIEnv, bytes: &[u8]) -> jobject {
    // SAFETY: the JVM has passed the environment of this thread to the native method that calls.
    let env = unsafe { Env::from_raw(env) };
    env.byte_array(bytes).map_or(ptr::null_mut(), |array| array.into_raw())
}

/// The letter in the words of `Agent.awaitVerdict`.
fn verdict(letter: Letter) -> Vec<Vec<u8>> {
    let mut strings = Vec::new();
    let mut add = |text: &str| strings.push(text.as_bytes().to_vec());
    match letter {
        Letter::Resumed(resumed) => {
            add("resumed");
            add(&resumed.image);
            add(&resumed.generation.to_string());
        }
        Letter::Restored { restored, environment, arguments, .. } => {
            add("restored");
            add(&restored.instance);
            add(&restored.generation.to_string());
            add(&restored.seed);
            add(&restored.restore_unix_ms.to_string());
            add(&arguments.len().to_string());
            strings.extend(arguments);
            strings.extend(environment);
        }
        Letter::Failed(failed) => {
            add("failed");
            add(&failed.message);
            for failure in failed.failures {
                add(match failure.kind {
                    OpenResourceKind::File => "file",
                    OpenResourceKind::Socket => "socket",
                    OpenResourceKind::Resource => "resource",
                });
                add(&failure.fd.map(|fd| fd.to_string()).unwrap_or_default());
                add(&failure.detail);
            }
        }
        Letter::Waiting => add("failed"),
    }
    strings
}

/// Has the C library look at `TZ` again, for native code.
fn reread_time_zone() {
    unsafe extern "C" {
        fn tzset();
    }
    // SAFETY: tzset(3) reads the environment, takes a lock of its own and may be called from any
    // thread. As for `set_variable`, a native setenv(3) meanwhile cannot be ruled out.
    unsafe { tzset() };
}

/// Sets one variable of the native environment, for the children of this copy.
fn set_variable(variable: &[u8]) {
    let equals = variable.iter().skip(1).position(|&byte| byte == b'=').map(|at| at + 1);
    let Some(equals) = equals else { return };
    let (name, value) = (&variable[..equals], &variable[equals + 1..]);
    // Windows has had names like `=C:`; no call takes them, and `set_var` panics on them.
    if name.contains(&b'=') || name.contains(&0) || value.contains(&0) {
        return;
    }
    // SAFETY: setenv(3) races with a getenv(3) of other native code in the meantime, which this
    // cannot rule out: the threads of the application run. A CRaC JDK does the same at the same
    // moment. Java code is not concerned, since it reads a copy of its own, and Rust code takes
    // the lock that `set_var` holds.
    unsafe { std::env::set_var(OsStr::from_bytes(name), OsStr::from_bytes(value)) };
}
