//! What methods of Java are called with.
//!
//! In: values and references of this thread. Out: the union that JNI's `…A` functions take.
//! Invariant: a reference is borrowed for as long as the argument lives.
//! Not here: the calls (`jvm`).

use super::Object;
use jni_sys::jvalue;

/// What a method is called with.
pub(crate) enum Argument<'a> {
    /// An object.
    Object(&'a Object<'a>),
    /// A `long`.
    Long(i64),
    /// A `boolean`.
    Boolean(bool),
}

impl Argument<'_> {
    pub(super) fn value(&self) -> jvalue {
        match self {
            Argument::Object(object) => jvalue { l: object.raw },
            Argument::Long(long) => jvalue { j: *long },
            Argument::Boolean(boolean) => jvalue { z: *boolean },
        }
    }
}
