//! The agent's start and end: what the JVM calls.
//!
//! In: `Agent_OnLoad`, `Agent_OnAttach`, `Agent_OnUnload`, and the event that the JVM is ready.
//! Out: the shim on the boot class path, its packages readable, the control thread running.
//! Invariant: whatever fails here is told on stderr once, and the application starts all the same.
//! Not here: anything that happens after the start.

use crate::application::{self, JavaApplication};
use crate::jvm::{Argument, Callbacks, Env, Jvm, JvmError, Object};
use crate::{DESK, archive, descriptors, direct, facade, free_space, hooks, shim};
use jni_sys::{JNI_ERR, JNI_OK, JNIEnv, JavaVM, jint, jobject};
use std::ffi::{CStr, c_char, c_void};
use std::io::{self, Write};
use std::thread;

/// Called by the JVM for `-agentpath`, before there is any Java.
///
/// # Safety
/// For the JVM to call, with its `JavaVM`.
#[unsafe(no_mangle)]
unsafe extern "C" fn Agent_OnLoad(
    vm: *mut JavaVM,
    _options: *const c_char,
    _reserved: *mut c_void,
) -> jint {
    if Jvm::get().is_some() {
        // Named twice: on the command line, and in JAVA_TOOL_OPTIONS.
        return JNI_OK;
    }
    descriptors::remember_inherited();
    // A JVM whose options are not understood has larger images, and nothing else.
    let _ = archive::keep_in_place();
    // SAFETY: the JVM passes its own handle.
    let loaded = unsafe { Jvm::load(vm) };
    report(loaded.and_then(|jvm| {
        if !direct::may_use_an_archive() {
            jvm.add_to_boot_class_path(shim_path()?)?;
        }
        jvm.on_events(callbacks(true))
    }));
    JNI_OK
}

/// Called by the JVM for `jcmd PID JVMTI.agent_load` and `tub checkpoint PID`, on a thread that runs
/// Java. `open=restore` is the one option there is.
///
/// # Safety
/// For the JVM to call, with its `JavaVM`, and options that are null or a string.
#[unsafe(no_mangle)]
unsafe extern "C" fn Agent_OnAttach(
    vm: *mut JavaVM,
    options: *const c_char,
    _reserved: *mut c_void,
) -> jint {
    if Jvm::get().is_some() {
        // Loaded already, and the JVM calls again.
        return JNI_OK;
    }
    // SAFETY: the JVM passes a string with an end, if any.
    let options = (!options.is_null()).then(|| unsafe { CStr::from_ptr(options) });
    application::came_late(options == Some(c"open=restore"));
    // SAFETY: the JVM passes its own handle.
    let loaded = unsafe { Jvm::load(vm) };
    let ready = loaded.and_then(|jvm| {
        jvm.on_events(callbacks(false))?;
        // On a thread of its own, since attaching and detaching this one would end it for Java.
        let ready = thread::spawn(|| {
            // A longer boot class path would end the use of archives for all other classes.
            jvm.attached(|env| become_ready(jvm, env, true))
        });
        ready.join().unwrap_or_else(|_| Err(JvmError::new("the start panicked")))
    });
    let status = if ready.is_ok() { JNI_OK } else { JNI_ERR };
    report(ready);
    status
}

/// Called by the JVM at its end.
///
/// # Safety
/// For the JVM to call.
#[unsafe(no_mangle)]
unsafe extern "C" fn Agent_OnUnload(_vm: *mut JavaVM) {
    DESK.remove_socket();
}

fn callbacks(before_start: bool) -> Callbacks {
    Callbacks {
        vm_init: before_start.then_some(vm_init),
        class_file_load_hook: Some(hooks::class_file_load_hook),
        collection_finished: Some(free_space::collection_finished),
        ..Callbacks::default()
    }
}

unsafe extern "C" fn vm_init(_jvmti: *mut c_void, env: *mut JNIEnv, _thread: jobject) {
    let Some(jvm) = Jvm::get() else { return };
    // SAFETY: the JVM passes the environment of this thread, valid during the event.
    let env = unsafe { Env::from_raw(env) };
    report(become_ready(jvm, env, direct::may_use_an_archive()));
}

/// Once there is Java. With `directly` the shim is not on the boot class path.
fn become_ready(jvm: &'static Jvm, env: Env<'_>, directly: bool) -> Result<(), JvmError> {
    let boot_loader = env.class(c"jdk/internal/loader/BootLoader")?;
    let unnamed =
        env.call_static(&boot_loader, c"getUnnamedModule", c"()Ljava/lang/Module;", &[])?;
    make_resources_visible(env)?;
    opt_in(env)?;
    export_management(jvm, env, &unnamed)?;
    if directly {
        // After that, since one of them extends a class of the JDK's management.
        direct::define_all(env, shim::JAR)?;
    }
    hooks::install(jvm, env, &unnamed)?;
    facade::offer(jvm, env)?;
    thread::Builder::new()
        .name("tub control".into())
        .spawn(|| {
            let directory = tub_control::default_directory();
            let Err(error) = tub_control::serve(&directory, &JavaApplication);
            report(Err(JvmError::new(&describe(&error))));
        })
        .map(drop)
        .map_err(|error| JvmError::new(&format!("the control thread cannot be started: {error}")))
}

