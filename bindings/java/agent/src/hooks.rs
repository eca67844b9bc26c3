//! Has methods of the JDK tell the shim when they are called.
//!
//! In: the table below. Out: the JVM's own classes, each method with a call in front.
//! Invariant: a JDK whose class looks otherwise keeps it as it is, and says so once on stderr; the
//! event that hands out class files is on for that time only, so that classes go on coming from
//! the archive (CDS).
//! Not here: the change of the bytes (`classfile`), and what the calls lead to (`Hooks.java`).

use crate::classfile::{self, Prologue};
use crate::jvm::{Argument, Env, Jvm, JvmError, JvmtiEnv, Object, checked};
use jni_sys::{JNIEnv, jint, jobject};
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;
use std::sync::{Mutex, PoisonError};

/// JVM: `JVMTI_EVENT_CLASS_FILE_LOAD_HOOK` of `jvmti.h`.
const EVENT_CLASS_FILE_LOAD_HOOK: jint = 54;

/// JVM: `can_retransform_classes`, bit 37 of jvmtiCapabilities.
const CAPABILITY_RETRANSFORM: usize = 37;

/// The class whose methods are called.
const OWNER: &str = "tubthumping/crac/Hooks";

/// A class of `java.base` and what is put into it.
struct Hooked {
    class: &'static CStr,
    prologues: &'static [Prologue<'static>],
}

/// JVM(since 17): same names and descriptors on 25.
const HOOKED: &[Hooked] = &[
    Hooked {
        class: c"sun/security/provider/SecureRandom",
        prologues: &[
            Prologue { method: "init", descriptor: "([B)V", calls: "generatorMade" },
            Prologue { method: "engineSetSeed", descriptor: "([B)V", calls: "generatorSeeded" },
        ],
    },
    Hooked {
        class: c"sun/security/provider/AbstractDrbg",
        prologues: &[
            Prologue {
                method: "configure",
                descriptor: "(Ljava/security/SecureRandomParameters;)V",
                calls: "generatorMade",
            },
            Prologue { method: "engineSetSeed", descriptor: "([B)V", calls: "generatorSeeded" },
        ],
    },
];

/// Where descriptors are opened. The calls are put in where a property asks for it, since each costs
/// an exception. JVM(since 17): same names on 25.
const OPENINGS: &[Hooked] = &[
    // Streams and random access files, once they are open.
    Hooked { class: c"java/io/FileCleanable", prologues: &[opening("register", "(Ljava/io/Fi")] },
    Hooked {
        class: c"sun/nio/ch/FileChannelImpl",
        prologues: &[opening("open", "(Ljava/io/FileDescriptor;Ljava/lang/String;")],
    },
    Hooked { class: c"sun/nio/ch/NioSocketImpl", prologues: &[opening("create", "(Z)V")] },
    Hooked {
        class: c"sun/nio/ch/ServerSocketChannelImpl",
        prologues: &[opening("bind", "(Ljava/net/SocketAddress;I)")],
    },
    Hooked {
        class: c"sun/nio/ch/SocketChannelImpl",
        prologues: &[opening("connect", "(Ljava/net/SocketAddress;)Z")],
    },
    Hooked {
        class: c"sun/nio/ch/DatagramChannelImpl",
        prologues: &[
            opening("bindInternal", "(Ljava/net/SocketAddress;)V"),
            opening("connect", "(Ljava/net/SocketAddress;Z)"),
        ],
    },
];

const fn opening(method: &'static str, descriptor: &'static str) -> Prologue<'static> {
    Prologue { method, descriptor, calls: "descriptorOpened" }
}

/// What the event has to say to [`install`], on the same thread but through the JVM.
static PROBLEMS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Puts the calls in. `unnamed` is the module of the shim.
pub(crate) fn install(jvm: &Jvm, env: Env<'_>, unnamed: &Object<'_>) -> Result<(), JvmError> {
    let openings = if traces_openings(env)? { OPENINGS } else { &[] };
    let hooked = HOOKED.iter().chain(openings);
    let classes = hooked.map(|hooked| find(env, hooked.class)).collect::<Result<Vec<_>, _>>()?;
    let base = env.module(&classes[0])?;
    add_reads(jvm, &base, unnamed)?;
    jvm.with_capability(CAPABILITY_RETRANSFORM, || {
        jvm.set_event(true, EVENT_CLASS_FILE_LOAD_HOOK)?;
        let changed = retransform(jvm, &classes);
        jvm.set_event(false, EVENT_CLASS_FILE_LOAD_HOOK)?;
        changed
    })?;
    let problems = std::mem::take(&mut *PROBLEMS.lock().unwrap_or_else(PoisonError::into_inner));
    if problems.is_empty() { Ok(()) } else { Err(JvmError::new(&problems.join("; "))) }
}

/// Whether CRaC's property asks for where descriptors were opened.
fn traces_openings(env: Env<'_>) -> Result<bool, JvmError> {
    let name = env.string(c"jdk.crac.collect-fd-stacktraces")?;
    let system = env.class(c"java/lang/System")?;
    let no = env.string(c"")?;
    let value = env.call_static(
        &system,
        c"getProperty",
        c"(Ljava/lang/String;Ljava/lang/String;)Ljava/lang/String;",
        &[Argument::Object(&name), Argument::Object(&no)],
    )?;
    Ok(env.text(&value).eq_ignore_ascii_case("true"))
}

