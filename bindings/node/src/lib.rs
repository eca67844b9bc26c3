//! Taking part in checkpoints, for Node.js: the addon behind `package/index.js`.
//!
//! In: calls of JavaScript, by number. Out: calls of one function of JavaScript's, on its own thread: a
//! hook to run, or the end of a checkpoint; each is one text of JSON.
//! Invariant: the thread of a round waits for JavaScript; JavaScript never waits for a round.
//! Not here: the hooks themselves, and what they mean (`package/index.js`).

use napi::bindgen_prelude::Buffer;
use napi::threadsafe_function::{
    ErrorStrategy, ThreadSafeCallContext, ThreadsafeFunction, ThreadsafeFunctionCallMode,
};
use napi::{Env, JsFunction};
use napi_derive::napi;
use serde_json::{json, Value};
use std::collections::HashMap;
use std::ffi::{c_double, c_int, c_void};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{sync_channel, SyncSender};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use tubthumping_app::{
    global_context, start_as, ErrorKind, HookError, Outcome, Registration, Resource, Runtime,
};

type Notify = ThreadsafeFunction<String, ErrorStrategy::Fatal>;

/// What all threads share.
#[derive(Default)]
struct House {
    registrations: HashMap<u32, Registration>,
    /// Who waits for the end of which call of a hook.
    calls: HashMap<u32, SyncSender<Vec<(String, String)>>>,
}

static NOTIFY: OnceLock<Notify> = OnceLock::new();
static NEXT: AtomicU32 = AtomicU32::new(1);

fn house() -> MutexGuard<'static, House> {
    static HOUSE: OnceLock<Mutex<House>> = OnceLock::new();
    HOUSE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

fn next() -> u32 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn notify(message: &Value) {
    if let Some(notify) = NOTIFY.get() {
        notify.call(message.to_string(), ThreadsafeFunctionCallMode::NonBlocking);
    }
}

/// Hooks of JavaScript's, by the number of their registration.
struct Hooks(u32);

impl Hooks {
    fn run(&self, phase: &str, outcome: Value) -> Result<(), HookError> {
        let call = next();
        let (done, ended) = sync_channel(1);
        house().calls.insert(call, done);
        notify(&json!({ "call": call, "hook": self.0, "phase": phase, "outcome": outcome }));
        // The environment of an ended thread of JavaScript's never answers: a round is given up then.
        let failures = ended.recv().unwrap_or_default();
        if failures.is_empty() {
            return Ok(());
        }
        Err(HookError::of(failures))
    }
}

impl Drop for Hooks {
    /// Unregistered, and no round is left that could tell it.
    fn drop(&mut self) {
        notify(&json!({ "released": self.0 }));
    }
}

impl Resource for Hooks {
    fn before_checkpoint(&self) -> Result<(), HookError> {
        self.run("before", Value::Null)
    }

    fn after_restore(&self, outcome: &Outcome) -> Result<(), HookError> {
        self.run("after", shown(outcome))
    }
}

fn shown(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Failed => json!({ "state": "failed", "generation": 0 }),
        Outcome::Resumed(resumed) => json!({
            "state": "resumed",
            "generation": resumed.generation,
            "image": resumed.image.to_string_lossy(),
        }),
        Outcome::Restored(restored) => {
            let environment: HashMap<_, _> = restored
                .environment
                .iter()
                .map(|(name, value)| (name.to_string_lossy(), value.to_string_lossy()))
                .collect();
            let words: Vec<_> = restored.arguments.iter().map(|w| w.to_string_lossy()).collect();
            json!({
                "state": "restored",
                "generation": restored.generation,
                "instance": restored.instance,
                "seed": restored.seed,
                "restoreUnixMs": restored.restore_unix_ms,
                "environment": environment,
                "arguments": words,
            })
        }
    }
}

/// Takes part in checkpoints from now on; says why it cannot, if so. `callback` is called for everything
/// that JavaScript is to do, and does not keep Node alive.
#[napi]
pub fn start(env: Env, runtime: String, callback: JsFunction) -> napi::Result<Option<String>> {
    let arguments = |context: ThreadSafeCallContext<String>| {
        Ok(vec![context.env.create_string(&context.value)?])
    };
    let mut notify: Notify = callback.create_threadsafe_function(0, arguments)?;
    notify.unref(&env)?;
    if NOTIFY.set(notify).is_err() {
        return Ok(Some("another thread of this process takes part already".to_owned()));
    }
    let runtime = Runtime { name: runtime, own_pipes: true };
    Ok(start_as(runtime).err().map(|error| error.to_string()))
}

/// Registers hooks; gives their number.
#[napi]
pub fn register(name: String) -> u32 {
    let hook = next();
    let registration = global_context().register(&name, Hooks(hook));
    house().registrations.insert(hook, registration);
    hook
}

/// Unregisters hooks; gives whether they were there.
#[napi]
pub fn unregister(hook: u32) -> bool {
    let registration = house().registrations.remove(&hook);
    registration.is_some()
}

/// A call of a hook has ended: with types and messages of what failed, in turns.
#[napi]
pub fn done(call: u32, failures: Vec<String>) {
    let pairs = failures.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
    if let Some(waiting) = house().calls.remove(&call) {
        // The round may have been given up.
        let _ = waiting.send(pairs.collect());
    }
}

/// Asks for a checkpoint. The callback is called with `ticket` at its end.
#[napi]
pub fn checkpoint(ticket: u32) -> napi::Result<()> {
    let ask = move || {
        let message = match tubthumping_app::checkpoint() {
            Ok(outcome) => json!({ "ticket": ticket, "outcome": shown(&outcome) }),
            Err(error) => {
                let failures = error.failures.iter().map(|failure| {
                    json!({
                        "type": failure.type_name,
                        "message": failure.message,
                        "resource": failure.resource,
                    })
                });
                let has_image = error.kind == ErrorKind::RestoreException;
                let failures: Vec<_> = failures.collect();
                json!({ "ticket": ticket, "hasImage": has_image, "failures": failures })
            }
        };
        notify(&message);
    };
    thread::Builder::new().name("tub request".into()).spawn(ask)?;
    Ok(())
}

/// Mixes a seed into the random generators of OpenSSL, on all threads; gives whether there are any.
///
/// ABI: RAND_add(3), which Node exports to its addons: it reseeds the generator that those of all threads
/// take their seeds from, and they notice.
#[napi]
pub fn mix_in(seed: Buffer) -> bool {
    type RandAdd = unsafe extern "C" fn(*const c_void, c_int, c_double);
    // SAFETY: dlsym(3) takes a name that ends with NUL.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"RAND_add".as_ptr()) };
    let Ok(length) = c_int::try_from(seed.len()) else { return false };
    if found.is_null() {
        return false;
    }
    // SAFETY: this is the type of OpenSSL's function of that name, in all of its versions since 1.1.
    let add = unsafe { std::mem::transmute::<*mut c_void, RandAdd>(found) };
    // SAFETY: RAND_add reads `length` bytes, which the buffer has, and may be called on any thread.
    unsafe { add(seed.as_ptr().cast(), length, f64::from(length)) };
    true
}