/// Makes the shim's `META-INF/services` visible, by which the JDK finds the platform bean.
///
/// JVM(since 17): classes of a jar that an agent adds are found by the VM itself, resources by
/// `jdk.internal.loader.ClassLoaders.bootLoader().ucp`, which 17 fills from `-Xbootclasspath/a`
/// only. 25 fills it for an agent as well; a jar that is there already is not added again.
fn make_resources_visible(env: Env<'_>) -> Result<(), JvmError> {
    let loaders = env.class(c"jdk/internal/loader/ClassLoaders")?;
    let loader_class = env.class(c"jdk/internal/loader/BuiltinClassLoader")?;
    let path_class = env.class(c"jdk/internal/loader/URLClassPath")?;
    let loader = env.call_static(
        &loaders,
        c"bootLoader",
        c"()Ljdk/internal/loader/BuiltinClassLoader;",
        &[],
    )?;
    let jar = env.string(shim_path()?)?;
    let path = env.field(&loader, &loader_class, c"ucp", c"Ljdk/internal/loader/URLClassPath;")?;
    if let Some(path) = path {
        let name = c"addFile";
        let arguments = [Argument::Object(&jar)];
        return env.call_void(&path, &path_class, name, c"(Ljava/lang/String;)V", &arguments);
    }
    let arguments = [Argument::Object(&jar), Argument::Boolean(false)];
    let path = env.new_object(&path_class, c"(Ljava/lang/String;Z)V", &arguments)?;
    env.call_void(
        &loader,
        &loader_class,
        c"setClassPath",
        c"(Ljdk/internal/loader/URLClassPath;)V",
        &[Argument::Object(&path)],
    )
}

/// Says for the application what some frameworks want to be told before they take part in
/// checkpoints, unless it was said already.
///
/// Quarkus asks so since 3.31 (quarkusio/quarkus#51920), once, when its class loader is made.
fn opt_in(env: Env<'_>) -> Result<(), JvmError> {
    let name = env.string(c"quarkus.package.jar.crac.enabled")?;
    let yes = env.string(c"true")?;
    let system = env.class(c"java/lang/System")?;
    let two = c"(Ljava/lang/String;Ljava/lang/String;)Ljava/lang/String;";
    let arguments = [Argument::Object(&name), Argument::Object(&yes)];
    let value = env.call_static(&system, c"getProperty", two, &arguments)?;
    // Not `setProperty`, which returns null where there was no value.
    let arguments = [Argument::Object(&name), Argument::Object(&value)];
    let one = c"(Ljava/lang/Object;Ljava/lang/Object;)Ljava/util/Map;";
    let entry = env.call_static(&env.class(c"java/util/Map")?, c"of", one, &arguments)?;
    let properties =
        env.call_static(&system, c"getProperties", c"()Ljava/util/Properties;", &[])?;
    let table = env.class(c"java/util/Properties")?;
    env.call_void(
        &properties,
        &table,
        c"putAll",
        c"(Ljava/util/Map;)V",
        &[Argument::Object(&entry)],
    )
}

/// Lets the shim extend the JDK's provider of platform beans. Without this the service file
/// would break every look-up of a platform bean, so that it comes before main.
///
/// JVM(since 17): JVMTI's AddModuleExports keeps the books of reflection as well, whose first use
/// loads 100 classes and costs 10 ms. A subclass only needs what the VM itself checks, which is
/// `java.lang.Module.addExports0`; same on 25. JVMTI does where that has another name one day.
fn export_management(jvm: &Jvm, env: Env<'_>, reader: &Object<'_>) -> Result<(), JvmError> {
    let Ok(provider) = env.class(c"sun/management/spi/PlatformMBeanProvider") else {
        // A runtime without java.management, which nobody can ask for a platform bean.
        return Ok(());
    };
    let management = env.module(&provider)?;
    let package = env.string(c"sun.management.spi")?;
    let module_class = env.class(c"java/lang/Module")?;
    env.call_static_void(
        &module_class,
        c"addExports0",
        c"(Ljava/lang/Module;Ljava/lang/String;Ljava/lang/Module;)V",
        &[Argument::Object(&management), Argument::Object(&package), Argument::Object(reader)],
    )
    .or_else(|_| jvm.export(&management, c"sun.management.spi", reader))
}

fn shim_path() -> Result<&'static CStr, JvmError> {
    shim::path().map_err(|error| JvmError::new(&error))
}

/// Tells of a failure of the start; the application is not to blame and goes on.
fn report(result: Result<(), JvmError>) {
    if let Err(error) = result {
        // Not `eprintln!`, which panics where nobody listens.
        let _ = writeln!(io::stderr(), "tub: this JVM will not take part in checkpoints: {error}");
    }
}

fn describe(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