/// A class that the boot loader finds, as it is: to start the generators would cost 10 ms.
///
/// JVM(since 17): `ClassLoader.findBootstrapClassOrNull`; same on 25.
fn find<'a>(env: Env<'a>, name: &CStr) -> Result<Object<'a>, JvmError> {
    let loader = env.class(c"java/lang/ClassLoader")?;
    let dotted = name.to_string_lossy().replace('/', ".");
    let dotted = CString::new(dotted).expect("a name without NUL stays one");
    env.call_static(
        &loader,
        c"findBootstrapClassOrNull",
        c"(Ljava/lang/String;)Ljava/lang/Class;",
        &[Argument::Object(&env.string(&dotted)?)],
    )
}

/// Lets a module link against another, which a class in it needs for a call.
fn add_reads(jvm: &Jvm, module: &Object<'_>, other: &Object<'_>) -> Result<(), JvmError> {
    type Function = unsafe extern "C" fn(*mut JvmtiEnv, jobject, jobject) -> jint;
    // SAFETY: slot 94 is AddModuleReads(jvmtiEnv*, jobject module, jobject to_module).
    let add = unsafe { std::mem::transmute::<*const c_void, Function>(jvm.slot(94)) };
    // SAFETY: both are live references of this thread; the JVM checks that they are modules.
    let status = unsafe { add(jvm.jvmti(), module.as_raw(), other.as_raw()) };
    checked("AddModuleReads", status)
}

fn retransform(jvm: &Jvm, classes: &[Object<'_>]) -> Result<(), JvmError> {
    type Function = unsafe extern "C" fn(*mut JvmtiEnv, jint, *const jobject) -> jint;
    // SAFETY: slot 152 is RetransformClasses(jvmtiEnv*, jint, const jclass*).
    let retransform = unsafe { std::mem::transmute::<*const c_void, Function>(jvm.slot(152)) };
    let classes: Vec<jobject> = classes.iter().map(Object::as_raw).collect();
    let count = jint::try_from(classes.len()).expect("the table is short");
    // SAFETY: as many live references as said.
    let status = unsafe { retransform(jvm.jvmti(), count, classes.as_ptr()) };
    checked("RetransformClasses", status)
}

/// The event that hands out the bytes of a class.
///
/// # Safety
/// For the JVM to call.
pub(crate) unsafe extern "C" fn class_file_load_hook(
    _jvmti: *mut JvmtiEnv,
    _env: *mut JNIEnv,
    class_being_redefined: jobject,
    _loader: jobject,
    name: *const c_char,
    _protection_domain: jobject,
    length: jint,
    bytes: *const u8,
    new_length: *mut jint,
    new_bytes: *mut *mut u8,
) {
    if class_being_redefined.is_null() || name.is_null() {
        // A class that is loaded meanwhile.
        return;
    }
    // SAFETY: not null, so that it is a string with an end that lives during the event.
    let name = unsafe { CStr::from_ptr(name) };
    let Some(hooked) = HOOKED.iter().chain(OPENINGS).find(|hooked| hooked.class == name) else {
        return;
    };
    let Ok(size) = usize::try_from(length) else { return };
    // SAFETY: the JVM passes the address of as many bytes as it says, for the time of the event.
    let class = unsafe { std::slice::from_raw_parts(bytes, size) };
    let changed = classfile::with_prologues(class, OWNER, hooked.prologues)
        .map_err(|error| error.to_string())
        .and_then(|changed| hand_over(&changed));
    match changed {
        Ok((address, length)) => {
            // SAFETY: the JVM passes places for both results.
            unsafe { new_length.write(length) };
            // SAFETY: as above.
            unsafe { new_bytes.write(address) };
        }
        Err(problem) => {
            let problem = format!("{}: {problem}", name.to_string_lossy());
            PROBLEMS.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
        }
    }
}

/// A copy in memory of the JVM's, which the JVM frees.
fn hand_over(bytes: &[u8]) -> Result<(*mut u8, jint), String> {
    type Function = unsafe extern "C" fn(*mut JvmtiEnv, i64, *mut *mut u8) -> jint;
    let jvm = Jvm::get().ok_or("the agent is not loaded")?;
    let length = jint::try_from(bytes.len()).map_err(|_| "the class is too long")?;
    // SAFETY: slot 46 is Allocate(jvmtiEnv*, jlong, unsigned char**).
    let allocate = unsafe { std::mem::transmute::<*const c_void, Function>(jvm.slot(46)) };
    let mut address = ptr::null_mut();
    // SAFETY: a place for the result that lives during the call.
    let status = unsafe { allocate(jvm.jvmti(), length.into(), &raw mut address) };
    checked("Allocate", status).map_err(|error| error.to_string())?;
    // SAFETY: Allocate has succeeded, so that there are `length` bytes of ours alone.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), address, bytes.len()) };
    Ok((address, length))
}
