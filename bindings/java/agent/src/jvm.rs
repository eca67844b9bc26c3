//! The border to the JVM: the few functions of JVMTI and JNI that the agent needs.
//!
//! In: raw handles from the JVM. Out: [`Jvm`] and [`Env`], whose methods are safe.
//! Invariant: no exception is pending when a method of [`Env`] returns.
//! Not here: what the calls are for.

mod argument;

pub(crate) use argument::Argument;

use jni_sys::{JNI_OK, JNI_VERSION_1_6, JNIEnv, JavaVM, jint, jobject, jsize, jvalue};
use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

/// JVM(since 9): `JVMTI_VERSION_9` of `jvmti.h`, the first with modules.
const JVMTI_VERSION_9: jint = 0x3009_0000;

/// JVM: `JVMTI_EVENT_VM_INIT` of `jvmti.h`.
const EVENT_VM_INIT: jint = 50;

/// The function table of JVMTI, as far as the last function that we use. Slots are numbered as
/// in the specification ("Function Index"), so that slot n is at index n - 1.
type JvmtiTable = [*const c_void; 152];

/// `jvmtiEnv`: a pointer to a pointer to the table.
pub(crate) type JvmtiEnv = *const JvmtiTable;

/// The first members of `jvmtiEventCallbacks`, in the order of the events' numbers.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Callbacks {
    /// Event 50.
    pub(crate) vm_init: Option<VmInit>,
    /// Events 51 to 53, which nobody here asks for.
    pub(crate) unused: [Option<VmInit>; 3],
    /// Event 54.
    pub(crate) class_file_load_hook: Option<ClassFileLoadHook>,
    /// Events 55 to 81.
    pub(crate) unused_too: [Option<VmInit>; 27],
    /// Event 82.
    pub(crate) collection_finished: Option<CollectionFinished>,
}

/// Called by the JVM when it has collected garbage and all is still stopped.
pub(crate) type CollectionFinished = unsafe extern "C" fn(jvmti: *mut c_void);

/// Called by the JVM when it is ready to run Java code.
pub(crate) type VmInit =
    unsafe extern "C" fn(jvmti: *mut c_void, env: *mut JNIEnv, thread: jobject);

/// Called by the JVM with the bytes of a class that it loads or changes.
pub(crate) type ClassFileLoadHook = unsafe extern "C" fn(
    jvmti: *mut JvmtiEnv,
    env: *mut JNIEnv,
    class_being_redefined: jobject,
    loader: jobject,
    name: *const c_char,
    protection_domain: jobject,
    length: jint,
    bytes: *const u8,
    new_length: *mut jint,
    new_bytes: *mut *mut u8,
);

/// A failure of the JVM, in words.
#[derive(Debug)]
pub(crate) struct JvmError(String);

impl JvmError {
    /// A failure in the words given.
    pub(crate) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl std::fmt::Display for JvmError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for JvmError {}

/// The JVM of this process. Made once, when the agent is loaded.
pub(crate) struct Jvm {
    vm: NonNull<JavaVM>,
    jvmti: NonNull<JvmtiEnv>,
}

// SAFETY: JNI's invocation interface and JVMTI may be used from any thread (JNI specification,
// "The Invocation API"; JVMTI, "Environments"); only a JNIEnv belongs to one thread.
unsafe impl Send for Jvm {}
// SAFETY: as above; neither handle is changed after it was made.
unsafe impl Sync for Jvm {}

static JVM: OnceLock<Jvm> = OnceLock::new();

/// Calls a function of the JNI table of a `*mut JNIEnv`.
macro_rules! jni {
    ($env:expr, $version:ident.$name:ident $(, $argument:expr)*) => {{
        let env: *mut JNIEnv = $env;
        // SAFETY: `env` is the environment of the current thread, which points to a pointer to
        // the function table for as long as the thread is attached.
        let table = unsafe { *env };
        // SAFETY: the table lives as long as the JVM.
        let table = unsafe { &*table };
        // SAFETY: each version of the table is a prefix of the next one, and JVMs from 9 on,
        // which `Jvm::load` has made sure of by asking for JVMTI 9, have all that we name.
        let function = unsafe { table.$version.$name };
        // SAFETY: the arguments are what this function of the JNI specification asks for: live
        // references of this thread, strings with an end, and buffers of the length given.
        unsafe { function(env, $($argument),*) }
    }};
}

impl Jvm {
    /// The JVM, once the agent is loaded.
    pub(crate) fn get() -> Option<&'static Self> {
        JVM.get()
    }

