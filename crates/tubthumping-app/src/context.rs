//! Resources, and the order that they are told in.
//!
//! In: registrations. Out: snapshots. Invariant: the order of registration is kept; what is
//! registered or unregistered during a round counts from the next one on.
//! Not here: when they are told (`round`).

use crate::failure::HookError;
use crate::outcome::Outcome;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// What wants to know of checkpoints.
///
/// Hooks run on a thread of their own, while all other threads of the application go on.
pub trait Resource: Send + Sync {
    /// Before a checkpoint, in reverse order of registration: close what must not be stored.
    ///
    /// # Errors
    /// Whatever keeps the image from being taken. All others are told all the same.
    fn before_checkpoint(&self) -> Result<(), HookError> {
        Ok(())
    }

    /// After it, in order of registration, in the original (image or not) and in every copy.
    ///
    /// # Errors
    /// Whatever went wrong; whoever asked for the checkpoint gets it.
    fn after_restore(&self, outcome: &Outcome) -> Result<(), HookError> {
        let _ = outcome;
        Ok(())
    }
}

impl<R: Resource + ?Sized> Resource for Arc<R> {
    fn before_checkpoint(&self) -> Result<(), HookError> {
        (**self).before_checkpoint()
    }
    fn after_restore(&self, outcome: &Outcome) -> Result<(), HookError> {
        (**self).after_restore(outcome)
    }
}

#[derive(Clone)]
enum Held {
    Strong(Arc<dyn Resource>),
    Weak(Weak<dyn Resource>),
}

#[derive(Clone)]
struct Entry {
    id: u64,
    name: Arc<str>,
    resource: Held,
}

/// A resource that is told in this round.
#[derive(Clone)]
pub(crate) struct Listed {
    pub(crate) name: Arc<str>,
    pub(crate) resource: Arc<dyn Resource>,
}

#[derive(Default)]
struct Entries {
    last: u64,
    list: Vec<Entry>,
}

/// Resources in order of registration. It is a resource itself, so that contexts nest.
#[derive(Clone, Default)]
pub struct Context {
    entries: Arc<Mutex<Entries>>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Context").field(&self.names()).finish()
    }
}

/// The context that every checkpoint tells.
pub fn global_context() -> &'static Context {
    static GLOBAL: std::sync::OnceLock<Context> = std::sync::OnceLock::new();
    GLOBAL.get_or_init(Context::default)
}

impl Context {
    /// An empty context. It is told once it is registered with another, in the end with
    /// [`global_context`].
    pub fn new() -> Self {
        Self::default()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, name: &str, resource: Held) -> Registration {
        let mut entries = self.entries();
        entries.last += 1;
        let id = entries.last;
        entries.list.push(Entry { id, name: name.into(), resource });
        Registration { context: Arc::downgrade(&self.entries), id, kept: false }
    }

    /// Registers a resource for as long as the registration lives.
    pub fn register(&self, name: &str, resource: impl Resource + 'static) -> Registration {
        self.add(name, Held::Strong(Arc::new(resource)))
    }

    /// The same, without keeping the resource alive: one that is gone is told no more.
    pub fn register_weak<R: Resource + 'static>(
        &self,
        name: &str,
        resource: &Arc<R>,
    ) -> Registration {
        let weak: Weak<dyn Resource> = Arc::<R>::downgrade(resource);
        self.add(name, Held::Weak(weak))
    }

    pub(crate) fn snapshot(&self) -> Vec<Listed> {
        let mut entries = self.entries();
        let is_there = |entry: &Entry| match &entry.resource {
            Held::Strong(_) => true,
            Held::Weak(weak) => weak.strong_count() > 0,
        };
        entries.list.retain(is_there);
        let listed = |entry: &Entry| {
            let resource = match &entry.resource {
                Held::Strong(resource) => Arc::clone(resource),
                Held::Weak(weak) => weak.upgrade()?,
            };
            Some(Listed { name: Arc::clone(&entry.name), resource })
        };
        entries.list.iter().filter_map(listed).collect()
    }

    /// The names of all that are registered, in order.
    pub fn names(&self) -> Vec<String> {
        self.entries().list.iter().map(|entry| entry.name.to_string()).collect()
    }
}

impl Resource for Context {
    fn before_checkpoint(&self) -> Result<(), HookError> {
        let all = self.snapshot();
        let told = all.iter().rev().map(|listed| tell(listed, |r| r.before_checkpoint()));
        collect(told)
    }

    fn after_restore(&self, outcome: &Outcome) -> Result<(), HookError> {
        let all = self.snapshot();
        collect(all.iter().map(|listed| tell(listed, |r| r.after_restore(outcome))))
    }
}

/// Calls one hook. What it failed with bears its name, unless one further in has put its own.
pub(crate) fn tell(
    listed: &Listed,
    hook: impl FnOnce(&dyn Resource) -> Result<(), HookError>,
) -> Result<(), HookError> {
    let outcome = catch_unwind(AssertUnwindSafe(|| hook(&*listed.resource)));
    let result = outcome.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Err(HookError::new("panic", text.unwrap_or_default()))
    });
    result.map_err(|mut error| {
        for failure in &mut error.failures {
            failure.resource.get_or_insert_with(|| listed.name.to_string());
        }
        error
    })
}

fn collect(results: impl Iterator<Item = Result<(), HookError>>) -> Result<(), HookError> {
    let failures: Vec<_> = results.filter_map(Result::err).flat_map(|e| e.failures).collect();
    if failures.is_empty() { Ok(()) } else { Err(HookError { failures }) }
}

/// A resource's place in a context; it is unregistered when this is dropped.
#[derive(Debug)]
#[must_use = "dropping it unregisters the resource"]
pub struct Registration {
    context: Weak<Mutex<Entries>>,
    id: u64,
    kept: bool,
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries").field("len", &self.list.len()).finish_non_exhaustive()
    }
}

impl Registration {
    /// A number that no other registration with the same context has; never 0.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Leaves the resource registered for as long as the process lives.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(entries) = self.context.upgrade().filter(|_| !self.kept) {
            let mut entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.list.retain(|entry| entry.id != self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes what it is told, and fails if it is to.
    struct Noted(&'static str, Arc<Mutex<Vec<String>>>, bool);

    impl Noted {
        fn note(&self, what: &str) -> Result<(), HookError> {
            self.1.lock().unwrap().push(format!("{what} {}", self.0));
            if self.2 { Err(HookError::new("Tired", self.0)) } else { Ok(()) }
        }
    }

    impl Resource for Noted {
        fn before_checkpoint(&self) -> Result<(), HookError> {
            self.note("before")
        }
        fn after_restore(&self, _: &Outcome) -> Result<(), HookError> {
            self.note("after")
        }
    }

    #[test]
    fn contexts_nest_in_order_and_every_failure_is_told() {
        let notes = Arc::new(Mutex::new(Vec::new()));
        let resource = |name, fails| Noted(name, Arc::clone(&notes), fails);
        let (outer, inner) = (Context::new(), Context::new());
        let _one = outer.register("one", resource("one", false));
        let _nested = outer.register("nested", inner.clone());
        let _two = inner.register("two", resource("two", true));
        let _three = inner.register("three", resource("three", true));
        let four = outer.register("four", resource("four", false));
        let failed = outer.before_checkpoint().unwrap_err();
        let told: Vec<_> = failed.failures.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["three: Tired: three", "two: Tired: two"]);
        drop(four);
        let _ = outer.after_restore(&Outcome::Failed);
        let notes = notes.lock().unwrap();
        let before = ["before four", "before three", "before two", "before one"];
        assert_eq!(*notes, [&before[..], &["after one", "after two", "after three"]].concat());
    }

    #[test]
    fn weak_ones_go_by_themselves_and_panics_are_failures() {
        struct Panics;
        impl Resource for Panics {
            fn before_checkpoint(&self) -> Result<(), HookError> {
                panic!("at the disco")
            }
        }
        let context = Context::new();
        let panics = Arc::new(Panics);
        context.register_weak("panics", &panics).keep();
        let failed = context.before_checkpoint().unwrap_err();
        assert_eq!(failed.failures[0].to_string(), "panics: panic: at the disco");
        drop(panics);
        assert!(context.before_checkpoint().is_ok() && context.names().is_empty());
    }
}