    /// Keeps the handles of the JVM.
    ///
    /// # Safety
    /// `vm` is the pointer that the JVM has passed to `Agent_OnLoad` or `Agent_OnAttach`.
    pub(crate) unsafe fn load(vm: *mut JavaVM) -> Result<&'static Self, JvmError> {
        let vm = NonNull::new(vm).ok_or_else(|| JvmError("no JVM".into()))?;
        let mut jvmti = ptr::null_mut();
        // SAFETY: the caller vouches for `vm`, which points to a pointer to the function table.
        let table = unsafe { *vm.as_ptr() };
        // SAFETY: the table is a constant of the JVM's.
        let table = unsafe { &*table };
        // SAFETY: GetEnv is part of the table since JNI 1.2, older than any JVM with JVMTI.
        let get_env = unsafe { table.v1_2.GetEnv };
        // SAFETY: GetEnv wants the VM, a place for the result, and a version.
        let status = unsafe { get_env(vm.as_ptr(), &raw mut jvmti, JVMTI_VERSION_9) };
        let jvmti = NonNull::new(jvmti.cast());
        match jvmti {
            Some(jvmti) if status == JNI_OK => Ok(JVM.get_or_init(|| Self { vm, jvmti })),
            _ => Err(JvmError(format!("the JVM has no JVMTI 9 (status {status})"))),
        }
    }

    /// The environment of JVMTI.
    pub(crate) fn jvmti(&self) -> *mut JvmtiEnv {
        self.jvmti.as_ptr()
    }

    /// The address in slot `position` of the JVMTI table.
    pub(crate) fn slot(&self, position: usize) -> *const c_void {
        // SAFETY: a jvmtiEnv points to a pointer to its table for as long as the JVM lives; the
        // environment is never disposed of.
        let table = unsafe { *self.jvmti.as_ptr() };
        // SAFETY: `JvmtiTable` ends at slot 152, and the table of JVMTI 9 has 156 slots.
        let table = unsafe { &*table };
        table[position - 1]
    }

    /// Adds a jar to the end of the boot class path.
    pub(crate) fn add_to_boot_class_path(&self, jar: &CStr) -> Result<(), JvmError> {
        type Function = unsafe extern "C" fn(*mut JvmtiEnv, *const c_char) -> jint;
        // SAFETY: slot 149 is AddToBootstrapClassLoaderSearch(jvmtiEnv*, const char*).
        let add = unsafe { std::mem::transmute::<*const c_void, Function>(self.slot(149)) };
        // SAFETY: the environment is live and the path has an end.
        let status = unsafe { add(self.jvmti.as_ptr(), jar.as_ptr()) };
        checked("AddToBootstrapClassLoaderSearch", status)
    }

    /// Adds a jar to the end of the class path, where the system class loader takes it.
    pub(crate) fn add_to_system_class_path(&self, jar: &CStr) -> Result<(), JvmError> {
        type Function = unsafe extern "C" fn(*mut JvmtiEnv, *const c_char) -> jint;
        // SAFETY: slot 151 is AddToSystemClassLoaderSearch(jvmtiEnv*, const char*).
        let add = unsafe { std::mem::transmute::<*const c_void, Function>(self.slot(151)) };
        // SAFETY: the environment is live and the path has an end.
        let status = unsafe { add(self.jvmti.as_ptr(), jar.as_ptr()) };
        checked("AddToSystemClassLoaderSearch", status)
    }

    /// Says which functions events are told to, and asks for the one that the JVM is ready to run
    /// Java code.
    pub(crate) fn on_events(&self, callbacks: Callbacks) -> Result<(), JvmError> {
        type SetCallbacks = unsafe extern "C" fn(*mut JvmtiEnv, *const Callbacks, jint) -> jint;
        // SAFETY: slot 122 is SetEventCallbacks(jvmtiEnv*, const jvmtiEventCallbacks*, jint).
        let set = unsafe { std::mem::transmute::<*const c_void, SetCallbacks>(self.slot(122)) };
        let size = jint::try_from(size_of::<Callbacks>()).expect("33 pointers are small");
        // SAFETY: `Callbacks` has the first members of jvmtiEventCallbacks, and the size says that
        // the struct ends after them; the JVM copies it during the call.
        let status = unsafe { set(self.jvmti.as_ptr(), &raw const callbacks, size) };
        checked("SetEventCallbacks", status)?;
        self.set_event(true, EVENT_VM_INIT)
    }

    /// Turns an event on or off, for all threads.
    pub(crate) fn set_event(&self, on: bool, event: jint) -> Result<(), JvmError> {
        // Variadic in the specification, for arguments that no event has.
        type SetMode = unsafe extern "C" fn(*mut JvmtiEnv, jint, jint, jobject, ...) -> jint;
        // SAFETY: slot 2 is SetEventNotificationMode(jvmtiEnv*, mode, event, jthread, ...).
        let set = unsafe { std::mem::transmute::<*const c_void, SetMode>(self.slot(2)) };
        let everyone = ptr::null_mut();
        // SAFETY: mode 1 is JVMTI_ENABLE, 0 JVMTI_DISABLE; a null thread means all threads.
        let status = unsafe { set(self.jvmti.as_ptr(), jint::from(on), event, everyone) };
        checked("SetEventNotificationMode", status)
    }

    /// Does something for which it takes a capability, by its bit in jvmtiCapabilities, which is given back
    /// afterwards: as long as anybody may change classes, the compilers keep books of it for each method.
    ///
    /// JVM(since 17): HotSpot lets those that we need be asked for at any time, and counts anew what all agents
    /// have when one is given back (prims/jvmtiManageCapabilities.cpp, `update`); same on 25.
    pub(crate) fn with_capability<T>(
        &self,
        bit: usize,
        work: impl FnOnce() -> Result<T, JvmError>,
    ) -> Result<T, JvmError> {
        self.change_capability("AddCapabilities", 142, bit)?;
        let done = work();
        let given_back = self.change_capability("RelinquishCapabilities", 143, bit);
        let done = done?;
        given_back.map(|()| done)
    }

    fn change_capability(&self, name: &str, slot: usize, bit: usize) -> Result<(), JvmError> {
        type Function = unsafe extern "C" fn(*mut JvmtiEnv, *const [u32; 4]) -> jint;
        // SAFETY: both slots are functions of (jvmtiEnv*, const jvmtiCapabilities*).
        let change = unsafe { std::mem::transmute::<*const c_void, Function>(self.slot(slot)) };
        let mut capabilities = [0; 4];
        capabilities[bit / 32] = 1 << (bit % 32);
        // SAFETY: the struct has 128 bits and lives during the call.
        let status = unsafe { change(self.jvmti.as_ptr(), &raw const capabilities) };
        checked(name, status)
    }

    /// Collects garbage, whatever options say about `System.gc()`.
    pub(crate) fn collect_garbage(&self) -> Result<(), JvmError> {
        type Function = unsafe extern "C" fn(*mut JvmtiEnv) -> jint;
        // SAFETY: slot 108 is ForceGarbageCollection(jvmtiEnv*).
        let force = unsafe { std::mem::transmute::<*const c_void, Function>(self.slot(108)) };
        // SAFETY: the environment is live, and this thread one that the JVM knows.
        let status = unsafe { force(self.jvmti.as_ptr()) };
        checked("ForceGarbageCollection", status)
    }

    /// Exports a package of `module` to `reader`, at compile and run time.
    pub(crate) fn export(
        &self,
        module: &Object<'_>,
        package: &CStr,
        reader: &Object<'_>,
    ) -> Result<(), JvmError> {
        self.add_to_module("AddModuleExports", 95, module, package, reader)
    }

    /// Opens a package of `module` to reflection by `reader`.
    pub(crate) fn open(
        &self,
        module: &Object<'_>,
        package: &CStr,
        reader: &Object<'_>,
    ) -> Result<(), JvmError> {
        self.add_to_module("AddModuleOpens", 96, module, package, reader)
    }

    fn add_to_module(
        &self,
        name: &str,
        position: usize,
        module: &Object<'_>,
        package: &CStr,
        reader: &Object<'_>,
    ) -> Result<(), JvmError> {
        type Function =
            unsafe extern "C" fn(*mut JvmtiEnv, jobject, *const c_char, jobject) -> jint;
        // SAFETY: slots 95 and 96 are AddModuleExports and AddModuleOpens, both
        // (jvmtiEnv*, jobject module, const char* package, jobject to_module).
        let add = unsafe { std::mem::transmute::<*const c_void, Function>(self.slot(position)) };
        // SAFETY: both objects are live references of this thread; the JVM checks that they are
        // modules.
        let status = unsafe { add(self.jvmti.as_ptr(), module.raw, package.as_ptr(), reader.raw) };
        checked(name, status)
    }

    /// Runs `body` with this thread known to the JVM, as a daemon: a conversation that waits must
    /// not keep the JVM from exiting.
    pub(crate) fn attached<R>(
        &self,
        body: impl FnOnce(Env<'_>) -> Result<R, JvmError>,
    ) -> Result<R, JvmError> {
        #[repr(C)]
        struct Arguments {
            version: jint,
            name: *const c_char,
            group: jobject,
        }
        let mut arguments = Arguments {
            version: JNI_VERSION_1_6,
            name: c"tub control".as_ptr(),
            group: ptr::null_mut(),
        };
        let mut env = ptr::null_mut();
        // SAFETY: the VM is live for as long as the process, and points to its table.
        let table = unsafe { *self.vm.as_ptr() };
        // SAFETY: the table is a constant of the JVM's.
        let table = unsafe { &*table };
        // SAFETY: in the table since JNI 1.4, older than any JVM with JVMTI.
        let attach = unsafe { table.v1_4.AttachCurrentThreadAsDaemon };
        // SAFETY: in the table since JNI 1.1.
        let detach = unsafe { table.v1_4.DetachCurrentThread };
        let arguments = (&raw mut arguments).cast();
        // SAFETY: a place for the environment, and JavaVMAttachArgs as `jni.h` lays them out.
        let status = unsafe { attach(self.vm.as_ptr(), &raw mut env, arguments) };
        let Some(env) = NonNull::new(env.cast::<JNIEnv>()).filter(|_| status == JNI_OK) else {
            return Err(JvmError(format!("the thread cannot be attached (status {status})")));
        };
        let result = body(Env { raw: env.as_ptr(), _frame: PhantomData });
        // SAFETY: attached above, and no Java frame of this thread is left.
        unsafe { detach(self.vm.as_ptr()) };
        result
    }
}

/// The status of a function of JVMTI as a result.
pub(crate) fn checked(function: &str, status: jint) -> Result<(), JvmError> {
    if status == 0 { Ok(()) } else { Err(JvmError(format!("{function}: JVMTI error {status}"))) }
}

/// JNI, on the thread that it belongs to.
#[derive(Clone, Copy)]
pub(crate) struct Env<'frame> {
    raw: *mut JNIEnv,
    _frame: PhantomData<&'frame ()>,
}

/// A local reference, which is never null.
pub(crate) struct Object<'frame> {
    raw: jobject,
    _frame: PhantomData<&'frame ()>,
}

impl Object<'_> {
    /// The reference for Java to take over.
    pub(crate) fn into_raw(self) -> jobject {
        self.raw
    }

    /// The reference, for a call during which this object lives.
    pub(crate) fn as_raw(&self) -> jobject {
        self.raw
    }
}

impl<'frame> Env<'frame> {
    /// The environment of the current thread.
    ///
    /// # Safety
    /// `raw` is what the JVM has passed to the native function that runs, and `'frame` does not
    /// outlive that call.
    pub(crate) unsafe fn from_raw(raw: *mut JNIEnv) -> Self {
        Self { raw, _frame: PhantomData }
    }

    /// A reference that the JVM has passed to the native function that runs.
    ///
    /// # Safety
    /// `raw` is such a reference, or null.
    pub(crate) unsafe fn argument(self, raw: jobject) -> Option<Object<'frame>> {
        self.object(raw)
    }

    fn object(self, raw: jobject) -> Option<Object<'frame>> {
        (!raw.is_null()).then_some(Object { raw, _frame: PhantomData })
    }

    /// What a call has returned, unless it has thrown.
    fn outcome(self, what: &str, raw: jobject) -> Result<Object<'frame>, JvmError> {
        if jni!(self.raw, v1_2.ExceptionCheck) {
            // Kept out of the application's stderr: the message says what it was for.
            jni!(self.raw, v1_2.ExceptionClear);
            return Err(JvmError(format!("{what}: Java threw an exception")));
        }
        self.object(raw).ok_or_else(|| JvmError(format!("{what}: nothing")))
    }

    fn failed(self, what: &str) -> JvmError {
        jni!(self.raw, v1_2.ExceptionClear);
        JvmError(format!("{what}: not found"))
    }

    /// A class that the boot loader finds.
    pub(crate) fn class(self, name: &CStr) -> Result<Object<'frame>, JvmError> {
        let class = jni!(self.raw, v1_2.FindClass, name.as_ptr());
        self.outcome(&name.to_string_lossy(), class)
    }

    /// Defines a class of the boot loader, as if it had found these bytes.
    pub(crate) fn define_in_boot_loader(self, name: &CStr, bytes: &[u8]) -> Result<(), JvmError> {
        let what = name.to_string_lossy();
        let length = jsize::try_from(bytes.len())
            .map_err(|_| JvmError(format!("{what}: {} bytes are too many", bytes.len())))?;
        let (no_loader, source) = (ptr::null_mut(), bytes.as_ptr().cast());
        let class = jni!(self.raw, v1_2.DefineClass, name.as_ptr(), no_loader, source, length);
        let class = self.outcome(&what, class)?;
        // There are many, and one place to keep them until the event is over.
        jni!(self.raw, v1_2.DeleteLocalRef, class.raw);
        Ok(())
    }

    /// The module of a class.
    pub(crate) fn module(self, class: &Object<'_>) -> Result<Object<'frame>, JvmError> {
        self.outcome("module", jni!(self.raw, v9.GetModule, class.raw))
    }

    /// Calls a static method that returns an object. JNI knows no access checks.
    pub(crate) fn call_static(
        self,
        class: &Object<'_>,
        name: &CStr,
        signature: &CStr,
        arguments: &[Argument<'_>],
    ) -> Result<Object<'frame>, JvmError> {
        let what = name.to_string_lossy();
        let method =
            jni!(self.raw, v1_2.GetStaticMethodID, class.raw, name.as_ptr(), signature.as_ptr());
        if method.is_null() {
            return Err(self.failed(&what));
        }
        let values: Vec<jvalue> = arguments.iter().map(Argument::value).collect();
        let result =
            jni!(self.raw, v1_2.CallStaticObjectMethodA, class.raw, method, values.as_ptr());
        self.outcome(&what, result)
    }

    /// Calls a static method that returns nothing.
    pub(crate) fn call_static_void(
        self,
        class: &Object<'_>,
        name: &CStr,
        signature: &CStr,
        arguments: &[Argument<'_>],
    ) -> Result<(), JvmError> {
        let what = name.to_string_lossy();
        let method =
            jni!(self.raw, v1_2.GetStaticMethodID, class.raw, name.as_ptr(), signature.as_ptr());
        if method.is_null() {
            return Err(self.failed(&what));
        }
        let values: Vec<jvalue> = arguments.iter().map(Argument::value).collect();
        jni!(self.raw, v1_2.CallStaticVoidMethodA, class.raw, method, values.as_ptr());
        self.outcome(&what, class.raw).map(drop)
    }

    /// Calls a method that returns nothing.
    pub(crate) fn call_void(
        self,
        object: &Object<'_>,
        class: &Object<'_>,
        name: &CStr,
        signature: &CStr,
        arguments: &[Argument<'_>],
    ) -> Result<(), JvmError> {
        let what = name.to_string_lossy();
        let method = jni!(self.raw, v1_2.GetMethodID, class.raw, name.as_ptr(), signature.as_ptr());
        if method.is_null() {
            return Err(self.failed(&what));
        }
        let values: Vec<jvalue> = arguments.iter().map(Argument::value).collect();
        jni!(self.raw, v1_2.CallVoidMethodA, object.raw, method, values.as_ptr());
        self.outcome(&what, object.raw).map(drop)
    }

    /// Makes an object.
    pub(crate) fn new_object(
        self,
        class: &Object<'_>,
        signature: &CStr,
        arguments: &[Argument<'_>],
    ) -> Result<Object<'frame>, JvmError> {
        let name = c"<init>".as_ptr();
        let constructor = jni!(self.raw, v1_2.GetMethodID, class.raw, name, signature.as_ptr());
        if constructor.is_null() {
            return Err(self.failed("constructor"));
        }
        let values: Vec<jvalue> = arguments.iter().map(Argument::value).collect();
        let object = jni!(self.raw, v1_2.NewObjectA, class.raw, constructor, values.as_ptr());
        self.outcome("constructor", object)
    }

    /// A field that holds an object; `None` where it is null.
    pub(crate) fn field(
        self,
        object: &Object<'_>,
        class: &Object<'_>,
        name: &CStr,
        signature: &CStr,
    ) -> Result<Option<Object<'frame>>, JvmError> {
        let field = jni!(self.raw, v1_2.GetFieldID, class.raw, name.as_ptr(), signature.as_ptr());
        if field.is_null() {
            return Err(self.failed(&name.to_string_lossy()));
        }
        Ok(self.object(jni!(self.raw, v1_2.GetObjectField, object.raw, field)))
    }

    /// A field that is a `boolean`.
    pub(crate) fn boolean_field(
        self,
        object: &Object<'_>,
        class: &Object<'_>,
        name: &CStr,
    ) -> Result<bool, JvmError> {
        let signature = c"Z".as_ptr();
        let field = jni!(self.raw, v1_2.GetFieldID, class.raw, name.as_ptr(), signature);
        if field.is_null() {
            return Err(self.failed(&name.to_string_lossy()));
        }
        Ok(jni!(self.raw, v1_2.GetBooleanField, object.raw, field))
    }

    /// The class of an object.
    pub(crate) fn class_of(self, object: &Object<'_>) -> Result<Object<'frame>, JvmError> {
        self.outcome("class", jni!(self.raw, v1_2.GetObjectClass, object.raw))
    }

    /// Enters or leaves the monitor of an object, as `synchronized` does.
    pub(crate) fn monitor(self, object: &Object<'_>, enter: bool) -> Result<(), JvmError> {
        let status = if enter {
            jni!(self.raw, v1_2.MonitorEnter, object.raw)
        } else {
            jni!(self.raw, v1_2.MonitorExit, object.raw)
        };
        self.outcome("monitor", object.raw)?;
        if status == JNI_OK { Ok(()) } else { Err(JvmError(format!("monitor: status {status}"))) }
    }

    /// A string, from ASCII or what Java writes like it ("modified UTF-8").
    pub(crate) fn string(self, text: &CStr) -> Result<Object<'frame>, JvmError> {
        self.outcome("string", jni!(self.raw, v1_2.NewStringUTF, text.as_ptr()))
    }

    /// The text of an object that is a string, as far as it is ASCII.
    pub(crate) fn text(self, string: &Object<'_>) -> String {
        let characters = jni!(self.raw, v1_2.GetStringLength, string.raw);
        let length = jni!(self.raw, v1_2.GetStringUTFLength, string.raw);
        // GetStringUTFRegion ends what it writes with NUL.
        let mut bytes = vec![0_u8; usize::try_from(length).unwrap_or(0) + 1];
        let target = bytes.as_mut_ptr().cast();
        jni!(self.raw, v1_2.GetStringUTFRegion, string.raw, 0, characters, target);
        bytes.pop();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// An array of bytes.
    pub(crate) fn byte_array(self, bytes: &[u8]) -> Result<Object<'frame>, JvmError> {
        let length = jsize::try_from(bytes.len())
            .map_err(|_| JvmError(format!("byte array: {} bytes are too many", bytes.len())))?;
        let array = self.outcome("byte array", jni!(self.raw, v1_2.NewByteArray, length))?;
        let source = bytes.as_ptr().cast();
        jni!(self.raw, v1_2.SetByteArrayRegion, array.raw, 0, length, source);
        Ok(array)
    }

    /// Whether a class is another one, or a subclass of it.
    pub(crate) fn is_assignable(self, class: &Object<'_>, to: &Object<'_>) -> bool {
        jni!(self.raw, v1_2.IsAssignableFrom, class.raw, to.raw)
    }

    /// An array of `Object` with these in it.
    pub(crate) fn object_array(self, objects: &[Object<'_>]) -> Result<Object<'frame>, JvmError> {
        let length = jsize::try_from(objects.len())
            .map_err(|_| JvmError(format!("array: {} objects are too many", objects.len())))?;
        let class = self.class(c"java/lang/Object")?;
        let none = ptr::null_mut();
        let array = jni!(self.raw, v1_2.NewObjectArray, length, class.raw, none);
        let array = self.outcome("array", array)?;
        for (at, object) in (0..length).zip(objects) {
            jni!(self.raw, v1_2.SetObjectArrayElement, array.raw, at, object.raw);
        }
        Ok(array)
    }

    /// What is in an object that is an array of objects, but for nulls.
    pub(crate) fn elements(self, array: &Object<'_>) -> Vec<Object<'frame>> {
        let length = jni!(self.raw, v1_2.GetArrayLength, array.raw);
        (0..length)
            .filter_map(|at| self.object(jni!(self.raw, v1_2.GetObjectArrayElement, array.raw, at)))
            .collect()
    }

    /// The content of an object that is an array of bytes.
    pub(crate) fn bytes(self, array: &Object<'_>) -> Vec<u8> {
        let length = jni!(self.raw, v1_2.GetArrayLength, array.raw);
        let mut bytes = vec![0_u8; usize::try_from(length).unwrap_or(0)];
        let target = bytes.as_mut_ptr().cast();
        jni!(self.raw, v1_2.GetByteArrayRegion, array.raw, 0, length, target);
        bytes
    }
}
